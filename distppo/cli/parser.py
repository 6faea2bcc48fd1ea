"""argparse with our manners: no abbreviated flags, did-you-mean for unknown ones, mistakes as UserError."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from typing import NoReturn

from distppo.config.suggest import did_you_mean, quoted, shortened
from distppo.errors import UserError


class Parser(argparse.ArgumentParser):
    """The parser of one subcommand."""

    def __init__(self, program: str, usage: str, description: str) -> None:
        super().__init__(prog=program, usage=f"%(prog)s {usage}", description=description, allow_abbrev=False)

    def read(self, argv: Sequence[str]) -> argparse.Namespace:
        """Returns the arguments.

        Raises:
            UserError: one is unknown, missing or malformed.
        """
        namespace, unknown = self.parse_known_args(list(argv))
        known = [option for action in self._actions for option in action.option_strings]
        flags = [word.partition("=")[0] for word in unknown if word.startswith("-")]
        if flags:  # what else is unknown then are their values
            self.error("; ".join(f"unknown flag {shortened(flag)}{did_you_mean(flag, known)}" for flag in flags))
        if unknown:
            self.error(f"unexpected argument {', '.join(quoted(word) for word in unknown)}")
        return namespace

    def error(self, message: str) -> NoReturn:
        """Raises instead of printing the usage and leaving."""
        raise UserError(f"{message} (see {self.prog} --help)")
