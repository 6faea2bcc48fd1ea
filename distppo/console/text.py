"""Numbers as short text. Pure functions; a number that is missing or not finite is "-"."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import TypeGuard

MISSING = "-"
_LEVELS = "\u2581\u2582\u2583\u2584\u2585\u2586\u2587\u2588"


def is_number(value: float | None) -> TypeGuard[float]:
    """True for a finite number."""
    return value is not None and math.isfinite(value)


def format_number(value: float | None, spec: str) -> str:
    """The number by a format specification such as ".1f".

    Example:
        >>> format_number(1234.56, ".1f"), format_number(None, ".1f")
        ('1234.6', '-')
    """
    return format(value, spec) if is_number(value) else MISSING


def format_count(value: float | None) -> str:
    """A whole number with thousands separated by commas.

    Example:
        >>> format_count(163_840)
        '163,840'
    """
    return format_number(value, ",.0f")


def format_duration(seconds: float | None) -> str:
    """A duration in its two largest units, rounded to the second; negative ones are "-" too.

    Example:
        >>> [format_duration(seconds) for seconds in (7, 85, 7380, 100_800)]
        ['7s', '1m25s', '2h03m', '1d04h']
    """
    if not is_number(seconds) or seconds < 0:
        return MISSING
    whole = round(seconds)
    for size, name, smaller, smaller_name in ((86_400, "d", 3600, "h"), (3600, "h", 60, "m"), (60, "m", 1, "s")):
        if whole >= size:
            return f"{whole // size}{name}{whole % size // smaller:02d}{smaller_name}"
    return f"{whole}s"


def sparkline(values: Sequence[float], width: int) -> str:
    """The values as a row of bars between the lowest and the highest, at most `width` of them.

    More values than `width` are averaged in groups of equal size; what is not finite is left out, and a group of nothing else is a gap.
    """
    columns = min(width, len(values))
    means = [_mean(values[index * len(values) // columns : (index + 1) * len(values) // columns]) for index in range(columns)]
    finite = [mean for mean in means if mean is not None]
    if not finite:
        return " " * columns
    low, high = min(finite), max(finite)
    scale = (len(_LEVELS) - 1) / (high - low) if high > low else 0.0
    return "".join(" " if mean is None else _LEVELS[round((mean - low) * scale)] for mean in means)


def _mean(values: Sequence[float]) -> float | None:
    finite = [value for value in values if math.isfinite(value)]
    return math.fsum(finite) / len(finite) if finite else None
