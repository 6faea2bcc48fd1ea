"""The forms that a policy can be exported in, and reading any of them back."""

from __future__ import annotations

import os
import zipfile
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, NamedTuple, Protocol

import numpy as np

from distppo.errors import CheckpointError, UserError
from distppo.export.numpy_file import decode_numpy, encode_numpy
from distppo.export.program import Program

LARGEST_FILE = 2**31


class Runner(Protocol):
    """An exported policy, ready to act.

    Attributes:
        origin: where it comes from, JSON values.
    """

    origin: dict[str, Any]

    def act(self, observation: np.ndarray) -> np.ndarray:
        """Returns the deterministic action for one raw observation [*S], or one each for a batch [n, *S]."""


class Format(NamedTuple):
    """One form.

    Attributes:
        suffix: of its files.
        encode: (program, origin) -> the file's bytes.
        decode: bytes -> the policy; raises ValueError for what is damaged or foreign.
    """

    suffix: str
    encode: Callable[[Program, Mapping[str, Any]], bytes]
    decode: Callable[[bytes], Runner]


def _encode_onnx(program: Program, origin: Mapping[str, Any]) -> bytes:
    from distppo.export.onnx_file import encode_onnx

    return encode_onnx(program, origin)


def _decode_onnx(data: bytes) -> Runner:
    from distppo.export.onnx_file import OnnxPolicy

    return OnnxPolicy(data)


def _encode_torch(program: Program, origin: Mapping[str, Any]) -> bytes:
    from distppo.export.torch_file import encode_torch

    return encode_torch(program, origin)


def _decode_torch(data: bytes) -> Runner:
    from distppo.export.torch_file import TorchPolicy

    return TorchPolicy(data)


FORMATS = {
    "onnx": Format(".onnx", _encode_onnx, _decode_onnx),
    "numpy": Format(".npz", encode_numpy, decode_numpy),
    "torch": Format(".pt2", _encode_torch, _decode_torch),
}
"""By the name that `--format` takes. Only what is used is imported."""


def is_exported(path: str | os.PathLike[str]) -> bool:
    """Says whether the path is a file whose name ends as one of the forms does."""
    return Path(path).is_file() and _format_of(Path(path)) is not None


def read_exported(path: str | os.PathLike[str]) -> Runner:
    """Returns the policy of an exported file.

    Raises:
        CheckpointError: it is damaged, changed, or not of distppo.
        ExportError: the package that runs this form is not installed.
    """
    path = Path(path)
    form = _format_of(path)
    assert form is not None
    try:
        if path.stat().st_size > LARGEST_FILE:
            raise ValueError(f"it is larger than {LARGEST_FILE:,} bytes")
        return form.decode(path.read_bytes())
    except UserError:
        raise
    except (OSError, ValueError, KeyError, TypeError, RecursionError, RuntimeError, zipfile.BadZipFile, NotImplementedError) as error:
        reason = getattr(error, "strerror", None) or str(error).splitlines()[0]
        raise CheckpointError(f"{path}: not a policy that can be used: {reason}. Export it again from its checkpoint") from error


def _format_of(path: Path) -> Format | None:
    return next((form for form in FORMATS.values() if path.suffix == form.suffix), None)
