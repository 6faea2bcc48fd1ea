"""A file that only ever grows by whole lines."""

from __future__ import annotations

import os
from pathlib import Path

from distppo.files import without_links


class LineFile:
    """Appends to the file `path`, created if missing. A line has reached the operating system when `append` returns.

    Raises:
        OSError: It cannot be opened, or is a link.
    """

    def __init__(self, path: Path) -> None:
        self._file = open(path, "ab", buffering=0, opener=without_links)  # noqa: SIM115  Open for as long as the run.

    def append(self, line: bytes) -> None:
        """Appends `line`, or nothing of it.

        Raises:
            OSError: The disk refused; the file is as it was.
        """
        start = self._file.seek(0, os.SEEK_END)
        rest = memoryview(line)
        try:
            while rest:
                rest = rest[self._file.write(rest) :]
        except BaseException:
            self._file.truncate(start)
            raise

    def close(self) -> None:
        """Closes the file."""
        self._file.close()
