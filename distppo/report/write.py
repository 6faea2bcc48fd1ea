"""`report`: reads runs, makes the page and writes it, never over anything but a report."""

from __future__ import annotations

import os
from collections.abc import Sequence
from datetime import datetime
from pathlib import Path
from typing import NamedTuple

from distppo.errors import UserError
from distppo.files import open_regular, write_atomic
from distppo.findings import Finding
from distppo.report.groups import Group, find_groups
from distppo.report.page import GENERATOR, make_page

FILE_NAME = "report.html"
_HEAD = 4096


class Report(NamedTuple):
    """A report that has been written.

    Attributes:
        path: of the page.
        size: bytes.
        findings: what the rules saw, worst first.
    """

    path: Path
    size: int
    findings: list[Finding]


def write_report(references: Sequence[str], output: str | os.PathLike[str] | None = None) -> Report:
    """Writes the report of runs.

    Args:
        references: runs, folders of runs, their names under runs/, or `latest`.
        output: the file; None takes report.html in the folder of the run or of the runs, or here for several.

    Raises:
        UserError: there is no such run, one is damaged or empty, or the file cannot be written or is something else.
    """
    groups = find_groups(references)
    path = Path(output) if output is not None else _default_path(groups)
    _require_own(path)
    page = make_page(groups, made_at=datetime.now().astimezone())
    data = page.html.encode()
    try:
        write_atomic(path, data)
    except OSError as error:
        raise UserError(f"{path}: cannot be written ({error.strerror or error}); choose another file with --output") from error
    return Report(path, len(data), [finding for _, finding in page.findings])


def _default_path(groups: Sequence[Group]) -> Path:
    return (groups[0].path if len(groups) == 1 else Path()) / FILE_NAME


def _require_own(path: Path) -> None:
    """Raises UserError if the file cannot be a report's: a folder, a link, or something else that would be lost."""
    if path.is_dir():
        raise UserError(f"{path} is a folder; name a file in it, such as {path / FILE_NAME}")
    if not os.path.lexists(path):
        return
    try:
        with open_regular(path) as file:
            own = f'content="{GENERATOR}"'.encode() in file.read(_HEAD)
    except (OSError, ValueError) as error:
        raise UserError(
            f"{path}: in the way, and cannot be read ({getattr(error, 'strerror', None) or error}); choose another file"
        ) from error
    if not own:
        raise UserError(f"{path} exists and is not a report; it is not written over. Remove it, or choose another file with --output")
