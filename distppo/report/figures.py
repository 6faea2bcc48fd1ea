"""Which figures the report has, and of which metrics."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

from distppo.metrics import KEYS
from distppo.report.chart import Drawing, Figure, Line, draw
from distppo.report.curves import Curve, curve_of, over_seeds
from distppo.report.groups import Group
from distppo.report.html import Html, element
from distppo.report.scale import Range

RETURN, EVALUATION, EVALUATION_STD = "rollout/ep_rew_mean", "eval/mean_reward", "eval/std_reward"
MOST_SEED_LINES = 40


class Panel(NamedTuple):
    """A small figure of one metric: its title, the range of a healthy run as docs/metrics.md has it, and words other than those there."""

    key: str
    title: str
    healthy: Range | None = None
    about: str = ""


DIAGNOSTICS = (
    Panel("rollout/ep_len_mean", "Episode length", about="Mean length of the last 100 finished episodes, in env steps."),
    Panel("train/explained_variance", "Explained variance", (0.5, 1.0)),
    Panel("train/approx_kl", "Approximate KL", (0.002, 0.03)),
    Panel("train/clip_fraction", "Clip fraction", (0.05, 0.45)),
    Panel("train/std", "Action noise"),
    Panel("train/entropy_loss", "Entropy loss"),
    Panel("train/value_loss", "Value loss"),
    Panel("train/policy_gradient_loss", "Policy gradient loss"),
    Panel("train/grad_norm", "Gradient norm"),
    Panel("train/learning_rate", "Learning rate"),
    Panel("train/epochs", "Epochs an update"),
    Panel("value/return_std", "Spread of the returns"),
    Panel("value/advantage_std", "Spread of the advantages"),
    Panel("dist/reward_scale", "Reward scale"),
)
SPEED = (
    Panel("time/fps_iteration", "Env steps per second"),
    Panel("time/collect", "Collecting, seconds an iteration"),
    Panel("time/update", "Update, seconds an iteration"),
    Panel("dist/worker_seconds_max", "Slowest worker, seconds a fragment"),
)


class Drawings:
    """Draws figures and keeps the numbers that the script reads from.

    Attributes:
        data: of the figures drawn so far.
    """

    def __init__(self) -> None:
        self.data: list[dict[str, Any]] = []

    def panel(self, figures: Sequence[Figure], *, large: bool = False) -> Html | None:
        """The figures side by side, those with something in them; None if no figure has."""
        drawn: list[Drawing] = [drawing for drawing in map(draw, figures) if drawing is not None]
        self.data += [drawing.data for drawing in drawn]
        return element("div", [drawing.markup for drawing in drawn], class_="charts large" if large else "charts") if drawn else None


def return_figures(groups: Sequence[Group]) -> list[Figure]:
    """Learning curves. One run has training and evaluation in one figure, for comparing them; several runs have a figure for each."""
    if len(groups) == 1 and len(groups[0].runs) == 1:
        record = groups[0].runs[0].record
        lines = [
            Line("training", curve_of(record, RETURN), 0),
            Line("evaluation", curve_of(record, EVALUATION, spread=EVALUATION_STD), 1, dots=True),
        ]
        about = "Training: mean of the last 100 finished episodes. Evaluation: deterministic actions; the band is one standard deviation."
        return [Figure("returns", "Episode return", about, lines)]
    return [
        _of_metric(groups, Panel(RETURN, "Training return", about="Mean of the last 100 finished episodes."), seeds=True),
        _of_metric(
            groups, Panel(EVALUATION, "Evaluation return", about="Deterministic actions, frozen statistics."), seeds=True, dots=True
        ),
    ]


def metric_figures(groups: Sequence[Group], panels: Sequence[Panel]) -> list[Figure]:
    """A small figure for each metric."""
    return [_of_metric(groups, panel) for panel in panels]


def _of_metric(groups: Sequence[Group], panel: Panel, *, seeds: bool = False, dots: bool = False) -> Figure:
    lines: list[Line] = []
    faint = seeds and sum(len(group.runs) for group in groups) <= MOST_SEED_LINES
    for number, group in enumerate(groups):
        curves = [curve_of(run.record, panel.key) for run in group.runs]
        if len(curves) > 1 and faint:
            lines += [Line("", curve, number) for curve in curves]
        lines.append(Line(group.name, _together(curves), number, dots))
    return Figure(panel.key.replace("/", "-"), panel.title, panel.about or _plain(panel.key), lines, panel.healthy)


def _together(curves: Sequence[Curve]) -> Curve:
    return curves[0] if len(curves) == 1 else over_seeds(curves)


def _plain(key: str) -> str:
    """What docs/metrics.md says of a metric, without its marks for code."""
    return KEYS[key].replace("`", "")
