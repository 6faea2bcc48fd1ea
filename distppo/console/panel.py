"""The lines of the live display, fitted to any terminal."""

from __future__ import annotations

from rich.text import Text

from distppo.console.text import format_count, format_duration, format_number, is_number, sparkline
from distppo.console.view import RunView

_LABEL = 8
_BAR_DONE, _BAR_LEFT = "\u2501", "\u2500"
_SPARKLINE_WIDTH = 40
_SHARES_WIDTH = 16
_SHARES_FROM = 60
_MOST_FINDINGS = 2
# Each phase has a shade besides its color, so that the bar can be read without colors too.
_PHASE_STYLES = {
    "collect": ("\u2588", "cyan"),
    "update": ("\u2593", "green"),
    "broadcast": ("\u2592", "magenta"),
    "evaluate": ("\u2591", "yellow"),
    "checkpoint": ("\u2592", "blue"),
    "other": ("\u2591", "dim"),
}
Part = tuple[str, str]


def panel(view: RunView, *, width: int, height: int) -> list[Text]:
    """The display's lines, none of `width` cells or more, at least one fewer than `height`; the most important ones come first."""
    space = max(width - 1, 1)
    lines = [_title(view, space), _progress(view, space), _steps(view, space), _returns(view, space)]
    if view.evaluation:
        lines.append(_evaluation(view, space))
    lines += [_health(view, space), _update(view, space), _time(view, space), _idle(view, space)]
    lines += [_finding(text) for text in view.findings[:_MOST_FINDINGS]]
    return [_fit(line, space) for line in lines[: max(height - 1, 1)]]


def _fit(parts: list[Part], space: int) -> Text:
    line = Text(no_wrap=True, overflow="ellipsis")
    for text, style in parts:
        line.append(text, style)
    line.truncate(space, overflow="ellipsis")
    return line


def _labelled(label: str, parts: list[Part], space: int) -> list[Part]:
    """The parts after a label, as many as fit whole, the first one in any case."""
    line = [(label.ljust(_LABEL), "dim")]
    used = _LABEL
    for index, (text, style) in enumerate(parts):
        gap = "  " if index else ""
        used += len(gap) + len(text)
        if index and used > space:
            break
        line.append((gap + text, style))
    return line


def _title(view: RunView, space: int) -> list[Part]:
    """The title, its beginning left out where it is too long, since a run's name ends with what tells it from others; then the state."""
    state = f"  {view.state}" if view.state else ""
    room = max(space - len(state), 1)
    title = view.title if len(view.title) <= room else "\u2026" + view.title[len(view.title) - room + 1 :]
    return [(title, "bold"), (state, "bold cyan" if view.running else "bold yellow")]


def _progress(view: RunView, space: int) -> list[Part]:
    percent = f" {view.progress:6.1%}"
    eta = f"  eta {format_duration(view.eta):>6}" if view.running else f"  in {format_duration(view.row.get('time/time_elapsed')):>6}"
    length = max(space - len(percent) - len(eta), 0)
    done = round(length * view.progress)
    return [(_BAR_DONE * done, "cyan"), (_BAR_LEFT * (length - done), "dim"), (percent, "bold"), (eta, "")]


def _steps(view: RunView, space: int) -> list[Part]:
    row = view.row
    parts = [(f"{format_count(view.steps)} / {format_count(view.total)}", ""), (f"{format_count(row.get('time/fps'))}/s", "bold")]
    parts.append((f"elapsed {format_duration(row.get('time/time_elapsed'))}", ""))
    return _labelled("steps", parts, space)


def _returns(view: RunView, space: int) -> list[Part]:
    value = format_number(view.row.get("rollout/ep_rew_mean"), ".1f")
    history = sparkline(view.returns.values(), min(_SPARKLINE_WIDTH, max(space - _LABEL - len(value) - 2, 0)))
    return _labelled("return", [(value, "bold"), (history, "green")], space)


def _evaluation(view: RunView, space: int) -> list[Part]:
    row = view.evaluation
    mean, spread = (format_number(row.get(key), ".1f") for key in ("eval/mean_reward", "eval/std_reward"))
    parts = [(f"{mean} +- {spread}", "bold"), (f"at {format_count(row.get('time/total_timesteps'))} steps", "")]
    parts.append((f"{format_count(row.get('eval/episodes'))} episodes", ""))
    return _labelled("eval", parts, space)


def _health(view: RunView, space: int) -> list[Part]:
    """Who works, and what went wrong so far."""
    workers = view.row.get("dist/workers")
    who = f"{format_count(workers)} worker{'s' * (workers != 1)}" if is_number(workers) and workers > 0 else "one process"
    faults = [(f"{name.replace('_', ' ')} {count}", "yellow") for name, count in view.faults.items()]
    return _labelled("health", [(who if view.row else "-", ""), *(faults or [("no faults", "green")] * bool(view.row))], space)


def _update(view: RunView, space: int) -> list[Part]:
    row = view.row
    parts = [
        (f"kl {format_number(row.get('train/approx_kl'), '.4f')}", ""),
        (f"clipped {format_number(row.get('train/clip_fraction'), '.1%')}", ""),
        (f"explained variance {format_number(row.get('train/explained_variance'), '.2f')}", ""),
    ]
    return _labelled("update", parts, space)


def _idle(view: RunView, space: int) -> list[Part]:
    return _labelled("idle", [(f"{who} {share:.0%}", "") for who, share in view.idle().items()] or [("-", "")], space)


def _finding(text: str) -> list[Part]:
    return [("finding".ljust(_LABEL), "dim"), (text, "yellow")]


def _time(view: RunView, space: int) -> list[Part]:
    shares = {phase: share for phase, share in view.shares().items() if share >= 0.005}
    if not shares:
        return _labelled("time", [("-", "")], space)
    bar = _shares_bar(shares) if space >= _SHARES_FROM else []
    legend = [(f"{phase} {share:.0%}", _PHASE_STYLES[phase][1]) for phase, share in shares.items()]
    label, *rest = _labelled("time", legend, space - sum(len(text) for text, _ in bar))
    return [label, *bar, *rest]


def _shares_bar(shares: dict[str, float]) -> list[Part]:
    bar, total, drawn, covered = [], sum(shares.values()), 0, 0.0
    for phase, share in shares.items():
        covered += share
        end = round(_SHARES_WIDTH * covered / total)
        character, style = _PHASE_STYLES[phase]
        bar.append((character * (end - drawn), style))
        drawn = end
    return [*bar, ("  ", "")]
