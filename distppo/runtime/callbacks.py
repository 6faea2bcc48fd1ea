"""Making the callbacks of a run, and calling them."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from distppo.callbacks import EVENTS, TrainingRun
from distppo.config import Config, Plugin
from distppo.config.suggest import did_you_mean
from distppo.errors import UserError, failure_text
from distppo.plugins import load_plugin, refused_arguments

ARGUMENTS = {
    "on_start": ("run",),
    "on_iteration": ("run", "metrics"),
    "on_evaluation": ("run", "returns"),
    "on_checkpoint": ("run", "path", "best"),
    "on_end": ("run", "summary"),
}
"""What each method is called with, by position."""


class CallbackFailed(UserError):
    """A callback raised; the learner is as it was after the last update, and worth saving."""


class Callbacks:
    """The callbacks of a run, in the order of `run.callbacks`.

    Args:
        plugins: that the settings name.

    Raises:
        UserError: one cannot be imported or made, or has a method that would never be called or cannot be called as it is.
    """

    def __init__(self, plugins: Sequence[Plugin]) -> None:
        self._calls: dict[str, list[tuple[str, Callable[..., Any]]]] = {event: [] for event in EVENTS}
        self.run: TrainingRun | None = None
        for index, plugin in enumerate(plugins):
            name = f"run.callbacks[{index}] {plugin.target!r}"
            for event, method in _methods(name, _made(plugin, index, name)).items():
                self._calls[event].append((f"{name} raised an error in {event}", method))

    def attach(self, config: Config, directory: Path) -> None:
        """Gives the callbacks the run they are called for."""
        self.run = TrainingRun(config, directory)

    @property
    def stop_reason(self) -> str | None:
        """Why a callback has asked to stop; None if none has."""
        return self.run.stop_reason if self.run else None

    def stop(self, reason: str) -> None:
        """Has the run end after this iteration, as if a callback had asked for it."""
        assert self.run is not None, "nothing runs yet"
        self.run.stop(reason)

    def call(self, event: str, *arguments: Any, iteration: int, env_steps: int) -> None:
        """Calls every callback's method for an event.

        Args:
            event: one of EVENTS.
            *arguments: what it is called with after the run.
            iteration: iterations learned from.
            env_steps: env steps learned from.

        Raises:
            CallbackFailed: a callback raised; the message names it and has the end of its traceback.
        """
        if self.run is None or not self._calls[event]:
            return
        self.run.iteration, self.run.env_steps = iteration, env_steps
        for what, method in self._calls[event]:
            try:
                method(self.run, *arguments)
            except (Exception, SystemExit) as error:
                raise CallbackFailed(f"{what}:\n{failure_text(error)}") from error


def _made(plugin: Plugin, index: int, name: str) -> Any:
    create = load_plugin(plugin, f"run.callbacks[{index}]", given=0)
    try:
        return create(**plugin.kwargs)
    except (Exception, SystemExit) as error:
        raise UserError(f"{name} could not be made:\n{failure_text(error)}") from error


def _methods(name: str, callback: Any) -> dict[str, Callable[..., Any]]:
    """Returns event -> method, having looked at every name that begins with on_."""
    found = {event: getattr(callback, event) for event in dir(callback) if event.startswith("on_")}
    if not found:
        raise UserError(f"{name} is no callback: {type(callback).__name__} has none of the methods {', '.join(EVENTS)}")
    for event, method in found.items():
        if event not in EVENTS:
            hint = did_you_mean(event, EVENTS) or f"; there are {', '.join(EVENTS)}"
            raise UserError(f"{name} has a method {event}, which is never called{hint}")
        if not callable(method):
            raise UserError(f"{name}: {event} must be a method, not {type(method).__name__}")
        refused = refused_arguments(method, (), given=len(ARGUMENTS[event]))
        if refused:
            raise UserError(f"{name}: {event} is called with ({', '.join(ARGUMENTS[event])}), but it {refused}")
    return found
