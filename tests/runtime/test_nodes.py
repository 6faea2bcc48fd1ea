"""Nodes that are lost, that come, that are about to go, and connections that break: on a cluster of several nodes on this machine."""

from __future__ import annotations

import json
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from runtime.running import SECONDS, environment, read_events, wait_until

from distppo.algo.seeding import Purpose, env_seed
from distppo.checkpoint import list_checkpoints, load_checkpoint

pytestmark = pytest.mark.ray

NODES = Path(__file__).with_name("nodes.py")
TWO = ("--num-workers", "2", "--set", "run.total_timesteps=1280", "--set", "run.checkpoint_every=128", "--set", "fault.restart_backoff=0.1")


class Nodes:
    """A cluster in a process of its own, told line by line what to do: a second Ray in this one would not be undisturbed."""

    def __init__(self, *, variables: dict[str, str]) -> None:
        self._process = subprocess.Popen(
            [sys.executable, str(NODES)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env=environment() | variables
        )
        self.address = self.ask("start")

    def ask(self, request: str) -> str:
        """Returns the answer to a request of nodes.py."""
        assert self._process.stdin is not None and self._process.stdout is not None
        print(request, file=self._process.stdin, flush=True)
        return self._process.stdout.readline().strip()

    def close(self) -> None:
        self._process.communicate("", timeout=60)


@pytest.fixture
def nodes(request: pytest.FixtureRequest) -> Iterator[Nodes]:
    """A head node of two CPUs; node failures are noticed within seconds."""
    quick = {
        "RAY_health_check_period_ms": "1000",
        "RAY_health_check_timeout_ms": "3000",
        "RAY_health_check_failure_threshold": "3",
        "RAY_AUTH_MODE": "token",
    }
    cluster = Nodes(variables=quick | getattr(request, "param", {}))
    yield cluster
    cluster.close()


def rows_of(directory: Path) -> list[dict[str, Any]]:
    path = directory / "metrics.jsonl"
    lines = path.read_text().splitlines() if path.exists() else []
    return [line for line in map(json.loads, lines) if "event" not in line]


def parameters(directory: Path) -> dict[str, np.ndarray]:
    return load_checkpoint(list_checkpoints(directory)[-1].path).arrays["learner"]


@pytest.fixture
def reference(launch: Callable[..., Any], slowed: tuple[str, ...], tmp_path: Path) -> Callable[[], dict[str, np.ndarray]]:
    """Trains the same without a disturbance, in a Ray of its own; returns the parameters."""

    def train() -> dict[str, np.ndarray]:
        assert launch("train", *slowed, "--run-dir", "reference").returncode == 0
        return parameters(tmp_path / "reference")

    return train


def equal(mine: dict[str, np.ndarray], its: dict[str, np.ndarray]) -> bool:
    return mine.keys() == its.keys() and all(mine[name].tobytes() == its[name].tobytes() for name in mine)


@pytest.fixture
def slowed(small_file: str) -> tuple[str, ...]:
    """Flags of ten iterations of about a second."""
    kwargs = f"env.kwargs={{seed: {env_seed(0, Purpose.ENV_RESET, 0, 0)}, seconds: 0.02}}"
    return ("--config", small_file, "--env", "probe_envs:Slow-v0", "--set", kwargs, *TWO)


def test_a_lost_node_costs_time_and_nothing_else(
    nodes: Nodes,
    started: Callable[..., Any],
    slowed: tuple[str, ...],
    reference: Callable[..., Any],
    tmp_path: Path,
    recovery: Callable[..., None],
) -> None:
    """Row 6: survivors do the work of those that went, these return when a node does, and the result is that of an undisturbed run."""
    nodes.ask("add 1")
    run = tmp_path / "run"
    driver = started("train", *slowed, "--address", nodes.address, "--run-dir", "run")
    wait_until(lambda: len(rows_of(run)) >= 2, 30, "two iterations")
    nodes.ask("lose")
    lost_at = len(rows_of(run))
    wait_until(lambda: len(rows_of(run)) >= lost_at + 2, SECONDS, "the survivors go on without it")
    nodes.ask("add 1")
    assert driver.wait(SECONDS) == 0, (tmp_path / "stderr").read_text()
    recovery(run)
    kinds = {event["what"] for event in read_events(run) if event["event"] == "fault"}
    assert "worker_away" in kinds and kinds & {"worker_died", "learner_died"}
    assert [row["time/total_timesteps"] for row in rows_of(run)] == [128 * (k + 1) for k in range(10)]
    assert equal(parameters(run), reference())


def test_connections_that_break_are_made_again_and_nothing_is_replaced(
    launch: Callable[..., Any],
    slowed: tuple[str, ...],
    reference: Callable[..., Any],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    recovery: Callable[..., None],
) -> None:
    """Row 16: Ray loses calls to actors, and answers of theirs. Nobody knows whether they were done; the result is the same."""
    expected = reference()
    lossy = {"CoreWorkerService.grpc_client.PushTask": {"num_failures": 6, "req_failure_prob": 15, "resp_failure_prob": 15}}
    monkeypatch.setenv("RAY_testing_rpc_failure", json.dumps(lossy))
    done = launch("train", *slowed, "--run-dir", "run")
    assert done.returncode == 0, done.stderr
    run = tmp_path / "run"
    kinds = {event["what"] for event in read_events(run) if event["event"] == "fault"}
    assert kinds and kinds <= {"worker_unreachable", "learner_unreachable"}
    recovery(run)
    assert equal(parameters(run), expected)


def test_a_draining_node_gets_no_new_work_and_a_checkpoint_is_saved(
    nodes: Nodes,
    started: Callable[..., Any],
    slowed: tuple[str, ...],
    reference: Callable[..., Any],
    tmp_path: Path,
    recovery: Callable[..., None],
) -> None:
    """Row 7: noticed within 5 s, processes move, the state is saved before the deadline, and the result is that of an undisturbed run."""
    nodes.ask("add 1")
    nodes.ask("add 1")
    run = tmp_path / "run"
    driver = started("train", *slowed, "--set", "run.checkpoint_every=0", "--address", nodes.address, "--run-dir", "run")
    wait_until(lambda: len(rows_of(run)) >= 2, 30, "two iterations")
    assert nodes.ask("drain 60") == "draining"
    began = time.monotonic()
    wait_until(lambda: any(event.get("what") == "node_draining" for event in read_events(run)), 5, "the driver has noticed")
    recovery(seconds=time.monotonic() - began, what="until a draining node is noticed")
    wait_until(lambda: list_checkpoints(run), 30, "a checkpoint")
    assert driver.wait(SECONDS) == 0, (tmp_path / "stderr").read_text()
    assert equal(parameters(run), reference())
