"""The plot of a search: the metric of every trial over env steps, the best one on top."""

from __future__ import annotations

import io
import math
from collections.abc import Sequence
from typing import Any

from distppo.evaluation.figures import DPI, GREY, PREDICTED, STYLE
from distppo.files import write_atomic
from distppo.metrics import METRICS_FILE, read_metrics
from distppo.metrics.keys import STEPS
from distppo.runtime.tune.records import Record, Records

FIGURE_FILE = "results.png"


def draw(records: Records) -> str:
    """Writes results.png and returns a line that says where it is, or why there is none."""
    try:
        data = _png(records)
    except ImportError:
        return "plot:            none, it needs matplotlib: pip install 'distppo[plot]'"
    try:
        write_atomic(records.directory / FIGURE_FILE, data)
    except OSError as error:
        return f"plot:            {FIGURE_FILE} cannot be written: {error.strerror or error}"
    return f"plot:            {records.directory / FIGURE_FILE}"


def _png(records: Records) -> bytes:
    import matplotlib
    from matplotlib.figure import Figure

    found, best = records.request.found, records.best
    with matplotlib.rc_context(STYLE):
        figure = Figure(figsize=(7.2, 4.4), layout="constrained")
        axes = figure.subplots()
        for record in reversed(records.ranked):
            steps, values = _curve(records, record)
            style: dict[str, Any] = {"color": GREY, "linewidth": 1.0, "alpha": 0.8}
            if record is best:
                style = {"color": PREDICTED, "linewidth": 2.0, "label": f"{record.name}, the best"}
            axes.plot(steps, values, **style)
            if steps:
                axes.plot(steps[-1], values[-1], "o", markersize=3, color=style["color"])
        axes.set(title=f"{records.request.config.env.id}: {len(records.by_number)} trials", xlabel="env steps", ylabel=found.metric)
        axes.xaxis.set_major_formatter(lambda value, _: f"{value:,.0f}")
        if best is not None:
            axes.legend()
        data = io.BytesIO()
        figure.savefig(data, format="png", dpi=DPI, metadata={"Software": None})
    return data.getvalue()


def _curve(records: Records, record: Record) -> tuple[Sequence[float], Sequence[float]]:
    path = records.directory / record.name / METRICS_FILE
    metric = records.request.found.metric
    rows = read_metrics(path) if path.exists() else []
    values = [(row[STEPS], row.get(metric)) for row in rows]
    points = [(float(x), float(y)) for x, y in values if x is not None and y is not None and math.isfinite(y)]
    return [x for x, _ in points], [y for _, y in points]
