"""Runs a search: Ray, Tune with our trials in it, the records, and what is written at the end."""

from __future__ import annotations

import contextlib
import logging
import os
import shutil
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

from distppo.config import dump_config
from distppo.envs import probe_env
from distppo.errors import ResourceError, UserError
from distppo.files import write_atomic
from distppo.models.acting import checked_network
from distppo.plugins import search_path
from distppo.runtime.address import find_cluster
from distppo.runtime.run_directory import RunDirectory, free_name
from distppo.runtime.signals import StopRequested, StopSignal
from distppo.runtime.tune.records import BASE_FILE, RUNNING, SPACE_FILE, Records, read_results, trial_name
from distppo.runtime.tune.request import Request, trial_config

TUNE_DIRECTORY = "ray"
"""What Tune keeps for itself while a search runs: pickles, which nothing here ever reads again, and checkpoints on their way."""
ENVIRONMENT = {
    "TUNE_DISABLE_AUTO_CALLBACK_LOGGERS": "1",
    "TUNE_DISABLE_SIGINT_HANDLER": "1",
    "TUNE_PRINT_ALL_TRIAL_ERRORS": "0",
    "TUNE_WARN_INSUFFICENT_RESOURCE_THRESHOLD_S": "1000000",
    "TUNE_GLOBAL_CHECKPOINT_S": "1000000",
    "RAY_AIR_NEW_OUTPUT": "0",
}
"""Tune writes no logs of its own, leaves signals to us, and keeps quiet about what we tell better."""
RETRIES = 1
"""Of a trial whose process has died; it goes on from its last checkpoint."""


class SearchResult(NamedTuple):
    """How a search ended.

    Attributes:
        records: of the trials.
        signal: that ended it, or None.
    """

    records: Records
    signal: int | None


def run_search(request: Request, records: Records, directory: Path, *, continued: bool, say: Callable[[str], None]) -> SearchResult:
    """Runs the trials that are left, and writes what they have reached.

    Args:
        request: what is asked for, as `require_sound` has found it.
        records: of the trials that there are.
        directory: of the search.
        continued: whether the directory's own search goes on.
        say: takes a line for people.

    Raises:
        UserError: the request cannot be carried out; nothing was started.
        ResourceError: there are too few CPUs for a single trial.
    """
    with StopSignal() as stop:
        example = trial_config(request.base, request.found.space.drawn(request.config.run.seed, 0))
        env = probe_env(example.env)
        checked_network(env, example.network)
        address = find_cluster(request.address)
        with RunDirectory(directory, continued=continued):
            if continued and read_results(directory).records != list(records.by_number.values()):
                raise UserError(f"{directory} has been gone on with while this was starting; give the same command again")
            _write_down(request, directory)
            records.write()
            with contextlib.suppress(StopRequested):
                _run(request, records, directory, env, address, stop, say)
            records.write()
            records.write_outcome()
    return SearchResult(records, stop.number if not records.complete else None)


def _write_down(request: Request, directory: Path) -> None:
    """Keeps config and space, for whoever goes on with the search."""
    try:
        write_atomic(directory / BASE_FILE, dump_config(request.config).encode())
        if request.file.resolve() != (directory / SPACE_FILE).resolve():
            write_atomic(directory / SPACE_FILE, request.file.read_bytes())
    except OSError as error:
        raise UserError(f"{directory}: {error.strerror or error}; choose another with --run-dir") from error


def _run(request: Request, records: Records, directory: Path, env: Any, address: Any, stop: StopSignal, say: Callable[[str], None]) -> None:
    os.environ.update(ENVIRONMENT)
    # Here and not above: importing Ray and Tune takes seconds, which no mistake should cost.
    import ray

    from distppo.runtime import cluster

    started = not ray.is_initialized()
    shutil.rmtree(directory / TUNE_DIRECTORY, ignore_errors=True)  # of a search that was killed
    try:
        if started:
            cluster.connect(request.base, env, address, stop, runs=request.places)
        needed = cluster.needed_resources(request.base, request.workers)
        cluster.require(needed, "--workers-per-trial")
        with _quiet():
            _fit(request, records, directory, stop, say)
    finally:
        if started:
            ray.shutdown()
        shutil.rmtree(directory / TUNE_DIRECTORY, ignore_errors=True)


