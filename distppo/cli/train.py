"""`train`: trains a policy, or goes on with a run."""

from __future__ import annotations

import argparse
import shlex
from collections.abc import Sequence
from typing import TYPE_CHECKING

from distppo.cli.parser import Parser
from distppo.cli.report import closing_report
from distppo.cli.settings import add_setting_flags, add_trust_flag, read_setting_flags
from distppo.config.trust import resume_flags
from distppo.plugins import path_prefix

if TYPE_CHECKING:
    from distppo.runtime.train import TrainResult


def main(argv: Sequence[str], program: str) -> int:
    """Runs the command.

    Raises:
        UserError: an argument, a setting, the environment or a checkpoint is wrong.
    """
    parser = train_parser(program)
    arguments = parser.read(argv)
    if arguments.checkpoint is not None and arguments.resume is not None:
        parser.error(f"--checkpoint {arguments.checkpoint} and --resume {arguments.resume} both name what to continue from: give one")
    resume = arguments.resume if arguments.checkpoint is None else arguments.checkpoint
    if resume is not None and not resume.strip():
        parser.error("what to continue from is empty: give a path, the name of a run, or latest")
    if arguments.or_start:
        if resume is None:
            parser.error("--or-start is for --resume: it says what to do where there is nothing to continue")
        resume = _begun(arguments, resume)
    config, overrides = read_setting_flags(arguments, check=resume is None)
    if arguments.parallel is not None and arguments.seeds is None and resume is None:
        parser.error("--parallel is for --seeds")
    seeds: list[int] = []
    if arguments.seeds is not None or resume is not None:
        from distppo.cli.train_seeds import is_group, read_seeds, train_group

        if is_group(arguments, resume) and not arguments.dry_run:
            return train_group(arguments, config, overrides, resume, program)
        if is_group(arguments, resume):
            config, seeds, _ = read_seeds(arguments, config, overrides, resume)
            resume = None
    if arguments.dry_run:
        from distppo.runtime.plan import plan

        lines = plan(config, resume=resume, address=arguments.address, trust=arguments.trust, overrides=overrides)
        print("\n".join([*lines, *([f"seeds       {len(seeds)} runs like this: {', '.join(map(str, seeds))}"] if seeds else [])]))
        return 0

    from distppo.runtime.train import train

    progress = False if arguments.no_progress else None
    result = train(config, resume=resume, address=arguments.address, trust=arguments.trust, progress=progress, overrides=overrides)
    report = [] if result.signal else closing_report(result.run_directory, program, wanted=arguments.report)
    for line in [*closing_lines(result, program), *report]:
        print(line)
    return 0 if result.signal is None else 128 + result.signal


def closing_lines(result: TrainResult, program: str) -> list[str]:
    """Returns what stands at the end of a run: what it reached, how fast, where everything is, and how to go on if it was interrupted."""
    summary, directory = result.summary, result.run_directory
    before, after = summary.get("episode_return_first"), summary.get("episode_return_mean")
    facts = [f"{summary['env_steps']:,} env steps"]
    if before is not None and after is not None:
        facts.append(f"episode return {before:,.1f} -> {after:,.1f}")
    if summary.get("env_steps_per_second"):
        facts.append(f"{summary['env_steps_per_second']:,.0f} env steps/s")
    reason = summary.get("stop_reason")
    ended = "interrupted" if result.signal else "stopped" if reason else "finished"
    lines = [f"{ended}: {', '.join(facts)}", *([f"because {reason}"] if reason else []), f"run directory:   {directory}"]
    if summary.get("best_checkpoint"):
        lines.append(f"best checkpoint: {summary['best_checkpoint']}")
    if result.signal:
        again = f"{path_prefix(result.code)}{program} --resume {shlex.quote(str(directory))}"
        lines.append(f"continue with:   {again}{resume_flags(result.code, result.storage)}")
    return lines


def _begun(arguments: argparse.Namespace, resume: str) -> str | None:
    """Returns what to resume, or None where that has not begun yet: then it begins, where the same command will find it."""
    from distppo.runtime.run_directory import place_of, run_exists

    if run_exists(resume):
        return resume
    place = place_of(resume)
    if arguments.run_dir is None and place is not None:
        arguments.run_dir = str(place)
    return None


def train_parser(program: str) -> Parser:
    """Returns the parser of the command's flags."""
    parser = Parser(program, "[FLAGS]", "Trains a policy. Without arguments: HalfCheetah-v4 with the default settings.")
    add_setting_flags(parser)
    group = parser.add_argument_group("continue", "The settings are the run's own; files and flags given here count over them.")
    group.add_argument("--checkpoint", metavar="PATH", help="checkpoint or run directory to continue from")
    group.add_argument(
        "--resume", nargs="?", const="latest", metavar="latest|RUN|PATH|URL", help="run to continue; without a value the latest"
    )
    group.add_argument("--or-start", action="store_true", help="begin what --resume names, where there is none: for jobs that are retried")
    add_trust_flag(group)
    group = parser.add_argument_group("where and how")
    group.add_argument(
        "--address", help="running Ray cluster to join: auto, HOST:PORT or ray://HOST:PORT (default: one is started on this machine)"
    )
    group.add_argument("--report", action="store_true", help="write report.html into the run directory at the end")
    group.add_argument("--no-progress", action="store_true", help="plain lines instead of the live display")
    group.add_argument("--dry-run", action="store_true", help="print the plan: batch, updates, memory, estimated time; start nothing")
    group = parser.add_argument_group(
        "several seeds", "Each is a run of its own in a subfolder, seed0, seed1, ... --resume goes on with all."
    )
    group.add_argument("--seeds", metavar="K|LIST", help="how many, counted from --seed, or a list as in 0,1,2")
    group.add_argument(
        "--parallel", nargs="?", const="auto", metavar="N", help="runs at a time; without a value what the cores suffice for"
    )
    return parser
