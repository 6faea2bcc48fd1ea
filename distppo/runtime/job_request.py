"""What is sent to a cluster: the command, the sources and the variables of a training that runs there."""

from __future__ import annotations

import os
import re
import shlex
from collections.abc import Sequence
from pathlib import Path, PurePosixPath
from typing import Any, NamedTuple

import distppo
from distppo.config.trust import TRUST_VARIABLE
from distppo.files import RUNS_VARIABLE

DEFAULT_RUNS = "~/distppo-runs"
STOP_SECONDS = 120
"""How long a job that is stopped may take to save, before Ray kills it; its own default is 3."""
LEFT_OUT = (".git", ".venv", "venv", "runs", "__pycache__", "*.egg-info", ".bench", ".hypothesis", "*_cache")
"""What is not sent, besides what .gitignore and .rayignore name."""
RUN_KEY = "distppo_run"
"""Under which the job's metadata say what to resume."""


class Request(NamedTuple):
    """A job to be.

    Attributes:
        name: of the job, and of its run where it begins one.
        run: what `train --resume` goes on with.
        entrypoint: shell command.
        runtime_env: the sources and variables, as Ray takes them.
        metadata: kept with the job.
    """

    name: str
    run: str
    entrypoint: str
    runtime_env: dict[str, Any]
    metadata: dict[str, str]


def job_request(words: Sequence[str], *, name: str, run: str | None, runs: str, python: str, sources: Path) -> Request:
    """Returns the job that trains on the cluster.

    Args:
        words: arguments of `train`.
        name: of the job.
        run: what the job resumes, or the directory that its settings name; None has it begin a run of the job's name.
        runs: folder on the cluster where runs are.
        python: interpreter there.
        sources: folder whose files the job sees.
    """
    command = [python, "-m", "distppo", "train", *words]
    entrypoint = "exec " + shlex.join(command)
    if run is None:
        entrypoint += f" --run-dir {_for_shell(str(PurePosixPath(runs) / name))}"
    variables = {RUNS_VARIABLE: runs, "RAY_JOB_STOP_WAIT_TIME_S": str(STOP_SECONDS)}
    if trusted := os.environ.get(TRUST_VARIABLE):
        variables[TRUST_VARIABLE] = trusted
    runtime_env: dict[str, Any] = {"working_dir": str(sources), "excludes": list(LEFT_OUT), "env_vars": variables}
    if not (sources / "distppo").is_dir():  # then the cluster runs the code that has checked the settings here
        runtime_env["py_modules"] = [str(Path(distppo.__file__).parent)]
    return Request(name, run or name, entrypoint, runtime_env, {RUN_KEY: run or name})


def job_name(text: str) -> str:
    """Returns the text as a job's name, which is part of an address and of a path."""
    return re.sub(r"[^A-Za-z0-9._-]+", "_", text).strip("._")


def _for_shell(path: str) -> str:
    """Quotes a path, but for the ~/ that the shell there is to replace."""
    return "~/" + shlex.quote(path[2:]) if path.startswith("~/") else shlex.quote(path)
