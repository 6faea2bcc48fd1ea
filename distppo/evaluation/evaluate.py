"""Scores a checkpoint: `distppo.evaluate`, and what its result says."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np

from distppo.algo.scores import interquartile_mean, iqm_interval
from distppo.errors import UserError
from distppo.evaluation.episodes import EpisodeResult
from distppo.evaluation.parallel import Job, play
from distppo.evaluation.subject import Subject, load_subject, require_sampling


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
    def returns(self) -> np.ndarray:
        """[episodes] float64, in the order of the episodes."""
        return np.array([result.episode_return for result in self.results])

    @property
    def return_mean(self) -> float:
        """Mean episode return."""
        return float(np.mean(self.returns))

    @property
    def return_std(self) -> float:
        """Standard deviation of the episode return over the episodes (ddof 0)."""
        return float(np.std(self.returns))

    @property
    def return_median(self) -> float:
        """Median episode return."""
        return float(np.median(self.returns))

    @property
    def return_iqm(self) -> float:
        """Interquartile mean of the episode return."""
        return float(interquartile_mean(self.returns))

    @property
    def return_iqm_interval(self) -> tuple[float, float] | None:
        """95% bootstrap interval of the interquartile mean over the episodes; None for a single one."""
        return iqm_interval([self.returns])

    @property
    def length_mean(self) -> float:
        """Mean episode length, env steps."""
        return float(np.mean([result.length for result in self.results]))


def evaluate(
    checkpoint: str | os.PathLike[str],
    *,
    env: str | None = None,
    episodes: int = 10,
    seed: int = 0,
    deterministic: bool = True,
    trust: Sequence[str] = (),
    workers: int = 1,
) -> EvaluationResult:
    """Plays a checkpoint's or an exported policy with its normalizer frozen. Nothing is written.

    Args:
        checkpoint: a checkpoint, a run directory (its best, else its last), `latest`, an exported file, or `zoo:NAME`.
        env: Gymnasium id to play instead of the one trained in; its spaces must be equal.
        episodes: how many, >= 1; the same (policy, seed, episode) gives the same return bit for bit.
        seed: of the episodes' starts and of the action noise.
        deterministic: take the most likely action (the mean of a Gaussian); else sample.
        trust: `module:Name`s that may be loaded although the checkpoint names them; what `env` names may anyway.
        workers: processes that play the episodes side by side, >= 1; a script needs `if __name__ == "__main__":` for more than one.

    Raises:
        CheckpointError: there is no valid checkpoint, or its policy does not fit the environment.
        UntrustedCodeError: the checkpoint names code that neither `env` nor `trust` does.
        UserError: `episodes` < 1, or the environment cannot be made.
    """
    for name, value, least in (("episodes", episodes, 1), ("seed", seed, 0), ("workers", workers, 1)):
        if value < least:
            raise UserError(f"{name} must be at least {least}, got {value}")
    subject, _ = load_subject(checkpoint, env=env, trust=trust)
    if not deterministic:
        require_sampling(subject)
    results, _ = play(Job(subject, range(episodes), seed, deterministic), workers)
    return result_of(subject, seed, deterministic, results)


def result_of(subject: Subject, seed: int, deterministic: bool, results: list[EpisodeResult]) -> EvaluationResult:
    """Returns the result of a subject's episodes."""
    return EvaluationResult(subject.path, subject.config.env.id, subject.env_steps, seed, deterministic, results)
