"""Watching a run from another process: its display, drawn from what it writes into metrics.jsonl."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from distppo.config import Config, load_layers
from distppo.config.suggest import printable
from distppo.console import Display, format_duration
from distppo.metrics import METRICS_FILE, MetricsFollower
from distppo.metrics.keys import STEPS
from distppo.runtime.faults import fault_text
from distppo.runtime.run_directory import CONFIG_FILE, dead_process, never_started

ENDED = {"finished": "finished", "stopped": "stopped", "interrupted": "interrupted", "error": "ended by an error"}
"""Events after which nothing more comes, and how they are told."""
CRASHED = "crashed"
NOT_STARTED = "did not start"
_QUIET_AFTER = 10.0
"""Seconds without an iteration from which on the display says how long ago the last one was."""
_KEPT = 20_000
"""Rows that a rollback can reach: far more than there are between two checkpoints."""


class Watcher:
    """Follows one run and shows it.

    Args:
        directory: of the run.
        display: not started yet.
        clock: seconds, monotonic.
    """

    def __init__(self, directory: Path, display: Display, clock: Callable[[], float] = time.monotonic) -> None:
        self._directory, self._display, self._clock = directory, display, clock
        self._follower = MetricsFollower(directory / METRICS_FILE)
        self._rows: list[Mapping[str, Any]] = []
        self._ended: str | None = None
        self._training = False
        self._heard = clock()
        self._started = False

    def look(self) -> str | None:
        """Shows what is new; returns how the run ended, or None while it goes on."""
        lines = self._follower.poll()
        first = not self._started
        taken_back = first
        if first or any(line.get("event") == "started" for line in lines):
            self._start()
        fresh = []
        for line in lines:
            if "event" in line:
                taken_back |= self._event(line, told=not first)
            else:
                self._rows.append(line)
                fresh.append(line)
        del self._rows[:-_KEPT]
        if fresh:
            self._heard, self._training = self._clock(), True
        if taken_back:
            self._display.catch_up(self._rows)
        else:
            for row in fresh:
                self._display.iteration(row)
        if self._ended is None and not lines and (process := dead_process(self._directory)) is not None:
            self._ended = CRASHED
            self._display.message(f"process {process} is gone and has said nothing; train --resume {self._directory} goes on")
        if self._ended is None and not lines and never_started(self._directory):
            self._ended = NOT_STARTED
            self._display.message("its command ended before anything was trained, by an error that it has printed")
        self._display.state(self._state(), running=self._ended is None)
        return self._ended

    def _start(self) -> None:
        config = run_config(self._directory)
        title = f"{config.env.id} -> {self._directory}"
        self._display.start(title, total=config.run.total_timesteps, initial=0)
        self._started = True

    def _event(self, line: Mapping[str, Any], *, told: bool) -> bool:
        """Takes an event in; returns whether rows that were shown count no longer.

        Args:
            line: the event.
            told: whether it is news, or was there when watching began.
        """
        kind = line["event"]
        if kind == "resumed":
            while self._rows and self._rows[-1][STEPS] > line["env_steps"]:
                self._rows.pop()
            return True
        if kind == "started":
            self._ended, self._training = None, False
            return True
        if kind in ENDED:
            self._ended = ENDED[kind]
            if kind == "error":
                self._display.message(printable(f"error: {line.get('message')}"))
            elif line.get("reason"):
                self._display.message(printable(f"stopped because {line['reason']}"))
        elif kind == "fault" and told:
            text = fault_text(*(str(line.get(name)) for name in ("what", "where", "why", "done")))
            self._display.message("\n".join(map(printable, text.splitlines())))
        return False

    def _state(self) -> str:
        if self._ended is not None:
            return self._ended
        if not self._training:
            return "starting"
        quiet = self._clock() - self._heard
        return f"last iteration {format_duration(quiet)} ago" if quiet > _QUIET_AFTER else ""


def run_config(directory: Path) -> Config:
    """Returns the settings of a run, as it wrote them down.

    Raises:
        UserError: they cannot be read.
    """
    config, _ = load_layers([directory / CONFIG_FILE], check=False)
    return config


def watch(directory: Path, display: Display, *, seconds: float = 0.5) -> str:
    """Shows a run until it ends, and returns how it did; one that has ended already is shown as it ended.

    Args:
        directory: of the run.
        display: that shows it.
        seconds: between two looks.

    Raises:
        UserError: the run's settings cannot be read.
    """
    with display:
        watcher = Watcher(directory, display)
        while (ended := watcher.look()) is None:
            time.sleep(seconds)
    return ended
