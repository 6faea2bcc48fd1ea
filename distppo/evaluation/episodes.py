"""Plays evaluation episodes: separate environments, frozen statistics, seeds of their own."""

from __future__ import annotations

import functools
import math
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple, Protocol

import gymnasium as gym

from distppo.algo.seeding import Purpose, env_seed, stream
from distppo.errors import UserError, failure_text
from distppo.evaluation.policy import ActingPolicy
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


class Watcher(Protocol):
    """Sees an episode as it is played, and changes nothing."""

    def begin(self, observation: Any) -> None:
        """Sees the observation an episode starts with, raw."""

    def step(self, observation: Any, reward: float) -> None:
        """Sees what an action led to: the next observation, raw, and the raw reward."""


def play_episodes(
    env: gym.Env[Any, Any],
    spec: EnvSpec,
    policy: ActingPolicy,
    episodes: Sequence[int],
    *,
    seed: int,
    deterministic: bool,
    watcher: Watcher | None = None,
    check: Callable[[], None] = lambda: None,
) -> list[EpisodeResult]:
    """Returns the results of the given episodes, which depend on (policy, seed, episode) alone: not on which process plays them.

    Args:
        env: without time limit.
        spec: its spec; max_episode_steps truncates.
        policy: frozen.
        episodes: indices, >= 0.
        seed: of the evaluation.
        deterministic: take the most likely action, for a Gaussian the mean.
        watcher: sees every step.
        check: called before every step; what it raises gives the episode up.

    Raises:
        UserError: the environment raised, gave a reward that is not finite, or has no end: neither a time limit nor a termination in a
            million steps.
    """
    return [_play(env, spec, policy, episode, seed, deterministic, watcher, check) for episode in episodes]


def _play(
    env: gym.Env[Any, Any],
    spec: EnvSpec,
    policy: ActingPolicy,
    episode: int,
    seed: int,
    deterministic: bool,
    watcher: Watcher | None,
    check: Callable[[], None],
) -> EpisodeResult:
    reset_seed = env_seed(seed, Purpose.EVALUATION_RESET, episode)
    rng = None if deterministic else stream(seed, Purpose.EVALUATION_NOISE, episode)
    act = functools.partial(policy.act, deterministic=deterministic, rng=rng)
    where = f"evaluation episode {episode} of {spec.id!r}"
    try:
        total, length, terminated, truncated = _run(env, act, reset_seed, spec.max_episode_steps or ENDLESS, watcher, check)
    except UserError:
        raise
    except (Exception, SystemExit) as error:
        check()  # the error may be its own, or of a simulator that the same Ctrl-C has ended
        raise UserError(f"{where} raised an error:\n{failure_text(error)}") from error
    if not math.isfinite(total):
        raise UserError(f"{where} has the return {total}: a reward was not finite. Check the environment's reward and dynamics")
    if not (terminated or truncated or spec.max_episode_steps):
        raise UserError(f"{where} did not end in {ENDLESS:,} steps and has no time limit; set env.max_episode_steps")
    return EpisodeResult(episode, total, length, reset_seed, terminated)


def _run(
    env: gym.Env[Any, Any], act: Callable[[Any], Any], seed: int, limit: int, watcher: Watcher | None, check: Callable[[], None]
) -> tuple[float, int, bool, bool]:
    """Plays one episode of at most `limit` steps; returns (return, length, terminated, truncated by the environment)."""
    observation, _ = env.reset(seed=seed)
    total, length, terminated, truncated = 0.0, 0, False, False
    if watcher is not None:
        watcher.begin(observation)
    while length < limit and not (terminated or truncated):
        check()
        observation, reward, terminated, truncated, _ = env.step(act(observation))
        total += float(reward)
        length += 1
        if watcher is not None:
            watcher.step(observation, float(reward))
    return total, length, bool(terminated), bool(truncated)
