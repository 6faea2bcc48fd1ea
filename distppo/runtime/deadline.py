"""How long a fragment or an evaluation may take before its process counts as hanging."""

from __future__ import annotations

PATIENCE = 10.0
"""Times the slowest pace seen so far."""
SHORTEST = 60.0
"""Seconds that anything may take: other programs use the machine too."""
UNMEASURED = 1800.0
"""Seconds for work of which nothing is known: before the first fragment, or episodes without a time limit."""


class Deadline:
    """Seconds for a number of env steps, by what they took so far.

    Args:
        fixed: `fault.collect_timeout`; None measures.
    """

    def __init__(self, fixed: float | None) -> None:
        self._fixed = fixed
        self._pace = 0.0

    def measured(self, env_steps: int, seconds: float) -> None:
        """Takes note of what one process needed for a fragment."""
        self._pace = max(self._pace, seconds / env_steps)

    def seconds(self, env_steps: int | None) -> float:
        """Returns how long one process may take for so many env steps; None: nobody knows how many."""
        if self._fixed is not None:
            return self._fixed
        if env_steps is None or self._pace == 0.0:
            return UNMEASURED
        return max(SHORTEST, PATIENCE * self._pace * env_steps)
