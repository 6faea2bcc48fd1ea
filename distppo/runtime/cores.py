"""The cores of this machine, and the learner among workers where there are fewer of them than processes."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager


def available_cores() -> int:
    """Returns the cores this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


class CoreRotation:
    """Takes this thread from core to core, one at each call of `next`, so that every worker gives up the same share of its time.

    The system's scheduler evens out the cores' queues only when one is empty: left alone the learner stays beside one worker, all wait
    for that one at the end of the iteration, and the other cores idle. Where threads cannot be bound to cores it does nothing.

    Args:
        workers: that collect on this machine meanwhile; fewer than cores leave the learner one of its own, and it stays where it is.
    """

    def __init__(self, workers: int) -> None:
        cores = sorted(os.sched_getaffinity(0)) if hasattr(os, "sched_setaffinity") else []
        self._cores = cores if workers >= len(cores) else []
        self._turn = 0

    def next(self) -> None:
        """Moves on to the next core."""
        if self._cores:
            os.sched_setaffinity(0, {self._cores[self._turn % len(self._cores)]})
            self._turn += 1

    @contextmanager
    def running(self) -> Iterator[None]:
        """Lets the thread run anywhere again after the block."""
        try:
            yield
        finally:
            if self._cores:
                os.sched_setaffinity(0, self._cores)
