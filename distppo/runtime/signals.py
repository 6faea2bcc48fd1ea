"""Ctrl-C and SIGTERM as a request that the loop honours at the next safe point; a second one ends the process at once."""

from __future__ import annotations

import os
import signal
import threading
from types import FrameType, TracebackType
from typing import Any

SIGNALS = (signal.SIGINT, signal.SIGTERM)


class StopSignal:
    """Context manager that catches the first SIGINT or SIGTERM.

    Outside the main thread (a Tune trial, a notebook's worker) signals cannot be caught; it then never asks to stop.

    Attributes:
        number: of the signal that came, or None.
    """

    def __init__(self) -> None:
        self.number: int | None = None
        self._previous: dict[int, Any] = {}

    def requested(self) -> bool:
        """Whether the user has asked to stop."""
        return self.number is not None

    def __enter__(self) -> StopSignal:
        if threading.current_thread() is threading.main_thread():
            self._previous = {number: signal.signal(number, self._caught) for number in SIGNALS}
        return self

    def __exit__(self, kind: type[BaseException] | None, value: BaseException | None, traceback: TracebackType | None) -> None:
        for number, handler in self._previous.items():
            signal.signal(number, handler)

    def _caught(self, number: int, frame: FrameType | None) -> None:
        if self.number is not None:
            # The local cluster's processes notice that their driver is gone and end by themselves.
            os._exit(128 + number)
        self.number = number
