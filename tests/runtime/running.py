"""What tests of the runtime share: a small run, launch.py's command line, the processes of a session."""

from __future__ import annotations

import json
import os
import signal
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from distppo.checkpoint import load_checkpoint, resolve_checkpoint
from distppo.metrics import METRICS_FILE, read_metrics
from distppo.runtime.train import TrainResult

ROOT = Path(__file__).parents[2]
SMALL = {
    "env.id": "probe_envs:Point-v0",
    "rollout.num_envs": 4,
    "rollout.num_steps": 32,
    "rollout.num_workers": 0,
    "ppo.mini_batch_size": 32,
    "ppo.epochs": 2,
    "network.hidden_sizes": [16],
    "evaluation.every": 0,
    "run.total_timesteps": 384,
    "run.checkpoint_every": 0,
}
"""Three iterations of 128 env steps."""
SECONDS = 120
"""What a process may take to start or to end, on a machine that is busy with other things."""


class Run:
    """A finished small run."""

    def __init__(self, result: TrainResult) -> None:
        self.result = result
        self.directory = result.run_directory
        self.summary = result.summary

    @property
    def arrays(self) -> dict[str, np.ndarray]:
        """The learner's arrays in the last checkpoint."""
        return load_checkpoint(resolve_checkpoint(str(self.directory), prefer="last")).arrays["learner"]

    @property
    def rows(self) -> list[dict[str, Any]]:
        return read_metrics(self.directory / METRICS_FILE)

    @property
    def events(self) -> list[dict[str, Any]]:
        return read_events(self.directory)

    @property
    def faults(self) -> list[str]:
        """What went wrong, in order."""
        return [event["what"] for event in self.events if event["event"] == "fault"]

    def same_bits(self, other: Run) -> bool:
        mine, its = self.arrays, other.arrays
        return mine.keys() == its.keys() and all(mine[name].tobytes() == its[name].tobytes() for name in mine)


def read_events(directory: Path) -> list[dict[str, Any]]:
    """The events in a run directory's metrics.jsonl."""
    return [line for line in map(json.loads, (directory / METRICS_FILE).read_text().splitlines()) if "event" in line]


def kill_when_busy(pid: int, method: str, number: int = signal.SIGKILL) -> threading.Thread:
    """Sends a signal to an actor's process as soon as it is inside a method: Ray puts that into the process's title."""
    title = Path(f"/proc/{pid}/cmdline")

    def watch() -> None:
        while f".{method}" not in title.read_text():
            time.sleep(0.001)
        os.kill(pid, number)

    thread = threading.Thread(target=watch, daemon=True)
    thread.start()
    return thread


def command(*argv: str) -> list[str]:
    """The command line of launch.py."""
    return [sys.executable, str(ROOT / "launch.py"), *argv]


def environment() -> dict[str, str]:
    """Variables of a process that can import distppo and probe_envs; what a Ray in this process has set is left out."""
    inherited = {name: value for name, value in os.environ.items() if name != "RAY_AUTH_MODE"}
    return inherited | {"PYTHONPATH": f"{ROOT}{os.pathsep}{ROOT / 'tests'}"}


def processes_of(session: int) -> dict[int, str]:
    """Returns pid -> command line of the living processes in a session, which is that of the launch.py that `started` gave."""
    found = {}
    for path in Path("/proc").glob("[0-9]*"):
        try:
            state, _, _, sid = (path / "stat").read_text().rpartition(")")[2].split()[:4]
            if int(sid) == session and state != "Z":
                found[int(path.name)] = (path / "cmdline").read_text().replace("\0", " ")[:100]
        except OSError:
            continue
    return found


def wait_until(condition: Callable[[], Any], seconds: float, what: str) -> Any:
    """Returns the first true value of `condition`; fails after `seconds`."""
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        value = condition()
        if value:
            return value
        time.sleep(0.05)
    raise AssertionError(f"not within {seconds} s: {what}")
