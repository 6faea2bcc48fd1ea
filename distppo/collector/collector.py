"""Collects fragments: a vector of environments, the snapshot's policy and its frozen statistics; for MLPs without torch."""

from __future__ import annotations

import time
import traceback
from collections.abc import Callable
from typing import Any

import gymnasium as gym
import numpy as np

from distppo.algo.moments import moments_of
from distppo.algo.seeding import Purpose, env_seed, stream
from distppo.collector.defects import LARGEST_FLOAT32, LARGEST_FLOAT64, Defect, Final, find_defects
from distppo.collector.mending import mending_event, only, require_hope
from distppo.config.schema import Config
from distppo.errors import UserError
from distppo.models.acting import Actor, actor_factory
from distppo.models.architecture import policy_input, resolved_network, sees_images
from distppo.models.heads import action_noise, environment_actions
from distppo.models.numpy_policy import ObservationNormalizer
from distppo.types import (
    EnvSpec,
    EnvStates,
    EpisodeStats,
    FaultEvent,
    FinalObservations,
    FlightRecord,
    Moments,
    PolicySnapshot,
    Receipt,
    Rollout,
)


class RolloutCollector:
    """Steps environments `first_env ... first_env + num_envs - 1` of the run with whatever snapshot it is handed.

    It keeps no policy state: everything that acts comes as an argument, and all randomness is derived from (seed, environment,
    iteration). What it keeps is the environments, their running episodes and one set of buffers.

    Args:
        config: env, network, rollout.num_steps, ppo.gamma, run.seed and fault are used.
        make_env: returns an environment without time limit, and its spec; called num_envs times, and when one has to be made anew.
        make_stepper: (envs, first_env, max_episode_steps, gamma) -> the vector stepper.
        first_env: global index of the first environment.
        num_envs: N.
        first_iteration: of this process; environments restarted later in a run start in episodes of their own.
        states: of these environments, to go on from; those that could not be captured start a new episode, which the first receipt tells.
        attempt: 0, or how often an environment has been made anew for this fragment; each starts in an episode of its own.
        check: called before every step of all environments; what it raises gives the fragment up, and nothing can be collected afterwards.
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
        attempt: int = 0,
        check: Callable[[], None] = lambda: None,
    ) -> None:
        made = [make_env() for _ in range(num_envs)]
        self.spec = made[0][1]
        self._config, self._make_env, self._make_stepper = config, make_env, make_stepper
        self._seed, self._check = config.run.seed, check
        self._env_indices = range(first_env, first_env + num_envs)
        self._stepper = make_stepper(
            [env for env, _ in made], first_env=first_env, max_episode_steps=self.spec.max_episode_steps, gamma=config.ppo.gamma
        )
        network = resolved_network(self.spec, config.network)
        self._make_actor = actor_factory(self.spec, network)
        self._to_environment = environment_actions(self.spec, num_envs)
        self._images = sees_images(self.spec, network)
        self._allocate(config.rollout.num_steps, num_envs, policy_input(self.spec, network)[0])
        self._faults: list[FaultEvent] = []
        retries = (attempt,) if attempt else ()
        seeds = [env_seed(self._seed, Purpose.ENV_RESET, env, first_iteration, *retries) for env in self._env_indices]
        self._start_episodes(seeds, states)
        self._before: EnvStates | None = self._stepper.states(self._raw[-1])
        self._reset_seeds = seeds if states is None else None

    def collect(self, snapshot: PolicySnapshot, iteration: int) -> Rollout:
        """Returns T steps of all N environments.

        Args:
            snapshot: policy and moments, frozen for the whole fragment.
            iteration: selects the action noise; the same (seed, environment, iteration) draws the same.

        Returns:
            A rollout whose arrays are this collector's buffers: valid until the next call.

        Raises:
            EnvFaultError: an environment raised, or gave a number that is not finite, and making it anew is not allowed or did not help;
                the message says which and when. Nothing can be collected afterwards.
            UserError: the policy gave an action that is not finite.
        """
        started = time.perf_counter()
        episodes, final = self._fragment(snapshot, iteration)
        defects = self._defects(snapshot, final)
        for n, defect in sorted(defects.items()):
            self._mend(n, defect, snapshot, iteration, episodes, final)
        if defects:
            episodes.sort(key=lambda episode: (episode.step, episode.env_index))
            final.sort(key=lambda end: end[:2])
        self._before = self._reset_seeds = None
        return Rollout(
            version=snapshot.version,
            iteration=iteration,
            first_env=self._env_indices.start,
            observations=self._observations,
            actions=self._actions,
            log_probs=self._make_actor(snapshot, 1).log_probs(self._actions, self._outputs),
            rewards=self._rewards,
            terminations=self._terminations,
            truncations=self._truncations,
            final_observations=self._normalized_final(final, snapshot),
            obs_moments=self._observation_moments(),
            return_moments=moments_of(self._discounted_returns),
            episodes=tuple(episodes),
            seconds=time.perf_counter() - started,
        )

    def receipt(self) -> Receipt:
        """Returns the environments as the last fragment left them, and the faults met since the last receipt.

        `collect` is a function of (snapshot, iteration, these states): a collector made from them goes on with the same bits.
        """
        faults, self._faults = tuple(self._faults), []
        self._before = self._stepper.states(self._raw[-1])
        return Receipt(self._before, faults)

    def close(self) -> None:
        """Closes the environments."""
        self._stepper.close()

    def _start_episodes(self, seeds: list[int], states: EnvStates | None) -> None:
        if states is None:
            self._stepper.reset(seeds, self._raw[-1])
            return
        obstacles = self._stepper.restore(states, seeds, self._raw[-1])
        for reason in dict.fromkeys(obstacles.values()):
            envs = [self._env_indices[n] for n, obstacle in obstacles.items() if obstacle == reason]
            where = f"environment{'s' if len(envs) > 1 else ''} {', '.join(map(str, envs))}"
            self._faults.append(FaultEvent("episode_restarted", where, reason, "a new episode was started", times=len(envs)))

    def _allocate(self, steps: int, envs: int, policy_input: tuple[int, ...]) -> None:
        shape, outputs = self.spec.observation_shape, self.spec.action_outputs
        self._raw = np.zeros((steps + 1, envs, *shape), np.uint8 if self._images else np.float64)
        self._observations = np.empty((steps + 1, envs, *shape), np.uint8 if self._images else np.float32)
        self._outputs = np.empty((steps, envs, outputs), np.float32)
        self._noise = np.empty((steps, envs, outputs), np.float32)
        self._actions = np.empty((steps, envs, self.spec.action_size), np.float32)
        self._rewards = np.empty((steps, envs), np.float32)
        self._terminations = np.empty((steps, envs), bool)
        self._truncations = np.empty((steps, envs), bool)
        self._discounted_returns = np.empty((steps, envs))
        # Views of each timestep, made once: indexing ten arrays anew costs as much as a layer of the network.
        inputs = self._observations.reshape(steps + 1, envs, *policy_input)
        policy = zip(self._raw[:-1], self._observations[:-1], inputs[:-1], self._noise, self._outputs, self._actions, strict=True)
        answers = zip(self._raw[1:], self._rewards, self._terminations, self._truncations, self._discounted_returns, strict=True)
        self._timesteps = list(zip(policy, answers, strict=True))

    def _draw_noise(self, iteration: int) -> None:
        """Fills the fragment's action noise, each environment from a stream of its own."""
        for n, env in enumerate(self._env_indices):
            self._noise[:, n] = action_noise(self.spec, stream(self._seed, Purpose.ACTION_NOISE, env, iteration), len(self._noise))

    def _fragment(self, snapshot: PolicySnapshot, iteration: int) -> tuple[list[EpisodeStats], list[Final]]:
        """Fills the buffers; returns the episodes that ended, and the ends of the truncated ones."""
        envs = len(self._env_indices)
        normalize = ObservationNormalizer(snapshot.obs_moments, snapshot.spec.observation_clip, envs)
        actor = self._make_actor(snapshot, envs)
        self._draw_noise(iteration)
        actor.scale_noise(self._noise)
        self._raw[0] = self._raw[-1]
        self._terminations.fill(False)
        self._truncations.fill(False)
        ended = self._run(actor, normalize)
        normalize(self._raw[-1], self._observations[-1])
        return ended

    def _run(self, actor: Actor, normalize: ObservationNormalizer) -> tuple[list[EpisodeStats], list[Final]]:
        """Steps through the fragment."""
        episodes: list[EpisodeStats] = []
        final: list[Final] = []
        act, to_environment, step, check = actor.act, self._to_environment, self._stepper.step, self._check
        for t, ((raw, observations, inputs, noise, outputs, actions), answers) in enumerate(self._timesteps):
            check()
            normalize(raw, observations)
            act(inputs, noise, outputs, actions)
            for end in step(t, to_environment(actions), *answers):
                episodes.append(end.stats)
                if not end.stats.terminated:
                    final.append(Final(t, end.env, end.observation))
        return episodes, final

    def _normalized_final(self, final: list[Final], snapshot: PolicySnapshot) -> FinalObservations:
        raw = np.array([end.observation for end in final], self._raw.dtype).reshape(-1, *self.spec.observation_shape)
        out = np.empty(raw.shape, self._observations.dtype)
        ObservationNormalizer(snapshot.obs_moments, snapshot.spec.observation_clip, len(final))(raw, out)
        return FinalObservations(np.array([end.step for end in final], np.int64), np.array([end.env for end in final], np.int64), out)

    def _observation_moments(self) -> Moments:
        """Returns the moments of each environment's observations; of images, which are not normalized, their number."""
        if self._images:
            steps, envs = self._rewards.shape
            return Moments(np.asarray(float(steps)), np.zeros(envs), np.zeros(envs))
        return moments_of(self._raw[:-1])

    def _defects(self, snapshot: PolicySnapshot, final: list[Final]) -> dict[int, Defect]:
        """Returns n -> the first thing that went wrong in environment n, of those that nothing may be learned from."""
        largest = LARGEST_FLOAT32 if snapshot.spec.observation_clip is None else LARGEST_FLOAT64
        defects = find_defects(self._raw, self._rewards, self._actions, final, largest=largest)
        for n, broken in self._stepper.broken.items():
            raised = Defect("env_error", broken.step, broken.text, broken.traceback)
            defects[n] = min(defects.get(n, raised), raised, key=lambda defect: defect.order)
        return defects

    def _mend(
        self,
        n: int,
        defect: Defect,
        snapshot: PolicySnapshot,
        iteration: int,
        episodes: list[EpisodeStats],
        final: list[Final],
    ) -> None:
        """Makes environment n anew and collects its part of the fragment from there; `episodes` and `final` change with it."""
        self._check()  # the same Ctrl-C may have ended its simulator
        env = self._env_indices[n]
        episodes[:] = [episode for episode in episodes if episode.env_index != env]
        final[:] = [end for end in final if end.env != n]
        record: FlightRecord | None = self._record(n, defect, iteration)
        restarts = self._config.fault.max_env_restarts
        for attempt in range(1, restarts + 2):
            require_hope(env, defect, snapshot, self._config.fault, record, last=attempt > restarts)
            self._faults.append(mending_event(env, defect, iteration, attempt, record))
            time.sleep(self._config.fault.env_restart_backoff * 2 ** (attempt - 2) if attempt > 1 else 0.0)
            try:
                one = self._made_anew(env, iteration, attempt)
            except UserError as error:
                defect, record = Defect("env_error", 0, str(error), traceback.format_exc()), None
                continue
            its_episodes, its_final = one._fragment(snapshot, iteration)
            its_defects = one._defects(snapshot, its_final)
            if not its_defects:
                self._take_over(n, one)
                episodes += its_episodes
                final += [end._replace(env=n) for end in its_final]
                return
            defect = its_defects[0]
            record = one._record(0, defect, iteration)
            one.close()

    def _made_anew(self, env: int, iteration: int, attempt: int) -> RolloutCollector:
        return RolloutCollector(
            self._config,
            self._make_env,
            self._make_stepper,
            first_env=env,
            num_envs=1,
            first_iteration=iteration,
            attempt=attempt,
            check=self._check,
        )

    def _take_over(self, n: int, one: RolloutCollector) -> None:
        """Takes the environment of a collector of one, and its column of the fragment."""
        for mine, its in zip(self._columns(), one._columns(), strict=True):
            mine[:, n] = its[:, 0]
        self._stepper.adopt(n, one._stepper)

    def _columns(self) -> tuple[np.ndarray, ...]:
        return (
            self._raw,
            self._observations,
            self._outputs,
            self._noise,
            self._actions,
            self._rewards,
            self._terminations,
            self._truncations,
            self._discounted_returns,
        )

    def _record(self, n: int, defect: Defect, iteration: int) -> FlightRecord:
        """Returns what led to the defect, as arrays of its own."""
        window, taken = self._config.fault.dump_observations, defect.step + 1
        seen = taken + (defect.kind == "env_nonfinite")
        to_environment = environment_actions(self.spec, taken)
        known = self._before is not None and self._before.captures[n].obstacle is None
        return FlightRecord(
            env=self._env_indices[n],
            iteration=iteration,
            step=defect.step,
            states=only(self._before, n) if known and self._before is not None else None,
            reset_seed=self._reset_seeds[n] if self._reset_seeds is not None else None,
            observations=self._raw[max(0, seen - window) : seen, n].copy(),
            actions=to_environment(self._actions[:taken, n]).reshape(taken, *self.spec.action_shape),
            traceback=defect.traceback,
        )
