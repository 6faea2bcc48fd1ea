"""What rules ask of a series of points."""

from __future__ import annotations

import itertools
import statistics
from collections.abc import Callable, Sequence
from typing import TypeVar

from distppo.findings.finding import Point

Item = TypeVar("Item")

WARM_UP = 5
"""Updates at the beginning that are not judged: critic and normalizer start from nothing."""
PERSISTENT = 8
"""Updates in a row from which on something is no accident."""


def longest_stretch(points: Sequence[Point], holds: Callable[[float], bool]) -> list[Point]:
    """The longest run of neighbours for which something holds; the latest of several as long."""
    best: list[Point] = []
    for held, group in itertools.groupby(points, lambda point: holds(point.value)):
        stretch = list(group)
        if held and len(stretch) >= len(best):
            best = stretch
    return best


def share(points: Sequence[Point], holds: Callable[[float], bool]) -> float:
    """Part of the points for which something holds, in [0, 1]; 0 without points."""
    return sum(holds(point.value) for point in points) / len(points) if points else 0.0


def median(points: Sequence[Point]) -> float:
    """Median of the values; there must be one."""
    return statistics.median(point.value for point in points)


def smoothed(points: Sequence[Point], windows: int = 20) -> list[Point]:
    """Means of equal groups of neighbours, at most `windows` of them, each at the env steps of its last point."""
    count = min(windows, len(points))
    groups = (points[index * len(points) // count : (index + 1) * len(points) // count] for index in range(count))
    return [Point(group[-1].step, statistics.fmean(point.value for point in group)) for group in groups]


def jitter(points: Sequence[Point]) -> float:
    """Median absolute difference between neighbours: how much a series moves without going anywhere."""
    return statistics.median(abs(after.value - before.value) for before, after in itertools.pairwise(points))


def tail(items: Sequence[Item], part: float, *, least: int = 1) -> Sequence[Item]:
    """The last `part` of the items, at least `least` of them."""
    return items[-max(least, round(len(items) * part)) :]


def between(points: Sequence[Point]) -> str:
    """Where the points lie, in words."""
    first, last = points[0].step, points[-1].step
    return f"at {first:,} env steps" if first == last else f"between {first:,} and {last:,} env steps"
