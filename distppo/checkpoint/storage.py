"""Checkpoints on shared storage: a folder or an fsspec URL, to which a run copies them, and from which another machine goes on.

There a checkpoint has the same files as on disk. Nothing can be renamed on an object store, so MANIFEST.json is the commit mark: it is
copied last, and taken away first.
"""

from __future__ import annotations

import contextlib
import os
import re
import tempfile
from pathlib import Path
from typing import Any

from distppo.checkpoint.manifest import MANIFEST_NAME, MAX_MANIFEST_BYTES, Manifest, read_manifest
from distppo.checkpoint.reader import BEST, CHECKPOINTS, LATEST, best_checkpoint, list_checkpoints, load_checkpoint
from distppo.errors import CheckpointError, UserError
from distppo.files import discard, staging_directory, write_atomic

_NAME = re.compile(r"ckpt_[0-9]{8,}")
_BESIDE = {"config.yaml": 128 << 10, "metrics.jsonl": 4 << 30}
"""Files of a run that go with its checkpoints, its settings and its curve, and the bytes up to which they are read."""
_MOST_LISTED = 10


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
            OSError: the storage refused, or the checkpoint was removed meanwhile. What was there before is whole.
        """
        run, name = checkpoint.parent.parent, checkpoint.name
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

    def fetch(self, runs_root: Path) -> Path:
        """Copies the newest whole checkpoint and the best into a run directory, unless one has them already.

        Args:
            runs_root: where that is made, under the run's name.

        Returns:
            The run directory.

        Raises:
            CheckpointError: there is no whole checkpoint.
        """
        try:
            with tempfile.TemporaryDirectory() as scratch:
                known = self._manifests(Path(scratch))
            if not known:
                raise CheckpointError(self._nothing())
            newest = sorted(known, key=lambda name: (known[name].serial, known[name].iteration), reverse=True)
            run = self._place(runs_root, newest[0], known[newest[0]])
            problems = self._first_whole(newest, run)
            with contextlib.suppress(CheckpointError, OSError):
                if (best := self._read(self._at(BEST), 256).decode("ascii", "replace").strip()) in known:
                    self._copy(best, run)
                    write_atomic(run / CHECKPOINTS / BEST, f"{best}\n".encode())
        except CheckpointError:
            raise
        except Exception as error:  # each storage's package has errors of its own
            raise CheckpointError(f"{self.url}: cannot be read ({type(error).__name__}: {error})") from error
        if problems is not None:
            raise CheckpointError("\n".join([f"{self.url}: no checkpoint of this run can be loaded:", *problems]))
        return run

    def _first_whole(self, names: list[str], run: Path) -> list[str] | None:
        """Copies the first that can be loaded; returns None, or what is wrong with each."""
        problems = []
        for name in names:
            try:
                load_checkpoint(self._copy(name, run))
            except CheckpointError as error:
                problems.append(str(error))
                if (run / CHECKPOINTS / name).exists():
                    discard(run / CHECKPOINTS / name)
                continue
            write_atomic(run / CHECKPOINTS / LATEST, f"{name}\n".encode())
            for file, limit in _BESIDE.items():
                source, target = f"{self._root}/{file}", run / file
                if self._files.exists(source) and self._files.info(source)["size"] <= limit and not target.exists():
                    self._files.get_file(source, str(target))
            return None
        return problems

    def _place(self, runs_root: Path, newest: str, manifest: Manifest) -> Path:
        """Returns the run's directory here, or a new one where its name is taken by something else."""
        path, number = runs_root / self.name, 2
        while path.exists():
            with contextlib.suppress(CheckpointError):
                if read_manifest(path / CHECKPOINTS / newest) == manifest:
                    return path
            path = runs_root / f"{self.name}-{number}"
            number += 1
        return path

    def _manifests(self, scratch: Path) -> dict[str, Manifest]:
        found = {}
        for name in self.names():
            (scratch / name).mkdir()
            (scratch / name / MANIFEST_NAME).write_bytes(self._read(self._at(name, MANIFEST_NAME), MAX_MANIFEST_BYTES))
            with contextlib.suppress(CheckpointError):
                found[name] = read_manifest(scratch / name)
        return found

    def _copy(self, name: str, run: Path) -> Path:
        """Copies a checkpoint into a run directory, as a whole or not at all; one that is there stays."""
        target = run / CHECKPOINTS / name
        if target.exists():
            return target
        target.parent.mkdir(parents=True, exist_ok=True)
        with staging_directory(target) as staged:
            (staged / MANIFEST_NAME).write_bytes(self._read(self._at(name, MANIFEST_NAME), MAX_MANIFEST_BYTES))
            for file, entry in read_manifest(staged).files.items():
                if self._files.info(self._at(name, file))["size"] != entry.size:
                    raise CheckpointError(f"{self.url}/{CHECKPOINTS}/{name}/{file}: not of the {entry.size:,} bytes in its {MANIFEST_NAME}")
                self._files.get_file(self._at(name, file), str(staged / file))
            os.replace(staged, target)
        return target

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
