"""What has become of the trials. `results.json` says it at any time, and with the run directories is all that a search goes on from."""

from __future__ import annotations

import csv
import dataclasses
import io
import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

from distppo.config import dump_config
from distppo.config.dump import format_value
from distppo.config.fields import find_field
from distppo.errors import UserError
from distppo.files import open_regular, write_atomic
from distppo.metrics.keys import STEPS
from distppo.runtime.tune.request import SCHEDULERS, SEARCHES, Request, code_in, trial_config
from distppo.runtime.tune.space import Settings
from distppo.runtime.tune.space_file import restored_settings
from distppo.strict_json import parse_strictly

RESULTS_FILE, TABLE_FILE, BEST_FILE = "results.json", "results.csv", "best.yaml"
BASE_FILE, SPACE_FILE = "base.yaml", "space.yaml"
"""What a search was given. Not config.yaml, which makes a folder a run, to be gone on with by `train --resume`."""
RUNNING, FINISHED, STOPPED, FAILED = "running", "finished", "stopped", "failed"
STATES = (RUNNING, FINISHED, STOPPED, FAILED)
LARGEST_FILE = 64 * 2**20


@dataclass
class Record:
    """A trial.

    Attributes:
        number: from 0.
        settings: that it has now.
        state: running; finished (at its total, or at a limit of the space's), stopped (by the scheduler) or failed.
        score: the metric in its last report; None before the first.
        env_steps: learned from by then.
        seconds: spent training by then.
        changes: earlier settings of a population's trial, and the env steps up to which it had them.
        error: what ended it.
    """

    number: int
    settings: Settings
    state: str = RUNNING
    score: float | None = None
    env_steps: int = 0
    seconds: float = 0.0
    changes: list[dict[str, Any]] = field(default_factory=list)
    error: str | None = None

    @property
    def name(self) -> str:
        """Of the trial and of its run directory."""
        return trial_name(self.number)

    def take(self, row: Mapping[str, Any], metric: str) -> None:
        """Notes a report."""
        self.score, self.env_steps = float(row[metric]), int(row[STEPS])
        self.seconds = float(row.get("time/time_elapsed", self.seconds))

    def change(self, settings: Settings) -> bool:
        """Notes the settings that it goes on with; returns whether they are others."""
        if settings == self.settings:
            return False
        self.changes.append({"until_env_steps": self.env_steps, "settings": self.settings})
        self.settings = settings
        return True


class Records:
    """The trials of a search, by number.

    Args:
        request: the search.
        directory: of it.
        records: of trials that there are already.
    """

    def __init__(self, request: Request, directory: Path, records: Sequence[Record] = ()) -> None:
        self.request, self.directory = request, directory
        self.by_number = {record.number: record for record in records}

    @property
    def ranked(self) -> list[Record]:
        """All trials, the best first, those without a score last."""
        sign = -1.0 if self.request.found.mode == "max" else 1.0
        worst = math.inf
        return sorted(self.by_number.values(), key=lambda each: (worst if each.score is None else sign * each.score, each.number))

    @property
    def best(self) -> Record | None:
        """The best trial; None where none has a score."""
        ranked = self.ranked
        return ranked[0] if ranked and ranked[0].score is not None else None

    @property
    def code(self) -> dict[str, str]:
        """Every `module:Name` that its trials load or could load, and its key."""
        return code_in(self.request, [record.settings for record in self.by_number.values()])

    @property
    def complete(self) -> bool:
        """Whether nothing is left to do."""
        return len(self.by_number) >= self.request.trials and all(record.state != RUNNING for record in self.by_number.values())

    def count(self, state: str) -> int:
        """Returns how many trials are in a state."""
        return sum(record.state == state for record in self.by_number.values())

    def write(self) -> None:
        """Writes results.json.

        Raises:
            UserError: the disk refuses.
        """
        request, best = self.request, self.best
        content = {
            "metric": request.found.metric,
            "mode": request.found.mode,
            "scheduler": request.scheduler,
            "search": request.search,
            "trials": request.trials,
            "workers_per_trial": request.workers,
            "best": None if best is None else best.name,
            "records": [asdict(self.by_number[number]) for number in sorted(self.by_number)],
        }
        self._write(RESULTS_FILE, json.dumps(content, indent=2, allow_nan=False) + "\n")

    def write_outcome(self) -> None:
        """Writes results.csv and, if a trial has a score, best.yaml."""
        self._write(TABLE_FILE, self._csv())
        if self.best is not None:
            self._write(BEST_FILE, self._best_yaml(self.best))

    def table(self) -> list[str]:
        """Returns a line a trial, the best first, for a terminal."""
        metric = self.request.found.metric
        keys = [parameter.key for parameter in self.request.found.space.parameters]
        heads = [key.partition(".")[2] for key in keys]
        rows = [["trial", metric, "env steps", "state", *heads]]
        for record in self.ranked:
            score = "-" if record.score is None else f"{record.score:,.1f}" if abs(record.score) >= 10 else f"{record.score:.4g}"
            values = [setting_text(key, record.settings[key]) if key in record.settings else "-" for key in keys]
            rows.append([str(record.number), score, f"{record.env_steps:,}", record.state, *values])
        widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
        return ["  ".join(f"{cell:>{width}}" for cell, width in zip(row, widths, strict=True)) for row in rows]

    def _csv(self) -> str:
        keys = [parameter.key for parameter in self.request.found.space.parameters]
        text = io.StringIO()
        table = csv.writer(text, lineterminator="\n")
        table.writerow(["trial", "state", self.request.found.metric, "env_steps", "seconds", *keys])
        for record in self.ranked:
            values = [setting_text(key, record.settings[key]) if key in record.settings else "" for key in keys]
            table.writerow([record.name, record.state, record.score, record.env_steps, round(record.seconds, 3), *values])
        return text.getvalue()

    def _best_yaml(self, best: Record) -> str:
        changed = f", as it was after {len(best.changes)} change{'s' * (len(best.changes) > 1)}" if best.changes else ""
        lines = [
            f"# {best.name} of {self.directory.name}: {self.request.found.metric} {best.score} at {best.env_steps:,} env steps{changed}.",
            *(f"#     {key}: {setting_text(key, value)}" for key, value in best.settings.items()),
        ]
        config = self.request.config
        anywhere = dataclasses.replace(config, run=dataclasses.replace(config.run, directory=None))
        return "\n".join(lines) + "\n\n" + dump_config(trial_config(anywhere, best.settings))

    def _write(self, name: str, text: str) -> None:
        try:
            write_atomic(self.directory / name, text.encode())
        except OSError as error:
            raise UserError(f"{self.directory / name} cannot be written: {error.strerror or error}") from error


