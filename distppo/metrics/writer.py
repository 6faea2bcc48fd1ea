"""Writing a run's metrics: appended to metrics.jsonl, with progress.csv and TensorBoard as views of it."""

from __future__ import annotations

import json
import math
import os
from collections import deque
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from datetime import datetime
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from distppo.files import remove_leftovers, write_atomic
from distppo.metrics.csv_table import CsvTable
from distppo.metrics.forward import Forwarder
from distppo.metrics.jsonl import METRICS_FILE, Value, encode_json, encode_row, read_metrics, repair
from distppo.metrics.keys import STEPS
from distppo.metrics.lines import LineFile
from distppo.metrics.tensorboard import EventFile

CSV_FILE = "progress.csv"
TENSORBOARD_DIRECTORY = "tensorboard"
SUMMARY_FILE = "summary.json"
LONGEST_WAIT = 10_000
"""Lines that are kept for a disk that refuses them; the oldest go first."""


class RunWriter:
    """Writes the metrics of one run directory; one writer a run at a time.

    What it finds there is continued: a half-written last line is cut off, progress.csv is rebuilt.

    Args:
        directory: of the run; created if missing.
        resume_env_steps: env steps of the checkpoint that training goes on from. Rows above it are taken back: a `resumed` event
            marks that in metrics.jsonl, they leave progress.csv, and TensorBoard hides them. None: nothing is taken back.
        refused: called when the disk begins to refuse, in place of raising OSError. Lines for metrics.jsonl then wait in memory until it
            takes them, in order; progress.csv catches up as well, TensorBoard lacks the points of that time. None raises.
        forwarder: to loggers besides these files; it follows metrics.jsonl from here on.

    Raises:
        UserError: A line of the metrics.jsonl found there is damaged.
        OSError: The disk refuses.
    """

    def __init__(
        self,
        directory: str | os.PathLike[str],
        *,
        resume_env_steps: int | None = None,
        refused: Callable[[OSError], None] | None = None,
        forwarder: Forwarder | None = None,
    ) -> None:
        self._refused, self._refusing = refused, False
        self._waiting: deque[bytes] = deque(maxlen=LONGEST_WAIT)
        self.directory = Path(directory)
        self.directory.mkdir(parents=True, exist_ok=True)
        remove_leftovers(self.directory)
        self._path = self.directory / METRICS_FILE
        repair(self._path)
        self._lines = LineFile(self._path)
        self._forwarder = forwarder
        if forwarder is not None:
            forwarder.start(self._path.stat().st_size)
        if resume_env_steps is not None:
            self.event("resumed", env_steps=int(resume_env_steps))
        self._table = CsvTable(self.directory / CSV_FILE)
        with self._patience():
            self._table.rebuild(read_metrics(self._path))
        self._tensorboard = EventFile(self.directory / TENSORBOARD_DIRECTORY, after=resume_env_steps)

    def row(self, row: Mapping[str, Value]) -> None:
        """Writes one iteration's metrics.

        Args:
            row: metric -> number, or None where it was not taken. `time/total_timesteps`, env steps, is required.

        Raises:
            ValueError: It lacks the env steps, or a value is not a number.
            OSError: The disk refused. No file is left with half a row, and the next call tries them all again; a row that
                metrics.jsonl has and progress.csv has not is added there by the next one that succeeds.
        """
        encoded = encode_row(row)
        self._append(encoded)
        with self._patience():
            if not self._table.append(encoded):
                self._table.rebuild(read_metrics(self._path))
        numbers = {key: float(value) for key, value in row.items() if value is not None and math.isfinite(value)}
        with self._patience():
            self._tensorboard.scalars(int(encoded[STEPS]), numbers)  # type: ignore[arg-type]
        if self._forwarder is not None:
            self._forwarder.check()

    def replace(self, row: Mapping[str, Value]) -> None:
        """Writes a row in the place of the one with its env steps, if that is there, and of all after it.

        Raises:
            ValueError, OSError: as `row`.
        """
        before = int(row[STEPS] or 0) - 1
        if any(int(last[STEPS] or 0) > before for last in read_metrics(self._path)[-1:]):
            self.event("resumed", env_steps=before)
            self._table.close()  # so that it is rebuilt
            self._tensorboard.close()
            self._tensorboard = EventFile(self.directory / TENSORBOARD_DIRECTORY, after=before)
        self.row(row)

    def event(self, kind: str, /, **fields: Any) -> None:
        """Appends an event to metrics.jsonl: its kind (see EVENTS), the local time, and any fields.

        Raises:
            OSError: The disk refused; nothing is left of it.
        """
        now = datetime.now().astimezone().isoformat(timespec="milliseconds")
        self._append(encode_json({"event": kind, "time": now} | fields))

    def close(self) -> None:
        """Closes the files. Everything is in them already, unless the disk refuses it to the end."""
        if self._waiting:
            with suppress(OSError):
                self._drain()
        if self._forwarder is not None:
            self._forwarder.close()
        self._lines.close()
        self._table.close()
        self._tensorboard.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self.close()

    def _append(self, line: Mapping[str, Any]) -> None:
        self._waiting.append(json.dumps(line, allow_nan=False).encode() + b"\n")
        with self._patience():
            self._drain()
            self._refusing = False

    def _drain(self) -> None:
        while self._waiting:
            self._lines.append(self._waiting[0])
            self._waiting.popleft()

    @contextmanager
    def _patience(self) -> Iterator[None]:
        """Tells of an OSError if it is the first of its time. Without anybody to tell it is raised, and its line is not written later."""
        try:
            yield
        except OSError as error:
            if self._refused is None:
                self._waiting.clear()
                raise
            if not self._refusing:
                self._refusing = True
                self._refused(error)


def write_summary(directory: str | os.PathLike[str], summary: Mapping[str, Any]) -> Path:
    """Writes `summary.json` of a run, replacing it in one step; numbers that are not finite as in metrics.jsonl.

    Raises:
        OSError: The disk refused; the old one is still there.
    """
    path = Path(directory) / SUMMARY_FILE
    write_atomic(path, json.dumps(encode_json(summary), indent=2, allow_nan=False).encode() + b"\n")
    return path
