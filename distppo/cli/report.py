"""`report`: writes what runs have learned, and how, as one HTML file."""

from __future__ import annotations

import shlex
import webbrowser
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from distppo.cli.parser import Parser
from distppo.config.suggest import printable
from distppo.errors import UserError

if TYPE_CHECKING:
    from distppo.report import Report


def main(argv: Sequence[str], program: str) -> int:
    """Runs the command.

    Raises:
        UserError: there is no such run, it is damaged or empty, or the report cannot be written.
    """
    arguments = _parser(program).read(argv)

    from distppo.report import write_report

    report = write_report(arguments.runs, arguments.output)
    for line in lines_about(report):
        print(line)
    if arguments.open and not webbrowser.open(report.path.resolve().as_uri()):
        print("no browser could be opened here; open the file in one")
    return 0


def lines_about(report: Report) -> list[str]:
    """Returns where the report is, and what the rules saw, the worst first."""
    kinds = Counter(finding.severity.name.lower() for finding in report.findings)
    found = ", ".join(f"{count} {kind}{'s' * (count != 1)}" for kind, count in kinds.items()) or "no findings"
    titles = dict.fromkeys(f"  {finding.severity.name.lower()}: {finding.title}" for finding in report.findings)
    return [f"report:          {printable(str(report.path))} ({report.size / 1e6:.1f} MB; {found})", *titles]


def closing_report(directory: Path, program: str, *, wanted: bool) -> list[str]:
    """Returns the last lines of a training: where its report is, or how to make one. A report that cannot be written spoils no training.

    Args:
        directory: of the run, or of the runs of several seeds.
        program: how the user calls the command that ends, such as "distppo train".
        wanted: write the report.
    """
    command = f"report with:     {program.rpartition(' ')[0]} report {shlex.quote(str(directory))}"
    if not wanted:
        return [command]

    from distppo.report import write_report

    try:
        return lines_about(write_report([str(directory)]))
    except UserError as error:
        return [f"no report:       {printable(str(error))}", command]


def _parser(program: str) -> Parser:
    parser = Parser(
        program,
        "RUN... [FLAGS]",
        "Writes one HTML file that works offline: learning curves, findings in words, diagnostics, time, faults, settings, evaluations.",
    )
    parser.add_argument(
        "runs",
        metavar="RUN",
        nargs="+",
        help="a run directory or a folder of runs, by path or name, or latest; runs that differ in their seed alone are one group",
    )
    group = parser.add_argument_group("output")
    group.add_argument("--output", metavar="FILE", help="the file (default: report.html in the run's folder; here for several)")
    group.add_argument("--open", action="store_true", help="show it in the browser")
    return parser
