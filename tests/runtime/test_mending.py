"""Rows 2, 4 and 5 of docs/reliability.md in a whole run: what breaks is mended, told, counted, and can be replayed."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from runtime.running import Run

from distppo.cli import main
from distppo.metrics import METRICS_FILE

WORKERS = [0, pytest.param(2, marks=pytest.mark.ray)]


def events(run: Run, kind: str) -> list[dict[str, Any]]:
    lines = map(json.loads, (run.directory / METRICS_FILE).read_text().splitlines())
    return [line for line in lines if line.get("event") == kind]


@pytest.mark.parametrize("workers", WORKERS)
@pytest.mark.parametrize(("how", "metric"), [("raise", "env_restarts"), ("nan", "nonfinite")])
def test_an_environment_that_breaks_now_and_then_does_not_end_a_run(
    how: str,
    metric: str,
    workers: int,
    small: Callable[..., Run],
    request: Any,
    recovery: Callable[..., None],
    capsys: pytest.CaptureFixture[str],
) -> None:
    """Every environment breaks once in 69 steps: all configured steps are learned from, and every fault leaves an event and a record."""
    if workers:
        request.getfixturevalue("shared_ray")
    run = small(
        {
            "env.id": "probe_envs:Failing-v0",
            "env.kwargs": {"how": how, "after": 2 * 32 + 5},
            "rollout.num_workers": workers,
            "fault.on_nonfinite": "drop",
            "fault.max_dumps": 3,
        }
    )
    assert run.summary["env_steps"] == run.arrays["obs_moments/count"] == run.arrays["return_moments/count"] == 384
    assert all(np.isfinite(array).all() for array in run.arrays.values())
    assert [row[f"faults/{metric}"] for row in run.rows] == [0, 0, 4]
    usual, mended = (run.rows[index]["dist/worker_seconds_max"] for index in (1, 2))
    recovery(seconds=max(0.0, mended - usual), what=f"all environments of a worker made anew, {how}")
    faults = events(run, "fault")
    assert len(faults) == 4 and all(fault["what"] == {"raise": "env_error", "nan": "env_nonfinite"}[how] for fault in faults)
    assert faults[0]["where"] == "environment 0, iteration 2, step 5 of the fragment"
    assert [fault["dump"] is not None for fault in faults] == [True, True, True, False], "bounded by fault.max_dumps"
    assert "fault: env" in capsys.readouterr().out
    # The record leads back to the fault, to the bit.
    assert main(["replay", faults[0]["dump"], "--trust", "probe_envs:Failing-v0"]) == 0
    out = capsys.readouterr().out
    assert "it happened again: environment" in out.replace("the environment", "environment")
    assert "to the bit" in out and "step 5: observation" in out


@pytest.mark.parametrize("workers", WORKERS)
def test_the_error_that_ends_a_run_leaves_its_record(
    workers: int, small: Callable[..., Run], tmp_path: Path, request: Any, capsys: pytest.CaptureFixture[str]
) -> None:
    """Also when it comes from the process of a worker."""
    if workers:
        request.getfixturevalue("shared_ray")
    directory = tmp_path / "ended"
    given = {"env.id": "probe_envs:Failing-v0", "env.kwargs": {"how": "nan", "after": 37}, "run.directory": str(directory)}
    with pytest.raises(ValueError, match="gave observation element 1 = nan at step 5"):
        small(given | {"rollout.num_workers": workers})
    error = [json.loads(line) for line in (directory / METRICS_FILE).read_text().splitlines()][-1]
    assert error["event"] == "error" and Path(error["dump"]).parent == directory / "faults"
    assert f"flight record: {error['dump']}" in capsys.readouterr().out
    assert main(["replay", str(directory), "--trust", "probe_envs:Failing-v0"]) == 0
    assert "it happened again: the environment gave observation element 1 = nan" in capsys.readouterr().out


def test_an_update_that_diverges_is_left_out_or_ends_the_run(
    small: Callable[..., Run], tmp_path: Path, recovery: Callable[..., None]
) -> None:
    """A finite reward that is too large for float32 to square: the last checkpoint before it is kept."""
    given = {
        "env.id": "probe_envs:Failing-v0",
        "env.kwargs": {"how": "huge_reward", "after": 37},
        "normalization.rewards": False,
        "run.checkpoint_every": 128,
    }
    with pytest.raises(ValueError, match="update 2 diverged"):
        small(given | {"run.directory": str(tmp_path / "ended")})
    assert [path.name for path in (tmp_path / "ended" / "checkpoints").glob("ckpt_*")] == ["ckpt_00000001"]
    run = small(given | {"fault.on_nonfinite": "drop"})
    assert [row["faults/skipped_updates"] for row in run.rows] == [0, 1, 2]
    assert run.rows[-1]["dist/obs_count"] == 384
    recovery(seconds=run.rows[1]["time/update"], what="an update that was undone")
    assert [fault["what"] for fault in events(run, "fault")] == ["update_skipped"] * 2
