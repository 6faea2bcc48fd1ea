"""Loggers that tests name as a user would: one that works, one that breaks, one that never returns."""

from __future__ import annotations

import json
import threading
from collections.abc import Mapping

from distppo.metrics.loggers import LoggedRun, MetricLogger


class Lines(MetricLogger):
    """Writes a JSON line for every call into a file.

    Args:
        path: of the file, appended to.
    """

    def __init__(self, path: str) -> None:
        self._path = path

    def _write(self, **fields: object) -> None:
        with open(self._path, "a") as file:
            file.write(json.dumps(fields) + "\n")

    def open(self, run: LoggedRun) -> str | None:
        self._write(call="open", directory=str(run.directory), env=run.config["env"]["id"], known_as=run.known_as)
        return "the name here"

    def row(self, env_steps: int, numbers: Mapping[str, float]) -> None:
        self._write(call="row", env_steps=env_steps, numbers=dict(numbers))

    def close(self, ended: str) -> None:
        self._write(call="close", ended=ended)


class Failing(MetricLogger):
    """Raises at every row."""

    def row(self, env_steps: int, numbers: Mapping[str, float]) -> None:
        raise ConnectionError("the server\nis down")


class Hanging(MetricLogger):
    """Never comes back from a row."""

    def row(self, env_steps: int, numbers: Mapping[str, float]) -> None:
        threading.Event().wait()


class NoLogger:
    """Is not derived from MetricLogger."""


class Rows(MetricLogger):
    """Has a method that nobody calls."""

    def rows(self, env_steps: int, numbers: Mapping[str, float]) -> None:
        raise AssertionError


class ClosesAlone(MetricLogger):
    """Does not take how the run ended."""

    def close(self) -> None:  # type: ignore[override]
        raise AssertionError
