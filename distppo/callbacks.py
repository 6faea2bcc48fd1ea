"""Callbacks: code of the user's that runs in the driver while a run goes on. `run.callbacks` names the classes."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from distppo.config import Config


class TrainingRun:
    """What a callback sees of the run, and how it ends it.

    Attributes:
        config: resolved settings of the run.
        directory: the run directory.
        iteration: iterations learned from so far.
        env_steps: env steps learned from so far.
        stop_reason: why a callback has asked to stop; None if none has.
    """

    def __init__(self, config: Config, directory: Path) -> None:
        self.config = config
        self.directory = directory
        self.iteration = 0
        self.env_steps = 0
        self.stop_reason: str | None = None

    def stop(self, reason: str) -> None:
        """Has the run end after the current iteration, in order: with a checkpoint, a summary and exit code 0.

        Args:
            reason: for people; the first one given counts.
        """
        if self.stop_reason is None:
            self.stop_reason = reason


class Callback:
    """Base class of callbacks. Every method may be left out; each is called in the driver, between two of its steps.

    What a method raises ends the run with an error that names it, and the state after the last update is checkpointed.
    """

    def on_start(self, run: TrainingRun) -> None:
        """The processes are ready and nothing has been collected yet. A resumed run has `run.env_steps` above 0."""

    def on_iteration(self, run: TrainingRun, metrics: Mapping[str, float]) -> None:
        """An iteration has been learned from.

        Args:
            run: where it stands.
            metrics: its row in metrics.jsonl, by the keys of docs/metrics.md; of an evaluation too, if there was one.
        """

    def on_evaluation(self, run: TrainingRun, returns: Sequence[float]) -> None:
        """An evaluation has been played, before its iteration's `on_iteration`.

        Args:
            run: where it stands.
            returns: undiscounted raw return of each episode.
        """

    def on_checkpoint(self, run: TrainingRun, path: Path, best: bool) -> None:
        """A checkpoint has been written.

        Args:
            run: where it stands.
            path: its directory, complete; older ones may be removed from now on.
            best: whether it was saved because its evaluation is the best so far.
        """

    def on_end(self, run: TrainingRun, summary: Mapping[str, Any]) -> None:
        """The run has ended in order: at its total, by `run.stop` or by a signal. Not called when an error ends it.

        Args:
            run: where it stands.
            summary: what summary.json holds.
        """


EVENTS = tuple(name for name in vars(Callback) if name.startswith("on_"))
"""Names of the methods that are called."""


class StopAtReturn(Callback):
    """Ends the run when the evaluation's mean return has reached a target.

    Args:
        target: undiscounted return.
        evaluations: how many in a row have to reach it, >= 1.

    Raises:
        ValueError: `evaluations` < 1.

    Example:
        In YAML: `run: {callbacks: [{class: distppo.callbacks:StopAtReturn, target: 3000}]}`
    """

    def __init__(self, target: float, evaluations: int = 1) -> None:
        if evaluations < 1:
            raise ValueError(f"evaluations must be at least 1, got {evaluations}")
        self.target = target
        self.evaluations = evaluations
        self._reached = 0

    def on_evaluation(self, run: TrainingRun, returns: Sequence[float]) -> None:
        """Counts the evaluations that reach the target."""
        mean = sum(returns) / len(returns)
        self._reached = self._reached + 1 if mean >= self.target else 0
        if self._reached >= self.evaluations:
            run.stop(f"the evaluation's mean return {mean:,.1f} has reached {self.target:,.1f}")
