"""Where the kernels come from changes no bit of a run."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
from runtime.running import ROOT

RUN = """
import hashlib, sys
from distppo.runtime.train import train
from distppo.checkpoint import list_checkpoints, load_checkpoint
settings = {
    "env.id": "probe_envs:Point-v0", "rollout.num_envs": 4, "rollout.num_steps": 32, "rollout.num_workers": 0, "ppo.epochs": 2,
    "ppo.mini_batch_size": 32, "network.hidden_sizes": [16], "run.total_timesteps": 384, "run.directory": sys.argv[1],
}
train(overrides=settings, progress=False)
arrays = load_checkpoint(list_checkpoints(sys.argv[1])[-1].path).arrays["learner"]
print(hashlib.sha256(b"".join(arrays[name].tobytes() for name in sorted(arrays))).hexdigest())
"""


@pytest.mark.long
def test_a_run_that_has_the_kernels_compiled_has_the_bits_of_those_that_find_them(tmp_path: Path) -> None:
    """Otherwise the first run after an installation could neither be resumed nor have its learner rebuilt exactly."""
    roots = os.pathsep.join([str(ROOT), str(ROOT / "tests")])
    variables = os.environ | {"NUMBA_CACHE_DIR": str(tmp_path / "cache"), "PYTHONPATH": roots}
    results = [
        subprocess.run(
            [sys.executable, "-c", RUN, str(tmp_path / f"run{k}")], env=variables, capture_output=True, text=True, check=True, timeout=250
        ).stdout.splitlines()[-1]
        for k in range(2)
    ]
    assert results[0] == results[1]
