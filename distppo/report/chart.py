"""A figure: lines over env steps as SVG that fits any width, with values to read by pointer, by keys, and as a table.

Lines lie in an SVG that is stretched to the space there is; texts lie beside it in SVGs that are not, placed by per cent. So nothing is
drawn again when the window changes, texts keep their size, and the figure is there without a script.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np

from distppo.report.curves import Curve, thinned
from distppo.report.html import Html, element, joined
from distppo.report.scale import Range, compact, short, ticks, value_range

WIDTH, HEIGHT = 1000, 400
COLORS = 8
TABLE_ROWS = 12
ENV_STEPS = "env steps"


class Line(NamedTuple):
    """A curve of a figure.

    Attributes:
        name: for the legend and for reading values; empty for a line in the background.
        curve: what is drawn.
        color: index of its color and dashes.
        dots: whether its points are marked, as where there are few.
    """

    name: str
    curve: Curve
    color: int
    dots: bool = False


class Figure(NamedTuple):
    """A figure.

    Attributes:
        key: unique in the page.
        title: of a few words.
        about: what it shows, a sentence.
        lines: in the order they are drawn.
        healthy: range of a healthy run, shaded.
        x_label: what the x axis is.
    """

    key: str
    title: str
    about: str
    lines: Sequence[Line]
    healthy: Range | None = None
    x_label: str = ENV_STEPS


class Drawing(NamedTuple):
    """A figure as markup, and the numbers that the script reads values from."""

    markup: Html
    data: dict[str, Any]


def draw(figure: Figure) -> Drawing | None:
    """Draws a figure; None where there is nothing to draw."""
    lines = [line._replace(curve=thinned(line.curve)) for line in figure.lines if len(line.curve.steps)]
    if not lines:
        return None
    x_bounds = _x_range([line.curve.steps for line in lines], from_zero=figure.x_label == ENV_STEPS)
    arrays = [array for line in lines for array in (line.curve.values, line.curve.low, line.curve.high) if array is not None]
    y_bounds = value_range(arrays, _near(figure.healthy, arrays))
    named = [line for line in lines if line.name]
    markup = element(
        "figure",
        element(
            "figcaption", element("h3", figure.title, id=f"figure-{figure.key}"), element("p", figure.about), _cut_off(lines, y_bounds)
        ),
        element(
            "div",
            _y_axis(y_bounds),
            element("div", _area(figure, lines, x_bounds, y_bounds), element("div", class_="cursor", hidden=True), class_="area"),
            _x_axis(x_bounds),
            class_="plot",
            tabindex=0,
            role="group",
            aria_roledescription="chart",
            aria_label=f"{figure.title} over {figure.x_label}. Left and right arrow read values.",
            data_figure=figure.key,
        ),
        element(
            "div", element("output", class_="reading", aria_live="polite"), element("p", figure.x_label, class_="x-label"), class_="below"
        ),
        _table(figure, named),
        class_="chart",
    )
    series = [_numbers(line) for line in named]
    return Drawing(markup, {"key": figure.key, "x": list(x_bounds), "unit": figure.x_label, "series": series})


def legend(entries: Sequence[tuple[str, int]]) -> Html:
    """What the colors and dashes mean."""
    return element("ul", [element("li", swatch(color), name) for name, color in entries], class_="legend")


def swatch(color: int) -> Html:
    """A short piece of a line."""
    return element(
        "svg",
        element("line", x1=1, y1=5, x2=27, y2=5, class_=f"line {_style(color)}"),
        class_="swatch",
        viewbox="0 0 28 10",
        aria_hidden="true",
    )


def _style(color: int) -> str:
    return f"c{color % COLORS} d{color % COLORS if color < COLORS else (color + 1) % COLORS}"


def _x_range(steps: Sequence[np.ndarray], *, from_zero: bool) -> Range:
    low, high = min(float(array.min()) for array in steps), max(float(array.max()) for array in steps)
    low = 0.0 if from_zero else low
    return (low, high + 0.01 * (high - low)) if high > low else (low - 0.5, high + 0.5)


def _near(healthy: Range | None, arrays: Sequence[np.ndarray]) -> list[float]:
    """Those ends of the healthy range that belong into the picture: all, as long as the values are not far from it."""
    if healthy is None:
        return []
    highest = max(float(np.nanmax(np.abs(array))) for array in arrays)
    return [bound for bound in healthy if abs(bound) <= 5 * highest]


def _cut_off(lines: Sequence[Line], bounds: Range) -> Html | None:
    outside = sum(int(((line.curve.values < bounds[0]) | (line.curve.values > bounds[1])).sum()) for line in lines)
    return element("p", f"{outside} point{'s' * (outside != 1)} beyond the axis.", class_="quiet") if outside else None


def _area(figure: Figure, lines: Sequence[Line], x: Range, y: Range) -> Html:
    """The stretched part: grid, healthy range, bands, lines."""
    parts = [element("line", x1=0, x2=WIDTH, y1=_row(tick, y), y2=_row(tick, y), class_="grid") for tick in ticks(y)]
    parts += [element("line", y1=0, y2=HEIGHT, x1=_column(tick, x), x2=_column(tick, x), class_="grid") for tick in ticks(x)]
    if figure.healthy is not None:
        top, bottom = (min(max(_row(bound, y), 0), HEIGHT) for bound in reversed(figure.healthy))
        parts.append(element("rect", x=0, y=top, width=WIDTH, height=round(bottom - top, 1), class_="healthy"))
    parts += [_band(line, x, y) for line in lines if line.curve.low is not None]
    parts += [_path(line, x, y) for line in sorted(lines, key=lambda line: bool(line.name))]
    return element(
        "svg", parts, viewbox=f"0 0 {WIDTH} {HEIGHT}", preserveaspectratio="none", role="img", aria_label=_described(figure, lines)
    )


def _described(figure: Figure, lines: Sequence[Line]) -> str:
    ends = [f"{line.name}: {short(line.curve.values[0])} at first, {short(line.curve.values[-1])} at last" for line in lines if line.name]
    return f"{figure.title}. {'; '.join(ends[:10])}"


def _path(line: Line, x: Range, y: Range) -> Html:
    points = [(_column(step, x), _row(value, y)) for step, value in zip(line.curve.steps, line.curve.values, strict=True)]
    drawn = element("path", d=_polyline(points), class_=f"{_kind(line)} {_style(line.color)}")
    if not (line.dots or len(points) == 1):
        return drawn
    dots = element("path", d=Html("".join(f"M{column:g} {row:g}h0" for column, row in points)), class_=f"dots {_style(line.color)}")
    return joined(drawn, dots)


def _kind(line: Line) -> str:
    return "line" if line.name else "line faint"


def _band(line: Line, x: Range, y: Range) -> Html:
    assert line.curve.low is not None and line.curve.high is not None
    over = [(_column(step, x), _row(value, y)) for step, value in zip(line.curve.steps, line.curve.high, strict=True)]
    under = [(_column(step, x), _row(value, y)) for step, value in zip(line.curve.steps, line.curve.low, strict=True)]
    return element("path", d=Html(f"{_polyline([*over, *reversed(under)])}Z"), class_=f"band {_style(line.color)}")


def _polyline(points: Sequence[tuple[float, float]]) -> Html:
    """Path data: numbers of our own, and not text, which would be cut where it gets long."""
    return Html("M" + "L".join(f"{column:g} {row:g}" for column, row in points))


def _y_axis(bounds: Range) -> Html:
    labels = [element("text", compact(tick), x="100%", y=f"{_row(tick, bounds) / HEIGHT:.2%}", dy="0.32em") for tick in ticks(bounds)]
    return element("svg", labels, class_="y-axis", aria_hidden="true")


def _x_axis(bounds: Range) -> Html:
    labels = []
    for number, tick in enumerate(ticks(bounds)):
        at = _column(tick, bounds) / WIDTH
        anchor = "start" if at < 0.02 else "end" if at > 0.96 else "middle"
        classes = f"{anchor}{' odd' * (number % 2)}"
        labels.append(element("text", compact(tick), x=f"{at:.2%}", y="1em", class_=classes))
    return element("svg", labels, class_="x-axis", aria_hidden="true")


def _column(step: float, bounds: Range) -> float:
    return round(WIDTH * (float(step) - bounds[0]) / (bounds[1] - bounds[0]), 1)


def _row(value: float, bounds: Range) -> float:
    """Height in the drawing; what is far outside is brought near its edge, since browsers draw no absurd numbers."""
    row = HEIGHT * (1 - (float(value) - bounds[0]) / (bounds[1] - bounds[0]))
    return round(min(max(row, -HEIGHT), 2 * HEIGHT), 1)


def _table(figure: Figure, lines: Sequence[Line]) -> Html | None:
    """The same numbers for those who do not see them, at a dozen env steps."""
    if not lines:
        return None
    longest = max((line.curve.steps for line in lines), key=len)
    rows = longest[np.unique(np.linspace(0, len(longest) - 1, min(TABLE_ROWS, len(longest))).astype(int))]
    head = element("tr", element("th", figure.x_label, scope="col"), [element("th", line.name, scope="col") for line in lines])
    body = [
        element("tr", element("th", short(float(step)), scope="row"), [element("td", _at(line.curve, step)) for line in lines])
        for step in rows
    ]
    table = element("table", element("thead", head), element("tbody", body))
    scroll = element("div", table, class_="scroll", tabindex=0, role="region", aria_label=f"{figure.title} as a table")
    return element("details", element("summary", "Table"), scroll)


def _at(curve: Curve, step: float) -> str:
    """The value nearest to `step`; nothing where the curve has not begun or has ended."""
    if step < curve.steps[0] or step > curve.steps[-1]:
        return "-"
    row = int(np.argmin(np.abs(curve.steps - step)))
    band = "" if curve.low is None or curve.high is None else f" ({short(float(curve.low[row]))} to {short(float(curve.high[row]))})"
    return f"{short(float(curve.values[row]))}{band}"


def _numbers(line: Line) -> dict[str, Any]:
    """The line's numbers for the script, in as few digits as anybody reads."""
    arrays = {"steps": line.curve.steps, "values": line.curve.values, "low": line.curve.low, "high": line.curve.high}
    return {"name": line.name, **{name: [float(f"{value:.5g}") for value in array] for name, array in arrays.items() if array is not None}}
