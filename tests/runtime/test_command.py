"""`launch.py train` as a newcomer runs it: on Ray, through a pipe, in a directory of their own."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest
from runtime.running import ROOT, SECONDS, processes_of, wait_until

from distppo.runtime.cores import available_cores

ENV_ID = "HalfCheetah-v4"
FEW_STEPS = ("--num-envs", "2", "--num-steps", "128", "--total-timesteps", "512", "--set", "evaluation.every=256", "evaluation.episodes=1")


@pytest.mark.ray
def test_a_normal_run_says_what_it_does_and_nothing_else(started: Callable[..., subprocess.Popen[bytes]], tmp_path: Path) -> None:
    """A line an iteration, the results at the end; no warning of Ray, gymnasium, mujoco or torch, no stray file, no process left."""
    driver = started("train", "--env", ENV_ID, "--report", *FEW_STEPS)
    assert driver.wait(SECONDS) == 0
    assert (tmp_path / "stderr").read_text() == ""
    lines = (tmp_path / "stdout").read_text().splitlines()
    (directory,) = (tmp_path / "runs").iterdir()
    relative = directory.relative_to(tmp_path)
    assert directory.name.startswith(f"{ENV_ID}-seed0-")
    assert lines[0] == f"{ENV_ID} -> {relative}"
    assert lines.pop(1) == f"these are the default settings; those tuned for {ENV_ID}: --config {ROOT / 'configs' / 'halfcheetah.yaml'}"
    assert lines[1] == "network: mlp (hidden [64, 64], tanh), 6 continuous actions, 11,085 parameters"
    assert lines[2] == "starting Ray, workers and learner (longer the first time, when the learner's step is compiled)"
    step = "fused, 2 threads" if available_cores() > 1 else "fused"
    assert lines[3] == f"on Ray, 2 workers and 1 learner, 1 node; learner step: {step}"
    assert [line.split()[0] for line in lines[4:6]] == ["256", "512"] and all("evaluation" in line for line in lines[4:6])
    assert lines[6].startswith("finished: 512 env steps")
    best = json.loads((directory / "summary.json").read_text())["best_checkpoint"]
    assert lines[7:9] == [f"run directory:   {relative}", f"best checkpoint: {best}"]
    assert lines[9].startswith(f"report:          {relative}/report.html (0.1 MB; no findings)") and len(lines) == 10
    assert {path.name for path in tmp_path.iterdir()} == {"runs", "stdout", "stderr"}
    wait_until(lambda: not processes_of(driver.pid), 10, "no process is left")
