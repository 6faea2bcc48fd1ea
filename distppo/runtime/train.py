"""Trains a policy: what `launch.py train` and `distppo.train` call."""

from __future__ import annotations

import contextlib
import os
import time
from collections.abc import Callable, Generator, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from distppo.checkpoint import Checkpoint, CheckpointStore, best_checkpoint
from distppo.config import Config, Overrides, dump_config
from distppo.config.load import Paths
from distppo.config.trust import named_code, resume_flags
from distppo.console import Display, make_display
from distppo.envs import probe_env
from distppo.errors import EnvFaultError, UserError
from distppo.evaluation.restore import env_spec_of, progress_of
from distppo.evaluation.subject import require_same_spaces
from distppo.files import write_atomic
from distppo.flight import FlightRecorder
from distppo.metrics import METRICS_FILE, SUMMARY_FILE, Forwarder, RunWriter, machine_info, read_metrics, require_loggers, write_summary
from distppo.models.acting import checked_network
from distppo.runtime.address import Address, find_cluster
from distppo.runtime.backend import Backend, LocalBackend, WorkerFailed
from distppo.runtime.boundary import other_layout, other_learners
from distppo.runtime.callbacks import Callbacks
from distppo.runtime.faults import Crash, FaultLog, News, Recovery, fault_text
from distppo.runtime.remarks import remarks
from distppo.runtime.run_directory import CONFIG_FILE, RunDirectory, new_run_directory
from distppo.runtime.signals import StopRequested, StopSignal
from distppo.runtime.start import Start, fresh, read_settings, restored_learner, resumed
from distppo.runtime.trainer import Progress, Trainer
from distppo.runtime.uploads import Uploads, open_uploads
from distppo.types import EnvSpec


class TrainResult(NamedTuple):
    """How a run ended.

    Attributes:
        run_directory: holds config.yaml, metrics.jsonl, progress.csv, TensorBoard events, checkpoints/ and summary.json.
        summary: what summary.json holds.
        signal: number of the signal that ended the run early, or None.
        code: the `module:Name`s in its settings, which have to be named again to go on with it.
        storage: run.storage, which has to be named again too.
    """

    run_directory: Path
    summary: dict[str, Any]
    signal: int | None
    code: tuple[str, ...] = ()
    storage: str | None = None

    @property
    def metrics(self) -> list[dict[str, Any]]:
        """The rows of metrics.jsonl, one an iteration, by the keys of docs/metrics.md; read when asked for."""
        return read_metrics(self.run_directory / METRICS_FILE)

    @property
    def best_checkpoint(self) -> Path | None:
        """Directory of the checkpoint with the best evaluation; None if none was evaluated."""
        best = best_checkpoint(self.run_directory)
        return best.path if best else None


class Iteration(NamedTuple):
    """What has just been learned from, and what may be asked of the run before it goes on.

    Attributes:
        row: its metrics, by the keys of docs/metrics.md.
        save: checkpoints the state after it, if that has not been done.
        stop: has the run end here, in order; takes the reason, for people.
    """

    row: Mapping[str, Any]
    save: Callable[[], None]
    stop: Callable[[str], None]


def train(
    config: Config | Paths | None = None,
    *,
    resume: str | os.PathLike[str] | None = None,
    address: str | None = None,
    trust: Sequence[str] = (),
    progress: bool | None = None,
    overrides: Overrides | Mapping[str, Any] | None = None,
    **settings: Any,
) -> TrainResult:
    """Trains until `run.total_timesteps` or a signal; leaves no process behind, however it ends.

    Args:
        config: settings, or YAML files with them, the later counting; None takes the defaults. Not used when resuming.
        resume: `latest`, a run directory or a checkpoint to continue; its config is the base for the overrides. A run without a
            checkpoint starts again.
        address: of a running Ray cluster; None takes that of RAY_ADDRESS, else starts Ray on this machine (none at all with
            rollout.num_workers 0).
        trust: `module:Name`s that may be loaded although the checkpoint to continue names them; what `config`, `overrides` and `settings`
            name may anyway.
        progress: live display; None decides by the terminal, False prints plain lines.
        overrides: settings given explicitly, by full name: {"ppo.gamma": 0.98}.
        settings: the same by bare field name: num_envs=16.

    Raises:
        UserError: something the user can put right; nothing was trained, or training ended with its checkpoints intact.

    Example:
        >>> result = train("configs/quickstart.yaml", total_timesteps=100_000)  # doctest: +SKIP
        >>> result.summary["episode_return_mean"]  # doctest: +SKIP
    """
    steps = iterations(config, resume=resume, address=address, trust=trust, progress=progress, overrides=overrides, **settings)
    while True:
        try:
            next(steps)
        except StopIteration as end:
            result: TrainResult = end.value
            return result


