"""A trial: a run of `train`, one report at a time, as Ray Tune wants it."""

from __future__ import annotations

import contextlib
import math
import shutil
import time
from collections.abc import Generator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ray.tune import PlacementGroupFactory, Trainable

from distppo.checkpoint import list_checkpoints
from distppo.checkpoint.reader import CHECKPOINTS
from distppo.config import Config
from distppo.config.load import flattened
from distppo.config.trust import named_code
from distppo.errors import CheckpointError, UserError
from distppo.files import discard, staging_directory
from distppo.metrics import METRICS_FILE, read_metrics
from distppo.metrics.keys import STEPS
from distppo.plugins import extend_search_path
from distppo.runtime.run_directory import CONFIG_FILE, LOCK_NAME, InUseError
from distppo.runtime.sizes import LEARNER_CPUS, WORKER_CPUS
from distppo.runtime.train import Iteration, TrainResult, iterations
from distppo.runtime.tune.request import trial_config
from distppo.runtime.tune.space import Settings

JOB, NUMBER, SETTINGS = "job", "number", "settings"
"""What Tune calls the config of a trial. With a scheduler that moves settings, the number is that of the trial they come from."""
OVER = "run_over"
"""Of a report: the run has come to its own end, at its total or because a callback had it end."""
HANDOVER_SECONDS = 120.0
"""For which a trial that moves waits until its former process has left the run directory."""
_POLL_SECONDS = 0.2


@dataclass(frozen=True)
class Job:
    """What all trials of a search have in common.

    Attributes:
        config: with the number of workers, without the trials' settings.
        directory: of the search, absolute; a trial's is in it, under the trial's name.
        metric: every report has it.
        drawn: settings by the trial's number, where they are known beforehand.
        search_path: folders of the driver's in which modules are looked for.
    """

    config: Config
    directory: str
    metric: str
    drawn: Mapping[int, Settings]
    search_path: tuple[str, ...] = ()


def settings_of(config: Mapping[str, Any]) -> Settings:
    """Returns what a trial is to try: what the search or a scheduler says of it, else what was drawn for its number."""
    job: Job = config[JOB]
    return dict(config[SETTINGS] if SETTINGS in config else job.drawn[config[NUMBER]])


