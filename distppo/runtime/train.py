"""Trains a policy: what `launch.py train` and `distppo.train` call."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Collection, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from distppo.checkpoint import Checkpoint, CheckpointStore, best_checkpoint
from distppo.config import Config, Overrides, dump_config
from distppo.config.trust import named_code, trust_flags
from distppo.console import Display, make_display
from distppo.envs import probe_env
from distppo.errors import UserError
from distppo.evaluation.evaluate import require_same_spaces
from distppo.evaluation.restore import env_spec_of, learner_state_of, progress_of
from distppo.files import write_atomic
from distppo.metrics import RunWriter, machine_info, write_summary
from distppo.runtime.address import Address, find_cluster
from distppo.runtime.backend import Backend, LocalBackend
from distppo.runtime.run_directory import CONFIG_FILE, RunDirectory, new_run_directory
from distppo.runtime.signals import StopRequested, StopSignal
from distppo.runtime.start import Start, fresh, read_settings, resumed
from distppo.runtime.trainer import Progress, Trainer
from distppo.types import EnvSpec


class TrainResult(NamedTuple):
    """How a run ended.

    Attributes:
        run_directory: holds config.yaml, metrics.jsonl, progress.csv, TensorBoard events, checkpoints/ and summary.json.
        summary: what summary.json holds.
        signal: number of the signal that ended the run early, or None.
        code: the `module:Name`s in its settings, which have to be named again to go on with it.
    """

    run_directory: Path
    summary: dict[str, Any]
    signal: int | None
    code: tuple[str, ...] = ()


def train(
    config: Config | str | Path | None = None,
    *,
    resume: str | None = None,
    address: str | None = None,
    trust: Sequence[str] = (),
    progress: bool | None = None,
    overrides: Overrides | Mapping[str, Any] | None = None,
    **settings: Any,
) -> TrainResult:
    """Trains until `run.total_timesteps` or a signal; leaves no process behind, however it ends.

    Args:
        config: settings, or a YAML file with them; None takes the defaults. Not used when resuming.
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
    with StopSignal() as stop:
        resolved, given = read_settings(config, overrides, settings, check=resume is None)
        start = fresh(resolved) if resume is None else resumed(resume, given, {*trust, *named_code(resolved)})
        if address and start.config.rollout.num_workers == 0:
            raise UserError(f"--address {address} needs Ray, which rollout.num_workers 0 does without; leave one of them out")
        if start.checkpoint is not None and start.checkpoint.env_steps >= start.config.run.total_timesteps:
            return _nothing_left(start.checkpoint, start.config)
        env = probe_env(start.config.env)
        if start.checkpoint is not None:
            require_same_spaces(env_spec_of(start.checkpoint), env, start.checkpoint.path)
        cluster = find_cluster(address) if start.config.rollout.num_workers != 0 else None
        with RunDirectory(start.directory or new_run_directory(start.config), continued=start.continued) as directory:
            return _run(start, directory.path, env, cluster, progress, stop)


def _nothing_left(checkpoint: Checkpoint, config: Config) -> TrainResult:
    """Says that a run has reached its total; nothing is started and nothing written."""
    directory = checkpoint.path.parent.parent
    with make_display(progress=False) as display:
        display.message(
            f"{checkpoint.path} has {checkpoint.env_steps:,} env steps, its total is {config.run.total_timesteps:,}: "
            "nothing is left to do; raise --total-timesteps to train on"
        )
    return TrainResult(directory, _summary(config, directory, Progress.from_state(progress_of(checkpoint)), {}), None)


