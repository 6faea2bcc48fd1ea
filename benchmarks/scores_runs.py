"""One seed of the scores, whoever trains: run as a process, gone on with where it was cut off, and scored."""

from __future__ import annotations

import contextlib
import json
import os
import re
import shlex
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple, Protocol

from distppo.evaluation.results import write_json

ROOT = Path(__file__).resolve().parent.parent
RUNS = ROOT / "runs" / "scores"
COMMANDS_FILE = "commands.json"
EVALUATION_SEED = 10_000
"""Added to a run's seed, so that no episode of training's own evaluations is played again."""
NEWS_EVERY = 30.0
"""Seconds between two lines about a run."""
SOURCES = ("distppo", "configs", "launch.py", "benchmarks/peers")
"""What a run's result depends on; changes elsewhere do not make its commit a dirty one."""
RETURN, EVALUATION, ELAPSED = "rollout/ep_rew_mean", "eval/mean_reward", "time/time_elapsed"


class RunFailed(Exception):
    """A run ended with an error; the message names its log."""


class Interrupted(Exception):
    """A signal came, and the run has been stopped in order."""

    def __init__(self, number: int) -> None:
        super().__init__(number)
        self.signal = number


class CurvePoint(NamedTuple):
    """A point of a learning curve.

    Attributes:
        env_steps: learned from so far.
        seconds: of training so far.
        training_return: mean of the last 100 finished episodes, raw rewards; None before the first has ended.
        evaluation_return: of the evaluation at this point; None where there was none.
    """

    env_steps: int
    seconds: float
    training_return: float | None
    evaluation_return: float | None


Scored = tuple[dict[str, Any], list[CurvePoint]]
"""A seed's entry in the results, and its curve."""


class Experiment(Protocol):
    """What is trained with several seeds: a recipe of distppo, or a peer."""

    @property
    def name(self) -> str:
        """<env>-<env steps>[-<label>]: of its runs' folder and its results."""

    @property
    def total(self) -> int:
        """Env steps of a run."""

    def header(self) -> dict[str, Any]:
        """Returns what the results say of all seeds: name, env, total_timesteps, label, recipe, peer, command, settings, evaluation."""

    def folder(self, seed: int) -> str:
        """Returns the name of a seed's folder; other settings have others."""

    def command(self, seed: int, directory: Path) -> list[str]:
        """Returns the command that begins a seed's run or goes on with it."""

    def finished(self, seed: int, directory: Path) -> bool:
        """Whether the run has its env steps."""

    def collect(self, seed: int, directory: Path, episodes: int) -> Scored:
        """Scores a finished run."""

    def news(self, directory: Path) -> Callable[[], str]:
        """Returns what says in a line how far the run is."""


def experiment_name(env: str, total: int, label: str) -> str:
    """Returns <env>-<env steps>[-<label>], as a file's name: HalfCheetah-v4-2M."""
    steps = next((f"{total // unit}{letter}" for unit, letter in ((1_000_000, "M"), (1_000, "k")) if total % unit == 0), str(total))
    return "-".join([re.sub(r"[^A-Za-z0-9._-]+", "_", env), steps, *([label] if label else [])])


