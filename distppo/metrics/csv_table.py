"""progress.csv: the rows of metrics.jsonl as a table, for spreadsheets and pandas."""

from __future__ import annotations

import csv
import io
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from distppo.files import write_atomic
from distppo.metrics.jsonl import encode_number
from distppo.metrics.lines import LineFile


class CsvTable:
    """A CSV file with a header. Columns keep their order; the first row that brings a new one has the file rebuilt.

    A metric that a row has not is an empty cell; NaN and infinities are written as in metrics.jsonl.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self._columns: list[str] = []
        self._lines: LineFile | None = None

    def append(self, row: Mapping[str, Any]) -> bool:
        """Appends a row. False: nothing was written, and the file has to be rebuilt, since it lacks a column or an earlier row.

        Raises:
            OSError: The disk refused; the next call returns False.
        """
        lines = self._lines
        if lines is None or not row.keys() <= set(self._columns):
            return False
        self._lines = None
        lines.append(_encode([row.get(column) for column in self._columns]))
        self._lines = lines
        return True

    def rebuild(self, rows: Iterable[Mapping[str, Any]]) -> None:
        """Replaces the file by these rows, in one step; with no rows there is no file.

        Raises:
            OSError: The disk refused; the old file is still there.
        """
        rows = list(rows)
        self.close()
        if not rows:
            self._path.unlink(missing_ok=True)
            return
        self._columns = list(dict.fromkeys(key for row in rows for key in row))
        lines = [_encode(self._columns), *(_encode([row.get(column) for column in self._columns]) for row in rows)]
        write_atomic(self._path, b"".join(lines))
        self._lines = LineFile(self._path)

    def close(self) -> None:
        """Closes the file."""
        if self._lines is not None:
            self._lines.close()
            self._lines = None


def _encode(record: Iterable[Any]) -> bytes:
    text = io.StringIO()
    csv.writer(text, lineterminator="\n").writerow([encode_number(cell) if isinstance(cell, float) else cell for cell in record])
    return text.getvalue().encode()
