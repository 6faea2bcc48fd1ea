"""Forwarding metrics to loggers by a process that follows metrics.jsonl: however slow or broken one is, training never waits for it."""

from __future__ import annotations

import contextlib
import json
import math
import os
import select
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, TextIO

from distppo.config import config_to_dict, load_layers
from distppo.config.schema import MetricsConfig
from distppo.files import without_links, write_atomic
from distppo.metrics.follow import MetricsFollower
from distppo.metrics.jsonl import METRICS_FILE
from distppo.metrics.keys import STEPS
from distppo.metrics.loggers import LOG_FILE, MEMORY_FILE, LoggedRun, NamedLogger, make_loggers

CONFIG_FILE = "config.yaml"
SECONDS_AT_THE_END = 30.0
"""In which loggers may take what they have not taken yet, when training has ended."""
_SECONDS_BETWEEN_LOOKS = 1.0
_SECONDS_UNTIL_TOLD = 1.0
_NICENESS = 10
"""The cores are the workers' and the learner's."""
_ENDS = ("finished", "stopped", "interrupted", "error")


class Forwarder:
    """The process, as the one that trains sees it. It writes to it nothing, and reads from it what went wrong.

    Args:
        config: names the loggers.
        directory: of the run.
        failed: called once for a logger that can no longer log, with its name and the reason.
        say: takes a line for people.
        seconds_at_the_end: for loggers that lag behind.
    """

    def __init__(
        self,
        config: MetricsConfig,
        directory: Path,
        *,
        failed: Callable[[str, str], None],
        say: Callable[[str], None] = lambda _: None,
        seconds_at_the_end: float = SECONDS_AT_THE_END,
    ) -> None:
        self._directory, self._failed, self._say, self._patience = directory, failed, say, seconds_at_the_end
        self._names = [name for name in ("wandb", "mlflow") if getattr(config, name)] + [plugin.target for plugin in config.loggers]
        self._process: subprocess.Popen[bytes] | None = None
        self._unfinished = b""

    def start(self, position: int) -> None:
        """Starts the process, unless there is nobody to log to.

        Args:
            position: byte of metrics.jsonl that it begins at.
        """
        if not self._names:
            return
        environment = os.environ | {"PYTHONPATH": os.pathsep.join(path for path in sys.path if path)}
        # Not with -m: the package imports this module itself, of which runpy would warn.
        program = "import sys; from distppo.metrics.forward import main; main(sys.argv[1], int(sys.argv[2]))"
        command = [sys.executable, "-c", program, str(self._directory), str(position)]
        # A group of its own: Ctrl-C is for the run, which then says itself how it has ended.
        self._process = subprocess.Popen(command, env=environment, stdin=subprocess.PIPE, stdout=subprocess.PIPE, process_group=0)
        assert self._process.stdout is not None
        os.set_blocking(self._process.stdout.fileno(), False)

    def check(self) -> None:
        """Tells of loggers that have failed since the last call; costs microseconds."""
        if self._process is None or self._process.stdout is None:
            return
        with contextlib.suppress(BlockingIOError):
            while more := os.read(self._process.stdout.fileno(), 1 << 16):
                self._unfinished += more
        *lines, self._unfinished = self._unfinished.split(b"\n")
        for line in lines:
            failure = json.loads(line)
            self._names = [name for name in self._names if name != failure["logger"]]
            self._failed(failure["logger"], failure["why"])

    def close(self) -> None:
        """Lets the loggers take the rest, for a while, and ends the process."""
        if self._process is None or self._process.stdin is None:
            return
        self._process.stdin.close()
        began, told = time.monotonic(), False
        while self._process.poll() is None and (waited := time.monotonic() - began) < self._patience:
            if waited > _SECONDS_UNTIL_TOLD and not told:
                told = True
                self._say(f"waiting for {', '.join(self._names)} to take the last metrics, {self._patience:.0f} s at most")
            time.sleep(0.05)
        self.check()
        code = self._process.poll()
        if code is None:
            os.killpg(self._process.pid, signal.SIGKILL)  # whatever a logger has started ends with it
            self._process.wait()
        if code != 0:
            late = f"it had not taken everything {self._patience:g} s after the end"
            why = late if code is None else f"its process ended with code {code}"
            for name in self._names:
                self._failed(name, f"{why}; see {self._directory / LOG_FILE}")
        self._process = None


class Forwarding:
    """What runs in the process: every row to every logger that still works.

    Args:
        directory: of the run.
        position: byte of metrics.jsonl to begin at.
        reports: takes a JSON line for each logger that has failed.
    """

    def __init__(self, directory: Path, position: int, reports: TextIO) -> None:
        self._directory, self._reports = directory, reports
        self._follower = MetricsFollower(directory / METRICS_FILE, position)
        self._loggers: list[NamedLogger] = []
        self._ended = "crashed"

    def run(self) -> None:
        """Forwards until stdin is closed, as it is when the other process closes it or dies."""
        config, _ = load_layers([self._directory / CONFIG_FILE], check=False)
        memory = _read_memory(self._directory)
        for named in make_loggers(config.metrics):
            run = LoggedRun(self._directory, config_to_dict(config), memory.get(named.name))
            with self._reported(named):
                known_as = named.logger.open(run)
                self._loggers.append(named)
                if known_as is not None:
                    memory[named.name] = known_as
        with contextlib.suppress(OSError):
            write_atomic(self._directory / MEMORY_FILE, json.dumps(memory).encode() + b"\n")
        while not select.select([sys.stdin], [], [], _SECONDS_BETWEEN_LOOKS)[0]:
            self._forward()
        self._forward()
        for named in list(self._loggers):
            with self._reported(named):
                named.logger.close(self._ended)

    def _forward(self) -> None:
        for line in self._follower.poll():
            if "event" in line:
                self._ended = line["event"] if line["event"] in _ENDS else self._ended
                continue
            numbers = {key: float(value) for key, value in line.items() if value is not None and math.isfinite(value)}
            for named in list(self._loggers):
                with self._reported(named):
                    named.logger.row(int(line[STEPS]), numbers)

    @contextlib.contextmanager
    def _reported(self, named: NamedLogger) -> Any:
        """Reports what a logger raises, with its traceback in the log, and has done with it."""
        try:
            yield
        except (Exception, SystemExit) as error:
            import traceback

            traceback.print_exc()
            self._loggers = [each for each in self._loggers if each is not named]
            why = " ".join(f"{type(error).__name__}: {error}".split())[:500]
            print(json.dumps({"logger": named.name, "why": why}), file=self._reports, flush=True)


def _read_memory(directory: Path) -> dict[str, str]:
    with contextlib.suppress(OSError, ValueError):
        memory: Mapping[str, Any] = json.loads((directory / MEMORY_FILE).read_text())
        return {str(name): str(value) for name, value in memory.items()}
    return {}


def main(path: str, position: int) -> None:
    """Runs in the process; whatever loggers print goes to the run's log."""
    directory = Path(path)
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    os.nice(_NICENESS)
    with os.fdopen(os.dup(1), "w") as reports, open(directory / LOG_FILE, "a", opener=without_links) as log:
        for descriptor in (1, 2):
            os.dup2(log.fileno(), descriptor)
        Forwarding(directory, position, reports).run()
