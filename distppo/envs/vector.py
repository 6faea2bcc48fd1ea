"""Steps N environments one after the other in this process, and keeps their books."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import gymnasium as gym
import numpy as np

from distppo.envs.failure import failure_text
from distppo.errors import UserError
from distppo.types import EpisodeStats


class EpisodeEnd(NamedTuple):
    """An episode that a step has ended.

    Attributes:
        env: n inside the stepper.
        observation: [*S] the observation it ended in, raw, before the reset.
        stats: return, length and kind of end.
    """

    env: int
    observation: np.ndarray
    stats: EpisodeStats


class VectorStepper:
    """N environments stepped in turn, each reset as soon as its episode ends (the final observation is handed out, not lost).

    Args:
        envs: without time limit; N of them, with equal spaces.
        first_env: global index of environment 0, for `EpisodeStats`.
        max_episode_steps: env steps after which an episode is truncated; None: never.
        gamma: discount of the running discounted return.
    """

    def __init__(self, envs: Sequence[gym.Env[Any, Any]], *, first_env: int, max_episode_steps: int | None, gamma: float) -> None:
        self.envs = list(envs)
        self.first_env = first_env
        self.max_episode_steps = max_episode_steps
        self.gamma = gamma
        self.action_shape = self.envs[0].action_space.shape or ()
        self._steps: list[Callable[..., Any]] = [env.step for env in self.envs]
        self._lengths = [0] * len(self.envs)
        self._returns = [0.0] * len(self.envs)
        self._discounted = [0.0] * len(self.envs)

    def __len__(self) -> int:
        return len(self.envs)

    def reset(self, seeds: Sequence[int], out: np.ndarray) -> None:
        """Starts a new episode everywhere.

        Args:
            seeds: one per environment; later episodes go on with the environment's own generator.
            out: [N, *S] float64, first observations.

        Raises:
            UserError: an environment raised, or its observation has another shape than its space says.
        """
        for n, (env, seed) in enumerate(zip(self.envs, seeds, strict=True)):
            try:
                observation, _ = env.reset(seed=seed)
            except Exception as error:
                raise self._failed(n, error) from error
            if np.shape(observation) != out[n].shape:
                raise UserError(
                    f"{self._name(n)}: reset() gave an observation of shape {np.shape(observation)}, "
                    f"but its observation_space has shape {out[n].shape}"
                )
            out[n] = observation
            self._forget_episode(n)

    def step(
        self,
        t: int,
        actions: np.ndarray,
        observations: np.ndarray,
        rewards: np.ndarray,
        terminations: np.ndarray,
        truncations: np.ndarray,
        discounted_returns: np.ndarray,
    ) -> list[EpisodeEnd]:
        """Takes one step everywhere and writes the results in place.

        Args:
            t: timestep inside the fragment, for the statistics.
            actions: [N, A] float32, in the environments' bounds; the environments may keep their rows.
            observations: [N, *S] float64, the next ones; of the next episode where one has ended.
            rewards: [N] float32.
            terminations: [N] bool; only True is written.
            truncations: [N] bool; only True is written, and only where the episode did not terminate.
            discounted_returns: [N] float64, G_t = gamma G_{t-1} + r_t over the running episode.

        Returns:
            The episodes that ended, in order of n.

        Raises:
            UserError: an environment raised; the message has the end of its traceback.
        """
        ended: list[EpisodeEnd] = []
        gamma, limit, lengths, discounted, returns = self.gamma, self.max_episode_steps, self._lengths, self._discounted, self._returns
        shaped = actions.reshape(len(actions), *self.action_shape)
        n = 0
        try:
            for n, step in enumerate(self._steps):
                observation, reward, terminated, truncated, _ = step(shaped[n])
                reward = float(reward)
                rewards[n] = reward
                returns[n] += reward
                discounted_returns[n] = discounted[n] = gamma * discounted[n] + reward
                lengths[n] = length = lengths[n] + 1
                if terminated or truncated or length == limit:
                    if terminated:
                        terminations[n] = True
                    else:
                        truncations[n] = True
                    ended.append(self._end_episode(n, t, np.array(observation), bool(terminated)))
                    observation, _ = self.envs[n].reset()
                observations[n] = observation
        except Exception as error:
            raise self._failed(n, error) from error
        return ended

    def close(self) -> None:
        """Closes every environment."""
        for env in self.envs:
            env.close()

    def _end_episode(self, n: int, t: int, observation: np.ndarray, terminated: bool) -> EpisodeEnd:
        stats = EpisodeStats(self.first_env + n, t, self._returns[n], self._lengths[n], terminated)
        self._forget_episode(n)
        return EpisodeEnd(n, observation, stats)

    def _forget_episode(self, n: int) -> None:
        self._lengths[n], self._returns[n], self._discounted[n] = 0, 0.0, 0.0

    def _failed(self, n: int, error: Exception) -> UserError:
        return UserError(f"{self._name(n)} raised an error:\n{failure_text(error)}")

    def _name(self, n: int) -> str:
        spec = self.envs[n].spec
        return f"environment {self.first_env + n} ({spec.id if spec else type(self.envs[n].unwrapped).__name__})"
