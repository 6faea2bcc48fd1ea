"""Working directories: an environment may change its own, as one that looks for its files does; where a run's files are stays the same."""

from __future__ import annotations

import contextlib
import os
from types import TracebackType


class Elsewhere:
    """Context manager for calls into environments: inside, the working directory is where they last left it; outside, the process's own."""

    def __init__(self) -> None:
        self._theirs: str | None = None
        self._ours: str | None = None

    def __enter__(self) -> Elsewhere:
        self._ours = _here()
        if self._theirs is not None:
            with contextlib.suppress(OSError):  # it has been removed: theirs to find out
                os.chdir(self._theirs)
        return self

    def __exit__(self, kind: type[BaseException] | None, value: BaseException | None, traceback: TracebackType | None) -> None:
        now = _here()
        if self._ours is not None and now != self._ours:
            self._theirs = now
            os.chdir(self._ours)
        else:
            self._theirs = None


def _here() -> str | None:
    try:
        return os.getcwd()
    except FileNotFoundError:  # somebody has removed it
        return None