def _run(start: Start, directory: Path, env: EnvSpec, cluster: Address | None, live: bool | None, stop: StopSignal) -> TrainResult:
    config, checkpoint = start.config, start.checkpoint
    progress = Progress.from_state(progress_of(checkpoint)) if checkpoint else Progress()
    if not start.continued:
        progress.best_evaluation = None  # the best checkpoint stays where it is; here the next one is
    with make_display(progress=live) as display:
        display.start(f"{config.env.id} -> {directory}", total=config.run.total_timesteps, initial=progress.env_steps)
        for note in start.notes:
            display.message(note)
        write_atomic(directory / CONFIG_FILE, dump_config(config).encode())
        store = CheckpointStore(directory, config.run.keep_checkpoints)
        parts = "the learner" if config.rollout.num_workers == 0 else "Ray, workers and learner"
        display.message(f"starting {parts} (longer the first time, when the learner's step is compiled)")
        began = time.perf_counter()
        with (
            _processes(start, env, cluster, progress.iteration, stop) as backend,
            # Opened while the processes start: what TensorBoard's files need takes a second to import.
            RunWriter(directory, resume_env_steps=progress.env_steps if start.continued else None) as writer,
        ):
            writer.event("started", env_steps=progress.env_steps, machine=machine_info(), notes=start.notes)
            with _told(progress, writer, display, store, named_code(config)):
                details = _train(start, env, backend, progress, writer, display, store)
            details["wall_seconds"] = time.perf_counter() - began
            finished = progress.env_steps >= config.run.total_timesteps
            number = None if finished else stop.number
            summary = _summary(config, directory, progress, details)
            write_summary(directory, summary)
            writer.event("finished" if finished else "interrupted", env_steps=progress.env_steps, signal=number)
    return TrainResult(directory, summary, number, tuple(named_code(config)))


@contextlib.contextmanager
def _processes(start: Start, env: EnvSpec, cluster: Address | None, first_iteration: int, stop: StopSignal) -> Iterator[Backend | None]:
    """Starts workers and learner, without waiting for them, and ends them on every path; yields None if asked to stop before."""
    try:
        backend = _backend(start, env, cluster, first_iteration, stop)
    except StopRequested:
        backend = None
    try:
        yield backend
    finally:
        if backend is not None:
            backend.close()


@contextlib.contextmanager
def _told(progress: Progress, writer: RunWriter, display: Display, store: CheckpointStore, code: Collection[str]) -> Iterator[None]:
    """Notes an error of the block, and where one can go on from."""
    try:
        yield
    except BaseException as error:
        with contextlib.suppress(OSError):  # what ended the run may be the disk
            writer.event("error", kind=type(error).__name__, message=str(error), env_steps=progress.env_steps)
        if (latest := store.latest()) is not None:
            command = " ".join(["--resume", str(store.run_directory), *([trust_flags(code)] if code else [])])
            kept = f"the last checkpoint is {latest.path}, {command} goes on from it"
            display.message(f"ended by an error at {progress.env_steps:,} env steps; {kept}")
        raise


def _train(
    start: Start, env: EnvSpec, backend: Backend | None, progress: Progress, writer: RunWriter, display: Display, store: CheckpointStore
) -> dict[str, Any]:
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
    saved = start.continued and start.checkpoint is not None
    trainer = Trainer(start.config, env, backend, progress, writer=writer, display=display, store=store, saved=saved)
    training = time.perf_counter()
    trainer.run()
    seconds = time.perf_counter() - training
    return {
        "training_seconds": seconds,
        "env_steps_per_second": (progress.env_steps - steps_before) / seconds,
        "num_workers": backend.num_workers,
        "step": backend.step_name,
    }


def _backend(start: Start, env: EnvSpec, cluster: Address | None, first_iteration: int, stop: StopSignal) -> Backend:
    restored = learner_state_of(start.checkpoint) if start.checkpoint else None
    if start.config.rollout.num_workers == 0:
        return LocalBackend(start.config, env, first_iteration=first_iteration, restored=restored, stop=stop)
    # Here and not above: without workers Ray is not imported at all.
    from distppo.runtime.ray_backend import RayBackend

    return RayBackend(start.config, env, first_iteration=first_iteration, restored=restored, address=cluster, stop=stop)


def _summary(config: Config, directory: Path, progress: Progress, details: Mapping[str, Any]) -> dict[str, Any]:
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
        **details,
        **machine_info(),
    }
