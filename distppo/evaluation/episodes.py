"""Plays evaluation episodes: separate environments, frozen statistics, seeds of their own."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import gymnasium as gym

from distppo.algo.seeding import Purpose, env_seed, stream
from distppo.errors import UserError
from distppo.evaluation.policy import Policy
from distppo.types import EnvSpec

ENDLESS = 1_000_000


class EpisodeResult(NamedTuple):
    """One evaluation episode.

    Attributes:
        episode: its index, which with the seed decides its start and noise.
        episode_return: sum of raw rewards.
        length: env steps.
        seed: what the environment was reset with.
        terminated: True if it ended by termination, False by truncation.
    """

    episode: int
    episode_return: float
    length: int
    seed: int
    terminated: bool


def play_episodes(
    env: gym.Env[Any, Any], spec: EnvSpec, policy: Policy, episodes: Sequence[int], *, seed: int, deterministic: bool
) -> list[EpisodeResult]:
    """Returns the results of the given episodes, which depend on (policy, seed, episode) alone: not on which process plays them.

    Args:
        env: without time limit.
        spec: its spec; max_episode_steps truncates.
        policy: frozen.
        episodes: indices, >= 0.
        seed: of the evaluation.
        deterministic: act with the mean.

    Raises:
        UserError: an episode has no end: the environment has neither a time limit nor terminated in a million steps.
    """
    return [_play(env, spec, policy, episode, seed, deterministic) for episode in episodes]


def _play(env: gym.Env[Any, Any], spec: EnvSpec, policy: Policy, episode: int, seed: int, deterministic: bool) -> EpisodeResult:
    reset_seed = env_seed(seed, Purpose.EVALUATION_RESET, episode)
    rng = None if deterministic else stream(seed, Purpose.EVALUATION_NOISE, episode)
    observation, _ = env.reset(seed=reset_seed)
    total, limit = 0.0, spec.max_episode_steps or ENDLESS
    for length in range(1, limit + 1):
        observation, reward, terminated, truncated, _ = env.step(policy.act(observation, deterministic=deterministic, rng=rng))
        total += float(reward)
        if terminated or truncated or length == spec.max_episode_steps:
            return EpisodeResult(episode, total, length, reset_seed, bool(terminated))
    raise UserError(f"{spec.id!r} did not end an episode in {ENDLESS:,} steps and has no time limit; set env.max_episode_steps")
