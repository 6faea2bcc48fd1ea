"""What runs in each process of a run: a worker or the learner, as plain classes that a test can hold in one process."""

from __future__ import annotations

import functools
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from distppo.collector import RolloutCollector
from distppo.config import Config
from distppo.envs import VectorStepper, make_env
from distppo.evaluation.episodes import EpisodeResult, play_episodes
from distppo.evaluation.policy import Policy
from distppo.plugins import extend_search_path
from distppo.runtime.cores import CoreRotation, available_cores
from distppo.runtime.signals import StopSignal
from distppo.types import EnvSpec, EnvStates, EpisodeStats, FaultEvent, PolicySnapshot, Receipt, Rollout

if TYPE_CHECKING:
    from distppo.learner import Learner
    from distppo.learner.group import LearnerGroup, Meeting, Place


class UpdateReport(NamedTuple):
    """What the driver hears of an iteration: numbers only, the arrays stay where they are.

    Attributes:
        metrics: of the update.
        episodes: that ended during the collection, by (env, t).
        worker_seconds: collection time of each worker.
        rollout_bytes: arrays that the workers sent.
        faults: of the update.
        digest: of the learner's state after it, for those that must have the same; empty where it is alone.
    """

    metrics: dict[str, float]
    episodes: list[EpisodeStats]
    worker_seconds: list[float]
    rollout_bytes: int
    faults: tuple[FaultEvent, ...]
    digest: str = ""


class Worker:
    """Steps its share of the environments, and plays evaluation episodes when asked.

    The environments are made at the first call and not in the constructor, so that what they raise reaches the caller: of an exception
    in an actor's constructor only the text would.

    Args:
        config: of the run.
        first_env: global index of its first environment.
        num_envs: how many it has.
        first_iteration: at which this process starts.
        states: of its environments before that iteration; None starts new episodes.
        stop: where it works in the driver's process: asked before every step, and what is asked for is then given up with StopRequested.
    """

    def __init__(
        self,
        config: Config,
        first_env: int,
        num_envs: int,
        first_iteration: int,
        states: EnvStates | None = None,
        stop: StopSignal | None = None,
    ) -> None:
        self._config, self._first_env, self._num_envs = config, first_env, num_envs
        self._first_iteration, self._states = first_iteration, states
        self._stop = StopSignal() if stop is None else stop

    @functools.cached_property
    def _collector(self) -> RolloutCollector:
        return RolloutCollector(
            self._config,
            self._made_env,
            VectorStepper,
            first_env=self._first_env,
            num_envs=self._num_envs,
            first_iteration=self._first_iteration,
            states=self._states,
            check=self._stop.check,
        )

    @functools.cached_property
    def _evaluation_env(self) -> tuple[Any, EnvSpec]:
        return self._made_env()

    def _made_env(self) -> tuple[Any, EnvSpec]:
        self._stop.check()
        made = make_env(self._config.env)
        self._stop.catch()  # simulators may have handlers of their own
        return made

    def ready(self) -> EnvSpec:
        """Returns the environment's spec as this process sees it."""
        return self._collector.spec

    def deliver(self, snapshot: PolicySnapshot, iteration: int) -> tuple[Rollout, Receipt]:
        """Returns one fragment, whose arrays are valid until the next call, and its receipt."""
        return self._collector.collect(snapshot, iteration), self._collector.receipt()

    def evaluate(self, snapshot: PolicySnapshot, episodes: Sequence[int]) -> list[EpisodeResult]:
        """Plays evaluation episodes in an environment of their own."""
        env, spec = self._evaluation_env
        return play_episodes(env, spec, Policy(snapshot), episodes, seed=self._config.run.seed, deterministic=True, check=self._stop.check)

    def close(self) -> None:
        """Closes the environments that were made."""
        if "_collector" in vars(self):
            self._collector.close()
        if "_evaluation_env" in vars(self):
            self._evaluation_env[0].close()


