"""The only module that imports ray: starts or joins a cluster, owns every actor, and ends them all."""

from __future__ import annotations

import math
import os
import time
from collections.abc import Callable
from typing import Any

import ray
from ray.exceptions import RayTaskError

from distppo.config import Config
from distppo.errors import ResourceError, UserError
from distppo.evaluation.episodes import EpisodeResult
from distppo.runtime.backend import LearnerState, StopRequested, available_cores
from distppo.runtime.processes import LearnerProcess, UpdateReport, Worker, share_envs, share_episodes
from distppo.types import EnvSpec

POLL_SECONDS = 0.2
"""How often a wait looks whether the user wants to stop."""
WORKER_CPUS = 1
LEARNER_CPUS = 1
STORE_BYTES = 256 * 2**20
ROLLOUTS_IN_STORE = 6
"""Iterations of data that the object store of a local cluster has room for (two are alive at a time; the rest is slack)."""


class RayBackend:
    """Worker actors and a learner actor, created by this process alone, so that they all end with it.

    Args:
        config: of the run; `rollout.num_workers` >= 1 or None (auto).
        env: its environment's spec.
        first_iteration: to be collected.
        restored: learner state to continue from.
        address: of a running cluster (`auto`, HOST:PORT, ray://...); None starts one on this machine.
        should_stop: asked during every wait.

    Raises:
        ResourceError: the cluster cannot be reached or cannot give what the run needs within `fault.startup_timeout` seconds.
        UserError: an environment or the learner failed for a reason the user can put right.
    """

    def __init__(
        self,
        config: Config,
        env: EnvSpec,
        *,
        first_iteration: int,
        restored: LearnerState | None,
        address: str | None,
        should_stop: Callable[[], bool],
    ) -> None:
        self._should_stop = should_stop
        self._actors: list[Any] = []
        self._owns_ray = not ray.is_initialized()
        self._started_ray = self._owns_ray and address is None
        try:
            self.num_workers = _connect(config, env, address) if self._owns_ray else _auto_workers(config)
            self._shares = share_envs(config.rollout.num_envs, self.num_workers)
            self._start(config, env, first_iteration, restored)
        except BaseException:
            self.close()
            raise

    @property
    def description(self) -> str:
        """Where the actors run, for people."""
        nodes = sum(node["Alive"] for node in ray.nodes())
        return f"on Ray, {self.num_workers} workers and 1 learner, {nodes} node{'s' if nodes > 1 else ''}"

    @property
    def log_directory(self) -> str:
        """Where Ray writes its own logs and the actors' output."""
        return os.path.join(ray.worker._global_node.get_session_dir_path(), "logs") if ray.worker._global_node else "on the cluster"

    def snapshot(self) -> Any:
        """Returns a reference to the learner's current policy."""
        return self._learner.snapshot.remote()

    def collect(self, snapshot: Any, iteration: int) -> list[Any]:
        """Starts one call a worker; the snapshot travels as an argument, once a node."""
        return [worker.collect.remote(snapshot, iteration) for worker in self._workers]

    def wait(self, rollouts: list[Any]) -> None:
        """Returns when all fragments are in the object store; raises what a worker raised."""
        waiting = rollouts
        while waiting:
            _done, waiting = ray.wait(waiting, num_returns=len(waiting), timeout=POLL_SECONDS, fetch_local=False)
            self._check_stop()

    def update(self, rollouts: list[Any]) -> tuple[Any, UpdateReport]:
        """Hands the fragments to the learner by reference; waits for its report."""
        snapshot, report = self._learner.update.options(num_returns=2).remote(*rollouts)
        # An update that has begun is let finish: the learner's state is then the state after it.
        return snapshot, self._get(report, stoppable=False)

    def evaluate(self, snapshot: Any, episodes: int) -> list[EpisodeResult]:
        """Plays the episodes on the workers."""
        shares = zip(self._workers, share_episodes(episodes, self.num_workers), strict=True)
        pending = [worker.evaluate.remote(snapshot, share) for worker, share in shares if share]
        results = [result for part in self._get(pending) for result in part]
        return sorted(results, key=lambda result: result.episode)

    def learner_state(self) -> LearnerState:
        """Returns the learner's state after the last update."""
        state: LearnerState = self._get(self._learner.state.remote(), stoppable=False)
        return state

    def close(self) -> None:
        """Kills the actors and, if this run started it, the local cluster."""
        actors, self._actors = self._actors, []
        for actor in actors:
            ray.kill(actor)
        if self._owns_ray and ray.is_initialized():
            ray.shutdown()

    def _start(self, config: Config, env: EnvSpec, first_iteration: int, restored: LearnerState | None) -> None:
        learner_class: Any = ray.remote(LearnerProcess)
        worker_class: Any = ray.remote(Worker)
        gpus = 1 if config.learner.device == "cuda" else 0
        needed = {"CPU": float(self.num_workers * WORKER_CPUS + LEARNER_CPUS), "GPU": float(gpus)}
        _require(needed)
        learner_options: dict[str, Any] = {"num_cpus": LEARNER_CPUS, "num_gpus": gpus, "max_restarts": 0}
        # On this machine the workers wait while the learner works, except in overlap mode.
        cores = available_cores() if self._started_ray and config.rollout.mode == "sync" else LEARNER_CPUS
        self._learner: Any = learner_class.options(**learner_options).remote(config, env, restored, cores)
        self._actors.append(self._learner)
        worker_options = worker_class.options(num_cpus=WORKER_CPUS, max_restarts=0, max_task_retries=0)
        self._workers: list[Any] = [
            worker_options.remote(config, first_env, num_envs, first_iteration) for first_env, num_envs in self._shares
        ]
        self._actors += self._workers
        ready = [self._learner.ready.remote(), *(worker.ready.remote() for worker in self._workers)]
        self._wait_until_ready(ready, config.fault.startup_timeout, needed)
        self.step_name, *specs = self._get(ready)
        if any(spec != env for spec in specs):
            raise UserError(f"{env.id!r} looks different on the workers ({specs[0]}) than here ({env}); are the same packages installed?")

    def _wait_until_ready(self, ready: list[Any], timeout: float, needed: dict[str, float]) -> None:
        deadline = time.monotonic() + timeout
        waiting = ready
        while waiting:
            done, waiting = ray.wait(waiting, num_returns=len(waiting), timeout=POLL_SECONDS)
            self._get(done)  # raises what an actor's constructor raised, without waiting for the others
            if waiting and time.monotonic() > deadline:
                raise ResourceError(f"{len(waiting)} of {len(ready)} actors were not ready after {timeout:g} s. " + _resources_text(needed))

    def _check_stop(self) -> None:
        if self._should_stop():
            raise StopRequested

    def _get(self, references: Any, *, stoppable: bool = True) -> Any:
        waiting = references if isinstance(references, list) else [references]
        while waiting:
            _, waiting = ray.wait(waiting, num_returns=len(waiting), timeout=POLL_SECONDS)
            if stoppable:
                self._check_stop()
        try:
            return ray.get(references)
        except RayTaskError as error:
            cause = error.cause
            if isinstance(cause, UserError):
                raise cause from None
            raise


