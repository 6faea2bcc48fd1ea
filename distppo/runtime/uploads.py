"""Copies checkpoints to shared storage while training goes on."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from pathlib import Path

from distppo.checkpoint import list_checkpoints
from distppo.checkpoint.storage import Storage, read_copied
from distppo.config import Config
from distppo.errors import UserError

LAST_SECONDS = 60.0
"""For which the end of a run waits for its last checkpoint to be copied."""
POLL_SECONDS = 0.1


class Uploads:
    """One thread that copies the newest checkpoint; those saved while it was at another are passed over.

    Args:
        storage: of the run.
    """

    def __init__(self, storage: Storage) -> None:
        self.url = storage.url
        self._storage = storage
        self._changed = threading.Condition()
        self._next: Path | None = None
        self._busy = self._closed = False
        self._results: list[str | None] = []
        self._thread = threading.Thread(target=self._run, name="uploads", daemon=True)
        self._thread.start()

    def put(self, checkpoint: Path) -> None:
        """Has a checkpoint copied, soon."""
        with self._changed:
            self._next = checkpoint
            self._changed.notify_all()

    def results(self) -> list[str | None]:
        """Returns how the copies ended since it was last asked: None, or why one failed."""
        with self._changed:
            results, self._results = self._results, []
            return results

    def finish(self, stopped: Callable[[], bool] = lambda: False) -> bool:
        """Waits for what is to be copied, LAST_SECONDS at most; returns whether nothing is left to do."""
        until = time.monotonic() + LAST_SECONDS
        with self._changed:
            while (self._next is not None or self._busy) and time.monotonic() < until and not stopped():
                self._changed.wait(POLL_SECONDS)
            return self._next is None and not self._busy

    def close(self) -> None:
        """Begins nothing more."""
        with self._changed:
            self._closed, self._next = True, None
            self._changed.notify_all()

    def _run(self) -> None:
        while (checkpoint := self._take()) is not None:
            result = self._copy(checkpoint)
            with self._changed:
                self._busy = False
                self._results.append(result)
                self._changed.notify_all()

    def _take(self) -> Path | None:
        with self._changed:
            self._changed.wait_for(lambda: self._next is not None or self._closed)
            taken, self._next = self._next, None
            self._busy = taken is not None
            return taken

    def _copy(self, checkpoint: Path) -> str | None:
        try:
            self._storage.put(checkpoint)
        except Exception as error:  # each storage's package has errors of its own
            with self._changed:
                if self._next is not None and not checkpoint.exists():
                    return None  # its run has removed it, and has a newer one
            return f"{type(error).__name__}: {error}"
        return None


def open_uploads(config: Config, directory: Path) -> Uploads | None:
    """Returns what copies a run's checkpoints, or None where they stay where they are.

    Raises:
        UserError: the storage cannot be used, or holds another run of this name, or this one as another machine has gone on with it.
    """
    place = config.run.storage
    if place is None:
        return None
    storage = _storage_of(place, directory)
    if storage.identity == Storage(f"file://{directory.resolve()}").identity:
        return None
    try:
        stranger = storage.stranger(directory)
    except Exception as error:  # as above
        raise UserError(f"run.storage {place}: cannot be read ({type(error).__name__}: {error})") from error
    if stranger is not None:
        other = f", and {stranger} there is not of the one in {directory}" if list_checkpoints(directory) else ""
        raise UserError(
            f"run.storage {place} already holds a run {storage.name}{other}; choose another name with --run-dir, or continue it with "
            f"--resume {storage.url}"
        )
    return Uploads(storage)


def _storage_of(place: str, directory: Path) -> Storage:
    """Returns the run's storage below the place that the user named: under its own name there, if it has come from there under another."""
    url = read_copied(directory).url
    known = Storage(f"{place.rstrip('/')}/{url.rpartition('/')[2]}")
    return known if known.identity == url else Storage(f"{place.rstrip('/')}/{directory.name}")
