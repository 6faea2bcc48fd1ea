"""Scores a checkpoint: the code behind `launch.py evaluate` and `distppo.evaluate`."""

from __future__ import annotations

import dataclasses
import os
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np

from distppo.checkpoint import load_resolved
from distppo.config import Config, config_from_dict
from distppo.config.trust import require_named
from distppo.envs import make_env
from distppo.errors import CheckpointError, UserError
from distppo.evaluation.episodes import EpisodeResult, play_episodes
from distppo.evaluation.policy import ExportedPolicy, Policy
from distppo.evaluation.restore import config_of, env_spec_from, env_spec_of, snapshot_of
from distppo.export.formats import is_exported, read_exported
from distppo.types import EnvSpec


class EvaluationResult(NamedTuple):
    """Returns of some episodes under a frozen policy.

    Attributes:
        checkpoint: directory or exported file it came from.
        env_id: environment played.
        env_steps: the policy was trained for.
        seed: of the evaluation.
        deterministic: whether the most likely action was taken.
        results: one per episode.
    """

    checkpoint: Path
    env_id: str
    env_steps: int
    seed: int
    deterministic: bool
    results: list[EpisodeResult]

    @property
    def episodes(self) -> int:
        """Number of episodes."""
        return len(self.results)

    @property
    def return_mean(self) -> float:
        """Mean episode return."""
        return float(np.mean([result.episode_return for result in self.results]))

    @property
    def return_std(self) -> float:
        """Standard deviation of the episode return over the episodes (ddof 0)."""
        return float(np.std([result.episode_return for result in self.results]))

    @property
    def length_mean(self) -> float:
        """Mean episode length, env steps."""
        return float(np.mean([result.length for result in self.results]))


class _Subject(NamedTuple):
    """What is played: where it is, what it was trained in and for how long, and the policy, which is made when its code is trusted."""

    path: Path
    config: Config
    spec: EnvSpec
    env_steps: int
    policy: Callable[[], Policy | ExportedPolicy]


def evaluate(
    checkpoint: str | os.PathLike[str],
    *,
    env: str | None = None,
    episodes: int = 10,
    seed: int = 0,
    deterministic: bool = True,
    trust: Sequence[str] = (),
) -> EvaluationResult:
    """Plays a checkpoint's or an exported policy with its normalizer frozen.

    Args:
        checkpoint: a checkpoint, a run directory (its best, else its last), `latest`, or an exported file.
        env: Gymnasium id to play instead of the one trained in; its spaces must be equal.
        episodes: how many, >= 1; the same (policy, seed, episode) gives the same return bit for bit.
        seed: of the episodes' starts and of the action noise.
        deterministic: take the most likely action (the mean of a Gaussian); else sample.
        trust: `module:Name`s that may be loaded although the checkpoint names them; what `env` names may anyway.

    Raises:
        CheckpointError: there is no valid checkpoint, or its policy does not fit the environment.
        UntrustedCodeError: the checkpoint names code that neither `env` nor `trust` does.
        UserError: `episodes` < 1, or the environment cannot be made.
    """
    if episodes < 1:
        raise UserError(f"episodes must be at least 1, got {episodes}")
    if seed < 0:
        raise UserError(f"seed must be at least 0, got {seed}")
    subject = _exported(Path(checkpoint)) if is_exported(checkpoint) else _trained(str(checkpoint))
    config = subject.config
    if env is not None:
        config = dataclasses.replace(config, env=dataclasses.replace(config.env, id=env))
    require_named(config, trust if env is None else [env, *trust], source=subject.path, sections=("env", "network"))
    policy = subject.policy()
    if not deterministic and isinstance(policy, ExportedPolicy):
        raise UserError(f"{subject.path} is an exported policy, which is deterministic; evaluate its checkpoint to sample actions")
    made, spec = make_env(config.env)
    try:
        require_same_spaces(subject.spec, spec, subject.path)
        results = play_episodes(made, spec, policy, range(episodes), seed=seed, deterministic=deterministic)
    finally:
        made.close()
    return EvaluationResult(subject.path, spec.id, subject.env_steps, seed, deterministic, results)


def _trained(reference: str) -> _Subject:
    loaded = load_resolved(reference, prefer="best")
    return _Subject(loaded.path, config_of(loaded), env_spec_of(loaded), loaded.env_steps, lambda: Policy(snapshot_of(loaded)))


def _exported(path: Path) -> _Subject:
    policy = ExportedPolicy(read_exported(path))
    try:
        config = config_from_dict({"env": policy.origin["env"]}, origin=str(path))
        return _Subject(path, config, env_spec_from(policy.origin["env_spec"], str(path)), int(policy.origin["env_steps"]), lambda: policy)
    except (KeyError, TypeError, ValueError) as error:
        raise CheckpointError(f"{path}: it does not say what it was trained in ({error}). Export it again") from error


def require_same_spaces(trained: EnvSpec, given: EnvSpec, path: Path) -> None:
    """Raises CheckpointError unless a policy trained in one environment can act in the other."""
    names = ["observation_shape", "action_shape", "action_low", "action_high", "action_choices", "action_start"]
    for name in [*names, "observation_dtype"] if trained.observation_dtype == "uint8" else names:
        if getattr(trained, name) != getattr(given, name):
            what = name.replace("_", " ")
            raise CheckpointError(
                f"{path} was trained in {trained.id} with {what} {getattr(trained, name)}; {given.id} has {what} {getattr(given, name)}. "
                "Use the environment it was trained in, with the same env.kwargs"
            )
