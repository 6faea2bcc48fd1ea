"""Series for figures: drawn with few points, and over seeds as interquartile mean with its interval. Pure functions of arrays."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from distppo.algo.scores import interquartile_mean, iqm_interval
from distppo.findings import RunRecord

MOST_POINTS = 400
GRID_POINTS = 120
RESAMPLES = 1000


class Curve(NamedTuple):
    """A line of a figure; arrays of one length.

    Attributes:
        steps: env steps, rising.
        values: what is drawn.
        low: lower edge of the band around it, or None.
        high: upper edge.
    """

    steps: np.ndarray
    values: np.ndarray
    low: np.ndarray | None = None
    high: np.ndarray | None = None


def curve_of(run: RunRecord, key: str, *, spread: str | None = None) -> Curve:
    """A metric over env steps, where it is finite; `spread` names the metric that is the band's half width."""
    rows = run.series(key)
    steps = np.array([point.step for point in rows], dtype=np.float64)
    values = np.array([point.value for point in rows], dtype=np.float64)
    if spread is None:
        return Curve(steps, values)
    widths = dict(run.series(spread))
    half = np.array([widths.get(point.step, 0.0) for point in rows], dtype=np.float64)
    return Curve(steps, values, values - half, values + half)


def thinned(curve: Curve, most: int = MOST_POINTS) -> Curve:
    """The curve with at most `most` points, so that it looks the same: largest-triangle-three-buckets.

    The first and last points stay; of each bucket between them the one stays that spans the largest triangle with the point kept before
    it and the mean of the next bucket (Steinarsson 2013, "Downsampling Time Series for Visual Representation", https://hdl.handle.net/1946/15343).
    """
    count = len(curve.steps)
    if count <= most:
        return curve
    edges = np.linspace(1, count - 1, most - 1).astype(int)
    x, y = curve.steps, curve.values
    kept = [0]
    for start, end, following in zip(edges[:-1], edges[1:], [*edges[2:], count], strict=True):
        next_x, next_y = x[end:following].mean(), y[end:following].mean()
        at = kept[-1]
        area = np.abs((x[at] - next_x) * (y[start:end] - y[at]) - (x[at] - x[start:end]) * (next_y - y[at]))
        kept.append(int(start + np.argmax(area)))
    rows = np.array([*kept, count - 1])
    return Curve(x[rows], y[rows], *(None if edge is None else edge[rows] for edge in (curve.low, curve.high)))


def over_seeds(curves: Sequence[Curve]) -> Curve:
    """The interquartile mean over seeds and its 95% interval, from a bootstrap over the seeds (one stratum: there is one task).

    Between its points a seed counts by linear interpolation. The curve spans the env steps that all seeds have reached.
    """
    curves = [curve for curve in curves if len(curve.steps)]
    if not curves:
        return Curve(np.empty(0), np.empty(0))
    first, last = max(curve.steps[0] for curve in curves), min(curve.steps[-1] for curve in curves)
    own = np.unique(np.concatenate([curve.steps for curve in curves]))
    own = own[(own >= first) & (own <= last)]
    grid = own if len(own) <= GRID_POINTS else np.linspace(first, last, GRID_POINTS)
    values = np.stack([np.interp(grid, curve.steps, curve.values) for curve in curves], axis=1) if len(grid) else np.empty((0, len(curves)))
    intervals = [iqm_interval([row], resamples=RESAMPLES) for row in values]
    if any(interval is None for interval in intervals):
        return Curve(grid, interquartile_mean(values))
    bounds = np.array(intervals, dtype=np.float64).reshape(-1, 2)
    return Curve(grid, interquartile_mean(values), bounds[:, 0], bounds[:, 1])
