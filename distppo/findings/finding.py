"""The records: what a rule looks at, what it says, and the series of a metric."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from enum import IntEnum
from typing import Any, NamedTuple

STEPS = "time/total_timesteps"
LARGEST = 1e100
"""What is beyond measures nothing; sums and squares of it would overflow."""


class Severity(IntEnum):
    """How much a finding matters; the worst sorts first."""

    PROBLEM = 0
    WARNING = 1
    NOTE = 2


class Point(NamedTuple):
    """A finite value of a metric and the env steps it was taken at."""

    step: int
    value: float


class Hit(NamedTuple):
    """What a rule saw: a sentence with the numbers, and the env steps between which it holds."""

    text: str
    first: int
    last: int
    severity: Severity | None = None


class RunRecord(NamedTuple):
    """A run as the rules see it.

    Attributes:
        rows: of metrics.jsonl, oldest first; a value that was not taken is absent, None or NaN.
        settings: by dotted key, such as "ppo.target_kl"; those that are not known are absent.
        events: of metrics.jsonl, oldest first.
    """

    rows: Sequence[Mapping[str, Any]]
    settings: Mapping[str, Any] = {}
    events: Sequence[Mapping[str, Any]] = ()

    def series(self, key: str) -> list[Point]:
        """The finite values of a metric, oldest first."""
        return [Point(row[STEPS], row[key]) for row in self.rows if is_finite(row.get(key))]

    @property
    def steps(self) -> int:
        """Env steps of the newest row, 0 before the first."""
        return int(self.rows[-1][STEPS]) if self.rows else 0

    @property
    def planned_steps(self) -> int:
        """Env steps that the run is to reach, as far as that is known."""
        return max(self.steps, number(self.settings.get("run.total_timesteps"), 0))


class Rule(NamedTuple):
    """One thing that can be wrong.

    Attributes:
        title: heading of its section in docs/troubleshooting.md.
        severity: of its findings, where the rule does not say otherwise.
        advice: what to try.
        check: yields what it sees in a run; a rule over several seeds has none.
    """

    title: str
    severity: Severity
    advice: str
    check: Callable[[RunRecord], Iterator[Hit]] | None = None

    @property
    def id(self) -> str:
        """The anchor that a heading with this title gets."""
        return re.sub(r"[^a-z0-9 -]", "", self.title.lower()).replace(" ", "-")

    def finding(self, hit: Hit) -> Finding:
        """The finding for what was seen."""
        severity = self.severity if hit.severity is None else hit.severity
        return Finding(self.id, severity, self.title, hit.text, self.advice, hit.first, hit.last)


class Finding(NamedTuple):
    """Something about a run that deserves attention.

    Attributes:
        id: of the rule; anchor in docs/troubleshooting.md.
        severity: how much it matters.
        title: the rule's, a few words.
        text: what was seen, with the numbers and the env steps.
        advice: what to try.
        first_step: env steps at which it begins.
        last_step: env steps at which it ends, or up to which it was seen.
    """

    id: str
    severity: Severity
    title: str
    text: str
    advice: str
    first_step: int
    last_step: int


def is_finite(value: Any) -> bool:
    """True for a number that is neither NaN nor infinite, nor so large that sums overflow; False for booleans, texts and None."""
    return isinstance(value, int | float) and not isinstance(value, bool) and abs(value) <= LARGEST


def number(value: Any, default: Any) -> Any:
    """The value if it is a finite number, else the default."""
    return value if is_finite(value) else default
