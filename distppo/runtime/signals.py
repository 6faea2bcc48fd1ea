"""Ctrl-C, SIGTERM and a lost terminal as a request that the loop honours at the next safe point; a second one exits at once."""

from __future__ import annotations

import contextlib
import os
import signal
import sys
import threading
from types import FrameType, TracebackType
from typing import Any

SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
SHOW_CURSOR = b"\x1b[?25h"


class StopRequested(Exception):
    """Raised where a run waits when the user has asked it to end."""


class StopSignal:
    """Context manager that catches the first SIGINT, SIGTERM or SIGHUP; SIGHUP not where it is ignored, as under nohup.

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

    def check(self) -> None:
        """Raises StopRequested if the user has asked to stop."""
        if self.number is not None:  # asked before every step where there is no Ray: one call, not two
            raise StopRequested

    def catch(self) -> None:
        """Installs the handlers, also where others have put their own in their place, as `ray.init` and environments do."""
        for number in self._previous:
            signal.signal(number, self._caught)

    def __enter__(self) -> StopSignal:
        if threading.current_thread() is threading.main_thread():
            handlers = {number: signal.getsignal(number) for number in SIGNALS}
            ignored = handlers[signal.SIGHUP] is signal.SIG_IGN
            self._previous = {number: handler for number, handler in handlers.items() if not (ignored and number == signal.SIGHUP)}
            self.catch()
        return self

    def __exit__(self, kind: type[BaseException] | None, value: BaseException | None, traceback: TracebackType | None) -> None:
        for number, handler in self._previous.items():
            signal.signal(number, handler)

    def _caught(self, number: int, frame: FrameType | None) -> None:
        if self.number is None:
            self.number = number
            return
        # The processes of a local cluster notice that their driver is gone and end by themselves; the live display cannot.
        with contextlib.suppress(OSError, ValueError):
            if sys.stdout.isatty():
                os.write(sys.stdout.fileno(), SHOW_CURSOR)
        os._exit(128 + number)
