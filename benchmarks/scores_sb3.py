"""Stable-Baselines3 in the scores: PPO with the settings that RL Baselines3 Zoo has tuned for each environment."""

from __future__ import annotations

import csv
import dataclasses
import hashlib
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

from contestants import HERE, PEERS, install
from contestants import RunFailed as InstallFailed
from scores_runs import EVALUATION_SEED, CurvePoint, RunFailed, Scored, experiment_name, read_commands, unique

from distppo import Config, UserError
from distppo.algo.seeding import Purpose, env_seed
from distppo.config.suggest import did_you_mean
from distppo.metrics import machine_info

LABEL = "sb3"
SOURCE = "rl-baselines3-zoo, hyperparams/ppo.yml of commit 208b6fdf3a9aa24de44b2e068c6e5f6a07d97fcc (github.com/DLR-RM/rl-baselines3-zoo)"
WIDE = {"log_std_init": -2, "ortho_init": False, "activation_fn": "relu", "net_arch": {"pi": [256, 256], "vf": [256, 256]}}
TUNED: dict[str, dict[str, Any]] = {
    "HalfCheetah-v4": {
        "n_envs": 1,
        "n_steps": 512,
        "batch_size": 64,
        "n_epochs": 20,
        "learning_rate": 2.0633e-05,
        "gamma": 0.98,
        "gae_lambda": 0.92,
        "clip_range": 0.1,
        "ent_coef": 0.000401762,
        "vf_coef": 0.58096,
        "max_grad_norm": 0.8,
        "policy_kwargs": WIDE,
    },
    "Walker2d-v4": {
        "n_envs": 1,
        "n_steps": 512,
        "batch_size": 32,
        "n_epochs": 20,
        "learning_rate": 5.05041e-05,
        "gamma": 0.99,
        "gae_lambda": 0.95,
        "clip_range": 0.1,
        "ent_coef": 0.000585045,
        "vf_coef": 0.871923,
        "max_grad_norm": 1,
    },
    "Hopper-v4": {
        "n_envs": 1,
        "n_steps": 512,
        "batch_size": 32,
        "n_epochs": 5,
        "learning_rate": 9.80828e-05,
        "gamma": 0.999,
        "gae_lambda": 0.99,
        "clip_range": 0.2,
        "ent_coef": 0.00229519,
        "vf_coef": 0.835671,
        "max_grad_norm": 0.7,
        "policy_kwargs": WIDE,
    },
    "Swimmer-v4": {
        "n_envs": 4,
        "n_steps": 1024,
        "batch_size": 256,
        "learning_rate": 6e-4,
        "gamma": 0.9999,
        "gae_lambda": 0.98,
    },
    "Humanoid-v4": {
        "n_envs": 1,
        "n_steps": 512,
        "batch_size": 256,
        "n_epochs": 5,
        "learning_rate": 3.56987e-05,
        "gamma": 0.95,
        "gae_lambda": 0.9,
        "clip_range": 0.3,
        "ent_coef": 0.00238306,
        "vf_coef": 0.431892,
        "max_grad_norm": 2,
        "policy_kwargs": WIDE,
    },
}
"""By environment: what `SOURCE` has under its name; what is not there is the library's default. All say normalize: true."""


