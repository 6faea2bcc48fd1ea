"""Reading a run's folder for the report. Runs may be a stranger's: files are read strictly, in bounded space, and no link is followed."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

from distppo.checkpoint.reader import CHECKPOINTS, CheckpointInfo, best_checkpoint, scan_run
from distppo.config import load_config
from distppo.config.dump import format_value
from distppo.config.fields import FIELDS
from distppo.config.load import flattened
from distppo.config.schema import Config
from distppo.errors import ConfigError, UserError
from distppo.files import open_regular
from distppo.findings import RunRecord
from distppo.metrics import METRICS_FILE, SUMMARY_FILE, read_log
from distppo.strict_json import parse_strictly

CONFIG_FILE = "config.yaml"
LARGEST_METRICS = 512 << 20
LARGEST_JSON = 8 << 20
MOST_RUNS = 64
NOT_WRITTEN_DOWN = "set; the run did not write down where"


class Setting(NamedTuple):
    """A setting of a run: its value as YAML, where it came from, and whether that is what it would be anyway."""

    value: str
    origin: str
    is_default: bool


class Run(NamedTuple):
    """A run as read from its folder.

    Attributes:
        path: its folder.
        name: for legends.
        record: rows, settings and events.
        settings: by dotted key, as shown.
        summary: of summary.json, empty while it trains.
        machine: versions and hardware, as the newest process of the run wrote them down.
        checkpoints: in the order they were saved.
        best: the checkpoint that evaluations chose.
        notes: what could not be read, one line each.
    """

    path: Path
    name: str
    record: RunRecord
    settings: Mapping[str, Setting]
    summary: Mapping[str, Any]
    machine: Mapping[str, Any]
    checkpoints: list[CheckpointInfo]
    best: CheckpointInfo | None
    notes: list[str]


def is_run(path: Path) -> bool:
    """True for a folder in which a run has written its metrics; a link to somebody else's is none."""
    metrics = path / METRICS_FILE
    return metrics.is_file() and not metrics.is_symlink()


def runs_in(path: Path) -> list[Path]:
    """The runs directly inside a folder, by name, numbers in order (seed2 before seed10)."""
    try:
        found = [Path(entry.path) for entry in os.scandir(path) if entry.is_dir(follow_symlinks=False) and is_run(Path(entry.path))]
    except OSError:
        return []
    return sorted(found, key=lambda run: (len(run.name), run.name))


def read_run(path: Path) -> Run:
    """Reads a run.

    Raises:
        UserError: its metrics are damaged, too large, or empty.
    """
    metrics = path / METRICS_FILE
    notes: list[str] = []
    if metrics.stat().st_size > LARGEST_METRICS:
        raise UserError(f"{metrics}: larger than {LARGEST_METRICS >> 20} MiB, which a report is not made of")
    rows, events = read_log(metrics)
    config = _config(path / CONFIG_FILE, notes)
    summary = read_json(path / SUMMARY_FILE, notes) if (path / SUMMARY_FILE).exists() else {}
    started = [event for event in events if event.get("event") == "started"]
    machine: Mapping[str, Any] = next((event["machine"] for event in reversed(started) if isinstance(event.get("machine"), dict)), {})
    found, problems = scan_run(path) if (path / CHECKPOINTS).is_dir() else ([], [])
    known = {} if config is None else flattened(config)
    return Run(
        path,
        path.name or path.resolve().name,
        RunRecord(rows, known, events),
        {} if config is None else _settings(config, started),
        summary,
        machine,
        found,
        best_checkpoint(path) if found else None,
        [*notes, *problems],
    )


def _config(path: Path, notes: list[str]) -> Config | None:
    try:
        if path.is_symlink():
            raise ConfigError(f"{path} is a link, which a run never holds")
        return load_config([path])
    except ConfigError as error:
        notes.append(f"the settings cannot be read: {error}")
        return None


def _settings(config: Config, started: list[dict[str, Any]]) -> dict[str, Setting]:
    """Values with their origins: of the last process that was given one, or the defaults."""
    origins: dict[str, str] = {}
    written_down = False
    for number, event in enumerate(started):
        given = event.get("origins")
        written_down = written_down or isinstance(given, dict)
        for key, origin in given.items() if isinstance(given, dict) else ():
            origins[key] = f"{origin}, when it went on" if number else str(origin)
    shown = {}
    for key, value in flattened(config).items():
        field = FIELDS[key]
        entries = [f"{name}: {origin}" for name, origin in origins.items() if name.startswith(f"{key}.")]
        is_default = value == field.default
        unsaid = "default" if is_default else "set by the program" if written_down else NOT_WRITTEN_DOWN
        shown[key] = Setting(format_value(field, value), origins.get(key) or "; ".join(entries) or unsaid, is_default)
    return shown


def same_but_for_the_seed(first: Run, second: Run) -> bool:
    """True if two runs have the same settings, apart from the seed and the folder."""
    own = ("run.seed", "run.directory")
    settings = [{key: value for key, value in run.record.settings.items() if key not in own} for run in (first, second)]
    return bool(first.settings) and settings[0] == settings[1]


def read_json(path: Path, notes: list[str]) -> dict[str, Any]:
    """A JSON object, strictly; what is wrong with one is noted, and it counts as empty."""
    try:
        value = parse_strictly(read_small(path, LARGEST_JSON))
        if not isinstance(value, dict):
            raise ValueError("not a JSON object")
    except (OSError, ValueError) as error:
        notes.append(f"{path.name} cannot be read ({getattr(error, 'strerror', None) or error})")
        return {}
    return value


def read_small(path: Path, limit: int) -> bytes:
    """Content of a regular file of at most `limit` bytes.

    Raises:
        OSError: it is missing, a link, or cannot be read.
        ValueError: it is larger.
    """
    with open_regular(path) as file:
        data = file.read(limit + 1)
    if len(data) > limit:
        raise ValueError(f"larger than {limit:,} bytes")
    return data
