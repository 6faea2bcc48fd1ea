"""Collects fragments: a vector of environments, the snapshot's policy and its frozen statistics, no torch."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

import gymnasium as gym
import numpy as np

from distppo.algo.moments import moments_of
from distppo.algo.seeding import Purpose, env_seed, stream
from distppo.config.schema import Config
from distppo.errors import UserError
from distppo.models.numpy_policy import ActionScaler, NumpyActor, ObservationNormalizer, gaussian_log_probs
from distppo.types import EnvSpec, EnvStates, EpisodeStats, FaultEvent, FinalObservations, PolicySnapshot, Receipt, Rollout


class RolloutCollector:
    """Steps environments `first_env ... first_env + num_envs - 1` of the run with whatever snapshot it is handed.

    It keeps no policy state: everything that acts comes as an argument, and all randomness is derived from (seed, environment,
    iteration). What it keeps is the environments, their running episodes and one set of buffers.

    Args:
        config: env, rollout.num_steps, ppo.gamma and run.seed are used.
        make_env: returns an environment without time limit, and its spec; called num_envs times.
        make_stepper: (envs, first_env, max_episode_steps, gamma) -> the vector stepper.
        first_env: global index of the first environment.
        num_envs: N.
        first_iteration: of this process; environments restarted later in a run start in episodes of their own.
        states: of these environments, to go on from; those that could not be captured start a new episode, which the first receipt tells.
    """

    def __init__(
        self,
        config: Config,
        make_env: Callable[[], tuple[gym.Env[Any, Any], EnvSpec]],
        make_stepper: Callable[..., Any],
        *,
        first_env: int,
        num_envs: int,
        first_iteration: int = 0,
        states: EnvStates | None = None,
    ) -> None:
        made = [make_env() for _ in range(num_envs)]
        self.spec = made[0][1]
        self._seed = config.run.seed
        self._env_indices = range(first_env, first_env + num_envs)
        self._stepper = make_stepper(
            [env for env, _ in made], first_env=first_env, max_episode_steps=self.spec.max_episode_steps, gamma=config.ppo.gamma
        )
        self._scale_actions = ActionScaler(self.spec.action_low, self.spec.action_high, num_envs)
        self._allocate(config.rollout.num_steps, num_envs)
        self._faults: list[FaultEvent] = []
        self._start_episodes(first_iteration, states)

    def collect(self, snapshot: PolicySnapshot, iteration: int) -> Rollout:
        """Returns T steps of all N environments.

        Args:
            snapshot: policy and moments, frozen for the whole fragment.
            iteration: selects the action noise; the same (seed, environment, iteration) draws the same.

        Returns:
            A rollout whose arrays are this collector's buffers: valid until the next call.

        Raises:
            UserError: an environment gave a non-finite observation or reward; the message says which and when.
        """
        started = time.perf_counter()
        _steps, envs = self._rewards.shape
        normalize = ObservationNormalizer(snapshot.obs_moments, snapshot.spec.observation_clip, envs)
        actor = NumpyActor(snapshot, envs)
        self._draw_noise(actor.log_std, iteration)
        self._raw[0] = self._raw[-1]
        self._terminations.fill(False)
        self._truncations.fill(False)
        episodes, final = self._run(actor, normalize)
        self._check_finite()
        normalize(self._raw[-1], self._observations[-1])
        return Rollout(
            version=snapshot.version,
            iteration=iteration,
            first_env=self._env_indices.start,
            observations=self._observations,
            actions=self._actions,
            log_probs=gaussian_log_probs(self._actions, self._means, actor.log_std),
            rewards=self._rewards,
            terminations=self._terminations,
            truncations=self._truncations,
            final_observations=self._normalized_final(final, snapshot),
            obs_moments=moments_of(self._raw[:-1]),
            return_moments=moments_of(self._discounted_returns),
            episodes=tuple(episodes),
            seconds=time.perf_counter() - started,
        )

    def receipt(self) -> Receipt:
        """Returns the environments as the last fragment left them, and the faults met since the last receipt.

        `collect` is a function of (snapshot, iteration, these states): a collector made from them goes on with the same bits.
        """
        faults, self._faults = tuple(self._faults), []
        return Receipt(self._stepper.states(self._raw[-1]), faults)

    def close(self) -> None:
        """Closes the environments."""
        self._stepper.close()

    def _start_episodes(self, iteration: int, states: EnvStates | None) -> None:
        seeds = [env_seed(self._seed, Purpose.ENV_RESET, env, iteration) for env in self._env_indices]
        if states is None:
            self._stepper.reset(seeds, self._raw[-1])
            return
        obstacles = self._stepper.restore(states, seeds, self._raw[-1])
        for reason in dict.fromkeys(obstacles.values()):
            envs = [self._env_indices[n] for n, obstacle in obstacles.items() if obstacle == reason]
            where = f"environment{'s' if len(envs) > 1 else ''} {', '.join(map(str, envs))}"
            self._faults.append(FaultEvent("episode_restarted", where, reason, "a new episode was started", times=len(envs)))

    def _allocate(self, steps: int, envs: int) -> None:
        shape, size = self.spec.observation_shape, self.spec.action_size
        self._raw = np.zeros((steps + 1, envs, *shape))
        self._observations = np.empty((steps + 1, envs, *shape), np.float32)
        self._means = np.empty((steps, envs, size), np.float32)
        self._noise = np.empty((steps, envs, size), np.float32)
        self._actions = np.empty((steps, envs, size), np.float32)
        self._rewards = np.empty((steps, envs), np.float32)
        self._terminations = np.empty((steps, envs), bool)
        self._truncations = np.empty((steps, envs), bool)
        self._discounted_returns = np.empty((steps, envs))
        # Views of each timestep, made once: indexing ten arrays anew costs as much as a layer of the network.
        flat = self._observations.reshape(steps + 1, envs, -1)
        policy = zip(self._raw[:-1], self._observations[:-1], flat[:-1], self._means, self._noise, self._actions, strict=True)
        answers = zip(self._raw[1:], self._rewards, self._terminations, self._truncations, self._discounted_returns, strict=True)
        self._timesteps = list(zip(policy, answers, strict=True))

    def _draw_noise(self, log_std: np.ndarray, iteration: int) -> None:
        """Fills the fragment's action noise, std x N(0, 1), each environment from a stream of its own."""
        steps, _, size = self._noise.shape
        for n, env in enumerate(self._env_indices):
            self._noise[:, n] = stream(self._seed, Purpose.ACTION_NOISE, env, iteration).standard_normal((steps, size), np.float32)
        self._noise *= np.exp(log_std)

    def _run(self, actor: NumpyActor, normalize: ObservationNormalizer) -> tuple[list[EpisodeStats], list[tuple[int, int, np.ndarray]]]:
        """Steps through the fragment; returns the episodes that ended and (t, n, raw final observation) of the truncated ones."""
        episodes: list[EpisodeStats] = []
        final: list[tuple[int, int, np.ndarray]] = []
        scale_actions, step = self._scale_actions, self._stepper.step
        for t, ((raw, observations, flat, means, noise, actions), answers) in enumerate(self._timesteps):
            normalize(raw, observations)
            actor.mean(flat, means)
            np.add(means, noise, out=actions)
            for end in step(t, scale_actions(actions), *answers):
                episodes.append(end.stats)
                if not end.stats.terminated:
                    final.append((t, end.env, end.observation))
        return episodes, final

    def _normalized_final(self, final: list[tuple[int, int, np.ndarray]], snapshot: PolicySnapshot) -> FinalObservations:
        raw = np.array([observation for _, _, observation in final], np.float64).reshape(-1, *self.spec.observation_shape)
        if not np.isfinite(raw).all():
            bad = int(np.argwhere(~np.isfinite(raw))[0][0])
            t, n, _ = final[bad]
            raise UserError(
                f"environment {self._env_indices[n]} of {self.spec.id!r} ended step {t} of the fragment in a non-finite observation"
            )
        out = np.empty(raw.shape, np.float32)
        ObservationNormalizer(snapshot.obs_moments, snapshot.spec.observation_clip, len(final))(raw, out)
        return FinalObservations(np.array([t for t, _, _ in final], np.int64), np.array([n for _, n, _ in final], np.int64), out)

    def _check_finite(self) -> None:
        """Nothing non-finite may reach the moments or the batch."""
        for name, array, offset in (("observation", self._raw, 1), ("reward", self._rewards, 0)):
            if np.isfinite(array).all():
                continue
            t, n, *index = (int(i) for i in np.argwhere(~np.isfinite(array))[0])
            element = f" element {index[0] if len(index) == 1 else tuple(index)}" if index else ""
            raise UserError(
                f"environment {self._env_indices[n]} of {self.spec.id!r} gave {name}{element} = {array[(t, n, *index)]} "
                f"at step {t - offset} of the fragment; nothing of this fragment was learned. Check the environment's reward and dynamics"
            )
