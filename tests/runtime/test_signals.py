"""Ctrl-C, SIGTERM and a lost terminal in every phase: a checkpoint, a summary, the command that continues, and nothing left running."""

from __future__ import annotations

import contextlib
import csv
import itertools
import json
import os
import signal
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import probe_envs
import pytest
from runtime.running import SECONDS, Run, processes_of, wait_until

from distppo.algo.seeding import Purpose, env_seed
from distppo.checkpoint import CheckpointStore, list_checkpoints
from distppo.cli import main
from distppo.runtime.backend import LocalBackend

EVALUATED = {"evaluation.every": 256, "evaluation.episodes": 2}
ENDLESS = ("--total-timesteps", "1e9", "--run-dir", "run")
RAY = ("--num-workers", "2")


def interrupt_at(monkeypatch: pytest.MonkeyPatch, owner: type, method: str, call: int, number: int) -> None:
    """Sends this process a signal when `method` is called for the `call`-th time, before it does its work."""
    original, calls = getattr(owner, method), itertools.count(1)

    def interrupted(*args: Any, **kwargs: Any) -> Any:
        if next(calls) == call:
            os.kill(os.getpid(), number)
        return original(*args, **kwargs)

    monkeypatch.setattr(owner, method, interrupted)


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
@pytest.mark.parametrize(
    ("owner", "method", "call", "env_steps"),
    [
        pytest.param(LocalBackend, "wait", 2, 128, id="before collecting"),
        pytest.param(LocalBackend, "update", 2, 256, id="updating"),
        pytest.param(LocalBackend, "evaluate", 1, 256, id="evaluating"),
        pytest.param(CheckpointStore, "save", 1, 256, id="saving"),
    ],
)
def test_a_signal_ends_the_run_at_the_next_safe_point(
    owner: type, method: str, call: int, env_steps: int, number: int, small: Callable[..., Run], monkeypatch: pytest.MonkeyPatch
) -> None:
    """What was learned is checkpointed and has its row, and the summary is written."""
    before = [signal.getsignal(each) for each in (signal.SIGINT, signal.SIGTERM)]
    interrupt_at(monkeypatch, owner, method, call, number)
    run = small(EVALUATED | {"run.total_timesteps": 1024})
    assert run.result.signal == number
    assert run.summary["env_steps"] == json.loads((run.directory / "summary.json").read_text())["env_steps"] == env_steps
    assert list_checkpoints(run.directory)[-1].env_steps == env_steps
    assert run.rows[-1]["time/total_timesteps"] == env_steps
    assert [signal.getsignal(each) for each in (signal.SIGINT, signal.SIGTERM)] == before, "the caller's handlers are back"


def test_a_signal_while_compiling_ends_the_run_before_it_learns(small: Callable[..., Run], monkeypatch: pytest.MonkeyPatch) -> None:
    """There is nothing to save, and the summary says so."""
    interrupt_at(monkeypatch, LocalBackend, "wait_until_ready", 1, signal.SIGTERM)
    run = small()
    assert run.result.signal == signal.SIGTERM and run.summary["env_steps"] == 0
    assert not list_checkpoints(run.directory)


@pytest.mark.parametrize("mode", ["sync", "overlap"])
@pytest.mark.parametrize(("method", "call"), [("evaluate", 1), ("evaluate", 2), ("update", 2), ("update", 3)])
def test_an_evaluation_that_a_signal_ended_is_made_up(
    method: str, call: int, mode: str, small: Callable[..., Run], monkeypatch: pytest.MonkeyPatch
) -> None:
    """It is the first thing that the resumed run does, also where all env steps are learned from; the curve is the undisturbed one's."""
    settings = EVALUATED | {"rollout.mode": mode, "evaluation.every": 256}
    whole = small(settings)
    with monkeypatch.context() as patch:
        interrupt_at(patch, LocalBackend, method, call, signal.SIGTERM)
        run = small(settings)
    assert run.result.signal == signal.SIGTERM and "eval/mean_reward" not in run.rows[-1]
    assert [event["event"] for event in run.events][-1] == "interrupted"
    rest = small(resume=str(run.directory))
    told = ("time/total_timesteps", "train/loss", "rollout/ep_rew_mean", "eval/mean_reward", "eval/mean_ep_length")
    assert [[row.get(key) for key in told] for row in rest.rows] == [[row.get(key) for key in told] for row in whole.rows]
    assert rest.summary["best_evaluation"] == whole.summary["best_evaluation"] and rest.same_bits(whole)
    with open(run.directory / "progress.csv") as file:
        assert [row["eval/mean_reward"] != "" for row in csv.DictReader(file)] == [False, True, True]
    before = (run.directory / "metrics.jsonl").read_text()
    small(resume=str(run.directory))
    assert (run.directory / "metrics.jsonl").read_text() == before, "nothing is left to do"


