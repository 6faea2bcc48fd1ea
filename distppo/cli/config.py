"""`config`: the settings as resolved, whether files are right, how two runs differ, and the schema for editors."""

from __future__ import annotations

from collections.abc import Sequence

from distppo.cli.commands import Command, choose_command

COMMANDS = (
    Command("show", "Print the settings that files and flags result in, as YAML.", "distppo.cli.config_show"),
    Command("check", "Say whether YAML files are right, or everything that is wrong with them.", "distppo.cli.config_check"),
    Command("diff", "Say in which settings two files, runs or checkpoints differ.", "distppo.cli.config_diff"),
    Command("schema", "Print a JSON schema of the settings, for editors.", "distppo.cli.config_schema"),
)


def main(argv: Sequence[str], program: str) -> int:
    """Runs one of the commands.

    Raises:
        UserError: there is none of that name, or something is wrong with what it was given.
    """
    return choose_command(COMMANDS, argv, program, "Shows, checks and compares settings.")
