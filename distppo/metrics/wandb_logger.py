"""Metrics for Weights & Biases."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from typing import Any

from distppo.metrics.keys import STEPS
from distppo.metrics.loggers import LoggedRun, MetricLogger

PROJECT = "distppo"
IN_ORDER = ("finished", "stopped", "interrupted")


class WandbLogger(MetricLogger):
    """Logs to Weights & Biases, with env steps as the x-axis of every chart.

    Args:
        project: there.
        name: of the run; None is the run directory's.
        tags: one or several.
        mode: online, or offline: into the run directory, from which `wandb sync` sends it later.
        options: others of wandb.init: group, entity, notes.
    """

    def __init__(
        self, project: str = PROJECT, name: str | None = None, tags: str | Sequence[str] = (), mode: str = "online", **options: Any
    ) -> None:
        self._options = {
            **options,
            "project": str(project),
            "mode": mode,
            "tags": [tags] if isinstance(tags, str) else list(map(str, tags)),
        }
        self._name = name
        self._run: Any = None

    def open(self, run: LoggedRun) -> str | None:
        """Begins a run there, or goes on with the one it has."""
        # Nobody could answer a question here; without a login it is to fail.
        os.environ.setdefault("WANDB_SILENT", "true")
        import wandb

        self._run = wandb.init(
            **self._options,
            name=str(self._name or run.directory.name),
            dir=str(run.directory),
            config={section: dict(values) for section, values in run.config.items()},
            id=run.known_as,
            resume="allow" if run.known_as else None,
            settings=wandb.Settings(console="off", x_disable_stats=True),
        )
        self._run.define_metric(STEPS)
        self._run.define_metric("*", step_metric=STEPS)
        return str(self._run.id)

    def row(self, env_steps: int, numbers: Mapping[str, float]) -> None:
        """Hands the numbers to wandb's own process."""
        self._run.log({**numbers, STEPS: env_steps})

    def close(self, ended: str) -> None:
        """Waits until everything is there."""
        self._run.finish(exit_code=0 if ended in IN_ORDER else 1)
