"""What `evaluate` has left in the runs: scores and videos."""

from __future__ import annotations

import shlex
from collections.abc import Mapping, Sequence
from typing import Any

from distppo.findings.finding import number
from distppo.report.details import runs_of
from distppo.report.evaluation_files import LARGEST_FIGURE, Evaluation, data_address
from distppo.report.groups import Group
from distppo.report.html import Html, element
from distppo.report.overview import cell, missing, table
from distppo.report.scale import short

MEDIA_BYTES = 7_000_000
"""Pictures and videos taken in altogether; as text in the page they take a third more."""


class Media:
    """Pictures and videos inside the page, as long as there is room for them."""

    def __init__(self, room: int = MEDIA_BYTES) -> None:
        self._room = room

    def figure(self, evaluation: Evaluation, name: str, caption: str, *, video: bool) -> Html:
        """A figure with the picture or video; where it cannot be taken in, where it lies and why."""
        path = evaluation.path / name
        try:
            address = data_address(path, min(self._room, LARGEST_FIGURE) if not video else self._room)
        except (OSError, ValueError) as error:
            reason = getattr(error, "strerror", None) or (f"too large for the page, {error}" if "larger" in str(error) else error)
            return element("p", f"{caption}: {path} is not shown here ({reason}).", class_="missing")
        self._room -= len(address) * 3 // 4
        if address.startswith("data:video"):
            shown = element(
                "video",
                src=Html(address),
                controls=True,
                loop=True,
                muted=True,
                playsinline=True,
                aria_label=caption,
            )
        else:
            shown = element("img", src=Html(address), alt=caption)
            if video:  # a GIF cannot be paused, so it can be closed
                shown = element("details", element("summary", "Plays all the time; close to stop"), shown, open=True)
        return element("figure", shown, element("figcaption", caption))


def videos(groups: Sequence[Group], found: Mapping[str, list[Evaluation]], media: Media) -> Html:
    """The newest videos of each run."""
    shown = []
    for name, _ in runs_of(groups):
        evaluation = next((one for one in found[name] if one.names("videos")), None)
        if evaluation is None:
            continue
        for file in evaluation.names("videos"):
            told = evaluation.video(file)
            result = number(told.get("return"), None)
            shows = str(told.get("shows", file))
            episode = shows.replace("-", " ") if shows.startswith("episode-") else f"{shows} episode"
            words = [f"{name}: {episode}", f"return {short(result)}" if result is not None else None]
            steps = number(evaluation.scores.get("env_steps"), None)
            words.append(f"policy of {steps:,} env steps" if steps is not None else None)
            shown.append(media.figure(evaluation, file, ", ".join(filter(None, words)), video=True))
    if shown:
        return element("div", shown, class_="media")
    return missing("No video has been recorded.", f"launch.py evaluate {shlex.quote(str(groups[0].runs[0].path))} --record")


def scores(groups: Sequence[Group], found: Mapping[str, list[Evaluation]]) -> Html:
    """Evaluations by `evaluate`, the newest of each run and checkpoint."""
    rows = []
    for name, _ in runs_of(groups):
        for evaluation in found[name][:10]:
            told = evaluation.scores
            interval = told.get("return_iqm_interval")
            within = [number(bound, None) for bound in interval] if isinstance(interval, list) and len(interval) == 2 else []
            rows.append(
                element(
                    "tr",
                    element("th", name, scope="row"),
                    cell(_whole(told.get("env_steps"))),
                    element("td", "deterministic" if told.get("deterministic") is True else "stochastic"),
                    cell(_whole(told.get("episodes"))),
                    *(cell(short(number(told.get(key), None))) for key in ("return_mean", "return_std", "return_iqm")),
                    cell(" to ".join(map(short, within)) or "-"),
                )
            )
    if not rows:
        return missing(
            "No evaluation has been made besides those of training.", f"launch.py evaluate {shlex.quote(str(groups[0].runs[0].path))}"
        )
    head = ("run", "env steps", "actions", "episodes", "mean", "std", "IQM", "95% interval")
    return table(head, rows, numbers=(head[1], *head[3:]))


def _whole(value: Any) -> str:
    return f"{value:,}" if isinstance(value, int) and not isinstance(value, bool) else "-"