class TrainingTrial(Trainable):
    """A run of `train`, stepped by Tune. The trial's name is that of its run directory, which holds all that is ever restored."""

    @classmethod
    def default_resource_request(cls, config: dict[str, Any]) -> PlacementGroupFactory:
        """Returns a bundle for every process of a trial: a bundle that is missing would have an actor wait for ever."""
        job: Job = config[JOB]
        return PlacementGroupFactory(bundles(job.config))

    def setup(self, config: dict[str, Any]) -> None:
        """Notes what is to be done; the processes start at the first step, when it is known what they start from."""
        extend_search_path(config[JOB].search_path)
        self._steps: Generator[Iteration, None, TrainResult] | None = None
        self._current: Iteration | None = None

    @property
    def run_directory(self) -> Path:
        """Of this trial."""
        return Path(self.config[JOB].directory) / self.trial_name

    @property
    def trial_settings(self) -> Config:
        """The config of this trial as Tune wants it now."""
        return trial_config(self.config[JOB].config, settings_of(self.config))

    def step(self) -> dict[str, Any]:
        """Trains until there is something to report: one iteration, or as many as it takes until the metric has a value."""
        metric, total = self.config[JOB].metric, self.config[JOB].config.run.total_timesteps
        if self._steps is None:
            self._current = self._begin()
        else:
            self._current = self._next()
        while self._current is not None:
            row = dict(self._current.row)
            over = row[STEPS] >= total
            if over:
                self._finish()
            if _has(row, metric):
                return {**row, "done": over, OVER: over}
            if not over:
                self._current = self._next()
        return {**self._last_report(), "done": True, OVER: True}

    def save_checkpoint(self, checkpoint_dir: str) -> None:
        """Copies the run's checkpoint of this moment, in our own format."""
        if self._current is not None:
            self._current.save()
        found = list_checkpoints(self.run_directory)
        if not found:
            raise CheckpointError(f"{self.run_directory}: nothing has been learned yet that could be saved")
        shutil.copytree(found[-1].path, Path(checkpoint_dir) / found[-1].path.name)

    def load_checkpoint(self, checkpoint_dir: str) -> None:  # type: ignore[override]
        """Has the run go on from a checkpoint, its own or another trial's, with the settings that this trial has now."""
        self._finish()
        (source,) = Path(checkpoint_dir).glob("ckpt_*")
        target = self.run_directory / CHECKPOINTS
        target.parent.mkdir(parents=True, exist_ok=True)
        with staging_directory(target) as staged:
            shutil.copytree(source, staged / source.name)
            if target.exists():
                discard(target)
            staged.rename(target)

    def reset_config(self, new_config: dict[str, Any]) -> bool:
        """Ends the run, so that this process can serve another trial, or this one with other settings."""
        with contextlib.suppress(UserError):  # of a trial whose reports are all in, and which is not the next one's to answer for
            self._finish()
        self.setup(new_config)
        return True

    def cleanup(self) -> None:
        """Ends the run in order: checkpoint, summary, processes."""
        self._finish()

    def _begin(self) -> Iteration | None:
        """Starts the processes, from what is in the run directory if there is anything, and returns the first iteration."""
        deadline = time.monotonic() + HANDOVER_SECONDS
        while True:
            self._steps = self._started()
            try:
                return self._next()
            except InUseError:
                self._steps = None
                if time.monotonic() > deadline:
                    raise
                time.sleep(_POLL_SECONDS)

    def _started(self) -> Generator[Iteration, None, TrainResult]:
        directory, config = self.run_directory, self.trial_settings
        overrides = {key: value for key, value in flattened(config).items() if key != "run.directory"}
        begun = (directory / LOCK_NAME).is_file() and (directory / CONFIG_FILE).is_file()
        where = {"resume": str(directory)} if begun or list_checkpoints(directory) else {}
        if not where:
            overrides["run.directory"] = str(directory)
        # The settings of now count over those of the checkpoint, so that what a scheduler has changed is what is trained with.
        return iterations(overrides=overrides, trust=[*named_code(config)], progress=False, **where)

    def _next(self) -> Iteration | None:
        """Returns the next iteration; None when the run has come to its end."""
        assert self._steps is not None
        try:
            return next(self._steps)
        except StopIteration as end:
            self._steps = None
            if end.value.signal is not None:
                raise UserError(f"the trial's process was asked to end by signal {end.value.signal}") from None
            return None

    def _finish(self) -> None:
        """Has the run end after the iteration it is at, which is checkpointed."""
        current, self._current = self._current, None
        if self._steps is None or current is None:
            return
        current.stop("the search has ended this trial, or moved it")
        while self._steps is not None:
            self._next()

    def _last_report(self) -> dict[str, Any]:
        """Returns the newest row with the metric of a run that has nothing left to do."""
        path, metric = self.run_directory / METRICS_FILE, self.config[JOB].metric
        rows = read_metrics(path) if path.exists() else []
        found = next((row for row in reversed(rows) if _has(row, metric)), None)
        if found is None:
            raise UserError(f"the trial has ended without a value of {metric}; docs/metrics.md says when it has one")
        return dict(found)


def bundles(config: Config) -> list[dict[str, float]]:
    """Returns what each process of a trial occupies: its driver nothing, the learners, and the workers; of one process, that."""
    learner = {"CPU": float(LEARNER_CPUS), "GPU": 1.0 if config.learner.device == "cuda" else 0.0}
    workers = config.rollout.num_workers
    assert workers is not None, "a trial has a fixed number of workers"
    if not workers:
        return [learner]
    return [{}, *[learner] * config.learner.num_learners, *[{"CPU": float(WORKER_CPUS)}] * workers]


def _has(row: dict[str, Any], metric: str) -> bool:
    value = row.get(metric)
    return value is not None and math.isfinite(value)
