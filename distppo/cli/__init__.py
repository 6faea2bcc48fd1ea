"""The command line: one module a subcommand, listed in `commands`. At import time this needs the standard library alone."""

from __future__ import annotations

import errno
import io
import os
import select
import sys
from collections.abc import Sequence

from distppo.cli.commands import run_command
from distppo.cli.missing import explain_missing
from distppo.errors import ConfigError, UserError, failure_text

INTERRUPTED = 130
CLOSED_PIPE = 141
WRONG_USE = 2


def main(argv: Sequence[str] | None = None) -> int:
    """Runs one command and returns its exit code: 0, 2 for a mistake of the user's, 128 + signal where one ended the run.

    Args:
        argv: the arguments after the program's name; None takes those of the process.
    """
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")  # a name that the terminal has no letters for ends nothing
    try:
        code = _exit_code(sys.argv[1:] if argv is None else argv)
        if sys.stdout is not None:
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
    except OSError as error:
        message = _told(error)
        if message is None:
            raise
        print(f"error: {message}", file=sys.stderr)
        return WRONG_USE


def _exit_code(argv: Sequence[str]) -> int:
    try:
        return run_command(argv)
    except SystemExit as request:
        import argparse
        import traceback

        frames = traceback.extract_tb(request.__traceback__)
        if frames and frames[-1].filename == argparse.__file__:  # how argparse ends --help
            return request.code if isinstance(request.code, int) else 0
        raise UserError(f"code that was called ended the command with sys.exit({request.code!r}):\n{failure_text(request)}") from request


def _told(error: OSError) -> str | None:
    """Returns what there is to say of an error that is the user's to put right: a path that may not be looked at, a full stdout."""
    if error.filename is not None:
        from distppo.config.suggest import shortened

        known = error.errno in (errno.EACCES, errno.EPERM, errno.ENAMETOOLONG, errno.ELOOP)
        return f"{_printable(shortened(str(error.filename)))}: {error.strerror}" if known else None
    try:
        os.getcwd()
    except FileNotFoundError:
        return "the current directory has been removed; change to one that is there"
    try:
        if sys.stdout is not None:
            os.write(sys.stdout.fileno(), b"\n")
    except OSError as again:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return f"stdout cannot be written: {again.strerror}"
    return None


def _print_error(error: UserError) -> None:
    lines = str(error).splitlines() or [type(error).__name__]
    if isinstance(error, ConfigError) and len(lines) > 1:
        lines = [f"{error.count:,} problems:", *(f"  {line}" for line in lines)]
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
