"""The folder of a run: its name, who may write into it, and what it holds before training starts."""

from __future__ import annotations

import contextlib
import datetime
import fcntl
import os
import re
import shlex
import time
from pathlib import Path
from types import TracebackType

from distppo.checkpoint import list_checkpoints
from distppo.checkpoint.reader import CHECKPOINTS, LATEST
from distppo.checkpoint.storage import STORAGE_FILE
from distppo.config import Config
from distppo.errors import UserError
from distppo.files import RUNS_ROOT, is_leftover, without_links
from distppo.flight.recorder import FAULTS_DIRECTORY
from distppo.metrics import METRICS_FILE, read_metrics
from distppo.metrics.loggers import LOG_FILE, MEMORY_FILE, WANDB_DIRECTORY
from distppo.metrics.writer import CSV_FILE, SUMMARY_FILE, TENSORBOARD_DIRECTORY

LOCK_NAME = ".lock"
CONFIG_FILE = "config.yaml"
_HOLDER = "process {pid} on {host}"
_HELD = re.compile(r"process (\d+) on (.*)")
_LONGEST_HOLDER = 1000
_MOST_LISTED = 10
LOGS_DIRECTORY = "logs"
"""Output of the actors, a file each."""
FILES = {LOCK_NAME, CONFIG_FILE, METRICS_FILE, CSV_FILE, SUMMARY_FILE, LOG_FILE, MEMORY_FILE, STORAGE_FILE}
FOLDERS = {CHECKPOINTS, TENSORBOARD_DIRECTORY, FAULTS_DIRECTORY, LOGS_DIRECTORY, WANDB_DIRECTORY}


class InUseError(UserError):
    """Another process trains in the folder."""


