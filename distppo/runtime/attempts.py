"""How often to try again, and after how long. Plain arithmetic, without processes or clocks."""

from __future__ import annotations

from dataclasses import dataclass

LONGEST_PAUSE = 60.0
"""Seconds between two attempts at most, however many there were."""


@dataclass
class Attempts:
    """Failures in a row at one thing: a fragment, an evaluation or an update. Success starts a new count.

    Attributes:
        failures: of any kind.
        crashes: those among them in which a process died or hung while it was at it; not those of the network, or of a start.
        hangs: those among them that a deadline ended.
    """

    failures: int = 0
    crashes: int = 0
    hangs: int = 0

    def failed(self, *, crashed: bool = False, hung: bool = False) -> None:
        """Counts one more."""
        self.failures += 1
        self.crashes += crashed or hung
        self.hangs += hung

    def succeeded(self) -> None:
        """Forgets all of them."""
        self.failures = self.crashes = self.hangs = 0

    def exhausted(self, limit: int) -> bool:
        """Whether more than `limit` attempts have failed."""
        return self.failures > limit

    def pause(self, backoff: float) -> float:
        """Returns the seconds until the next attempt: none after the first failure, then `backoff`, doubled each time."""
        return 0.0 if self.failures < 2 else min(LONGEST_PAUSE, backoff * 2.0 ** min(self.failures - 2, 32))

    def needs_new_episodes(self, limit: int) -> bool:
        """Whether the same states and actions have failed often enough to be the reason: twice past a deadline, or half of the attempts."""
        return self.hangs > 1 or self.crashes > (limit + 1) // 2

    @property
    def contagious(self) -> bool:
        """Whether another process had better not be given what this is about: it might end the same way."""
        return self.crashes > 1
