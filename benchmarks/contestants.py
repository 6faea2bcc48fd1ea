"""Who takes part in the throughput benchmark, how each is installed and how one run of each is timed."""

from __future__ import annotations

import hashlib
import json
import os
import re
import shlex
import subprocess
import sys
import tempfile
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

HERE = Path(__file__).resolve().parent
ROOT = HERE.parent
WARM_UP = 2
"""Iterations before the clock starts, for everybody (peers/peer.py has the same number)."""
LONGER = 4
"""distppo is on the clock for this many times the peers' steps: for as many as theirs it would be for a few seconds."""
TIMEOUT = 3600.0
RATE = re.compile(r"(?:SPS|env_steps_per_second)\W+([0-9]+(?:\.[0-9]+)?)")


class RunFailed(Exception):
    """A contestant could not be installed or ended without a result; the message names its log."""


@dataclass(frozen=True)
class Recipe:
    """Sizes of an iteration and of the two networks."""

    num_envs: int
    num_steps: int
    mini_batch_size: int
    epochs: int
    hidden: str
    activation: str


RECIPES = {
    "small": Recipe(num_envs=8, num_steps=2048, mini_batch_size=64, epochs=10, hidden="64,64", activation="tanh"),
    "many": Recipe(num_envs=64, num_steps=32, mini_batch_size=64, epochs=10, hidden="64,64", activation="tanh"),
    "large": Recipe(num_envs=64, num_steps=128, mini_batch_size=2048, epochs=5, hidden="256,128,64", activation="elu"),
}


