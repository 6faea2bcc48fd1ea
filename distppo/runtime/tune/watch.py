"""What the driver of a search does while Tune runs it: keeps the records, tells people, and ends what should not go on."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

from ray.tune import Callback, Stopper

from distppo.console import format_duration
from distppo.runtime import cluster
from distppo.runtime.signals import StopSignal
from distppo.runtime.tune.records import FAILED, FINISHED, RUNNING, STOPPED, Record, Records, setting_text
from distppo.runtime.tune.trial import NUMBER, OVER, settings_of

STATUS_SECONDS = 30.0
"""Between two lines about the search as a whole."""
WRITE_SECONDS = 2.0
"""Between two writes of results.json while nothing but reports comes in."""


class Watch(Callback):
    """Keeps the records of a search.

    Args:
        records: to keep.
        say: takes a line for people.
        stop: the user's wish to end.

    Attributes:
        starved: what was needed and what there was, where no trial could be started.
    """

    def __init__(self, records: Records, say: Callable[[str], None], stop: StopSignal) -> None:
        self._records, self._say, self._stop = records, say, stop
        self._numbers: dict[str, int] = {}
        self._began = self._alive = self._told = self._written = time.monotonic()
        self.starved: str | None = None

    def on_step_begin(self, iteration: int, trials: list[Any], **info: Any) -> None:
        """Notices that nothing runs and nothing can, and says from time to time how far it is."""
        now = time.monotonic()
        waiting = [trial for trial in trials if trial.status == "PENDING"]
        if not waiting or any(trial.status == "RUNNING" for trial in trials):
            self._alive = now
        timeout = self._records.request.config.fault.startup_timeout
        if self.starved is None and now - self._alive > timeout:
            base = self._records.request.base
            needed = cluster.needed_resources(base, base.rollout.num_workers or 0)
            text = cluster.resources_text(needed, "--workers-per-trial")
            self.starved = f"no trial could start within {timeout:g} s (fault.startup_timeout). {text}"
        if now - self._told > STATUS_SECONDS:
            self._told = now
            self._say(self._status(now))

    def on_trial_start(self, iteration: int, trials: list[Any], trial: Any, **info: Any) -> None:
        """Notes a trial that begins, goes on, or goes on with other settings."""
        known = trial.trial_id in self._numbers
        record = self._records.by_number.get(self._number(trial))
        if record is None:
            record = self._added(trial)
            self._say(f"{record.name} begins: {_listed(record)}")
        elif record.change(settings_of(trial.config)):
            self._say(f"{record.name} goes on from a better trial with {_listed(record)}")
        elif not known:
            self._say(f"{record.name} goes on: {_listed(record)}")
        record.state = RUNNING
        self._records.write()

    def on_trial_result(self, iteration: int, trials: list[Any], trial: Any, result: dict[str, Any], **info: Any) -> None:
        """Notes a report."""
        record = self._records.by_number[self._number(trial)]
        record.take(result, self._records.request.found.metric)
        if time.monotonic() - self._written > WRITE_SECONDS:
            self._written = time.monotonic()
            self._records.write()

    def on_trial_complete(self, iteration: int, trials: list[Any], trial: Any, **info: Any) -> None:
        """Notes a trial's end."""
        record = self._records.by_number.get(self._number(trial))
        if record is None or self._stop.requested():
            return
        request, result = self._records.request, trial.last_result
        over = result.get(OVER) or any(limit.reached(result) for limit in request.found.stop)
        record.state = FINISHED if over else STOPPED
        self._say(f"{record.name} {record.state} at {record.env_steps:,} env steps: {request.found.metric} {record.score:,.4g}")
        self._records.write()

    def on_trial_error(self, iteration: int, trials: list[Any], trial: Any, **info: Any) -> None:
        """Notes a trial that has failed for good."""
        record = self._records.by_number.get(self._number(trial)) or self._added(trial)
        if self._stop.requested():
            return
        record.state, record.error = FAILED, _reason(trial)
        self._say(f"{record.name} failed at {record.env_steps:,} env steps: {record.error}")
        self._records.write()

    def _number(self, trial: Any) -> int:
        """Returns a trial's number; the one in its config is later that of the trial whose settings it took over."""
        return self._numbers.setdefault(trial.trial_id, trial.config[NUMBER])

    def _added(self, trial: Any) -> Record:
        number = self._number(trial)
        self._records.by_number[number] = Record(number, settings_of(trial.config))
        return self._records.by_number[number]

    def _status(self, now: float) -> str:
        records = self._records
        counts = [f"{records.count(state)} {state}" for state in (RUNNING, FINISHED, STOPPED, FAILED) if records.count(state)]
        best = records.best
        reached = "" if best is None or best.score is None else f"; best {best.score:,.4g} ({best.name})"
        return f"{format_duration(now - self._began)}: {', '.join(counts) or 'starting'} of {records.request.trials} trials{reached}"


class Ending(Stopper):
    """Ends a trial at a limit of the space's, and everything when the user asks for it or nothing can run."""

    def __init__(self, watch: Watch, records: Records, stop: StopSignal) -> None:
        self._watch, self._records, self._stop = watch, records, stop

    def __call__(self, trial_id: str, result: dict[str, Any]) -> bool:
        """Returns whether the trial has gone far enough."""
        return any(limit.reached(result) for limit in self._records.request.found.stop)

    def stop_all(self) -> bool:
        """Returns whether the search is to end."""
        return self._stop.requested() or self._watch.starved is not None


def _listed(record: Record) -> str:
    return ", ".join(f"{key.partition('.')[2]} {setting_text(key, value)}" for key, value in record.settings.items())


def _reason(trial: Any) -> str:
    """Returns the last line that says why a trial failed."""
    error = trial.get_error()
    cause = getattr(error, "cause", None) or error
    lines = [line.strip() for line in str(cause).splitlines() if line.strip()]
    return lines[-1] if lines else "unknown error"