def _fit(request: Request, records: Records, directory: Path, stop: StopSignal, say: Callable[[str], None]) -> None:
    from ray import tune

    from distppo.runtime.tune.schedulers import make_scheduler
    from distppo.runtime.tune.trial import JOB, NUMBER, Job, TrainingTrial
    from distppo.runtime.tune.watch import Ending, Watch

    resumed = [record for record in records.by_number.values() if record.state == RUNNING]
    first = max(records.by_number, default=-1) + 1
    left = range(first, first + max(0, request.trials - len(records.by_number)))
    if not resumed and not left:
        return
    drawn = {number: request.found.space.drawn(request.config.run.seed, number) for number in left}
    drawn |= {record.number: record.settings for record in resumed}
    job = Job(request.base, str(directory.resolve()), request.found.metric, drawn, search_path())
    searcher: Any = None
    if request.search == "optuna":
        from distppo.runtime.tune.suggest import OptunaSearch

        searcher = OptunaSearch(records, job, resumed)
    numbers = [record.number for record in resumed] + list(left)
    space = {} if searcher else {JOB: job, NUMBER: tune.grid_search(numbers)}
    watch = Watch(records, say, stop)
    tuner = tune.Tuner(
        TrainingTrial,
        param_space=space,
        tune_config=tune.TuneConfig(
            scheduler=make_scheduler(request, records),
            search_alg=searcher,
            num_samples=len(numbers) if searcher else 1,
            # A population is alive as a whole and takes turns; how many train at a time is then a matter of CPUs.
            max_concurrent_trials=None if request.scheduler == "pbt" else _concurrent(request),
            # The next trial gets the process of one that has ended, with everything imported already.
            reuse_actors=True,
            trial_name_creator=lambda trial: trial_name(trial.config[NUMBER]),
            trial_dirname_creator=lambda trial: trial_name(trial.config[NUMBER]),
        ),
        run_config=tune.RunConfig(
            name=TUNE_DIRECTORY,
            storage_path=str(directory.resolve()),
            stop=Ending(watch, records, stop),
            callbacks=[watch],
            verbose=0,
            failure_config=tune.FailureConfig(max_failures=RETRIES),
            checkpoint_config=tune.CheckpointConfig(num_to_keep=4),
        ),
    )
    stop.check()
    tuner.fit()
    if watch.starved is not None:
        raise ResourceError(watch.starved)


def _concurrent(request: Request) -> int:
    """Returns how many trials are alive at a time."""
    import ray

    from distppo.runtime import cluster

    if request.address is None or request.max_concurrent is not None:
        return request.places
    needed = cluster.needed_resources(request.base, request.workers)["CPU"]
    return max(1, min(request.trials, int(ray.cluster_resources().get("CPU", 1) // needed)))


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """Keeps Tune's own messages, which are about its Python interface, from the terminal."""
    loggers = [logging.getLogger(name) for name in ("ray.tune", "ray.train", "ray.air")]
    levels = [logger.level for logger in loggers]
    for logger in loggers:
        logger.setLevel(logging.CRITICAL)
    try:
        yield
    finally:
        for logger, level in zip(loggers, levels, strict=True):
            logger.setLevel(level)


def new_search_directory(request: Request, root: Path) -> Path:
    """Returns a free name under runs/, or what run.directory says."""
    if request.config.run.directory:
        return Path(request.config.run.directory).expanduser()
    env = "".join(c if c.isalnum() or c in "._-" else "_" for c in request.config.env.id)
    return free_name(root / f"tune-{env}-{time.strftime('%Y%m%d-%H%M%S')}")
