"""`train --dry-run`: what a run would do, without starting anything or writing a file."""

from __future__ import annotations

import math
import shutil
from collections.abc import Sequence
from pathlib import Path

from distppo.config import Config, Overrides
from distppo.config.trust import named_code
from distppo.console import format_count, format_duration
from distppo.envs import probe_env
from distppo.errors import UserError
from distppo.evaluation.restore import progress_of
from distppo.metrics import require_loggers
from distppo.models.acting import checked_network
from distppo.runtime.callbacks import Callbacks
from distppo.runtime.cores import available_cores
from distppo.runtime.doctor import RunPlace
from distppo.runtime.probe import Estimate, Probe, estimate, gradient_steps, measure
from distppo.runtime.run_directory import RUNS_ROOT, run_name
from distppo.runtime.sizes import memory_bytes, rollout_bytes, store_bytes
from distppo.runtime.start import Start, fresh, resumed
from distppo.types import EnvSpec

_SHARED_MEMORY = Path("/dev/shm")
_LABEL = 12


def plan(config: Config, *, resume: str | None, address: str | None, trust: Sequence[str], overrides: Overrides) -> list[str]:
    """Returns what a run with these settings would do, line by line. Arguments and errors as of `train`.

    The environment is made and played for a moment in this process, for the estimated time; nothing else is started, no file is
    written (but numba's cache, where the learner's step was never compiled before).
    """
    start = fresh(config) if resume is None else resumed(resume, overrides, {*trust, *named_code(config)})
    if address and start.config.rollout.num_workers == 0:
        raise UserError(f"--address {address} needs Ray, which rollout.num_workers 0 does without; leave one of them out")
    RunPlace(start.directory or RUNS_ROOT / run_name(start.config), continued=start.continued)
    Callbacks(start.config.run.callbacks)
    require_loggers(start.config.metrics)
    env = probe_env(start.config.env)
    network = checked_network(env, start.config.network)
    num_workers = _workers(start.config)
    probe = measure(start.config, env, num_workers)
    lines = [f"{start.config.env.id}, a plan: nothing is started and nothing is written", *start.notes]
    lines += _labelled("environment", _environment(env))
    lines += _labelled("network", network.removeprefix("network: "))
    lines += _labelled("iteration", _iteration(start.config, num_workers))
    lines += _labelled("update", _update(start.config))
    lines += _labelled("run", _run(start))
    lines += _labelled("memory", _memory(start.config, env, num_workers))
    if num_workers:
        lines += _labelled("store", _store(start.config, env))
    lines += _labelled("time", *_time(start, probe, num_workers, address))
    return lines


def _labelled(label: str, *lines: str) -> list[str]:
    return [f"{label if index == 0 else '':<{_LABEL}}{line}" for index, line in enumerate(lines)]


def _workers(config: Config) -> int:
    if config.rollout.num_workers is not None:
        return config.rollout.num_workers
    return min(available_cores(), config.rollout.num_envs)


def _environment(env: EnvSpec) -> str:
    limit = f"episodes of at most {format_count(env.max_episode_steps)} steps" if env.max_episode_steps else "no time limit"
    return f"observations {list(env.observation_shape)} of {env.observation_dtype}, {limit}"


def _iteration(config: Config, num_workers: int) -> str:
    rollout = config.rollout
    steps = f"{rollout.num_envs} envs x {format_count(rollout.num_steps)} steps = {format_count(config.batch_size)} env steps"
    if num_workers == 0:
        return f"one process, {steps}"
    each, more = divmod(rollout.num_envs, num_workers)
    if more:
        return f"{num_workers} workers with {each} or {each + 1} envs each, {steps}"
    times = f"{num_workers} worker{'s' * (num_workers > 1)} x {each} env{'s' * (each > 1)} x {format_count(rollout.num_steps)} steps"
    return f"{times} = {format_count(config.batch_size)} env steps"


def _update(config: Config) -> str:
    minibatches = config.batch_size // config.ppo.mini_batch_size
    minibatch = f"{format_count(minibatches)} minibatch{'es' * (minibatches > 1)} of {format_count(config.ppo.mini_batch_size)}"
    learners = config.learner.num_learners
    shared = f", each shared out over {learners} learners" if learners > 1 else ""
    return f"{config.ppo.epochs} epochs x {minibatch} = {format_count(gradient_steps(config))} gradient steps{shared}"


def _run(start: Start) -> str:
    config, iterations = start.config, _iterations(start)
    steps = iterations * config.batch_size
    parts = [f"{format_count(iterations)} updates x {format_count(config.batch_size)} = {format_count(steps)} env steps"]
    parts.append(f"{format_count(iterations * gradient_steps(config))} gradient steps")
    if (every := config.evaluation.every) > 0:
        evaluations = min(iterations, math.ceil(steps / max(every, config.batch_size)))
        parts.append(f"about {evaluations} evaluation{'s' * (evaluations != 1)} of {config.evaluation.episodes}")
    return ", ".join(parts)


def _iterations(start: Start) -> int:
    """How many are left."""
    done = 0 if start.checkpoint is None else int(progress_of(start.checkpoint)["env_steps"])
    return math.ceil(max(0, start.config.run.total_timesteps - done) / start.config.batch_size)


def _memory(config: Config, env: EnvSpec, num_workers: int) -> str:
    return f"about {_size(memory_bytes(config, env, num_workers))}; an iteration's rollouts are {_size(rollout_bytes(config, env))}"


def _store(config: Config, env: EnvSpec) -> str:
    needed = store_bytes(config, env)
    if not _SHARED_MEMORY.is_dir():
        return f"{_size(needed)} of object store"
    free = shutil.disk_usage(_SHARED_MEMORY).free
    enough = "" if free >= needed else ": too small, Ray would use the disk (docker: --shm-size)"
    return f"{_size(needed)} of object store; {_SHARED_MEMORY} has {_size(free)} free{enough}"


def _time(start: Start, probe: Probe, num_workers: int, address: str | None) -> list[str]:
    config = start.config
    cores = available_cores() if address is None else max(1, num_workers)
    expected: Estimate = estimate(config, probe, num_workers, cores)
    iterations = _iterations(start)
    whole = format_duration(iterations * expected.iteration)
    parts = f"collect {_seconds(expected.collect)}, update {_seconds(expected.update)}, {config.rollout.mode}"
    fps = format_count(config.batch_size / expected.iteration)
    where = f"{cores} core{'s' * (cores > 1)} " + ("of this machine" if address is None else "like this machine's")
    return [
        f"about {whole} without evaluations on {where}: {_seconds(expected.iteration)} an iteration ({parts}), {fps} env steps/s",
        f"measured in {_seconds(probe.seconds)}: {format_count(probe.worker_fps)} env steps/s a worker, "
        f"{1e6 * probe.gradient_step:,.0f} us a gradient step ({probe.step_name})",
    ]


def _seconds(seconds: float) -> str:
    return f"{seconds:.2f} s" if seconds < 10 else format_duration(seconds)


def _size(size: int) -> str:
    return f"{size / 2**30:.1f} GiB" if size >= 2**30 else f"{max(1, round(size / 2**20))} MiB"
