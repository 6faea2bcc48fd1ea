"""The actors, and what Ray's errors say of them."""

from __future__ import annotations

import contextlib
import os
import signal
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

import ray
from ray.exceptions import ActorUnavailableError, ObjectLostError, RayError, RayTaskError

from distppo.config import Config
from distppo.errors import PeerLostError, UserError
from distppo.evaluation.episodes import EpisodeResult
from distppo.plugins import extend_search_path
from distppo.runtime import cluster
from distppo.runtime.backend import LearnerState
from distppo.runtime.output import RunLogs
from distppo.runtime.processes import LearnerProcess, UpdateReport, Worker
from distppo.types import EnvStates, PolicySnapshot, Receipt, Rollout

if TYPE_CHECKING:
    from distppo.learner.group import Place

NO_ITERATION = 2**32
"""Larger than any iteration's number."""


class Gone(Exception):
    """The process that was to answer has died; the message says of what."""


class Unreachable(Exception):
    """The process did not answer, and may be alive: whether it did what it was asked is not known."""


class Lost(Exception):
    """Data in the object store went with the node that held it."""


class Share(NamedTuple):
    """Consecutive environments of a run that one process steps.

    Attributes:
        number: of the share, from 0.
        first_env: global index of its first environment.
        num_envs: how many it has.
    """

    number: int
    first_env: int
    num_envs: int

    @property
    def name(self) -> str:
        """What its process is called, for people."""
        return f"rollout worker {self.number} (environments {self.first_env} to {self.first_env + self.num_envs - 1})"


class Standpoint(NamedTuple):
    """Where the environments of a share stand.

    Attributes:
        iteration: the one that they are before.
        states: theirs; None: in new episodes, chosen by the iteration.
        failures: where the episodes before were given up: after how many failures, for others than those.
    """

    iteration: int
    states: EnvStates | None
    failures: int = 0


Start = tuple[Share, Standpoint]


class Presence(NamedTuple):
    """What an actor says of itself when it is ready.

    Attributes:
        answer: of the class that it is: the environment's spec, or the name of the learner's step.
        node: id of its node.
        output: where what it prints is.
        pid: of its process there.
    """

    answer: Any
    node: str
    pid: int
    output: str


class WorkerActor:
    """A process that steps the environments of one share, and those of another while that one's process is away.

    Args:
        config: of the run.
        search_path: folders of the driver's in which the user's modules are looked for.
        role: worker-<number>.
        logs: of the run; None: its output stays where Ray puts it.
    """

    def __init__(self, config: Config, search_path: Sequence[str], role: str, logs: RunLogs | None) -> None:
        self._output = redirected(role, logs)
        extend_search_path(search_path)
        self._config = config
        self._workers: dict[int, Worker] = {}

    def ready(self, share: Share, standpoint: Standpoint) -> Presence:
        """Makes the environments of a share, as they stood."""
        return presence(self._hosted(share, standpoint).ready(), self._output)

    @ray.method(num_returns=2)
    def deliver(self, number: int, snapshot: PolicySnapshot, iteration: int, start: Start | None) -> tuple[Rollout, Receipt]:
        """Returns (fragment, receipt).

        Args:
            number: of the share. A number and not the share, since Ray pickles whatever is not plain, in every call.
            snapshot: to act with.
            iteration: of the fragment.
            start: where the environments are to start from; None: where this process has left them.
        """
        worker = self._workers[number] if start is None else self._hosted(*start)
        return worker.deliver(snapshot, iteration)

    def evaluate(self, snapshot: PolicySnapshot, episodes: Sequence[int]) -> list[EpisodeResult]:
        """Plays evaluation episodes."""
        return next(iter(self._workers.values())).evaluate(snapshot, episodes)

    def release(self, share: Share) -> None:
        """Closes the environments of a share that has a process of its own again."""
        self._workers.pop(share.number).close()

    def close(self) -> None:
        """Closes all environments; nothing else is asked of this process afterwards."""
        while self._workers:
            self._workers.popitem()[1].close()

    def _hosted(self, share: Share, standpoint: Standpoint) -> Worker:
        if share.number in self._workers:
            self.release(share)
        # Episodes started after failures are those of an iteration that never comes.
        first_iteration = standpoint.iteration + standpoint.failures * NO_ITERATION
        worker = Worker(self._config, share.first_env, share.num_envs, first_iteration, standpoint.states)
        self._workers[share.number] = worker
        return worker


