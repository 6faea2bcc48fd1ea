"""`train --seeds`: a process for each seed, one after the other or several at a time."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from types import FrameType
from typing import Any

from distppo.config import Config
from distppo.metrics import write_summary
from distppo.runtime.cores import available_cores
from distppo.runtime.run_directory import CONFIG_FILE
from distppo.runtime.seeds import SeedRun, SeedsResult, summary_of
from distppo.runtime.signals import SIGNALS

IN_ORDER = (0, *(128 + number for number in SIGNALS))
"""Exit codes of runs that have finished, or were stopped and can go on."""
_POLL_SECONDS = 0.1


def parallel_runs(config: Config, wanted: int | None, runs: int) -> int:
    """Returns how many runs go at a time: as many as wanted; by default as the cores of this machine suffice for, a worker each."""
    if wanted is not None:
        return min(wanted, runs)
    return max(1, min(runs, available_cores() // max(1, config.rollout.num_workers or 1)))


def train_seeds(
    config: Config, directory: Path, seeds: Sequence[int], *, parallel: int, arguments: Sequence[str], say: Callable[[str], None]
) -> SeedsResult:
    """Trains every seed that has not finished, in its subfolder; one that was interrupted goes on.

    Args:
        config: of all runs.
        directory: of all, as `open_group` returned it.
        seeds: of the runs.
        parallel: runs at a time. One alone has the terminal; of several each line is printed with its seed, and each has its own cores.
        arguments: more flags of `train` for every run.
        say: takes a line for people.
    """
    runs = [SeedRun(seed, directory / f"seed{seed}") for seed in seeds]
    total = config.run.total_timesteps
    waiting = [run for run in runs if not run.finished(total)]
    if skipped := [run for run in runs if run not in waiting]:
        say(f"finished already: seed {', '.join(str(run.seed) for run in skipped)}")
    failed: list[SeedRun] = []
    with _Children(parallel) as children:
        while (waiting and children.signal is None) or children.running:
            while waiting and children.signal is None and len(children.running) < parallel:
                run = waiting.pop(0)
                say(f"seed {run.seed} ({runs.index(run) + 1} of {len(runs)}) -> {run.directory}")
                children.start(run, _command(run, directory, arguments))
            for run, code in children.ended(say):
                if code in IN_ORDER:
                    continue
                failed.append(run)
                say(f"seed {run.seed} ended with an error (exit code {code})")
                if not run.learned and waiting:
                    say("it never began to learn, so the others are not started")
                    waiting.clear()
    write_summary(directory, summary_of(config, runs, total))
    return SeedsResult(directory, [run for run in runs if run.finished(total)], failed, children.signal)


def _command(run: SeedRun, directory: Path, arguments: Sequence[str]) -> list[str]:
    program = [sys.argv[0]] if Path(sys.argv[0]).name == "launch.py" else ["-m", "distppo"]
    command = [sys.executable, *program, "train", "--config", str(directory / CONFIG_FILE), "--seed", str(run.seed), *arguments]
    return command + (["--resume", str(run.directory)] if run.begun else ["--run-dir", str(run.directory)])


class _Children:
    """The processes, which get every signal that this one gets; they save and end by themselves.

    Args:
        places: processes at a time; of several each gets a share of the cores.

    Attributes:
        running: process of each run.
        signal: number of the first signal that came, or None.
    """

    def __init__(self, places: int) -> None:
        self.running: dict[SeedRun, subprocess.Popen[bytes]] = {}
        self.signal: int | None = None
        self._places: dict[SeedRun, int] = {}
        self._cores = _shares_of_cores(places)
        self._shared = places > 1
        self._unfinished: dict[SeedRun, bytes] = {}
        self._previous: dict[int, Any] = {}

    def start(self, run: SeedRun, command: Sequence[str]) -> None:
        """Starts a process in a process group of its own, so that Ctrl-C reaches it once, through this one."""
        place = next(each for each in range(len(self._cores)) if each not in self._places.values())
        # Whatever this process can import, they can.
        environment = os.environ | {"PYTHONPATH": os.pathsep.join(path for path in sys.path if path)}
        streams: dict[str, Any] = {"stdout": subprocess.PIPE, "stderr": subprocess.STDOUT} if self._shared else {}
        words = [*command, "--no-progress"] if self._shared else command
        with _bound_to(self._cores[place]):
            process = subprocess.Popen(words, env=environment, stdin=subprocess.DEVNULL, process_group=0, **streams)
        if process.stdout is not None:
            os.set_blocking(process.stdout.fileno(), False)
        self.running[run], self._places[run], self._unfinished[run] = process, place, b""
        if self.signal is not None:  # it came while the process was being started
            process.send_signal(self.signal)

    def ended(self, say: Callable[[str], None]) -> list[tuple[SeedRun, int]]:
        """Passes on what the runs have said, and returns those that have ended, after a moment of waiting."""
        time.sleep(_POLL_SECONDS)
        ended = []
        for run, process in list(self.running.items()):
            code = process.poll()
            for line in self._new_lines(run, process):
                say(f"seed {run.seed} | {line}")
            if code is not None:
                del self.running[run], self._places[run]
                ended.append((run, code if code >= 0 else 128 - code))
        return ended

    def _new_lines(self, run: SeedRun, process: subprocess.Popen[bytes]) -> list[str]:
        """Returns the whole lines that a run has printed since the last call."""
        text = self._unfinished[run]
        with contextlib.suppress(BlockingIOError):
            while process.stdout is not None and (more := os.read(process.stdout.fileno(), 1 << 16)):
                text += more
        *lines, self._unfinished[run] = text.split(b"\n")
        return [line.decode(errors="replace") for line in lines]

    def __enter__(self) -> _Children:
        for number in SIGNALS:
            handler = signal.getsignal(number)
            if not (number == signal.SIGHUP and handler is signal.SIG_IGN):
                self._previous[number] = signal.signal(number, self._pass_on)
        return self

    def __exit__(self, *_: object) -> None:
        for number, handler in self._previous.items():
            signal.signal(number, handler)
        for process in self.running.values():
            process.terminate()

    def _pass_on(self, number: int, frame: FrameType | None) -> None:
        self.signal = number if self.signal is None else self.signal
        for process in self.running.values():
            process.send_signal(number)


def _shares_of_cores(places: int) -> list[frozenset[int]]:
    """Returns the cores for each of several processes, none of them shared; empty where there are too few, or but one process."""
    cores = sorted(os.sched_getaffinity(0)) if places > 1 and hasattr(os, "sched_setaffinity") else []
    return [frozenset(cores[place::places]) if len(cores) >= places else frozenset() for place in range(places)]


@contextlib.contextmanager
def _bound_to(cores: frozenset[int]) -> Iterator[None]:
    """Has processes that are started in the block run on these cores alone; on any if the set is empty."""
    if not cores:
        yield
        return
    before = os.sched_getaffinity(0)
    os.sched_setaffinity(0, cores)
    try:
        yield
    finally:
        os.sched_setaffinity(0, before)
