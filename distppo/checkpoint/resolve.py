"""What a user may type for a checkpoint: `latest`, a run, `RUN@best`, `RUN@last`, `RUN@<env steps>` or its directory."""

from __future__ import annotations

import difflib
import os
from pathlib import Path
from typing import Literal

from distppo.checkpoint.foreign import EXPECTED, explain_foreign
from distppo.checkpoint.manifest import MANIFEST_NAME
from distppo.checkpoint.reader import (
    BEST,
    CHECKPOINTS,
    LATEST,
    Checkpoint,
    best_checkpoint,
    list_checkpoints,
    load_checkpoint,
    load_latest_valid,
    scan_run,
)
from distppo.errors import CheckpointError
from distppo.files import RUNS_ROOT

LAST = "last"
ITSELF = "itself"
_MAX_LISTED = 10


def resolve_checkpoint(reference: str, *, prefer: Literal["best", "last"], runs_root: Path = RUNS_ROOT) -> Path:
    """Directory of the checkpoint that `reference` names; its files are not read yet.

    Args:
        reference: one of
            `latest`: the run under `runs_root` that saved last (`latest@best` and so on work too);
            a run directory, or the name of one under `runs_root`: its best else its last, or its last, by `prefer`;
            `RUN@best`, `RUN@last`;
            `RUN@N`: the one with exactly N env steps (commas allowed), the x-axis of every plot, not the iteration;
            a checkpoint directory.
        prefer: what a run stands for when nothing is said: "best" falls back to the last one, "last" is always the newest.
        runs_root: where runs are looked for by name.

    Raises:
        CheckpointError: It does not resolve. The message says what is there instead and lists the candidates.
    """
    path, which = _parse(reference, runs_root)
    return path if which == ITSELF else _choose(path, which or prefer, fallback=not which)


def load_resolved(reference: str, *, prefer: Literal["best", "last"], runs_root: Path = RUNS_ROOT) -> Checkpoint:
    """Loads the checkpoint that `reference` names; arguments and errors as of `resolve_checkpoint` and `load_checkpoint`."""
    while True:
        path = resolve_checkpoint(reference, prefer=prefer, runs_root=runs_root)
        try:
            return load_checkpoint(path)
        except CheckpointError:
            if os.path.lexists(path):
                raise
            # The run goes on, and has removed it since it was found.


def load_for_resume(reference: str, *, runs_root: Path = RUNS_ROOT) -> tuple[Checkpoint, list[str]]:
    """Loads the checkpoint to go on from.

    A run (also as `latest` or `RUN@last`) means its newest whole checkpoint: damaged ones are passed over and reported. One that
    is named exactly is loaded or refused.

    Args:
        reference: as for `resolve_checkpoint`.
        runs_root: where runs are looked for by name.

    Returns:
        The checkpoint, and a message for each damaged one that was found.

    Raises:
        CheckpointError: The reference does not resolve, or nothing it means can be loaded.
    """
    path, which = _parse(reference, runs_root)
    if which in ("", LAST):
        return load_latest_valid(path)
    return load_checkpoint(path if which == ITSELF else _choose(path, which, fallback=False)), []


def _parse(reference: str, runs_root: Path) -> tuple[Path, str]:
    """The directory of a checkpoint and ITSELF, or that of a run and what follows the @ ("" if nothing does)."""
    if reference != LATEST and os.path.lexists(reference):
        path = Path(reference)
        if os.path.lexists(path / MANIFEST_NAME):
            # Whoever goes on from it looks for its run two levels up, which "ckpt_00000001" alone has not.
            return path if path.parent.name == CHECKPOINTS else Path(os.path.abspath(path)), ITSELF
        if path.parent.name == CHECKPOINTS and path.name in (BEST, LATEST):
            return _as_run(path.parent.parent), BEST if path.name == BEST else LAST
        return _as_run(path), ""
    name, at, which = reference.rpartition("@")
    if not at:
        name, which = reference, ""
    elif not which:
        raise CheckpointError(f"{reference}: nothing follows the @. {EXPECTED}")
    return (_newest_run(runs_root) if name == LATEST else _find_run(name, runs_root)), which


def _choose(run: Path, which: str, *, fallback: bool) -> Path:
    """The checkpoint of `run` that `which` means; with `fallback` a missing best becomes the last."""
    found, problems = scan_run(run)
    if not found:
        raise CheckpointError("\n".join([f"{run}: none of its checkpoints can be read:", *problems]))
    if which == LAST:
        return found[-1].path
    if which == BEST:
        best = best_checkpoint(run)
        if best or fallback:
            return (best or found[-1]).path
        reason = "the file `best` is damaged" if os.path.lexists(run / CHECKPOINTS / BEST) else "since no evaluation has chosen one"
        raise CheckpointError(f"{run}: no checkpoint is marked best, {reason}. It has:\n{_list_checkpoints(run)}")
    digits = which.replace(",", "").replace("_", "")
    exact = [info.path for info in found if str(info.env_steps) == digits]
    if exact:
        return exact[-1]
    problem = "no checkpoint at exactly this many env steps" if digits.isdecimal() else "what follows the @ is best, last or env steps"
    raise CheckpointError(f"{run}@{which}: {problem}. It has:\n{_list_checkpoints(run)}")


def _as_run(path: Path) -> Path:
    """`path`, or the run it is the checkpoints directory of, if there is a checkpoint in it."""
    run = path.parent if path.name == CHECKPOINTS else path
    if any(scan_run(run)):
        return run
    raise CheckpointError(explain_foreign(path) + _suggest(path))


def _find_run(name: str, runs_root: Path) -> Path:
    for path in (Path(name), runs_root / name):
        if name and os.path.lexists(path):
            return _as_run(path)
    close = difflib.get_close_matches(Path(name).name, [run.name for run in _runs(runs_root)], n=1)
    hint = f" Did you mean {runs_root / close[0]}?" if close else ""
    raise CheckpointError(f"{name!r} is neither a path nor a run under {runs_root}/.{hint} {EXPECTED}{_suggest(runs_root)}")


def _newest_run(runs_root: Path) -> Path:
    runs = _runs(runs_root)
    if not runs:
        raise CheckpointError(f"latest: no run under {runs_root}/ has a checkpoint. {EXPECTED}")
    return runs[0]


def _runs(root: Path) -> list[Path]:
    """Runs directly under `root` that have a checkpoint, the one that saved last first."""
    try:
        directories = sorted(path for path in root.iterdir() if path.is_dir())
    except OSError:
        return []
    newest = [(found[-1].saved_at, path) for path in directories if (found := list_checkpoints(path))]
    return [path for _, path in sorted(newest, reverse=True)]


def _suggest(root: Path) -> str:
    runs = _runs(root)
    lines = [f"  {run}  (last at {list_checkpoints(run)[-1].env_steps:,} env steps)" for run in runs[:_MAX_LISTED]]
    if len(runs) > _MAX_LISTED:
        lines.append(f"  and {len(runs) - _MAX_LISTED} more")
    return "\n".join(["\nRuns with a checkpoint:", *lines]) if lines else ""


def _list_checkpoints(run: Path) -> str:
    best = best_checkpoint(run)
    lines = [f"  {run}@{info.env_steps}  (iteration {info.iteration}{', best' * (info == best)})" for info in list_checkpoints(run)]
    return "\n".join(lines)
