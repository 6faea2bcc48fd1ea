"""Axes: the range that is drawn, its ticks, and numbers as short text. Pure functions."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np

Range = tuple[float, float]
OUTLIERS = 0.03
"""Share of the values, on either side, that may fall outside of an axis for the others to be seen."""
_FAR = 3.0


def value_range(arrays: Sequence[np.ndarray], include: Sequence[float] = ()) -> Range:
    """The range of an axis: all values with a margin; without the outermost ones where those would squeeze the rest into a third of it."""
    values = np.concatenate([*arrays, np.asarray(include, dtype=np.float64)]) if arrays or include else np.empty(0)
    values = values[np.isfinite(values)]
    if not len(values):
        return 0.0, 1.0
    low, high = float(values.min()), float(values.max())
    if not math.isfinite(high - low):
        return low / 4, high / 4
    inner_low, inner_high = (float(bound) for bound in np.quantile(values, [OUTLIERS, 1 - OUTLIERS]))
    if inner_high > inner_low and high - low > _FAR * (inner_high - inner_low):
        low, high = max(low, inner_low - (inner_high - inner_low) / 2), min(high, inner_high + (inner_high - inner_low) / 2)
    margin = 0.06 * (high - low) or 0.1 * abs(high) or 1.0
    return low - margin, high + margin


def ticks(bounds: Range, about: int = 5) -> list[float]:
    """Round numbers inside the range, about so many: multiples of 1, 2 or 5 times a power of ten."""
    low, high = bounds
    raw = (high - low) / about
    if not math.isfinite(raw) or raw <= 0:
        return [low]
    power = 10.0 ** math.floor(math.log10(raw))
    step = next(power * factor for factor in (1, 2, 5, 10) if power * factor >= raw * 0.99)
    if not step or not math.isfinite(step):
        return [low]
    first, last = math.ceil(low / step - 1e-9), math.floor(high / step + 1e-9)
    return [index * step for index in range(first, min(last, first + 20) + 1)]


def short(value: float | None) -> str:
    """A number of four significant digits or so: 1,234, 0.0123, 1.2e-07; "-" for none.

    Example:
        >>> [short(value) for value in (1234.56, -12.345, 0.01234, 1.2e-7, 0.0, None)]
        ['1,235', '-12.35', '0.01234', '1.2e-07', '0', '-']
    """
    if value is None or not math.isfinite(value):
        return "-"
    if abs(value) >= 1e9:
        return f"{value:.3g}"
    if abs(value) >= 1000:
        return f"{value:,.0f}"
    return f"{value:.4g}"


def compact(value: float) -> str:
    """A tick's label: 200k, 1.5M, 0.02.

    Example:
        >>> [compact(value) for value in (0.0, 200_000.0, 1_500_000.0, -2500.0, 0.02)]
        ['0', '200k', '1.5M', '-2.5k', '0.02']
    """
    for size, letter in ((1e9, "G"), (1e6, "M"), (1e3, "k")):
        if abs(value) >= size and abs(value) < 1e15:
            return f"{value / size:.4g}{letter}"
    return f"{value:.4g}"
