"""A folder of runs with the same settings and several seeds, a subfolder each: what is in it, and what has been reached."""

from __future__ import annotations

import contextlib
import dataclasses
import fcntl
import json
import math
import os
import re
import time
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from distppo.config import Config, dump_config
from distppo.errors import UserError
from distppo.files import write_atomic
from distppo.metrics import METRICS_FILE, SUMMARY_FILE
from distppo.runtime.run_directory import CONFIG_FILE, LOCK_NAME, RUNS_ROOT, free_name, in_use

SEEDS_FILE = "seeds.json"
MOST_SEEDS = 1000


class SeedRun(NamedTuple):
    """One seed's run.

    Attributes:
        seed: of it.
        directory: of it, an ordinary run directory.
    """

    seed: int
    directory: Path

    @property
    def summary(self) -> dict[str, Any]:
        """What its summary.json holds; empty where there is none."""
        with contextlib.suppress(OSError, ValueError):
            return dict(json.loads((self.directory / SUMMARY_FILE).read_text()))
        return {}

    def finished(self, total: int) -> bool:
        """Whether nothing is left to do, since it has its env steps or a callback ended it."""
        summary = self.summary
        return bool(summary.get("stop_reason")) or (summary.get("env_steps") or 0) >= total

    @property
    def begun(self) -> bool:
        """Whether there is a run to go on with."""
        return (self.directory / CONFIG_FILE).is_file() and (self.directory / LOCK_NAME).is_file()

    @property
    def learned(self) -> bool:
        """Whether it has written a row of metrics."""
        with contextlib.suppress(OSError):
            return '"time/total_timesteps"' in (self.directory / METRICS_FILE).read_text()
        return False


class SeedsResult(NamedTuple):
    """How the runs ended.

    Attributes:
        directory: of all.
        runs: finished ones.
        failed: those that an error ended.
        signal: number of the signal that ended it early, or None.
    """

    directory: Path
    runs: list[SeedRun]
    failed: list[SeedRun]
    signal: int | None


def parse_seeds(text: str, first: int) -> list[int]:
    """Returns the seeds that `--seeds` names: a count, from `first` on, or a list with commas.

    Raises:
        UserError: it is neither.

    Example:
        >>> parse_seeds("3", 0), parse_seeds("7,9,", 0)
        ([0, 1, 2], [7, 9])
    """
    words = [word.strip() for word in text.rstrip(", ").split(",")]
    if not all(re.fullmatch("[0-9]{1,18}", word) for word in words):
        raise UserError(f"--seeds {text}  must be how many, as in 5, or a list with commas, as in 0,1,2 (7, for a single one)")
    numbers = [int(word) for word in words]
    seeds = numbers if "," in text else list(range(first, first + min(numbers[0], MOST_SEEDS + 1)))
    if not 1 <= len(seeds) <= MOST_SEEDS:
        raise UserError(f"--seeds {text}  must be between 1 and {MOST_SEEDS} seeds")
    if len(set(seeds)) < len(seeds):
        raise UserError(f"--seeds {text}  names a seed twice")
    return seeds


def find_group(reference: str) -> Path | None:
    """Returns the folder of seeds that `reference` names, a path or a name under runs/; None if it names none."""
    return next((path for path in (Path(reference), RUNS_ROOT / reference) if (path / SEEDS_FILE).is_file()), None)


def seeds_of(group: Path) -> list[int]:
    """Returns the seeds of a folder.

    Raises:
        UserError: its list of them is damaged.
    """
    try:
        return [int(seed) for seed in json.loads((group / SEEDS_FILE).read_text())["seeds"]]
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise UserError(f"{group / SEEDS_FILE} is damaged ({error}); --seeds 0,1,2 says which seeds there are") from error


@contextlib.contextmanager
def open_group(config: Config, seeds: Sequence[int], *, continued: Path | None) -> Iterator[Path]:
    """Yields the folder for these settings and seeds, with both written into it and locked against a second command.

    Args:
        config: of all runs; its seed and directory are not the runs'.
        seeds: of the runs.
        continued: the folder, where an existing one is gone on with; else `run.directory`, or a new one under runs/.

    Raises:
        UserError: the folder holds something else, another process trains its seeds, or it cannot be written.
    """
    named = Path(config.run.directory).expanduser() if config.run.directory else free_name(RUNS_ROOT / _name(config))
    directory = continued or named
    settings = dump_config(dataclasses.replace(config, run=dataclasses.replace(config.run, directory=None, seed=seeds[0])))
    known = directory / CONFIG_FILE
    try:
        if continued is None and directory.exists() and any(directory.iterdir()):
            if not (directory / SEEDS_FILE).is_file():
                raise UserError(f"run directory {directory} holds something else already; choose another with --run-dir")
            if known.read_text() != settings:
                raise UserError(
                    f"{directory} holds seeds with other settings (config diff shows which); choose another with --run-dir, or go on with "
                    f"those by --resume {directory}"
                )
        directory.mkdir(parents=True, exist_ok=True)
        folder = os.open(directory, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    except OSError as error:
        raise _refused(directory, error) from error
    try:
        _lock(folder, directory)
        try:
            write_atomic(known, settings.encode())
            write_atomic(directory / SEEDS_FILE, json.dumps({"seeds": list(seeds)}).encode() + b"\n")
        except OSError as error:
            raise _refused(directory, error) from error
        yield directory
    finally:
        os.close(folder)


def _lock(folder: int, directory: Path) -> None:
    try:
        fcntl.flock(folder, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        raise in_use(directory) from None
    except OSError:
        pass  # a file system without locks: there, one command a folder has to be enough


def _refused(directory: Path, error: OSError) -> UserError:
    return UserError(f"run directory {directory}: {error.strerror or error}; choose another with --run-dir")


def _name(config: Config) -> str:
    return f"{re.sub(r'[^A-Za-z0-9._-]+', '_', config.env.id)}-seeds-{time.strftime('%Y%m%d-%H%M%S')}"


def summary_of(config: Config, runs: Sequence[SeedRun], total: int) -> dict[str, Any]:
    """Returns what summary.json of the folder holds: a line a seed, and mean and spread over those that have finished."""
    rows = [_row(run, total) for run in runs]
    returns = [row["episode_return_mean"] for row in rows if row["finished"] and row["episode_return_mean"] is not None]
    mean = math.fsum(returns) / len(returns) if returns else None
    spread = None if mean is None else math.sqrt(math.fsum((each - mean) ** 2 for each in returns) / len(returns))
    return {
        "env": config.env.id,
        "total_timesteps": total,
        "seeds": [run.seed for run in runs],
        "finished": len([row for row in rows if row["finished"]]),
        "episode_return_mean": mean,
        "episode_return_std": spread,
        "runs": rows,
    }


def _row(run: SeedRun, total: int) -> Mapping[str, Any]:
    summary = run.summary
    best = summary.get("best_evaluation") or {}
    names = ("env_steps", "episode_return_mean", "env_steps_per_second")
    return {
        "seed": run.seed,
        "directory": run.directory.name,
        "finished": run.finished(total),
        **{name: summary.get(name) for name in names},
        "best_evaluation": best.get("return_mean"),
    }
