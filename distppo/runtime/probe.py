"""A short measurement of what a run would cost on this machine: one worker's steps and the learner's gradient steps, in this process."""

from __future__ import annotations

import dataclasses
import math
import time
from typing import NamedTuple

from distppo.config import Config
from distppo.runtime.cores import available_cores
from distppo.runtime.processes import LearnerProcess, Worker, share_envs
from distppo.types import EnvSpec

MINIBATCHES = 32
"""In the probe's update, if the run's own has as many: what an update costs besides gradient steps counts as little then as there."""
EPOCHS = 10
"""In the probe's update, at most: more of them cost the same each, and a setting can name more than will ever end."""
SECONDS = 1.0
"""Spent on steps, about, and on updates."""


class Probe(NamedTuple):
    """What was measured.

    Attributes:
        worker_fps: env steps a second of one worker that has a core to itself.
        gradient_step: seconds, what comes before the first epoch included.
        step_name: of the learner's inner step.
        seconds: that the measurement took, compilation left out.
    """

    worker_fps: float
    gradient_step: float
    step_name: str
    seconds: float


class Estimate(NamedTuple):
    """What one iteration takes, in seconds; `iteration` counts what overlaps once."""

    collect: float
    update: float
    iteration: float


def measure(config: Config, env: EnvSpec, num_workers: int) -> Probe:
    """Returns how fast this machine is at this job. Compiles the learner's step first, if that was never done here.

    Args:
        config: of the run.
        env: its environment's spec.
        num_workers: between whom the environments are shared out; 0 is one process.
    """
    _, num_envs = share_envs(config.rollout.num_envs, max(1, num_workers))[0]
    small = _smaller(config, num_envs)
    learner = LearnerProcess(small, env, None, _learner_cores(config))
    step_name = learner.ready()
    worker = Worker(small, 0, num_envs, 0)
    worker.ready()
    began = time.perf_counter()
    collected = iteration = 0
    collecting = updating = 0.0
    while collected == 0 or max(collecting, updating) < SECONDS:
        rollout, _ = worker.deliver(learner.snapshot(), iteration)
        iteration, collected, collecting = iteration + 1, collected + small.batch_size, collecting + rollout.seconds
        started = time.perf_counter()
        learner.update(rollout)
        updating += time.perf_counter() - started
    worker.close()
    gradient_steps = iteration * small.ppo.epochs * small.batch_size // small.ppo.mini_batch_size
    return Probe(collected / collecting, updating / gradient_steps, step_name, time.perf_counter() - began)


def estimate(config: Config, probe: Probe, num_workers: int, cores: int) -> Estimate:
    """Returns what an iteration will take on a machine with so many cores, workers and learner on it together."""
    workers = max(1, num_workers)
    work = config.batch_size / probe.worker_fps
    collect = work / min(workers, cores)
    update = gradient_steps(config) * probe.gradient_step
    if config.rollout.mode == "sync" or num_workers == 0:
        return Estimate(collect, update, collect + update)
    # All cores share all the work, and neither part ends before it could alone.
    return Estimate(collect, update, max(collect, update, (work + update) / cores))


def gradient_steps(config: Config) -> int:
    """Returns the gradient steps of one update, if nothing ends it early."""
    return config.ppo.epochs * (config.batch_size // config.ppo.mini_batch_size)


def _smaller(config: Config, num_envs: int) -> Config:
    """Returns the settings with one worker's environments, as few steps as fill some minibatches, and not too many epochs."""
    whole = config.ppo.mini_batch_size
    size = max(min(2, whole), whole // config.learner.num_learners)  # a learner's share; adding up is not counted
    least = size // math.gcd(size, num_envs)  # steps that fill whole minibatches
    wanted = min(MINIBATCHES * size, config.batch_size)
    steps = least * max(1, wanted // (num_envs * least))
    rollout = dataclasses.replace(config.rollout, num_envs=num_envs, num_steps=steps, num_workers=0)
    epochs = min(config.ppo.epochs, EPOCHS)
    schedule = dataclasses.replace(config.ppo, mini_batch_size=size, epochs=epochs, lr_schedule="constant", target_kl=None)
    return dataclasses.replace(config, rollout=rollout, ppo=schedule)


def _learner_cores(config: Config) -> int:
    return available_cores() if config.rollout.mode == "sync" else 1
