"""What the stored scores say in Markdown, and where it is written: the READMEs and the heads of the recipes."""

from __future__ import annotations

import json
import statistics
import textwrap
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from scores_store import Store, is_timed

from distppo import UserError
from distppo.evaluation.zoo import list_zoo
from distppo.files import write_atomic

Result = Mapping[str, Any]
BEGIN, END = "<!-- {name}: written by benchmarks/scores.py -->", "<!-- end of {name} -->"
ORDER = ("HalfCheetah", "Walker2d", "Hopper", "Ant", "Swimmer", "Humanoid")
HEADER_WIDTH = 130
MEASURED = "# Measured: "
"""The line of a recipe's head at which what was measured begins; it ends with the head."""


def main_results(store: Store) -> list[dict[str, Any]]:
    """Returns the results of recipes as they stand, and of peers; variants have a label."""
    return sorted((result for result in store.all() if not result["label"]), key=_place)


def variants(store: Store) -> list[dict[str, Any]]:
    """Returns the results with a label."""
    return sorted((result for result in store.all() if result["label"]), key=_place)


def _place(result: Result) -> tuple[Any, ...]:
    env, _, version = result["env"].partition("-v")
    return (
        ORDER.index(env) if env in ORDER else len(ORDER),
        env,
        version,
        result["total_timesteps"],
        result["peer"] or "",
        result["label"],
    )


def all_tables(store: Store, names: Sequence[str] | None = None) -> str:
    """Returns every table of all results, or of those with these names."""
    chosen, others = main_results(store), variants(store)
    if names is not None:
        chosen, others = ([result for result in each if result["name"] in names] for each in (chosen, others))
    parts = [overview(chosen), details(chosen)] if chosen or not others else []
    return "\n\n".join([*parts, *([variant_table(others)] if others else [])])


def overview(results: Sequence[Result]) -> str:
    """Returns the table of the README: returns, minutes, and what was asked for."""
    if not results:
        return "No result is stored yet."
    lines = [
        "| | env steps | seeds | return, mean +- std | IQM (95% interval) | minutes | asked for | reached after |",
        "|---|---|---|---|---|---|---|---|",
    ]
    for result in results:
        summary, target = result["summary"], result["target"]
        cells = [
            _who(result),
            _steps(result["total_timesteps"]),
            str(summary["seeds"]),
            _mean_std(summary),
            _interval(summary),
            _minutes(summary["wall_seconds_median"]),
            "-" if target is None else f"{target['return']:,.0f} in {target['hours']:g} h",
            "-" if target is None else _reached(summary),
        ]
        lines.append(f"| {' | '.join(cells)} |")
    return "\n".join([*lines, "", *machines(results)])


def details(results: Sequence[Result]) -> str:
    """Returns the table of benchmarks/README.md: every seed, sampled actions, best checkpoints, trapped seeds, commits."""
    lines = [
        "| | env steps | return of each seed | sampled actions | best checkpoint | training | trapped | minutes each | commit |",
        "|---|---|---|---|---|---|---|---|---|",
    ]
    for result in results:
        summary, seeds = result["summary"], result["seeds"]
        training = [seed["training_return"] for seed in seeds if seed["training_return"] is not None]
        cells = [
            _who(result),
            _steps(result["total_timesteps"]),
            ", ".join(f"{seed['deterministic']['mean']:,.0f}" for seed in seeds),
            _mean_std(summary, "stochastic_"),
            _mean_std(summary, "best_"),
            f"{sum(training) / len(training):,.0f}" if training else "-",
            _trapped(summary),
            ", ".join(_minutes(seed["wall_seconds"] if is_timed(seed) else None) for seed in seeds),
            _commits(result),
        ]
        lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines) if results else "No result is stored yet."


def variant_table(results: Sequence[Result]) -> str:
    """Returns the table of labelled results."""
    lines = ["| | variant | env steps | return of each seed | mean +- std | IQM (95% interval) | trapped | minutes |", "|---|" + "---|" * 7]
    for result in results:
        summary = result["summary"]
        cells = [
            _who(result),
            result["label"],
            _steps(result["total_timesteps"]),
            ", ".join(f"{seed['deterministic']['mean']:,.0f}" for seed in result["seeds"]),
            _mean_std(summary),
            _interval(summary),
            _trapped(summary),
            _minutes(summary["wall_seconds_median"]),
        ]
        lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines)


