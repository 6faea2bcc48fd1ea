"""One `launch.py train` as a process of its own, watched from outside: what it writes, what it costs, how large its processes are."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from types import TracebackType
from typing import Any, NamedTuple, Self

ROOT = Path(__file__).resolve().parents[1]
POLL_SECONDS = 0.02
INTERRUPTED = 130
MEBIBYTE = 2**20
ROLES = {"ray::Worker": "worker", "ray::Learner": "learner", "raylet": "raylet", "gcs_server": "gcs"}
"""How Ray's processes call themselves, and what they are called here; the rest of what Ray starts is `other`."""
TICKS_PER_SECOND = os.sysconf("SC_CLK_TCK")


class RunFailed(Exception):
    """The training ended early; the message holds the end of what it printed."""


class Line(NamedTuple):
    """One line of metrics.jsonl.

    Attributes:
        seconds: from the start of the command until it was there, to 0.02 s.
        values: a row or an event.
        newest: whether no later line was there yet when it was read.
    """

    seconds: float
    values: dict[str, Any]
    newest: bool

    @property
    def event(self) -> str | None:
        """Kind of the event; None for a row."""
        return self.values.get("event")


class Process(NamedTuple):
    """One process of the run.

    Attributes:
        pid: of it.
        role: driver, learner, worker, raylet, gcs or other.
        started: seconds from the start of the command to its own, to 0.01 s.
    """

    pid: int
    role: str
    started: float

    @property
    def cpu_seconds(self) -> float:
        """Processor time of all its threads so far, to 0.01 s; 0 once it has ended."""
        stat = _stat(self.pid)
        return (int(stat[11]) + int(stat[12])) / TICKS_PER_SECOND if stat else 0.0

    @property
    def memory(self) -> dict[str, float]:
        """Resident memory in MiB: `rss` all of it, `pss` with shared pages divided by their sharers, `uss` what it alone holds."""
        fields = {}
        for line in Path(f"/proc/{self.pid}/smaps_rollup").read_text().splitlines()[1:]:
            name, value, *_ = line.split()
            fields[name.rstrip(":")] = int(value) / 1024
        return {"rss": fields["Rss"], "pss": fields["Pss"], "uss": fields["Private_Clean"] + fields["Private_Dirty"]}


class WatchedRun:
    """Trains in a temporary directory; leaving the with block ends the run, whatever state it is in.

    Args:
        flags: of `launch.py train`.
        environment: variables added to this process's own.
        directory: of the run; None: a temporary one.

    Attributes:
        directory: of the run.
        command: as it was started.
    """

    def __init__(self, flags: list[str], environment: Mapping[str, str] | None = None, directory: Path | None = None) -> None:
        self._temporary = Path(tempfile.mkdtemp(prefix="distppo-benchmark-"))
        self.directory = directory or self._temporary / "run"
        self.command = [sys.executable, "launch.py", "train", *flags, "--run-dir", str(self.directory), "--no-progress"]
        with open(self._temporary / "output", "wb") as output:
            self._started = _now()
            self._process = subprocess.Popen(
                self.command, cwd=ROOT, env={**os.environ, **(environment or {})}, stdout=output, stderr=output, start_new_session=True
            )

    def lines(self) -> Iterator[Line]:
        """Yields the lines of metrics.jsonl as they are written, until the run has ended.

        Raises:
            RunFailed: it ended with an error.
        """
        path, read = self.directory / "metrics.jsonl", 0
        while True:
            ended = self._process.poll() is not None
            if path.exists():
                with open(path, "rb") as file:
                    file.seek(read)
                    whole, _, _ = file.read().rpartition(b"\n")
                seconds = _now() - self._started
                read += len(whole) + 1 if whole else 0
                lines = whole.splitlines()
                yield from (Line(seconds, json.loads(text), k == len(lines)) for k, text in enumerate(lines, 1))
            if ended:
                break
            time.sleep(POLL_SECONDS)
        if self._process.returncode not in (0, INTERRUPTED):
            tail = (self._temporary / "output").read_text(errors="replace").splitlines()[-5:]
            raise RunFailed(f"exit code {self._process.returncode}: " + " | ".join(tail))

    def processes(self) -> list[Process]:
        """Returns the driver and everything it has started that is alive."""
        children: dict[int, list[int]] = {}
        started: dict[int, float] = {}
        for entry in Path("/proc").iterdir():
            if entry.name.isdigit() and (stat := _stat(int(entry.name))):
                children.setdefault(int(stat[1]), []).append(int(entry.name))
                started[int(entry.name)] = int(stat[19]) / TICKS_PER_SECOND - self._started
        found = [Process(self._process.pid, "driver", started.get(self._process.pid, 0.0))]
        for process in found:  # grows while it is walked
            found += [Process(pid, _role(pid), started[pid]) for pid in children.get(process.pid, [])]
        return found

    def left(self, patience: float = 10.0) -> list[str]:
        """Returns what of the run's session is alive after it has ended, as `role pid`; whatever ends within `patience` seconds is not."""
        deadline = time.monotonic() + patience
        while True:
            pids = [int(entry.name) for entry in Path("/proc").iterdir() if entry.name.isdigit()]
            stats = [(pid, stat) for pid in pids if (stat := _stat(pid))]
            alive = [f"{_role(pid)} {pid}" for pid, stat in stats if int(stat[3]) == self._process.pid and stat[0] != "Z"]
            if not alive or time.monotonic() > deadline:
                return alive
            time.sleep(POLL_SECONDS)

    def interrupt(self) -> None:
        """Asks the run to save and end, as Ctrl-C does."""
        self._process.send_signal(signal.SIGINT)

    def seconds_to(self, name: str) -> float:
        """Returns the seconds from the start of the command until a file of the run directory was last written."""
        written = (self.directory / name).stat().st_mtime
        return written - time.time() + _now() - self._started

    def close(self) -> None:
        """Asks the run to stop, forces it to if that takes longer than a minute, and deletes its directory."""
        if self._process.poll() is None:
            self._process.terminate()
            try:
                self._process.wait(60)
            except subprocess.TimeoutExpired:
                os.killpg(self._process.pid, signal.SIGKILL)
                self._process.wait()
        shutil.rmtree(self._temporary, ignore_errors=True)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self.close()


def _now() -> float:
    """Returns seconds since the machine started, which is what /proc counts the starts of processes in."""
    return time.clock_gettime(time.CLOCK_BOOTTIME)


def _stat(pid: int) -> list[str] | None:
    """Returns the fields of /proc/PID/stat from the third on (state, parent ...); None if it has just ended."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except (FileNotFoundError, ProcessLookupError):
        return None


def _role(pid: int) -> str:
    try:
        title = Path(f"/proc/{pid}/cmdline").read_bytes().split(b"\0")[0].decode(errors="replace")
    except (FileNotFoundError, ProcessLookupError):
        return "other"
    name = title.rpartition("/")[2]
    return next((role for prefix, role in ROLES.items() if name.startswith(prefix)), "other")
