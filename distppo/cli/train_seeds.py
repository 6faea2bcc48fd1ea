"""`train --seeds`: the same settings with several seeds."""

from __future__ import annotations

import argparse
import json
import shlex
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

from distppo.cli.report import closing_report
from distppo.config import Config, Overrides, apply_overrides, load_layers
from distppo.config.trust import named_code, require_named, resume_flags
from distppo.errors import UserError
from distppo.metrics import SUMMARY_FILE
from distppo.plugins import path_prefix
from distppo.runtime.run_directory import CONFIG_FILE
from distppo.runtime.seed_processes import parallel_runs, train_seeds
from distppo.runtime.seeds import SeedsResult, find_group, open_group, parse_seeds, seeds_of

FAILED = 1
COLUMNS = (
    ("episode_return_mean", 12, ",.1f"),
    ("best_evaluation", 12, ",.1f"),
    ("env_steps", 14, ",d"),
    ("env_steps_per_second", 9, ",.0f"),
)


def is_group(arguments: argparse.Namespace, resume: str | None) -> bool:
    """Says whether several seeds are asked for, or a folder of them is to be continued."""
    return arguments.seeds is not None or (resume is not None and find_group(resume) is not None)


class Seeds(NamedTuple):
    """What is to be trained.

    Attributes:
        config: of all runs.
        seeds: one for each.
        group: folder of the runs that are gone on with; None begins new ones.
    """

    config: Config
    seeds: list[int]
    group: Path | None


def read_seeds(arguments: argparse.Namespace, config: Config, overrides: Overrides, resume: str | None) -> Seeds:
    """Returns the settings and seeds that are asked for; those of a folder that is continued, with what was given laid over them.

    Raises:
        UserError: an argument or a setting is wrong, the folder is none, or it names code that the user has not named.
    """
    group = None if resume is None else find_group(resume)
    if resume is not None and group is None:
        raise UserError(f"--resume {resume} is no folder of seeds, which --seeds could go on with; leave one of the two out")
    if group is not None:
        named = {*arguments.trust, *named_code(config)}
        base, _ = load_layers([group / CONFIG_FILE], check=False)
        config = apply_overrides(base, Overrides(tuple(each for each in overrides.settings if each.key != "run.directory")))
        require_named(config, named, source=group / CONFIG_FILE)
    seeds = parse_seeds(arguments.seeds, config.run.seed) if arguments.seeds is not None or group is None else seeds_of(group)
    return Seeds(config, seeds, group)


def train_group(arguments: argparse.Namespace, config: Config, overrides: Overrides, resume: str | None, program: str) -> int:
    """Trains the seeds and returns the exit code: 0 if all have finished, 1 if an error ended one, 128 + signal if one ended all.

    Raises:
        UserError: an argument or a setting is wrong, or the folder is.
    """
    parallel = _parallel(arguments.parallel)
    config, seeds, group = read_seeds(arguments, config, overrides, resume)
    more = [flag for name in arguments.trust for flag in ("--trust", name)]
    more += ["--address", arguments.address] if arguments.address else []
    more += ["--no-progress"] if arguments.no_progress else []
    runs = parallel_runs(config, parallel, len(seeds)) if arguments.parallel else 1
    with open_group(config, seeds, continued=group) as directory:
        result = train_seeds(config, directory, seeds, parallel=runs, arguments=more, say=lambda line: print(line, flush=True))
    code = named_code(config)
    report = [] if result.signal else closing_report(result.directory, program, wanted=arguments.report)
    for line in [*closing_lines(result, path_prefix(code) + program, resume_flags(code, config.run.storage)), *report]:
        print(line)
    if result.signal is not None:
        return 128 + result.signal
    return FAILED if result.failed else 0


def _parallel(text: str | None) -> int | None:
    if text is None or text == "auto":
        return None
    if not (text.isdecimal() and int(text) > 0):
        raise UserError(f"--parallel {text}  must be a whole number, at least 1, or nothing for as many as there are cores for")
    return int(text)


def closing_lines(result: SeedsResult, program: str, trust: str) -> list[str]:
    """Returns a table with a line a seed, what they reached together, and how to go on."""
    summary = json.loads((result.directory / SUMMARY_FILE).read_text())
    lines = ["", f"{'seed':>6} {'return':>12} {'best eval':>12} {'env steps':>14} {'steps/s':>9}", *map(_table_line, summary["runs"])]
    if summary["episode_return_mean"] is not None:
        reached = f"{summary['episode_return_mean']:,.1f} +- {summary['episode_return_std']:,.1f}"
        lines.append(f"finished: {summary['finished']} of {len(summary['seeds'])} seeds, episode return {reached} (mean +- std over seeds)")
    lines.append(f"run directory:   {result.directory}")
    if summary["finished"] < len(summary["seeds"]):
        lines.append(f"continue with:   {program} --resume {shlex.quote(str(result.directory))}{trust}")
    return lines


def _table_line(run: Mapping[str, Any]) -> str:
    cells = [f"{run['seed']:>6}"]
    for name, width, spec in COLUMNS:
        cells.append(f"{'-' if run[name] is None else format(run[name], spec):>{width}}")
    return " ".join(cells)
