"""`replay`: goes back to a fault that a run has recorded."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from typing import TYPE_CHECKING

from distppo.cli.parser import Parser
from distppo.cli.settings import add_trust_flag
from distppo.errors import UserError

if TYPE_CHECKING:
    from distppo.checkpoint import Checkpoint

DEFAULT_LAST = 5
DEFAULT_TIMEOUT = 60.0
DID_NOT_HAPPEN = 1
LATEST = "latest"
SHOWN_VERSIONS = ("python", "numpy", "gymnasium", "mujoco")


def main(argv: Sequence[str], program: str) -> int:
    """Runs the command; returns 0 if the fault happened again, 1 if it did not.

    Raises:
        UserError: an argument or the record is wrong, or it cannot be replayed here.
    """
    arguments = _parser(program).read(argv)

    from distppo.flight import load_dump, replay

    dump = load_dump(_latest_run() if arguments.dump == LATEST else arguments.dump)
    for line in head_lines(dump):
        print(printable(line), flush=True)
    result = replay(
        dump,
        trust=arguments.trust,
        last=arguments.last,
        timeout=arguments.timeout,
        show=lambda line: print(printable(line), flush=True),
    )
    print(printable(f"{'it happened again' if result.happened else 'it did not happen again'}: {result.text.rstrip()}"))
    return 0 if result.happened else DID_NOT_HAPPEN


def _latest_run() -> str:
    from distppo.runtime.run_directory import find_run

    try:
        return str(find_run(LATEST))
    except OSError as error:
        raise UserError(f"{LATEST}: {error}") from error


def head_lines(dump: Checkpoint) -> list[str]:
    """Returns what the record says of itself."""
    fault, machine = dump.state["fault"], dump.state.get("machine", {})
    config = dump.state.get("config", {})
    lines = [
        f"{dump.path}",
        f"what:   {str(fault.get('what')).replace('_', ' ')}",
        f"where:  {fault.get('where')}",
        f"why:    {fault.get('why')}",
        f"seed:   {config.get('run', {}).get('seed')}, iteration {dump.iteration}, step {fault.get('step', 'unknown')} of the fragment",
    ]
    return [*lines, "with:   " + ", ".join(f"{name} {machine.get(name)}" for name in SHOWN_VERSIONS), ""]


def printable(text: str) -> str:
    """Returns the text without characters that a terminal takes for commands: a record may come from anybody."""
    return "".join(character if character.isprintable() or character == "\n" else "?" for character in text)


def _parser(program: str) -> Parser:
    description = "Makes the environment of a flight record, puts it where it was, and steps it to the fault."
    parser = Parser(program, "DUMP [FLAGS]", description)
    parser.add_argument(
        "dump",
        metavar="DUMP",
        help="a flight record (RUN/faults/0001-...), or a run that has one: its directory, its name under runs/, or latest",
    )
    add_trust_flag(parser)
    parser.add_argument(
        "--last", metavar="N", type=_count, default=DEFAULT_LAST, help=f"steps shown before the fault (default: {DEFAULT_LAST})"
    )
    parser.add_argument(
        "--timeout",
        metavar="SECONDS",
        type=_seconds,
        default=DEFAULT_TIMEOUT,
        help=f"a step of a whole fragment that takes longer counts as hanging (default: {DEFAULT_TIMEOUT:g})",
    )
    return parser


def _count(text: str) -> int:
    if not text.isdecimal():
        raise argparse.ArgumentTypeError(f"must be a whole number, at least 0, got {text!r}")
    return int(text)


def _seconds(text: str) -> float:
    try:
        seconds = float(text)
    except ValueError:
        seconds = 0.0
    if not 0 < seconds < 1e9:
        raise argparse.ArgumentTypeError(f"must be a number of seconds above 0, got {text!r}")
    return seconds
