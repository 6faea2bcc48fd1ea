"""The learner's process, and how it is rebuilt: from the last state that the driver holds, making again what came after it."""

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
from distppo.runtime.placement import LEARNER_BUNDLE, Placement
from distppo.runtime.processes import UpdateReport
from distppo.runtime.signals import StopSignal
from distppo.types import EnvSpec

NAME = "the learner"
LEARNER = "learner"
SMALL_STATE = 16 * 2**20
"""Bytes of learner state up to which a copy is kept after every update."""
LARGE_STATE_EVERY = 4
"""Updates between copies of a larger one."""
CROWDED_SECONDS = 10.0
"""For which a rebuilt learner waits for a free CPU, before a worker gives up its own."""


class CentralLearner:
    """The one learner. After an update its state lies in the object store, owned by this process, and outlives the learner's.

    Args:
        config: of the run.
        env: its environment's spec.
        restored: learner state to continue from.
        cores: free while it works.
        gpus: it occupies.
        placement: where it goes.
        logs: for its output; None leaves it to Ray.
        faults: told what happens.
        stop: where it has been asked for, nothing is rebuilt any more.
        advance: waits a moment for references, and lets the workers have what they need meanwhile; returns whether these are there.
        make_room: has a worker give up its CPU, to which it may give the learner's bundle instead; returns the learner's.

    Attributes:
        host: its process.
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
        self._placement, self._bundle, self._gpus, self._asked_for_room = placement, LEARNER_BUNDLE, gpus, False
        # Once and by reference: of a large network the state would otherwise be copied for every process that starts from it.
        self._kept: Any = None if restored is None else ray.put(restored)
        self._since_kept: list[Sequence[Any]] = []
        self._every = config.fault.learner_state_every or _worthwhile_every(config, env)
        self._attempts = Attempts()
        self.host = self._start()

    @property
    def ready(self) -> bool:
        """Whether its process can work."""
        return self.host.ready

    def welcome(self) -> None:
        """Takes in its process, if it has become ready, and mends it, if it could not.

        Raises:
            UserError: it cannot be made.
        """
        try:
            self._look()
        except (Gone, Unreachable) as error:
            self._mend(error)

    def _look(self) -> None:
        if not self.host.ready and is_there(self.host.arrival):
            (self.host.presence,) = values_of([self.host.arrival])
            self.step_name = self.host.presence.answer
            self._asked_for_room = False
            if self._logs is not None:
                self._logs.note(LEARNER, self.host.presence.output)

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
        (_, snapshot, state), told = self._reliably(lambda actor: actor.update.options(num_returns=3).remote(keep, *rollouts))
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
        """Goes on in a new process if it is on one of these nodes; for a time when it has nothing to do. Returns whether it does."""
        if self.host.presence is None or self.host.presence.node not in draining:
            return 0
        end(self.host.actor)
        self._rebuild()
        return 1

    def close(self) -> None:
        """Kills the process."""
        end(self.host.actor)

    def _start(self) -> Host:
        bundle = self._bundle if self._placement.usable(self._bundle) else None
        options = self._placement.options(LEARNER, bundle) | {"num_cpus": cluster.LEARNER_CPUS, "num_gpus": self._gpus}
        actor = self._actor_class.options(**options).remote(LEARNER, self._logs, *self._arguments, self._kept, self._cores, search_path())
        return Host(NAME, actor, actor.ready.remote(), time.monotonic())

    def _rebuild(self) -> None:
        """Starts a process from the kept state and has it make again, in order, the updates that came after."""
        self.host = self._start()
        for rollouts in self._since_kept:
            self.host.actor.update.remote(False, *rollouts)

    def _reliably(self, ask: Callable[[Any], Sequence[Any]]) -> tuple[Sequence[Any], Any]:
        """Asks until there is an answer; returns what was promised, whose first reference is the answer, and its value."""
        failed_at: float | None = None
        self._attempts.succeeded()
        while True:
            promised = ask(self.host.actor)
            try:
                value = self._answer(promised[0])
            except (Gone, Unreachable) as error:
                failed_at = failed_at or time.monotonic()
                self._mend(error)
            else:
                if failed_at is not None:
                    self._faults.recovered(NAME, time.monotonic() - failed_at)
                return promised, value

    def _answer(self, reference: Any) -> Any:
        while not self._advance([reference]):
            self._require_room()
        (value,) = values_of([reference])
        return value

    def _require_room(self) -> None:
        """Sees to it that a learner that is to start can: nothing goes on without it, and one worker can do another's work."""
        with contextlib.suppress(Gone, Unreachable):  # the answer that is waited for will say so too
            self._look()
        waited = time.monotonic() - self.host.since
        if self.host.ready or waited < CROWDED_SECONDS or ray.available_resources().get("CPU", 0.0) >= cluster.LEARNER_CPUS:
            return
        if waited > self._policy.startup_timeout:
            needed = cluster.resources_text({"CPU": cluster.LEARNER_CPUS})
            raise ResourceError(
                f"{NAME} could not be started again within {self._policy.startup_timeout:g} s (fault.startup_timeout). {needed}"
            )
        if not self._asked_for_room and not self._gpus:  # a worker has none to give
            self._asked_for_room = True
            before, self._bundle = self._bundle, self._make_room(self._bundle)
            if self._bundle != before:
                end(self.host.actor)  # which waits for the bundle before; it is started again when that is noticed

    def _mend(self, error: Gone | Unreachable) -> None:
        """Rebuilds a learner that is gone, waits for one that does not answer."""
        self._stop.check()  # a signal to the whole process group ends actors too
        attempts, limit = self._attempts, self._policy.max_worker_restarts
        attempts.failed()
        gone = isinstance(error, Gone)
        if attempts.exhausted(limit):
            raise ResourceError(f"{NAME} has failed {attempts.failures} times in a row (fault.max_worker_restarts {limit}): {error}")
        pause = attempts.pause(self._policy.restart_backoff)
        if gone:
            again = len(self._since_kept)
            made = f", {again} update{'s' if again > 1 else ''} made again" if again else ""
            self._faults.record("learner_died", NAME, str(error), f"rebuilt from its last state{made}; the update it was at is repeated")
        else:
            self._faults.record("learner_unreachable", NAME, str(error), f"asked again after {pause:g} s")
        self._pause(pause)
        if gone:
            self._rebuild()
        elif not self.host.ready:
            self.host.arrival = self.host.actor.ready.remote()

    def _pause(self, seconds: float) -> None:
        until = time.monotonic() + seconds
        while time.monotonic() < until:
            self._advance(())


def _worthwhile_every(config: Config, env: EnvSpec) -> int:
    """Returns 1, or LARGE_STATE_EVERY where parameters and optimizer take more than SMALL_STATE."""
    size = 3 * 4 * layout_size(policy_layout(env, config.network))
    return 1 if size <= SMALL_STATE else LARGE_STATE_EVERY
