"""Nodes that are lost, that come, that are about to go, and connections that break: on a cluster of several nodes on this machine."""

from __future__ import annotations

import json
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from datetime import datetime
from pathlib import Path
from typing import Any

import pytest
from runtime.running import SECONDS, command, environment, read_events, wait_until

from distppo.algo.seeding import Purpose, env_seed
from distppo.checkpoint import list_checkpoints, load_checkpoint

pytestmark = [pytest.mark.ray, pytest.mark.slow]

NODES = Path(__file__).with_name("nodes.py")
SLOWED = ("--env", "probe_envs:Slow-v0", "--set", f"env.kwargs={{seed: {env_seed(0, Purpose.ENV_RESET, 0, 0)}, seconds: 0.02}}")
"""Iterations of about a second."""
TWO = (*SLOWED, "--num-workers", "2", "--set", "run.keep_checkpoints=20", "--set", "fault.restart_backoff=0.1", "--run-dir", "run")
EVERY = ("--set", "run.checkpoint_every=128")


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


def places_away(run: Path) -> list[str]:
    return [event["where"] for event in read_events(run) if event.get("what") == "worker_away"]


@pytest.fixture(scope="module")
def undisturbed(small_file: str, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The same run of ten iterations in a Ray of its own, to which nothing happens, with a checkpoint of each."""
    folder = tmp_path_factory.mktemp("undisturbed")
    train = command("train", "--config", small_file, *TWO, *EVERY, "--total-timesteps", "1280")
    subprocess.run(train, cwd=folder, env=environment(), stdout=subprocess.DEVNULL, timeout=SECONDS, check=True)
    return folder / "run"


def assert_equal(run: Path, undisturbed: Path) -> None:
    """The last checkpoint has the bits of the undisturbed run's of the same iteration."""
    mine = load_checkpoint(list_checkpoints(run)[-1].path)
    (its,) = [load_checkpoint(info.path) for info in list_checkpoints(undisturbed) if info.iteration == mine.iteration]
    assert mine.arrays["learner"].keys() == its.arrays["learner"].keys()
    assert all(mine.arrays["learner"][name].tobytes() == array.tobytes() for name, array in its.arrays["learner"].items())


@pytest.mark.long
def test_a_lost_node_costs_time_and_nothing_else(
    nodes: Nodes,
    started: Callable[..., Any],
    small_file: str,
    undisturbed: Path,
    tmp_path: Path,
    recovery: Callable[..., None],
) -> None:
    """Row 6: survivors do the work of those that went, these return when a node does, and the result is that of an undisturbed run."""
    nodes.ask("add 1")
    run = tmp_path / "run"
    driver = started("train", "--config", small_file, *TWO, "--total-timesteps", "1280", "--address", nodes.address)
    wait_until(lambda: len(rows_of(run)) >= 2, 30, "two iterations")
    nodes.ask("lose")
    wait_until(lambda: places_away(run), SECONDS, "survivors have taken over")  # its processes outlive it for a moment
    lost_at = len(rows_of(run))
    wait_until(lambda: len(rows_of(run)) >= lost_at + 2, SECONDS, "the survivors go on without it")
    assert len(places_away(run)) == len(set(places_away(run))) <= rows_of(run)[-1]["faults/takeovers"] - 1, "told once, and counted"
    nodes.ask("add 1")
    assert driver.wait(SECONDS) == 0, (tmp_path / "stderr").read_text()
    recovery(run)
    kinds = {event["what"] for event in read_events(run) if event["event"] == "fault"}
    assert "worker_away" in kinds and kinds & {"worker_died", "learner_died"}
    assert [row["time/total_timesteps"] for row in rows_of(run)] == [128 * (k + 1) for k in range(10)]
    assert_equal(run, undisturbed)


@pytest.mark.long
def test_connections_that_break_are_made_again_and_nothing_is_replaced(
    launch: Callable[..., Any],
    small_file: str,
    undisturbed: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    recovery: Callable[..., None],
) -> None:
    """Row 16: Ray loses calls to actors, and answers of theirs. Nobody knows whether they were done; the result is the same."""
    lossy = {"CoreWorkerService.grpc_client.PushTask": {"num_failures": 6, "req_failure_prob": 20, "resp_failure_prob": 20}}
    monkeypatch.setenv("RAY_testing_rpc_failure", json.dumps(lossy))
    done = launch("train", "--config", small_file, *TWO, "--total-timesteps", "768")
    assert done.returncode == 0, done.stderr
    run = tmp_path / "run"
    faults = [event for event in read_events(run) if event["event"] == "fault"]
    assert faults and {fault["what"] for fault in faults} <= {"worker_unreachable", "learner_unreachable"}
    (ready,) = [event["time"] for event in read_events(run) if event["event"] == "ready"]
    if faults[-1]["time"] < ready:  # by chance all were lost while the processes started
        recovery(seconds=(datetime.fromisoformat(ready) - datetime.fromisoformat(faults[0]["time"])).total_seconds(), what="the start")
    else:
        recovery(run)
    assert_equal(run, undisturbed)


SIXTY = ("--set", "rollout.num_steps=32", "--total-timesteps", str(60 * 128))


def test_workers_come_and_go_over_three_nodes_and_change_no_bit(
    nodes: Nodes, started: Callable[..., Any], launch: Callable[..., Any], small_file: str, tmp_path: Path
) -> None:
    """A node is lost without grace and another added; counts are exact, and the parameters those of a run of three on one node."""
    settings = ("--config", small_file, *SIXTY, "--set", "cluster.placement=spread", "fault.restart_backoff=0.1")
    once = launch("train", *settings, "--num-workers", "3", "--run-dir", "once")
    assert once.returncode == 0, once.stderr
    nodes.ask("add 1")
    nodes.ask("add 1")
    run = tmp_path / "run"
    driver = started("train", *settings, *SLOWED, "--num-workers", "1-3", "--run-dir", "run", "--address", nodes.address)
    wait_until(lambda: rows_of(run) and rows_of(run)[-1]["dist/workers"] == 3, SECONDS, "three workers")
    assert len(set(json.loads(nodes.ask("actors")).values())) == 3, "they are on all nodes"
    nodes.ask("lose")
    wait_until(lambda: rows_of(run)[-1]["dist/workers"] < 3, SECONDS, "the others go on without it")
    nodes.ask("add 1")
    wait_until(lambda: rows_of(run)[-1]["dist/workers"] == 3, SECONDS, "three workers again")
    assert driver.wait(SECONDS) == 0, (tmp_path / "stderr").read_text()
    assert [row["time/total_timesteps"] for row in rows_of(run)] == [128 * (k + 1) for k in range(60)]
    assert {row["dist/obs_count"] - row["time/total_timesteps"] for row in rows_of(run)} == {0}
    assert_equal(run, tmp_path / "once")


@pytest.mark.long
@pytest.mark.parametrize("wanted", ["spot", "on-demand"])
def test_the_learner_goes_where_its_label_is(
    nodes: Nodes, started: Callable[..., Any], small_file: str, tmp_path: Path, wanted: str
) -> None:
    """On-demand nodes are preferred for it where there are any, or those that are asked for."""
    label = "ray.io/market-type"
    there = {kind: nodes.ask(f"add 2 {label}={kind}") for kind in ("spot", "on-demand")}
    asked = ("--set", f"cluster.learner_label={label}={wanted}") if wanted == "spot" else ()
    driver = started("train", "--config", small_file, *SLOWED, "--num-workers", "1", *asked, "--run-dir", "run", "--address", nodes.address)
    places = wait_until(lambda: json.loads(nodes.ask("actors")), SECONDS, "actors")
    learner = wait_until(
        lambda: next((node for name, node in json.loads(nodes.ask("actors")).items() if "/learner" in name), None), SECONDS, "the learner"
    )
    assert learner == there[wanted] and all(name.startswith("run-") for name in places)
    assert driver.wait(SECONDS) == 0, (tmp_path / "stderr").read_text()


@pytest.mark.long
def test_a_draining_node_gets_no_new_work_and_a_checkpoint_is_saved(
    nodes: Nodes,
    started: Callable[..., Any],
    small_file: str,
    undisturbed: Path,
    tmp_path: Path,
    recovery: Callable[..., None],
) -> None:
    """Row 7: noticed within 5 s, processes move, the state is saved before the deadline, and the result is that of an undisturbed run."""
    nodes.ask("add 1")
    leaving = nodes.ask("add 1")
    run = tmp_path / "run"
    spread = ("--set", "cluster.placement=spread")
    driver = started("train", "--config", small_file, *TWO, *spread, "--total-timesteps", "1280", "--address", nodes.address)
    wait_until(lambda: len(rows_of(run)) >= 2, 30, "two iterations")
    assert leaving in json.loads(nodes.ask("actors")).values()
    assert nodes.ask("drain 60") == "draining"
    began = time.monotonic()
    wait_until(lambda: any(event.get("what") == "node_draining" for event in read_events(run)), 5, "the driver has noticed")
    recovery(seconds=time.monotonic() - began, what="until a draining node is noticed")
    wait_until(lambda: list_checkpoints(run), 30, "a checkpoint")
    wait_until(lambda: leaving not in json.loads(nodes.ask("actors")).values(), SECONDS, "nothing of the run is on it any more")
    assert driver.wait(SECONDS) == 0, (tmp_path / "stderr").read_text()
    assert_equal(run, undisturbed)
