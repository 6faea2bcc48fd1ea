"""`config show` and `config check`: the settings as resolved, and whether files are right."""

from __future__ import annotations

from collections.abc import Sequence

from distppo.cli.commands import Command, choose_command

COMMANDS = (
    Command("show", "Print the settings that files and flags result in, as YAML.", "distppo.cli.config_show"),
    Command("check", "Say whether YAML files are right, or everything that is wrong with them.", "distppo.cli.config_check"),
)


def main(argv: Sequence[str], program: str) -> int:
    """Runs one of the commands.

    Raises:
        UserError: there is none of that name, or something is wrong with what it was given.
    """
    return choose_command(COMMANDS, argv, program, "Shows or checks the settings.")
