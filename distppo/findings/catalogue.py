"""All rules, by the section of docs/troubleshooting.md that explains them, and the two functions that apply them."""

from __future__ import annotations

from collections.abc import Mapping

from distppo.findings import faults, losses, returns, speed, update
from distppo.findings.finding import Finding, Rule, RunRecord

RULES: tuple[Rule, ...] = (*returns.RULES, *losses.RULES, *update.RULES, *speed.RULES, *faults.RULES)


def find(run: RunRecord) -> list[Finding]:
    """What the rules see in one run, the worst first; nothing for a run that is well, or too short to judge.

    Example:
        >>> find(RunRecord(rows=[]))
        []
    """
    return _worst_first([rule.finding(hit) for rule in RULES if rule.check for hit in rule.check(run)])


def find_between_seeds(runs: Mapping[str, RunRecord]) -> list[Finding]:
    """What the rules see in several runs of one configuration, by their names, taken together."""
    return _worst_first([rule.finding(hit) for rule, check in returns.BETWEEN_SEEDS for hit in check(runs)])


def _worst_first(findings: list[Finding]) -> list[Finding]:
    return sorted(findings, key=lambda finding: finding.severity)
