"""argparse with our manners: no abbreviated flags, did-you-mean for unknown ones, mistakes as UserError."""

from __future__ import annotations

import argparse
import itertools
import re
import shlex
from collections.abc import Sequence
from typing import NoReturn

from distppo.config.fields import find_field, keys_named
from distppo.config.suggest import did_you_mean, quoted, shortened
from distppo.errors import UserError

_NEGATIVE = re.compile(r"-(\.?\d|\.?(inf|nan)$)", re.IGNORECASE)
_ALIKE = 0.7  # flags are so few that the nearest is often none that was meant


class Parser(argparse.ArgumentParser):
    """The parser of one subcommand."""

    def __init__(self, program: str, usage: str, description: str) -> None:
        super().__init__(prog=program, usage=f"%(prog)s {usage}", description=description, allow_abbrev=False)
        self._negative_number_matcher = _NEGATIVE  # argparse's own takes -1 for a value and -1e-3 for a flag

    def read(self, argv: Sequence[str]) -> argparse.Namespace:
        """Returns the arguments.

        Raises:
            UserError: one is unknown, missing or malformed.
        """
        namespace, unknown = self.parse_known_args(list(argv))
        before = list(itertools.takewhile(lambda word: word != "--", argv))
        known = [option for action in self._actions for option in action.option_strings]
        # A known flag is left over only where it stands behind the --, too.
        flags = [word for word in dict.fromkeys(unknown) if _is_flag(word) and word in before and word.partition("=")[0] not in known]
        if flags:  # what else is unknown then are their values
            self.error("; ".join(self._unknown_flag(word, before, known) for word in flags))
        if stray := [word for word in unknown if word != "--"]:
            hint = "; behind -- nothing is a flag" if any(map(_is_flag, stray)) else ""
            self.error(f"unexpected argument {', '.join(quoted(word) for word in stray)}{hint}")
        return namespace

    def error(self, message: str) -> NoReturn:
        """Raises instead of printing the usage and leaving."""
        raise UserError(f"{message} (see {self.prog} --help)")

    def _unknown_flag(self, word: str, argv: list[str], known: list[str]) -> str:
        flag, equals, value = word.partition("=")
        name = flag.lstrip("-").replace("-", "_")
        key = name if "." in name else name.replace("_", ".", 1)  # --ppo.gamma, --ppo-gamma
        keys = [key] if find_field(key) else keys_named(name)
        if not keys or "--set" not in known or flag.replace("_", "-") in known:
            return f"unknown flag {shortened(flag)}{did_you_mean(flag, known, cutoff=_ALIKE)}"
        values = [value] if equals else list(itertools.takewhile(lambda word: not _is_flag(word), argv[argv.index(word) + 1 :]))
        text = values[0] if len(values) == 1 and values[0] == shortened(values[0]) else "VALUE"
        instead = [f"--set {shlex.quote(f'{key}={text}')}" for key in keys]
        return f"unknown flag {shortened(flag)}: it is a setting, {' or '.join(instead)}"


def _is_flag(word: str) -> bool:
    return word.startswith("-") and not _NEGATIVE.match(word)
