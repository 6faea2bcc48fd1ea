"""MANIFEST.json: which files make up a checkpoint, their sizes and hashes. Nothing is trusted before it."""

from __future__ import annotations

import hashlib
import json
import os
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple, TypeGuard

from distppo.errors import CheckpointError
from distppo.files import open_regular
from distppo.strict_json import parse_strictly

MANIFEST_NAME = "MANIFEST.json"
STATE_NAME = "state.json"
ARRAYS_SUFFIX = ".safetensors"
FORMAT_VERSION = 1
MAX_STATE_BYTES = 32 << 20
MAX_BYTES = 2 << 30
"""Of a whole checkpoint, which is read into memory: over a hundred million parameters with Adam's moments."""
ADVICE = "Use another checkpoint of the run, or restore this one from a copy."

_FORMAT = "distppo checkpoint"
_ARRAYS_NAME = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_-]{0,63}" + re.escape(ARRAYS_SUFFIX))
_SHA256 = re.compile(r"[0-9a-f]{64}")
_SAVED_AT = re.compile(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{6}\+00:00")
MAX_MANIFEST_BYTES = 1 << 20
_MAX_FILES = 256


class FileEntry(NamedTuple):
    """Size in bytes and SHA-256 (hex) of one file."""

    size: int
    sha256: str


class Manifest(NamedTuple):
    """Contents of MANIFEST.json.

    Attributes:
        iteration: iterations behind the checkpoint.
        env_steps: env steps learned from.
        serial: counts the saves into a run directory; it orders them also when a resume went back to an earlier iteration.
        saved_at: UTC, ISO 8601 with microseconds, so it sorts as text.
        files: name -> size and hash.
    """

    iteration: int
    env_steps: int
    serial: int
    saved_at: str
    files: dict[str, FileEntry]


def is_arrays_name(name: str) -> bool:
    """True for a plain `<stem>.safetensors`: no separators, no leading or inner dots."""
    return _ARRAYS_NAME.fullmatch(name) is not None


def describe_file(data: bytes) -> FileEntry:
    """The entry of a file with this content."""
    return FileEntry(size=len(data), sha256=hashlib.sha256(data).hexdigest())


def encode_manifest(manifest: Manifest) -> bytes:
    """The manifest as JSON text, with a checksum of its own over everything else in it."""
    body: dict[str, Any] = {"format": _FORMAT, "format_version": FORMAT_VERSION} | manifest._asdict()
    body["files"] = {name: entry._asdict() for name, entry in manifest.files.items()}
    return json.dumps(body | {"checksum": _checksum(body)}, indent=2).encode() + b"\n"


def read_manifest(directory: Path) -> Manifest:
    """Reads and checks the manifest of a checkpoint directory; its files are not touched.

    Raises:
        CheckpointError: It is missing, damaged, of a newer format or lists what a checkpoint cannot hold.
    """
    path = directory / MANIFEST_NAME
    fields = parse_json(read_file(path, limit=MAX_MANIFEST_BYTES), path)
    if fields.get("format") != _FORMAT:
        raise CheckpointError(f"{path}: not the manifest of a distppo checkpoint. {ADVICE}")
    version = fields.get("format_version")
    if _is_count(version) and version > FORMAT_VERSION:
        raise CheckpointError(
            f"{path}: made by a newer distppo (checkpoint format {version}, this one reads up to {FORMAT_VERSION}). Upgrade distppo."
        )
    checksum = fields.pop("checksum", None)
    if version != FORMAT_VERSION or not _is_sound(fields) or checksum != _checksum(fields):
        raise CheckpointError(f"{path}: damaged. {ADVICE}")
    files = {name: FileEntry(**entry) for name, entry in fields["files"].items()}
    return Manifest(files=files, **{name: fields[name] for name in ("iteration", "env_steps", "serial", "saved_at")})


def read_file(path: Path, *, limit: int) -> bytes:
    """Content of a regular file of at most `limit` bytes; links are not followed and devices not waited for.

    Raises:
        CheckpointError: It is missing, unreadable, too large or not a regular file.
    """
    try:
        with open_regular(path) as file:
            size = os.fstat(file.fileno()).st_size
            if size > limit:
                raise CheckpointError(f"{path}: {size:,} bytes, more than the {limit:,} expected. {ADVICE}")
            return file.read(size)
    except FileNotFoundError:
        raise CheckpointError(f"{path}: missing, so the checkpoint is incomplete. {ADVICE}") from None
    except OSError as error:
        reason = "a link, which a checkpoint never holds" if path.is_symlink() else f"cannot be read ({error.strerror})"
        raise CheckpointError(f"{path}: {reason}. {ADVICE}") from error


def parse_json(data: bytes, path: Path) -> dict[str, Any]:
    """A JSON object, read strictly; `path` is for the message.

    Raises:
        CheckpointError: It is not that.
    """
    try:
        fields = parse_strictly(data)
    except ValueError as error:
        raise CheckpointError(f"{path}: damaged, not JSON as distppo writes it ({error}). {ADVICE}") from error
    if not isinstance(fields, dict):
        raise CheckpointError(f"{path}: damaged, not a JSON object. {ADVICE}")
    return fields


def _checksum(fields: Mapping[str, Any]) -> str:
    return hashlib.sha256(json.dumps(fields, sort_keys=True).encode()).hexdigest()


def _is_count(value: object) -> TypeGuard[int]:
    return isinstance(value, int) and not isinstance(value, bool) and 0 <= value < 2**63


def _is_sound(fields: Mapping[str, Any]) -> bool:
    """True if the fields are those of a manifest, of the right types and within bounds."""
    if fields.keys() != {"format", "format_version", *Manifest._fields}:
        return False
    if not all(_is_count(fields[name]) for name in ("iteration", "env_steps", "serial")):
        return False
    saved_at, files = fields["saved_at"], fields["files"]
    if not isinstance(saved_at, str) or not _SAVED_AT.fullmatch(saved_at):
        return False
    if not isinstance(files, dict) or STATE_NAME not in files or len(files) > _MAX_FILES:
        return False
    if not all((name == STATE_NAME or is_arrays_name(name)) and _is_entry(entry) for name, entry in files.items()):
        return False
    return files[STATE_NAME]["size"] <= MAX_STATE_BYTES and sum(entry["size"] for entry in files.values()) <= MAX_BYTES


def _is_entry(entry: object) -> bool:
    if not isinstance(entry, dict) or entry.keys() != set(FileEntry._fields):
        return False
    size, sha256 = entry["size"], entry["sha256"]
    return _is_count(size) and isinstance(sha256, str) and _SHA256.fullmatch(sha256) is not None
