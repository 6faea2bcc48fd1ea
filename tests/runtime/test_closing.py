"""The end of a run: every environment is closed, and nobody who does not answer is waited for long."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from runtime.running import Run, wait_until

from distppo.runtime.pool import CLOSE_SECONDS
from distppo.runtime.ray_backend import RayBackend

EVALUATED = {"evaluation.every": 256, "evaluation.episodes": 2}


def at_the_end(monkeypatch: pytest.MonkeyPatch, act: Callable[[list[int]], Any]) -> list[float]:
    """Does something with the workers' process ids just before a run ends them; returns a list that gets the seconds this then takes."""
    original: Callable[[RayBackend], None] = RayBackend.close
    seconds: list[float] = []

    def close(backend: RayBackend) -> None:
        act([seat.host.presence.pid for seat in backend._pool.seats if seat.host and seat.host.presence])
        began = time.perf_counter()
        original(backend)
        seconds.append(time.perf_counter() - began)

    monkeypatch.setattr(RayBackend, "close", close)
    return seconds


@pytest.mark.parametrize("workers", [0, pytest.param(2, marks=pytest.mark.ray)])
def test_every_environment_that_was_made_is_closed(
    workers: int, small: Callable[..., Run], tmp_path: Path, request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The driver's own, to look at, four to collect in, and one in each process to evaluate in; and it takes no time."""
    if workers:
        request.getfixturevalue("shared_ray")
    seconds = at_the_end(monkeypatch, lambda pids: None)
    small(EVALUATED | {"env.id": "probe_envs:Closing-v0", "env.kwargs": {"path": str(tmp_path / "log")}, "rollout.num_workers": workers})
    said = (tmp_path / "log").read_text().split()
    assert said.count("made") == said.count("closed") == 1 + 4 + max(1, workers)
    assert sum(seconds) < 0.7 * CLOSE_SECONDS


@pytest.mark.ray
@pytest.mark.parametrize(
    ("number", "least", "most"),
    [
        pytest.param(signal.SIGKILL, 0.0, 0.9 * CLOSE_SECONDS, id="dead"),
        pytest.param(signal.SIGSTOP, CLOSE_SECONDS, 2 * CLOSE_SECONDS, id="stopped", marks=pytest.mark.slow),
    ],
)
def test_a_worker_that_cannot_close_holds_up_nobody(
    number: int,
    least: float,
    most: float,
    small: Callable[..., Run],
    shared_ray: Any,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """The other one closes its two environments, and neither process is left."""
    workers: list[int] = []
    seconds = at_the_end(monkeypatch, lambda pids: (workers.extend(pids), os.kill(pids[0], number)))
    run = small({"env.id": "probe_envs:Closing-v0", "env.kwargs": {"path": str(tmp_path / "log")}, "rollout.num_workers": 2})
    assert run.summary["env_steps"] == 384
    assert least <= sum(seconds) < most
    assert (tmp_path / "log").read_text().split().count("closed") == 1 + 2
    wait_until(lambda: not any(Path(f"/proc/{pid}").exists() for pid in workers), 10, "no process is left")


@pytest.mark.ray
@pytest.mark.slow
def test_a_second_signal_does_not_wait_for_environments_to_be_closed(started: Callable[..., Any], small_file: str, tmp_path: Path) -> None:
    """The worker is stopped in the middle of a run."""
    driver = started("train", "--config", small_file, "--total-timesteps", "1e9", "--run-dir", "run", "--num-workers", "1")
    wait_until(lambda: "steps/s" in (tmp_path / "stdout").read_text(), 120, "an iteration has ended")
    found = [
        int(path.name)
        for path in Path("/proc").glob("[0-9]*")
        if _session(path) == driver.pid and b"WorkerActor" in (path / "cmdline").read_bytes()
    ]
    assert len(found) == 1
    os.kill(found[0], signal.SIGSTOP)
    driver.send_signal(signal.SIGTERM)
    wait_until(lambda: (tmp_path / "run" / "checkpoints" / "latest").exists(), 10, "the first signal is heard")
    driver.send_signal(signal.SIGTERM)
    assert driver.wait(2) == 143


def _session(path: Path) -> int | None:
    try:
        return int((path / "stat").read_text().rpartition(")")[2].split()[3])
    except OSError:
        return None
