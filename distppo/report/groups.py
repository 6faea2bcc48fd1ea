"""What is compared: groups of runs that differ in their seed alone, found from what the user names."""

from __future__ import annotations

import itertools
import os
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

from distppo.config.suggest import closest, printable
from distppo.errors import UserError
from distppo.files import RUNS_ROOT
from distppo.report.run_files import MOST_RUNS, Run, is_run, read_run, runs_in, same_but_for_the_seed

LATEST = "latest"
_MOST_LISTED = 10


class Group(NamedTuple):
    """Runs of one configuration.

    Attributes:
        name: for legends.
        path: of the run, or of the folder that was named.
        runs: one for each seed.
    """

    name: str
    path: Path
    runs: list[Run]

    @property
    def env(self) -> str:
        """The environment's id."""
        return str(self.runs[0].record.settings.get("env.id") or self.runs[0].summary.get("env") or "unknown environment")


def find_groups(references: Sequence[str], *, runs_root: Path = RUNS_ROOT) -> list[Group]:
    """Reads what is named: runs, folders of runs, names of either under `runs_root`, or `latest`.

    Runs in one folder that differ in their seed alone are a group, and so are runs that are named one by one. The same seed twice is two
    groups: it compares two versions of the code.

    Raises:
        UserError: there is no such run, or it cannot be read.
    """
    named = {path: reference for reference in references for path in _paths(reference, runs_root)}
    if len(named) > MOST_RUNS:
        raise UserError(f"{len(named)} runs are more than a report takes in ({MOST_RUNS}); name fewer")
    groups: list[list[Run]] = []
    folders: list[str | None] = []
    for path, reference in named.items():
        run, folder = read_run(path), None if is_run(Path(reference)) or is_run(runs_root / reference) else reference
        alike = next((group for group, other in zip(groups, folders, strict=True) if other == folder and _belongs(run, group)), None)
        if alike is None:
            groups.append([run])
            folders.append(folder)
        else:
            alike.append(run)
    if not any(run.record.rows for group in groups for run in group):
        raise UserError(f"{next(iter(named))}: no iteration has been written yet; the report needs at least one")
    return _named(groups)


def _belongs(run: Run, group: list[Run]) -> bool:
    """True if a run is another seed of the group."""
    seeds = {member.record.settings.get("run.seed") for member in group}
    return same_but_for_the_seed(group[0], run) and run.record.settings.get("run.seed") not in seeds


def _paths(reference: str, runs_root: Path) -> list[Path]:
    if reference == LATEST and not os.path.lexists(LATEST):
        return _latest(runs_root)
    for path in (Path(reference), runs_root / reference):
        if reference and os.path.isdir(path):
            if found := [path] if is_run(path) else runs_in(path):
                return found
            raise UserError(f"{path}: neither a run (no metrics.jsonl in it) nor a folder of runs{_listed(runs_root)}")
    names = [path.name for path in _newest_first(runs_root)]
    near = closest(reference, names)
    hint = f" - did you mean {runs_root / near}?" if near else _listed(runs_root)
    raise UserError(f"{printable(reference)!r} is neither a folder nor a run under {runs_root}/{hint}")


def _latest(runs_root: Path) -> list[Path]:
    newest = _newest_first(runs_root)
    if not newest:
        raise UserError(f"latest: there is no run under {runs_root}/; `train` makes one")
    return [newest[0]] if is_run(newest[0]) else runs_in(newest[0])


def _newest_first(runs_root: Path) -> list[Path]:
    """Runs and folders of runs under `runs_root`, the one written to last first."""
    try:
        entries = [Path(entry.path) for entry in os.scandir(runs_root) if entry.is_dir()]
    except OSError:
        return []
    ages = [(max(_written(run) for run in inside), path) for path in entries if (inside := [path] if is_run(path) else runs_in(path))]
    return [path for _, path in sorted(ages, reverse=True)]


def _written(run: Path) -> float:
    return (run / "metrics.jsonl").stat().st_mtime


def _listed(runs_root: Path) -> str:
    newest = _newest_first(runs_root)[:_MOST_LISTED]
    return "".join(["\nThe newest runs are:", *(f"\n  {path}" for path in newest)]) if newest else ""


def _named(groups: list[list[Run]]) -> list[Group]:
    """Gives each group a short name of its own, and its runs theirs."""
    named = []
    for runs in groups:
        path = runs[0].path if len(runs) == 1 else Path(os.path.commonpath([os.path.abspath(run.path) for run in runs]))
        path = Path(os.path.relpath(path)) if len(runs) > 1 else path
        first = runs[0]
        stem = _common_start([run.name for run in runs]).rstrip("-_. 0123456789").removesuffix("seed").rstrip("-_. ")
        name = first.name if len(runs) == 1 else stem or path.name or str(first.record.settings.get("env.id"))
        named.append(Group(name, path, _told_apart(runs)))
    names = [group.name for group in named]
    return [group._replace(name=f"{group.path.parent.name}/{group.name}" if names.count(group.name) > 1 else group.name) for group in named]


def _common_start(names: list[str]) -> str:
    """The beginning that all names have."""
    alike = itertools.takewhile(lambda letters: len(set(letters)) == 1, zip(*names, strict=False))
    return "".join(letters[0] for letters in alike)


def _told_apart(runs: list[Run]) -> list[Run]:
    """The runs of a group in the order of their seeds, which are their names."""
    if len(runs) > 1 and runs[0].settings:
        ordered = sorted(runs, key=lambda run: int(run.record.settings["run.seed"]))
        return [run._replace(name=f"seed {run.record.settings['run.seed']}") for run in ordered]
    return runs
