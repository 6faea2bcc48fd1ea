"""Steps N environments one after the other in this process, and keeps their books."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import gymnasium as gym
import numpy as np

from distppo.envs.capture import CaptureError, EnvCapturer
from distppo.envs.failure import failure_text
from distppo.errors import UserError
from distppo.types import EnvStates, EpisodeStats


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
        self._capturers = [EnvCapturer(env) for env in self.envs]
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
        for n, seed in zip(range(len(self)), seeds, strict=True):
            self.reset_one(n, seed, out[n])

    def reset_one(self, n: int, seed: int, out: np.ndarray) -> None:
        """Starts a new episode in environment n; `out` [*S] float64 takes its first observation. Raises as `reset`."""
        try:
            observation, _ = self.envs[n].reset(seed=seed)
        except Exception as error:
            raise self._failed(n, error) from error
        if np.shape(observation) != out.shape:
            raise UserError(
                f"{self._name(n)}: reset() gave an observation of shape {np.shape(observation)}, "
                f"but its observation_space has shape {out.shape}"
            )
        out[...] = observation
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

    def states(self, observations: np.ndarray) -> EnvStates:
        """Returns the environments between two steps and their books, as a value of its own.

        Args:
            observations: [N, *S] float64, the newest ones, which the environments themselves do not keep.
        """
        return EnvStates(
            self.first_env,
            observations.copy(),
            np.array(self._lengths, np.int64),
            np.array(self._returns),
            np.array(self._discounted),
            tuple(capturer.capture() for capturer in self._capturers),
        )

    def restore(self, states: EnvStates, seeds: Sequence[int], out: np.ndarray) -> dict[int, str]:
        """Puts the environments where `states` was taken; where that is not possible a new episode starts.

        Args:
            states: of these environments.
            seeds: one per environment, as for `reset`.
            out: [N, *S] float64, the observations to act on next.

        Returns:
            n -> what stood in the way, for the environments that start a new episode.

        Raises:
            UserError: as `reset`.
        """
        assert states.first_env == self.first_env and len(states.captures) == len(self), "states of other environments"
        self.reset(seeds, out)
        obstacles = {}
        for n, (capturer, capture) in enumerate(zip(self._capturers, states.captures, strict=True)):
            try:
                capturer.restore(capture)
            except CaptureError as error:
                obstacles[n] = str(error)
                self.reset_one(n, seeds[n], out[n])
                continue
            out[n] = states.observations[n]
            self._lengths[n] = int(states.lengths[n])
            self._returns[n], self._discounted[n] = float(states.returns[n]), float(states.discounted_returns[n])
        return obstacles

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
