"""A small run in this process or through Ray, and launch.py as a user starts it."""

from __future__ import annotations

import contextlib
import logging
import os
import signal
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from runtime.running import ROOT, SMALL, Run, command, environment, processes_of, read_events

from distppo.config import dump_config, load_config
from distppo.runtime.train import train

RECOVERIES = pytest.StashKey[list[str]]()


def pytest_terminal_summary(terminalreporter: Any, config: pytest.Config) -> None:
    """Prints how long everything took to recover."""
    if lines := config.stash.get(RECOVERIES, []):
        terminalreporter.section("recovery times")
        terminalreporter.write_line("\n".join(lines))


@pytest.fixture
def recovery(request: pytest.FixtureRequest) -> Callable[..., None]:
    """Takes a run directory in which something failed, and has its recovery times printed after the tests; or a time measured otherwise."""

    def note(directory: Path | None = None, *, seconds: float | None = None, what: str = "") -> None:
        found = [] if directory is None else [event for event in read_events(directory) if event["event"] == "recovered"]
        assert found or seconds is not None, "nothing recovered"
        times = [(event["where"], event["seconds"]) for event in found] or [(what, seconds)]
        lines = request.config.stash.setdefault(RECOVERIES, [])
        lines += [f"{each:6.1f} s  {where}  ({request.node.name})" for where, each in times]

    return note


@pytest.fixture
def small(tmp_path: Path) -> Callable[..., Run]:
    """Trains with the small settings and those given, in a new directory unless one is named."""
    count = iter(range(100))

    def run(settings: dict[str, Any] | None = None, **arguments: Any) -> Run:
        given = dict(settings or {})
        if "resume" not in arguments:
            given = SMALL | {"run.directory": str(tmp_path / f"run{next(count)}")} | given
        return Run(train(overrides=given, progress=False, **arguments))

    return run


@pytest.fixture(scope="session")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Run:
    """A finished run that tests read and leave alone."""
    directory = tmp_path_factory.mktemp("trained") / "run"
    return Run(train(overrides=SMALL | {"run.directory": str(directory)}, progress=False))


@pytest.fixture(scope="session")
def shared_ray() -> Iterator[Any]:
    """One local Ray of four CPUs for all tests that need no process of their own."""
    import ray

    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("PYTHONPATH", str(ROOT / "tests"))  # the workers import probe_envs from there
        ray.init(
            address="local",
            num_cpus=4,
            include_dashboard=False,
            log_to_driver=False,
            logging_level=logging.ERROR,
            object_store_memory=2**28,
            _system_config={"metrics_report_interval_ms": 1000},
        )
    yield ray
    ray.shutdown()


@pytest.fixture(scope="session")
def small_file(tmp_path_factory: pytest.TempPathFactory) -> str:
    """The small settings as a file for --config."""
    path = tmp_path_factory.mktemp("config") / "small.yaml"
    path.write_text(dump_config(load_config(overrides=SMALL)))
    return str(path)


@pytest.fixture
def launch(tmp_path: Path) -> Callable[..., subprocess.CompletedProcess[str]]:
    """Runs launch.py to its end, in an empty directory, with pipes as its output."""

    def run(*argv: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(command(*argv), capture_output=True, text=True, cwd=tmp_path, env=environment(), timeout=120, check=False)

    return run


@pytest.fixture
def started(tmp_path: Path) -> Iterator[Callable[..., subprocess.Popen[bytes]]]:
    """Starts launch.py in a session and process group of its own; whatever is left of it is killed afterwards."""
    processes: list[subprocess.Popen[bytes]] = []

    def start(*argv: str) -> subprocess.Popen[bytes]:
        with open(tmp_path / "stdout", "w") as out, open(tmp_path / "stderr", "w") as err:
            process = subprocess.Popen(
                command(*argv), stdout=out, stderr=err, cwd=tmp_path, env=environment(), text=True, start_new_session=True
            )
        processes.append(process)
        return process

    yield start
    for process in processes:
        for pid in processes_of(process.pid):
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        process.wait()
