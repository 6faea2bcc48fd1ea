"""The list of subcommands, and how one is found. Standard library alone, so that `--help` works before anything is installed."""

from __future__ import annotations

import importlib
import shlex
import shutil
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

from distppo import __version__
from distppo.errors import UserError


class Command(NamedTuple):
    """A subcommand: `module` has a function `main(argv, program) -> int`."""

    name: str
    summary: str
    module: str


COMMANDS = (
    Command("train", "Train a policy, or go on with a run.", "distppo.cli.train"),
    Command("submit", "Train on a Ray cluster, as a job.", "distppo.cli.submit"),
    Command("watch", "Show a run's live display, from another terminal or afterwards.", "distppo.cli.watch"),
    Command("evaluate", "Play a trained policy and report its returns.", "distppo.cli.evaluate"),
    Command("report", "Write what runs have learned, and how, as one HTML file.", "distppo.cli.report"),
    Command("replay", "Step an environment to a fault that a run has recorded.", "distppo.cli.replay"),
    Command("export", "Write a trained policy as one file to deploy: ONNX, numpy or torch.", "distppo.cli.export"),
    Command("config", "Show, check or compare settings.", "distppo.cli.config"),
    Command("doctor", "Check whether this machine can train, and say how to fix what is wrong.", "distppo.cli.doctor"),
    Command("autotune", "Measure this machine and propose workers, environments, mode and threads.", "distppo.cli.autotune"),
    Command("tune", "Search settings: many trials, the worse stopped early, the best written as a configuration.", "distppo.cli.tune"),
    Command("env", "Examine an environment.", "distppo.cli.env"),
)


def run_command(argv: Sequence[str]) -> int:
    """Runs the subcommand that the arguments begin with and returns its exit code.

    Raises:
        UserError: there is none of that name.
    """
    if "--version" in argv[:1]:
        print(f"distppo {__version__}")
        return 0
    description = "Distributed PPO for continuous control, on Ray."
    return choose_command(COMMANDS, argv, program_name(), description)


def choose_command(commands: Sequence[Command], argv: Sequence[str], program: str, description: str) -> int:
    """Runs the command that the arguments begin with, or shows what there is.

    Args:
        commands: to choose from.
        argv: its first entry names the command, the rest is the command's.
        program: how the user calls this level, for messages.
        description: for its help.

    Raises:
        UserError: there is no such command.
    """
    names = [command.name for command in commands]
    if not argv:
        raise UserError(f"a command is missing: {', '.join(names)} (see {program} --help)")
    first, rest = argv[0], argv[1:]
    if first in ("-h", "--help"):
        print(_help(commands, program, description))
        return 0
    if first in names:
        module = importlib.import_module(commands[names.index(first)].module)
        return int(module.main(rest, f"{program} {first}"))
    if first.startswith("-"):
        raise UserError(f"the command comes first, as in: {program} {names[0]} {first} (see {program} --help)")
    from distppo.config.suggest import did_you_mean, shortened

    hint = did_you_mean(first, names) or f"; there are {', '.join(names)}"
    raise UserError(f"unknown command {shortened(first)}{hint} (see {program} --help)")


def program_name() -> str:
    """Returns how the user called us, so that a command we print can be pasted back."""
    called = Path(sys.argv[0])
    if called.name == "launch.py":
        return f"{_python()} {shlex.quote(str(called))}"
    if called.name == "__main__.py" and called.resolve().parent == Path(__file__).resolve().parents[1]:
        return f"{_python()} -m distppo"
    return "distppo"


def _python() -> str:
    """Returns the shortest name of this interpreter that works here."""
    python, found = Path(sys.executable), shutil.which("python")
    if found and Path(found).parent == python.parent:
        return "python"
    try:
        here = Path.cwd()
    except FileNotFoundError:  # somebody has removed it
        return shlex.quote(str(python))
    return shlex.quote(str(python.relative_to(here) if python.is_relative_to(here) else python))


def _help(commands: Sequence[Command], program: str, description: str) -> str:
    width = max(len(command.name) for command in commands)
    lines = [f"  {command.name:<{width}}  {command.summary}" for command in commands]
    head = [f"usage: {program} COMMAND ...", "", description, "", "commands:"]
    return "\n".join([*head, *lines, "", f"{program} COMMAND --help shows a command's flags."])
