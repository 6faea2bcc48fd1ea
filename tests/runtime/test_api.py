"""The Python API as notebooks and larger programs use it; every public name is documented."""

from __future__ import annotations

import inspect
import subprocess
import sys
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from runtime.running import SMALL, Run, environment

import distppo
from distppo import ConfigError, UserError, evaluate, load_config, load_policy, train
from distppo.metrics import read_log
from distppo.report import write_report

QUICK = SMALL | {"run.total_timesteps": 128, "evaluation.every": 128, "evaluation.episodes": 1}


@pytest.mark.parametrize("name", sorted(set(distppo.__all__) - {"__version__"}))
def test_every_public_name_is_documented(name: str) -> None:
    """A docstring; every argument under Args and what can go wrong under Raises; the public methods too."""
    public = getattr(distppo, name)
    methods = (
        [value for key, value in vars(public).items() if inspect.isfunction(value) and not key.startswith("_")]
        if inspect.isclass(public)
        else []
    )
    for documented in [public, *methods]:
        text = inspect.getdoc(documented)
        assert text and len(text) > 30, documented
        names = (
            [name for name in inspect.signature(documented).parameters if name not in ("self", "run")]
            if inspect.isfunction(documented)
            else []
        )
        if names:
            assert "Args:" in text and all(f"{parameter}:" in text for parameter in names), (documented, names)
    if inspect.isfunction(public):
        assert ("Raises:" in text and "UserError" in text) or "Error:" in text


def test_a_result_has_the_directory_the_rows_and_the_best_checkpoint(tmp_path: Path) -> None:
    """And what follows takes them."""
    result = train(load_config(overrides=QUICK), run_dir=str(tmp_path / "run"), total_timesteps=256, progress=False)
    assert result.run_directory == tmp_path / "run"
    assert [row["time/total_timesteps"] for row in result.metrics] == [128, 256]
    assert str(result.best_checkpoint) == result.summary["best_checkpoint"]
    assert load_policy(result.best_checkpoint).act([0.0, 0.0, 0.0]).shape == (2,)
    assert evaluate(result.run_directory, episodes=1).episodes == 1


def test_several_files_and_none_are_configurations(tmp_path: Path) -> None:
    """The later file counts, and keyword arguments over both."""
    (tmp_path / "a.yaml").write_text(distppo.config.dump_config(load_config(overrides=QUICK)))
    (tmp_path / "b.yaml").write_text("run: {seed: 4}\nrollout: {num_steps: 16}\n")
    paths = [tmp_path / "a.yaml", str(tmp_path / "b.yaml")]
    result = train(paths, seed=5, run_dir=str(tmp_path / "run"), progress=False)
    assert result.summary["seed"] == 5 and result.summary["iterations"] == 2
    with pytest.raises(ConfigError, match=r"unknown setting gama - did you mean gamma"):
        train(gama=1)


@pytest.mark.slow
@pytest.mark.ray
def test_it_runs_in_a_thread_and_twice_and_within_a_ray_of_the_caller_s(shared_ray: Any, tmp_path: Path) -> None:
    """The caller's Ray is used and left running; the second run equals the first."""
    results: list[Any] = []

    def work() -> None:
        for index in range(2):
            results.append(train(overrides=QUICK | {"rollout.num_workers": 2}, run_dir=str(tmp_path / str(index)), progress=False))

    thread = threading.Thread(target=work)
    thread.start()
    thread.join()
    first, second = (Run(result) for result in results)
    assert first.same_bits(second) and shared_ray.is_initialized()


@pytest.mark.ray
@pytest.mark.long
def test_it_starts_and_ends_ray_twice_in_a_thread_of_one_process(tmp_path: Path) -> None:
    """As a notebook's cell that is run again."""
    code = (
        "import threading, ray; from distppo import train\n"
        f"settings = {QUICK | {'rollout.num_workers': 1, 'learner.step': 'torch'}!r}\n"
        "def work():\n"
        "    for index in range(2):\n"
        "        print(train(overrides=settings, run_dir=str(index), progress=False).summary['env_steps'], ray.is_initialized())\n"
        "thread = threading.Thread(target=work); thread.start(); thread.join()\n"
    )
    command = [sys.executable, "-c", code]
    done = subprocess.run(command, cwd=tmp_path, env=environment(), capture_output=True, text=True, timeout=120, check=True)
    assert [line for line in done.stdout.splitlines() if line.startswith("128 ") and "/" not in line] == ["128 False"] * 2
    assert done.stderr == ""


def test_errors_are_of_one_family(small: Callable[..., Run]) -> None:
    """`except distppo.UserError` catches everything that the user can put right."""
    names = [name for name in distppo.__all__ if name.endswith("Error")]
    assert set(names) == {"UserError", "ConfigError", "CheckpointError", "ResourceError", "ExportError", "UntrustedCodeError"}
    assert all(issubclass(getattr(distppo, name), UserError) for name in names)


def test_a_run_writes_down_where_its_settings_come_from(tmp_path: Path) -> None:
    """Files by line, keyword arguments, and later what was given on resuming: the report shows it."""
    file = tmp_path / "small.yaml"
    file.write_text("rollout:\n  num_envs: 4\n")
    settings = {key: value for key, value in SMALL.items() if key != "rollout.num_envs"} | {"run.directory": str(tmp_path / "run")}
    result = train(file, overrides=settings, seed=3, progress=False)
    train(resume=str(result.run_directory), overrides={"run.total_timesteps": 512}, progress=False)
    first, second = (event["origins"] for event in read_log(result.run_directory / "metrics.jsonl").events if event["event"] == "started")
    assert first["rollout.num_envs"] == f"{file}:2:3" and first["run.seed"] == "seed=3" and first["ppo.epochs"] == "ppo.epochs=2"
    assert second == {"run.total_timesteps": "run.total_timesteps=512"}
    page = write_report([str(result.run_directory)]).path.read_text()
    assert f"{file}:2:3" in page and "run.total_timesteps=512, when it went on" in page
