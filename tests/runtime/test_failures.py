"""Environments that break while they train: one clear message, the last finished iteration kept, nothing left running."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from runtime.running import Run, wait_until

from distppo.checkpoint import list_checkpoints
from distppo.errors import UserError
from distppo.runtime.backend import WorkerFailed

WORKERS = [0, pytest.param(2, marks=pytest.mark.ray)]


@pytest.fixture
def fail(small: Callable[..., Run], tmp_path: Path, request: pytest.FixtureRequest) -> Callable[..., Exception]:
    """Trains in an environment that fails in a certain way; returns the error, with everything ended."""

    def run(how: str, after: int, workers: int, **settings: Any) -> Exception:
        ray = request.getfixturevalue("shared_ray") if workers else None
        given = {"env.id": "probe_envs:Failing-v0", "env.kwargs": {"how": how, "after": after}, "rollout.num_workers": workers}
        given["fault.max_env_restarts"] = 0
        with pytest.raises(UserError) as caught:
            small(given | {"run.directory": str(tmp_path / "run")} | settings)
        if ray is not None:
            wait_until(lambda: ray.available_resources().get("CPU") == 4, 10, "every actor has ended")
        return caught.value

    return run


@pytest.mark.parametrize("workers", WORKERS)
def test_an_environment_that_raises_is_named_with_the_end_of_its_traceback(
    workers: int, fail: Callable[..., Exception], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """After two iterations of 32 steps: they are checkpointed, their rows written, and the message is short."""
    error = fail("raise", 2 * 32 + 5, workers)
    assert isinstance(error, WorkerFailed)
    lines = str(error).splitlines()
    assert lines[0] in ("environment 0 (Failing-v0) raised an error:", "environment 2 (Failing-v0) raised an error:")
    assert lines[-1] == "  RuntimeError: the wheel came off"
    assert "in _failure" in str(error) and "ray" not in str(error) and len(lines) < 12
    (checkpoint,) = list_checkpoints(tmp_path / "run")
    assert checkpoint.env_steps == 256
    lines = [json.loads(line) for line in (tmp_path / "run" / "metrics.jsonl").read_text().splitlines()]
    assert [line["time/total_timesteps"] for line in lines if "event" not in line] == [128, 256]
    assert lines[-1]["event"] == "error" and "the wheel came off" in lines[-1]["message"]
    assert f"ended by an error at 256 env steps; the last checkpoint is {checkpoint.path}" in capsys.readouterr().out


@pytest.mark.parametrize(("how", "what"), [("nan", "observation element 1 = nan"), ("inf_reward", "reward = inf")])
def test_numbers_that_are_not_finite_are_never_learned_from(how: str, what: str, fail: Callable[..., Exception], tmp_path: Path) -> None:
    """The message says which environment, what and when."""
    error = fail(how, 32 + 5, 0)
    assert f"environment 0 of 'probe_envs:Failing-v0' gave {what} at step 5 of the fragment" in str(error)
    assert [checkpoint.env_steps for checkpoint in list_checkpoints(tmp_path / "run")] == [128]


@pytest.mark.ray
def test_a_nan_in_a_ray_worker_is_the_same_one_message(fail: Callable[..., Exception]) -> None:
    """It crosses the process border as it is."""
    message = str(fail("nan", 5, 2))
    assert "gave observation element 1 = nan at step 5 of the fragment" in message and "\n" not in message


@pytest.mark.parametrize("workers", WORKERS)
def test_a_reset_that_raises_ends_the_start(workers: int, fail: Callable[..., Exception], tmp_path: Path) -> None:
    """Its own reason comes through the start of the actors, and the directory can be used again."""
    assert "RuntimeError: the simulator has no licence" in str(fail("reset", 0, workers))
    assert not list_checkpoints(tmp_path / "run")


@pytest.mark.ray
def test_a_worker_process_that_dies_is_told(fail: Callable[..., Exception], tmp_path: Path) -> None:
    """A crash in native code, or the system's memory killer: the last finished iteration is kept."""
    error = fail("exit", 32 + 5, 2, **{"fault.max_worker_restarts": 0})
    assert isinstance(error, WorkerFailed)
    assert str(error).startswith(("rollout worker 0 (environments 0 to 1) has died, ", "rollout worker 1 (environments 2 to 3) has died, "))
    assert "Its output is in " in str(error) and "\n" not in str(error)
    assert [checkpoint.env_steps for checkpoint in list_checkpoints(tmp_path / "run")] == [128]


def test_an_environment_that_breaks_in_evaluation_is_named(fail: Callable[..., Exception], tmp_path: Path) -> None:
    """The iteration before it is kept and has its row."""
    error = fail("raise", 35, 0, **{"rollout.num_envs": 1, "evaluation.every": 32, "evaluation.episodes": 5})
    assert str(error).startswith("evaluation episode ") and "the wheel came off" in str(error)
    assert [checkpoint.env_steps for checkpoint in list_checkpoints(tmp_path / "run")] == [32]
    assert len([line for line in (tmp_path / "run" / "metrics.jsonl").read_text().splitlines() if "event" not in json.loads(line)]) == 1


@pytest.mark.parametrize("how", ["raise", "nan"])
def test_a_run_that_never_learned_leaves_its_directory_free(how: str, fail: Callable[..., Exception], small: Callable[..., Run]) -> None:
    """The same command works once the environment is mended."""
    for _ in range(2):
        assert "already holds a run" not in str(fail(how, 5, 0))
