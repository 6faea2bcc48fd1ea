"""Checkpoints on shared storage: a folder or an fsspec URL, to which a run copies them, and from which another machine goes on.

There a checkpoint has the same files as on disk. Nothing can be renamed on an object store, so MANIFEST.json is the commit mark: it is
copied last, and taken away first.

A run directory notes in storage.json which run there it is, and where both were last the same. So it is found again under whatever name
it has, and what another machine has copied there meanwhile is neither written over nor removed.
"""

from __future__ import annotations

import contextlib
import json
import os
import re
import tempfile
from collections.abc import Callable
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any, NamedTuple

from distppo.checkpoint.manifest import MANIFEST_NAME, MAX_MANIFEST_BYTES, Manifest, parse_json, read_file, read_manifest
from distppo.checkpoint.reader import BEST, CHECKPOINTS, LATEST, best_checkpoint, list_checkpoints, load_checkpoint
from distppo.errors import CheckpointError, UserError
from distppo.files import discard, is_leftover, staging_directory, write_atomic

_NAME = re.compile(r"ckpt_[0-9]{8,}")
_BESIDE = {"config.yaml": 128 << 10, "metrics.jsonl": 4 << 30}
"""Files of a run that go with its checkpoints, its settings and its curve, and the bytes up to which they are read."""
_MOST_LISTED = 10
STORAGE_FILE = "storage.json"
"""Of a run directory: what `Copied` says."""
_MAX_COPIED_BYTES = 16 << 10


class Copied(NamedTuple):
    """Which run on shared storage a run directory is.

    Attributes:
        url: `Storage.identity` of that run; empty if it is none.
        saved_at: of the checkpoint that was the newest there when the two were last the same; empty before that.
    """

    url: str = ""
    saved_at: str = ""


def read_copied(run: Path) -> Copied:
    """Returns what a run directory says of its storage; nothing if that is missing or damaged."""
    path = run / STORAGE_FILE
    with contextlib.suppress(CheckpointError):
        fields = parse_json(read_file(path, limit=_MAX_COPIED_BYTES), path)
        if fields.keys() == set(Copied._fields) and all(isinstance(value, str) for value in fields.values()):
            return Copied(**fields)
    return Copied()


def _write_copied(run: Path, copied: Copied) -> None:
    write_atomic(run / STORAGE_FILE, json.dumps(copied._asdict()).encode() + b"\n")


def is_url(reference: str) -> bool:
    """Whether it names something behind fsspec rather than a path."""
    return re.match(r"[a-z][a-z0-9+.-]*://", reference) is not None


