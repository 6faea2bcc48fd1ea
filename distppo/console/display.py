"""The displays, and which one a stream gets. A display that can no longer write falls silent: it never ends a run."""

from __future__ import annotations

import os
import sys
from abc import ABC, abstractmethod
from collections.abc import Sequence
from contextlib import suppress
from types import TracebackType
from typing import Self, TextIO

from distppo.console.text import format_count, format_duration, format_number
from distppo.console.view import Findings, Row, RunView


class Display(ABC):
    """Shows a run to a person. Call `start`, then `iteration` for each; `message` at any time; `close`, or leave the with block."""

    @abstractmethod
    def start(self, title: str, *, total: int, initial: int) -> None:
        """Begins: what runs, env steps at which it ends, env steps it starts from."""

    @abstractmethod
    def iteration(self, row: Row) -> None:
        """Shows the metrics of one iteration; any of them may be missing, None or NaN."""

    @abstractmethod
    def catch_up(self, rows: Sequence[Row]) -> None:
        """Shows where a run stands of which these are all the rows; what was shown before counts no longer."""

    @abstractmethod
    def state(self, text: str, *, running: bool = True) -> None:
        """Says how the run is, in a word or two, and whether there is more to come; may be called as often as one likes."""

    @abstractmethod
    def message(self, text: str) -> None:
        """Prints one or more lines that stay."""

    @abstractmethod
    def close(self) -> None:
        """Ends it and gives the terminal back as it was; a second call does nothing."""

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self.close()


class PlainDisplay(Display):
    """One line an iteration, without escape codes: for pipes, files and terminals that cannot do more."""

    def __init__(self, stream: TextIO) -> None:
        self._stream = stream
        self._view = RunView("", total=0, initial=0)

    def start(self, title: str, *, total: int, initial: int) -> None:
        """Prints the title."""
        self._view = RunView(title, total=total, initial=initial)
        self.message(title)

    def iteration(self, row: Row) -> None:
        """Prints one line."""
        self._view.update(row)
        self.message(plain_line(self._view))

    def catch_up(self, rows: Sequence[Row]) -> None:
        """Prints one line, of the newest."""
        self._view = self._view.restarted(rows)
        if rows:
            self.message(plain_line(self._view))

    def state(self, text: str, *, running: bool = True) -> None:
        """Prints it when the run has ended; what comes and goes before is not for a log."""
        if self._view.running and not running:
            self.message(text)
        self._view.running = running

    def message(self, text: str) -> None:
        """Prints the text; characters that the stream cannot encode become question marks."""
        encoding = self._stream.encoding or "utf-8"
        with suppress(OSError, ValueError):  # The reader of the pipe has gone, or the stream is closed.
            print(text.encode(encoding, "replace").decode(encoding), file=self._stream, flush=True)

    def close(self) -> None:
        """Nothing is left to do."""


def make_display(*, progress: bool | None = None, stream: TextIO | None = None, findings: Findings | None = None) -> Display:
    """The display that suits a stream.

    Args:
        progress: None draws the live display on a terminal that can show it and has NO_COLOR unset; True wants it there even with NO_COLOR
            (it has no colors then); False never.
        stream: to write to; None is standard output.
        findings: what the live display says about the rows so far; None says nothing.
    """
    stream = sys.stdout if stream is None else stream
    wanted = not os.environ.get("NO_COLOR") if progress is None else progress
    if not (wanted and _is_capable(stream)):
        return PlainDisplay(stream)
    # Here and not above: importing rich takes longer than a plain display ever needs.
    from distppo.console.live import LiveDisplay

    return LiveDisplay(stream, findings=findings)


def plain_line(view: RunView) -> str:
    """The newest iteration in one line."""
    row, total = view.row, format_count(view.total)
    parts = [
        f"{format_count(view.steps):>{len(total)}} / {total}",
        f"{view.progress:6.1%}",
        f"return {format_number(row.get('rollout/ep_rew_mean'), '.1f'):>8}",
        f"{format_count(row.get('time/fps')):>6} steps/s",
        f"kl {format_number(row.get('train/approx_kl'), '.4f'):>6}",
        f"ev {format_number(row.get('train/explained_variance'), '.2f'):>5}",
        f"eta {format_duration(view.eta)}",
    ]
    if "eval/mean_reward" in row:
        parts.append(f"evaluation {format_number(row['eval/mean_reward'], '.1f')}")
    if view.faults:
        parts.append(f"faults {sum(view.faults.values())}")
    return "  ".join(parts)


def _is_capable(stream: TextIO) -> bool:
    """True for a terminal that can move its cursor and show the bars' characters."""
    if not stream.isatty() or os.environ.get("TERM", "dumb") in ("dumb", "unknown"):
        return False
    return (stream.encoding or "").lower().replace("-", "") in ("utf8", "utf8sig")
