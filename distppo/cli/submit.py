"""`submit`: a training as a job on a Ray cluster."""

from __future__ import annotations

import argparse
import contextlib
import logging
import re
import shlex
import signal
import sys
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from types import FrameType
from typing import TYPE_CHECKING

from distppo.cli.parser import Parser
from distppo.cli.settings import read_setting_flags
from distppo.cli.train import train_parser
from distppo.config.trust import named_code, trust_flags
from distppo.runtime.job_request import DEFAULT_RUNS, Request, job_name, job_request

if TYPE_CHECKING:
    from distppo.config import Config
    from distppo.runtime.address import Address
    from distppo.runtime.jobs import Jobs, Outcome

DEFAULT_FILE = "cluster.yaml"
INTERRUPTED = 130


def main(argv: Sequence[str], program: str) -> int:
    """Runs the command; returns the job's exit code, 143 for a job that was stopped, 130 where Ctrl-C ended the following.

    Raises:
        UserError: an argument or a setting is wrong, or the cluster cannot be reached or does not take the job.
    """
    words = list(argv)
    split = words.index("--") if "--" in words else len(words)
    parser = _parser(program)
    arguments, command = parser.read(words[:split]), words[split + 1 :]
    _check_flags(parser, arguments, command, program)
    if arguments.logs is not None or arguments.stop is not None:
        with _cluster(arguments, up=False) as address:
            return _attend(arguments, _jobs(address), _again(arguments, program))
    request, trust = _checked_request(arguments, command, program)
    with _cluster(arguments, up=True) as address:
        jobs = _jobs(address)
        jobs.require_same_versions()
        jobs.submit(request)
        again = _again(arguments, program)
        print("\n".join(_opening_lines(request, arguments, again, trust)), flush=True)
        return 0 if arguments.no_wait else _follow(jobs, request.name, again, trust)


def _check_flags(parser: Parser, arguments: argparse.Namespace, command: Sequence[str], program: str) -> None:
    if arguments.cluster is not None and arguments.address is not None:
        parser.error(f"--cluster {arguments.cluster} and --address {arguments.address} both name the cluster: give one")
    if arguments.logs is not None and arguments.stop is not None:
        parser.error("--logs and --stop are one or the other")
    known = arguments.logs if arguments.stop is None else arguments.stop
    if known is not None and command:
        parser.error(f"what follows -- begins a job, where {known} is one already: leave one of them out")
    if known is None and not command:
        parser.error(f"what to run is missing, as in: {program} -- train --config configs/humanoid.yaml")
    if known is None and command[0] != "train":
        parser.error(f"a job runs train, got {command[0]!r}; as in: {program} -- train --config configs/humanoid.yaml")
    if arguments.name is not None and not re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9._-]{0,99}", arguments.name):
        parser.error(f"--name {arguments.name}  must be letters, digits, . _ and -, at most 100")
    if not arguments.runs.startswith(("/", "~/")):
        parser.error(f"--runs {arguments.runs}  must be a folder on the cluster, beginning with / or ~/")


def _checked_request(arguments: argparse.Namespace, command: Sequence[str], program: str) -> tuple[Request, str]:
    """Returns the job, and the flags that trust what its settings name. What is wrong with it shows here, not on the cluster.

    Raises:
        UserError: an argument or a setting is.
    """
    parser = train_parser(f"{program} -- train")
    given = parser.read(command[1:])
    if given.address is not None:
        parser.error(f"--address {given.address}: the job is on its cluster already; before the -- it says which")
    if given.dry_run:
        parser.error("--dry-run starts nothing, so there is nothing to submit; run it here")
    resume = given.resume if given.checkpoint is None else given.checkpoint
    _require_sent(given.config, parser)
    config, _ = read_setting_flags(given, check=resume is None)
    if config.run.directory is not None and not config.run.directory.startswith("/") and "://" not in config.run.directory:
        parser.error(
            f"run.directory {config.run.directory} would end with the job's copy of the files; give a path on the cluster, or --runs"
        )

    from distppo.runtime.run_directory import run_name

    if resume is None:
        _require_env(config)
    stamped = run_name(config) if resume is None else f"{Path(resume).name}-{time.strftime('%Y%m%d-%H%M%S')}"
    request = job_request(
        command[1:],
        name=arguments.name or job_name(stamped),
        run=resume or config.run.directory,
        runs=arguments.runs,
        python=arguments.python,
        sources=Path.cwd(),
    )
    return request, trust_flags(named_code(config))


def _require_sent(files: Sequence[str], parser: Parser) -> None:
    for file in files:
        if Path(file).is_absolute() or ".." in Path(file).parts:
            parser.error(f"--config {file}: the job sees what is below the current folder alone, under its relative path; give that")


def _require_env(config: Config) -> None:
    from distppo.envs import probe_env
    from distppo.models.acting import checked_network

    checked_network(probe_env(config.env), config.network)


@contextlib.contextmanager
def _cluster(arguments: argparse.Namespace, *, up: bool) -> Iterator[Address]:
    """Yields the address of the dashboard, which is there while the block runs."""
    if arguments.cluster is None:
        from distppo.runtime.jobs import dashboard_address

        yield dashboard_address(arguments.address)
        return
    from distppo.runtime.launcher import bring_up, read_cluster_file, require_launchable, tunnel

    path = Path(arguments.cluster)
    require_launchable(path, read_cluster_file(path))
    if up:
        bring_up(path)
    with tunnel(path) as address:
        yield address


