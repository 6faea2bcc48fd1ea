"""`autotune`: measures this machine, and proposes how to lay a job out on it."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from typing import TYPE_CHECKING

from distppo.cli.parser import Parser
from distppo.cli.settings import add_setting_flags, read_setting_flags

if TYPE_CHECKING:
    from distppo.config import Config
    from distppo.runtime.autotune import Layout, Measurement

DEFAULT_SECONDS = 60.0


def main(argv: Sequence[str], program: str) -> int:
    """Runs the command.

    Raises:
        UserError: an argument or a setting is wrong, or the job cannot be done here in any way.
    """
    description = (
        "Trains for a moment with different numbers of workers and environments, modes and learner threads, always with the same batch, "
        "and proposes the fastest. Nothing is written."
    )
    parser = Parser(program, "[FLAGS]", description)
    add_setting_flags(parser)
    group = parser.add_argument_group("measuring")
    group.add_argument(
        "--seconds", metavar="X", type=_seconds, default=DEFAULT_SECONDS, help=f"time for everything (default: {DEFAULT_SECONDS:g})"
    )
    arguments = parser.read(argv)
    config, _ = read_setting_flags(arguments)

    from distppo.envs import probe_env
    from distppo.errors import UserError
    from distppo.runtime.autotune import Tuner, proposed, search
    from distppo.runtime.cores import available_cores
    from distppo.runtime.signals import StopRequested, StopSignal

    cores, measured, left_out = available_cores(), [], 0
    print(f"{config.env.id}, {config.batch_size:,} env steps a batch, on {cores} core{'s' * (cores > 1)} of this machine", flush=True)
    print(f"{'workers':>8} {'envs x steps':>14} {'mode':<8} {'learner':<16} {'env steps/s':>12}", flush=True)
    with StopSignal() as stop, Tuner(config, probe_env(config.env), stop, arguments.seconds) as tuner:
        try:
            for layout, found in search(config, tuner.measure, cores=cores):
                if found is not None:
                    measured.append(found)
                left_out += found is None and layout not in tuner.failures
                if found is not None or layout in tuner.failures:
                    print(_line(config, layout, found), flush=True)
        except StopRequested:
            pass
    if not measured:
        raise UserError(next(iter(tuner.failures.values()), "nothing was measured"))
    if left_out:
        print(f"{left_out} more not tried: the time was up (--seconds)")
    print("\n".join(_proposal(config, measured[0], proposed(measured))))
    return 128 + stop.number if stop.number else 0


def _line(config: Config, layout: Layout, found: Measurement | None) -> str:
    """Returns the table's line; a layout that does not work has no speed."""
    envs = f"{layout.num_envs} x {config.batch_size // layout.num_envs:,}"
    learner, fps = ("-", "failed") if found is None else (found.step_name, f"{found.fps:,.0f}")
    return f"{layout.num_workers:>8} {envs:>14} {layout.mode:<8} {learner:<16} {fps:>12}"


def _proposal(config: Config, first: Measurement, best: Measurement) -> list[str]:
    """Returns what to use, as flags and as YAML."""
    layout, steps = best.layout, config.batch_size // best.layout.num_envs
    if best is first:
        return ["", f"the configured layout is as fast as any: {first.fps:,.0f} env steps/s"]
    threads = "" if layout.threads is None else f" --set learner.threads={layout.threads}"
    lines = [
        "",
        f"proposed: {best.fps:,.0f} env steps/s, {best.fps / first.fps:.2f} times the configured {first.fps:,.0f}",
        f"flags:    --num-workers {layout.num_workers} --num-envs {layout.num_envs} --num-steps {steps} --mode {layout.mode}{threads}",
        "YAML:",
        f"  rollout: {{num_workers: {layout.num_workers}, num_envs: {layout.num_envs}, num_steps: {steps}, mode: {layout.mode}}}",
    ]
    if layout.threads is not None:
        lines.append(f"  learner: {{threads: {layout.threads}}}")
    if layout.mode == "overlap" != first.layout.mode:
        lines.append("overlap learns from data one update old (staleness 1): compare returns, too")
    if layout.num_envs != first.layout.num_envs:
        lines.append("the batch is the same, in fragments of another length: short ones lean more on the critic")
    return lines


def _seconds(text: str) -> float:
    try:
        seconds = float(text)
    except ValueError:
        seconds = 0.0
    if not 1 <= seconds <= 3600:
        raise argparse.ArgumentTypeError(f"must be a number of seconds from 1 to 3600, got {text!r}")
    return seconds
