"""What to say about a path that is not a checkpoint."""

from __future__ import annotations

import os
from pathlib import Path

EXPECTED = (
    "Expected: latest, a run directory, RUN@best, RUN@last, RUN@<env steps>, or a checkpoint directory (RUN/checkpoints/ckpt_<iteration>)."
)

_PICKLES = {".pt", ".pth", ".pkl", ".pickle", ".ckpt", ".bin", ".tar", ".joblib"}
_RLLIB = ("rllib_checkpoint.json", "algorithm_state.pkl", "algorithm_state.msgpck")
_RUN_FILES = ("checkpoints", "config.yaml", "metrics.jsonl")


def explain_foreign(path: Path, expected: str = EXPECTED) -> str:
    """One message: what `path` is not, what it looks like, and what is expected instead."""
    return f"{path}: {_describe(path)} {expected}"


def _describe(path: Path) -> str:
    if not os.path.lexists(path):
        return "there is nothing here."
    if os.path.isdir(path):
        return _describe_directory(path)
    suffix = path.suffix.lower()
    if suffix == ".zip":
        return "a .zip file is not a distppo checkpoint; Stable-Baselines3 saves its models so, and they cannot be loaded here."
    if suffix in _PICKLES:
        return "not a distppo checkpoint but a file that torch or pickle writes; distppo never reads those, since loading one can run code."
    if suffix == ".safetensors" or path.name == "state.json":
        return "a single file of a checkpoint at most, not a checkpoint; name its directory."
    return "a file, not a distppo checkpoint."


def _describe_directory(path: Path) -> str:
    if os.path.lexists(path / "MANIFEST.json"):
        return "a checkpoint, not a run."
    if any(os.path.lexists(path / name) for name in _RLLIB):
        return "an RLlib checkpoint, which cannot be loaded here."
    if path.name.startswith("ckpt_"):
        return "not a complete checkpoint: it has no MANIFEST.json, which is written last."
    if any(os.path.lexists(path / name) for name in _RUN_FILES):
        return "a run without a checkpoint so far."
    return "neither a run directory (no checkpoints/ in it) nor a checkpoint (no MANIFEST.json)."
