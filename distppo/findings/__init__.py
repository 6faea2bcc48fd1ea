"""What the metrics of a run say, in words: rules over the rows of metrics.jsonl. Pure functions of numbers; nothing is read or written.

`docs/troubleshooting.md` has a section for each rule, under the heading that is the rule's title.
"""

from distppo.findings.catalogue import RULES, find, find_between_seeds
from distppo.findings.finding import Finding, Rule, RunRecord, Severity

__all__ = ["RULES", "Finding", "Rule", "RunRecord", "Severity", "find", "find_between_seeds"]