class LearnerProcess:
    """The learner, or one of several, and what it tells the driver. Made at the first call, as the worker's environments are.

    Args:
        config: of the run.
        env: spec of its environment.
        restored: (arrays, values) of `Learner.state` to continue from.
        cores: free while it works.
        search_path: folders of the driver's in which the user's modules are looked for.
    """

    def __init__(
        self,
        config: Config,
        env: EnvSpec,
        restored: tuple[Mapping[str, np.ndarray], Mapping[str, Any]] | None,
        cores: int = 1,
        search_path: Sequence[str] = (),
    ) -> None:
        extend_search_path(search_path)
        self._config, self._env, self._restored, self._cores = config, env, restored, cores
        workers = min(available_cores(), config.rollout.num_envs) if config.rollout.num_workers is None else config.rollout.num_workers
        # Several learners would visit the same core at the same time.
        rotating = config.rollout.mode == "overlap" and config.learner.num_learners == 1
        self._rotation = CoreRotation(workers if rotating else 0)
        self._meeting: Meeting | None = None
        self._group: LearnerGroup | None = None

    def open(self, host: str) -> Place:
        """Opens the place where the other learners find this one, which is learner 0."""
        from distppo.learner.group import Meeting

        self._meeting = Meeting(host)
        return self._meeting.place

    def join(self, rank: int, place: Place, host: str) -> None:
        """Makes this learner one of `learner.num_learners`, when all have come; before anything else is asked of it.

        Args:
            rank: of this one, from 0.
            place: that learner 0 has opened.
            host: address of this machine.
        """
        from distppo.learner.group import LearnerGroup
        from distppo.learner.steps import learner_device

        config = self._config
        self._group = LearnerGroup(
            rank,
            config.learner.num_learners,
            place,
            self._meeting,
            host=host,
            seconds=config.fault.startup_timeout,
            device=learner_device(config.learner.device),
        )

    @functools.cached_property
    def _learner(self) -> Learner:
        # Here and not above: a worker process must not import torch, and it imports this module.
        from distppo.learner import Learner

        learner = Learner(self._config, self._env, cores=self._cores, before_epoch=self._rotation.next, group=self._group)
        if self._restored is not None:
            learner.load_state(*self._restored)
        return learner

    def ready(self) -> str:
        """Returns the name of the inner step, compiled and ready to run."""
        if self._learner.step_name.startswith("fused"):
            from distppo.learner.apart import compile_apart

            compile_apart(self._learner.threads)
        self._learner.warm_up()
        if self._group is not None:
            self._group.patience(self._config.fault.learner_timeout)
        return self._learner.step_name

    def snapshot(self) -> PolicySnapshot:
        """Returns the current policy."""
        return self._learner.snapshot()

    def update(self, *rollouts: Rollout) -> tuple[PolicySnapshot, UpdateReport]:
        """Learns from one iteration."""
        with self._rotation.running():
            snapshot, metrics = self._learner.update(*rollouts)
        ordered = sorted(rollouts, key=lambda rollout: rollout.first_env)
        report = UpdateReport(
            metrics,
            [episode for rollout in ordered for episode in rollout.episodes],
            [rollout.seconds for rollout in ordered],
            sum(array.nbytes for rollout in ordered for array in rollout if isinstance(array, np.ndarray)),
            self._learner.take_faults(),
            self._learner.digest() if self._group is not None else "",
        )
        return snapshot, report

    def state(self) -> tuple[dict[str, np.ndarray], dict[str, Any]]:
        """Returns everything a checkpoint needs of the learner."""
        return self._learner.state()


def share_envs(num_envs: int, num_workers: int) -> list[tuple[int, int]]:
    """Returns (first_env, num_envs) of each worker: contiguous, in order, sizes differing by at most one, larger ones first."""
    base, extra = divmod(num_envs, num_workers)
    sizes = [base + (index < extra) for index in range(num_workers)]
    return [(sum(sizes[:index]), size) for index, size in enumerate(sizes)]


def share_episodes(episodes: int, num_workers: int) -> list[list[int]]:
    """Returns the evaluation episodes of each worker, dealt out in turn."""
    return [list(range(index, episodes, num_workers)) for index in range(num_workers)]