class RunDirectory:
    """A run's folder, locked against a second process for as long as this object is open.

    Args:
        path: created with its parents if it does not exist.
        continued: whether the folder's own run goes on; else it must not hold one.

    Raises:
        UserError: the path cannot be a folder, another process trains in it, it holds a run that is not being
            continued, or links that lead out of it.
    """

    def __init__(self, path: Path, *, continued: bool) -> None:
        self.path = path
        try:
            path.mkdir(parents=True, exist_ok=True)
            if not continued:
                self._require_no_foreign_config()
            self._require_own_files()
            self._lock = open(path / LOCK_NAME, "a+", opener=without_links)  # noqa: SIM115 - open for as long as the run is
        except OSError as error:
            raise _cannot_be_made(path, error) from error
        try:
            self._take(continued)
        except UserError:
            self._lock.close()
            raise
        except OSError as error:
            raise _cannot_be_made(path, error) from error

    def _take(self, continued: bool) -> None:
        try:
            fcntl.flock(self._lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            self._lock.seek(0)
            holder = self._lock.read().strip() or "another process"
            raise in_use(self.path, holder) from None
        except OSError:
            pass  # a file system without locks: there, one process a run directory has to be enough
        if not continued:
            self._require_free()
        self._lock.truncate(0)
        self._lock.write(_HOLDER.format(pid=os.getpid(), host=os.uname().nodename))
        self._lock.flush()

    def _require_free(self) -> None:
        """Raises UserError if the folder holds what a run would write over. What a run left that never learned is nothing to keep."""
        metrics = self.path / METRICS_FILE
        if list_checkpoints(self.path) or (metrics.exists() and read_metrics(metrics)):
            raise UserError(
                f"run directory {self.path} already holds a run; choose another with --run-dir, or continue it with --resume "
                f"{shlex.quote(str(self.path))}"
            )

    def _require_no_foreign_config(self) -> None:
        """Raises UserError if the folder has been nobody's run so far, but has a file where a run's settings would be written."""
        known = any((self.path / name).exists() for name in (LOCK_NAME, METRICS_FILE))
        if (self.path / CONFIG_FILE).exists() and not known:
            raise UserError(
                f"run directory {self.path} holds a {CONFIG_FILE} that is not a run's, which this one would write over; "
                "choose another with --run-dir"
            )

    def _require_own_files(self) -> None:
        """Raises UserError if something in the folder would let a run write elsewhere, wait for the end of a pipe, or fail later."""
        for entry in os.scandir(self.path):
            if entry.is_symlink():
                kind = "a link"
            elif not (entry.is_file() or entry.is_dir()):
                kind = "neither a file nor a folder"
            elif entry.name in (FOLDERS if entry.is_file() else FILES):
                kind = "a file" if entry.is_file() else "a folder"
            else:
                continue
            raise UserError(
                f"run directory {self.path}: {entry.name} in it is {kind}; a run has files and folders of its own there, and writes "
                "nowhere else. Remove it, or choose another folder with --run-dir"
            )

    def __enter__(self) -> RunDirectory:
        return self

    def __exit__(self, kind: type[BaseException] | None, value: BaseException | None, traceback: TracebackType | None) -> None:
        self._lock.truncate(0)
        self._lock.close()


def in_use(directory: Path, holder: str = "another process") -> InUseError:
    """Returns the error for a folder in which somebody else trains."""
    return InUseError(f"run directory {directory} is in use by {holder}; wait for it, or choose another with --run-dir")


def never_started(run: Path) -> bool:
    """Says whether a command has left a run directory in order before anything was trained in it, as after an error at the start."""
    try:
        return (run / LOCK_NAME).stat().st_size == 0 and not (run / METRICS_FILE).exists()
    except OSError:
        return False


def dead_process(run: Path) -> int | None:
    """Returns the process that trained in a run directory and is gone without having left it in order, as after SIGKILL.

    None where nobody trains, where the process lives, and where that cannot be seen from here, as on another machine.
    """
    try:
        held = _HELD.fullmatch((run / LOCK_NAME).read_text(errors="replace")[:_LONGEST_HOLDER])
    except OSError:
        return None
    if held is None or held[2] != os.uname().nodename:
        return None
    process = int(held[1])
    try:
        os.kill(process, 0)
    except ProcessLookupError:
        return process
    except (OSError, OverflowError):
        pass  # it lives and is somebody else's, or the number is none
    return None


def find_run(reference: str) -> Path:
    """Returns the run directory that `reference` names: a path, the name of a run under runs/, or latest, the one written to last.

    A folder of several runs, as --seeds makes it, stands for the one of them that was written to last.

    Raises:
        UserError: there is no such run; the message lists what there is.
    """
    if reference != "latest":
        for path in (Path(reference), RUNS_ROOT / reference):
            if (path / CONFIG_FILE).is_file() and (path / LOCK_NAME).is_file():
                return path
            if runs := _runs_by_age(path):
                return runs[-1]
    runs = _runs_by_age(RUNS_ROOT)
    if reference == "latest" and runs:
        return runs[-1]
    listed = "".join(f"\n  {run}" for run in reversed(runs[-_MOST_LISTED:]))
    wanted = f"there is no run under {RUNS_ROOT}/" if reference == "latest" else f"{reference} is no run directory"
    raise UserError(wanted + (f". The newest runs are:{listed}" if listed else "; `train` makes one"))


def _runs_by_age(root: Path) -> list[Path]:
    """Returns the runs below a folder, in it or one level deeper, the one written to last at the end."""
    locks = [lock for pattern in ("*", "*/*") for lock in root.glob(f"{pattern}/{LOCK_NAME}")]
    found = [lock.parent for lock in locks if (lock.parent / CONFIG_FILE).is_file()]
    return sorted(found, key=_last_written)


def _last_written(run: Path) -> tuple[float, str]:
    with contextlib.suppress(OSError):
        return max((run / name).stat().st_mtime for name in (METRICS_FILE, CONFIG_FILE) if (run / name).exists()), str(run)
    return 0.0, str(run)


def find_begun_run(reference: str) -> Path | None:
    """Returns the run directory that `reference` names if its run ended before the first checkpoint, else None.

    That is `latest` too, where it began after every other run last saved: whoever starts again what was ended means that one.
    """
    if reference == LATEST:
        begun = [(path.stat().st_mtime, path.parent) for path in RUNS_ROOT.glob(f"*/{CONFIG_FILE}") if _has_begun(path.parent)]
        saved = [found[-1].saved_at for path in RUNS_ROOT.glob(f"*/{CHECKPOINTS}") if (found := list_checkpoints(path.parent))]
        since, newest = max(begun, default=(0.0, None))
        return newest if since > max(map(_seconds, saved), default=0.0) else None
    return next((path for path in (Path(reference), RUNS_ROOT / reference) if _has_begun(path)), None)


def _has_begun(run: Path) -> bool:
    """Whether it is a run without a checkpoint; one that was cut off while it was written is none."""
    if not (os.path.isfile(run / CONFIG_FILE) and os.path.isfile(run / LOCK_NAME)):
        return False
    return all(is_leftover(path) for path in (run / CHECKPOINTS).glob("ckpt_*"))


def _seconds(saved_at: str) -> float:
    """Returns seconds since 1970 of a checkpoint's time."""
    return datetime.datetime.fromisoformat(saved_at).timestamp()


def run_exists(reference: str) -> bool:
    """Says whether there is anything that `--resume REFERENCE` means: a run, whole or damaged, with a checkpoint or none."""
    if reference == LATEST:
        begun = (path.parent for path in RUNS_ROOT.glob(f"*/{CONFIG_FILE}"))
        return any((path / LOCK_NAME).is_file() for path in begun) or any(RUNS_ROOT.glob(f"*/{CHECKPOINTS}/*"))
    names = {reference, reference.rpartition("@")[0] or reference}
    return any(_holds_something(path) for name in names for path in (Path(name), RUNS_ROOT / name))


def _holds_something(path: Path) -> bool:
    """Whether it is there, and not just a folder in which a process ended before it wrote anything."""
    return path.exists() and not (path.is_dir() and {entry.name for entry in path.iterdir()} <= {LOCK_NAME})


def place_of(reference: str) -> Path | None:
    """Returns where the run is begun that `reference` will mean; None if any new run under runs/ is it."""
    if reference == LATEST:
        return None
    return Path(reference) if os.sep in reference else RUNS_ROOT / reference


def run_name(config: Config) -> str:
    """Returns <env>-seed<k>-<time>."""
    env = re.sub(r"[^A-Za-z0-9._-]+", "_", config.env.id)
    return f"{env}-seed{config.run.seed}-{time.strftime('%Y%m%d-%H%M%S')}"


def new_run_directory(config: Config) -> Path:
    """Makes runs/<env>-seed<k>-<time>, under a name that nobody else has taken, and returns it.

    Raises:
        UserError: it cannot be made.
    """
    name = run_name(config)
    while True:
        path = free_name(RUNS_ROOT / name)
        try:
            path.mkdir(parents=True)
        except FileExistsError:
            continue  # another run of this second was quicker
        except OSError as error:
            raise _cannot_be_made(path, error) from error
        return path


def free_name(path: Path) -> Path:
    """Returns `path`, or `path`-2, -3 ... if it exists."""
    candidate, number = path, 2
    while candidate.exists():
        candidate = path.with_name(f"{path.name}-{number}")
        number += 1
    return candidate


def _cannot_be_made(path: Path, error: OSError) -> UserError:
    reason = "a file is in the way" if isinstance(error, FileExistsError | NotADirectoryError) else error.strerror
    return UserError(f"run directory {path}: {reason}; choose another with --run-dir")
