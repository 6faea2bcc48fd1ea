"""Writing checkpoints: each one is there as a whole or not at all, whatever interrupts it."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np

from distppo.checkpoint.content import encode_arrays, encode_state
from distppo.checkpoint.manifest import (
    ARRAYS_SUFFIX,
    MANIFEST_NAME,
    MAX_BYTES,
    MAX_STATE_BYTES,
    STATE_NAME,
    Manifest,
    describe_file,
    encode_manifest,
    is_arrays_name,
)
from distppo.checkpoint.reader import BEST, CHECKPOINTS, LATEST, RETIRED, CheckpointInfo, best_checkpoint, checkpoint_name, list_checkpoints
from distppo.errors import CheckpointError
from distppo.files import discard, remove_leftovers, staging_directory, sync_directory, write_atomic, write_synced

_MIN_KEPT = 2


class CheckpointStore:
    """The checkpoints of one run directory, for the process that trains in it. To read only, use the functions of `reader`.

    Opening one creates the directory and clears away what a killed writer left there.

    Args:
        run_directory: of the run.
        keep: checkpoints kept, newest first, at least two (one may turn out damaged); the best is kept besides.

    Raises:
        CheckpointError: `checkpoints` is a link, through which another folder would be written to.
        OSError: The directory cannot be created.
    """

    def __init__(self, run_directory: str | os.PathLike[str], keep: int) -> None:
        self.run_directory = Path(run_directory)
        self.directory = self.run_directory / CHECKPOINTS
        self._keep = max(keep, _MIN_KEPT)
        if self.directory.is_symlink():
            raise CheckpointError(f"{self.directory} is a link; a run is written in its own folder alone. Put the folder itself there")
        self.directory.mkdir(parents=True, exist_ok=True)
        sync_directory(self.run_directory)
        self._recover()

    def save(
        self,
        *,
        iteration: int,
        env_steps: int,
        arrays: Mapping[str, Mapping[str, np.ndarray]],
        state: Mapping[str, Any],
        best: bool = False,
    ) -> Path:
        """Writes a checkpoint and makes it the latest; one of the same iteration is replaced.

        Args:
            iteration: iterations behind it; names the directory.
            env_steps: env steps learned from.
            arrays: file stem -> array name -> array of any shape and layout; they are only read.
            state: everything else, as JSON values; no NaN or infinity.
            best: also make it the best one. Otherwise, if it replaces the best one, the run has no best until the next is marked.

        Returns:
            Its directory.

        Raises:
            ValueError: A name, dtype or value cannot be stored.
            OSError: The disk refused (full, read-only, gone). The older checkpoints are as they were and nothing half-written is left.
        """
        contents = {f"{stem}{ARRAYS_SUFFIX}": encode_arrays(group) for stem, group in arrays.items()}
        for name in contents:
            if not is_arrays_name(name):
                raise ValueError(f"{name!r} cannot be the name of a checkpoint's file; letters, digits, _ and - can")
        contents[STATE_NAME] = encode_state(state)
        size = sum(map(len, contents.values()))
        if size > MAX_BYTES or len(contents[STATE_NAME]) > MAX_STATE_BYTES:
            raise ValueError(
                f"a checkpoint of {size:,} bytes, {len(contents[STATE_NAME]):,} of them in {STATE_NAME}, could not be read again"
            )
        target = self.directory / checkpoint_name(iteration)
        manifest = Manifest(
            iteration=int(iteration),
            env_steps=int(env_steps),
            serial=1 + max((info.serial for info in self.list()), default=0),
            saved_at=datetime.now(UTC).isoformat(timespec="microseconds"),
            files={name: describe_file(data) for name, data in contents.items()},
        )
        contents[MANIFEST_NAME] = encode_manifest(manifest)
        with _explained(target):
            self._write(target, contents, best=best)
        self._prune()
        return target

    def mark_best(self, path: str | os.PathLike[str]) -> None:
        """Points `best` to a checkpoint of this store.

        Raises:
            CheckpointError: `path` is not one.
            OSError: The disk refused; `best` is as it was.
        """
        name = Path(path).name
        if name not in {info.path.name for info in self.list()} or Path(path).resolve().parent != self.directory.resolve():
            raise CheckpointError(f"{path}: not a checkpoint of {self.directory}, so it cannot be its best")
        self._point(BEST, name)

    def list(self) -> Sequence[CheckpointInfo]:
        """The checkpoints in the order they were saved."""
        return list_checkpoints(self.run_directory)

    def latest(self) -> CheckpointInfo | None:
        """The one saved last; None before the first."""
        return next(reversed(self.list()), None)

    def best(self) -> CheckpointInfo | None:
        """The one marked best; None if none is."""
        return best_checkpoint(self.run_directory)

    def _write(self, target: Path, contents: Mapping[str, bytes], *, best: bool) -> None:
        self._recover()
        with staging_directory(target) as staged:
            for name, data in contents.items():
                write_synced(staged / name, data)
            sync_directory(staged)
            self._commit(staged, target, best=best)
        self._point(LATEST, target.name)
        if best:
            self._point(BEST, target.name)

    def _commit(self, staged: Path, target: Path, *, best: bool) -> None:
        """Renames `staged` into place. One already there is set aside under a name that readers know, until it is replaced."""
        retired = target.with_name(target.name + RETIRED)
        replaces = os.path.lexists(target)
        if replaces:
            current = self.best()
            if current and current.path.name == target.name and not best:
                (self.directory / BEST).unlink()
            os.replace(target, retired)
        os.replace(staged, target)
        sync_directory(self.directory)
        with suppress(OSError):  # Its replacement hides it from now on; the next save tries again.
            if replaces:
                discard(retired)

    def _point(self, pointer: str, name: str) -> None:
        write_atomic(self.directory / pointer, f"{name}\n".encode())

    def _prune(self) -> None:
        """Removes all but the newest and the best. One that resists costs space and nothing else."""
        best = self.best()
        for info in self.list()[: -self._keep]:
            if info != best:
                with suppress(OSError):
                    discard(info.path)

    def _recover(self) -> None:
        """Finishes what a killed writer had begun: its leftovers go, a checkpoint it had set aside comes back."""
        remove_leftovers(self.directory)
        for retired in self.directory.glob(f"*{RETIRED}"):
            target = retired.with_name(retired.name.removesuffix(RETIRED))
            with suppress(OSError):
                if os.path.lexists(target):
                    discard(retired)
                else:
                    os.replace(retired, target)


@contextmanager
def _explained(target: Path) -> Iterator[None]:
    """Gives an OSError the name of the checkpoint and what it means, and keeps its errno and class."""
    try:
        yield
    except OSError as error:
        reason = f"cannot save checkpoint {target} ({error.strerror or error}); the older ones are untouched. Free space or check the disk"
        raise OSError(error.errno, reason) from error
