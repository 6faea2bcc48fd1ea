"""The command line: one module a subcommand, listed in `commands`. At import time this needs the standard library alone."""

from __future__ import annotations

import os
import select
import sys
from collections.abc import Sequence

from distppo.cli.commands import run_command
from distppo.cli.missing import explain_missing
from distppo.errors import ConfigError, UserError

INTERRUPTED = 130
CLOSED_PIPE = 141
WRONG_USE = 2


def main(argv: Sequence[str] | None = None) -> int:
    """Runs one command and returns its exit code: 0, 2 for a mistake of the user's, 128 + signal where one ended the run.

    Args:
        argv: the arguments after the program's name; None takes those of the process.
    """
    try:
        code = _exit_code(sys.argv[1:] if argv is None else argv)
        sys.stdout.flush()
        return code
    except UserError as error:
        _print_error(error)
        return WRONG_USE
    except ModuleNotFoundError as error:
        message = explain_missing(error.name or "")
        if message is None:
            raise
        print(f"error: {message}", file=sys.stderr)
        return WRONG_USE
    except KeyboardInterrupt:
        print("interrupted", file=sys.stderr)
        return INTERRUPTED
    except BrokenPipeError:
        if not _reader_has_gone():
            raise
        return CLOSED_PIPE


def _exit_code(argv: Sequence[str]) -> int:
    try:
        return run_command(argv)
    except SystemExit as request:  # how argparse ends --help
        return request.code if isinstance(request.code, int) else 0


def _print_error(error: UserError) -> None:
    lines = str(error).splitlines() or [type(error).__name__]
    if isinstance(error, ConfigError) and len(lines) > 1:
        lines = [f"{len(lines)} problems:", *(f"  {line}" for line in lines)]
    print("error: " + "\n".join(map(_printable, lines)), file=sys.stderr)


def _printable(line: str) -> str:
    """Returns the line with escapes for what a terminal would obey: a message can quote a stranger's file names."""
    return "".join(c if c.isprintable() else ascii(c)[1:-1] for c in line)


def _reader_has_gone() -> bool:
    """Says whether stdout is the pipe that broke, as under `| head`; if so nothing more is written to it, at exit neither."""
    try:
        stdout = sys.stdout.fileno()
    except (OSError, ValueError):  # not a file of the operating system's
        return False
    poll = select.poll()
    poll.register(stdout, 0)
    if not any(event & (select.POLLERR | select.POLLHUP) for _, event in poll.poll(0)):
        return False
    os.dup2(os.open(os.devnull, os.O_WRONLY), stdout)
    return True
