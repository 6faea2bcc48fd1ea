"""The lower part of the report: time, faults, settings, checkpoints, versions."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from distppo.findings.faults import counted
from distppo.findings.finding import number
from distppo.findings.speed import PHASES
from distppo.metrics import FAULT_METRICS, FAULTS
from distppo.report.groups import Group
from distppo.report.html import Html, element, joined
from distppo.report.overview import cell, table
from distppo.report.run_files import Run, Setting

MOST_EVENTS = 100
MOST_MACHINES = 12
MACHINE = ("cpu", "cores", "memory_bytes", "gpu", "platform")
Named = tuple[str, Run]


def runs_of(groups: Sequence[Group]) -> Iterator[Named]:
    """Every run with the name that tells it from the others."""
    for group in groups:
        for run in group.runs:
            parts = [*([group.name] if len(groups) > 1 or len(group.runs) == 1 else []), *([run.name] if len(group.runs) > 1 else [])]
            yield " / ".join(parts), run


def time_bars(groups: Sequence[Group]) -> Html:
    """A bar for each group: the parts of its time that the phases took."""
    bars, rows = [], []
    for group in groups:
        shares = _shares(group)
        if not shares:
            continue
        left, parts = 0.0, []
        for index, (_, share) in enumerate(shares):
            parts.append(element("rect", x=f"{left:.2%}", y=0, width=f"{share:.2%}", height="100%", class_=f"c{index}"))
            left += share
        words = ", ".join(f"{phase} {share:.0%}" for phase, share in shares)
        bars += [element("h3", group.name), element("svg", parts, class_="bar", role="img", aria_label=f"{group.name}: {words}")]
        rows.append(element("tr", element("th", group.name, scope="row"), [cell(f"{share:.1%}") for _, share in shares]))
    keys = [
        element(
            "li", element("svg", element("rect", width=12, height=12, rx=3, class_=f"c{index}"), class_="key", aria_hidden="true"), phase
        )
        for index, phase in enumerate(PHASES)
    ]
    shown = element("div", bars, element("ul", keys, class_="legend"), class_="bars")
    return joined(shown, element("details", element("summary", "Table"), table(("", *PHASES), rows, numbers=PHASES)))


def _shares(group: Group) -> list[tuple[str, float]]:
    rows = [row for run in group.runs for row in run.record.rows]
    seconds = {phase: sum(max(number(row.get(f"time/{phase}"), 0.0), 0.0) for row in rows) for phase in PHASES}
    total = sum(seconds.values())
    return [(phase, value / total) for phase, value in seconds.items()] if total > 0 else []


def faults(groups: Sequence[Group]) -> Html:
    """Faults by kind with how often, and one by one; and that there were none, where there were none."""
    told = []
    for name, run in runs_of(groups):
        counts = {kind: counted(run.record, FAULT_METRICS[kind])[0] for kind in FAULTS}
        rows = {metric: (count, kind) for kind, count in counts.items() if count for metric in [FAULT_METRICS[kind]]}
        events = [
            event for event in run.record.events if event.get("event") in ("fault", "recovered", "error", "layout_changed", "resumed")
        ]
        if not rows and not events:
            continue
        if len(groups) > 1 or len(groups[0].runs) > 1:
            told.append(element("h3", name))
        if rows:
            listed = [
                element("tr", element("th", metric, scope="row"), cell(str(count)), element("td", FAULTS[kind], class_="words"))
                for metric, (count, kind) in rows.items()
            ]
            told.append(table(("counter", "count", "meaning"), listed, numbers=("count",)))
        if events:
            told.append(_events_table(events))
    return joined(told) if told else element("p", element("span", "none", class_="badge well"), " Nothing went wrong.")


def _events_table(events: Sequence[Mapping[str, Any]]) -> Html:
    shown = events[-MOST_EVENTS:]
    rows = []
    for event in shown:
        words = [event.get(key) for key in ("what", "where", "why", "done", "kind", "message", "seconds") if event.get(key) is not None]
        steps = event.get("env_steps")
        rows.append(
            element(
                "tr",
                element("td", str(event.get("time", ""))[:19].replace("T", " "), class_="mono"),
                cell(f"{steps:,}" if isinstance(steps, int) else "-"),
                element("td", event["event"]),
                element("td", " - ".join(map(str, words)), class_="words"),
            )
        )
    left_out = len(events) - len(shown)
    return table(
        ("time", "env steps", "event", "what happened"), rows, f"The last {MOST_EVENTS}; {left_out:,} before." if left_out else None
    )


def settings(groups: Sequence[Group]) -> Html:
    """What differs between the groups, and every setting of each with where its value comes from."""
    firsts = [(group.name, group.runs[0]) for group in groups if group.runs[0].settings]
    parts = []
    if len(firsts) > 1:
        keys = [key for key in firsts[0][1].settings if len({run.settings[key].value for _, run in firsts}) > 1]
        rows = [
            element("tr", element("th", element("code", key), scope="row"), [element("td", run.settings[key].value) for _, run in firsts])
            for key in keys
            if key != "run.directory"
        ]
        parts += [element("h3", "What differs"), table(("setting", *(name for name, _ in firsts)), rows)]
    for name, run in firsts:
        chosen = {key: setting for key, setting in run.settings.items() if not setting.is_default and key != "run.directory"}
        seeds = f", {run.name}, the first of {count} seeds" if (count := _seeds(groups, name)) > 1 else ""
        explicit = _settings_table(chosen, "What differs from the defaults.")
        if len(firsts) == 1:
            parts.append(joined(element("h3", f"{name}{seeds}"), explicit))
        else:
            parts.append(element("details", element("summary", f"Settings of {name}{seeds}"), explicit, class_="block"))
        parts.append(element("details", element("summary", f"All settings of {name}"), _settings_table(run.settings, None), class_="block"))
    unread = [element("p", f"{name}: {note}", class_="missing") for name, run in runs_of(groups) for note in run.notes]
    return joined(parts, unread)


def _seeds(groups: Sequence[Group], name: str) -> int:
    return len(next(group.runs for group in groups if group.name == name))


def _settings_table(chosen: Mapping[str, Setting], caption: str | None) -> Html:
    rows = [
        element(
            "tr",
            element("th", element("code", key), scope="row"),
            element("td", element("code", setting.value)),
            element("td", setting.origin),
        )
        for key, setting in chosen.items()
    ]
    return table(("setting", "value", "from"), rows, caption)


def checkpoints(groups: Sequence[Group]) -> Html:
    """What can be evaluated, exported and gone on from."""
    rows = []
    for name, run in runs_of(groups):
        for info in run.checkpoints:
            marks = [*(["best"] if run.best == info else []), *(["last"] if info == run.checkpoints[-1] else [])]
            reference = f"{run.path}@{info.env_steps}"
            rows.append(
                element(
                    "tr",
                    element("th", name, scope="row"),
                    cell(f"{info.env_steps:,}"),
                    element("td", ", ".join(marks)),
                    element("td", info.saved_at[:19].replace("T", " ")),
                    element("td", element("code", reference)),
                )
            )
    if not rows:
        return element("p", "None is in the folder of the run.", class_="missing")
    return table(("run", "env steps", "", "saved (UTC)", "name for evaluate, export and train --resume"), rows, numbers=("env steps",))


def machines(groups: Sequence[Group]) -> Html:
    """Versions and hardware, a column for each that differs."""
    alike: dict[tuple[tuple[str, str], ...], list[str]] = {}
    for name, run in runs_of(groups):
        alike.setdefault(tuple(_told(run).items()), []).append(name)
    columns = [(f"{names[0]} and {len(names) - 1} more" if len(names) > 1 else names[0], dict(told)) for told, names in alike.items()]
    columns = [("all runs", columns[0][1])] if len(columns) == 1 else columns[:MOST_MACHINES]
    keys = list(dict.fromkeys(key for _, told in columns for key in told))
    if not keys:
        return element("p", "The run did not write them down.", class_="missing")
    rows = [element("tr", element("th", key, scope="row"), [element("td", told.get(key, "-")) for _, told in columns]) for key in keys]
    return table(("", *(name for name, _ in columns)), rows)


def _told(run: Run) -> dict[str, str]:
    """The run's machine as text; hardware first."""
    machine = run.machine
    names = [*(key for key in MACHINE if key in machine), *(key for key in machine if key not in MACHINE)][:40]
    ready: Mapping[str, Any] = next((event for event in reversed(run.record.events) if event.get("event") == "ready"), {})
    told = {"ran": ready.get("description"), "learner step": ready.get("step")}
    told |= {("memory" if key == "memory_bytes" else key): _hardware(key, machine[key]) for key in names}
    return {key: str(value) for key, value in told.items() if isinstance(value, str | int | float)}


def _hardware(key: str, value: Any) -> Any:
    return f"{value / 2**30:.1f} GiB" if key == "memory_bytes" and isinstance(value, int | float) else value
