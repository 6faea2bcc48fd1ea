"""Reading what `evaluate` has left in a run: scores, value analysis, figures and videos, all of which may be a stranger's."""

from __future__ import annotations

import base64
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

from distppo.report.run_files import read_json, read_small

EVALUATIONS = "evaluations"
EVALUATION_FILE = "evaluation.json"
MOST_EVALUATIONS = 1000
LARGEST_FIGURE = 2 << 20
_KINDS = {".png": (0, b"\x89PNG\r\n\x1a\n", "image/png"), ".gif": (0, b"GIF8", "image/gif"), ".mp4": (4, b"ftyp", "video/mp4")}


class Evaluation(NamedTuple):
    """One folder of `evaluate`.

    Attributes:
        path: the folder.
        scores: of evaluation.json.
        values: the value analysis, empty if there is none.
        notes: what could not be read.
    """

    path: Path
    scores: Mapping[str, Any]
    values: Mapping[str, Any]
    notes: list[str]

    def names(self, kind: str) -> list[str]:
        """Names of the figures or of the videos' files, as far as they can be names inside the folder."""
        listed = self.scores.get(kind)
        files = [item.get("file") if isinstance(item, dict) else item for item in listed] if isinstance(listed, list) else []
        return [name for name in files if isinstance(name, str) and _is_plain(name)]

    def video(self, name: str) -> Mapping[str, Any]:
        """What is told of a video."""
        listed = self.scores.get("videos")
        return (
            next((item for item in listed if isinstance(item, dict) and item.get("file") == name), {}) if isinstance(listed, list) else {}
        )


def read_evaluations(run: Path) -> list[Evaluation]:
    """The evaluations of a run, the newest first; folders without a readable evaluation.json are left out."""
    root = run / EVALUATIONS
    if root.is_symlink():
        return []
    try:
        folders = [Path(entry.path) for entry in os.scandir(root) if entry.is_dir(follow_symlinks=False)]
    except OSError:
        return []
    found = [_read(folder) for folder in sorted(folders, reverse=True)[:MOST_EVALUATIONS] if (folder / EVALUATION_FILE).exists()]
    return [evaluation for evaluation in found if evaluation.scores]


def data_address(path: Path, limit: int) -> str:
    """A picture or video as an address that holds it.

    Raises:
        OSError: it is missing, a link, or cannot be read.
        ValueError: it is larger than `limit` bytes, or not what its name says.
    """
    kind = _KINDS.get(path.suffix.lower())
    data = read_small(path, limit)
    if kind is None or not data[kind[0] :].startswith(kind[1]):
        raise ValueError("not a PNG, GIF or MP4 file")
    return f"data:{kind[2]};base64,{base64.b64encode(data).decode()}"


def _read(folder: Path) -> Evaluation:
    notes: list[str] = []
    scores = read_json(folder / EVALUATION_FILE, notes)
    name = scores.get("values")
    values = read_json(folder / name, notes) if isinstance(name, str) and _is_plain(name) else {}
    return Evaluation(folder, scores, values, notes)


def _is_plain(name: str) -> bool:
    """True for the name of a file in the folder itself."""
    return bool(name) and name not in (".", "..") and not set(name) & set("/\\\0")
