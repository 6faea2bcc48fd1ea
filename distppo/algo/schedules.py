"""Learning rates as functions of absolute progress, and the rate that follows the KL."""

from __future__ import annotations

import math

KL_FACTOR = 1.5
KL_RATE_BOUNDS = (1e-6, 1e-2)


def scheduled_rate(schedule: str, initial: float, progress: float) -> float:
    """Returns the learning rate of an update.

    Args:
        schedule: constant, linear (initial to 0) or cosine (initial to 0, half a period).
        initial: learning rate at progress 0.
        progress: env steps learned from before this update / total_timesteps; clipped to [0, 1].

    Raises:
        ValueError: unknown schedule.
    """
    progress = min(max(progress, 0.0), 1.0)
    if schedule == "constant":
        return initial
    if schedule == "linear":
        return initial * (1.0 - progress)
    if schedule == "cosine":
        return initial * 0.5 * (1.0 + math.cos(math.pi * progress))
    raise ValueError(f"unknown schedule {schedule!r}; use constant, linear or cosine")


def kl_adapted_rate(rate: float, kl: float, target: float) -> float:
    """Returns `rate` / 1.5 if `kl` > 2 `target`, x 1.5 if `kl` < `target` / 2, else `rate`; within [1e-6, 1e-2].

    Args:
        rate: learning rate of the pass just made.
        kl: nats by which that pass moved the policy.
        target: nats it should move by.
    """
    low, high = KL_RATE_BOUNDS
    if kl > 2.0 * target:
        return max(rate / KL_FACTOR, low)
    if kl < 0.5 * target:
        return min(rate * KL_FACTOR, high)
    return rate
