"""Finding and loading checkpoints. Nothing here writes, so a run in progress can be read at any time."""

from __future__ import annotations

import os
import re
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from distppo.checkpoint.content import decode_arrays
from distppo.checkpoint.foreign import explain_foreign
from distppo.checkpoint.manifest import (
    ADVICE,
    ARRAYS_SUFFIX,
    MANIFEST_NAME,
    STATE_NAME,
    FileEntry,
    Manifest,
    describe_file,
    parse_json,
    read_file,
    read_manifest,
)
from distppo.errors import CheckpointError

CHECKPOINTS = "checkpoints"
BEST = "best"
LATEST = "latest"
RETIRED = ".old"

_NAME = re.compile(r"(ckpt_[0-9]{8,})(\.old)?")
_MAX_POINTER_BYTES = 256


class CheckpointInfo(NamedTuple):
    """A checkpoint by its manifest, its files unread.

    Attributes:
        iteration: iterations behind it.
        env_steps: env steps learned from.
        path: its directory.
        serial: counts the saves of the run; the largest is the newest.
        saved_at: UTC, ISO 8601; sorts as text.
    """

    iteration: int
    env_steps: int
    path: Path
    serial: int
    saved_at: str


class Checkpoint(NamedTuple):
    """A checkpoint in memory, every byte of it verified.

    Attributes:
        path: directory it came from.
        iteration: iterations behind it.
        env_steps: env steps learned from.
        arrays: file stem -> array name -> array, writable.
        state: the rest.
    """

    path: Path
    iteration: int
    env_steps: int
    arrays: dict[str, dict[str, np.ndarray]]
    state: dict[str, Any]


def checkpoint_name(iteration: int) -> str:
    """Name of the directory of this iteration's checkpoint."""
    return f"ckpt_{iteration:08d}"


def load_checkpoint(path: str | os.PathLike[str]) -> Checkpoint:
    """Loads a checkpoint directory, trusting nothing before its manifest and executing nothing.

    One that its run replaces or removes meanwhile is read as its replacement, or is not there: never half of each.

    Raises:
        CheckpointError: It is missing, foreign, incomplete, damaged or of a newer format. The message names the file and what to do.
    """
    directory = Path(path)
    while True:
        before = _identity(directory)
        try:
            return _load(directory)
        except CheckpointError:
            if _identity(directory) == before:
                raise


def _identity(directory: Path) -> tuple[int, int] | None:
    """What tells a directory from another that has taken its name; None if there is none."""
    try:
        status = os.stat(directory)
    except (OSError, ValueError):
        return None
    return status.st_dev, status.st_ino


def _load(directory: Path) -> Checkpoint:
    if not os.path.lexists(directory / MANIFEST_NAME):
        raise CheckpointError(explain_foreign(directory))
    manifest = read_manifest(directory)
    contents = {name: _read_verified(directory / name, entry) for name, entry in manifest.files.items()}
    state = parse_json(contents.pop(STATE_NAME), directory / STATE_NAME)
    arrays = {name.removesuffix(ARRAYS_SUFFIX): decode_arrays(data, directory / name) for name, data in contents.items()}
    return Checkpoint(directory, manifest.iteration, manifest.env_steps, arrays, state)


def scan_run(run_directory: Path) -> tuple[list[CheckpointInfo], list[str]]:
    """Checkpoints with a sound manifest, oldest save first, and what is wrong with the others."""
    directory = Path(run_directory) / CHECKPOINTS
    found, problems = [], []
    if directory.is_symlink():
        return [], [f"{directory}: a link, which a run never holds. Name a checkpoint where it really lies"]
    for name in sorted(_names(directory)):
        path = directory / name
        try:
            if path.is_symlink():
                raise CheckpointError(f"{path}: a link, which a run never holds. {ADVICE}")
            found.append(_info(path, read_manifest(path)))
        except CheckpointError as error:
            if os.path.lexists(path):  # else its run has removed it meanwhile
                problems.append(str(error))
    return sorted(found, key=lambda info: (info.serial, info.iteration)), problems


def list_checkpoints(run_directory: Path) -> list[CheckpointInfo]:
    """The checkpoints of a run in the order they were saved; what has no sound manifest is left out."""
    return scan_run(run_directory)[0]


def best_checkpoint(run_directory: Path) -> CheckpointInfo | None:
    """The checkpoint that `best` points to; None if it points nowhere."""
    return _pointed_to(run_directory, BEST)


def load_latest_valid(run_directory: Path) -> tuple[Checkpoint, list[str]]:
    """Loads the newest checkpoint of a run that is whole.

    Returns:
        The checkpoint, and a message for each damaged one found; empty when all is well.

    Raises:
        CheckpointError: There is none. The message has what is wrong with each.
    """
    found, problems = scan_run(run_directory)
    removed = False
    for info in reversed(found):
        try:
            return load_checkpoint(info.path), problems
        except CheckpointError as error:
            if os.path.lexists(info.path):
                problems.append(str(error))
            else:
                removed = True
    if removed:  # By the run's own process, which has newer ones then.
        return load_latest_valid(run_directory)
    if problems:
        raise CheckpointError("\n".join([f"{run_directory}: no checkpoint of this run can be loaded:", *problems]))
    raise CheckpointError(explain_foreign(Path(run_directory)))


def _read_verified(path: Path, entry: FileEntry) -> bytes:
    data = read_file(path, limit=entry.size)
    if len(data) < entry.size:
        raise CheckpointError(f"{path}: cut short, {len(data):,} of {entry.size:,} bytes. {ADVICE}")
    if describe_file(data) != entry:
        raise CheckpointError(f"{path}: damaged, its SHA-256 is not the one in {MANIFEST_NAME}. {ADVICE}")
    return data


def _names(directory: Path) -> list[str]:
    """Names that a checkpoint can have. One set aside to be replaced counts as long as its replacement is not there."""
    try:
        present = set(os.listdir(directory))
    except OSError:
        return []
    matches = [match for match in map(_NAME.fullmatch, present) if match]
    return [match[0] for match in matches if not (match[2] and match[1] in present)]


def _info(path: Path, manifest: Manifest) -> CheckpointInfo:
    return CheckpointInfo(manifest.iteration, manifest.env_steps, path, manifest.serial, manifest.saved_at)


def _pointed_to(run_directory: Path, pointer: str) -> CheckpointInfo | None:
    path = Path(run_directory) / CHECKPOINTS / pointer
    name = _read_pointer(path)
    while name is not None:
        for info in list_checkpoints(run_directory):
            if info.path.name.removesuffix(RETIRED) == name:
                return info
        before, name = name, _read_pointer(path)
        if name == before:  # else it was moved while the checkpoints were listed
            break
    return None


def _read_pointer(path: Path) -> str | None:
    try:
        return read_file(path, limit=_MAX_POINTER_BYTES).decode("ascii", "replace").strip()
    except CheckpointError:
        return None
