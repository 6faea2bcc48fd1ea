"""Loggers besides the files of a run: what one is, and which ones the settings name."""

from __future__ import annotations

import importlib.util
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

from distppo.config.schema import MetricsConfig
from distppo.config.suggest import closest
from distppo.errors import UserError, failure_text
from distppo.plugins import load_plugin, refused_arguments

PACKAGES = {"wandb": "Weights & Biases", "mlflow": "MLflow"}
"""Settings, extras and modules of the loggers that come along."""
LOG_FILE = "loggers.log"
"""In the run directory: what loggers print."""
MEMORY_FILE = "loggers.json"
"""In the run directory: logger -> its own name for the run, so that a resumed run goes on in the same one."""
WANDB_DIRECTORY = "wandb"
ARGUMENTS = {"open": ("run",), "row": ("env_steps", "numbers"), "close": ("ended",)}
"""What each method is called with, by position."""


class LoggedRun(NamedTuple):
    """What a logger is told of a run when it begins.

    Attributes:
        directory: of the run.
        config: its settings, sections of plain values.
        known_as: what `open` returned when the run began, where it is being resumed; else None.
    """

    directory: Path
    config: Mapping[str, Mapping[str, Any]]
    known_as: str | None


class MetricLogger:
    """Base class of loggers. All methods are called in a process of the logger's own, in order; what they raise is told once, and ends it.

    A logger is made twice: before the run starts, to see that it can be, and in its process. What it opens belongs into `open`.

    Example:
        In YAML: `metrics: {loggers: [{class: my_loggers:PostToChat, channel: training}]}`
    """

    def open(self, run: LoggedRun) -> str | None:
        """Begins, or goes on.

        Args:
            run: what is going to be logged.

        Returns:
            The logger's own name for the run, which it is given back when the run is resumed; None if it has none.
        """
        return None

    def row(self, env_steps: int, numbers: Mapping[str, float]) -> None:
        """Takes one iteration.

        Args:
            env_steps: learned from so far, the x-axis. They go back where a run was resumed from an earlier checkpoint.
            numbers: by the keys of docs/metrics.md; finite ones only.
        """

    def close(self, ended: str) -> None:
        """Ends.

        Args:
            ended: finished, stopped, interrupted, error, or crashed where the run has not said how it ended.
        """


class NamedLogger(NamedTuple):
    """A logger and what it is called in messages."""

    name: str
    logger: MetricLogger


def require_loggers(config: MetricsConfig) -> None:
    """Makes certain that every logger that the settings name can be made.

    Raises:
        UserError: a package is missing, or a logger of the user's is none.
    """
    for name, title in PACKAGES.items():
        if getattr(config, name) and importlib.util.find_spec(name) is None:
            raise UserError(f"metrics.{name} needs the package {name} ({title}), which is not installed: pip install 'distppo[{name}]'")
    for index, plugin in enumerate(config.loggers):
        _own(plugin, f"metrics.loggers[{index}]")


def make_loggers(config: MetricsConfig) -> list[NamedLogger]:
    """Returns the loggers that the settings name, which `require_loggers` has let pass; errors as there."""
    made: list[NamedLogger] = []
    if config.wandb:
        from distppo.metrics.wandb_logger import WandbLogger

        made.append(NamedLogger("wandb", WandbLogger(**config.wandb)))
    if config.mlflow:
        from distppo.metrics.mlflow_logger import MlflowLogger

        made.append(NamedLogger("mlflow", MlflowLogger(**config.mlflow)))
    own = [_own(plugin, f"metrics.loggers[{index}]") for index, plugin in enumerate(config.loggers)]
    return made + [NamedLogger(plugin.target, logger) for plugin, logger in zip(config.loggers, own, strict=True)]


def _own(plugin: Any, place: str) -> MetricLogger:
    name = f"{place} {plugin.target!r}"
    create = load_plugin(plugin, place, given=0)
    try:
        logger = create(**plugin.kwargs)
    except (Exception, SystemExit) as error:
        raise UserError(f"{name} could not be made:\n{failure_text(error)}") from error
    if not isinstance(logger, MetricLogger):
        raise UserError(f"{name} is no logger: it is not derived from distppo.metrics.loggers.MetricLogger")
    _require_methods(name, logger)
    return logger


def _require_methods(name: str, logger: MetricLogger) -> None:
    """Refuses a logger that would never be called, or not as it expects."""
    own = [method for method in ARGUMENTS if getattr(type(logger), method) is not getattr(MetricLogger, method)]
    if not own:
        others = [other for other in dir(logger) if not other.startswith("_") and other not in ARGUMENTS]
        near = next((f"; did you mean {method} by {other}?" for method in ARGUMENTS if (other := closest(method, others))), "")
        raise UserError(f"{name} would never be called: {type(logger).__name__} has none of the methods {', '.join(ARGUMENTS)}{near}")
    for method in own:
        refused = refused_arguments(getattr(logger, method), (), given=len(ARGUMENTS[method]))
        if refused:
            raise UserError(f"{name}: {method} is called with ({', '.join(ARGUMENTS[method])}), but it {refused}")
