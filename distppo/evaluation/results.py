"""The folder of an evaluation and the JSON in it. docs/evaluating.md describes both."""

from __future__ import annotations

import json
import math
import platform
import time
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

from distppo import __version__
from distppo.algo.scores import CONFIDENCE, RESAMPLES
from distppo.checkpoint.reader import CHECKPOINTS
from distppo.config import config_to_dict
from distppo.evaluation.episodes import EpisodeResult
from distppo.evaluation.evaluate import EvaluationResult
from distppo.evaluation.subject import Subject
from distppo.evaluation.zoo import EVALUATIONS_ROOT, is_shipped
from distppo.files import write_atomic

EVALUATIONS = "evaluations"
EVALUATION_FILE = "evaluation.json"
VALUES_FILE = "values.json"
FORMAT = 1
_PACKAGES = ("gymnasium", "mujoco", "numpy", "torch")


def default_root(subject: Subject) -> Path:
    """Returns `evaluations` in the run a checkpoint belongs to; beside an exported file, or a checkpoint that lies elsewhere.

    Of a policy that is shipped: runs/zoo/evaluations.
    """
    parent = subject.path.parent
    if is_shipped(subject.path):
        return EVALUATIONS_ROOT
    return (parent.parent if parent.name == CHECKPOINTS else parent) / EVALUATIONS


def make_folder(root: Path, subject: Subject) -> Path:
    """Makes a new folder <root>/<time>-<checkpoint> and returns it.

    Raises:
        OSError: it cannot be made.
    """
    root.mkdir(parents=True, exist_ok=True)
    name, number = f"{time.strftime('%Y%m%d-%H%M%S')}-{subject.path.stem}", 1
    while True:
        folder = root / (name if number == 1 else f"{name}-{number}")
        try:
            folder.mkdir()
        except FileExistsError:
            number += 1  # another evaluation of this second
        else:
            return folder


def content_of(subject: Subject, result: EvaluationResult, *, workers: int) -> dict[str, Any]:
    """Returns the JSON values of evaluation.json but for what is drawn and analyzed; a number that is not finite is null."""
    content = {
        "format": FORMAT,
        "written_at": datetime.now(UTC).isoformat(timespec="seconds"),
        "checkpoint": str(result.checkpoint),
        "env": result.env_id,
        "env_steps": result.env_steps,
        "episodes": result.episodes,
        "seed": result.seed,
        "deterministic": result.deterministic,
        "return_mean": result.return_mean,
        "return_std": result.return_std,
        "return_median": result.return_median,
        "return_iqm": result.return_iqm,
        "return_iqm_interval": result.return_iqm_interval,
        "length_mean": result.length_mean,
        "per_episode": [_episode(episode) for episode in result.results],
        "settings": {
            "env": config_to_dict(subject.config)["env"],
            "workers": workers,
            "interval_confidence": CONFIDENCE,
            "interval_resamples": RESAMPLES,
        },
        "versions": _versions(),
    }
    return dict(finite(content))


def write_json(path: Path, content: Mapping[str, Any]) -> None:
    """Writes JSON that is there as a whole or not at all.

    Raises:
        OSError: the disk refuses.
    """
    write_atomic(path, json.dumps(finite(content), indent=1).encode() + b"\n")


def finite(value: Any) -> Any:
    """Returns JSON values with null in place of every number that is not finite, for JSON has none of those."""
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if isinstance(value, Mapping):
        return {key: finite(item) for key, item in value.items()}
    if isinstance(value, Sequence) and not isinstance(value, str):
        return [finite(item) for item in value]
    return value


def _episode(episode: EpisodeResult) -> dict[str, Any]:
    return {
        "episode": episode.episode,
        "return": episode.episode_return,
        "length": episode.length,
        "seed": episode.seed,
        "terminated": episode.terminated,
        "truncated": not episode.terminated,
    }


def _versions() -> dict[str, str]:
    found = {"distppo": __version__, "python": platform.python_version()}
    for package in _PACKAGES:
        try:
            found[package] = version(package)
        except PackageNotFoundError:
            continue
    return found