@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143), (signal.SIGHUP, 129)])
def test_the_command_exits_with_the_signal_and_says_how_to_go_on(
    number: int, code: int, small_file: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """The printed command continues the run; it is the last line."""
    monkeypatch.chdir(tmp_path)
    before = signal.getsignal(number)
    if before is signal.SIG_IGN:  # these tests themselves may run under nohup
        signal.signal(number, signal.SIG_DFL)
    with monkeypatch.context() as patch:
        interrupt_at(patch, LocalBackend, "wait", 2, number)
        assert main(["train", "--config", small_file, *ENDLESS]) == code
    signal.signal(number, before)
    captured = capsys.readouterr()
    assert captured.out.splitlines()[-1] == "continue with:   distppo train --resume run"
    assert captured.err == ""
    assert main(["train", "--resume", "run", "--total-timesteps", "256"]) == 0


@pytest.mark.parametrize(("step", "env_steps"), [pytest.param(128 + 57, 128, id="collecting"), pytest.param(256 + 5, 256, id="evaluating")])
def test_without_ray_no_step_is_taken_after_the_signal(
    step: int, env_steps: int, small: Callable[..., Run], monkeypatch: pytest.MonkeyPatch
) -> None:
    """But those of the other environments, of which there are four; one alone is evaluated in."""
    interrupt_at(monkeypatch, probe_envs.Point, "step", step, signal.SIGTERM)
    steps, counted = [], probe_envs.Point.step
    monkeypatch.setattr(probe_envs.Point, "step", lambda env, action: steps.append(action) or counted(env, action))
    run = small(EVALUATED)
    assert run.result.signal == signal.SIGTERM and run.summary["env_steps"] == env_steps
    assert step <= len(steps) < step + 4
    assert list_checkpoints(run.directory)[-1].env_steps == env_steps


@pytest.mark.parametrize("step", [pytest.param(256, id="at the end of a fragment"), pytest.param(256 + 5, id="evaluating")])
def test_an_environment_that_breaks_of_the_signal_is_no_error(
    step: int, small: Callable[..., Run], monkeypatch: pytest.MonkeyPatch
) -> None:
    """A Ctrl-C goes to the processes of simulators too."""
    steps, original = itertools.count(1), probe_envs.Point.step

    def gone(env: Any, action: Any) -> Any:
        if next(steps) == step:
            os.kill(os.getpid(), signal.SIGINT)
            raise BrokenPipeError("the simulator has gone")
        return original(env, action)

    monkeypatch.setattr(probe_envs.Point, "step", gone)
    run = small(EVALUATED)
    assert run.result.signal == signal.SIGINT and not run.faults


@pytest.mark.parametrize(("step", "env_steps"), [pytest.param(57, 0, id="collecting"), pytest.param(256 + 5, 256, id="evaluating")])
def test_handlers_of_environments_do_not_keep_signals_from_the_run(
    step: int, env_steps: int, small: Callable[..., Run], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whether they were made at the start or for the first evaluation; the caller's handlers are back afterwards."""
    before = [signal.getsignal(each) for each in (signal.SIGINT, signal.SIGTERM)]
    interrupt_at(monkeypatch, probe_envs.Point, "step", step, signal.SIGTERM)
    run = small(EVALUATED | {"env.id": "probe_envs:Deaf-v0"})
    assert run.result.signal == signal.SIGTERM and run.summary["env_steps"] == env_steps
    assert [signal.getsignal(each) for each in (signal.SIGINT, signal.SIGTERM)] == before


def test_a_signal_while_environments_are_made_makes_no_more_of_them(
    small: Callable[..., Run], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The first is the driver's own, to look at."""
    interrupt_at(monkeypatch, probe_envs.Closing, "__init__", 3, signal.SIGTERM)
    run = small({"env.id": "probe_envs:Closing-v0", "env.kwargs": {"path": str(tmp_path / "log")}})
    assert run.result.signal == signal.SIGTERM and run.summary["env_steps"] == 0
    assert (tmp_path / "log").read_text().count("made") == 3


def test_nohup_is_respected(small: Callable[..., Run], monkeypatch: pytest.MonkeyPatch) -> None:
    """Who has SIGHUP ignored wants the run to outlive its terminal."""
    before = signal.signal(signal.SIGHUP, signal.SIG_IGN)
    try:
        interrupt_at(monkeypatch, LocalBackend, "wait", 2, signal.SIGHUP)
        run = small()
        assert run.result.signal is None and run.summary["env_steps"] == 384
        assert signal.getsignal(signal.SIGHUP) is signal.SIG_IGN
    finally:
        signal.signal(signal.SIGHUP, before)


@pytest.mark.ray
@pytest.mark.parametrize(
    ("method", "call", "env_steps"),
    [
        pytest.param("wait_until_ready", 1, 0, id="actors starting"),
        pytest.param("update", 2, 256, id="updating"),
        pytest.param("learner_state", 1, 128, id="saving", marks=pytest.mark.slow),
    ],
)
def test_a_signal_ends_a_run_on_ray_at_the_next_safe_point(
    method: str, call: int, env_steps: int, small: Callable[..., Run], shared_ray: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As without Ray, and no actor is left."""
    from distppo.runtime.ray_backend import RayBackend

    interrupt_at(monkeypatch, RayBackend, method, call, signal.SIGTERM)
    run = small({"rollout.num_workers": 2, "run.checkpoint_every": 128, "run.total_timesteps": 1024})
    assert run.result.signal == signal.SIGTERM and run.summary["env_steps"] == env_steps
    assert [info.env_steps for info in list_checkpoints(run.directory)][-1:] == ([env_steps] if env_steps else [])
    wait_until(lambda: shared_ray.available_resources().get("CPU") == 4, 10, "every actor has ended")


@pytest.mark.ray
@pytest.mark.slow
def test_a_signal_while_a_worker_is_replaced_waits_for_nobody(
    small: Callable[..., Run], shared_ray: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The last finished iteration is saved; the pause before the next attempt would take an hour."""
    from distppo.runtime.pool import WorkerPool
    from distppo.runtime.ray_backend import RayBackend

    def kill_all(pool: WorkerPool) -> None:
        for seat in pool.seats:
            if seat.host is not None and seat.host.presence is not None:
                with contextlib.suppress(ProcessLookupError):  # dead already, and not noticed yet
                    os.kill(seat.host.presence.pid, signal.SIGKILL)

    original, finished, pausing = RayBackend.wait, [], []

    def disturbed(backend: RayBackend, orders: Any) -> Any:
        if len(finished) == 1:
            kill_all(backend._pool)
        answer = original(backend, orders)
        finished.append(orders)
        return answer

    monkeypatch.setattr(RayBackend, "wait", disturbed)
    # A process that takes the place of a dead one is killed as it arrives. Then the pause begins, and the signal comes.
    arrived = WorkerPool._welcome

    def killed_again(pool: WorkerPool) -> None:
        arrived(pool)
        if not pausing and pool._faults.counts["faults/worker_restarts"] >= 1:
            kill_all(pool)
        if not pausing and any(seat.host is None and seat.attempts.failures >= 2 for seat in pool.seats):
            pausing.append(len(finished))
            os.kill(os.getpid(), signal.SIGINT)

    monkeypatch.setattr(WorkerPool, "_welcome", killed_again)
    run = small({"rollout.num_workers": 2, "run.total_timesteps": 1024, "fault.restart_backoff": 3600})
    assert run.result.signal == signal.SIGINT and pausing == [len(finished)]
    assert run.summary["env_steps"] == list_checkpoints(run.directory)[-1].env_steps == 128 * len(finished) < 1024


@pytest.mark.ray
@pytest.mark.parametrize(
    ("method", "purpose"), [("wait", Purpose.ENV_RESET), pytest.param("evaluate", Purpose.EVALUATION_RESET, marks=pytest.mark.slow)]
)
def test_a_stop_does_not_wait_for_busy_workers(
    method: str, purpose: Purpose, small: Callable[..., Run], shared_ray: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A fragment or an evaluation that would take hours is given up, and its process ended."""
    from distppo.runtime.ray_backend import RayBackend

    interrupt_at(monkeypatch, RayBackend, method, 1, signal.SIGTERM)
    keys = (0, 0) if purpose is Purpose.ENV_RESET else (0,)
    stuck = {"seed": env_seed(0, purpose, *keys), "seconds": 3600.0}
    run = small({"env.id": "probe_envs:Slow-v0", "env.kwargs": stuck, "rollout.num_workers": 1} | EVALUATED)
    assert run.result.signal == signal.SIGTERM
    assert run.summary["env_steps"] == {"wait": 0, "evaluate": 256}[method]
    wait_until(lambda: shared_ray.available_resources().get("CPU") == 4, 10, "every actor has ended")


def test_a_second_signal_exits_at_once(started: Callable[..., subprocess.Popen[bytes]], small_file: str, tmp_path: Path) -> None:
    """Whatever the run is busy with."""
    stuck = f"env.kwargs={{seed: {env_seed(0, Purpose.ENV_RESET, 0, 0)}, seconds: 3600}}"
    driver = started("train", "--config", small_file, "--env", "probe_envs:Slow-v0", "--set", stuck)
    wait_until(lambda: "without Ray" in (tmp_path / "stdout").read_text(), SECONDS, "the run has started")
    driver.send_signal(signal.SIGINT)
    with pytest.raises(subprocess.TimeoutExpired):
        driver.wait(1)
    driver.send_signal(signal.SIGINT)
    assert driver.wait(5) == 130


@pytest.mark.ray
@pytest.mark.parametrize(
    ("send", "number", "code"),
    [
        pytest.param(os.killpg, signal.SIGINT, 130, id="ctrl-c"),
        pytest.param(os.kill, signal.SIGTERM, 143, id="sigterm to the driver", marks=pytest.mark.slow),
    ],
)
def test_a_signal_ends_everything(
    send: Callable[[int, int], None],
    number: int,
    code: int,
    started: Callable[..., subprocess.Popen[bytes]],
    small_file: str,
    tmp_path: Path,
) -> None:
    """Whether it goes to the whole process group, as from a terminal, or to the driver alone: the others end with it."""
    driver = started("train", "--config", small_file, *ENDLESS, *RAY)
    wait_until(lambda: "steps/s" in (tmp_path / "stdout").read_text(), SECONDS, "an iteration has ended")
    assert any("raylet" in line for line in processes_of(driver.pid).values())
    send(driver.pid, number)
    assert driver.wait(SECONDS) == code
    wait_until(lambda: not processes_of(driver.pid), 10, "no process is left")
    last = (tmp_path / "stdout").read_text().splitlines()[-1]
    assert last.startswith("continue with:") and last.endswith("launch.py train --resume run")
    assert (tmp_path / "stderr").read_text() == ""
    summary = json.loads((tmp_path / "run" / "summary.json").read_text())
    assert summary["env_steps"] == list_checkpoints(tmp_path / "run")[-1].env_steps > 0


@pytest.mark.ray
@pytest.mark.parametrize(
    ("send", "number", "code"),
    [
        pytest.param(os.killpg, signal.SIGINT, 130, id="ctrl-c", marks=pytest.mark.slow),
        pytest.param(os.kill, signal.SIGTERM, 143, id="sigterm"),
    ],
)
def test_a_signal_while_ray_starts_ends_everything(
    send: Callable[[int, int], None],
    number: int,
    code: int,
    started: Callable[..., subprocess.Popen[bytes]],
    small_file: str,
    tmp_path: Path,
) -> None:
    """Ray has handlers of its own for SIGTERM meanwhile."""
    driver = started("train", "--config", small_file, *ENDLESS, *RAY)
    wait_until(lambda: any("gcs_server" in line for line in processes_of(driver.pid).values()), SECONDS, "Ray is starting")
    send(driver.pid, number)
    assert driver.wait(SECONDS) == code
    wait_until(lambda: not processes_of(driver.pid), 10, "no process is left")
    assert "interrupted: 0 env steps" in (tmp_path / "stdout").read_text()


@pytest.mark.slow
@pytest.mark.ray
def test_a_killed_driver_takes_its_ray_with_it(started: Callable[..., subprocess.Popen[bytes]], small_file: str, tmp_path: Path) -> None:
    """Nobody is there to tell them: the processes notice by themselves. Two idle agents of Ray's take a minute, fixed in its code."""
    driver = started("train", "--config", small_file, *ENDLESS, *RAY)
    wait_until(lambda: "steps/s" in (tmp_path / "stdout").read_text(), SECONDS, "an iteration has ended")
    driver.kill()
    driver.wait()
    wait_until(lambda: all("Agent" in line for line in processes_of(driver.pid).values()), 20, "only Ray's agents are left")
