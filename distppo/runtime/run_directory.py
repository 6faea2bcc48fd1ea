"""The folder of a run: its name, who may write into it, and what it holds before training starts."""

from __future__ import annotations

import fcntl
import os
import re
import time
from pathlib import Path
from types import TracebackType

from distppo.config import Config
from distppo.errors import UserError

RUNS_ROOT = Path("runs")
LOCK_NAME = ".lock"


class RunDirectory:
    """A run's folder, locked against a second process for as long as this object is open.

    Args:
        path: created with its parents if it does not exist.
        continued: whether the folder's own run goes on; else it must not hold one.

    Raises:
        UserError: the path cannot be a folder, another process trains in it, or it holds a run that is not being continued.
    """

    def __init__(self, path: Path, *, continued: bool) -> None:
        self.path = path
        try:
            path.mkdir(parents=True, exist_ok=True)
            self._lock = open(path / LOCK_NAME, "a+")  # noqa: SIM115 - open for as long as the run is
        except OSError as error:
            raise UserError(f"run directory {path}: {error.strerror}; choose another with --run-dir") from error
        try:
            fcntl.flock(self._lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            self._lock.seek(0)
            holder = self._lock.read().strip() or "another process"
            self._lock.close()
            raise UserError(f"run directory {path} is in use by {holder}; wait for it, or choose another with --run-dir") from None
        if not continued and (path / "metrics.jsonl").exists():
            self._lock.close()
            raise UserError(f"run directory {path} already holds a run; choose another with --run-dir, or continue it with --resume {path}")
        self._lock.truncate(0)
        self._lock.write(f"process {os.getpid()}")
        self._lock.flush()

    def __enter__(self) -> RunDirectory:
        return self

    def __exit__(self, kind: type[BaseException] | None, value: BaseException | None, traceback: TracebackType | None) -> None:
        self._lock.truncate(0)
        self._lock.close()


def default_run_directory(config: Config) -> Path:
    """Returns runs/<env>-seed<k>-<time>, a name not taken yet."""
    env = re.sub(r"[^A-Za-z0-9._-]+", "_", config.env.id)
    name = f"{env}-seed{config.run.seed}-{time.strftime('%Y%m%d-%H%M%S')}"
    return free_name(RUNS_ROOT / name)


def free_name(path: Path) -> Path:
    """Returns `path`, or `path`-2, -3 ... if it exists."""
    candidate, number = path, 2
    while candidate.exists():
        candidate = path.with_name(f"{path.name}-{number}")
        number += 1
    return candidate
