"""The learner's process, or those of several, and how they are rebuilt: from the last state that the driver holds, making again what came
after it."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable, Sequence
from typing import Any

import ray

from distppo.config import Config
from distppo.errors import ResourceError
from distppo.models.acting import policy_layout
from distppo.models.layout import layout_size
from distppo.plugins import search_path
from distppo.runtime import cluster
from distppo.runtime.actors import Gone, LearnerActor, Lost, Unreachable, end, is_there, values_of
from distppo.runtime.attempts import Attempts
from distppo.runtime.backend import LearnerState
from distppo.runtime.faults import FaultLog
from distppo.runtime.orders import Host
from distppo.runtime.output import RunLogs
from distppo.runtime.placement import Placement
from distppo.runtime.processes import UpdateReport
from distppo.runtime.signals import StopSignal
from distppo.types import EnvSpec

NAME, SEVERAL = "the learner", "the learners"
LEARNER = "learner"
SMALL_STATE = 16 * 2**20
"""Bytes of learner state up to which a copy is kept after every update."""
LARGE_STATE_EVERY = 4
"""Updates between copies of a larger one."""
CROWDED_SECONDS = 10.0
"""For which a rebuilt learner waits for a free CPU, before a worker gives up its own."""


class CentralLearner:
    """The one learner, or several that act as one: they all learn from the same rollouts, and learner 0 is the one that answers.

    After an update the state lies in the object store, owned by this process, and outlives the learner's. Where one of several is lost, all
    start again from it: what they were computing together is void without it.

    Args:
        config: of the run.
        env: its environment's spec.
        restored: learner state to continue from.
        cores: free while it works.
        gpus: that each occupies.
        placement: where they go.
        logs: for their output; None leaves it to Ray.
        faults: told what happens.
        stop: where it has been asked for, nothing is rebuilt any more.
        advance: waits a moment for references, and lets the workers have what they need meanwhile; returns whether these are there.
        make_room: has a worker give up its CPU, to which it may give the learner's bundle instead; returns the learner's.

    Attributes:
        hosts: the processes, by rank.
        step_name: of its inner step, once it was ready.
    """

    step_name = ""

    def __init__(
        self,
        config: Config,
        env: EnvSpec,
        restored: LearnerState | None,
        *,
        cores: int,
        gpus: float,
        placement: Placement,
        logs: RunLogs | None,
        faults: FaultLog,
        stop: StopSignal,
        advance: Callable[[Sequence[Any]], bool],
        make_room: Callable[[int], int],
    ) -> None:
        self._arguments = (config, env)
        self._cores, self._policy, self._faults, self._stop = cores, config.fault, faults, stop
        self._advance, self._make_room = advance, make_room
        self._actor_class: Any = ray.remote(LearnerActor)
        self._logs = logs
        self._placement, self._gpus, self._asked_for_room = placement, gpus, False
        self._bundles = list(placement.learner_bundles)
        self._name = NAME if len(self._bundles) == 1 else SEVERAL
        # Once and by reference: of a large network the state would otherwise be copied for every process that starts from it.
        self._kept: Any = None if restored is None else ray.put(restored)
        self._since_kept: list[Sequence[Any]] = []
        self._every = config.fault.learner_state_every or _worthwhile_every(config, env)
        self._attempts = Attempts()
        self._here = ray.get_runtime_context().get_node_id()
        self.hosts = self._start()

    @property
    def arrivals(self) -> list[Any]:
        """References to what the processes that are not ready will say when they are."""
        return [host.arrival for host in self.hosts if not host.ready]

    def welcome(self) -> None:
        """Takes in each process that has become ready, and mends what could not.

        Raises:
            UserError: it cannot be made.
        """
        try:
            self._look()
        except (Gone, Unreachable) as error:
            self._mend(error)

    def _look(self) -> None:
        for rank, host in enumerate(self.hosts):
            if not host.ready and is_there(host.arrival):
                (host.presence,) = values_of([host.arrival])
                self.step_name = host.presence.answer
                self._asked_for_room = self._asked_for_room and bool(self.arrivals)
                if self._logs is not None:
                    self._logs.note(_role(rank), host.presence.output)

    def snapshot(self) -> Any:
        """Returns a reference to the current policy, which is there."""
        (reference,), _ = self._reliably(lambda actor: [actor.snapshot.remote()])
        return reference

    def update(self, rollouts: Sequence[Any]) -> tuple[Any, UpdateReport]:
        """Learns from an iteration; returns a reference to the next snapshot, and the report.

        Raises:
            Lost: a fragment went with its node.
            ResourceError: the learner died too often.
            UserError: it could not go on.
        """
        keep = len(self._since_kept) + 1 >= self._every
        (_, snapshot, state), told = self._reliably(
            lambda actor: actor.update.options(num_returns=3).remote(keep, *rollouts), lambda actor: actor.follow.remote(*rollouts)
        )
        if keep:
            self._kept, self._since_kept = state, []
            ray.wait([state], timeout=0)  # has it brought to this node, in case the learner's goes
        else:
            self._since_kept.append(rollouts)
        return snapshot, told

    def state(self) -> LearnerState:
        """Returns the state after the last update."""
        if self._kept is not None and not self._since_kept:
            with contextlib.suppress(Lost):
                (state,) = values_of([self._kept])
                return state
        _, state = self._reliably(lambda actor: [actor.state.remote()])
        return state

    def leave(self, draining: frozenset[str]) -> int:
        """Goes on in new processes if any is on one of these nodes; for a time when they have nothing to do. Returns how many were."""
        leaving = sum(host.presence is not None and host.presence.node in draining for host in self.hosts)
        if leaving:
            self._rebuild()
        return leaving

    def close(self) -> None:
        """Kills the processes."""
        for host in self.hosts:
            end(host.actor, host.presence.pid if host.presence and host.presence.node == self._here else None)

    def _start(self) -> list[Host]:
        actors = [self._actor(rank) for rank in range(len(self._bundles))]
        # Where there are several, each says at once that it has a process; learner 0 also where the others find it.
        self._begun = [actor.open.remote(rank) for rank, actor in enumerate(actors)] if len(actors) > 1 else [None]
        now, place = time.monotonic(), self._begun[0]
        return [Host(self._name, actor, actor.ready.remote(rank, place), now) for rank, actor in enumerate(actors)]

    def _actor(self, rank: int) -> Any:
        bundle = self._bundles[rank] if self._placement.usable(self._bundles[rank]) else None
        options = self._placement.options(_role(rank), bundle) | {"num_cpus": cluster.LEARNER_CPUS, "num_gpus": self._gpus}
        return self._actor_class.options(**options).remote(
            _role(rank), self._logs, *self._arguments, self._kept, self._cores, search_path()
        )

    def _rebuild(self) -> None:
        """Starts all processes from the kept state and has them make again, in order, the updates that came after."""
        self.close()
        self.hosts = self._start()
        for rollouts in self._since_kept:
            for host in self.hosts:
                host.actor.update.remote(False, *rollouts)

    def _reliably(self, ask: Callable[[Any], Sequence[Any]], have_follow: Callable[[Any], Any] | None = None) -> tuple[Sequence[Any], Any]:
        """Asks until there is an answer; returns what was promised, whose first reference is the answer, and its value.

        Args:
            ask: of learner 0.
            have_follow: has each other learner do the same, and promises its digest; None: it is no matter of theirs.
        """
        failed_at: float | None = None
        self._attempts.succeeded()
        while True:
            promised = ask(self.hosts[0].actor)
            following = [have_follow(host.actor) for host in self.hosts[1:]] if have_follow is not None else []
            try:
                value, *digests = self._answers([promised[0], *following])
                for rank, digest in enumerate(digests, 1):
                    if digest != value.digest:
                        raise Gone(f"learner {rank} has not the bits of learner 0 after the same update; are their machines of one kind?")
            except (Gone, Unreachable) as error:
                failed_at = failed_at or time.monotonic()
                self._mend(error)
            else:
                if failed_at is not None:
                    self._faults.recovered(self._name, time.monotonic() - failed_at)
                return promised, value

    def _answers(self, references: Sequence[Any]) -> list[Any]:
        while not self._advance(references):
            self._require_room()
            # One that has failed is not to be hidden by others that wait for it.
            values_of([reference for reference in references if len(references) > 1 and is_there(reference)])
        return values_of(references)

    def _require_room(self) -> None:
        """Sees to it that a learner that is to start can: nothing goes on without it, and one worker can do another's work."""
        with contextlib.suppress(Gone, Unreachable):  # the answer that is waited for will say so too
            self._look()
        waited = time.monotonic() - self.hosts[0].since
        if not self.arrivals or waited < CROWDED_SECONDS or ray.available_resources().get("CPU", 0.0) >= cluster.LEARNER_CPUS:
            return
        if waited > self._policy.startup_timeout:
            needed = cluster.resources_text({"CPU": cluster.LEARNER_CPUS * len(self.hosts)})
            raise ResourceError(
                f"{self._name} could not be started again within {self._policy.startup_timeout:g} s (fault.startup_timeout). {needed}"
            )
        if not self._asked_for_room and not self._gpus:  # a worker has none to give
            self._asked_for_room = True
            for rank, begun in enumerate(self._begun):
                if begun is None or not is_there(begun):
                    before, self._bundles[rank] = self._bundles[rank], self._make_room(self._bundles[rank])
                    if self._bundles[rank] != before:
                        end(self.hosts[rank].actor)  # which waits for the bundle before; it is started again when that is noticed

    def _mend(self, error: Gone | Unreachable) -> None:
        """Rebuilds a learner that is gone, waits for one that does not answer, unless others wait for it to begin."""
        self._stop.check()  # a signal to the whole process group ends actors too
        attempts, limit = self._attempts, self._policy.max_worker_restarts
        attempts.failed()
        gone = isinstance(error, Gone) or (len(self.hosts) > 1 and bool(self.arrivals))
        if attempts.exhausted(limit):
            raise ResourceError(f"{self._name} has failed {attempts.failures} times in a row (fault.max_worker_restarts {limit}): {error}")
        pause = attempts.pause(self._policy.restart_backoff)
        if gone:
            again = len(self._since_kept)
            made = f", {again} update{'s' if again > 1 else ''} made again" if again else ""
            done = f"rebuilt from its last state{made}; the update it was at is repeated"
            self._faults.record("learner_died", self._name, str(error), done)
        else:
            self._faults.record("learner_unreachable", self._name, str(error), f"asked again after {pause:g} s")
        self._pause(pause)
        if gone:
            self._rebuild()
        elif self.arrivals:
            (host,) = self.hosts
            host.arrival = host.actor.ready.remote()

    def _pause(self, seconds: float) -> None:
        until = time.monotonic() + seconds
        while time.monotonic() < until:
            self._advance(())


def _role(rank: int) -> str:
    return f"{LEARNER}-{rank}" if rank else LEARNER


def _worthwhile_every(config: Config, env: EnvSpec) -> int:
    """Returns 1, or LARGE_STATE_EVERY where parameters and optimizer take more than SMALL_STATE."""
    size = 3 * 4 * layout_size(policy_layout(env, config.network))
    return 1 if size <= SMALL_STATE else LARGE_STATE_EVERY
