"""The errors a user can cause, as opposed to defects of ours."""

from __future__ import annotations


class UserError(ValueError):
    """Something the user can put right. The command line prints its message without a traceback and exits 2."""


class ConfigError(UserError):
    """One or more settings are wrong. The message has a line for each, with its place."""


class CheckpointError(UserError):
    """A checkpoint is missing, damaged, foreign or does not fit."""


class ResourceError(UserError):
    """The cluster cannot give what the run needs."""
