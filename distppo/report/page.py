"""The whole report as one page of HTML, which asks for nothing: styles, script, figures and videos are inside."""

from __future__ import annotations

import base64
import functools
import hashlib
import json
from collections.abc import Sequence
from datetime import datetime
from importlib.resources import files
from typing import NamedTuple

from distppo import __version__
from distppo.report.chart import legend
from distppo.report.details import checkpoints, faults, machines, runs_of, settings, time_bars
from distppo.report.evaluation_files import read_evaluations
from distppo.report.figures import DIAGNOSTICS, SPEED, Drawings, metric_figures, return_figures
from distppo.report.groups import Group
from distppo.report.html import Html, element, joined
from distppo.report.overview import Seen, comparison, facts, findings_of, findings_section, missing, seeds_table
from distppo.report.results import Media, scores, videos
from distppo.report.values import value_section

GENERATOR = "distppo report"
LONGEST_TITLE = 60


class Page(NamedTuple):
    """A report.

    Attributes:
        html: the page.
        findings: what the rules saw.
    """

    html: str
    findings: list[Seen]


class Section(NamedTuple):
    """A part of the page, with its place in the table of contents."""

    key: str
    title: str
    body: Html


def make_page(groups: Sequence[Group], *, made_at: datetime) -> Page:
    """Makes the report of one group of runs, or of several side by side."""
    drawings, media = Drawings(), Media()
    seen = findings_of(groups)
    sections = _sections(groups, seen, drawings, media)
    names = ", ".join(group.name for group in groups)
    title = names if len(names) <= LONGEST_TITLE or len(groups) == 1 else f"{groups[0].name} and {len(groups) - 1} more"
    contents = element("ul", [element("li", element("a", section.title, href=f"#{section.key}")) for section in sections])
    body = element(
        "body",
        element("a", "Skip to the content", href="#findings", class_="skip"),
        element("header", _heading(groups, title), element("button", "Dark colors", id="theme", type="button", hidden=True)),
        element("nav", contents, aria_label="Sections"),
        element("main", [_section(section) for section in sections]),
        element("footer", f"Made by distppo {__version__} at {made_at.isoformat(sep=' ', timespec='seconds')}. The x axis is env steps."),
        element("script", _data(drawings), type="application/json", id="figures"),
        element("script", _source("page.js")),
    )
    return Page(f"<!doctype html>\n{element('html', _head(title), body, lang='en')}\n", seen)


def _head(title: str) -> Html:
    style, script = _source("page.css"), _source("page.js")
    policy = (
        f"default-src 'none'; style-src {_hash(style)}; script-src {_hash(script)}; img-src data:; media-src data:; "
        "base-uri 'none'; form-action 'none'"
    )
    return element(
        "head",
        element("meta", charset="utf-8"),
        element("meta", name="generator", content=GENERATOR),
        element("meta", http_equiv="Content-Security-Policy", content=policy),
        element("meta", name="viewport", content="width=device-width, initial-scale=1"),
        element("meta", name="referrer", content="no-referrer"),
        element("link", rel="icon", href="data:,"),
        element("title", f"{title} - distppo report"),
        element("style", style),
    )


@functools.cache
def _source(name: str) -> Html:
    """A style sheet or script of this package."""
    return Html(files("distppo.report").joinpath(name).read_text(encoding="utf-8"))


def _hash(source: str) -> str:
    return f"'sha256-{base64.b64encode(hashlib.sha256(source.encode()).digest()).decode()}'"


def _data(drawings: Drawings) -> Html:
    """The figures' numbers as JSON, in which nothing can end the script element around it."""
    written = json.dumps(drawings.data, separators=(",", ":"), allow_nan=False)
    return Html(written.replace("&", "\\u0026").replace("<", "\\u003c").replace(">", "\\u003e"))


def _heading(groups: Sequence[Group], title: str) -> Html:
    runs = sum(len(group.runs) for group in groups)
    environments = ", ".join(dict.fromkeys(group.env for group in groups))
    what = f"{environments}, {runs} run{'s' * (runs != 1)}" + (f" in {len(groups)} groups" if len(groups) > 1 else "")
    place = f", {groups[0].path}" if len(groups) == 1 else ""
    return element("div", element("h1", title), element("p", f"{what}{place}"))


def _section(section: Section) -> Html:
    return element(
        "section",
        element("h2", section.title, id=f"{section.key}-title"),
        section.body,
        id=section.key,
        aria_labelledby=f"{section.key}-title",
    )


def _sections(groups: Sequence[Group], seen: Sequence[Seen], drawings: Drawings, media: Media) -> list[Section]:
    """All sections. What has not been made yet stands below what has."""
    found = {name: read_evaluations(run.path) for name, run in runs_of(groups)}
    evaluations = [evaluation for several in found.values() for evaluation in several]
    results = [
        (Section("videos", "Video", videos(groups, found, media)), any(evaluation.names("videos") for evaluation in evaluations)),
        (Section("evaluations", "Evaluations", scores(groups, found)), bool(evaluations)),
        (Section("values", "Value function", value_section(groups, found, drawings, media)), any(one.values for one in evaluations)),
    ]
    return [
        Section("overview", "Overview", _overview(groups, seen)),
        Section("findings", "Findings", findings_section(seen)),
        Section("returns", "Learning curves", _curves(groups, drawings)),
        *(section for section, made in results if made),
        Section("diagnostics", "Losses and diagnostics", _diagnostics(groups, drawings)),
        Section("time", "Where the time went", _time(groups, drawings)),
        *(section for section, made in results if not made),
        Section("faults", "Faults", faults(groups)),
        Section("settings", "Settings", settings(groups)),
        Section("checkpoints", "Checkpoints", checkpoints(groups)),
        Section("machine", "Versions and machine", machines(groups)),
    ]


def _overview(groups: Sequence[Group], seen: Sequence[Seen]) -> Html:
    if len(groups) > 1:
        return comparison(groups)
    return joined(facts(groups[0], seen), seeds_table(groups[0]) if len(groups[0].runs) > 1 else None)


def _curves(groups: Sequence[Group], drawings: Drawings) -> Html:
    single = len(groups) == 1 and len(groups[0].runs) == 1
    entries = [("training", 0), ("evaluation", 1)] if single else [(group.name, number) for number, group in enumerate(groups)]
    seeds = any(len(group.runs) > 1 for group in groups)
    about = "Thick: interquartile mean over seeds. Band: 95% interval of a stratified bootstrap. Thin: single seeds." if seeds else None
    drawn = drawings.panel(return_figures(groups), large=True)
    if drawn is None:
        return missing("No episode has ended yet.", "launch.py train, for longer")
    return joined(element("p", about, class_="quiet") if about else None, legend(entries), drawn)


def _diagnostics(groups: Sequence[Group], drawings: Drawings) -> Html:
    drawn = drawings.panel(metric_figures(groups, DIAGNOSTICS))
    about = element("p", "Shaded: the range of a healthy run, as docs/metrics.md has it.", class_="quiet")
    names = legend([(group.name, number) for number, group in enumerate(groups)]) if len(groups) > 1 else None
    return joined(about, names, drawn) if drawn is not None else element("p", "No update has been made yet.", class_="missing")


def _time(groups: Sequence[Group], drawings: Drawings) -> Html:
    return joined(time_bars(groups), drawings.panel(metric_figures(groups, SPEED)))
