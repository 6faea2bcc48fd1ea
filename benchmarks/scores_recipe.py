"""A recipe of configs/ in the scores: the command that trains it, and what its checkpoints are worth."""

from __future__ import annotations

import dataclasses
import hashlib
import json
import shlex
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from scores_runs import ELAPSED, EVALUATION, EVALUATION_SEED, RETURN, ROOT, CurvePoint, Scored, experiment_name, read_commands, unique

from distppo import Config, UserError, evaluate, load_config
from distppo.checkpoint import best_checkpoint, list_checkpoints
from distppo.config import config_to_dict
from distppo.config.suggest import did_you_mean
from distppo.evaluation.evaluate import EvaluationResult
from distppo.metrics import METRICS_FILE, MetricsFollower, read_log
from distppo.metrics.keys import STEPS
from distppo.runtime.seeds import SeedRun

SHORT_FLAGS = {"env.id": "--env", "run.total_timesteps": "--total-timesteps"}


@dataclasses.dataclass(frozen=True)
class Recipe:
    """A recipe of configs/, perhaps changed by settings.

    Attributes:
        path: of its YAML file.
        config: with the settings laid over it; its seed and directory are not the runs'.
        flags: of `launch.py train` besides --config, --seed and --run-dir.
        label: of a variant; empty for the recipe itself.
        single_process: train without workers of its own, which changes minutes and not one bit.
    """

    path: Path
    config: Config
    flags: tuple[str, ...]
    label: str
    single_process: bool = False

    @property
    def name(self) -> str:
        """<env>-<env steps>[-<label>]."""
        return experiment_name(self.config.env.id, self.total, self.label)

    @property
    def total(self) -> int:
        """Env steps of a run."""
        return self.config.run.total_timesteps

    def header(self) -> dict[str, Any]:
        """Returns what the results say of all seeds."""
        path = self.path.relative_to(ROOT) if self.path.is_relative_to(ROOT) else self.path.name
        return {
            "name": self.name,
            "env": self.config.env.id,
            "total_timesteps": self.total,
            "label": self.label,
            "recipe": self.path.stem,
            "peer": None,
            "command": shlex.join(["python", "launch.py", "train", "--config", str(path), *self.flags]),
            "settings": settings_of(self.config),
        }

    def folder(self, seed: int) -> str:
        """Returns seed<k>-<digest of the settings>."""
        text = json.dumps(settings_of(self.config), sort_keys=True)
        return f"seed{seed}-{hashlib.sha256(text.encode()).hexdigest()[:8]}"

    def command(self, seed: int, directory: Path) -> list[str]:
        """Returns `launch.py train`, with --resume where the run has begun."""
        run = SeedRun(seed, directory)
        train = [
            sys.executable,
            str(ROOT / "launch.py"),
            "train",
            "--no-progress",
            *(["--num-workers", "0"] if self.single_process else []),
        ]
        if run.begun:
            code = self.config.env.id
            return [*train, "--resume", str(directory), *(["--trust", code] if ":" in code else [])]
        return [*train, "--config", str(self.path), "--seed", str(seed), "--run-dir", str(directory), *self.flags]

    def finished(self, seed: int, directory: Path) -> bool:
        """Whether the run has its env steps."""
        return SeedRun(seed, directory).finished(self.total)

    def collect(self, seed: int, directory: Path, episodes: int) -> Scored:
        """Scores the last and the best checkpoint of a finished run."""
        log = read_log(directory / METRICS_FILE)
        curve = [CurvePoint(row[STEPS], row[ELAPSED], row.get(RETURN), row.get(EVALUATION)) for row in log.rows]
        last, best = list_checkpoints(directory)[-1], best_checkpoint(directory)
        summary = SeedRun(seed, directory).summary
        starts = [event for event in log.events if event["event"] == "started"]
        resumed = [event["env_steps"] for event in log.events if event["event"] == "resumed"]
        commands = read_commands(directory)
        before = max((point.seconds for point in curve if resumed and point.env_steps <= resumed[-1]), default=0.0)
        around = (commands[-1]["seconds"] if commands else summary["wall_seconds"]) - (curve[-1].seconds - before)
        entry = {
            "seed": seed,
            "env_steps": last.env_steps,
            "training_return": curve[-1].training_return,
            **both_scores(last.path, episodes, EVALUATION_SEED + seed),
            "best": best and {"env_steps": best.env_steps, **both_scores(best.path, episodes, EVALUATION_SEED + seed)},
            "training_seconds": curve[-1].seconds,
            "wall_seconds": curve[-1].seconds + max(0.0, around) * len(starts),
            "start_seconds": max(0.0, around),
            "interruptions": len(starts) - 1,
            "workers": summary["num_workers"],
            "faults": {name: count for name, count in summary["faults"].items() if count},
            "commits": unique([command["commit"] for command in commands] or [starts[-1]["machine"]["git_commit"]]),
            "machine": {key: value for key, value in starts[-1]["machine"].items() if key != "git_commit"},
            "finished_at": next(event["time"] for event in reversed(log.events) if event["event"] == "finished"),
        }
        return entry, curve

    def news(self, directory: Path) -> Callable[[], str]:
        """Returns what says in a line how far the run is."""
        follower, rows = MetricsFollower(directory / METRICS_FILE), []

        def line() -> str:
            rows.extend(row for row in follower.poll() if STEPS in row)
            del rows[:-1]
            if not rows:
                return "starting"
            row = rows[-1]
            reached = "no episode has ended" if row.get(RETURN) is None else f"return {row[RETURN]:,.0f}"
            return f"{row[STEPS]:,} of {self.total:,} env steps, {reached}, {row[ELAPSED] / 60:.1f} min, {row['time/fps']:,.0f} env steps/s"

        return line


def plan(recipe: str, known: Sequence[str], settings: Sequence[str], *, label: str, single_process: bool = False) -> Recipe:
    """Returns the experiment that a recipe's name or file and settings ("ppo.gamma=0.98") describe.

    Raises:
        UserError: there is no such recipe, or a setting is wrong.
    """
    path = Path(recipe) if recipe.endswith((".yaml", ".yml")) else ROOT / "configs" / f"{recipe}.yaml"
    if not path.is_file():
        raise UserError(f"{recipe} is neither a recipe of configs/ nor a YAML file{did_you_mean(recipe, known)}")
    config = load_config(path, overrides=list(settings))
    flags = []
    for setting in settings:
        key, _, value = setting.partition("=")
        flags += [SHORT_FLAGS[key], value] if key in SHORT_FLAGS else ["--set", setting]
    return Recipe(path.resolve(), config, tuple(flags), label, single_process)


def settings_of(config: Config) -> dict[str, Any]:
    """Returns all settings but for the seed and the folder of a run."""
    settings = config_to_dict(config)
    settings["run"] = {key: value for key, value in settings["run"].items() if key not in ("seed", "directory")}
    return settings


def both_scores(checkpoint: Path, episodes: int, seed: int) -> dict[str, Any]:
    """Returns the scores of a checkpoint with the most likely action and with sampled ones."""
    kinds = (("deterministic", True), ("stochastic", False))
    return {name: score_of(evaluate(checkpoint, episodes=episodes, seed=seed, deterministic=kind)) for name, kind in kinds}


def score_of(result: EvaluationResult) -> dict[str, Any]:
    """Returns an evaluation as JSON values."""
    returns = [round(float(value), 3) for value in result.returns]
    return {"mean": result.return_mean, "std": result.return_std, "length": result.length_mean, "returns": returns}