def iterations(
    config: Config | Paths | None = None,
    *,
    resume: str | os.PathLike[str] | None = None,
    address: str | None = None,
    trust: Sequence[str] = (),
    progress: bool | None = None,
    overrides: Overrides | Mapping[str, Any] | None = None,
    **settings: Any,
) -> Generator[Iteration, None, TrainResult]:
    """Trains as `train` does, one iteration each time that it is asked for the next; arguments, errors and the value returned are the same.

    Whoever begins it goes on to its end, if need be by `stop`: the processes end with it.
    """
    with StopSignal() as stop:
        resolved, given = read_settings(config, overrides, settings, check=resume is None)
        while True:
            start = fresh(resolved) if resume is None else resumed(os.fspath(resume), given, {*trust, *named_code(resolved)})
            start = start._replace(origins=given.origins())
            if address and start.config.rollout.num_workers == 0:
                raise UserError(f"--address {address} needs Ray, which rollout.num_workers 0 does without; leave one of them out")
            if start.checkpoint is not None and _is_finished(start, start.checkpoint):
                return _nothing_left(start.checkpoint, start.config)
            callbacks = Callbacks(start.config.run.callbacks)
            env = _probed(start)
            stop.catch()  # its constructor may have put handlers of its own in their place
            cluster = find_cluster(address) if start.config.rollout.num_workers != 0 else None
            with RunDirectory(start.directory or new_run_directory(start.config), continued=start.continued) as directory:
                if not start.is_outdated():
                    return (yield from _run(start, directory.path, env, cluster, callbacks, progress, stop))
            # Whoever trained in it until now, as a job that is being requeued does, has saved once more while this one was starting.


def _probed(start: Start) -> EnvSpec:
    """Returns what the environment is like, after all that can be refused before anything is started; adds to the notes."""
    require_loggers(start.config.metrics)
    if start.config.env.check:
        # Here and not above: Gymnasium's checker takes a while to import, and few runs ask for it.
        from distppo.envs.check import require_sound

        start.notes.extend(["env.check:", *require_sound(start.config.env)])
    env = probe_env(start.config.env)
    if start.checkpoint is not None:
        require_same_spaces(env_spec_of(start.checkpoint), env, start.checkpoint.path)
    start.notes.append(checked_network(env, start.config.network))
    if env.max_episode_steps is None and start.config.evaluation.every > 0:
        start.notes.append(
            f"{env.id} has no time limit: an evaluation episode that never ends would end the run; see env.max_episode_steps"
        )
    return env


def _is_finished(start: Start, checkpoint: Checkpoint) -> bool:
    """Whether a run has its total, no evaluation of it is pending, and `best` points to its last policy if that is the best."""
    progress = Progress.from_state(progress_of(checkpoint))
    if progress.env_steps < start.config.run.total_timesteps or (progress.unevaluated and start.config.evaluation.every > 0):
        return False
    if not start.continued or (progress.best_evaluation or {}).get("env_steps") != progress.env_steps:
        return True
    best = best_checkpoint(checkpoint.path.parent.parent)
    return best is not None and best.path.name == checkpoint.path.name


def _nothing_left(checkpoint: Checkpoint, config: Config) -> TrainResult:
    """Says that a run has reached its total; nothing is started and nothing written."""
    directory = checkpoint.path.parent.parent
    with make_display(progress=False) as display:
        display.message(
            f"{checkpoint.path} has {checkpoint.env_steps:,} env steps, its total is {config.run.total_timesteps:,}: "
            "nothing is left to do; raise --total-timesteps to train on"
        )
    return TrainResult(directory, _summary(config, directory, Progress.from_state(progress_of(checkpoint)), {}, FaultLog()), None)


