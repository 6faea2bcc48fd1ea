"""The backend on Ray: owns every actor, and ends them all."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import ray

from distppo.config import Config
from distppo.envs import part_of
from distppo.errors import ResourceError
from distppo.evaluation.episodes import EpisodeResult
from distppo.runtime import cluster
from distppo.runtime.actors import Lost, Share, Standpoint, values_of
from distppo.runtime.address import Address
from distppo.runtime.backend import LearnerState, NodeLeaving, worker_failures
from distppo.runtime.central import CentralLearner
from distppo.runtime.cores import available_cores
from distppo.runtime.faults import FaultLog
from distppo.runtime.gauges import Gauges
from distppo.runtime.nodes import NodeWatch, living
from distppo.runtime.orders import Order
from distppo.runtime.output import RunLogs
from distppo.runtime.placement import Placement
from distppo.runtime.pool import WorkerPool
from distppo.runtime.processes import UpdateReport, share_envs, share_episodes
from distppo.runtime.signals import StopSignal
from distppo.types import EnvSpec, EnvStates, PolicySnapshot, Receipt


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
        faults: told what happens to the processes.
        alone: the cluster that is used has been started on this machine for this run, by the caller.
        directory: of the run, which its actors and placement group are named after and write their output into; None: there is none.

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
        faults: FaultLog,
        alone: bool = False,
        directory: Path | None = None,
    ) -> None:
        self._stop, self._faults, self._startup_timeout = stop, faults, config.fault.startup_timeout
        self._owned: list[CentralLearner | WorkerPool | Placement] = []
        self._save_first = False
        self._owns_ray = not ray.is_initialized()
        try:
            if self._owns_ray:
                cluster.connect(config, env, address, stop)
            self.num_workers = int(cluster.choose_workers(config))
            self._least = cluster.least_workers(config, self.num_workers)
            self._needed = cluster.needed_resources(config, self._least)
            cluster.require(self._needed)
            self._placement = Placement(config, self._least, name=directory.name if directory else "run", check=stop.check)
            self._owned.append(self._placement)
            self._gauges, self._batch_size = Gauges(self._placement.name), config.batch_size
            started_here = alone or (self._owns_ray and address is None)
            self._nodes = NodeWatch(enabled=not started_here)
            # On this machine the workers wait while the learner works, except in overlap mode.
            idle = started_here and config.rollout.mode == "sync"
            cores = max(1, available_cores() // config.learner.num_learners) if idle else cluster.LEARNER_CPUS
            shares = [Share(number, *envs) for number, envs in enumerate(share_envs(config.rollout.num_envs, self.num_workers))]
            standpoints = [Standpoint(first_iteration, part_of(states, share.first_env, share.num_envs)) for share in shares]
            logs = None if directory is None else RunLogs.of(directory)
            self._learner = CentralLearner(
                config,
                env,
                restored,
                cores=cores,
                gpus=self._needed["GPU"] / config.learner.num_learners,
                placement=self._placement,
                logs=logs,
                faults=faults,
                stop=stop,
                advance=self._advance,
                make_room=self._make_room,
            )
            self._owned.append(self._learner)
            self._pool = WorkerPool(
                config,
                env,
                shares,
                standpoints,
                placement=self._placement,
                reserved=self._least,
                logs=logs,
                faults=faults,
                stop=stop,
            )
            self._owned.append(self._pool)
        except BaseException:
            self.close()
            raise

    @property
    def description(self) -> str:
        """Where the actors run, for people."""
        nodes = len(living())
        workers = f"{self.num_workers} worker{'s' if self.num_workers > 1 else ''}"
        if self._least < self.num_workers:
            workers = f"{self.present} of {self._least} to {workers}"
        learners = f"{len(self._learner.hosts)} learner{'s' if len(self._learner.hosts) > 1 else ''}"
        return f"on Ray, {workers} and {learners}, {nodes} node{'s' if nodes > 1 else ''}"

    @property
    def present(self) -> int:
        """Worker processes that are there."""
        return self._pool.present

    def wait_until_ready(self) -> None:
        """Returns when every actor can work that the run does not start without.

        Raises:
            ResourceError: that was not so within `fault.startup_timeout` seconds.
            UserError: an environment or the learner failed for a reason the user can put right.
        """
        timeout = self._startup_timeout
        deadline = time.monotonic() + timeout
        while missing := self._pool.missing + len(self._learner.arrivals):
            self._stop.check()
            self._pool.check()
            if time.monotonic() > deadline:
                actors = self._least + len(self._learner.hosts)
                lacking = f"{missing} of {actors} actors were not ready after {timeout:g} s (fault.startup_timeout). "
                raise ResourceError(lacking + cluster.resources_text(self._needed))
            self._pool.advance(self._learner.arrivals)
            self._learner.welcome()
        self._pool.check()
        self.step_name = self._learner.step_name

    def snapshot(self) -> Any:
        """Returns a reference to the learner's current policy."""
        return self._learner.snapshot()

    def share(self, snapshot: PolicySnapshot) -> Any:
        """Puts a snapshot into the object store."""
        return ray.put(snapshot)

    def fetch(self, snapshot: Any) -> PolicySnapshot:
        """Gets a snapshot from the object store."""
        value: PolicySnapshot
        (value,) = values_of([snapshot])
        return value

    def collect(self, snapshot: Any, iteration: int) -> list[Order]:
        """Starts one call a worker."""
        return self._pool.collect(snapshot, iteration)

    def wait(self, rollouts: list[Order]) -> list[Receipt]:
        """Returns the receipts, by worker, when all fragments are in the object store.

        Raises:
            NodeLeaving: a node is about to go. Its workers are moving; whoever wants to save something does it now, and waits again.
        """
        with worker_failures():
            receipts: list[Receipt] = self._answers(rollouts, stoppable=True, may_save=True)
            return receipts

    def update(self, rollouts: list[Order]) -> tuple[Any, UpdateReport]:
        """Hands the fragments to the learner by reference; waits for its report."""
        # An update that has begun is let finish: the learner's state is then the state after it.
        while True:
            try:
                return self._learner.update([order.rollout for order in rollouts])
            except Lost as error:
                if not self._pool.collect_again(rollouts, str(error)):
                    raise ResourceError(f"what the learner needs went with a node: {error}") from error
                with worker_failures():
                    self._answers(rollouts)

    def evaluate(self, snapshot: Any, episodes: int) -> list[EpisodeResult]:
        """Plays the episodes on the workers."""
        orders = self._pool.evaluate(snapshot, share_episodes(episodes, self.num_workers))
        with worker_failures():
            parts = self._answers(orders, stoppable=True)
        return sorted((result for part in parts for result in part), key=lambda result: result.episode)

    def learner_state(self) -> LearnerState:
        """Returns the learner's state after the last update."""
        return self._learner.state()

    def show(self, row: Mapping[str, Any]) -> None:
        """Sets the metrics that Ray exports."""
        self._gauges.show(row, self._batch_size)

    def close(self) -> None:
        """Kills the actors and, if this run started it, the local cluster."""
        owned, self._owned = self._owned, []
        for each in reversed(owned):
            each.close()
        if self._owns_ray:
            ray.shutdown()

    def _advance(self, also: Sequence[Any]) -> bool:
        return self._pool.advance(also)

    def _make_room(self, bundle: int) -> int:
        return self._pool.make_room(bundle)

    def _answers(self, orders: Sequence[Order], *, stoppable: bool = False, may_save: bool = False) -> list[Any]:
        """Returns the answers in order; raises the first failure without waiting for the others."""
        while True:
            for order in orders:
                if order.error is not None:
                    raise order.error
            if not any(order.open for order in orders):
                return [order.value for order in orders]
            if stoppable:
                self._stop.check()
            self._watch_nodes()
            if may_save and self._save_first:
                self._save_first = False
                raise NodeLeaving
            self._pool.advance()

    def _watch_nodes(self) -> None:
        """Has everything on a node that is about to go move elsewhere, if there is an elsewhere."""
        new = self._nodes.look()
        if not new:
            return
        draining = self._nodes.draining
        moved = 0
        self._placement.leave(draining)
        if self._placement.own and living() - draining:
            moved = self._pool.leave(draining) + self._learner.leave(draining)
        for node, seconds in new.items():
            when = "at some time" if seconds is None else f"in {seconds:.0f} s"
            done = f"{moved} of its processes start elsewhere" if moved else "nothing of this run can move"
            self._faults.record("node_draining", f"node {node[:12]}", f"it will be taken away {when}", f"{done}; a checkpoint is saved")
        self._save_first = True
