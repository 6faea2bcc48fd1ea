"""Processes that die, hang or fall silent in the middle of a run: the results are those of an undisturbed one, to the last bit."""

from __future__ import annotations

import os
import signal
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from runtime.running import Run, kill_when_busy, wait_until

from distppo.algo.seeding import Purpose, env_seed
from distppo.checkpoint import list_checkpoints
from distppo.runtime.backend import WorkerFailed
from distppo.runtime.ray_backend import RayBackend

pytestmark = pytest.mark.ray

TWO = {"rollout.num_workers": 2, "run.total_timesteps": 512, "fault.restart_backoff": 0.1}
SLOW = {"env.id": "probe_envs:Slow-v0", "env.kwargs": {"seed": env_seed(0, Purpose.ENV_RESET, 0, 0), "seconds": 0.01}}
Act = Callable[[RayBackend], Any]


@pytest.fixture
def at(monkeypatch: pytest.MonkeyPatch) -> Callable[..., None]:
    """Does something to a run before the call-th call of a method of its backend; afterwards the run is undisturbed again."""

    def arrange(method: str, call: int, act: Act) -> None:
        original, calls = getattr(RayBackend, method), iter(range(1, 1000))

        def disturbed(backend: RayBackend, *args: Any) -> Any:
            if next(calls) == call:
                act(backend)
            return original(backend, *args)

        monkeypatch.setattr(RayBackend, method, disturbed)

    return arrange


@pytest.fixture(scope="module")
def undisturbed(shared_ray: Any, tmp_path_factory: pytest.TempPathFactory) -> Callable[..., Run]:
    """A run with these settings to which nothing happens; made once."""
    from runtime.running import SMALL

    from distppo.runtime.train import train

    made: dict[str, Run] = {}

    def run(settings: dict[str, Any]) -> Run:
        key = repr(sorted(settings.items()))
        if key not in made:
            directory = tmp_path_factory.mktemp("undisturbed") / "run"
            made[key] = Run(train(overrides=SMALL | settings | {"run.directory": str(directory)}, progress=False))
        return made[key]

    return run


def worker_pid(backend: RayBackend, number: int) -> int:
    host = backend._pool.seats[number].host
    assert host is not None and host.presence is not None
    return int(host.presence.pid)


def learner_pid(backend: RayBackend) -> int:
    presence = backend._learner.hosts[0].presence
    assert presence is not None
    return int(presence.pid)


def kill_worker(number: int) -> Act:
    return lambda backend: os.kill(worker_pid(backend, number), signal.SIGKILL)


def kill_learner(backend: RayBackend) -> None:
    os.kill(learner_pid(backend), signal.SIGKILL)


def assert_equal(run: Run, reference: Run) -> None:
    """Env steps, moments' count, every metric of learning and every parameter are those of the undisturbed run."""
    assert [row["time/total_timesteps"] for row in run.rows] == [row["time/total_timesteps"] for row in reference.rows]
    assert all(row["dist/obs_count"] == row["time/total_timesteps"] for row in run.rows)
    for mine, its in zip(run.rows, reference.rows, strict=True):
        learned = [key for key in its if key.startswith(("rollout/", "train/", "value/"))]
        assert {key: mine[key] for key in learned} == {key: its[key] for key in learned}
    assert run.same_bits(reference)


@pytest.mark.parametrize(
    ("when", "mode"),
    [
        pytest.param("collecting", "sync", marks=pytest.mark.slow),
        ("collecting", "overlap"),
        pytest.param("idle", "overlap", marks=pytest.mark.long),
    ],
)
def test_a_killed_worker_changes_nothing(
    when: str, mode: str, small: Callable[..., Run], undisturbed: Callable[..., Run], at: Callable[..., None], recovery: Callable[..., None]
) -> None:
    """Row 1: replaced, its fragment collected again from where its environments stood."""
    settings = TWO | SLOW | {"rollout.mode": mode}
    reference = undisturbed(settings)
    if when == "collecting":
        at("wait", 2, lambda backend: kill_when_busy(worker_pid(backend, 0), "deliver"))
    else:
        at("collect", 3, kill_worker(0))
    run = small(settings)
    assert_equal(run, reference)
    assert run.faults == ["worker_died"] and run.summary["faults"]["worker_restarts"] == run.rows[-1]["faults/worker_restarts"] == 1
    (fault,) = [event for event in run.events if event["event"] == "fault"]
    assert fault["where"] == "rollout worker 0 (environments 0 to 1)" and fault["done"] == "replaced" and fault["why"]
    assert fault["dump"] is not None, "what the process was at, or was to do next, can be replayed"
    recovery(run.directory)