class Storage:
    """The folder of one run on shared storage.

    Args:
        url: of the folder.

    Raises:
        UserError: fsspec does not know the protocol, or needs a package for it.
    """

    def __init__(self, url: str) -> None:
        # Here and not above: most runs keep their checkpoints where they are.
        from fsspec.core import url_to_fs

        self.url = url.rstrip("/")
        try:
            self._files, root = url_to_fs(self.url)
        except (ImportError, ValueError) as error:
            raise UserError(f"{url}: {error}; for s3:// install s3fs, for gs:// gcsfs, for az:// adlfs, on every machine") from error
        self._root = root.rstrip("/")

    @property
    def identity(self) -> str:
        """The URL in one spelling, whichever of a path and its URLs was given."""
        local = "file" in (self._files.protocol, *self._files.protocol)
        identity: str = self._files.unstrip_protocol(os.path.realpath(self._root) if local else self._root)
        return identity

    @property
    def name(self) -> str:
        """The run's."""
        return self._root.rpartition("/")[2]

    def names(self) -> list[str]:
        """Returns the checkpoints that are there as a whole, by name.

        Raises:
            OSError: the storage does not answer.
        """
        found = self._list(f"{self._root}/{CHECKPOINTS}")
        return sorted(name for name in found if _NAME.fullmatch(name) and self._files.exists(self._at(name, MANIFEST_NAME)))

    def runs(self) -> list[str]:
        """Returns the folders in this one that are runs, by name."""
        return [name for name in self._list(self._root) if self._files.exists(f"{self._root}/{name}/{CHECKPOINTS}")]

    def put(self, checkpoint: Path) -> None:
        """Copies a checkpoint, what goes with it, and the word which is the best; removes those that its run has removed.

        Raises:
            CheckpointError: another run is copied there, or another machine has gone on with this one. It is left alone.
            OSError: the storage refused, or the checkpoint was removed meanwhile. What was there before is whole.
        """
        run, name = checkpoint.parent.parent, checkpoint.name
        if (stranger := self.stranger(run)) is not None:
            raise CheckpointError(f"{self.url}: its newest checkpoint, {stranger}, is not of this run; it was left as it is")
        saved_at = next((info.saved_at for info in list_checkpoints(run) if info.path.name == name), "")
        self._files.makedirs(self._at(name), exist_ok=True)
        self._withdraw(name)
        files = sorted(file.name for file in checkpoint.iterdir() if file.name != MANIFEST_NAME)
        for file in (*files, MANIFEST_NAME):
            self._files.put_file(str(checkpoint / file), self._at(name, file))
        for file in _BESIDE:
            if (run / file).exists():
                self._files.put_file(str(run / file), f"{self._root}/{file}")
        if (best := best_checkpoint(run)) is not None and self._files.exists(self._at(best.path.name, MANIFEST_NAME)):
            self._files.pipe_file(self._at(BEST), f"{best.path.name}\n".encode())
        kept = {info.path.name for info in list_checkpoints(run)} | {name}
        for old in set(self.names()) - kept:
            self._withdraw(old)
            self._files.rm(self._at(old), recursive=True)
        _write_copied(run, Copied(self.identity, saved_at))

    def stranger(self, run: Path) -> str | None:
        """Returns the name of the newest checkpoint there, if the run in a directory has neither made it nor gone on from it.

        Raises:
            OSError: the storage does not answer.
        """
        here = {info.saved_at for info in list_checkpoints(run)}
        if not here:
            return next(reversed(self.names()), None)
        known = self._manifests()
        copied = read_copied(run)
        if copied.url == self.identity:
            here.add(copied.saved_at)
        return next((name for name in _newest_first(known)[:1] if known[name].saved_at not in here), None)

    def fetch(self, runs_root: Path, held: Callable[[Path], AbstractContextManager[object]] = contextlib.nullcontext) -> Path:
        """Copies the newest whole checkpoint and the best into a run directory, unless one has them already.

        Args:
            runs_root: where that is made, under the run's name.
            held: keeps others out of the run directory while it is written to.

        Returns:
            The run directory.

        Raises:
            UserError: there is no whole checkpoint, or the run directory cannot be held.
        """
        try:
            known = self._manifests()
            if not known:
                raise CheckpointError(self._nothing())
            run = self._place(runs_root, known)
            with held(run):
                self._complete(run, known)
        except UserError:
            raise
        except Exception as error:  # each storage's package has errors of its own
            raise CheckpointError(f"{self.url}: cannot be read ({type(error).__name__}: {error})") from error
        return run

    def _place(self, runs_root: Path, known: dict[str, Manifest]) -> Path:
        """Returns the run's directory here, or a new one where its name is taken by something else."""
        path, number = runs_root / self.name, 2
        while path.exists() and not (_is_unused(path) or self._is_copy(path, known)):
            path = runs_root / f"{self.name}-{number}"
            number += 1
        return path

    def _is_copy(self, run: Path, known: dict[str, Manifest]) -> bool:
        """Whether a directory holds this run, and nothing that another machine would have had to go on from."""
        newest = _newest_first(known)[0]
        with contextlib.suppress(CheckpointError):
            if read_manifest(run / CHECKPOINTS / newest) == known[newest]:
                return True
        copied, here = read_copied(run), list_checkpoints(run)
        if copied.url != self.identity:
            return False
        there = {copied.saved_at, *(manifest.saved_at for manifest in known.values())}
        return not here or copied.saved_at == known[newest].saved_at or here[-1].saved_at in there

    def _complete(self, run: Path, known: dict[str, Manifest]) -> None:
        """Copies what a run directory lacks. What it says of its storage comes last: until then all is copied again."""
        newest = known[_newest_first(known)[0]]
        then, here = read_copied(run), list_checkpoints(run)
        now = Copied(self.identity, newest.saved_at)
        up_to_date = bool(here) and (then == now or here[-1].serial > newest.serial)
        run.mkdir(parents=True, exist_ok=True)
        if then.url != now.url:
            _write_copied(run, Copied(self.identity))
        self._copy_first_whole(_newest_first(known), run)
        self._copy_beside(run, keep=up_to_date)
        if not up_to_date or best_checkpoint(run) is None:
            with contextlib.suppress(CheckpointError, OSError):
                if (best := self._read(self._at(BEST), 256).decode("ascii", "replace").strip()) in known:
                    self._copy(best, run)
                    write_atomic(run / CHECKPOINTS / BEST, f"{best}\n".encode())
        write_atomic(run / CHECKPOINTS / LATEST, f"{list_checkpoints(run)[-1].path.name}\n".encode())
        _write_copied(run, now)

    def _copy_first_whole(self, names: list[str], run: Path) -> None:
        """Copies the first that can be loaded; raises CheckpointError with what is wrong with each if none can."""
        problems = []
        for name in names:
            try:
                return self._copy(name, run)
            except CheckpointError as error:
                problems.append(str(error))
        raise CheckpointError("\n".join([f"{self.url}: no checkpoint of this run can be loaded:", *problems]))

    def _copy_beside(self, run: Path, *, keep: bool) -> None:
        """Copies settings and curve, each as a whole or not at all; with `keep` those that are there stay."""
        for file, limit in _BESIDE.items():
            source, target = f"{self._root}/{file}", run / file
            if (keep and target.exists()) or not self._files.exists(source) or self._files.info(source)["size"] > limit:
                continue
            with staging_directory(run / CHECKPOINTS / file) as staged:
                self._files.get_file(source, str(staged / file))
                os.replace(staged / file, target)
                staged.rmdir()

    def _manifests(self) -> dict[str, Manifest]:
        """Returns the sound manifests of the checkpoints that are there, by name."""
        found = {}
        with tempfile.TemporaryDirectory() as scratch:
            for name in self.names():
                folder = Path(scratch, name)
                folder.mkdir()
                (folder / MANIFEST_NAME).write_bytes(self._read(self._at(name, MANIFEST_NAME), MAX_MANIFEST_BYTES))
                with contextlib.suppress(CheckpointError):
                    found[name] = read_manifest(folder)
        return found

    def _copy(self, name: str, run: Path) -> None:
        """Copies a checkpoint into a run directory, as a whole or not at all; one that is there and whole stays."""
        target = run / CHECKPOINTS / name
        if target.exists():
            with contextlib.suppress(CheckpointError):
                load_checkpoint(target)
                return
            discard(target)
        target.parent.mkdir(parents=True, exist_ok=True)
        with staging_directory(target) as staged:
            (staged / MANIFEST_NAME).write_bytes(self._read(self._at(name, MANIFEST_NAME), MAX_MANIFEST_BYTES))
            for file, entry in read_manifest(staged).files.items():
                if self._files.info(self._at(name, file))["size"] != entry.size:
                    raise CheckpointError(f"{self.url}/{CHECKPOINTS}/{name}/{file}: not of the {entry.size:,} bytes in its {MANIFEST_NAME}")
                self._files.get_file(self._at(name, file), str(staged / file))
            os.replace(staged, target)
        try:
            load_checkpoint(target)
        except CheckpointError:
            discard(target)
            raise

    def _withdraw(self, name: str) -> None:
        if self._files.exists(self._at(name, MANIFEST_NAME)):
            self._files.rm_file(self._at(name, MANIFEST_NAME))

    def _read(self, path: str, limit: int) -> bytes:
        data: bytes = self._files.cat_file(path, 0, limit)
        return data

    def _list(self, folder: str) -> list[str]:
        with contextlib.suppress(FileNotFoundError, NotADirectoryError):
            self._files.invalidate_cache()
            entries: list[Any] = self._files.ls(folder, detail=False)
            return sorted(entry.rstrip("/").rpartition("/")[2] for entry in entries)
        return []

    def _at(self, *parts: str) -> str:
        return "/".join([self._root, CHECKPOINTS, *parts])

    def _nothing(self) -> str:
        listed = "".join(f"\n  {self.url}/{name}" for name in self.runs()[-_MOST_LISTED:])
        return f"{self.url}: no checkpoint there" + (f"; it has runs, name one of them:{listed}" if listed else ", nor a run")


def _newest_first(known: dict[str, Manifest]) -> list[str]:
    return sorted(known, key=lambda name: (known[name].serial, known[name].iteration), reverse=True)


def _is_unused(path: Path) -> bool:
    """Whether a directory has nothing in it but what a fetch leaves that was cut short before its first checkpoint."""
    if not path.is_dir() or any(entry.name not in (CHECKPOINTS, STORAGE_FILE) and entry.name[0] != "." for entry in path.iterdir()):
        return False
    checkpoints = path / CHECKPOINTS
    return not os.path.lexists(checkpoints) or (not checkpoints.is_symlink() and all(map(is_leftover, checkpoints.iterdir())))
