"""Steps N environments one after the other in this process, and keeps their books."""

from __future__ import annotations

import functools
import traceback
from collections.abc import Callable, Iterable, Sequence
from contextlib import suppress
from typing import Any, NamedTuple

import gymnasium as gym
import numpy as np

from distppo.envs.capture import CaptureError, EnvCapturer
from distppo.envs.contract import Finding, reset_findings, step_findings
from distppo.errors import UserError, failure_text
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


class Breakdown(NamedTuple):
    """An environment's own code has raised.

    Attributes:
        step: timestep t inside the fragment.
        text: what to say, with the end of the traceback.
        traceback: all of it.
    """

    step: int
    text: str
    traceback: str


class Stalled:
    """Stands in for an environment that has broken, so that the others can go on; nothing of what it says is used."""

    spec = None

    def __init__(self, observation: np.ndarray) -> None:
        self._observation = np.zeros_like(observation)

    def step(self, action: np.ndarray) -> tuple[np.ndarray, float, bool, bool, dict[str, Any]]:
        """Nothing happens."""
        return self._observation, 0.0, False, False, {}

    def reset(self) -> tuple[np.ndarray, dict[str, Any]]:
        """Nothing happens."""
        return self._observation, {}

    def close(self) -> None:
        """Nothing happens."""


class VectorStepper:
    """N environments stepped in turn, each reset as soon as its episode ends (the final observation is handed out, not lost).

    Args:
        envs: without time limit; N of them, with equal spaces.
        first_env: global index of environment 0, for `EpisodeStats`.
        max_episode_steps: env steps after which an episode is truncated; None: never.
        gamma: discount of the running discounted return.

    Attributes:
        broken: n -> what happened, of the environments that have raised; they stand still until another takes their place.
    """

    def __init__(self, envs: Sequence[gym.Env[Any, Any]], *, first_env: int, max_episode_steps: int | None, gamma: float) -> None:
        self.envs: list[Any] = list(envs)
        self.broken: dict[int, Breakdown] = {}
        self.first_env = first_env
        self.max_episode_steps = max_episode_steps
        self.gamma = gamma
        self.action_shape = self.envs[0].action_space.shape or ()
        self._capturers = [EnvCapturer(env) for env in self.envs]
        self._steps: list[Callable[..., Any]] = [functools.partial(self._first_step, n) for n in range(len(self.envs))]
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
            UserError: an environment raised, or what it returned is not what its observation_space says.
        """
        for n, seed in zip(range(len(self)), seeds, strict=True):
            self.reset_one(n, seed, out)

    def reset_one(self, n: int, seed: int, out: np.ndarray) -> None:
        """Starts a new episode in environment n; `out[n]` takes its first observation. Raises as `reset`."""
        try:
            result = self.envs[n].reset(seed=seed)
        except (Exception, SystemExit) as error:
            raise self._failed(n, error) from error
        self._require_none(n, reset_findings(result, self.envs[n].observation_space))
        out[n] = result[0]
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
            The episodes that ended, in order of n. One whose environment then raised is among them; see `broken`.

        Raises:
            UserError: an environment's first step shows that it breaks Gymnasium's interface.
        """
        ended: list[EpisodeEnd] = []
        gamma, limit, lengths, discounted, returns = self.gamma, self.max_episode_steps, self._lengths, self._discounted, self._returns
        shaped = actions.reshape(len(actions), *self.action_shape)
        n, left = 0, enumerate(self._steps)  # an iterator: where one has raised, the next try goes on behind it
        while True:
            try:
                for n, step in left:
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
                return ended
            except UserError:  # says itself that trying again would not help
                raise
            except (Exception, SystemExit) as error:
                self._break(n, t, error, observations[n])

    def adopt(self, n: int, other: VectorStepper) -> None:
        """Takes over the only environment of another stepper, with its books, as environment n."""
        assert len(other) == 1 and other.first_env == self.first_env + n, "another environment"
        self.broken.pop(n, None)
        self.envs[n].close()
        self.envs[n], self._capturers[n] = other.envs[0], other._capturers[0]
        self._steps[n] = functools.partial(self._first_step, n)
        self._lengths[n], self._returns[n], self._discounted[n] = other._lengths[0], other._returns[0], other._discounted[0]

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
                self.reset_one(n, seeds[n], out)
                continue
            out[n] = states.observations[n]
            self._lengths[n] = int(states.lengths[n])
            self._returns[n], self._discounted[n] = float(states.returns[n]), float(states.discounted_returns[n])
        return obstacles

    def close(self) -> None:
        """Closes every environment."""
        for env in self.envs:
            env.close()

    def _first_step(self, n: int, action: np.ndarray) -> Any:
        """Takes environment n's first step and looks at what it returns; the steps that follow go to the environment directly."""
        env = self.envs[n]
        self._steps[n] = env.step
        result = env.step(action)
        self._require_none(n, step_findings(result, env.observation_space))
        return result

    def _require_none(self, n: int, findings: Iterable[Finding]) -> None:
        """Raises UserError for the first finding that training cannot live with."""
        for finding in findings:
            if finding.stops:
                raise UserError(f"{self._name(n)}: {finding.what}. Fix: {finding.fix} (env.check: true examines more)")

    def _end_episode(self, n: int, t: int, observation: np.ndarray, terminated: bool) -> EpisodeEnd:
        stats = EpisodeStats(self.first_env + n, t, self._returns[n], self._lengths[n], terminated)
        self._forget_episode(n)
        return EpisodeEnd(n, observation, stats)

    def _forget_episode(self, n: int) -> None:
        self._lengths[n], self._returns[n], self._discounted[n] = 0, 0.0, 0.0

    def _break(self, n: int, t: int, error: Exception | SystemExit, observation: np.ndarray) -> None:
        text, whole = str(self._failed(n, error)), "".join(traceback.format_exception(error))
        self.broken[n] = Breakdown(t, text, whole)
        with suppress(Exception):  # it is broken
            self.envs[n].close()
        self.envs[n] = Stalled(observation)
        self._steps[n] = self.envs[n].step

    def _failed(self, n: int, error: Exception | SystemExit) -> UserError:
        return UserError(f"{self._name(n)} raised an error:\n{failure_text(error)}")

    def _name(self, n: int) -> str:
        spec = self.envs[n].spec
        return f"environment {self.first_env + n} ({spec.id if spec else type(self.envs[n].unwrapped).__name__})"