@dataclasses.dataclass(frozen=True)
class TunedSb3:
    """Stable-Baselines3 in one environment.

    Attributes:
        recipe: of distppo that it stands beside.
        config: of that recipe: how often and how long training evaluates.
        env: gymnasium id.
        total: env steps of a run.
        settings: of PPO.
        label: of a variant; empty for none.
        episodes: of a score.
        cache: where the library is installed.
    """

    recipe: str
    config: Config
    env: str
    total: int
    settings: dict[str, Any]
    label: str
    episodes: int
    cache: Path

    @property
    def name(self) -> str:
        """<env>-<env steps>-sb3."""
        return experiment_name(self.env, self.total, "-".join([LABEL, *([self.label] if self.label else [])]))

    def header(self) -> dict[str, Any]:
        """Returns what the results say of all seeds."""
        return {
            "name": self.name,
            "env": self.env,
            "total_timesteps": self.total,
            "label": self.label,
            "recipe": self.recipe,
            "peer": PEERS["sb3"].title,
            "command": f"python benchmarks/scores.py {self.recipe} --peer sb3 --total-timesteps {self.total}",
            "source": SOURCE,
            "settings": {**self.settings, "normalize": True},
        }

    def folder(self, seed: int) -> str:
        """Returns seed<k>-<digest of the settings>."""
        digest = hashlib.sha256(json.dumps(self.header()["settings"], sort_keys=True).encode()).hexdigest()
        return f"seed{seed}-{digest[:8]}"

    def command(self, seed: int, directory: Path) -> list[str]:
        """Returns the command of a run, which begins anew: the library cannot go on with one to the bit.

        Raises:
            RunFailed: the library could not be installed.
        """
        try:
            python = install("sb3", PEERS["sb3"].requirements, self.cache)
        except InstallFailed as error:
            raise RunFailed(str(error)) from error
        evaluation = self.config.evaluation
        values = {
            "env": self.env,
            "settings": json.dumps(self.settings),
            "seed": seed,
            "total-timesteps": self.total,
            "evaluate-every": evaluation.every,
            "evaluation-seeds": json.dumps(reset_seeds(seed, evaluation.episodes)),
            "score-seeds": json.dumps(reset_seeds(EVALUATION_SEED + seed, self.episodes)),
            "directory": directory,
        }
        return [str(python), str(HERE / "peers" / "score_sb3.py"), *(f"--{name}={value}" for name, value in values.items())]

    def finished(self, seed: int, directory: Path) -> bool:
        """Whether the run has its scores."""
        return (directory / "result.json").is_file()

    def collect(self, seed: int, directory: Path, episodes: int) -> Scored:
        """Returns the scores that the run has taken itself."""
        result = json.loads((directory / "result.json").read_text(encoding="utf-8"))
        versions = result.pop("versions")
        here = {key: value for key, value in machine_info().items() if key in ("platform", "cpu", "cores", "memory_bytes", "gpu")}
        commits = unique([command["commit"] for command in read_commands(directory)])
        return {**result, "interruptions": 0, "commits": commits, "machine": {**versions, **here}}, read_curve(directory)

    def news(self, directory: Path) -> Callable[[], str]:
        """Returns what says in a line how far the run is."""

        def line() -> str:
            curve = read_curve(directory)
            if not curve:
                return "starting"
            point = curve[-1]
            reached = "no episode has ended" if point.training_return is None else f"return {point.training_return:,.0f}"
            rate = point.env_steps / point.seconds
            return f"{point.env_steps:,} of {self.total:,} env steps, {reached}, {point.seconds / 60:.1f} min, {rate:,.0f} env steps/s"

        return line


def plan_sb3(recipe: str, *, config: Config, label: str, episodes: int, cache: Path) -> TunedSb3:
    """Returns the experiment beside a recipe of distppo: the same environment and env steps.

    Raises:
        UserError: nothing is tuned for its environment.
    """
    env = config.env.id
    if env not in TUNED:
        raise UserError(f"RL Baselines3 Zoo has no tuned PPO for {env}{did_you_mean(env, TUNED)}; it has: {', '.join(TUNED)}")
    return TunedSb3(recipe, config, env, config.run.total_timesteps, TUNED[env], label, episodes, cache)


def reset_seeds(seed: int, episodes: int) -> list[int]:
    """Returns the seeds that distppo resets the environment of its evaluations with, so that all start from the same states."""
    return [env_seed(seed, Purpose.EVALUATION_RESET, episode) for episode in range(episodes)]


def read_curve(directory: Path) -> list[CurvePoint]:
    """Returns the curve of a run, without a last line that is being written."""
    try:
        text = (directory / "curve.csv").read_text(encoding="utf-8")
    except FileNotFoundError:
        return []
    rows = csv.DictReader(text[: text.rfind("\n") + 1].splitlines())
    return [
        CurvePoint(int(row["env_steps"]), float(row["seconds"]), _number(row["training_return"]), _number(row["evaluation_return"]))
        for row in rows
    ]


def _number(text: str) -> float | None:
    return float(text) if text else None
