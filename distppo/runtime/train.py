"""Trains a policy: what `launch.py train` and `distppo.train` call."""

from __future__ import annotations

import dataclasses
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

from distppo.checkpoint import Checkpoint, CheckpointStore, best_checkpoint, list_checkpoints, load_for_resume
from distppo.config import Config, NetworkConfig, Overrides, apply_overrides, dump_config, load_layers
from distppo.config.sources import from_mapping, from_names
from distppo.console import Display, make_display
from distppo.envs import probe_env
from distppo.errors import CheckpointError
from distppo.evaluation.evaluate import require_same_spaces
from distppo.evaluation.restore import config_of, env_spec_of, learner_state_of, progress_of
from distppo.files import write_atomic
from distppo.metrics import RunWriter, machine_info, write_summary
from distppo.runtime.backend import Backend, LocalBackend, StopRequested
from distppo.runtime.run_directory import RunDirectory, default_run_directory, free_name
from distppo.runtime.signals import StopSignal
from distppo.runtime.trainer import Progress, Trainer
from distppo.types import EnvSpec


class TrainResult(NamedTuple):
    """How a run ended.

    Attributes:
        run_directory: holds config.yaml, metrics.jsonl, progress.csv, TensorBoard events, checkpoints/ and summary.json.
        summary: what summary.json holds.
        signal: number of the signal that ended the run early, or None.
    """

    run_directory: Path
    summary: dict[str, Any]
    signal: int | None


class Start(NamedTuple):
    """Where a run begins.

    Attributes:
        config: resolved.
        directory: of the run.
        continued: the directory's own run goes on.
        checkpoint: to continue from, or None.
        notes: what the user should know, one line each.
    """

    config: Config
    directory: Path
    continued: bool
    checkpoint: Checkpoint | None
    notes: list[str]


