"""JSON read strictly: what a file of ours never holds is refused, and what it can cost is bounded before it is built."""

from __future__ import annotations

import json
import math
import re
from typing import Any

MOST_VALUES = 4_000_000
DEEPEST = 64
_LONGEST_INTEGER = 80
_ESCAPED_SURROGATE = re.compile(rb"\\u[dD][89a-fA-F]")


def parse_strictly(data: bytes, *, most_values: int = MOST_VALUES) -> Any:
    """Returns the value of one JSON text in UTF-8.

    Refused besides what is not JSON: NaN, infinities and numbers that overflow to them, integers of more than 80 characters, a key that
    comes twice, nesting more than 64 deep, half a surrogate pair, and more than `most_values` values.

    Raises:
        ValueError: the message says why, to stand in parentheses.
    """
    # Each value but the first follows one of these, so this bounds the objects before any is made.
    openings = data.count(b"[") + data.count(b"{")
    if openings + data.count(b",") > most_values:
        raise ValueError(f"more than {most_values:,} values")
    try:
        value = _DECODER.decode(data.decode())
    except RecursionError:
        raise ValueError(f"nested more than {DEEPEST} deep") from None
    if openings > DEEPEST and _is_deeper(value, DEEPEST):
        raise ValueError(f"nested more than {DEEPEST} deep")
    if _ESCAPED_SURROGATE.search(data):
        json.dumps(value, ensure_ascii=False).encode()  # raises for half a pair, which no file or terminal could be given
    return value


def _is_deeper(value: Any, limit: int) -> bool:
    level = [value]
    for _ in range(limit):
        level = [child for item in level for child in _children(item)]
        if not level:
            return False
    return any(isinstance(item, dict | list) for item in level)


def _children(value: Any) -> Any:
    if isinstance(value, dict):
        return value.values()
    return value if isinstance(value, list) else ()


def _object(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    fields = dict(pairs)
    if len(fields) < len(pairs):
        raise ValueError("a key comes twice")
    return fields


def _finite(text: str) -> float:
    number = float(text)
    if not math.isfinite(number):
        raise ValueError("a number that is not finite")
    return number


def _bounded(text: str) -> int:
    if len(text) > _LONGEST_INTEGER:
        raise ValueError(f"an integer of {len(text):,} characters")
    return int(text)


def _refuse(name: str) -> float:
    raise ValueError(f"{name} is not JSON")


_DECODER = json.JSONDecoder(object_pairs_hook=_object, parse_float=_finite, parse_int=_bounded, parse_constant=_refuse)
