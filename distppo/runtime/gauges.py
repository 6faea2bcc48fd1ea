"""The metrics of a run in Ray's own, which a Prometheus scrapes from every node: docs/grafana/distppo.json draws them."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from ray.util.metrics import Counter, Gauge

from distppo.metrics.keys import KEYS

PREFIX = "distppo"
RUN, PHASE, KIND = "run", "phase", "kind"
GAUGES = {
    "rollout/ep_rew_mean": "episode_return_mean",
    "rollout/ep_len_mean": "episode_length_mean",
    "eval/mean_reward": "evaluation_return_mean",
    "time/fps_iteration": "env_steps_per_second",
    "time/iterations": "iterations",
    "train/approx_kl": "approx_kl",
    "train/clip_fraction": "clip_fraction",
    "train/entropy_loss": "entropy_loss",
    "train/explained_variance": "explained_variance",
    "train/grad_norm": "grad_norm",
    "train/learning_rate": "learning_rate",
    "train/value_loss": "value_loss",
    "dist/learner_seconds": "learner_seconds",
    "dist/policy_version": "policy_version",
    "dist/rollout_bytes": "rollout_bytes",
    "dist/staleness": "staleness",
    "dist/worker_seconds_max": "worker_seconds_max",
    "dist/worker_seconds_min": "worker_seconds_min",
    "dist/workers": "workers",
}
"""Key of a row -> name of the gauge, after the prefix."""
PHASES = ("collect", "update", "broadcast", "evaluate", "checkpoint", "other")
FAULTS = "faults/"


class Gauges:
    """Shows the latest row of a run.

    Args:
        run: its unique name, which every metric is labelled with.
    """

    def __init__(self, run: str) -> None:
        self._label = {RUN: run}
        self._gauges = {key: Gauge(f"{PREFIX}_{name}", KEYS[key], (RUN,)) for key, name in GAUGES.items()}
        self._phase_seconds = Gauge(f"{PREFIX}_phase_seconds", "Seconds of the last iteration by what they were spent on.", (RUN, PHASE))
        self._env_steps = Counter(f"{PREFIX}_env_steps", "Env steps learned from since this process started training.", (RUN,))
        # No counter: one of Ray's is not there before it has counted something, and here 0 is the good news.
        self._faults = Gauge(f"{PREFIX}_faults", "What went wrong since this process started training, by kind.", (RUN, KIND))

    def show(self, row: Mapping[str, Any], batch_size: int) -> None:
        """Takes the values of a row that there are.

        Args:
            row: of an iteration, by the keys of docs/metrics.md.
            batch_size: env steps that it learned from.
        """
        for key, gauge in self._gauges.items():
            if key in row:
                gauge.set(row[key], self._label)
        for phase in PHASES:
            self._phase_seconds.set(row[f"time/{phase}"], {**self._label, PHASE: phase})
        self._env_steps.inc(batch_size, self._label)
        for key in (key for key in row if key.startswith(FAULTS)):
            self._faults.set(row[key], {**self._label, KIND: key.removeprefix(FAULTS)})