def train(
    config: Config | str | Path | None = None,
    *,
    resume: str | None = None,
    address: str | None = None,
    progress: bool | None = None,
    overrides: Overrides | Mapping[str, Any] | None = None,
    **settings: Any,
) -> TrainResult:
    """Trains until `run.total_timesteps` or a signal; leaves no process behind, however it ends.

    Args:
        config: settings, or a YAML file with them; None takes the defaults. Not used when resuming.
        resume: `latest`, a run directory or a checkpoint to continue; its config is the base for the overrides.
        address: of a running Ray cluster; None starts Ray on this machine (none at all with rollout.num_workers 0).
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
        resolved, given = _settings(config, overrides, settings, check=resume is None)
        start = _fresh(resolved) if resume is None else _resumed(resume, given)
        env = probe_env(start.config.env)
        if start.checkpoint is not None:
            require_same_spaces(env_spec_of(start.checkpoint), env, start.checkpoint.path)
        with RunDirectory(start.directory, continued=start.continued):
            return _run(start, env, address, progress, stop)


def _settings(
    config: Config | str | Path | None, overrides: Overrides | Mapping[str, Any] | None, settings: Mapping[str, Any], *, check: bool
) -> tuple[Config, Overrides]:
    """Returns the config, and what was set explicitly (what a resumed run lays over its own settings)."""
    base = config if isinstance(config, Config) else None
    if isinstance(overrides, Overrides):
        return base or Config(), overrides
    named, wrong_names = from_names(settings)
    dotted, wrong_keys = from_mapping(overrides or {})
    files = [config] if isinstance(config, str | Path) else []
    return load_layers(files, [*named, *dotted], base=base, problems=[*wrong_names, *wrong_keys], check=check)


def _fresh(config: Config) -> Start:
    directory = Path(config.run.directory) if config.run.directory else default_run_directory(config)
    return Start(config, directory, continued=False, checkpoint=None, notes=[])


def _resumed(reference: str, given: Overrides) -> Start:
    """Takes config and directory from the checkpoint, then what was set explicitly."""
    checkpoint, problems = load_for_resume(reference)
    trained = config_of(checkpoint)
    own = checkpoint.path.parent.parent
    config = apply_overrides(dataclasses.replace(trained, run=dataclasses.replace(trained.run, directory=None)), given)
    if config.network != trained.network:
        raise CheckpointError(
            f"{checkpoint.path} holds {_differences(trained.network, config.network)}; leave the network as it was to resume"
        )
    newest = problems or list_checkpoints(own)[-1].path == checkpoint.path
    if config.run.directory:
        directory = Path(config.run.directory)
    else:
        # Going on from an older checkpoint in place would write over what came after it.
        directory = own if newest else free_name(own.with_name(f"{own.name}-from-{checkpoint.env_steps}"))
    notes = [*problems, _restored_note(checkpoint, config, directory)]
    return Start(config, directory, continued=directory.resolve() == own.resolve(), checkpoint=checkpoint, notes=notes)


def _differences(trained: NetworkConfig, asked: NetworkConfig) -> str:
    names = [field.name for field in dataclasses.fields(trained) if getattr(trained, field.name) != getattr(asked, field.name)]
    return ", ".join(f"network.{name} {getattr(trained, name)} (asked for: {getattr(asked, name)})" for name in names)


def _restored_note(checkpoint: Checkpoint, config: Config, directory: Path) -> str:
    note = (
        f"resumed {checkpoint.path} at iteration {checkpoint.iteration}, {checkpoint.env_steps:,} env steps: weights, optimizer, "
        f"normalizers, schedules and counters restored; environments start new episodes; continues in {directory}"
    )
    if checkpoint.env_steps >= config.run.total_timesteps:
        note += f". It has reached its total of {config.run.total_timesteps:,} env steps: raise --total-timesteps to train on"
    return note


def _run(start: Start, env: EnvSpec, address: str | None, live: bool | None, stop: StopSignal) -> TrainResult:
    config, directory, checkpoint = start.config, start.directory, start.checkpoint
    progress = Progress.from_state(progress_of(checkpoint)) if checkpoint else Progress()
    write_atomic(directory / "config.yaml", dump_config(config).encode())
    store = CheckpointStore(directory, config.run.keep_checkpoints)
    resume_env_steps = progress.env_steps if start.continued else None
    with RunWriter(directory, resume_env_steps=resume_env_steps) as writer, make_display(progress=live) as display:
        display.start(f"{config.env.id} -> {directory}", total=config.run.total_timesteps, initial=progress.env_steps)
        for note in start.notes:
            display.message(note)
        writer.event("started", env_steps=progress.env_steps, machine=machine_info(), notes=start.notes)
        try:
            details = _train(start, env, address, progress, writer, display, store, stop)
        except BaseException as error:
            writer.event("error", kind=type(error).__name__, message=str(error), env_steps=progress.env_steps)
            raise
        finished = progress.env_steps >= config.run.total_timesteps
        number = None if finished else stop.number
        summary = _summary(config, directory, progress, details)
        write_summary(directory, summary)
        writer.event("finished" if finished else "interrupted", env_steps=progress.env_steps, signal=number)
    return TrainResult(directory, summary, number)


def _train(
    start: Start,
    env: EnvSpec,
    address: str | None,
    progress: Progress,
    writer: RunWriter,
    display: Display,
    store: CheckpointStore,
    stop: StopSignal,
) -> dict[str, Any]:
    """Starts the processes, trains, and ends them on every path; returns what the summary says of how it ran."""
    config = start.config
    began, steps_before = time.perf_counter(), progress.env_steps
    try:
        backend = _backend(start, env, address, progress.iteration, stop)
    except StopRequested:
        return {"wall_seconds": time.perf_counter() - began}
    try:
        display.message(f"{backend.description}; learner step: {backend.step_name}")
        writer.event("ready", description=backend.description, step=backend.step_name, seconds=time.perf_counter() - began)
        trainer = Trainer(config, env, backend, progress, writer=writer, display=display, store=store, should_stop=stop.requested)
        training = time.perf_counter()
        trainer.run()
        seconds = time.perf_counter() - training
        return {
            "wall_seconds": time.perf_counter() - began,
            "training_seconds": seconds,
            "env_steps_per_second": (progress.env_steps - steps_before) / seconds,
            "num_workers": backend.num_workers,
            "step": backend.step_name,
        }
    finally:
        backend.close()


def _backend(start: Start, env: EnvSpec, address: str | None, first_iteration: int, stop: StopSignal) -> Backend:
    restored = learner_state_of(start.checkpoint) if start.checkpoint else None
    if start.config.rollout.num_workers == 0:
        return LocalBackend(start.config, env, first_iteration=first_iteration, restored=restored)
    # Here and not above: without workers Ray is not imported at all.
    from distppo.runtime.ray_backend import RayBackend

    return RayBackend(start.config, env, first_iteration=first_iteration, restored=restored, address=address, should_stop=stop.requested)


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
