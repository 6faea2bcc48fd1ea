"""Draws the value analysis as PNG files. matplotlib is the extra `plot`."""

from __future__ import annotations

import io
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from distppo.evaluation.value_analysis import Comparison
from distppo.files import write_atomic

if TYPE_CHECKING:
    from matplotlib.axes import Axes

PREDICTED, REALISED, GREY, INK = "#1f6feb", "#d9730d", "#9aa0a6", "#24292f"
DPI = 144
STYLE: Any = {
    "font.size": 10,
    "axes.titlesize": 12,
    "axes.titleweight": "bold",
    "axes.titlelocation": "left",
    "axes.titlepad": 10,
    "axes.labelcolor": INK,
    "axes.edgecolor": GREY,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "axes.axisbelow": True,
    "grid.color": "#e6e8eb",
    "grid.linewidth": 0.8,
    "legend.frameon": False,
    "xtick.color": INK,
    "ytick.color": INK,
    "text.color": INK,
}


def draw_figures(folder: Path, analysis: Mapping[str, Any], compared: Sequence[Comparison]) -> list[str]:
    """Writes the figures into the folder and returns their names.

    Args:
        folder: of the evaluation.
        analysis: of `value_analysis.analyze`.
        compared: likewise.

    Raises:
        ImportError: matplotlib is not installed.
        OSError: the disk refuses.
    """
    wrong = _most_wrong(analysis, compared)
    drawings: dict[str, tuple[Callable[[Any], None], int]] = {
        "value_calibration.png": (lambda axes: _calibration(axes, analysis, compared), 1),
        "value_bias.png": (lambda axes: _bias(axes, analysis["along_the_episode"]), 1),
        "value_td_error.png": (lambda axes: _td_error(axes, analysis["td_error"]), 1),
        "value_episodes.png": (lambda axes: _episodes(list(np.atleast_1d(axes)), wrong), max(1, len(wrong))),
    }
    for name, (draw, panels) in drawings.items():
        write_atomic(folder / name, _png(draw, panels))
    return list(drawings)


def _png(draw: Callable[[Any], None], panels: int) -> bytes:
    import matplotlib
    from matplotlib.figure import Figure

    with matplotlib.rc_context(STYLE):
        figure = Figure(figsize=(7.2, 4.4), layout="constrained")
        draw(figure.subplots(panels, sharex=True))
        data = io.BytesIO()
        figure.savefig(data, format="png", dpi=DPI, metadata={"Software": None})
    return data.getvalue()


def _calibration(axes: Axes, analysis: Mapping[str, Any], compared: Sequence[Comparison]) -> None:
    predicted = np.concatenate([one.predicted for one in compared])
    realised = np.concatenate([one.realised for one in compared])
    shown = slice(None, None, max(1, len(predicted) // 3000))
    low, high = np.quantile(np.concatenate([predicted, realised]), [0.001, 0.999])
    margin = 0.05 * (high - low) or 1.0
    span = (low - margin, high + margin)
    bins = analysis["calibration"]
    axes.plot(span, span, color=GREY, linewidth=1.2, linestyle=(0, (5, 3)), label="as predicted", zorder=2)
    axes.scatter(
        predicted[shown], realised[shown], s=5, color=PREDICTED, alpha=0.12, linewidths=0, zorder=1, label="a step", rasterized=True
    )
    axes.errorbar(
        [row["predicted"] for row in bins],
        [row["realised"] for row in bins],
        yerr=[row["realised_std"] for row in bins],
        color=REALISED,
        marker="o",
        markersize=5,
        linewidth=1.6,
        elinewidth=1,
        capsize=2.5,
        zorder=3,
        label="a tenth of the steps: mean and std",
    )
    axes.set(xlim=span, ylim=span, xlabel="predicted V(s)", ylabel="realised discounted return")
    axes.set_title(f"Calibration: R2 {_number(analysis['r2'])}, explained variance {_number(analysis['explained_variance'])}")
    legend = axes.legend(loc="upper left")
    for handle in legend.legend_handles:
        if handle is not None:
            handle.set_alpha(1.0)


def _bias(axes: Axes, rows: Sequence[Mapping[str, Any]]) -> None:
    middle = np.array([(row["first_step"] + row["last_step"]) / 2 for row in rows])
    bias, std = (np.array([row[name] for row in rows]) for name in ("bias", "std"))
    axes.axhline(0.0, color=GREY, linewidth=1.2, linestyle=(0, (5, 3)))
    axes.fill_between(middle, bias - std, bias + std, color=PREDICTED, alpha=0.15, linewidth=0, label="+- 1 std of the steps")
    axes.plot(middle, bias, color=PREDICTED, linewidth=2, label="mean of V - realised")
    axes.set(xlabel="step of the episode", ylabel="V - realised return")
    axes.margins(x=0)
    axes.set_title("Bias along the episode: above 0 is too optimistic")
    axes.legend(loc="best")


def _td_error(axes: Axes, rows: Mapping[str, Any]) -> None:
    edges = np.array(rows["edges"])
    axes.bar(edges[:-1], rows["counts"], width=np.diff(edges), align="edge", color=PREDICTED, edgecolor="white", linewidth=0.5)
    axes.axvline(0.0, color=INK, linewidth=1)
    axes.axvline(rows["mean"], color=REALISED, linewidth=1.6, label=f"mean {_number(rows['mean'])}, std {_number(rows['std'])}")
    axes.set(xlabel="r + gamma V(s') - V(s)", ylabel="steps")
    axes.grid(axis="x", visible=False)
    axes.set_title("TD error (the outermost bars hold what lies beyond)")
    axes.legend(loc="best")


def _most_wrong(analysis: Mapping[str, Any], compared: Sequence[Comparison]) -> dict[str, Comparison]:
    """Returns the episode that the critic got most wrong in each direction, by what to call it."""
    by_number = {one.trace.result.episode: one for one in compared}
    found = {}
    for direction in ("overestimated", "underestimated"):
        for number in analysis[f"most_{direction}"][:1]:
            found[f"Most {direction}: episode {number}"] = by_number[number]
    return found


def _episodes(panels: Sequence[Axes], wrong: Mapping[str, Comparison]) -> None:
    """Prediction and outcome, step by step."""
    for axes, (title, one) in zip(panels, wrong.items(), strict=False):
        axes.plot(one.predicted, color=PREDICTED, linewidth=1.2, label="predicted V(s)")
        axes.plot(one.realised, color=REALISED, linewidth=1.8, label="realised discounted return")
        axes.set_title(title)
        axes.margins(x=0)
        axes.legend(loc="best", ncols=2, fontsize=9)
    panels[-1].set_xlabel("step of the episode")


def _number(value: float) -> str:
    return f"{value:,.0f}" if abs(value) >= 1000 else f"{value:.3g}"
