"""Runs for the report: a real one, and made ones of any length."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

QUICKSTART = Path(__file__).resolve().parents[1] / "data" / "quickstart"
PNG = b"\x89PNG\r\n\x1a\n" + bytes.fromhex(
    "0000000d4948445200000001000000010802000000907753de0000000c49444154789c63f8cfc000000301010018dd8db00000000049454e44ae426082"
)
"""A picture of one pixel."""
MP4 = b"\0\0\0\x18ftypisom" + bytes(2000)
VALUES = {
    "format": 1, "env_steps": 606208, "episodes": 10, "seed": 0, "deterministic": False, "gamma": 0.99, "reward_scale": 12.5,
    "steps": 10000, "bias": -1.25, "rmse": 3.5, "r2": 0.91, "explained_variance": 0.92, "correlation": 0.96,
    "predicted_mean": 180.0, "realised_mean": 181.25, "most_overestimated": [3], "most_underestimated": [7],
    "calibration": [{"predicted": 10.0 * k, "realised": 10.0 * k + 1, "realised_std": 2.0, "steps": 1000} for k in range(10)],
    "along_the_episode": [{"first_step": 25 * k, "last_step": 25 * k + 24, "bias": 0.1 * k, "std": 1.0, "steps": 250} for k in range(40)],
    "td_error": {"mean": 0.01, "std": 1.0, "edges": [-1.0, 0.0, 1.0, 2.0], "counts": [10, 80, 10]},
}  # fmt: skip


@pytest.fixture
def quickstart(tmp_path: Path) -> Path:
    """A copy of a real run of configs/quickstart.yaml, without its checkpoints."""
    run = tmp_path / "runs" / "quickstart"
    shutil.copytree(QUICKSTART, run)
    return run


@pytest.fixture
def make_run(tmp_path: Path) -> Callable[..., Path]:
    """Makes a run: the rows of the real one, as many as wanted, with a seed and changed values."""
    real = [json.loads(line) for line in (QUICKSTART / "metrics.jsonl").read_text().splitlines()]
    rows = [line for line in real if "event" not in line]

    def make(name: str, *, seed: int = 0, length: int = 37, lift: float = 0.0, gamma: float = 0.99, **changes: Any) -> Path:
        run = tmp_path / name
        run.mkdir(parents=True)
        text = (QUICKSTART / "config.yaml").read_text().replace("seed: 0", f"seed: {seed}").replace("gamma: 0.99", f"gamma: {gamma}")
        (run / "config.yaml").write_text(text)
        lines = [real[0] | {"origins": {"run.total_timesteps": "configs/quickstart.yaml:27:3"}}]
        for index in range(length):
            row = dict(rows[index * len(rows) // length if length > len(rows) else index])
            row |= {"time/total_timesteps": 16384 * (index + 1), "time/iterations": index + 1}
            row["rollout/ep_rew_mean"] += lift * index / length
            lines.append(row | changes)
        (run / "metrics.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
        return run

    return make


def add_evaluation(run: Path, *, video: bytes = MP4, **scores: Any) -> Path:
    """Puts into a run what `evaluate --record --analyze-value` would."""
    folder = run / "evaluations" / "20261123-090000-ckpt_00000037"
    folder.mkdir(parents=True)
    told = {
        "format": 1, "env": "HalfCheetah-v4", "env_steps": 606208, "episodes": 10, "seed": 0, "deterministic": True,
        "return_mean": 2879.0, "return_std": 40.0, "return_iqm": 2880.5, "return_iqm_interval": [2860.0, 2900.0],
        "values": "values.json", "figures": ["value_calibration.png"],
        "videos": [{"file": "best.mp4", "shows": "best", "episode": 3, "return": 2950.0, "frames": 500, "fps": 20.0}],
    }  # fmt: skip
    (folder / "evaluation.json").write_text(json.dumps(told | scores))
    (folder / "values.json").write_text(json.dumps(VALUES))
    (folder / "value_calibration.png").write_bytes(PNG)
    (folder / "best.mp4").write_bytes(video)
    return folder
