"""What the README shows is what happens: its commands run, its examples run, its numbers are in a stored result."""

from __future__ import annotations

import contextlib
import io
import json
import os
import re
import shlex
from pathlib import Path

import numpy as np
import pytest

from distppo.cli import main
from distppo.envs.renderer import BACKENDS, probe_backend

ROOT = Path(__file__).resolve().parent.parent
README = (ROOT / "README.md").read_text(encoding="utf-8")
BLOCKS = re.findall(r"```(\w*)\n(.*?)```", README, flags=re.DOTALL)
COMMANDS = [
    line.split("#")[0].strip().removeprefix("python launch.py ")
    for language, text in BLOCKS
    if not language
    for line in text.splitlines()
    if line.startswith("python launch.py")
]
SHORT = ["--num-workers", "0", "--num-steps", "64", "--total-timesteps", "1", "--no-progress", "--set", "evaluation.every=0"]
SHORT += ["--set", "ppo.mini_batch_size=64", "--set", "ppo.epochs=1"]


@pytest.fixture(scope="module")
def project(tmp_path_factory):
    """A folder with the configs and a finished run, as a user has it; the current directory while its tests run."""
    folder = tmp_path_factory.mktemp("project")
    (folder / "configs").symlink_to(ROOT / "configs")
    with contextlib.chdir(folder):
        run("train --run-dir runs/my-run", SHORT)
        yield folder


def run(command: str, more: list[str] | None = None) -> str:
    """Runs a command line in this process; returns what it prints to stdout. Later flags count over earlier ones."""
    output = io.StringIO()
    with contextlib.redirect_stdout(output):
        assert main([*shlex.split(command), *(more or [])]) == 0
    return output.getvalue()


@pytest.mark.parametrize("command", [command for command in COMMANDS if command.startswith("train ") and "clip_epsilom" not in command])
def test_a_train_command_trains(project, command):
    continues = "--resume" in command or "--checkpoint" in command
    more = [*SHORT, "--total-timesteps", "100000000"] if continues else SHORT
    if continues:
        more = ["--total-timesteps", "1", "--no-progress"]  # has its total already: says so
    assert re.search(r"finished: [\d,]+ env steps", run(command, more))


@pytest.mark.parametrize("command", [command for command in COMMANDS if command.startswith("evaluate ")])
def test_an_evaluate_command_evaluates(project, command):
    more = ["--episodes", "1"]
    if "--record" in command:
        if all(probe_backend(name).problem for name in BACKENDS):
            pytest.skip("neither libEGL nor libOSMesa draws on this machine")
        more += ["--seconds", "0.2", "--size", "64x48"]
    output = run(command, more)
    if "--json" in command:
        assert {"return_mean", "return_std", "length_mean", "episodes", "seed", "deterministic"} <= json.loads(output).keys()
    else:
        assert "mean" in output


@pytest.mark.parametrize("command", [command for command in COMMANDS if command.startswith("export ")])
def test_an_export_command_exports(project, command):
    assert "over 1,000 observations: 0.0e+00" in run(command)


def test_the_mistakes_shown_are_answered_as_shown(capsys):
    (block,) = [text for _, text in BLOCKS if "clip_epsilom" in text]
    command, _, expected = block.partition("\n")
    assert main(shlex.split(command.removeprefix("$ python launch.py "))) == 2
    assert capsys.readouterr().err == expected


def test_the_python_example_runs(project, monkeypatch):
    (example,) = [text for language, text in BLOCKS if language == "python"]
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    short = example.replace("total_timesteps=100_000, num_workers=2", "total_timesteps=1, num_workers=0, num_steps=8, progress=False")
    short = short.replace("episodes=5", "episodes=1")
    assert short.count("=1") >= 2
    names = {"observation": np.zeros(17)}
    exec(short, names)
    assert names["action"].shape == (6,)
    assert names["result"].summary["env_steps"] == 512


def test_the_quickstart_s_output_is_the_end_of_a_stored_run():
    stored = (ROOT / "benchmarks/results/quickstart.txt").read_text(encoding="utf-8")
    (shown,) = [text for _, text in BLOCKS if text.startswith("finished: ")]
    assert stored.rstrip().endswith(shown.rstrip())


def test_the_speed_table_is_that_of_a_stored_result():
    import throughput

    results = [json.loads(path.read_text(encoding="utf-8")) for path in (ROOT / "benchmarks/results").glob("throughput-*.json")]
    assert any(throughput.markdown(result).strip() in README for result in results)


def test_every_file_that_is_linked_exists():
    links = re.findall(r"\]\(([^)#:]+)\)", README)
    assert len(links) > 4
    assert [link for link in links if not os.path.exists(ROOT / link)] == []
