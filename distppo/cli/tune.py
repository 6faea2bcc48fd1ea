"""`tune`: searches settings with Ray Tune, or goes on with a search."""

from __future__ import annotations

import argparse
import shlex
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from distppo.cli.parser import Parser
from distppo.cli.settings import add_setting_flags, add_trust_flag, read_setting_flags
from distppo.config.suggest import shortened
from distppo.config.trust import require_trusted, trust_flags
from distppo.plugins import path_prefix

if TYPE_CHECKING:
    from distppo.runtime.tune.records import Records
    from distppo.runtime.tune.request import Request
    from distppo.runtime.tune.search import SearchResult

FAILED = 1


def main(argv: Sequence[str], program: str) -> int:
    """Runs the command and returns its exit code: 0, 1 if no trial has a score, 128 + signal if one ended it.

    Raises:
        UserError: an argument, a setting, the space or the environment is wrong.
    """
    parser = _parser(program)
    arguments = parser.read(argv)
    if arguments.resume is not None:
        request, records, directory = _continued(parser, arguments)
    else:
        request, records, directory = _new(parser, arguments)
    from distppo.runtime.tune.search import run_search

    trials = f"{request.trials} trials of {request.config.run.total_timesteps:,} env steps in {request.config.env.id}"
    _say(f"{trials}, {request.scheduler} over {request.search} settings, by {request.found.metric} -> {directory}")
    result = run_search(request, records, directory, continued=arguments.resume is not None, say=_say)
    for line in closing_lines(result, program):
        print(line)
    if result.signal is not None:
        return 128 + result.signal
    return 0 if result.records.best is not None else FAILED


def closing_lines(result: SearchResult, program: str) -> list[str]:
    """Returns the table of trials, where everything is, and how to use it or go on."""
    from distppo.runtime.tune.figure import draw
    from distppo.runtime.tune.records import BEST_FILE, RESULTS_FILE, TABLE_FILE
    from distppo.runtime.tune.records import FAILED as FAILED_STATE

    records, directory = result.records, shlex.quote(str(result.records.directory))
    prefix = path_prefix(records.code)
    go_on = f"continue with:   {prefix}{program} --resume {directory}{trust_flags(records.code)}"
    if not records.by_number:
        return ["interrupted before the first trial", go_on]
    lines = ["", *records.table(), "", f"results:         {directory}/{RESULTS_FILE}, {TABLE_FILE}"]
    lines.append(draw(records))
    if records.best is not None:
        train = f"{prefix}{program.removesuffix(' tune')} train --config {directory}/{BEST_FILE}"
        lines += [f"best:            {records.best.name}, {directory}/{BEST_FILE}", f"train with it:   {train}"]
    if failed := records.count(FAILED_STATE):
        lines.append(f"failed:          {failed} of {len(records.by_number)} trials; why is in {RESULTS_FILE}")
    if not records.complete:
        lines.append(go_on)
    return lines


def _new(parser: Parser, arguments: argparse.Namespace) -> tuple[Request, Records, Path]:
    if arguments.space is None:
        parser.error("--space is missing: a file that says what to search, such as configs/tune/quick.yaml")
    config, _ = read_setting_flags(arguments)
    if arguments.num_workers is not None:
        parser.error(f"--num-workers {shortened(arguments.num_workers)}: of a trial it is --workers-per-trial")
    from distppo.runtime.run_directory import RUNS_ROOT
    from distppo.runtime.tune.records import Records
    from distppo.runtime.tune.request import DEFAULT_TRIALS, DEFAULT_WORKERS, Request, require_sound
    from distppo.runtime.tune.search import new_search_directory
    from distppo.runtime.tune.space_file import read_search_space

    request = Request(
        config,
        read_search_space(arguments.space),
        Path(arguments.space),
        arguments.trials or DEFAULT_TRIALS,
        arguments.scheduler or "asha",
        arguments.search or "random",
        DEFAULT_WORKERS if arguments.workers_per_trial is None else arguments.workers_per_trial,
        arguments.max_concurrent,
        arguments.address,
    )
    require_sound(request)
    directory = new_search_directory(request, RUNS_ROOT)
    return request, Records(request, directory), directory


def _continued(parser: Parser, arguments: argparse.Namespace) -> tuple[Request, Records, Path]:
    """Takes everything from the search's own files, and what may change from the arguments."""
    for name in ("space", "scheduler", "search"):
        if getattr(arguments, name) is not None:
            parser.error(f"--{name} {getattr(arguments, name)}: a search that is continued has its own; leave it out")
    _, overrides = read_setting_flags(arguments, check=False)
    if overrides.settings:
        parser.error(f"{overrides.settings[0].origin}: a search that is continued has its own settings; leave it out")
    from distppo.config import load_config
    from distppo.runtime.run_directory import RUNS_ROOT
    from distppo.runtime.tune.records import BASE_FILE, SPACE_FILE, Records, find_search, read_results
    from distppo.runtime.tune.request import Request, require_sound
    from distppo.runtime.tune.space_file import read_search_space

    directory = find_search(arguments.resume, RUNS_ROOT)
    stored = read_results(directory)
    request = Request(
        load_config(directory / BASE_FILE),
        read_search_space(directory / SPACE_FILE),
        directory / SPACE_FILE,
        max(arguments.trials or stored.trials, len(stored.records)),
        stored.scheduler,
        stored.search,
        stored.workers if arguments.workers_per_trial is None else arguments.workers_per_trial,
        arguments.max_concurrent,
        arguments.address,
    )
    records = Records(request, directory, stored.records)
    require_trusted(records.code, arguments.trust, source=directory)
    require_sound(request)
    return request, records, directory


def _say(line: str) -> None:
    print(line, flush=True)


def _parser(program: str) -> Parser:
    parser = Parser(
        program,
        "--space FILE [FLAGS]",
        "Trains with many settings side by side, stops what does not promise much, and writes the best as a configuration.",
    )
    group = parser.add_argument_group("search", "A space says what is varied and by which metric; docs/tuning.md describes it.")
    group.add_argument("--space", metavar="FILE", help="YAML file with the search space, such as configs/tune/quick.yaml")
    group.add_argument("--trials", metavar="N", type=_count, help="how many settings to try (default: 8)")
    group.add_argument(
        "--scheduler",
        choices=("asha", "pbt", "none"),
        help="asha stops the worse trials early, pbt has them take over weights and settings of the better (default: asha)",
    )
    group.add_argument(
        "--search", choices=("random", "optuna"), help="where settings come from; optuna is the extra `tune` (default: random)"
    )
    group.add_argument("--max-concurrent", metavar="K", type=_count, help="trials at a time (default: what the CPUs suffice for)")
    group.add_argument(
        "--workers-per-trial", metavar="W", type=_workers, help="rollout workers of each trial; 0: a trial is one process (default: 1)"
    )
    group.add_argument(
        "--resume", nargs="?", const="latest", metavar="latest|NAME|PATH", help="search to go on with; without a value the latest"
    )
    group.add_argument("--address", metavar="HOST:PORT", help="running Ray cluster to join (default: one is started on this machine)")
    add_trust_flag(group)
    add_setting_flags(parser)
    return parser


def _count(text: str) -> int:
    if not (text.isdecimal() and 1 <= int(text) <= 10_000):
        raise argparse.ArgumentTypeError(f"must be a whole number from 1 to 10000, got {shortened(text)!r}")
    return int(text)


def _workers(text: str) -> int:
    if not (text.isdecimal() and int(text) <= 10_000):
        raise argparse.ArgumentTypeError(f"must be a whole number from 0 to 10000, got {shortened(text)!r}")
    return int(text)
