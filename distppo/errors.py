"""The errors a user can cause, as opposed to defects of ours, and how one in a user's own code is shown."""

from __future__ import annotations

import traceback
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from distppo.types import FaultEvent

FRAMES = 3


class UserError(ValueError):
    """Something the user can put right. The command line prints its message without a traceback and exits 2."""


class ConfigError(UserError):
    """One or more settings are wrong. The message has a line for each, with its place.

    Args:
        message: of many, only the first ones.
        count: how many there are; None: as many as lines.
    """

    def __init__(self, message: str, count: int | None = None) -> None:
        super().__init__(message)
        self.count = len(message.splitlines()) if count is None else count


class CheckpointError(UserError):
    """A checkpoint is missing, damaged, foreign or does not fit."""


class ResourceError(UserError):
    """The cluster cannot give what the run needs."""


class PeerLostError(Exception):
    """One of several learners is gone or does not answer; what the others were computing together is void."""


class EnvFaultError(UserError):
    """An environment broke for good.

    Attributes:
        fault: what happened, with the record that the flight recorder writes down.
    """

    def __init__(self, message: str, fault: FaultEvent | None = None) -> None:
        super().__init__(message)
        self.fault = fault


class ExportError(UserError):
    """A policy cannot be exported as asked, or what was written does not act as the policy does."""


def failure_text(error: BaseException) -> str:
    """Returns the end of the traceback, where the reason is, indented: the last frames below the one that caught it, and the exception."""
    frames = [frame for frame in traceback.extract_tb(error.__traceback__) if not frame.filename.startswith("<frozen importlib")]
    shown = traceback.format_list(frames[1:][-FRAMES:] or frames)
    lines = "".join([*shown, *traceback.format_exception_only(error)]).splitlines()
    return "\n".join(f"  {line}" for line in lines)
