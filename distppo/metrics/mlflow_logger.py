"""Metrics for MLflow."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from typing import Any

from distppo.metrics.keys import STEPS
from distppo.metrics.loggers import LoggedRun, MetricLogger

PROJECT = "distppo"
LONGEST_VALUE = 500
"""Of a parameter, which some of MLflow's stores refuse above that."""
STATUS = {"finished": "FINISHED", "stopped": "FINISHED", "interrupted": "KILLED"}


class MlflowLogger(MetricLogger):
    """Logs to MLflow; steps are env steps.

    Args:
        project: name of its experiment.
        name: of the run; None is the run directory's.
        tags: one or several; `key=value` sets that tag, a word alone is a tag with the value true.
        tracking_uri: of the server, or of a folder (file:...); None is what MLFLOW_TRACKING_URI says, else MLflow's default.
    """

    def __init__(
        self, project: str = PROJECT, name: str | None = None, tags: str | Sequence[str] = (), tracking_uri: str | None = None
    ) -> None:
        self._project, self._name, self._uri = str(project), name, tracking_uri
        words = [tags] if isinstance(tags, str) else map(str, tags)
        self._tags = {key: value or "true" for key, _, value in (word.partition("=") for word in words)}
        self._client: Any = None
        self._id = ""

    def open(self, run: LoggedRun) -> str | None:
        """Begins a run there, or goes on with the one it has."""
        from mlflow import MlflowClient
        from mlflow.entities import Param

        if str(self._uri).startswith("file:"):
            # MLflow 3 would rather have a database, and refuses folders unless one insists, as who names one does.
            os.environ.setdefault("MLFLOW_ALLOW_FILE_STORE", "true")
        self._client = MlflowClient(tracking_uri=self._uri)
        if run.known_as:
            self._id = run.known_as
            self._client.update_run(self._id, status="RUNNING")
            return self._id
        experiment = self._client.get_experiment_by_name(self._project)
        experiment_id = experiment.experiment_id if experiment else self._client.create_experiment(self._project)
        began = self._client.create_run(experiment_id, run_name=str(self._name or run.directory.name), tags=self._tags)
        self._id = str(began.info.run_id)
        settings = {f"{section}.{name}": value for section, values in run.config.items() for name, value in values.items()}
        self._client.log_batch(self._id, params=[Param(key, str(value)[:LONGEST_VALUE]) for key, value in settings.items()])
        return self._id

    def row(self, env_steps: int, numbers: Mapping[str, float]) -> None:
        """Logs all numbers in one call."""
        import time

        from mlflow.entities import Metric

        now = int(1000 * time.time())
        self._client.log_batch(self._id, metrics=[Metric(key, value, now, env_steps) for key, value in numbers.items() if key != STEPS])

    def close(self, ended: str) -> None:
        """Says how the run ended."""
        self._client.set_terminated(self._id, status=STATUS.get(ended, "FAILED"))
