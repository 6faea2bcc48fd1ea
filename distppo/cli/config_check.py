"""`config check`: whether YAML files are right."""

from __future__ import annotations

from collections.abc import Sequence

from distppo.cli.parser import Parser
from distppo.config import load_config
from distppo.errors import ConfigError


def main(argv: Sequence[str], program: str) -> int:
    """Runs the command.

    Raises:
        UserError: an argument is wrong, or a file is; the message lists everything that is wrong in all of them.
    """
    parser = Parser(program, "FILE ...", "Checks YAML files, each by itself over the defaults.")
    parser.add_argument("files", nargs="+", metavar="FILE", help="YAML file")
    wrong: list[ConfigError] = []
    for file in parser.read(argv).files:
        try:
            load_config(file)
        except ConfigError as error:
            wrong.append(error)
        else:
            print(f"{file}: ok")
    if wrong:
        raise ConfigError("\n".join(map(str, wrong)), sum(error.count for error in wrong))
    return 0
