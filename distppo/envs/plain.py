"""Python values as JSON and arrays, and back with the same types and bits: what an environment's attributes are stored as."""

from __future__ import annotations

import math
import re
from collections import deque
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np

STORED_DTYPES = frozenset(
    {"bool", "int8", "int16", "int32", "int64", "uint8", "uint16", "uint32", "uint64", "float16", "float32", "float64"}
)
BIT_GENERATORS = frozenset({"MT19937", "PCG64", "PCG64DXSM", "Philox", "SFC64"})
TEXTS = (np.ndarray, np.str_, np.bytes_)
DEPTH = 16
"""Containers inside containers beyond this are refused; one that contains itself ends here."""


class NotPlainError(ValueError):
    """A value that is more than numbers, text and containers of them."""


def encode(value: Any, name: str, arrays: dict[str, np.ndarray], depth: int = 0) -> Any:
    """Returns the value as JSON; arrays in it are copied into `arrays` under `name` and what follows from it.

    None, bool, int, finite float and str are themselves. Everything else is an object with one key, which says what it is.

    Raises:
        NotPlainError: it is of another type: see `distppo.envs.capture` for what can be done then.
    """
    kind = type(value)
    if value is None or kind in (bool, int, str):
        return value
    if kind is float:
        return value if math.isfinite(value) else {"float": repr(value)}
    if isinstance(value, np.ndarray | np.generic) and value.dtype.kind in "US" and value.dtype.isnative and type(value) in TEXTS:
        return {"texts" if kind is np.ndarray else "text": [value.dtype.str, list(value.shape), _written(value)]}
    if kind is np.ndarray or isinstance(value, np.generic):
        if value.dtype.name not in STORED_DTYPES or not value.dtype.isnative:
            raise NotPlainError(f"an array of {value.dtype}")
        arrays[name] = np.array(value, order="C")
        return {"array" if kind is np.ndarray else "scalar": name}
    if depth >= DEPTH:
        raise NotPlainError(f"containers more than {DEPTH} deep")
    if kind in (list, tuple):
        return {kind.__name__: [encode(item, f"{name}.{index}", arrays, depth + 1) for index, item in enumerate(value)]}
    if kind is deque:
        items = [encode(item, f"{name}.{index}", arrays, depth + 1) for index, item in enumerate(value)]
        return {"deque": [value.maxlen, items]}
    if kind is dict and all(type(key) is str for key in value):
        return {"dict": {key: encode(item, f"{name}.{key}", arrays, depth + 1) for key, item in value.items()}}
    if kind is dict:
        items = [[encode(each, f"{name}.{index}", arrays, depth + 1) for each in item] for index, item in enumerate(value.items())]
        return {"pairs": items}
    if kind is np.random.Generator and value.bit_generator.state["bit_generator"] in BIT_GENERATORS:
        return {"generator": encode(value.bit_generator.state, name, arrays, depth + 1)}
    raise NotPlainError(f"a {kind.__module__}.{kind.__qualname__}")


def decode(encoded: Any, arrays: Mapping[str, np.ndarray]) -> Any:
    """Returns the value that `encode` was given; its arrays are copies.

    Raises:
        ValueError: `encode` does not write that.
    """
    if not isinstance(encoded, dict):
        if isinstance(encoded, list):
            raise ValueError("a list that is not marked as one")
        return encoded
    if len(encoded) != 1:
        raise ValueError(f"an object with the keys {sorted(encoded)}")
    ((kind, content),) = encoded.items()
    if kind not in DECODERS:
        raise ValueError(f"a value of the unknown kind {kind!r}")
    try:
        return DECODERS[kind](content, arrays)
    except (KeyError, TypeError, AttributeError, RecursionError) as error:
        raise ValueError(f"a {kind} that is not as it is written ({error})") from error


def same(first: Any, first_arrays: Mapping[str, np.ndarray], second: Any, second_arrays: Mapping[str, np.ndarray]) -> bool:
    """Says whether two encoded values are equal to the last bit."""
    # As text, in which -0.0 is not 0.0, nor 1 True.
    if repr(first) != repr(second) or first_arrays.keys() != second_arrays.keys():
        return False
    pairs = ((array, second_arrays[name]) for name, array in first_arrays.items())
    return all(a.dtype == b.dtype and a.shape == b.shape and a.tobytes() == b.tobytes() for a, b in pairs)


def _written(value: Any) -> list[str]:
    """Returns the texts of an array as JSON can hold them."""
    items = np.asarray(value).reshape(-1).tolist()
    return [item.decode("latin-1") if isinstance(item, bytes) else item for item in items]


def _texts(content: list[Any], _: Mapping[str, np.ndarray]) -> np.ndarray:
    dtype, shape, items = content
    if not re.fullmatch(r"[<>|=]?[US]\d+", dtype):
        raise ValueError(f"texts of the type {dtype!r}")
    return np.array([item.encode("latin-1") if "S" in dtype else item for item in items], dtype).reshape(shape)


def _text(content: list[Any], arrays: Mapping[str, np.ndarray]) -> Any:
    return _texts(content, arrays)[()]


def _pairs(items: list[Any], arrays: Mapping[str, np.ndarray]) -> dict[Any, Any]:
    return {decode(key, arrays): decode(item, arrays) for key, item in items}


def _array(name: str, arrays: Mapping[str, np.ndarray]) -> np.ndarray:
    return np.array(arrays[name])


def _scalar(name: str, arrays: Mapping[str, np.ndarray]) -> Any:
    if arrays[name].shape:
        raise ValueError(f"a number of shape {arrays[name].shape}")
    return arrays[name][()]


def _float(text: str, _: Mapping[str, np.ndarray]) -> float:
    return {"nan": math.nan, "inf": math.inf, "-inf": -math.inf}[text]


def _list(items: list[Any], arrays: Mapping[str, np.ndarray]) -> list[Any]:
    return [decode(item, arrays) for item in items]


def _tuple(items: list[Any], arrays: Mapping[str, np.ndarray]) -> tuple[Any, ...]:
    return tuple(_list(items, arrays))


def _deque(content: list[Any], arrays: Mapping[str, np.ndarray]) -> deque[Any]:
    maxlen, items = content
    return deque(_list(items, arrays), maxlen)


def _dict(items: dict[str, Any], arrays: Mapping[str, np.ndarray]) -> dict[str, Any]:
    return {key: decode(item, arrays) for key, item in items.items()}


def _generator(state: Any, arrays: Mapping[str, np.ndarray]) -> np.random.Generator:
    decoded = decode(state, arrays)
    name = decoded["bit_generator"]
    if name not in BIT_GENERATORS:
        raise ValueError(f"an unknown bit generator {name!r}")
    generator = np.random.Generator(getattr(np.random, name)())
    generator.bit_generator.state = decoded
    return generator


DECODERS: dict[str, Callable[[Any, Mapping[str, np.ndarray]], Any]] = {
    "array": _array,
    "scalar": _scalar,
    "float": _float,
    "list": _list,
    "tuple": _tuple,
    "deque": _deque,
    "dict": _dict,
    "pairs": _pairs,
    "text": _text,
    "texts": _texts,
    "generator": _generator,
}