def _run(
    start: Start, directory: Path, env: EnvSpec, cluster: Address | None, callbacks: Callbacks, live: bool | None, stop: StopSignal
) -> Generator[Iteration, None, TrainResult]:
    config, checkpoint = start.config, start.checkpoint
    progress = Progress.from_state(progress_of(checkpoint)) if checkpoint else Progress()
    if not start.continued:
        progress.best_evaluation = None  # the best checkpoint stays where it is; here the next one is
    with make_display(progress=live, findings=remarks(config)) as display:
        display.start(f"{config.env.id} -> {directory}", total=config.run.total_timesteps, initial=progress.env_steps)
        for note in start.notes:
            display.message(note)
        store = _opened(directory, config)
        uploads = open_uploads(config, directory)
        parts = "the learner" if config.rollout.num_workers == 0 else "Ray, workers and learner"
        display.message(f"starting {parts} (longer the first time, when the learner's step is compiled)")
        began = time.perf_counter()
        faults, recorder = FaultLog(), FlightRecorder(directory, config, env)
        resumed_from = progress.env_steps if start.continued else None
        forwarder = Forwarder(config.metrics, directory, failed=lambda name, why: _logger_failed(faults, name, why), say=display.message)
        with (
            _processes(start, directory, env, cluster, progress.iteration, stop, faults) as backend,
            contextlib.closing(uploads) if uploads is not None else contextlib.nullcontext(),
            # Opened while the processes start: what TensorBoard's files need takes a second to import.
            RunWriter(
                directory,
                resume_env_steps=resumed_from,
                refused=lambda error: _metrics_refused(faults, directory, error),
                forwarder=forwarder,
            ) as writer,
        ):
            with contextlib.suppress(OSError):
                (directory / SUMMARY_FILE).unlink()  # of an earlier process: the run has not ended after all
            writer.event("started", env_steps=progress.env_steps, machine=machine_info(), notes=start.notes, origins=start.origins)
            faults.listen(lambda news: _tell(news, progress, writer, display, recorder))
            with _told(progress, writer, display, store, recorder, resume_flags(named_code(config), config.run.storage)):
                callbacks.attach(config, directory)
                details = yield from _train(start, env, backend, progress, writer, display, store, uploads, faults, callbacks)
            details["wall_seconds"] = time.perf_counter() - began
            finished = progress.env_steps >= config.run.total_timesteps and progress.unevaluated is None
            number = None if finished else stop.number
            reason = None if finished or number else callbacks.stop_reason
            summary = _summary(config, directory, progress, {"stop_reason": reason, **details}, faults)
            try:
                write_summary(directory, summary)
            except OSError as error:
                display.message(f"warning: {directory / SUMMARY_FILE} could not be written: {error}")
            ended = "finished" if finished else "interrupted" if reason is None else "stopped"
            writer.event(ended, env_steps=progress.env_steps, signal=number, reason=reason)
            callbacks.call("on_end", summary, iteration=progress.iteration, env_steps=progress.env_steps)
    return TrainResult(directory, summary, number, tuple(named_code(config)), config.run.storage)


def _opened(directory: Path, config: Config) -> CheckpointStore:
    """Writes down the settings and opens the checkpoints.

    Raises:
        UserError: the disk refuses.
    """
    try:
        write_atomic(directory / CONFIG_FILE, dump_config(config).encode())
        return CheckpointStore(directory, config.run.keep_checkpoints)
    except OSError as error:
        raise UserError(f"run directory {directory}: {error.strerror or error}; free space, or choose another with --run-dir") from error


def _metrics_refused(faults: FaultLog, directory: Path, error: OSError) -> None:
    faults.record("metrics_failed", str(directory), error.strerror or str(error), "kept in memory until the disk takes them")


def _logger_failed(faults: FaultLog, name: str, why: str) -> None:
    faults.record("logger_failed", name, why, "training goes on without it; the run directory has everything")


def _tell(news: News, progress: Progress, writer: RunWriter, display: Display, recorder: FlightRecorder) -> None:
    """Writes a fault, or the end of one, into metrics.jsonl and onto the display."""
    if isinstance(news, Recovery):
        writer.event("recovered", env_steps=progress.env_steps, where=news.where, seconds=news.seconds)
        display.message(f"recovered: {news.where}, after {news.seconds:.1f} s")
        return
    fault = news.fault if isinstance(news, Crash) else news
    dump = recorder.record_fragment(*news) if isinstance(news, Crash) else recorder.record_environment(fault)
    told = {"what": fault.kind, "where": fault.where, "why": fault.why, "done": fault.done, "count": fault.times}
    writer.event("fault", env_steps=progress.env_steps, **told, dump=None if dump is None else str(dump))
    display.message(fault_text(fault.kind, fault.where, fault.why, fault.done))


