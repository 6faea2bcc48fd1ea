"""`watch`: a run's live display, from another terminal."""

from __future__ import annotations

from collections.abc import Sequence

from distppo.cli.parser import Parser

FAILED = 1


def main(argv: Sequence[str], program: str) -> int:
    """Runs the command; returns 0 if the run ended in order or goes on, 1 if an error or the death of its process ended it.

    Raises:
        UserError: an argument is wrong, or there is no such run.
    """
    description = "Shows a run as its own terminal does, from what it writes; it notices nothing. Ctrl-C ends the watching, not the run."
    parser = Parser(program, "[RUN] [FLAGS]", description)
    parser.add_argument(
        "run", nargs="?", default="latest", metavar="RUN", help="a run directory, its name under runs/, or latest (the default)"
    )
    parser.add_argument("--no-progress", action="store_true", help="plain lines instead of the live display")
    arguments = parser.read(argv)

    from distppo.console import make_display
    from distppo.runtime.remarks import remarks
    from distppo.runtime.run_directory import find_run
    from distppo.runtime.watch import ENDED, run_config, watch

    directory = find_run(arguments.run)
    display = make_display(progress=False if arguments.no_progress else None, findings=remarks(run_config(directory)))
    try:
        ended = watch(directory, display)
    except KeyboardInterrupt:
        return 0
    return 0 if ended in (ENDED["finished"], ENDED["stopped"], ENDED["interrupted"]) else FAILED
