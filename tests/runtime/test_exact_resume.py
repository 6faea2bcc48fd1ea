"""Exact resume: going on from a checkpoint is the run that never stopped, to the last bit."""

from __future__ import annotations

import itertools
import json
import os
import shutil
import signal
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from runtime.running import Run

from distppo.checkpoint import CheckpointStore, list_checkpoints, load_checkpoint
from distppo.envs import VectorStepper
from distppo.metrics import METRICS_FILE

HALF, WHOLE = 384, 768
KEPT = {"run.checkpoint_every": 128, "run.keep_checkpoints": 10, "run.total_timesteps": WHOLE, "ppo.lr_schedule": "linear"}
HOPPER = {"env.id": "Hopper-v4", "normalization.values": True, "evaluation.every": 256, "evaluation.episodes": 1}
CHOICES = {"env.id": "distppo.envs.examples.docking:Docking-v0", "network.layer_norm": True}
CNN = {"network.channels": [4], "network.kernels": [4], "network.strides": [3], "network.torso": "cnn"}
IMAGES = CNN | {"env.id": "probe_envs:Camera-v0", "env.frame_stack": 3}
MODES = ["sync", "overlap"]
LAKE = {"env.id": "FrozenLake-v1"}
ALONE = {"point": {}, "hopper": HOPPER, "choices": CHOICES, "stacked images": IMAGES, "discrete observations": LAKE}
SETUPS = [pytest.param(settings, 0, mode, id=f"{name}-{mode}") for name, settings in ALONE.items() for mode in MODES]
SETUPS += [
    pytest.param(HOPPER, 2, "sync", marks=[pytest.mark.ray, pytest.mark.slow], id="hopper on ray-sync"),
    pytest.param(HOPPER, 2, "overlap", marks=pytest.mark.ray, id="hopper on ray-overlap"),
]


def files_of(run: Run, env_steps: int = WHOLE) -> dict[str, dict[str, np.ndarray]]:
    (path,) = (path for path in (run.directory / "checkpoints").glob("ckpt_*") if load_checkpoint(path).env_steps == env_steps)
    return load_checkpoint(path).arrays


def assert_same_bits(one: dict[str, dict[str, np.ndarray]], other: dict[str, dict[str, np.ndarray]]) -> None:
    """Learner, environments, and the snapshot in flight."""
    assert {group: sorted(arrays) for group, arrays in one.items()} == {group: sorted(arrays) for group, arrays in other.items()}
    wrong = [f"{group}/{name}" for group in one for name in one[group] if one[group][name].tobytes() != other[group][name].tobytes()]
    assert not wrong