@dataclass(frozen=True)
class Task:
    """What is timed: a recipe in an environment."""

    env: str
    recipe: Recipe
    steps: int

    @property
    def iterations(self) -> int:
        """Iterations of a run, warm-up included."""
        return WARM_UP + -(-self.steps // (self.recipe.num_envs * self.recipe.num_steps))

    @property
    def total_steps(self) -> int:
        """Env steps of a run, warm-up included."""
        return self.iterations * self.recipe.num_envs * self.recipe.num_steps


@dataclass(frozen=True)
class Contestant:
    """One row of the table.

    Attributes:
        name: in the table.
        variants: name to a function that runs the task once and returns its record, with `env_steps_per_second` in it at least.
    """

    name: str
    variants: Mapping[str, Callable[[Task], dict[str, Any]]]


@dataclass(frozen=True)
class Peer:
    """Another library.

    Attributes:
        title: in the table.
        script: under peers/.
        requirements: what pip installs into its environment.
        variants: name to flags of the script; the fastest counts.
    """

    title: str
    script: str
    requirements: tuple[str, ...]
    variants: Mapping[str, str]


PEERS = {
    "sb3": Peer(
        "Stable-Baselines3 2.9.2",
        "train_sb3.py",
        ("stable-baselines3==2.9.2", "gymnasium[mujoco]==1.4.0", "mujoco==4.0.0"),
        {
            f"{title}, {threads} thread{'s' * (threads > 1)}": f"--vector {vector} --threads {threads}"
            for vector, title in (("dummy", "DummyVecEnv"), ("subproc", "SubprocVecEnv"))
            for threads in (1, 2)
        },
    ),
    "rllib": Peer(
        "RLlib 2.60, 2 env runners",
        "train_rllib.py",
        ("ray[rllib]==2.60.0", "gymnasium[mujoco]", "mujoco==4.0.0"),
        {"1 thread": "--threads 1", "2 threads": "--threads 2"},
    ),
    "sample-factory": Peer(
        "Sample Factory 2.1.1, 2 workers",
        "train_sample_factory.py",
        ("sample-factory[mujoco]==2.1.1",),
        {"sync": "--mode sync", "async": "--mode async"},
    ),
}


def distppo(mode: str) -> Contestant:
    """Returns distppo itself in `rollout.mode` sync or overlap, with all else at its defaults."""
    return Contestant(f"distppo {mode}", {"": lambda task: run_distppo(replace(task, steps=LONGER * task.steps), mode)})


def peer(key: str, cache: Path) -> Contestant:
    """Returns a peer, installed.

    Raises:
        RunFailed: pip could not install it.
    """
    described = PEERS[key]
    python = install(key, described.requirements, cache)

    def runner(flags: str) -> Callable[[Task], dict[str, Any]]:
        return lambda task: run_script(python, described.script, task, shlex.split(flags), cache / f"{key}.log")

    return Contestant(described.title, {name: runner(flags) for name, flags in described.variants.items()})


def extra(name: str, command: str, cache: Path) -> Contestant:
    """Returns a contestant from a shell command with {env}, {num_envs}, {num_steps}, {total_steps} ... in braces.

    Its last `SPS <number>` or `"env_steps_per_second": <number>` counts.
    """

    def run(task: Task) -> dict[str, Any]:
        values = {"env": task.env, "total_steps": task.total_steps, **asdict(task.recipe)}
        output = _output(["bash", "-c", command.format(**values)], cache / f"{name}.log", cwd=ROOT)
        rates = RATE.findall(output)
        if not rates:
            raise RunFailed(f"{name} printed no rate, see {cache / f'{name}.log'}")
        return {"env_steps_per_second": float(rates[-1]), "settings": {"command": command}}

    return Contestant(name, {"": run})


def install(key: str, requirements: tuple[str, ...], cache: Path) -> Path:
    """Builds the peer's virtual environment once and returns its interpreter. torch comes first, in the version distppo is tested with."""
    home = cache / key
    python = home / "bin" / "python"
    torch = next(line for line in (ROOT / "constraints.txt").read_text().splitlines() if line.startswith("torch=="))
    stamp = home / f".stamp-{hashlib.sha256(repr((torch, requirements, sys.version)).encode()).hexdigest()[:16]}"
    if not stamp.exists():
        print(f"installing {', '.join(requirements)} into {home}", flush=True)
        log = cache / f"{key}.install.log"
        index = ["--extra-index-url", os.environ["TORCH_INDEX"]] if os.environ.get("TORCH_INDEX") else []
        pip = [str(python), "-m", "pip", "install", "--disable-pip-version-check", "--no-input", *index]
        _output([sys.executable, "-m", "venv", "--clear", str(home)], log)
        _output([*pip, torch], log)
        _output([*pip, torch, *requirements], log)
        stamp.touch()
    return python


def run_script(python: Path, script: str, task: Task, flags: list[str], log: Path) -> dict[str, Any]:
    """Runs a script of peers/ once and returns the record it prints last."""
    values = {"env": task.env, "steps": task.steps, **asdict(task.recipe)}
    task_flags = [f"--{name.replace('_', '-')}={value}" for name, value in values.items()]
    lines = _output([str(python), str(HERE / "peers" / script), *task_flags, *flags], log).splitlines()
    for line in reversed(lines):
        if line.startswith("{"):
            record: dict[str, Any] = json.loads(line)
            return record
    raise RunFailed(f"{script} printed no result, see {log}")


def run_distppo(task: Task, mode: str) -> dict[str, Any]:
    """Trains with launch.py and returns the rate between two rows of its metrics.jsonl.

    They are those after the warm-up and before the last iteration: beside the last update of overlap mode nothing is collected.
    """
    recipe = task.recipe
    settings = {
        "rollout.mode": mode,
        "rollout.num_steps": recipe.num_steps,
        "ppo.epochs": recipe.epochs,
        "ppo.mini_batch_size": recipe.mini_batch_size,
        "ppo.entropy_coef": 0,
        "network.hidden_sizes": recipe.hidden,
        "network.activation": recipe.activation,
        "network.initial_log_std": -0.5,
        "evaluation.every": 0,
        "run.checkpoint_every": 0,
    }
    flags = [flag for key, value in settings.items() for flag in ("--set", f"{key}={value}")]
    with tempfile.TemporaryDirectory() as directory:
        run = Path(directory) / "run"
        command = [sys.executable, "launch.py", "train", "--env", task.env, "--num-envs", str(recipe.num_envs), *flags]
        command += ["--total-timesteps", str(task.total_steps + 1), "--run-dir", str(run), "--no-progress"]
        _output(command, Path(directory) / "log", cwd=ROOT)
        rows = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
        summary = json.loads((run / "summary.json").read_text())
    rows = [row for row in rows if "time/total_timesteps" in row]
    first, last = rows[WARM_UP - 1], rows[-2]
    env_steps = last["time/total_timesteps"] - first["time/total_timesteps"]
    seconds = last["time/time_elapsed"] - first["time/time_elapsed"]
    record = {"env_steps": env_steps, "seconds": seconds, "env_steps_per_second": env_steps / seconds}
    return {**record, "settings": settings, "summary": summary}


def _output(command: list[str], log: Path, cwd: Path | None = None) -> str:
    """Runs a command and returns what it printed; everything it says is also in `log`."""
    log.parent.mkdir(parents=True, exist_ok=True)
    with open(log, "a", encoding="utf-8") as errors:
        errors.write(f"$ {shlex.join(command)}\n")
        errors.flush()
        try:
            done = subprocess.run(command, cwd=cwd, stdout=subprocess.PIPE, stderr=errors, text=True, timeout=TIMEOUT, check=False)
        except subprocess.TimeoutExpired as error:
            raise RunFailed(f"no result within {TIMEOUT:.0f} s, see {log}") from error
        errors.write(done.stdout)
    if done.returncode != 0:
        tail = " | ".join(log.read_text(encoding="utf-8").splitlines()[-3:])
        raise RunFailed(f"exit code {done.returncode}: {tail} (see {log})")
    return done.stdout