def _connect(config: Config, env: EnvSpec, address: str | None) -> int:
    """Starts or joins a cluster; returns the number of workers."""
    quiet: dict[str, Any] = {"log_to_driver": False, "logging_level": "ERROR"}
    if address is None:
        workers = _auto_workers(config)
        ray.init(
            num_cpus=workers * WORKER_CPUS + LEARNER_CPUS,
            include_dashboard=False,
            object_store_memory=_store_bytes(config, env),
            **quiet,
        )
        return workers
    try:
        ray.init(address=address, **quiet)
    except (ConnectionError, ValueError, RuntimeError) as error:
        raise ResourceError(f"--address {address}: {error}") from error
    return _auto_workers(config)


def _auto_workers(config: Config) -> int:
    """Returns rollout.num_workers, or one a core: in sync mode the learner works while the workers wait, so locally it needs no core."""
    if config.rollout.num_workers is not None:
        return config.rollout.num_workers
    cores = int(ray.cluster_resources().get("CPU", 1)) - LEARNER_CPUS if ray.is_initialized() else available_cores()
    return max(1, min(cores, config.rollout.num_envs))


def _store_bytes(config: Config, env: EnvSpec) -> int:
    sample = 4 * (env.observation_size + env.action_size + 4)
    return STORE_BYTES + ROLLOUTS_IN_STORE * math.ceil(sample * config.batch_size)


def _require(needed: dict[str, float]) -> None:
    total = ray.cluster_resources()
    if any(total.get(name, 0.0) < amount for name, amount in needed.items()):
        raise ResourceError("the cluster is too small for this run. " + _resources_text(needed))


def _resources_text(needed: dict[str, float]) -> str:
    total, free = ray.cluster_resources(), ray.available_resources()
    lines = [
        f"{name}: needed {amount:g}, in the cluster {total.get(name, 0.0):g}, free {free.get(name, 0.0):g}"
        for name, amount in needed.items()
        if amount
    ]
    return "; ".join(lines) + ". Lower rollout.num_workers, or end what else runs there (needed CPUs: 1 a worker and 1 for the learner)"
