"""Where the workers and the learner run, as the trainer sees it; and the backend without Ray."""

from __future__ import annotations

import copy
import os
from collections.abc import Mapping
from typing import Any, Protocol

import numpy as np

from distppo.config import Config
from distppo.evaluation.episodes import EpisodeResult
from distppo.runtime.processes import LearnerProcess, UpdateReport, Worker, share_envs
from distppo.types import EnvSpec, PolicySnapshot, Rollout

Handle = Any
"""Something a backend hands out and takes back: an object itself or a reference to one in the object store."""
LearnerState = tuple[Mapping[str, np.ndarray], Mapping[str, Any]]


def available_cores() -> int:
    """Returns the cores this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


class StopRequested(Exception):
    """Raised by a backend's waits when the user has asked the run to end."""


class Backend(Protocol):
    """The trainer's view of the processes. Handles are opaque: the trainer passes them on and never looks inside."""

    num_workers: int
    step_name: str

    @property
    def description(self) -> str:
        """Where the actors run, for people."""

    def snapshot(self) -> Handle:
        """Returns the learner's current policy."""

    def collect(self, snapshot: Handle, iteration: int) -> list[Handle]:
        """Starts collecting an iteration everywhere and returns at once."""

    def wait(self, rollouts: list[Handle]) -> None:
        """Returns when all fragments are there."""

    def update(self, rollouts: list[Handle]) -> tuple[Handle, UpdateReport]:
        """Learns from an iteration; returns the next snapshot and the report."""

    def evaluate(self, snapshot: Handle, episodes: int) -> list[EpisodeResult]:
        """Plays evaluation episodes 0 ... episodes - 1, shared out over the workers."""

    def learner_state(self) -> LearnerState:
        """Returns the learner's state after the last update."""

    def close(self) -> None:
        """Ends every process; safe to call twice."""


class LocalBackend:
    """Collector and learner in this process, one after the other, without Ray: for debugging, with the same classes.

    Args:
        config: of the run.
        env: its environment's spec.
        first_iteration: to be collected.
        restored: learner state to continue from.
    """

    num_workers = 0

    def __init__(self, config: Config, env: EnvSpec, *, first_iteration: int, restored: LearnerState | None) -> None:
        ((first_env, num_envs),) = share_envs(config.rollout.num_envs, 1)
        self._worker = Worker(config, first_env, num_envs, first_iteration)
        self._learner = LearnerProcess(config, env, restored, available_cores())
        self.step_name = self._learner.ready()

    @property
    def description(self) -> str:
        """Says that there is no Ray."""
        return "in this process, without Ray"

    def snapshot(self) -> PolicySnapshot:
        """Returns the current policy itself."""
        return self._learner.snapshot()

    def collect(self, snapshot: PolicySnapshot, iteration: int) -> list[Rollout]:
        """Collects now. The rollout is copied: in overlap mode the next one is collected before this one is learned from."""
        return [copy.deepcopy(self._worker.collect(snapshot, iteration))]

    def wait(self, rollouts: list[Rollout]) -> None:
        """Does nothing: `collect` has waited."""

    def update(self, rollouts: list[Rollout]) -> tuple[PolicySnapshot, UpdateReport]:
        """Learns now."""
        return self._learner.update(*rollouts)

    def evaluate(self, snapshot: PolicySnapshot, episodes: int) -> list[EpisodeResult]:
        """Plays the episodes now."""
        return self._worker.evaluate(snapshot, range(episodes))

    def learner_state(self) -> LearnerState:
        """Returns the learner's state."""
        return self._learner.state()

    def close(self) -> None:
        """Closes the environments."""
        self._worker.close()
