"""Count, mean and squared deviations that merge exactly, in float64.

Chan, Golub, LeVeque: "Updating Formulae and a Pairwise Algorithm for Computing Sample Variances" (1979). Deltas of fragments are
merged, never totals: a merged count is the number of samples, whatever was merged in whatever grouping.
"""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np

from distppo.types import Moments

VARIANCE_FLOOR = 1e-8
"""Added to the variance under the square root, so that a constant feature is divided by 1e-4, not by 0."""


def empty_moments(shape: tuple[int, ...]) -> Moments:
    """Returns the moments of no samples of the given shape: the neutral element of `merge`."""
    return Moments(np.zeros(()), np.zeros(shape), np.zeros(shape))


def moments_of(samples: np.ndarray) -> Moments:
    """Returns the moments along the first axis, by two passes.

    Args:
        samples: [T, ..., *S] any real dtype, T >= 0. The axes between stay: [T, N, *S] gives one entry per environment.
    """
    count = samples.shape[0]
    if count == 0:
        return Moments(np.zeros(()), np.zeros(samples.shape[1:]), np.zeros(samples.shape[1:]))
    mean = samples.mean(axis=0, dtype=np.float64)
    deviations = samples - mean
    np.square(deviations, out=deviations)
    return Moments(np.asarray(float(count)), mean, deviations.sum(axis=0))


def merge(first: Moments, second: Moments) -> Moments:
    """Returns the moments of both sets of samples together.

    mean = mean_1 + d n_2 / n and M2 = M2_1 + M2_2 + d^2 n_1 n_2 / n with d = mean_2 - mean_1 and n = n_1 + n_2.
    """
    if second.count == 0:
        return first
    if first.count == 0:
        return second
    total = first.count + second.count
    difference = second.mean - first.mean
    weight = second.count / total
    return Moments(
        np.asarray(total),
        first.mean + difference * weight,
        first.m2 + second.m2 + difference * difference * (first.count * weight),
    )


def merge_all(initial: Moments, deltas: Iterable[Moments]) -> Moments:
    """Returns `initial` merged with every delta, in the order given."""
    for delta in deltas:
        initial = merge(initial, delta)
    return initial


def per_env(moments: Moments) -> list[Moments]:
    """Splits [N] moments into N, in environment order. A scalar count holds for every environment."""
    counts = np.broadcast_to(moments.count, moments.mean.shape[:1])
    return [Moments(np.asarray(c), m, s) for c, m, s in zip(counts, moments.mean, moments.m2, strict=True)]


def standard_deviation(moments: Moments) -> np.ndarray:
    """Returns sqrt(M2 / n + 1e-8), [*S] float64; ones where there are no samples yet."""
    if moments.count == 0:
        return np.ones_like(moments.m2)
    return np.asarray(np.sqrt(moments.m2 / moments.count + VARIANCE_FLOOR))
