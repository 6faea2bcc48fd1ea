"""The schedulers of Ray Tune that a search can have, and how one comes by what it knew before it was interrupted."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
from ray.tune.schedulers import AsyncHyperBandScheduler, FIFOScheduler, PopulationBasedTraining, TrialScheduler

from distppo.algo.seeding import Purpose, stream
from distppo.metrics import METRICS_FILE, read_metrics
from distppo.metrics.keys import STEPS
from distppo.runtime.tune.records import RUNNING, Record, Records
from distppo.runtime.tune.request import Request, is_mutable
from distppo.runtime.tune.trial import NUMBER, SETTINGS, settings_of

_NOBODY: Any = None
"""The controller of Tune's when reports of the past are gone through, which ASHA does not look at."""
_EXPLORATIONS = 2**31
"""Number of the stream that a population's variations are drawn from; trials have those below."""


def make_scheduler(request: Request, records: Records) -> TrialScheduler:
    """Returns the scheduler of a search, knowing what the trials that there are have reported."""
    if request.scheduler == "asha":
        return Halving(request, records)
    if request.scheduler == "pbt":
        return _population(request, records)
    return FIFOScheduler()


class Halving(AsyncHyperBandScheduler):
    """ASHA (Li et al. 2018) over env steps. Its rungs are rebuilt from the metrics in the run directories, which hold all it has seen."""

    def __init__(self, request: Request, records: Records) -> None:
        super().__init__(
            time_attr=STEPS,
            metric=request.found.metric,
            mode=request.found.mode,
            max_t=request.config.run.total_timesteps,
            grace_period=request.grace_period,
            reduction_factor=request.found.asha["reduction_factor"] or 3,
        )
        self._records = records
        for record in list(records.by_number.values()):
            if record.state != RUNNING:
                past: Any = SimpleNamespace(trial_id=record.name)
                super().on_trial_add(_NOBODY, past)
                self._recall(past, record)

    def on_trial_add(self, tune_controller: Any, trial: Any) -> None:
        """Takes a trial in, with what it reported before the search was interrupted."""
        super().on_trial_add(tune_controller, trial)
        record = self._records.by_number.get(trial.config[NUMBER])
        if record is not None:
            self._recall(trial, record)

    def _recall(self, trial: Any, record: Record) -> None:
        metric = self._records.request.found.metric
        for row in _rows(self._records.directory / record.name):
            if row.get(metric) is not None and row[STEPS] < self._records.request.config.run.total_timesteps:
                super().on_trial_result(_NOBODY, trial, dict(row))


def _rows(directory: Path) -> Sequence[Mapping[str, Any]]:
    path = directory / METRICS_FILE
    return read_metrics(path) if path.exists() else ()


def _population(request: Request, records: Records) -> PopulationBasedTraining:
    """Returns population-based training (Jaderberg et al. 2017) that varies settings within the space, conditions included."""
    pbt = request.found.pbt
    resample = float(pbt["resample_probability"] if pbt["resample_probability"] is not None else 0.25)
    # A continued search goes on with other numbers than it began with.
    before = sum(len(record.changes) for record in records.by_number.values())
    rng: np.random.Generator = stream(request.config.run.seed, Purpose.TRIAL_SETTINGS, _EXPLORATIONS, before)

    def explored(config: dict[str, Any]) -> dict[str, Any]:
        return {**config, SETTINGS: request.found.space.perturbed(settings_of(config), is_mutable, rng, resample)}

    return PopulationBasedTraining(
        time_attr=STEPS,
        metric=request.found.metric,
        mode=request.found.mode,
        perturbation_interval=request.perturbation_interval,
        quantile_fraction=pbt["quantile_fraction"] or 0.25,
        custom_explore_fn=explored,
        log_config=False,
    )
