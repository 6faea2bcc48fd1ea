"""Where the workers and the learner run, as the trainer sees it; and the backend without Ray."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np

from distppo.config import Config
from distppo.envs.elsewhere import Elsewhere
from distppo.errors import UserError
from distppo.evaluation.episodes import EpisodeResult
from distppo.runtime.cores import available_cores
from distppo.runtime.processes import LearnerProcess, UpdateReport, Worker, share_envs
from distppo.runtime.signals import StopSignal
from distppo.types import EnvSpec, EnvStates, PolicySnapshot, Receipt, Rollout

Handle = Any
"""Something a backend hands out and takes back: an object itself or a reference to one in the object store."""
LearnerState = tuple[Mapping[str, np.ndarray], Mapping[str, Any]]


class WorkerFailed(UserError):
    """A worker could not do its part; the learner is as it was after the last update, and worth saving."""


class NodeLeaving(Exception):
    """A machine of the cluster is about to be taken away: now is the time to save, and then to wait again."""


@contextmanager
def worker_failures() -> Iterator[None]:
    """Turns a UserError of the block, which only workers work for, into WorkerFailed."""
    try:
        yield
    except UserError as error:
        raise WorkerFailed(str(error)) from error


class Backend(Protocol):
    """The trainer's view of the processes. Handles are opaque: the trainer passes them on and never looks inside.

    All waits but that for an update raise StopRequested when the user has asked to stop; `wait` and `evaluate` raise WorkerFailed.

    Attributes:
        num_workers: worker processes that a run is laid out for; 0: all in one process.
        present: worker processes that are there.
        step_name: of the learner's inner step, once it is ready.
    """

    num_workers: int
    step_name: str

    @property
    def present(self) -> int:
        """Worker processes that are there."""

    @property
    def description(self) -> str:
        """Where the actors run, for people."""

    def wait_until_ready(self) -> None:
        """Returns when every process can work; nothing else is asked of them before."""

    def snapshot(self) -> Handle:
        """Returns the learner's current policy."""

    def share(self, snapshot: PolicySnapshot) -> Handle:
        """Returns a handle on a snapshot from a checkpoint."""

    def fetch(self, snapshot: Handle) -> PolicySnapshot:
        """Returns the snapshot itself, for a checkpoint."""

    def collect(self, snapshot: Handle, iteration: int) -> list[Handle]:
        """Orders an iteration's fragments and returns at once."""

    def wait(self, rollouts: list[Handle]) -> list[Receipt]:
        """Returns the fragments' receipts, by worker, when all fragments are there; raises NodeLeaving when it is time to save."""

    def update(self, rollouts: list[Handle]) -> tuple[Handle, UpdateReport]:
        """Learns from an iteration; returns the next snapshot and the report."""

    def evaluate(self, snapshot: Handle, episodes: int) -> list[EpisodeResult]:
        """Plays evaluation episodes 0 ... episodes - 1, shared out over the workers."""

    def learner_state(self) -> LearnerState:
        """Returns the learner's state after the last update."""

    def show(self, row: Mapping[str, Any]) -> None:
        """Shows an iteration's row to whoever watches the processes."""

    def close(self) -> None:
        """Ends every process; safe to call twice."""


@dataclass
class Order:
    """A fragment that is collected when it is waited for."""

    snapshot: PolicySnapshot
    iteration: int
    rollout: Rollout | None = None


class LocalBackend:
    """Collector and learner in this process, one after the other, without Ray: for debugging, with the same classes.

    Args:
        config: of the run.
        env: its environment's spec.
        first_iteration: to be collected.
        restored: learner state to continue from.
        states: of all environments before the first iteration; None starts new episodes.
        stop: asked before every step of the environments.
    """

    num_workers = 0
    present = 0
    step_name = ""

    def __init__(
        self,
        config: Config,
        env: EnvSpec,
        *,
        first_iteration: int,
        restored: LearnerState | None,
        states: EnvStates | None,
        stop: StopSignal,
    ) -> None:
        ((first_env, num_envs),) = share_envs(config.rollout.num_envs, 1)
        self._stop = stop
        self._elsewhere = Elsewhere()
        self._worker = Worker(config, first_env, num_envs, first_iteration, states, stop)
        self._learner = LearnerProcess(config, env, restored, available_cores())

    @property
    def description(self) -> str:
        """Says that there is no Ray."""
        return "in this process, without Ray"

    def wait_until_ready(self) -> None:
        """Makes environments and learner.

        Raises:
            UserError: that cannot be done.
            StopRequested: the user asked to stop before the learner was begun.
        """
        with self._elsewhere:
            self._worker.ready()
        self._stop.catch()  # their first resets may have put handlers of their own in place
        self._stop.check()
        self.step_name = self._learner.ready()

    def snapshot(self) -> PolicySnapshot:
        """Returns the current policy itself."""
        return self._learner.snapshot()

    def share(self, snapshot: PolicySnapshot) -> PolicySnapshot:
        """Returns it as it is."""
        return snapshot

    def fetch(self, snapshot: PolicySnapshot) -> PolicySnapshot:
        """Returns it as it is."""
        return snapshot

    def collect(self, snapshot: PolicySnapshot, iteration: int) -> list[Order]:
        """Notes what is to be collected; `wait` does it, when the learner has read the buffers of the fragment before."""
        return [Order(snapshot, iteration)]

    def wait(self, rollouts: list[Order]) -> list[Receipt]:
        """Collects."""
        self._stop.check()
        receipts = []
        with worker_failures(), self._elsewhere:
            for order in rollouts:
                order.rollout, receipt = self._worker.deliver(order.snapshot, order.iteration)
                receipts.append(receipt)
        return receipts

    def update(self, rollouts: list[Order]) -> tuple[PolicySnapshot, UpdateReport]:
        """Learns."""
        return self._learner.update(*(order.rollout for order in rollouts if order.rollout is not None))

    def evaluate(self, snapshot: PolicySnapshot, episodes: int) -> list[EpisodeResult]:
        """Plays the episodes."""
        self._stop.check()
        with worker_failures(), self._elsewhere:
            return self._worker.evaluate(snapshot, range(episodes))

    def learner_state(self) -> LearnerState:
        """Returns the learner's state."""
        return self._learner.state()

    def show(self, row: Mapping[str, Any]) -> None:
        """Nobody watches this process but the run directory's readers."""

    def close(self) -> None:
        """Closes the environments."""
        with self._elsewhere:
            self._worker.close()
