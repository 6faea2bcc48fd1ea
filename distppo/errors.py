"""The errors a user can cause, as opposed to defects of ours."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from distppo.types import FaultEvent


class UserError(ValueError):
    """Something the user can put right. The command line prints its message without a traceback and exits 2."""


class ConfigError(UserError):
    """One or more settings are wrong. The message has a line for each, with its place."""


class CheckpointError(UserError):
    """A checkpoint is missing, damaged, foreign or does not fit."""


class ResourceError(UserError):
    """The cluster cannot give what the run needs."""


class EnvFaultError(UserError):
    """An environment broke for good.

    Attributes:
        fault: what happened, with the record that the flight recorder writes down.
    """

    def __init__(self, message: str, fault: FaultEvent | None = None) -> None:
        super().__init__(message)
        self.fault = fault
