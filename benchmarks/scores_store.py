"""The stored scores: a JSON file for each environment, env steps and label, with the curves of its seeds as CSV beside it."""

from __future__ import annotations

import csv
import fcntl
import io
import json
import os
import statistics
import time
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from scores_runs import ELAPSED, EVALUATION, RETURN, ROOT, CurvePoint, unique

from distppo import UserError
from distppo.algo.scores import interquartile_mean, iqm_interval
from distppo.config import config_from_dict, config_to_dict
from distppo.errors import ConfigError
from distppo.evaluation.results import write_json
from distppo.files import write_atomic
from distppo.findings import RunRecord
from distppo.findings.returns import LEAST_SEEDS, trapped_among
from distppo.metrics.keys import STEPS

RESULTS = ROOT / "benchmarks" / "results"
FORMAT = 1
CURVE_POINTS = 120
"""Of a stored curve, besides those with an evaluation."""
COLUMNS = ("seed", "env_steps", "seconds", "training_return", "evaluation_return")


class Target(NamedTuple):
    """What was asked for in an environment: a return within hours."""

    episode_return: float
    hours: float


TARGETS = {"HalfCheetah": Target(5000, 2), "Walker2d": Target(3000, 2), "Humanoid": Target(5000, 10)}
"""By the environment's name without its version; after 2M env steps, of Humanoid 10M."""


def is_timed(entry: Mapping[str, Any]) -> bool:
    """Whether a seed had the machine to itself, so that its minutes mean something."""
    return bool(entry.get("timed", True))


def target_of(env: str) -> Target | None:
    """Returns what was asked for in an environment, if anything was."""
    return TARGETS.get(env.partition("-v")[0])


