"""What some scores say of a policy: the interquartile mean and a bootstrap interval around it.

Agarwal, Schwarzer, Castro, Courville, Bellemare: "Deep Reinforcement Learning at the Edge of the Statistical Precipice" (2021),
https://arxiv.org/abs/2108.13264.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

CONFIDENCE = 0.95
RESAMPLES = 5000
_NUMBERS_AT_ONCE = 2**22
_RESAMPLING_SEED = 0


def interquartile_mean(scores: np.ndarray) -> np.ndarray:
    """Returns the mean of the middle half along the last axis: less noisy than the median, and no outlier moves it.

    With n scores in order, x_1 <= ... <= x_n, and k = floor(n / 4):  (x_{k+1} + ... + x_{n-k}) / (n - 2k).

    Args:
        scores: [..., n], n >= 1.
    """
    cut = scores.shape[-1] // 4
    middle = np.sort(scores, axis=-1)[..., cut : scores.shape[-1] - cut]
    return np.asarray(middle.mean(axis=-1))


def iqm_interval(strata: Sequence[np.ndarray], *, confidence: float = CONFIDENCE, resamples: int = RESAMPLES) -> tuple[float, float] | None:
    """Returns the stratified bootstrap interval of the interquartile mean (percentile method, as in the paper).

    Each resample draws with replacement inside each stratum as many scores as it has, and takes the interquartile mean of all of them.

    Args:
        strata: arrays [n_i] of scores that are drawn from separately, such as one for each task; a single one for one policy in one task.
        confidence: share of the resamples inside, in (0, 1).
        resamples: how many.

    Returns:
        (low, high), the same at every call; None where every stratum has one score, since then nothing can be said.
    """
    if all(len(stratum) < 2 for stratum in strata):
        return None
    generator = np.random.default_rng(_RESAMPLING_SEED)
    together = sum(len(stratum) for stratum in strata)
    size = max(1, _NUMBERS_AT_ONCE // together)
    means = []
    for start in range(0, resamples, size):
        rows = min(size, resamples - start)
        drawn = [stratum[generator.integers(0, len(stratum), (rows, len(stratum)))] for stratum in strata]
        means.append(interquartile_mean(np.concatenate(drawn, axis=1)))
    tail = (1.0 - confidence) / 2
    low, high = np.quantile(np.concatenate(means), [tail, 1.0 - tail])
    return float(low), float(high)
