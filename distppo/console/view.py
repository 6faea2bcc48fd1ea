"""What a display knows of a run: the newest row, and what has to be remembered from earlier ones."""

from __future__ import annotations

from collections.abc import Mapping

from distppo.console.text import is_number

PHASES = ("collect", "update", "broadcast", "evaluate", "checkpoint", "other")
_STEPS = "time/total_timesteps"
_EVAL = "eval/mean_reward"
_FAULTS = "faults/"


class RunView:
    """The state behind a display.

    Args:
        title: of the run.
        total: env steps at which it ends.
        initial: env steps it starts from.

    Attributes:
        row: the newest row of metrics; empty before the first.
        evaluation: the newest row that has an evaluation.
        seconds: phase -> seconds in all rows so far.
        returns: mean episode returns so far.
    """

    def __init__(self, title: str, *, total: int, initial: int) -> None:
        self.title = title
        self.total = total
        self.row: Mapping[str, float | None] = {}
        self.evaluation: Mapping[str, float | None] = {}
        self.seconds = dict.fromkeys(PHASES, 0.0)
        self.returns = History()
        self._initial = initial

    def update(self, row: Mapping[str, float | None]) -> None:
        """Takes in the metrics of one more iteration."""
        self.row = row
        if is_number(row.get(_EVAL)):
            self.evaluation = row
        for phase in PHASES:
            seconds = row.get(f"time/{phase}")
            if is_number(seconds):
                self.seconds[phase] += seconds
        self.returns.add(row.get("rollout/ep_rew_mean"))

    @property
    def steps(self) -> int:
        """Env steps learned from."""
        return int(self.row.get(_STEPS) or self._initial)

    @property
    def progress(self) -> float:
        """Share of the run that is done, in [0, 1]."""
        return min(1.0, self.steps / self.total) if self.total > 0 else 1.0

    @property
    def faults(self) -> dict[str, int]:
        """What went wrong so far, by kind; empty while nothing has."""
        counts = {key.removeprefix(_FAULTS): value for key, value in self.row.items() if key.startswith(_FAULTS)}
        return {name: int(value) for name, value in counts.items() if is_number(value) and value > 0}

    @property
    def eta(self) -> float | None:
        """Seconds to go at the mean speed so far; None before that is known."""
        fps = self.row.get("time/fps")
        return max(0, self.total - self.steps) / fps if is_number(fps) and fps > 0 else None

    def shares(self) -> dict[str, float]:
        """Phase -> its share of the time so far; empty before there is any."""
        total = sum(self.seconds.values())
        return {phase: seconds / total for phase, seconds in self.seconds.items()} if total > 0 else {}


class History:
    """All values of a series in bounded space: when it is full, neighbours are averaged, and from then on as many at a time.

    Args:
        capacity: points kept at most; even.
    """

    def __init__(self, capacity: int = 512) -> None:
        self._capacity = capacity
        self._points: list[float] = []
        self._stride = 1
        self._pending: list[float] = []

    def add(self, value: float | None) -> None:
        """Adds one value; a missing or non-finite one is left out."""
        if not is_number(value):
            return
        self._pending.append(value)
        if len(self._pending) < self._stride:
            return
        self._points.append(_mean(self._pending))
        self._pending = []
        if len(self._points) == self._capacity:
            self._points = [_mean(self._points[index : index + 2]) for index in range(0, self._capacity, 2)]
            self._stride *= 2

    def values(self) -> list[float]:
        """The points, oldest first; the last may stand for fewer values than the others."""
        return [*self._points, _mean(self._pending)] if self._pending else self._points


def _mean(values: list[float]) -> float:
    return sum(values) / len(values)
