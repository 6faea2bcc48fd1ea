"""The live display: redrawn when an iteration ends, at most four times a second, without a thread."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from typing import TextIO

from rich.console import Console, Group
from rich.control import Control
from rich.live import Live
from rich.segment import ControlType
from rich.text import Text

from distppo.console.display import Display
from distppo.console.panel import panel
from distppo.console.view import Findings, Row, RunView

_SECONDS_BETWEEN_REDRAWS = 0.25


class LiveDisplay(Display):
    """Draws the state of a run at the bottom of a terminal; messages, and whatever else is printed meanwhile, scroll by above it.

    Args:
        stream: a terminal.
        clock: seconds, monotonic.
        findings: what to say about the rows so far; None says nothing.
    """

    def __init__(self, stream: TextIO, clock: Callable[[], float] = time.monotonic, *, findings: Findings | None = None) -> None:
        self._console = Console(file=stream, highlight=False, markup=False, emoji=False)
        self._clock = clock
        self._live: Live | None = None
        self._findings = findings
        self._view = RunView("", total=0, initial=0)
        self._lines: list[Text] = []
        self._drawn_at = -_SECONDS_BETWEEN_REDRAWS
        self._is_stdout = stream is sys.stdout

    def start(self, title: str, *, total: int, initial: int) -> None:
        """Draws the display before the first iteration, or another run's in its place."""
        self._view = RunView(title, total=total, initial=initial, findings=self._findings, clock=self._clock)
        with self._unless_lost():
            if self._live is not None:
                self._live.stop()
            self._live = Live(
                console=self._console,
                auto_refresh=False,
                vertical_overflow="crop",
                redirect_stdout=self._is_stdout,
                redirect_stderr=sys.stderr.isatty(),
            )
            self._live.start()
        self._redraw()

    def iteration(self, row: Row) -> None:
        """Takes the row in, and redraws unless that was done a moment ago."""
        self._view.update(row)
        self._redraw_in_time()

    def catch_up(self, rows: Sequence[Row]) -> None:
        """Takes all rows in and draws once."""
        self._view = self._view.restarted(rows)
        self._redraw()

    def state(self, text: str, *, running: bool = True) -> None:
        """Shows it beside the title."""
        self._view.state, self._view.running = text, running
        self._redraw_in_time()

    def message(self, text: str) -> None:
        """Prints the text above the display."""
        with self._unless_lost():
            self._layout()
            self._console.print(Text(text.encode("utf-8", "replace").decode()), soft_wrap=True)

    def close(self) -> None:
        """Draws the last state, leaves it standing and gives the cursor back."""
        self._redraw()
        with self._unless_lost():
            if self._live is not None:
                self._live.stop()
        self._live = None

    def _redraw_in_time(self) -> None:
        if self._clock() - self._drawn_at >= _SECONDS_BETWEEN_REDRAWS:
            self._redraw()

    def _redraw(self) -> None:
        with self._unless_lost():
            self._layout()
            if self._live is not None:
                self._live.refresh()
        self._drawn_at = self._clock()

    def _layout(self) -> None:
        """Makes the lines anew for the terminal as it is now."""
        if self._live is None:
            return
        self._clear_wrapped_lines()
        self._lines = panel(self._view, width=self._console.width, height=self._console.height)
        self._live.update(Group(*self._lines))

    def _clear_wrapped_lines(self) -> None:
        """A terminal made narrower has wrapped the lines; rich counts the rows as it drew them and would leave the surplus standing."""
        surplus = sum((line.cell_len - 1) // self._console.width for line in self._lines if line.cell_len)
        if surplus > 0:
            self._console.control(Control(*[(ControlType.ERASE_IN_LINE, 2), (ControlType.CURSOR_UP, 1)] * surplus))

    @contextmanager
    def _unless_lost(self) -> Iterator[None]:
        """A terminal that has gone (a closed window, a lost connection) takes the display with it, not the run."""
        try:
            yield
        except (OSError, ValueError):
            live, self._live = self._live, None
            with suppress(OSError, ValueError):
                if live is not None:
                    live.stop()