@pytest.mark.slow
def test_both_workers_and_the_learner_killed_at_once_change_nothing(
    small: Callable[..., Run], undisturbed: Callable[..., Run], at: Callable[..., None], recovery: Callable[..., None]
) -> None:
    """Rows 1 and 8 together: all that a run is lies in the driver and the object store."""

    def kill_all(backend: RayBackend) -> None:
        kill_worker(0)(backend), kill_worker(1)(backend), kill_learner(backend)

    reference = undisturbed(TWO)
    at("wait", 3, kill_all)
    run = small(TWO)
    assert_equal(run, reference)
    assert sorted(run.faults) == ["learner_died", "worker_died", "worker_died"]
    recovery(run.directory)


@pytest.mark.parametrize(("when", "every"), [pytest.param("updating", 1, marks=pytest.mark.slow), ("idle", 3)])
def test_a_killed_learner_changes_nothing(
    when: str,
    every: int,
    small: Callable[..., Run],
    undisturbed: Callable[..., Run],
    at: Callable[..., None],
    recovery: Callable[..., None],
) -> None:
    """Row 8: rebuilt from its last state; what came after is learned again from the same rollouts."""
    settings = TWO | {"ppo.epochs": 100}
    reference = undisturbed(settings)
    act: Act = kill_learner if when == "idle" else lambda backend: kill_when_busy(learner_pid(backend), "update")
    at("update", 3, act)
    run = small(settings | {"fault.learner_state_every": every})
    assert_equal(run, reference)
    assert run.faults == ["learner_died"] and run.summary["faults"]["learner_restarts"] == 1
    (fault,) = [event for event in run.events if event["event"] == "fault"]
    assert ("2 updates made again" in fault["done"]) == (every == 3)
    recovery(run.directory)


@pytest.mark.slow
def test_a_stopped_worker_is_ended_at_the_deadline_and_changes_nothing(
    small: Callable[..., Run], undisturbed: Callable[..., Run], at: Callable[..., None], recovery: Callable[..., None]
) -> None:
    """Row 3: a process that does not even listen to Ray any more."""
    reference = undisturbed(TWO)
    stopped: list[int] = []

    def stop(backend: RayBackend) -> None:
        stopped.append(worker_pid(backend, 1))
        os.kill(stopped[0], signal.SIGSTOP)

    at("collect", 3, stop)
    run = small(TWO | {"fault.collect_timeout": 2})
    assert_equal(run, reference)
    assert run.faults == ["worker_hung"]
    assert any("no answer within 2 s (fault.collect_timeout)" in event["why"] for event in run.events if event["event"] == "fault")
    wait_until(lambda: not Path(f"/proc/{stopped[0]}").exists(), 10, "the stopped process has gone")
    recovery(run.directory)


@pytest.mark.slow
def test_an_environment_that_hangs_again_and_again_gets_a_new_episode(small: Callable[..., Run], shared_ray: Any) -> None:
    """Row 3: the same states and actions would hang for ever. All env steps are still made, and the fault says what is no longer exact."""
    hanging = SLOW | {"env.kwargs": SLOW["env.kwargs"] | {"seconds": 3600.0}}
    run = small(TWO | hanging | {"fault.collect_timeout": 2, "run.total_timesteps": 256})
    assert run.faults == ["worker_hung", "worker_hung"]
    done = [event["done"] for event in run.events if event["event"] == "fault"]
    assert done == ["replaced", "replaced after 0.1 s, with new episodes in its environments"]
    assert run.rows[-1]["dist/obs_count"] == run.rows[-1]["time/total_timesteps"] == 256


@pytest.mark.slow
def test_a_process_that_always_dies_ends_the_run_with_its_checkpoint(small: Callable[..., Run], shared_ray: Any, tmp_path: Path) -> None:
    """More than fault.max_worker_restarts failures in a row: a clear error, and nothing of ours is left."""
    settings = {"env.id": "probe_envs:Failing-v0", "env.kwargs": {"how": "exit", "after": 32 + 5}, "run.directory": str(tmp_path / "run")}
    with pytest.raises(WorkerFailed, match=r"has died, failure 2 in a row \(fault.max_worker_restarts 1\)"):
        small(TWO | settings | {"fault.max_worker_restarts": 1})
    assert [checkpoint.env_steps for checkpoint in list_checkpoints(tmp_path / "run")] == [128]
    wait_until(lambda: shared_ray.available_resources().get("CPU") == 4, 10, "every actor has ended")


@pytest.mark.slow
def test_a_worker_killed_in_evaluation_changes_nothing(
    small: Callable[..., Run], undisturbed: Callable[..., Run], at: Callable[..., None]
) -> None:
    """An evaluation is a function of snapshot and episodes: it is played again."""
    settings = TWO | {"evaluation.every": 256, "evaluation.episodes": 4}
    reference = undisturbed(settings)
    at("evaluate", 1, kill_worker(1))
    run = small(settings)
    assert_equal(run, reference)
    assert [row.get("eval/mean_reward") for row in run.rows] == [row.get("eval/mean_reward") for row in reference.rows]
