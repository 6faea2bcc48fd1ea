"""`env check`: examines an environment."""

from __future__ import annotations

from collections.abc import Sequence

from distppo.cli.commands import Command, choose_command

COMMANDS = (Command("check", "Examine an environment as training would make it, and say what is wrong with it.", "distppo.cli.env_check"),)


def main(argv: Sequence[str], program: str) -> int:
    """Runs one of the commands.

    Raises:
        UserError: there is none of that name, or something is wrong with what it was given.
    """
    return choose_command(COMMANDS, argv, program, "Examines environments.")
