"""Checkpoints on disk: atomic, hashed, without pickle.

`<run>/checkpoints/ckpt_<iteration>/` holds `<name>.safetensors`, `state.json` and `MANIFEST.json`, which is written last and
lists the size and SHA-256 of the others. The small files `latest` and `best` beside it hold a directory's name.
"""

from distppo.checkpoint.reader import Checkpoint, CheckpointInfo, best_checkpoint, list_checkpoints, load_checkpoint, load_latest_valid
from distppo.checkpoint.resolve import load_for_resume, load_resolved, resolve_checkpoint
from distppo.checkpoint.store import CheckpointStore

__all__ = [
    "Checkpoint",
    "CheckpointInfo",
    "CheckpointStore",
    "best_checkpoint",
    "list_checkpoints",
    "load_checkpoint",
    "load_for_resume",
    "load_latest_valid",
    "load_resolved",
    "resolve_checkpoint",
]
