"""Settings proposed by Optuna's TPE, over the same space; the study is rebuilt from the records, so nothing of it has to be kept."""

from __future__ import annotations

from typing import Any

import optuna
from optuna.distributions import BaseDistribution, CategoricalDistribution, FloatDistribution, IntDistribution
from optuna.trial import FrozenTrial, TrialState, create_trial
from ray.tune.search import Searcher

from distppo.algo.seeding import Purpose, seed_sequence
from distppo.runtime.tune.records import RUNNING, Record, Records
from distppo.runtime.tune.space import Parameter
from distppo.runtime.tune.trial import JOB, NUMBER, SETTINGS, Job

_PROPOSALS = 2**31 + 1
"""Number of the stream that Optuna draws from; trials have those below."""


class OptunaSearch(Searcher):
    """Proposes what to try next from what has been reached so far (TPE, Bergstra et al. 2011).

    Args:
        records: of the trials that there are.
        job: of all trials.
        resumed: interrupted trials, which are handed out first.
    """

    def __init__(self, records: Records, job: Job, resumed: list[Record]) -> None:
        request = records.request
        super().__init__(metric=request.found.metric, mode=request.found.mode)
        optuna.logging.set_verbosity(optuna.logging.ERROR)
        known = [record for record in records.by_number.values() if record.state != RUNNING]
        seed = seed_sequence(request.config.run.seed, Purpose.TRIAL_SETTINGS, _PROPOSALS, len(known)).generate_state(1)[0]
        sampler = optuna.samplers.TPESampler(seed=int(seed), n_startup_trials=min(10, max(2, request.trials // 3)))
        direction = "maximize" if request.found.mode == "max" else "minimize"
        self._study = optuna.create_study(sampler=sampler, direction=direction)
        self._records, self._job, self._resumed = records, job, resumed
        self._next = max(records.by_number, default=-1) + 1
        self._open: dict[str, optuna.Trial] = {}
        self._numbers: dict[str, int] = {}
        for record in known:
            self._learn(record)

    def set_search_properties(self, metric: str | None, mode: str | None, config: dict[str, Any], **spec: Any) -> bool:
        """Says that metric and mode are known here."""
        return True

    def suggest(self, trial_id: str) -> dict[str, Any]:
        """Returns the config of the next trial."""
        if self._resumed:
            record = self._resumed.pop(0)
            number, settings = record.number, record.settings
        else:
            proposed = self._open[trial_id] = self._study.ask()
            settings = self._records.request.found.space.settings(lambda parameter: _proposed(proposed, parameter))
            number, self._next = self._next, self._next + 1
        self._numbers[trial_id] = number
        return {JOB: self._job, NUMBER: number, SETTINGS: settings}

    def on_trial_complete(self, trial_id: str, result: dict[str, Any] | None = None, error: bool = False) -> None:
        """Learns from a trial's end; what was stopped early counts with what it had reached."""
        proposed, number = self._open.pop(trial_id, None), self._numbers.pop(trial_id, None)
        score = None if error or result is None else result.get(self.metric)
        if proposed is not None:
            self._study.tell(proposed, score, state=TrialState.FAIL if score is None else TrialState.COMPLETE)
        elif number is not None and number in self._records.by_number:
            self._learn(self._records.by_number[number])

    def save(self, checkpoint_path: str) -> None:
        """Nothing is kept: results.json has it all."""

    def restore(self, checkpoint_path: str) -> None:
        """Nothing is taken back, likewise."""

    def _learn(self, record: Record) -> None:
        space = self._records.request.found.space
        parameters = [parameter for parameter in space.parameters if parameter.key in record.settings]
        if record.score is None or any(not _possible(parameter, record.settings[parameter.key]) for parameter in parameters):
            return
        past: FrozenTrial = create_trial(
            params={each.key: _stored(each, record.settings[each.key]) for each in parameters},
            distributions={each.key: _distribution(each) for each in parameters},
            value=record.score,
        )
        self._study.add_trial(past)


def _proposed(trial: optuna.Trial, parameter: Parameter) -> Any:
    if parameter.distribution == "choice":
        return parameter.values[trial.suggest_categorical(parameter.key, list(range(len(parameter.values))))]
    low, high = parameter.values
    if parameter.distribution == "int":
        return trial.suggest_int(parameter.key, low, high)
    return parameter.within(trial.suggest_float(parameter.key, low, high, log=parameter.distribution == "loguniform"))


def _distribution(parameter: Parameter) -> BaseDistribution:
    if parameter.distribution == "choice":
        return CategoricalDistribution(list(range(len(parameter.values))))
    low, high = parameter.values
    if parameter.distribution == "int":
        return IntDistribution(low, high)
    return FloatDistribution(low, high, log=parameter.distribution == "loguniform")


def _stored(parameter: Parameter, value: Any) -> Any:
    """Returns a value as the study has it: of a choice its place, since Optuna's are texts and numbers alone."""
    return parameter.values.index(value) if parameter.distribution == "choice" else value


def _possible(parameter: Parameter, value: Any) -> bool:
    if parameter.distribution == "choice":
        return value in parameter.values
    low, high = parameter.values
    return bool(low <= value <= high)
