"""What the peers' scripts share: the task, the clock and the line they print. Needs the standard library alone."""

from __future__ import annotations

import argparse
import importlib.metadata
import json
import os
import platform
import time
from collections.abc import Sequence

WARM_UP = 2
"""Iterations before the clock starts: imports, process starts, compilation and the first touch of memory lie in them."""

# What every contestant does in an update beyond the numbers of the task, so that all do the same work. Observations are normalized
# by running statistics and rewards scaled, with each library's own means.
LEARNING_RATE = 3e-4
GAMMA = 0.99
GAE_LAMBDA = 0.95
CLIP_EPSILON = 0.2
VALUE_LOSS_COEF = 0.5
MAX_GRAD_NORM = 0.5
INITIAL_LOG_STD = -0.5


def parser(description: str) -> argparse.ArgumentParser:
    """Returns a parser that knows the task; a script adds what is its own."""
    made = argparse.ArgumentParser(description=description, formatter_class=argparse.ArgumentDefaultsHelpFormatter)
    add = made.add_argument
    add("--env", default="HalfCheetah-v4", help="gymnasium id")
    add("--num-envs", type=int, default=8, help="environments in total")
    add("--num-steps", type=int, default=2048, help="env steps of each environment in an iteration")
    add("--mini-batch-size", type=int, default=64, help="samples of a gradient step")
    add("--epochs", type=int, default=10, help="passes over the batch in an update")
    add("--hidden", default="64,64", help="widths of the hidden layers, actor and critic apart")
    add("--activation", default="tanh", choices=("tanh", "elu", "relu"), help="non-linearity")
    add("--steps", type=int, default=98_304, help="env steps on the clock, rounded up to iterations; the warm-up comes on top")
    add("--threads", type=int, default=1, help="threads of the learner's arithmetic")
    add("--workers", type=int, default=2, help="processes that step environments, where a library has such")
    add("--seed", type=int, default=0, help="of the library's generators")
    return made


def read(made: argparse.ArgumentParser, argv: Sequence[str] | None = None) -> argparse.Namespace:
    """Returns the arguments with `hidden` as a list, `batch` and `iterations` (warm-up included) added.

    Processes started from here on compute with `threads` threads.
    """
    task = made.parse_args(argv)
    task.hidden = [int(width) for width in task.hidden.split(",")]
    task.batch = task.num_envs * task.num_steps
    task.iterations = WARM_UP + -(-task.steps // task.batch)
    for name in ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS"):
        os.environ[name] = str(task.threads)
    return task


class Stopwatch:
    """Counts env steps and seconds after the warm-up. Call `iteration_ended` after each iteration with the env steps so far."""

    def __init__(self) -> None:
        self.marks: list[tuple[int, float]] = []

    def iteration_ended(self, env_steps: int) -> None:
        self.marks.append((env_steps, time.perf_counter()))

    def result(self) -> tuple[int, float]:
        """Returns (env steps, seconds) between the end of the warm-up and the end of the last iteration."""
        (steps_before, began), (steps_after, ended) = self.marks[WARM_UP - 1], self.marks[-1]
        return steps_after - steps_before, ended - began


def print_result(task: argparse.Namespace, watch: Stopwatch, packages: Sequence[str]) -> None:
    """Prints the one line that the benchmark reads: the last one on standard output."""
    env_steps, seconds = watch.result()
    versions = {name: importlib.metadata.version(name) for name in ("gymnasium", "mujoco", "numpy", "torch", *packages)}
    line = {
        "env_steps": env_steps,
        "seconds": round(seconds, 3),
        "env_steps_per_second": round(env_steps / seconds, 1),
        "versions": {"python": platform.python_version(), **versions},
        "settings": vars(task),
    }
    print(json.dumps(line), flush=True)