def trial_name(number: int) -> str:
    """Returns the name of a trial and of its run directory."""
    return f"trial_{number:03d}"


def setting_text(key: str, value: Any) -> str:
    """Returns a setting's value as YAML."""
    found = find_field(key)
    return str(value) if found is None or found[1] is not None else format_value(found[0], value)


class Stored(NamedTuple):
    """What results.json holds of the request, besides the records.

    Attributes:
        trials, workers: as asked for.
        scheduler, search: likewise.
        records: of the trials.
    """

    trials: int
    workers: int
    scheduler: str
    search: str
    records: list[Record]


def read_results(directory: Path) -> Stored:
    """Returns what a search has written down.

    Raises:
        UserError: there is none, or it is damaged.
    """
    path = directory / RESULTS_FILE
    try:
        with open_regular(path) as file:
            content = parse_strictly(file.read(LARGEST_FILE))
        records = [_record(fields) for fields in content["records"]]
        stored = Stored(int(content["trials"]), int(content["workers_per_trial"]), content["scheduler"], content["search"], records)
        if stored.scheduler not in SCHEDULERS or stored.search not in SEARCHES:
            raise ValueError("an unknown scheduler or search")
        return stored
    except FileNotFoundError:
        raise UserError(f"{directory} is no search: it has no {RESULTS_FILE}") from None
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise UserError(f"{path} is damaged ({error})") from error


def find_search(reference: str, root: Path) -> Path:
    """Returns the directory of the search that is meant: a path, a name under runs/, or latest.

    Raises:
        UserError: there is none.
    """
    if reference != "latest":
        for path in (Path(reference), root / reference):
            if (path / RESULTS_FILE).is_file() and (path / BASE_FILE).is_file():
                return path
    found = sorted(root.glob(f"*/{RESULTS_FILE}"), key=lambda path: (path.stat().st_mtime, str(path)))
    if reference == "latest" and found:
        return found[-1].parent
    listed = "".join(f"\n  {path.parent}" for path in reversed(found[-10:]))
    wanted = f"there is no search under {root}/" if reference == "latest" else f"{reference} is no search"
    raise UserError(wanted + (f". The newest are:{listed}" if listed else "; `tune` makes one"))


def _record(fields: Mapping[str, Any]) -> Record:
    record = Record(**fields)
    if type(record.number) is not int or record.number < 0 or record.state not in STATES:
        raise ValueError("a trial's number or state")
    record.settings = restored_settings(record.settings)
    return record
