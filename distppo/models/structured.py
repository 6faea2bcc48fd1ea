"""Observations that are not one array: what an environment gives, as the vector that its policy was trained on.

An environment whose observation space is no Box (Discrete, MultiDiscrete, MultiBinary, Dict, Tuple) is trained on flattened observations.
`EnvSpec.observation_parts` says how, as nested tuples of plain values:

    ("box", shape)    ("binary", shape)    ("discrete", n, start)    ("discretes", shape, choices, starts)
    ("tuple", (part, ...))    ("dict", ((key, part), ...))
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import numpy as np

Part = tuple[Any, ...]


def flattened_size(part: Part) -> int:
    """Returns how many numbers the vector has.

    Raises:
        ValueError: no such part is written.
    """
    match part:
        case ("box" | "binary", shape):
            return math.prod(shape)
        case ("discrete", n, _):
            return int(n)
        case ("discretes", _, choices, _):
            return sum(choices)
        case ("tuple", parts):
            return sum(map(flattened_size, parts))
        case ("dict", items):
            return sum(flattened_size(each) for _, each in items)
    raise ValueError(f"an observation of the unknown kind {part[:1]}")


def as_vectors(part: Part, observation: Any) -> np.ndarray:
    """Returns [size] for one observation as the environment gives it, [n, size] for a list of such; what is flat already as it is.

    Args:
        part: of the whole observation, no Box.
        observation: a dict, a tuple, a whole number or an array, whatever the space has; or numbers, flattened.

    Raises:
        ValueError: it is no observation of this space.
    """
    if _is_structured(part, observation):
        return _vector(part, observation, "")
    if isinstance(observation, list) and observation and all(_is_structured(part, each) for each in observation):
        if part[0] == "discrete" and len(observation) == part[1]:
            raise ValueError(
                f"{len(observation)} numbers may be one observation of Discrete({part[1]}), flattened, or {len(observation)} observations: "
                "give them one at a time"
            )
        return np.stack([_vector(part, each, "") for each in observation])
    flat = np.asarray(observation, np.float64)
    if flat.shape == (flattened_size(part),):
        _require_flattened(part, flat)
    return flat


def _is_structured(part: Part, observation: Any) -> bool:
    match part:
        case ("dict", _):
            return isinstance(observation, Mapping)
        case ("tuple", parts):
            return isinstance(observation, tuple) and len(observation) == len(parts)
        case ("discrete", *_):
            return np.ndim(observation) == 0
        case ("discretes", shape, choices, _):
            return np.shape(observation) == shape and shape != (sum(choices),)
        case ("binary", shape):
            return np.shape(observation) == shape
    return False


def _vector(part: Part, value: Any, name: str) -> np.ndarray:
    match part:
        case ("box" | "binary", shape):
            array = np.asarray(value, np.float64)
            if array.shape != shape:
                raise ValueError(f"observation{name} has shape {array.shape}; its space has {shape}")
            return array.reshape(-1)
        case ("discrete", n, start):
            return _one_hot([value], [n], [start], name)
        case ("discretes", shape, choices, starts):
            if np.shape(value) != shape:
                raise ValueError(f"observation{name} has shape {np.shape(value)}; its space has {shape}")
            return _one_hot(np.asarray(value).reshape(-1), choices, starts, name)
        case ("tuple", parts):
            if not isinstance(value, tuple | list) or len(value) != len(parts):
                raise ValueError(f"observation{name} is {value!r}; its space is a Tuple of {len(parts)}")
            return np.concatenate(
                [_vector(each, inner, f"{name}[{index}]") for index, (each, inner) in enumerate(zip(parts, value, strict=True))]
            )
        case ("dict", items):
            keys = [key for key, _ in items]
            if not isinstance(value, Mapping) or set(value) != set(keys):
                given = sorted(map(str, value)) if isinstance(value, Mapping) else repr(value)
                raise ValueError(f"observation{name} has {given}; its space is a Dict of {sorted(map(str, keys))}")
            return np.concatenate([_vector(each, value[key], f"{name}[{key!r}]") for key, each in items])
    raise ValueError(f"an observation of the unknown kind {part[:1]}")


def _one_hot(values: Any, choices: Any, starts: Any, name: str) -> np.ndarray:
    rows = [np.zeros(n) for n in choices]
    for row, value, n, start in zip(rows, values, choices, starts, strict=True):
        whole = int(value)
        if whole != value or not start <= whole < start + n:
            raise ValueError(f"observation{name} is {value!r}; its space has the whole numbers from {start} to {start + n - 1}")
        row[whole - start] = 1.0
    return np.concatenate(rows)


def _require_flattened(part: Part, row: np.ndarray) -> None:
    """Raises ValueError where what should be one of several choices, flattened, is something else."""
    match part:
        case ("discrete", n, _):
            groups = [n]
        case ("discretes", _, choices, _):
            groups = list(choices)
        case _:
            return
    for piece in np.split(row, np.cumsum(groups)[:-1]):
        if not (np.isin(piece, (0.0, 1.0)).all() and piece.sum() == 1.0):
            given = np.array2string(row, threshold=8, edgeitems=3, precision=4, separator=", ")
            raise ValueError(f"{given} is no flattened observation: of {len(piece)} numbers one must be 1, the others 0")