def ablation_table(store: Store) -> str:
    """Returns the table of the variants of recipes, each beside what it varies, with the same seeds."""
    lines = ["| | variant | seeds | return of each seed | mean | beside | its mean | difference | command |", "|---|" + "---|" * 8]
    for result in variants(store):
        base = varied(result, store)
        returns = {entry["seed"]: entry["deterministic"]["mean"] for entry in result["seeds"]}
        beside = {entry["seed"]: entry["deterministic"]["mean"] for entry in base["seeds"]} if base else {}
        same = sorted(returns.keys() & beside.keys())
        mean = statistics.fmean(returns.values())
        cells = [
            f"{_who(result)}, {_steps(result['total_timesteps'])}",
            result["label"],
            str(len(returns)),
            ", ".join(f"{value:,.0f}" for value in returns.values()),
            f"{mean:,.0f}",
            "-" if base is None else base["label"] or "the recipe",
            f"{statistics.fmean(beside[seed] for seed in same):,.0f}" if same else "-",
            f"{statistics.fmean(returns[seed] - beside[seed] for seed in same):+,.0f}" if same else "-",
            f"`{result['command'].removeprefix('python ')}`",
        ]
        lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines) if len(lines) > 2 else "No variant is stored yet."


def varied(variant: Result, store: Store) -> Result | None:
    """Returns what a variant is compared with: of the recipe and the other variants of it the one that has most of its changes, and no
    other ones. So a change that was tried on top of another one stands beside that one alone."""
    place = (variant["env"], variant["total_timesteps"], variant["recipe"])
    family = [each for each in store.all() if (each["env"], each["total_timesteps"], each["recipe"]) == place and each["peer"] is None]
    recipe = next((each for each in family if not each["label"]), None)
    if recipe is None:
        return None
    changes = _changes(variant, recipe)
    nearer = [each for each in family if each["label"] and _changes(each, recipe).items() < changes.items()]
    return max(nearer, key=lambda each: len(_changes(each, recipe)), default=recipe)


def _changes(result: Result, recipe: Result) -> dict[str, Any]:
    """Returns the settings in which a result differs from the recipe as it stands, as text by name."""
    return {
        f"{section}.{name}": json.dumps(value)
        for section, settings in result["settings"].items()
        for name, value in settings.items()
        if value != recipe["settings"].get(section, {}).get(name)
    }


def machines(results: Sequence[Result]) -> list[str]:
    """Returns a sentence for each machine and set of versions that the results come from."""
    found = []
    for result in results:
        for machine in result["machines"]:
            names = [f"{name} {machine[name]}" for name in ("mujoco", "gymnasium", "torch", "numpy") if machine.get(name)]
            text = f"{machine['cores']} cores of {machine['cpu']}, Python {machine['python']}, {', '.join(names)}"
            found += [text] if text not in found else []
    return ["Measured on " + "; ".join(found) + "."] if found else []


def _who(result: Result) -> str:
    return f"{result['env']}, {result['peer']}" if result["peer"] else str(result["env"])


def _steps(steps: int) -> str:
    return f"{steps / 1e6:g}M" if steps >= 100_000 else f"{steps:,}"


def _mean_std(summary: Mapping[str, Any], prefix: str = "") -> str:
    """Returns mean and spread over the seeds; of a single seed the mean."""
    mean, std = summary[f"{prefix}mean"], summary[f"{prefix}std"]
    if mean is None or std is None:
        return "-"
    return f"{mean:,.0f}" if summary["seeds"] == 1 else f"{mean:,.0f} +- {std:,.0f}"


def _interval(summary: Mapping[str, Any]) -> str:
    interval = summary["iqm_interval"]
    return f"{summary['iqm']:,.0f}" + ("" if interval is None else f" ({interval[0]:,.0f} - {interval[1]:,.0f})")


def _minutes(seconds: float | None) -> str:
    """Returns minutes; a dash where the machine did other work beside every seed."""
    return "-" if seconds is None else f"{seconds / 60:.1f}"


def _reached(summary: Mapping[str, Any]) -> str:
    if not summary["reached"]:
        return f"0 of {summary['seeds']} seeds"
    minutes, steps = summary["reached_seconds_median"], summary["reached_env_steps_median"] / 1e6
    return f"{'' if minutes is None else f'{_minutes(minutes)} min, '}{steps:.2f}M steps ({summary['reached']} of {summary['seeds']} seeds)"


def _trapped(summary: Mapping[str, Any]) -> str:
    return "-" if summary["trapped"] is None else f"{len(summary['trapped'])} of {summary['seeds']}"