@contextlib.contextmanager
def _processes(
    start: Start, directory: Path, env: EnvSpec, cluster: Address | None, first_iteration: int, stop: StopSignal, faults: FaultLog
) -> Iterator[Backend | None]:
    """Starts workers and learner, without waiting for them, and ends them on every path; yields None if asked to stop before."""
    try:
        backend = _backend(start, directory, env, cluster, first_iteration, stop, faults)
    except StopRequested:
        backend = None
    try:
        yield backend
    finally:
        if backend is not None:
            backend.close()


@contextlib.contextmanager
def _told(
    progress: Progress, writer: RunWriter, display: Display, store: CheckpointStore, recorder: FlightRecorder, flags: str
) -> Iterator[None]:
    """Notes an error of the block, its flight record, and where one can go on from."""
    try:
        yield
    except BaseException as error:
        cause = error.__cause__ if isinstance(error, WorkerFailed) else error
        dump = recorder.record_environment(cause.fault) if isinstance(cause, EnvFaultError) and cause.fault is not None else None
        with contextlib.suppress(OSError):  # what ended the run may be the disk
            written = None if dump is None else str(dump)
            writer.event("error", kind=type(error).__name__, message=str(error), env_steps=progress.env_steps, dump=written)
        if dump is not None:
            display.message(f"flight record: {dump}; the command replay steps to the fault")
        if (latest := store.latest()) is not None:
            kept = f"the last checkpoint is {latest.path}, --resume {store.run_directory}{flags} goes on from it"
            display.message(f"ended by an error at {progress.env_steps:,} env steps; {kept}")
        raise


def _train(
    start: Start,
    env: EnvSpec,
    backend: Backend | None,
    progress: Progress,
    writer: RunWriter,
    display: Display,
    store: CheckpointStore,
    uploads: Uploads | None,
    faults: FaultLog,
    callbacks: Callbacks,
) -> Generator[Iteration, None, dict[str, Any]]:
    """Trains when the processes are ready; returns what the summary says of how it ran."""
    steps_before = progress.env_steps
    try:
        if backend is None:
            raise StopRequested
        backend.wait_until_ready()
    except StopRequested:
        return {"env_steps_per_second": None}
    display.message(f"{backend.description}; learner step: {backend.step_name}")
    writer.event("ready", description=backend.description, step=backend.step_name)
    layout = other_layout(start.boundary, backend.num_workers), other_learners(start.checkpoint, start.config.learner.num_learners)
    for other in filter(None, layout):
        display.message(other)
        writer.event("layout_changed", message=other)
    saved = start.continued and start.checkpoint is not None
    trainer = Trainer(
        start.config,
        env,
        backend,
        progress,
        writer=writer,
        display=display,
        store=store,
        faults=faults,
        callbacks=callbacks,
        boundary=start.boundary,
        uploads=uploads,
        saved=saved,
    )
    training = time.perf_counter()
    for row in trainer.run():
        yield Iteration(row, trainer.save, callbacks.stop)
    seconds = time.perf_counter() - training
    return {
        "training_seconds": seconds,
        "env_steps_per_second": (progress.env_steps - steps_before) / seconds,
        "num_workers": backend.num_workers,
        "step": backend.step_name,
    }


def _backend(
    start: Start, directory: Path, env: EnvSpec, cluster: Address | None, first_iteration: int, stop: StopSignal, faults: FaultLog
) -> Backend:
    restored, states = restored_learner(start), start.boundary.states
    if start.config.rollout.num_workers == 0:
        return LocalBackend(start.config, env, first_iteration=first_iteration, restored=restored, states=states, stop=stop)
    # Here and not above: without workers Ray is not imported at all.
    from distppo.runtime.ray_backend import RayBackend

    return RayBackend(
        start.config,
        env,
        first_iteration=first_iteration,
        restored=restored,
        states=states,
        address=cluster,
        stop=stop,
        faults=faults,
        directory=directory,
    )


def _summary(config: Config, directory: Path, progress: Progress, details: Mapping[str, Any], faults: FaultLog) -> dict[str, Any]:
    has_episodes = len(progress.episodes) > 0
    best = best_checkpoint(directory)
    return {
        "env": config.env.id,
        "seed": config.run.seed,
        "env_steps": progress.env_steps,
        "iterations": progress.iteration,
        "episode_return_first": progress.first_return,
        "episode_return_mean": progress.episodes.mean_return if has_episodes else None,
        "episode_length_mean": progress.episodes.mean_length if has_episodes else None,
        "best_evaluation": progress.best_evaluation,
        "best_checkpoint": str(best.path) if best else None,
        "faults": {name.removeprefix("faults/"): count for name, count in faults.counts.items()},
        **details,
        **machine_info(),
    }