class Trainer:
    """Trains and scores seeds, one after the other.

    Args:
        runs: folder of all runs.
        episodes: of a score.
        say: takes a line for people.
        timed: whether the machine does nothing else meanwhile, so that minutes mean something.
    """

    def __init__(self, runs: Path, episodes: int, say: Callable[[str], None], *, timed: bool = True) -> None:
        self._runs, self._episodes, self._say, self._timed = runs, episodes, say, timed

    def score(self, experiment: Experiment, seed: int) -> Scored:
        """Trains a seed as far as it is not trained, and scores it.

        Raises:
            RunFailed: the run ended with an error.
            Interrupted: a signal came.
        """
        directory = self._runs / experiment.name / experiment.folder(seed)
        label = f"{experiment.name} seed {seed}"
        if experiment.finished(seed, directory):
            self._say(f"{label}: trained already, scoring it")
        else:
            self._train(experiment, seed, directory, label)
        entry, curve = experiment.collect(seed, directory, self._episodes)
        circumstances = {
            "timed": all(command.get("timed", True) for command in read_commands(directory)),
            "run": f"{experiment.name}/{directory.name}",
            "evaluation_episodes": self._episodes,
            "evaluation_seed": EVALUATION_SEED + seed,
        }
        return {**entry, **circumstances}, curve

    def _train(self, experiment: Experiment, seed: int, directory: Path, label: str) -> None:
        command, log = experiment.command(seed, directory), directory.with_suffix(".log")
        log.parent.mkdir(parents=True, exist_ok=True)
        self._say(f"{label}: {'going on' if '--resume' in command else 'training'}, log in {log}")
        commit, began, news = source_commit(), time.monotonic(), experiment.news(directory)
        with open(log, "a", encoding="utf-8") as file:
            file.write(f"$ {shlex.join(command)}\n")
            file.flush()
            # A process group of its own, so that Ctrl-C reaches it once, through this process.
            process = subprocess.Popen(
                command, cwd=ROOT, stdin=subprocess.DEVNULL, stdout=file, stderr=subprocess.STDOUT, env=environment(), process_group=0
            )
            with _passing_on_signals(process) as received:
                while (code := _wait(process, NEWS_EVERY)) is None:
                    self._say(f"{label}: {news()}")
        if directory.is_dir():
            keep_command(directory, {"commit": commit, "seconds": time.monotonic() - began, "exit_code": code, "timed": self._timed})
        if received:
            raise Interrupted(received[0])
        if not experiment.finished(seed, directory):
            raise RunFailed(f"exit code {code}: {_end_of(log)} (see {log})")


def _end_of(log: Path) -> str:
    """Returns the last lines that the last command of a log has printed."""
    lines = log.read_text(encoding="utf-8", errors="replace").splitlines()
    began = max(index for index, line in enumerate(lines) if line.startswith("$ "))
    return " | ".join(line.strip() for line in lines[began + 1 :][-3:]) or "it printed nothing"


def environment() -> dict[str, str]:
    """Returns this process' environment; whatever it can import, its children can."""
    return os.environ | {"PYTHONPATH": os.pathsep.join([str(ROOT), *(path for path in sys.path if path)])}


def _wait(process: subprocess.Popen[bytes], seconds: float) -> int | None:
    with contextlib.suppress(subprocess.TimeoutExpired):
        return process.wait(seconds)
    return None


@contextlib.contextmanager
def _passing_on_signals(process: subprocess.Popen[bytes]) -> Iterator[list[int]]:
    """Has SIGINT and SIGTERM go to the process, which saves and ends; yields the list of those that came."""
    received: list[int] = []

    def pass_on(number: int, frame: object) -> None:
        received.append(number)
        process.send_signal(number)

    before = {number: signal.signal(number, pass_on) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield received
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
        if process.poll() is None:
            process.terminate()


def read_commands(directory: Path) -> list[dict[str, Any]]:
    """Returns the commands that a run was trained by: commit, seconds, exit_code, timed."""
    try:
        return list(json.loads((directory / COMMANDS_FILE).read_text(encoding="utf-8")))
    except FileNotFoundError:
        return []


def keep_command(directory: Path, command: dict[str, Any]) -> None:
    """Adds a command to those of a run."""
    write_json(directory / COMMANDS_FILE, [*read_commands(directory), command])  # type: ignore[arg-type]


def source_commit() -> str | None:
    """Returns the commit of the sources that a run depends on, with -dirty where they were changed since; None without git."""
    git = ["git", "-C", str(ROOT)]
    try:
        commit = subprocess.run([*git, "rev-parse", "HEAD"], capture_output=True, text=True, check=True).stdout.strip()
        changed = subprocess.run([*git, "status", "--porcelain", "--", *SOURCES], capture_output=True, text=True, check=True).stdout.strip()
    except (OSError, subprocess.CalledProcessError):
        return None
    return f"{commit}-dirty" if changed else commit


def unique(values: Sequence[Any]) -> list[Any]:
    """Returns the different values in the order they come first."""
    return [value for index, value in enumerate(values) if value not in values[:index]]