def untimed(rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """The rows without what is a time or a speed."""
    timed = ("seconds", "seconds_min", "seconds_mean", "seconds_max", "fps")
    kept = ("time/total_timesteps", "time/iterations")
    return [{k: v for k, v in row.items() if k in kept or not (k.startswith("time/") or k.endswith(timed))} for row in rows]


def assert_continues(branch: Run, whole: Run) -> None:
    assert_same_bits(files_of(branch), files_of(whole))
    assert untimed(branch.rows) == untimed(whole.rows)[-len(branch.rows) :]
    assert all(row["faults/episodes_restarted"] == 0 for row in branch.rows)


@pytest.mark.parametrize(("settings", "workers", "mode"), SETUPS)
def test_three_iterations_and_three_more_are_six(
    settings: dict[str, Any],
    workers: int,
    mode: str,
    small: Callable[..., Run],
    request: Any,
    recovery: Callable[..., None],
    capsys: pytest.CaptureFixture[str],
) -> None:
    """Parameters, optimizer, moments, environments and the rows of the curve, episode statistics and evaluations included."""
    if workers:
        request.getfixturevalue("shared_ray")
    whole = small(KEPT | settings | {"rollout.mode": mode, "rollout.num_workers": workers})
    began = time.perf_counter()
    branch = small(resume=f"{whole.directory}@{HALF}")
    recovery(seconds=time.perf_counter() - began - branch.summary["training_seconds"], what=f"resumed, {mode}, {workers} workers")
    assert len(branch.rows) == 3
    assert_continues(branch, whole)
    assert "counters restored; environments go on where they were; continues in" in capsys.readouterr().out
    # A checkpoint of the branch is as good as one of the run itself.
    assert_continues(small(resume=f"{branch.directory}@640"), whole)


@pytest.mark.parametrize("mode", MODES)
def test_a_run_that_had_ended_goes_on_as_if_it_had_not(mode: str, small: Callable[..., Run]) -> None:
    """Its last checkpoint too knows what the next fragment would have been collected with."""
    constant = KEPT | {"ppo.lr_schedule": "constant", "rollout.mode": mode}
    whole, half = small(constant), small(constant | {"run.total_timesteps": HALF})
    again = small({"run.total_timesteps": WHOLE}, resume=str(half.directory))
    assert again.directory == half.directory
    assert_continues(again, whole)


@pytest.mark.parametrize("mode", MODES)
def test_a_run_that_a_signal_ended_between_two_steps_goes_on_as_if_it_had_not(
    mode: str, small: Callable[..., Run], monkeypatch: pytest.MonkeyPatch
) -> None:
    """What had been collected of the fragment is collected again, from where the environments stood before it."""
    settings = KEPT | HOPPER | {"rollout.mode": mode, "run.checkpoint_every": 0}
    whole = small(settings)
    steps, original = itertools.count(), VectorStepper.step

    def interrupted(*args: Any) -> Any:
        if next(steps) == 2 * 32 + 17:
            os.kill(os.getpid(), signal.SIGTERM)
        return original(*args)

    monkeypatch.setattr(VectorStepper, "step", interrupted)
    half = small(settings)
    assert half.summary["env_steps"] == 256 and next(steps) == 2 * 32 + 17 + 1
    assert_continues(small(resume=str(half.directory)), whole)


@pytest.mark.slow
@pytest.mark.ray
def test_another_number_of_workers_goes_on_with_the_same_environments(
    small: Callable[..., Run], shared_ray: Any, capsys: pytest.CaptureFixture[str]
) -> None:
    """Equal to rounding: the network computes other numbers of rows at once. One worker or none is the same layout."""
    whole = small(KEPT)
    for workers in (1, 2):
        branch = small({"rollout.num_workers": workers}, resume=f"{whole.directory}@{HALF}")
        told = f"{workers} workers where there were 0" in capsys.readouterr().out
        assert told == (workers > 1)
        if workers == 1:
            assert_same_bits(files_of(branch), files_of(whole))
        mine, its = files_of(branch)["learner"], files_of(whole)["learner"]
        np.testing.assert_allclose(mine["parameters"], its["parameters"], atol=1e-4)
        assert mine["obs_moments/count"] == its["obs_moments/count"]


def events(run: Run, kind: str) -> list[dict[str, Any]]:
    lines = map(json.loads, (run.directory / METRICS_FILE).read_text().splitlines())
    return [line for line in lines if line.get("event") == kind]


@pytest.mark.parametrize(
    ("changed", "restarted", "why"),
    [
        ({"rollout.num_envs": 2}, 0, None),
        ({"rollout.num_envs": 8}, 4, "the checkpoint has 4 of them"),
        ({"env.kwargs": {"termination": 0.1}}, 4, "the env settings have changed"),
    ],
)
def test_environments_that_cannot_go_on_start_new_episodes_and_that_is_told_and_counted(
    changed: dict[str, Any], restarted: int, why: str | None, small: Callable[..., Run], capsys: pytest.CaptureFixture[str]
) -> None:
    """In the note, as an event, and in every row."""
    whole = small(KEPT)
    branch = small(changed, resume=f"{whole.directory}@{HALF}")
    assert {row["faults/episodes_restarted"] for row in branch.rows} == {restarted}
    assert [(event["what"], event["count"], event["why"]) for event in events(branch, "fault")] == (
        [("episode_restarted", restarted, why)] if why else []
    )
    out = capsys.readouterr().out
    assert why is None or f"{restarted} of {changed.get('rollout.num_envs', 4)} environments start new episodes ({why})" in out


def test_an_older_checkpoint_without_environments_still_goes_on(small: Callable[..., Run]) -> None:
    """Its environments start new episodes."""
    whole = small(KEPT)
    rewrite(whole.directory, lambda state, arrays: (state.pop("boundary"), arrays.pop("environments")))
    again = small({"run.total_timesteps": WHOLE + 128}, resume=str(whole.directory))
    (event,) = events(again, "fault")
    assert (event["what"], event["why"]) == ("episode_restarted", "the checkpoint does not hold their state")


def rewrite(directory: Path, change: Callable[[dict[str, Any], dict[str, Any]], Any]) -> None:
    """Makes the run's only checkpoint one with other contents, with a manifest that is right."""
    checkpoint = load_checkpoint(list_checkpoints(directory)[-1].path)
    shutil.rmtree(directory / "checkpoints")
    change(checkpoint.state, checkpoint.arrays)
    store = CheckpointStore(directory, 2)
    store.save(iteration=checkpoint.iteration, env_steps=checkpoint.env_steps, arrays=checkpoint.arrays, state=checkpoint.state)
