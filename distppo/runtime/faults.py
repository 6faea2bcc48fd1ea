"""What goes wrong while a run goes on: counted, told to people, written down. Nothing here imports ray."""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

from distppo.metrics import FAULT_METRICS
from distppo.types import EnvStates, FaultEvent, PolicySnapshot


class Recovery(NamedTuple):
    """The end of a fault: what had failed has been done.

    Attributes:
        where: as the fault said it.
        seconds: from the fault to here.
    """

    where: str
    seconds: float


class Crash(NamedTuple):
    """A process that did not come back from a fragment, and all that is needed to collect that again.

    Attributes:
        fault: what happened.
        states: of the worker's environments before the fragment.
        snapshot: it was being collected with.
        iteration: it was being collected for.
    """

    fault: FaultEvent
    states: EnvStates
    snapshot: PolicySnapshot
    iteration: int


News = FaultEvent | Crash | Recovery


def fault_text(kind: str, where: str, why: str, done: str) -> str:
    """Returns a fault in two lines, for people."""
    return f"fault: {kind.replace('_', ' ')}: {where}: {why}\n  {done}"


class FaultLog:
    """Counts the faults of a run, and tells them to whoever listens. What came before anybody did is told first.

    Attributes:
        counts: metric -> faults of its kinds, since this process started.
    """

    def __init__(self) -> None:
        self.counts = dict.fromkeys(FAULT_METRICS.values(), 0)
        self._tell: Callable[[News], None] | None = None
        self._untold: list[News] = []

    @property
    def total(self) -> int:
        """Faults of every kind."""
        return sum(self.counts.values())

    def listen(self, tell: Callable[[News], None]) -> None:
        """Tells everything to `tell` from now on."""
        self._tell = tell
        untold, self._untold = self._untold, []
        for each in untold:
            tell(each)

    def record(self, kind: str, where: str, why: str, done: str) -> None:
        """Counts and tells a fault; see FaultEvent for the words."""
        self.add(FaultEvent(kind, where, why, done))

    def count(self, kind: str) -> None:
        """Counts one more of what has been told already and goes on."""
        self.counts[FAULT_METRICS[kind]] += 1

    def add(self, fault: FaultEvent) -> None:
        """Counts and tells a fault that somebody else has noticed."""
        self.counts[FAULT_METRICS[fault.kind]] += fault.times
        self._pass_on(fault)

    def crashed(self, crash: Crash) -> None:
        """Counts and tells the end of a process in the middle of a fragment."""
        self.counts[FAULT_METRICS[crash.fault.kind]] += 1
        self._pass_on(crash)

    def recovered(self, where: str, seconds: float) -> None:
        """Tells that what had failed at `where` has been done after all."""
        self._pass_on(Recovery(where, seconds))

    def _pass_on(self, news: News) -> None:
        if self._tell is None:
            self._untold.append(news)
        else:
            self._tell(news)