class LearnerActor(LearnerProcess):
    """A learner that says where it is, and gives no update twice.

    Args:
        role: learner.
        logs: as of a worker.
        learner: what `LearnerProcess` takes.
    """

    _last: tuple[int, UpdateReport] | None = None

    def __init__(self, role: str, logs: RunLogs | None, *learner: Any) -> None:
        self._output = redirected(role, logs)
        super().__init__(*learner)

    def open(self, rank: int) -> Place | None:  # type: ignore[override]
        """Opens, as learner 0, the place where the other learners find it; from the others it is no more than a sign of life."""
        return None if rank else super().open(ray.util.get_node_ip_address())

    def ready(self, rank: int = 0, place: Place | None = None) -> Presence:  # type: ignore[override]
        """Returns the name of the inner step, compiled and ready to run.

        Args:
            rank: of this learner among several.
            place: where they meet; None: it is the only one.
        """
        if place is not None:
            self.join(rank, place, ray.util.get_node_ip_address())
        return presence(super().ready(), self._output)

    def update(  # type: ignore[override]
        self, keep: bool, *rollouts: Rollout
    ) -> tuple[UpdateReport, PolicySnapshot, LearnerState | None]:
        """Learns from one iteration; one that it has learned from already is answered again, since the first answer may have been lost.

        Args:
            keep: whether the state after it is wanted.
            rollouts: one per worker.
        """
        iteration = rollouts[0].iteration
        if self._last is None or self._last[0] != iteration:
            snapshot, report = super().update(*rollouts)
            self._last = (iteration, report)
        else:
            snapshot = self.snapshot()
        return self._last[1], snapshot, self.state() if keep else None

    def follow(self, *rollouts: Rollout) -> str:
        """Learns as learner 0 does at the same time, and returns the digest of the state, which must be the same."""
        return self.update(False, *rollouts)[0].digest


def presence(answer: Any, output: str) -> Presence:
    """Returns an actor's own presence; called inside it."""
    return Presence(answer, ray.get_runtime_context().get_node_id(), os.getpid(), output)


def redirected(role: str, logs: RunLogs | None) -> str:
    """Sends an actor's output where it belongs, and returns where that is; called inside it."""
    return cluster.log_directory() if logs is None else logs.redirect(role)


def values_of(references: Sequence[Any]) -> list[Any]:
    """Returns what the references stand for; all must be there.

    Raises:
        UserError: the call raised it.
        Gone: the process has died, or another one without which it cannot answer.
        Unreachable: it does not answer.
        Lost: a value, or what the call was to work on, went with its node.
    """
    try:
        values: list[Any] = ray.get(list(references))
        return values
    except RayTaskError as error:
        if isinstance(error.cause, UserError):
            raise error.cause from None
        if isinstance(error.cause, PeerLostError):
            raise Gone(str(error.cause)) from error
        if isinstance(error.cause, ObjectLostError):
            raise Lost(_last_line(error.cause)) from error
        raise
    except ActorUnavailableError as error:
        raise Unreachable(_last_line(error)) from error
    except ObjectLostError as error:
        raise Lost(_last_line(error)) from error
    except RayError as error:
        raise Gone(f"{_last_line(error)} Its output is in logs/ of the run directory, or in {cluster.log_directory()}") from error


def is_there(reference: Any) -> bool:
    """Whether a call has ended, well or not."""
    there, _ = ray.wait([reference], timeout=0, fetch_local=False)
    return bool(there)


def end(actor: Any, pid: int | None = None) -> None:
    """Kills an actor.

    Args:
        actor: its handle.
        pid: of its process, where that is on this machine: one that is stopped does not listen to Ray.
    """
    with contextlib.suppress(Exception):  # a cluster that has gone took its actors with it
        ray.kill(actor)
    if pid is not None:
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.kill(pid, signal.SIGKILL)


def _last_line(error: Exception) -> str:
    return str(error).strip().splitlines()[-1].rpartition("Worker exit detail: ")[2].strip()
