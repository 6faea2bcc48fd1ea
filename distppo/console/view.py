"""What a display knows of a run: the newest row, and what has to be remembered from earlier ones."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterable, Mapping, Sequence

from distppo.console.text import is_number

Row = Mapping[str, float | None]
Findings = Callable[[Sequence[Row]], Sequence[str]]
"""Says in a line each what is remarkable about the rows of a run, oldest first."""

PHASES = ("collect", "update", "broadcast", "evaluate", "checkpoint", "other")
_STEPS = "time/total_timesteps"
_EVAL = "eval/mean_reward"
_FAULTS = "faults/"
_BUSY = {"workers": "dist/worker_seconds_mean", "learner": "dist/learner_seconds"}
_LOOK_AGAIN = 5.0
"""Seconds between two looks for findings: one takes up to 20 ms."""


class RunView:
    """The state behind a display.

    Args:
        title: of the run.
        total: env steps at which it ends.
        initial: env steps it starts from.
        findings: what to say about the rows so far; None says nothing.
        clock: seconds, monotonic.

    Attributes:
        row: the newest row of metrics; empty before the first.
        evaluation: the newest row that has an evaluation.
        seconds: phase -> seconds in all rows so far.
        returns: mean episode returns so far.
        state: how the run is, in a word or two; empty while that goes without saying.
        running: whether there is more to come.
    """

    def __init__(
        self, title: str, *, total: int, initial: int, findings: Findings | None = None, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self.title = title
        self.total = total
        self.row: Row = {}
        self.evaluation: Row = {}
        self.seconds = dict.fromkeys(PHASES, 0.0)
        self.returns = History()
        self.state = ""
        self.running = True
        self._initial = initial
        self._busy = {"workers": 0.0, "learner": 0.0}
        self._find = findings
        self._rows = RowHistory()
        self._found: Sequence[str] = ()
        self._clock = clock
        self._looked_at = -math.inf

    def restarted(self, rows: Iterable[Row]) -> RunView:
        """Returns the view of the same run that knows these rows and no others."""
        view = RunView(self.title, total=self.total, initial=self._initial, findings=self._find, clock=self._clock)
        view.state, view.running = self.state, self.running
        for row in rows:
            view.update(row)
        return view

    def update(self, row: Row) -> None:
        """Takes in the metrics of one more iteration."""
        self.row = row
        self._rows.add(row)
        if is_number(row.get(_EVAL)):
            self.evaluation = row
        for phase in PHASES:
            seconds = row.get(f"time/{phase}")
            if is_number(seconds):
                self.seconds[phase] += seconds
        for who, key in _BUSY.items():
            seconds = row.get(key)
            if is_number(seconds):
                self._busy[who] += seconds
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
        """Seconds to go at the mean speed so far; None before that is known, and where nothing more is to come."""
        fps = self.row.get("time/fps")
        return max(0, self.total - self.steps) / fps if self.running and is_number(fps) and fps > 0 else None

    def shares(self) -> dict[str, float]:
        """Phase -> its share of the time so far; empty before there is any."""
        total = sum(self.seconds.values())
        return {phase: seconds / total for phase, seconds in self.seconds.items()} if total > 0 else {}

    def idle(self) -> dict[str, float]:
        """The share of the time so far in which the workers (on average) and the learner had nothing to do; empty before there is any."""
        total = sum(self.seconds.values())
        return {who: max(0.0, 1 - busy / total) for who, busy in self._busy.items() if busy > 0} if total > 0 else {}

    @property
    def findings(self) -> Sequence[str]:
        """What is remarkable about the rows so far, looked for when asked, and not again for a few seconds."""
        if self._find is not None and self.row and self._clock() - self._looked_at >= _LOOK_AGAIN:
            self._found = self._find(self._rows.rows())
            self._looked_at = self._clock()
        return self._found


class RowHistory:
    """All rows of a run in bounded space: when it is full, neighbours become one row, and from then on as many at a time.

    A row that stands for several has the mean of their finite values, and the env steps of the last.

    Args:
        capacity: rows kept at most; even.
    """

    def __init__(self, capacity: int = 256) -> None:
        self._capacity = capacity
        self._rows: list[Row] = []
        self._stride = 1
        self._pending: list[Row] = []

    def add(self, row: Row) -> None:
        """Adds the newest row."""
        self._pending.append(row)
        if len(self._pending) < self._stride:
            return
        self._rows.append(_merged(self._pending))
        self._pending = []
        if len(self._rows) == self._capacity:
            self._rows = [_merged(self._rows[index : index + 2]) for index in range(0, self._capacity, 2)]
            self._stride *= 2

    def rows(self) -> list[Row]:
        """The rows, oldest first; the last may stand for fewer than the others."""
        return [*self._rows, _merged(self._pending)] if self._pending else list(self._rows)


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


def _merged(rows: Sequence[Row]) -> Row:
    if len(rows) == 1:
        return rows[0]
    values: dict[str, list[float]] = {}
    for row in rows:
        for key, value in row.items():
            if isinstance(value, int | float) and is_number(value):
                values.setdefault(key, []).append(value)
    return {**rows[-1], **{key: _mean(series) for key, series in values.items()}, _STEPS: rows[-1].get(_STEPS)}