def _commits(result: Result) -> str:
    commits = dict.fromkeys(commit for seed in result["seeds"] for commit in seed["commits"] if commit)
    return ", ".join(commit[:9] + "-dirty" * commit.endswith("-dirty") for commit in commits) or "-"


def readme_texts(root: Path, store: Store) -> dict[Path, str]:
    """Returns the pages that have tables as they should be, with the tables of the stored results in their places.

    Raises:
        UserError: a page lacks the place.
    """
    results = main_results(store)
    short = "\n\n".join([overview(results), *_zoo_example()])
    blocks = {
        root / "README.md": ("scores", short),
        root / "benchmarks" / "README.md": ("all scores", details(results)),
        root / "docs" / "ablations.md": ("ablations", ablation_table(store)),
    }
    return {path: replaced(path, name, text) for path, (name, text) in blocks.items()}


def _zoo_example() -> list[str]:
    """Returns how to see the first policy of the zoo move; nothing while the zoo is empty."""
    names = [policy.name for policy in list_zoo()]
    example = "halfcheetah" if "halfcheetah" in names else next(iter(names), None)
    if example is None:
        return []
    others = f" ({', '.join(name for name in names if name != example)} are there, too)" if len(names) > 1 else ""
    return [
        f"The best policies are shipped: one command shows them move, without any training{others}.",
        f"```\npython launch.py evaluate zoo:{example} --record\n```",
    ]


def write_readmes(root: Path, store: Store) -> list[Path]:
    """Puts the tables into their pages; returns these."""
    texts = readme_texts(root, store)
    for path, text in texts.items():
        write_atomic(path, text.encode())
    return list(texts)


def replaced(path: Path, name: str, table: str) -> str:
    """Returns the text of a page with the table in its place.

    Raises:
        UserError: it lacks the place.
    """
    text, begin, end = path.read_text(encoding="utf-8"), BEGIN.format(name=name), END.format(name=name)
    if text.count(begin) != 1 or text.count(end) != 1 or text.index(begin) > text.index(end):
        raise UserError(f"{path} must have these two lines once each, between which the table goes:\n{begin}\n{end}")
    return f"{text[: text.index(begin)]}{begin}\n\n{table}\n\n{text[text.index(end) :]}"


def header_texts(root: Path, store: Store) -> dict[Path, str]:
    """Returns the recipes that have results as they should be: what was measured stands at the end of their heads."""
    results = [result for result in main_results(store) if result["peer"] is None]
    texts = {}
    for path in sorted((root / "configs").glob("*.yaml")):
        mine = [result for result in results if result["recipe"] == path.stem]
        if mine:
            head, _, body = path.read_text(encoding="utf-8").partition("\n\n")
            head = head.split(f"\n#\n{MEASURED}")[0]
            texts[path] = "\n".join([head, "#", *_measured(mine)]) + f"\n\n{body}"
    return texts


def write_headers(root: Path, store: Store) -> list[Path]:
    """Writes what was measured into the heads of the recipes; returns those that have results."""
    texts = header_texts(root, store)
    for path, text in texts.items():
        write_atomic(path, text.encode())
    return list(texts)


def _measured(results: Sequence[Result]) -> list[str]:
    lines = []
    for number, result in enumerate(results):
        summary, seeds = result["summary"], [seed["seed"] for seed in result["seeds"]]
        machine = result["machines"][-1]
        listed = (
            f"{seeds[0]}-{seeds[-1]}" if seeds == list(range(seeds[0], seeds[-1] + 1)) and len(seeds) > 1 else ",".join(map(str, seeds))
        )
        one, minutes = len(seeds) == 1, summary["wall_seconds_median"]
        text = (
            f"{result['command'].removeprefix('python ')} {'--seed' if one else '--seeds'} {','.join(map(str, seeds))}: {result['env']}, "
            f"{'seed' if one else 'seeds'} {listed}, {result['total_timesteps']:,} env steps, "
            f"return {_mean_std(summary)}{'' if one else ' (mean +- std over seeds)'}, "
            f"{'' if minutes is None else f'{_minutes(minutes)} minutes ' + ('' if one else 'a seed ')}on "
            f"{machine['cores']} cores of {machine['cpu']}, MuJoCo {machine['mujoco']}, commit {_commits(result)}, {result['date']}."
        )
        first = MEASURED if number == 0 else "#   "
        lines += textwrap.wrap(text, HEADER_WIDTH, initial_indent=first, subsequent_indent="#   ", break_on_hyphens=False)
    return lines
