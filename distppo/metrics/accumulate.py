"""What is summed up while a run goes on: means, the window of recent episodes, time by phase."""

from __future__ import annotations

import math
import time
from collections import deque
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

from distppo.metrics.jsonl import decode_number, encode_number

PHASES = ("collect", "update", "broadcast", "evaluate", "checkpoint")


class Mean:
    """A mean as (sum, count), so that means of parts of any size add up to the mean of the whole.

    Example:
        >>> mean = Mean()
        >>> mean.add(6.0, count=3)
        >>> mean.add(4.0)
        >>> mean.value
        2.5
    """

    def __init__(self) -> None:
        self.sum = 0.0
        self.count = 0

    def add(self, total: float, count: int = 1) -> None:
        """Adds `count` samples whose sum is `total`."""
        self.sum += total
        self.count += count

    @property
    def value(self) -> float | None:
        """The mean; None before the first sample."""
        return self.sum / self.count if self.count else None


class EpisodeWindow:
    """Return and length of the last `size` finished episodes; its `len` is how many there are so far."""

    def __init__(self, size: int = 100) -> None:
        self._episodes: deque[tuple[float, int]] = deque(maxlen=size)

    def add(self, episode_return: float, length: int) -> None:
        """Adds one finished episode: its undiscounted return of raw rewards and its env steps."""
        self._episodes.append((float(episode_return), int(length)))

    def __len__(self) -> int:
        return len(self._episodes)

    @property
    def mean_return(self) -> float | None:
        """Mean return over the window; None before the first episode."""
        if not self._episodes:
            return None
        try:
            return math.fsum(episode_return for episode_return, _ in self._episodes) / len(self)
        except (OverflowError, ValueError):  # infinities of both signs, or a sum beyond the largest float
            return math.nan

    @property
    def mean_length(self) -> float | None:
        """Mean length over the window, env steps; None before the first episode."""
        return sum(length for _, length in self._episodes) / len(self) if self._episodes else None

    def state(self) -> dict[str, Any]:
        """Everything in it, as JSON values."""
        return {"episodes": [[encode_number(episode_return), length] for episode_return, length in self._episodes]}

    def load_state(self, state: Mapping[str, Any]) -> None:
        """Becomes what `state()` was taken from; of a larger window the newest episodes.

        Raises:
            KeyError, TypeError, ValueError: that is not what it is.
        """
        episodes = [(float(decode_number(episode_return)), int(length)) for episode_return, length in state["episodes"]]
        self._episodes.clear()
        self._episodes.extend(episodes)


class PhaseTimer:
    """Wall time by named phase, an iteration at a time and in total. What no phase covers is not counted.

    Example:
        >>> timer = PhaseTimer()
        >>> with timer.phase("collect"):
        ...     pass
        >>> list(timer.take())
        ['collect', 'update', 'broadcast', 'evaluate', 'checkpoint']

    Args:
        clock: seconds, monotonic.

    Attributes:
        totals: phase -> seconds in all that has been taken.
    """

    def __init__(self, clock: Callable[[], float] = time.perf_counter) -> None:
        self.totals = dict.fromkeys(PHASES, 0.0)
        self._clock = clock
        self._seconds = dict.fromkeys(PHASES, 0.0)
        self._running: str | None = None

    @contextmanager
    def phase(self, name: str) -> Iterator[None]:
        """Adds the time of the block to phase `name`, also if it raises.

        Raises:
            ValueError: `name` is none of PHASES.
        """
        if name not in self._seconds:
            raise ValueError(f"{name!r} is not a phase; these are: {', '.join(PHASES)}")
        assert self._running is None, f"phase {name} inside {self._running}: its time would count twice"
        self._running = name
        start = self._clock()
        try:
            yield
        finally:
            self._seconds[name] += self._clock() - start
            self._running = None

    def take(self) -> dict[str, float]:
        """Phase -> seconds since the last call, all of PHASES in order; counts from 0 again."""
        seconds = self._seconds
        for name, value in seconds.items():
            self.totals[name] += value
        self._seconds = dict.fromkeys(PHASES, 0.0)
        return seconds
