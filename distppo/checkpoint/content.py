"""What a checkpoint's files hold: arrays as safetensors, everything else as strict JSON. Neither can execute anything."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from safetensors.numpy import load, save

from distppo.checkpoint.manifest import ADVICE, STATE_NAME
from distppo.errors import CheckpointError
from distppo.strict_json import parse_strictly

_DTYPES = {"bool", "int8", "int16", "int32", "int64", "uint8", "uint16", "uint32", "uint64", "float16", "float32", "float64"}
_RESERVED = "__metadata__"
_LENGTH_BYTES = 8
_MAX_HEADER_BYTES = 8 << 20


def encode_arrays(arrays: Mapping[str, np.ndarray]) -> bytes:
    """The arrays as safetensors: any shape, layout and byte order; they are only read.

    Raises:
        ValueError: An array's name is reserved, its dtype cannot be stored, or there are too many.
    """
    ready = {}
    for name, value in arrays.items():
        array = np.asarray(value)
        if not name or name == _RESERVED:
            raise ValueError(f"an array in a checkpoint cannot be called {name!r}")
        if array.dtype.name not in _DTYPES:
            raise ValueError(f"array {name!r} has dtype {array.dtype}, which a checkpoint cannot hold; it can {sorted(_DTYPES)}")
        ready[name] = np.asarray(array, dtype=array.dtype.newbyteorder("="), order="C")
    data = save(ready)
    _check_header(data)
    return data


def decode_arrays(data: bytes, path: Path) -> dict[str, np.ndarray]:
    """The arrays of `encode_arrays`, equal in dtype, shape and bits, writable; `path` is for the message.

    Raises:
        CheckpointError: The data is not safetensors, or holds a dtype or shape that numpy has not.
    """
    try:
        _check_header(data)
        return load(data)
    except Exception as error:  # The package raises its own, KeyError, ValueError and more, depending on what is wrong.
        raise CheckpointError(f"{path}: not a readable safetensors file ({error}). {ADVICE}") from error


def _check_header(data: bytes) -> None:
    """Raises ValueError for a header that costs much more memory than its bytes, or that two readers could read differently."""
    length = int.from_bytes(data[:_LENGTH_BYTES], "little")
    if length > _MAX_HEADER_BYTES:
        raise ValueError(f"a header of {length:,} bytes, more than the {_MAX_HEADER_BYTES:,} allowed")
    parse_strictly(data[_LENGTH_BYTES : _LENGTH_BYTES + length])


def encode_state(state: Mapping[str, Any]) -> bytes:
    """The state as JSON text; tuples become lists.

    Raises:
        ValueError: A value is not JSON: the message has its place. Non-finite floats are refused too, since JSON has none, and so is
            what could not be read again.
    """
    fields = dict(state)
    _check(fields, STATE_NAME)
    data = json.dumps(fields, indent=1).encode() + b"\n"
    try:
        parse_strictly(data)
    except ValueError as error:
        raise ValueError(f"{STATE_NAME} could not be read again: {error}") from None
    return data


def _check(value: object, place: str) -> None:
    if isinstance(value, dict):
        for key, item in value.items():
            if not isinstance(key, str):
                raise ValueError(f"{place}: key {key!r} is not a string")
            _check(item, f"{place}.{key}")
    elif isinstance(value, list | tuple):
        for index, item in enumerate(value):
            _check(item, f"{place}[{index}]")
    elif isinstance(value, float):
        if not math.isfinite(value):
            raise ValueError(f"{place}: {value} cannot be stored in JSON; store None or a string for it")
    elif not isinstance(value, str | int | None):
        kind = f"{type(value).__module__}.{type(value).__qualname__}"
        raise ValueError(f"{place}: {kind} cannot be stored in JSON")