def _jobs(address: Address) -> Jobs:
    from distppo.runtime.jobs import Jobs

    logging.disable(logging.INFO)  # Ray's client tells every upload and every connection
    return Jobs(address)


def _attend(arguments: argparse.Namespace, jobs: Jobs, again: str) -> int:
    """Shows or stops a job that was submitted before."""
    name = arguments.logs if arguments.stop is None else arguments.stop
    run = jobs.run_of(name)
    if arguments.stop is None:
        if not arguments.no_wait:
            return _follow(jobs, name, again, "")
        sys.stdout.write(jobs.logs(name))
        return 0
    print(f"stopping {name}: it saves a checkpoint first", flush=True)
    outcome = jobs.stop(name)
    print(f"{outcome.status.lower()}: {name}")
    if run and outcome.code:
        print(f"continue with:   {again} -- train --resume {shlex.quote(run)}")
    return 0


def _follow(jobs: Jobs, name: str, again: str, trust: str) -> int:
    """Shows a job's log until it has ended, or Ctrl-C; returns its exit code."""

    def show(text: str) -> None:
        sys.stdout.write(text)
        sys.stdout.flush()

    try:
        with _signals_interrupt():
            outcome = jobs.follow(name, show)
    except KeyboardInterrupt:
        print(f"\nleft: {name} goes on. --logs {name} shows it again, --stop {name} stops it", flush=True)
        return INTERRUPTED
    run = jobs.run_of(name)
    print("\n".join(_closing_lines(outcome, name, run, again, trust)))
    return outcome.code


@contextlib.contextmanager
def _signals_interrupt() -> Iterator[None]:
    """Has SIGTERM and SIGHUP do what Ctrl-C does, so that the tunnel is closed."""

    def interrupt(number: int, frame: FrameType | None) -> None:
        raise KeyboardInterrupt

    before = {number: signal.signal(number, interrupt) for number in (signal.SIGTERM, signal.SIGHUP)}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def _again(arguments: argparse.Namespace, program: str) -> str:
    """Returns the beginning of a command for the same cluster."""
    flags = [word for name in ("cluster", "address") if (value := getattr(arguments, name)) for word in (f"--{name}", value)]
    flags += ["--runs", arguments.runs] if arguments.runs != DEFAULT_RUNS else []
    flags += ["--python", arguments.python] if arguments.python != "python" else []
    return " ".join([program, *map(shlex.quote, flags)])


def _opening_lines(request: Request, arguments: argparse.Namespace, again: str, trust: str) -> list[str]:
    place = request.run if "/" in request.run else f"{arguments.runs}/{request.run}"
    return [
        f"submitted: {request.name}",
        f"run directory:   {place}, on the cluster",
        f"follow it with:  {again} --logs {request.name}",
        f"stop it with:    {again} --stop {request.name}",
        f"continue with:   {again} -- train --resume {shlex.quote(request.run)}{trust}",
        *([] if arguments.no_wait else ["its output follows; Ctrl-C leaves it running", ""]),
    ]


def _closing_lines(outcome: Outcome, name: str, run: str | None, again: str, trust: str) -> list[str]:
    if not outcome.code:
        return [f"finished: {name}"]
    reason = f", exit code {outcome.code}" if not outcome.message else f": {outcome.message}"
    lines = [f"failed: {name}{reason}" if outcome.status == "FAILED" else f"stopped: {name}"]
    return lines + ([f"continue with:   {again} -- train --resume {shlex.quote(run)}{trust}"] if run else [])


def _parser(program: str) -> Parser:
    description = (
        "Trains on a Ray cluster: sends the files of this folder, starts the training there as a job and shows its output. The job goes on "
        "if this command ends. Settings are checked here first."
    )
    parser = Parser(program, "[FLAGS] -- train ...", description)
    group = parser.add_argument_group("cluster")
    group.add_argument(
        "--cluster", nargs="?", const=DEFAULT_FILE, metavar="FILE",
        help=f"file of Ray's cluster launcher; starts the cluster, or brings it up to date (without a value: {DEFAULT_FILE})",
    )  # fmt: skip
    group.add_argument(
        "--address", metavar="URL",
        help="dashboard of a running cluster, as in http://HOST:8265 (default: RAY_API_SERVER_ADDRESS, else this machine's)",
    )  # fmt: skip
    group = parser.add_argument_group("job")
    group.add_argument("--name", metavar="NAME", help="of the job and its run (default: environment, seed and time)")
    group.add_argument(
        "--runs", metavar="FOLDER", default=DEFAULT_RUNS, help=f"folder of the runs on the cluster (default: {DEFAULT_RUNS})"
    )
    group.add_argument("--python", metavar="COMMAND", default="python", help="interpreter on the cluster (default: python)")
    group.add_argument("--no-wait", action="store_true", help="do not follow its output; with --logs: what there is so far")
    group = parser.add_argument_group("a job that was submitted")
    group.add_argument("--logs", metavar="NAME", help="show its output, and follow it to its end")
    group.add_argument("--stop", metavar="NAME", help="have it save a checkpoint and end")
    return parser
