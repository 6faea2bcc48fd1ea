"""The section about the critic: what `evaluate --analyze-value` has found."""

from __future__ import annotations

import shlex
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from distppo.findings.finding import number
from distppo.report.chart import Figure, Line
from distppo.report.curves import Curve
from distppo.report.details import runs_of
from distppo.report.evaluation_files import Evaluation
from distppo.report.figures import Drawings
from distppo.report.groups import Group
from distppo.report.html import Html, element, joined
from distppo.report.overview import cards, missing, small
from distppo.report.results import Media
from distppo.report.scale import short

NUMBERS = {
    "predicted_mean": ("Predicted V", "mean"),
    "realised_mean": ("Realised return", "mean, discounted"),
    "bias": ("Bias", "predicted - realised"),
    "rmse": ("RMSE", "root mean squared error"),
    "r2": ("R2", "1 is perfect, 0 a constant"),
    "explained_variance": ("Explained variance", "R2 without the bias"),
    "correlation": ("Correlation", "of predicted and realised"),
}
FIGURE_NAMES = {
    "value_calibration.png": "Calibration: what followed where the critic predicted alike",
    "value_bias.png": "Bias along the episode",
    "value_td_error.png": "Histogram of the TD error",
    "value_episodes.png": "The episodes most over- and underestimated",
}


def value_section(groups: Sequence[Group], found: Mapping[str, list[Evaluation]], drawings: Drawings, media: Media) -> Html:
    """Numbers, curves and pictures of the newest value analysis of each run."""
    parts: list[Html] = []
    several = sum(len(group.runs) for group in groups) > 1
    for index, (name, _) in enumerate(runs_of(groups)):
        evaluation = next((one for one in found[name] if one.values), None)
        if evaluation is not None:
            parts += [element("h3", name)] if several else []
            parts += _analysis(evaluation, f"value-{index}", drawings, media)
    if parts:
        return joined(parts)
    command = f"launch.py evaluate {shlex.quote(str(groups[0].runs[0].path))} --analyze-value"
    return missing("The value function has not been analysed.", command)


def _analysis(evaluation: Evaluation, key: str, drawings: Drawings, media: Media) -> list[Html]:
    values = evaluation.values
    told = [(title, short(number(values.get(name), None)), small(more)) for name, (title, more) in NUMBERS.items() if name in values]
    steps, episodes, gamma = (number(values.get(name), None) for name in ("env_steps", "episodes", "gamma"))
    about = [
        "Predictions against what really followed, in raw reward, by sampled actions",
        f"checkpoint of {steps:,} env steps" if steps is not None else None,
        f"{episodes:,} episodes" if episodes is not None else None,
        f"discount {gamma:g}" if gamma is not None else None,
    ]
    parts = [element("p", f"{'; '.join(filter(None, about))}.", class_="quiet"), cards(told)]
    drawn = drawings.panel([figure for figure in (_calibration(values, key), _bias(values, key), _td_errors(values, key)) if figure])
    parts += [drawn] if drawn is not None else []
    pictures = [media.figure(evaluation, name, FIGURE_NAMES.get(name, name), video=False) for name in evaluation.names("figures")]
    if pictures:
        shown = element("div", pictures, class_="media")
        parts.append(element("details", element("summary", "The figures that evaluate has drawn"), shown, class_="block"))
    return parts


def _calibration(values: Mapping[str, Any], key: str) -> Figure | None:
    rows = _rows(values.get("calibration"), ("predicted", "realised", "realised_std"))
    if not len(rows):
        return None
    rows = rows[np.argsort(rows[:, 0], kind="stable")]
    predicted, realised, std = rows.T
    lines = [
        Line("as predicted", Curve(predicted, predicted), 7),
        Line("realised", Curve(predicted, realised, realised - std, realised + std), 1, dots=True),
    ]
    about = "Mean of what followed, a tenth of the steps at a time; the band is one standard deviation. On the line the critic is right."
    return Figure(f"{key}-calibration", "Calibration", about, lines, x_label="predicted V")


def _bias(values: Mapping[str, Any], key: str) -> Figure | None:
    rows = _rows(values.get("along_the_episode"), ("first_step", "last_step", "bias", "std"))
    if not len(rows):
        return None
    first, end, bias, std = rows.T
    curve = Curve((first + end) / 2, bias, bias - std, bias + std)
    about = (
        "Predicted minus realised over the time in the episode; above 0 is too optimistic. The band is one standard deviation of the steps."
    )
    lines = [Line("right", Curve(curve.steps, np.zeros(len(bias))), 7), Line("bias", curve, 0)]
    return Figure(f"{key}-bias", "Bias along the episode", about, lines, x_label="step of the episode")


def _td_errors(values: Mapping[str, Any], key: str) -> Figure | None:
    told = values.get("td_error")
    edges, counts = (_numbers(told.get(name)) for name in ("edges", "counts")) if isinstance(told, dict) else (np.empty(0), np.empty(0))
    if len(edges) != len(counts) + 1 or len(counts) < 2:
        return None
    steps, heights = np.repeat(edges, 2)[1:-1], np.repeat(counts, 2)
    about = "r + gamma V(s') - V(s), steps by size; the outermost bins hold what lies beyond."
    curve = Curve(steps, heights, np.zeros(len(heights)), heights)
    return Figure(f"{key}-td", "TD error", about, [Line("steps", curve, 2)], x_label="TD error")


def _rows(told: Any, names: Sequence[str]) -> np.ndarray:
    """[n, names] of those entries of a list that have all the numbers."""
    entries = [entry for entry in told if isinstance(entry, dict)] if isinstance(told, list) else []
    rows = [[number(entry.get(name), None) for name in names] for entry in entries]
    return np.array([row for row in rows if None not in row], dtype=np.float64).reshape(-1, len(names))


def _numbers(told: Any) -> np.ndarray:
    found = [number(value, None) for value in told] if isinstance(told, list) else []
    return np.empty(0) if None in found else np.array(found, dtype=np.float64)
