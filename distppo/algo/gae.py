"""Generalized advantage estimation with terminations and truncations kept apart.

Schulman et al.: "High-Dimensional Continuous Control Using Generalized Advantage Estimation" (2015), https://arxiv.org/abs/1506.02438.
"""

from __future__ import annotations

import numpy as np
from numba import njit


def gae(
    rewards: np.ndarray,
    values: np.ndarray,
    next_values: np.ndarray,
    terminations: np.ndarray,
    truncations: np.ndarray,
    *,
    gamma: float,
    gae_lambda: float,
) -> np.ndarray:
    """Returns the advantages.

    delta_t = r_t + gamma (1 - terminated_t) V(s'_t) - V(s_t)
    A_t     = delta_t + gamma lambda (1 - terminated_t) (1 - truncated_t) A_{t+1},   A_T = 0

    s'_t is the state the step really led to: a truncated episode bootstraps from V of the observation it ended in, a terminated one
    from 0, and neither sees the next episode.

    Args:
        rewards: [T, N] float32, scaled.
        values: [T, N] float32, V(s_t).
        next_values: [T, N] float32, V(s'_t).
        terminations: [T, N] bool.
        truncations: [T, N] bool.
        gamma: discount per env step, in [0, 1].
        gae_lambda: in [0, 1]; 0 gives delta_t, 1 the discounted return minus V(s_t).

    Returns:
        [T, N] float32; accumulated in float64.
    """
    shape = rewards.shape
    for name, array in (("values", values), ("next_values", next_values), ("terminations", terminations), ("truncations", truncations)):
        if array.shape != shape:
            raise ValueError(f"{name} has shape {array.shape}, rewards {shape}: all must be [T, N]")
    advantages: np.ndarray = _gae(rewards, values, next_values, terminations, truncations, float(gamma), float(gae_lambda))
    return advantages


@njit(cache=True, nogil=True)
def _gae(rewards, values, next_values, terminations, truncations, gamma, gae_lambda):
    steps, envs = rewards.shape
    advantages = np.empty((steps, envs), np.float32)
    following = np.zeros(envs)
    for t in range(steps - 1, -1, -1):
        for n in range(envs):
            bootstrap = 0.0 if terminations[t, n] else gamma * next_values[t, n]
            delta = rewards[t, n] + bootstrap - values[t, n]
            if terminations[t, n] or truncations[t, n]:
                following[n] = delta
            else:
                following[n] = delta + gamma * gae_lambda * following[n]
            advantages[t, n] = following[n]
    return advantages
