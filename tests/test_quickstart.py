"""The promise of the first command: HalfCheetah learns to run, through Ray, in minutes."""

from __future__ import annotations

import json
import re
import subprocess
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent


def test_make_train_runs_the_quickstart_or_the_config_it_is_given():
    for arguments, expected in (
        ([], "launch.py train --report --config configs/quickstart.yaml"),
        (["ARGS=--config configs/humanoid.yaml"], "launch.py train --report  --config configs/humanoid.yaml"),
    ):
        plan = subprocess.run(["make", "--dry-run", "train", *arguments], cwd=ROOT, check=True, capture_output=True, text=True)
        assert expected in plan.stdout


@pytest.mark.slow
@pytest.mark.ray
@pytest.mark.timeout(600)
def test_the_quickstart_ends_above_a_return_of_2000(tmp_path):
    command = ["make", "train", f"ARGS=--run-dir {tmp_path}/run"]
    output = subprocess.run(command, cwd=ROOT, check=True, capture_output=True, text=True)
    summary = json.loads((tmp_path / "run/summary.json").read_text(encoding="utf-8"))
    assert output.stderr == ""
    assert re.search(r"finished: 600,064 env steps, episode return -?[\d,.]+ -> [\d,.]+, [\d,]+ env steps/s", output.stdout)
    assert summary["episode_return_first"] < 500 < 2000 < summary["episode_return_mean"]
    assert summary["best_evaluation"]["return_mean"] > 2000
    assert summary["num_workers"] >= 1