class Store:
    """The files of a folder.

    Args:
        folder: where they are.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def path(self, name: str) -> Path:
        """Returns the JSON file of a name."""
        return self.folder / f"scores-{name}.json"

    def all(self) -> list[dict[str, Any]]:
        """Returns every result.

        Raises:
            UserError: one cannot be read.
        """
        return [result for path in sorted(self.folder.glob("scores-*.json")) if (result := self._read(path)) is not None]

    def get(self, name: str) -> dict[str, Any] | None:
        """Returns a result; None if there is none."""
        return self._read(self.path(name))

    def has(self, name: str, seed: int) -> bool:
        """Whether a seed has a score."""
        result = self.get(name)
        return result is not None and any(entry["seed"] == seed for entry in result["seeds"])

    def curves(self, name: str) -> dict[int, list[CurvePoint]]:
        """Returns the stored curve of each seed."""
        curves: dict[int, list[CurvePoint]] = {}
        try:
            with open(self.path(name).with_suffix(".csv"), newline="", encoding="utf-8") as file:
                for row in csv.DictReader(file):
                    point = CurvePoint(int(row["env_steps"]), float(row["seconds"]), *(_number(row[column]) for column in COLUMNS[3:]))
                    curves.setdefault(int(row["seed"]), []).append(point)
        except FileNotFoundError:
            pass
        return curves

    def require_same_settings(self, header: Mapping[str, Any], *, replace: bool) -> None:
        """Makes sure that seeds of different settings are never put together.

        Args:
            header: of what is to be trained.
            replace: drop stored results of other settings.

        Raises:
            UserError: there are results of other settings, and they are not to be dropped.
        """
        stored = self.get(header["name"])
        if stored is None:
            return
        changes = differences(stored, header)
        if not changes:
            return
        if not replace:
            shown = "".join(f"\n  {change}" for change in changes[:10])
            raise UserError(
                f"{self.path(header['name'])} holds results of other settings; give these a --label, or drop the others with "
                f"--replace:{shown}"
            )
        self.path(header["name"]).unlink()
        self.path(header["name"]).with_suffix(".csv").unlink(missing_ok=True)

    def add(self, header: Mapping[str, Any], entry: Mapping[str, Any], curve: Sequence[CurvePoint]) -> Path:
        """Stores a seed's score beside those that are there, and returns the file; several processes may do so at a time.

        Args:
            header: what holds for all seeds.
            entry: of this seed.
            curve: of this seed, complete.
        """
        self.folder.mkdir(parents=True, exist_ok=True)
        folder = os.open(self.folder, os.O_RDONLY)
        try:
            fcntl.flock(folder, fcntl.LOCK_EX)
            return self._add(header, entry, curve)
        finally:
            os.close(folder)

    def _add(self, header: Mapping[str, Any], entry: Mapping[str, Any], curve: Sequence[CurvePoint]) -> Path:
        name, stored = header["name"], self.get(header["name"])
        target = target_of(header["env"])
        machine, scored = entry["machine"], {key: value for key, value in entry.items() if key != "machine"}
        scored["reached"] = None if target is None else reached(curve, target.episode_return, entry["start_seconds"])
        before = stored or {"seeds": [], "machines": []}
        entries = sorted([scored, *(each for each in before["seeds"] if each["seed"] != entry["seed"])], key=lambda each: each["seed"])
        curves = {**self.curves(name), entry["seed"]: thinned(curve)}
        result = {
            "format": FORMAT,
            **header,
            "date": time.strftime("%Y-%m-%d"),
            "target": None if target is None else {"return": target.episode_return, "hours": target.hours},
            "summary": summary_of(entries, trapped_seeds(curves)),
            "seeds": entries,
            "machines": unique([*before["machines"], machine]),
        }
        write_atomic(self.path(name).with_suffix(".csv"), _csv(curves).encode())
        write_json(self.path(name), result)
        return self.path(name)

    def _read(self, path: Path) -> dict[str, Any] | None:
        try:
            result = json.loads(path.read_text(encoding="utf-8"))
        except FileNotFoundError:
            return None
        except ValueError as error:
            raise UserError(f"{path} is damaged ({error}); delete it, and its seeds are scored again from their runs") from error
        if result.get("format") != FORMAT:
            raise UserError(f"{path} has format {result.get('format')}, this script reads {FORMAT}; delete it, and score its seeds again")
        return dict(result)


def differences(stored: Mapping[str, Any], header: Mapping[str, Any]) -> list[str]:
    """Returns in which settings a stored result differs from what is to be trained; settings that came later have their defaults."""
    old, new = stored["settings"], header["settings"]
    if stored["peer"] is None:
        try:
            known = config_to_dict(config_from_dict(old))
        except ConfigError as error:
            return [f"its settings cannot be read any more: {error}"]
        old = {**known, "run": {key: value for key, value in known["run"].items() if key in new["run"]}}
    before, after = dict(_flat(old)), dict(_flat(new))
    keys = sorted(before.keys() | after.keys())
    return [f"{key}: {after.get(key)!r}, stored {before.get(key)!r}" for key in keys if before.get(key) != after.get(key)]


def _flat(values: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    for key, value in values.items():
        if isinstance(value, Mapping):
            yield from _flat(value, f"{prefix}{key}.")
        else:
            yield f"{prefix}{key}", list(value) if isinstance(value, tuple) else value


def reached(curve: Sequence[CurvePoint], target: float, start_seconds: float) -> dict[str, Any] | None:
    """Returns when the training return, a mean over 100 episodes, first got to the target; None if it did not."""
    point = next((point for point in curve if point.training_return is not None and point.training_return >= target), None)
    return None if point is None else {"env_steps": point.env_steps, "seconds": start_seconds + point.seconds}


def thinned(curve: Sequence[CurvePoint]) -> list[CurvePoint]:
    """Returns about 120 points of a curve, evenly spread, and every one with an evaluation, as they are stored; the last is among them."""
    step = max(1, -(-len(curve) // CURVE_POINTS))
    kept = {len(curve) - 1, *range(0, len(curve), step)}
    chosen = [point for index, point in enumerate(curve) if index in kept or point.evaluation_return is not None]
    return [CurvePoint(point.env_steps, *(None if value is None else round(value, 2) for value in point[1:])) for point in chosen]


def trapped_seeds(curves: Mapping[int, Sequence[CurvePoint]]) -> list[int] | None:
    """Returns the seeds that stand still below half of what the others have gained; None for fewer than three seeds.

    It is the rule behind the finding "A policy is trapped" (distppo/findings/returns.py), applied to the stored curves.
    """
    if len(curves) < LEAST_SEEDS:
        return None
    runs = {str(seed): RunRecord([_row(point) for point in curve]) for seed, curve in curves.items()}
    return sorted(int(seed) for seed in trapped_among(runs))


def _row(point: CurvePoint) -> dict[str, Any]:
    row = {STEPS: point.env_steps, ELAPSED: point.seconds, RETURN: point.training_return, EVALUATION: point.evaluation_return}
    return {key: value for key, value in row.items() if value is not None}


def summary_of(entries: Sequence[Mapping[str, Any]], trapped: list[int] | None) -> dict[str, Any]:
    """Returns what the seeds come to together: the last checkpoint with the most likely action, and the rest beside it."""
    last = np.array([entry["deterministic"]["mean"] for entry in entries])
    best = [entry["best"]["deterministic"]["mean"] for entry in entries if entry.get("best")]
    in_time = [entry["reached"] for entry in entries if entry.get("reached")]
    reached_seconds = [entry["reached"]["seconds"] for entry in entries if entry.get("reached") and is_timed(entry)]
    seconds = [entry["wall_seconds"] for entry in entries if is_timed(entry)]
    return {
        "seeds": len(entries),
        "mean": float(last.mean()),
        "std": float(last.std()),
        "min": float(last.min()),
        "max": float(last.max()),
        "iqm": float(interquartile_mean(last)),
        "iqm_interval": iqm_interval([last]),
        **{f"stochastic_{name}": value for name, value in _mean_std([entry["stochastic"]["mean"] for entry in entries]).items()},
        **{f"best_{name}": value for name, value in _mean_std(best).items()},
        "trapped": trapped,
        "wall_seconds_median": statistics.median(seconds) if seconds else None,
        "reached": len(in_time),
        "reached_env_steps_median": statistics.median(each["env_steps"] for each in in_time) if in_time else None,
        "reached_seconds_median": statistics.median(reached_seconds) if reached_seconds else None,
    }


def _mean_std(values: Sequence[float]) -> dict[str, float | None]:
    return {"mean": float(np.mean(values)) if values else None, "std": float(np.std(values)) if values else None}


def _number(text: str) -> float | None:
    return float(text) if text else None


def _csv(curves: Mapping[int, Sequence[CurvePoint]]) -> str:
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(COLUMNS)
    for seed, curve in sorted(curves.items()):
        for point in curve:
            writer.writerow([seed, *point])
    return text.getvalue()
