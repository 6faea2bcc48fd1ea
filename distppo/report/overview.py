"""The top of the report: the numbers that matter, what the rules see in them, and runs side by side."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from distppo.algo.scores import interquartile_mean, iqm_interval
from distppo.console.text import format_duration
from distppo.findings import Finding, Severity, find, find_between_seeds
from distppo.findings.finding import Point, number
from distppo.report.chart import swatch
from distppo.report.curves import RESAMPLES
from distppo.report.figures import EVALUATION, RETURN
from distppo.report.groups import Group
from distppo.report.html import Html, element, joined
from distppo.report.run_files import Run
from distppo.report.scale import short

NAMES = {Severity.PROBLEM: "problem", Severity.WARNING: "warning", Severity.NOTE: "note"}
STATES = {"finished": "finished", "interrupted": "interrupted", "stopped": "stopped early", "error": "ended with an error"}
Seen = tuple[str, Finding]


def state_of(run: Run) -> str:
    """How the run ended, as its events tell."""
    ends = [event["event"] for event in run.record.events if event.get("event") in (*STATES, "started")]
    return STATES.get(ends[-1] if ends else "", "still training, or killed")


def findings_of(groups: Sequence[Group]) -> list[Seen]:
    """What the rules see in each run and between the seeds of a group, worst first, each with where it was seen."""
    seen: list[Seen] = []
    for group in groups:
        for run in group.runs:
            where = " / ".join([*([group.name] if len(groups) > 1 else []), *([run.name] if len(group.runs) > 1 else [])])
            seen += [(where, finding) for finding in find(run.record)]
        between = find_between_seeds({run.name: run.record for run in group.runs}) if len(group.runs) > 1 else []
        seen += [(group.name if len(groups) > 1 else "", finding) for finding in between]
    return sorted(seen, key=lambda pair: pair[1].severity)


def findings_section(seen: Sequence[Seen]) -> Html:
    """Findings in words, those of one rule together, each with what to try."""
    if not seen:
        well = element(
            "p", element("span", "nothing found", class_="badge well"), " No rule sees anything to worry about in these metrics."
        )
        return element("ul", element("li", well, class_="finding well"), class_="findings")
    by_rule: dict[str, list[Seen]] = {}
    for pair in seen:
        by_rule.setdefault(pair[1].id, []).append(pair)
    return element("ul", [_finding(pairs) for pairs in by_rule.values()], class_="findings")


def _finding(pairs: Sequence[Seen]) -> Html:
    first = pairs[0][1]
    name = NAMES[first.severity]
    told = [f"{where}: {finding.text}" if where else finding.text for where, finding in pairs]
    words = element("p", told[0]) if len(told) == 1 else element("ul", [element("li", line) for line in told], class_="seen")
    advice = element("p", element("strong", "Try: "), first.advice)
    more = element("p", "More: ", element("code", f"docs/troubleshooting.md#{first.id}"), class_="quiet")
    head = element("h3", first.title, element("span", name, class_="badge"), id=f"finding-{first.id}")
    return element("li", head, words, advice, more, class_=f"finding {name}")


def facts(group: Group, seen: Sequence[Seen]) -> Html:
    """The numbers of one run, or of the seeds of one configuration."""
    entries = [_return_fact(group), _evaluation_fact(group), _steps_fact(group), _speed_fact(group), _findings_fact(seen)]
    return cards(entries)


def cards(entries: Sequence[tuple[str, str, Html]]) -> Html:
    """Numbers that are to be seen first: name, value and what else there is to say."""
    return element("dl", [element("div", element("dt", name), element("dd", value, more)) for name, value, more in entries], class_="facts")


def small(words: str) -> Html:
    return element("span", words, class_="more")


def _return_fact(group: Group) -> tuple[str, str, Html]:
    lasts = [points[-1].value for run in group.runs if (points := run.record.series(RETURN))]
    firsts = [points[0].value for run in group.runs if (points := run.record.series(RETURN))]
    if not lasts:
        return "Episode return", "-", small("no episode has ended yet")
    return "Episode return", iqm(lasts), small(f"training, from {iqm(firsts)}{spread(lasts)}")


def _evaluation_fact(group: Group) -> tuple[str, str, Html]:
    bests = [best for run in group.runs if (best := best_evaluation(run)) is not None]
    if not bests:
        every = number(group.runs[0].record.settings.get("evaluation.every"), 0)
        return "Best evaluation", "-", small(f"none yet: one every {every:,} env steps" if every else "not made: set evaluation.every")
    values = [best.value for best in bests]
    where = f"at {bests[0].step:,} env steps" if len(bests) == 1 else f"of each seed{spread(values)}"
    return "Best evaluation", iqm(values), small(where)


def _steps_fact(group: Group) -> tuple[str, str, Html]:
    done = sum(run.record.steps for run in group.runs)
    states = ", ".join(dict.fromkeys(map(state_of, group.runs)))
    seeds = f"over {len(group.runs)} seeds, " if len(group.runs) > 1 else ""
    return "Env steps", short(float(done)) if done < 1e9 else f"{done:.3g}", small(f"{seeds}{states}")


def _speed_fact(group: Group) -> tuple[str, str, Html]:
    speeds = [speed for run in group.runs if (speed := last(run, "time/fps")) is not None]
    seconds = [elapsed for run in group.runs if (elapsed := last(run, "time/time_elapsed")) is not None]
    value = f"{short(float(np.median(speeds)))}/s" if speeds else "-"
    return "Speed", value, small(f"env steps; {format_duration(sum(seconds))} of training" if seconds else "")


def _findings_fact(seen: Sequence[Seen]) -> tuple[str, str, Html]:
    counts = {name: sum(finding.severity == severity for _, finding in seen) for severity, name in NAMES.items()}
    told = ", ".join(f"{count} {name}{'s' * (count != 1)}" for name, count in counts.items() if count)
    return "Findings", str(len(seen)) if seen else "none", small(told or "all rules are quiet")


def comparison(groups: Sequence[Group]) -> Html:
    """Groups as the rows of a table, in the colors of the figures."""
    head = ("", "environment", "runs", "env steps", "training return", "best evaluation", "env steps/s", "training time", "state")
    rows = [element("tr", _row(number, group)) for number, group in enumerate(groups)]
    return table(head, rows, "Returns over several seeds are interquartile means, with the 95% bootstrap interval.", numbers=head[2:8])


def _row(number: int, group: Group) -> list[Html]:
    lasts = [points[-1].value for run in group.runs if (points := run.record.series(RETURN))]
    bests = [best.value for run in group.runs if (best := best_evaluation(run)) is not None]
    speeds = [speed for run in group.runs if (speed := last(run, "time/fps")) is not None]
    seconds = sum(last(run, "time/time_elapsed") or 0.0 for run in group.runs)
    return [
        element("th", swatch(number), " ", group.name, scope="row"),
        element("td", group.env),
        cell(str(len(group.runs))),
        cell(f"{max(run.record.steps for run in group.runs):,}"),
        cell(f"{iqm(lasts)}{spread(lasts)}"),
        cell(f"{iqm(bests)}{spread(bests)}"),
        cell(short(float(np.median(speeds))) if speeds else "-"),
        cell(format_duration(seconds)),
        element("td", ", ".join(dict.fromkeys(map(state_of, group.runs)))),
    ]


def seeds_table(group: Group) -> Html:
    """The runs of a group one by one."""
    head = ("run", "env steps", "first return", "last return", "best evaluation", "at env steps", "env steps/s", "state")
    return table(head, [element("tr", _seed_row(run)) for run in group.runs], numbers=head[1:7])


def _seed_row(run: Run) -> list[Html]:
    points, best = run.record.series(RETURN), best_evaluation(run)
    return [
        element("th", run.name, scope="row"),
        cell(f"{run.record.steps:,}"),
        cell(short(points[0].value) if points else "-"),
        cell(short(points[-1].value) if points else "-"),
        cell(short(best.value) if best else "-"),
        cell(f"{best.step:,}" if best else "-"),
        cell(short(last(run, "time/fps"))),
        element("td", state_of(run)),
    ]


def best_evaluation(run: Run) -> Point | None:
    """The best evaluation of training; None if there was none."""
    return max(run.record.series(EVALUATION), key=lambda point: point.value, default=None)


def last(run: Run, key: str) -> float | None:
    """The newest finite value of a metric."""
    points = run.record.series(key)
    return points[-1].value if points else None


def iqm(values: Sequence[float]) -> str:
    """The interquartile mean as text, "-" of nothing."""
    return short(float(interquartile_mean(np.asarray(values)))) if values else "-"


def spread(values: Sequence[float]) -> str:
    """Its interval in parentheses, where there are several values."""
    interval = iqm_interval([np.asarray(values)], resamples=RESAMPLES) if values else None
    return "" if interval is None else f" ({short(interval[0])} to {short(interval[1])})"


def cell(value: str) -> Html:
    """A table's cell with a number."""
    return element("td", value, class_="number")


def table(head: Sequence[str], rows: Sequence[Html], caption: str | None = None, *, numbers: Sequence[str] = ()) -> Html:
    """A table that scrolls inside itself where it is too wide.

    Args:
        head: names of the columns.
        rows: made of cells.
        caption: above the table, or None.
        numbers: names of the columns of numbers, which stand on the right as their cells do.
    """
    titles = [element("th", name, scope="col", class_="number" if name in numbers else None) for name in head]
    body = element("tbody", list(rows))
    inner = element("table", element("caption", caption) if caption else None, element("thead", element("tr", titles)), body)
    return element(
        "div", inner, class_="scroll", tabindex=0, role="region", aria_label=caption or f"Table: {', '.join(filter(None, head))}"
    )


def missing(what: str, command: str) -> Html:
    """What is not there, and the command that makes it."""
    return element("p", f"{what} ", joined("Make it with ", element("code", command)), class_="missing")
