"""The backend on Ray: owns every actor, and ends them all."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

import ray
from ray.exceptions import RayActorError, RayTaskError

from distppo.config import Config
from distppo.envs import part_of
from distppo.errors import ResourceError, UserError
from distppo.evaluation.episodes import EpisodeResult
from distppo.runtime import cluster
from distppo.runtime.address import Address
from distppo.runtime.backend import LearnerState, worker_failures
from distppo.runtime.cores import available_cores
from distppo.runtime.processes import LearnerProcess, UpdateReport, Worker, share_envs, share_episodes
from distppo.runtime.signals import StopSignal
from distppo.types import EnvSpec, EnvStates, PolicySnapshot, Receipt

POLL_SECONDS = 0.2
"""How often a wait looks whether the user wants to stop."""


class Delivery(NamedTuple):
    """References to a fragment and to its receipt, which the driver fetches instead of the arrays."""

    rollout: Any
    receipt: Any


class RayBackend:
    """Worker actors and a learner actor, created by this process alone, so that they all end with it.

    Args:
        config: of the run; `rollout.num_workers` >= 1 or None (auto).
        env: its environment's spec.
        first_iteration: to be collected.
        restored: learner state to continue from.
        states: of all environments before the first iteration; None starts new episodes.
        address: of a running cluster; None starts one on this machine. Where Ray is initialized already, that cluster is used.
        stop: asked during every wait.

    Raises:
        ResourceError: the cluster cannot be joined, or is too small for this run.
        StopRequested: the user asked to stop meanwhile.
    """

    step_name = ""

    def __init__(
        self,
        config: Config,
        env: EnvSpec,
        *,
        first_iteration: int,
        restored: LearnerState | None,
        states: EnvStates | None,
        address: Address | None,
        stop: StopSignal,
    ) -> None:
        self._env, self._stop, self._startup_timeout = env, stop, config.fault.startup_timeout
        self._actors: dict[str, tuple[str, Any]] = {}
        self._owns_ray = not ray.is_initialized()
        try:
            if self._owns_ray:
                cluster.connect(config, env, address, stop)
            self.num_workers = cluster.choose_workers(config)
            # On this machine the workers wait while the learner works, except in overlap mode.
            started_here = self._owns_ray and address is None
            learner_cores = available_cores() if started_here and config.rollout.mode == "sync" else cluster.LEARNER_CPUS
            self._start(config, env, first_iteration, restored, states, learner_cores)
        except BaseException:
            self.close()
            raise

    @property
    def description(self) -> str:
        """Where the actors run, for people."""
        nodes = sum(node["Alive"] for node in ray.nodes())
        workers = f"{self.num_workers} worker{'s' if self.num_workers > 1 else ''}"
        return f"on Ray, {workers} and 1 learner, {nodes} node{'s' if nodes > 1 else ''}"

    def wait_until_ready(self) -> None:
        """Returns when every actor can work.

        Raises:
            ResourceError: that was not so within `fault.startup_timeout` seconds.
            UserError: an environment or the learner failed for a reason the user can put right.
        """
        timeout = self._startup_timeout
        deadline = time.monotonic() + timeout
        for missing in self._polls(self._ready):
            self._stop.check()
            if missing and time.monotonic() > deadline:
                lacking = f"{missing} of {len(self._ready)} actors were not ready after {timeout:g} s (fault.startup_timeout). "
                raise ResourceError(lacking + cluster.resources_text(self._needed))
        self.step_name, *specs = self._values(self._ready)
        if any(spec != self._env for spec in specs):
            raise UserError(
                f"{self._env.id!r} looks different on the workers ({specs[0]}) than here ({self._env}); are the same packages installed?"
            )

    def snapshot(self) -> Any:
        """Returns a reference to the learner's current policy."""
        return self._learner.snapshot.remote()

    def share(self, snapshot: PolicySnapshot) -> Any:
        """Puts a snapshot into the object store."""
        return ray.put(snapshot)

    def fetch(self, snapshot: Any) -> PolicySnapshot:
        """Gets a snapshot from the object store."""
        value: PolicySnapshot = self._get([snapshot], stoppable=False)[0]
        return value

    def collect(self, snapshot: Any, iteration: int) -> list[Delivery]:
        """Starts one call a worker; the snapshot travels as an argument, once a node."""
        return [Delivery(*worker.deliver.options(num_returns=2).remote(snapshot, iteration)) for worker in self._workers]

    def wait(self, rollouts: list[Delivery]) -> list[Receipt]:
        """Returns the receipts, by worker, when all fragments are in the object store."""
        with worker_failures():
            return self._get([delivery.receipt for delivery in rollouts])

    def update(self, rollouts: list[Delivery]) -> tuple[Any, UpdateReport]:
        """Hands the fragments to the learner by reference; waits for its report."""
        snapshot, report = self._learner.update.options(num_returns=2).remote(*(delivery.rollout for delivery in rollouts))
        # An update that has begun is let finish: the learner's state is then the state after it.
        return snapshot, self._get([report], stoppable=False)[0]

    def evaluate(self, snapshot: Any, episodes: int) -> list[EpisodeResult]:
        """Plays the episodes on the workers."""
        shares = zip(self._workers, share_episodes(episodes, self.num_workers), strict=True)
        with worker_failures():
            parts = self._get([worker.evaluate.remote(snapshot, share) for worker, share in shares if share])
        return sorted((result for part in parts for result in part), key=lambda result: result.episode)

    def learner_state(self) -> LearnerState:
        """Returns the learner's state after the last update."""
        state: LearnerState = self._get([self._learner.state.remote()], stoppable=False)[0]
        return state

    def close(self) -> None:
        """Kills the actors and, if this run started it, the local cluster."""
        actors, self._actors = self._actors, {}
        for _, actor in actors.values():
            with contextlib.suppress(Exception):  # a cluster that has gone took its actors with it
                ray.kill(actor)
        if self._owns_ray:
            ray.shutdown()

    def _start(
        self,
        config: Config,
        env: EnvSpec,
        first_iteration: int,
        restored: LearnerState | None,
        states: EnvStates | None,
        learner_cores: int,
    ) -> None:
        self._needed = cluster.needed_resources(config, self.num_workers)
        cluster.require(self._needed)
        learner_class: Any = ray.remote(LearnerProcess).options(num_cpus=cluster.LEARNER_CPUS, num_gpus=self._needed["GPU"], max_restarts=0)
        worker_class: Any = ray.remote(Worker).options(num_cpus=cluster.WORKER_CPUS, max_restarts=0, max_task_retries=0)
        self._learner = self._owned("the learner", learner_class.remote(config, env, restored, learner_cores))
        self._workers = [
            self._owned(
                f"rollout worker {index} (environments {first_env} to {first_env + num_envs - 1})",
                worker_class.remote(config, first_env, num_envs, first_iteration, part_of(states, first_env, num_envs)),
            )
            for index, (first_env, num_envs) in enumerate(share_envs(config.rollout.num_envs, self.num_workers))
        ]
        self._ready = [self._learner.ready.remote(), *(worker.ready.remote() for worker in self._workers)]

    def _owned(self, name: str, actor: Any) -> Any:
        self._actors[actor._actor_id.hex()] = (name, actor)
        return actor

    def _get(self, references: Sequence[Any], *, stoppable: bool = True) -> list[Any]:
        """Returns the values in order; raises the first failure without waiting for the others."""
        for _ in self._polls(references):
            if stoppable:
                self._stop.check()
        return self._values(references)

    def _polls(self, references: Sequence[Any]) -> Iterator[int]:
        """Yields how many are still missing, after each look, until all are there; raises the first failure among those that are."""
        waiting = list(references)
        while waiting:
            done, waiting = ray.wait(waiting, num_returns=len(waiting), timeout=POLL_SECONDS)
            self._values(done)
            yield len(waiting)

    def _values(self, references: Sequence[Any]) -> list[Any]:
        try:
            values: list[Any] = ray.get(list(references))
            return values
        except RayTaskError as error:
            if isinstance(error.cause, UserError):
                raise error.cause from None
            raise
        except RayActorError as error:
            self._stop.check()  # a signal to the whole process group ends actors too
            name, _ = self._actors.get(error.actor_id, ("a process of this run", None))
            reason = str(error).splitlines()[-1].rpartition("Worker exit detail: ")[2]
            raise ResourceError(f"{name} has died: {reason} Its output is in {cluster.log_directory()}") from error
