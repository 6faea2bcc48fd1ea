"""`config show`: the settings that files and flags result in."""

from __future__ import annotations

from collections.abc import Sequence

from distppo.cli.parser import Parser
from distppo.cli.settings import add_setting_flags, read_setting_flags
from distppo.config import dump_config, explain_config


def main(argv: Sequence[str], program: str) -> int:
    """Runs the command.

    Raises:
        UserError: an argument or a setting is wrong.
    """
    parser = Parser(program, "[FLAGS]", "Prints the settings that files and flags result in, as YAML that --config takes.")
    add_setting_flags(parser)
    group = parser.add_argument_group("output")
    group.add_argument("--explain", action="store_true", help="say on every line where the value comes from")
    arguments = parser.read(argv)
    config, overrides = read_setting_flags(arguments)
    print(explain_config(config, overrides) if arguments.explain else dump_config(config), end="")
    return 0
