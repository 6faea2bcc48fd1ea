"""Joins the fragments of an iteration on the environment axis, whatever order they arrived in."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from distppo.algo.moments import per_env
from distppo.types import EpisodeStats, FinalObservations, Moments, Rollout


class Fragments(NamedTuple):
    """All environments of an iteration side by side; N here counts all of them. Arrays are the learner's own.

    Attributes:
        observations: [T+1, N, *S] float32 or uint8, as the policy saw them.
        actions: [T, N, A] float32.
        log_probs: [T, N] float32.
        rewards: [T, N] float32, raw.
        terminations: [T, N] bool.
        truncations: [T, N] bool.
        final_observations: of truncated episodes; `envs` are global, observations [K, *S].
        obs_moments: one delta per environment, in order.
        return_moments: likewise.
        episodes: finished ones, by (env, t).
    """

    observations: np.ndarray
    actions: np.ndarray
    log_probs: np.ndarray
    rewards: np.ndarray
    terminations: np.ndarray
    truncations: np.ndarray
    final_observations: FinalObservations
    obs_moments: list[Moments]
    return_moments: list[Moments]
    episodes: list[EpisodeStats]


def join_rollouts(rollouts: Sequence[Rollout], *, num_envs: int, version: int) -> Fragments:
    """Returns the rollouts sorted by environment and joined.

    Args:
        rollouts: in any order.
        num_envs: environments of the run; the rollouts must cover each exactly once.
        version: the policy version they must have been collected with.

    Raises:
        AssertionError: an environment is missing or there twice, or a rollout is of another version.
    """
    ordered = sorted(rollouts, key=lambda rollout: rollout.first_env)
    expected_env = 0
    for rollout in ordered:
        assert rollout.version == version, f"rollout of policy version {rollout.version}, the learner expects {version}"
        assert rollout.first_env == expected_env, f"environment {expected_env} is missing or there twice"
        expected_env += rollout.rewards.shape[1]
    assert expected_env == num_envs, f"rollouts of {expected_env} environments, the run has {num_envs}"
    return Fragments(
        observations=_joined([rollout.observations for rollout in ordered]),
        actions=_joined([rollout.actions for rollout in ordered]),
        log_probs=_joined([rollout.log_probs for rollout in ordered]),
        rewards=_joined([rollout.rewards for rollout in ordered]),
        terminations=_joined([rollout.terminations for rollout in ordered]),
        truncations=_joined([rollout.truncations for rollout in ordered]),
        final_observations=FinalObservations(
            np.concatenate([rollout.final_observations.steps for rollout in ordered]),
            np.concatenate([rollout.final_observations.envs + rollout.first_env for rollout in ordered]),
            np.concatenate([rollout.final_observations.observations for rollout in ordered]),
        ),
        obs_moments=[delta for rollout in ordered for delta in per_env(rollout.obs_moments)],
        return_moments=[delta for rollout in ordered for delta in per_env(rollout.return_moments)],
        episodes=[episode for rollout in ordered for episode in rollout.episodes],
    )


def _joined(arrays: list[np.ndarray]) -> np.ndarray:
    return np.concatenate(arrays, axis=1)
