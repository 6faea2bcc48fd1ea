"""docs/networks.md: its example runs as it stands, from a folder of the user's own."""

from __future__ import annotations

import os
import re
import subprocess
from pathlib import Path

from runtime.running import ROOT, command

from distppo.metrics import METRICS_FILE, read_metrics

PAGE = (ROOT / "docs" / "networks.md").read_text(encoding="utf-8")


def test_the_example_trains(tmp_path: Path) -> None:
    """Both files are written out and trained from with the module on PYTHONPATH; the network is the page's."""
    for language in ("python", "yaml"):
        for name, text in re.findall(rf"```{language}\n# (\w+\.\w+)\n(.*?)```", PAGE, re.DOTALL):
            (tmp_path / name).write_text(text)
    run = tmp_path / "run"
    small = ["rollout.num_steps=32", "rollout.num_envs=4", "run.total_timesteps=256", "evaluation.every=0"]
    environment = os.environ | {"PYTHONPATH": os.pathsep.join([str(tmp_path), str(ROOT)])}
    done = subprocess.run(
        [*command("train", "--config", "my_run.yaml", "--num-workers", "0", "--run-dir", str(run), "--set", *small)],
        cwd=tmp_path,
        env=environment,
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert done.returncode == 0, done.stderr
    # 3 x 32 + 32, 32 x 32 + 32, 32 x 2 + 2, 32 + 1 parameters.
    assert "network: my_networks:Residual, 1 continuous actions, 1,283 parameters" in done.stdout
    assert max(row["dist/ratio_error"] for row in read_metrics(run / METRICS_FILE)) < 1e-4
