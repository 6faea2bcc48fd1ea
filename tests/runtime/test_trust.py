"""A stranger's checkpoint or run folder: nothing it names is imported, nothing is written through it, until its user says so."""

from __future__ import annotations

import os
import shutil
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import gymnasium as gym
import numpy as np
import pytest
from runtime.running import SMALL, Run

from distppo import evaluate, load_policy
from distppo.checkpoint import CheckpointStore, list_checkpoints, load_checkpoint
from distppo.cli import main
from distppo.config.trust import TRUST_VARIABLE, UntrustedCodeError
from distppo.errors import UserError
from distppo.runtime.run_directory import RunDirectory
from distppo.runtime.train import train

MODULE = """
import pathlib
import gymnasium
from probe_envs import Point
pathlib.Path(__file__).with_name("ran").touch()
gymnasium.register("Theirs-v0", entry_point=Point, max_episode_steps=20)
"""


@pytest.fixture
def stranger(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """Where the module `theirs` leaves the file `ran` when it is imported; it can be, but has not been."""
    monkeypatch.delenv(TRUST_VARIABLE)
    (tmp_path / "theirs.py").write_text(MODULE)
    monkeypatch.syspath_prepend(tmp_path)
    yield tmp_path / "ran"
    sys.modules.pop("theirs", None)
    gym.registry.pop("Theirs-v0", None)


@pytest.fixture
def theirs(trained: Run, tmp_path: Path) -> Path:
    """A run whose checkpoint and config.yaml say that it was trained in `theirs:Theirs-v0`."""
    run = tmp_path / "downloaded"
    shutil.copytree(trained.directory, run)
    loaded = load_checkpoint(list_checkpoints(run)[-1].path)
    loaded.state["config"]["env"]["id"] = "theirs:Theirs-v0"
    loaded.state["config"]["run"]["total_timesteps"] = 512
    shutil.rmtree(run / "checkpoints")
    CheckpointStore(run, 2).save(iteration=3, env_steps=384, arrays=loaded.arrays, state=loaded.state)
    (run / "config.yaml").write_text((run / "config.yaml").read_text().replace("probe_envs:Point-v0", "theirs:Theirs-v0"))
    return run


@pytest.mark.parametrize("command", [["evaluate", "{run}", "--episodes", "1"], ["train", "--resume", "{run}", "--no-progress"]])
@pytest.mark.parametrize("name", [["--env", "theirs:Theirs-v0"], ["--trust", "theirs:Theirs-v0"]])
def test_a_checkpoint_alone_imports_nothing_and_says_what_to_type(
    command: list[str], name: list[str], theirs: Path, stranger: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Exit code 2 and one message; what it says to type works, and so does naming the environment."""
    argv = [part.format(run=theirs) for part in command]
    assert main(argv) == 2
    message = capsys.readouterr().err
    assert message.startswith("error: ") and "env.id: theirs:Theirs-v0" in message and "--trust theirs:Theirs-v0" in message
    assert not stranger.exists() and "theirs" not in sys.modules
    assert main([*argv, *name]) == 0
    assert stranger.exists()


def test_a_configuration_of_the_users_own_names_it_too(theirs: Path, stranger: Path, tmp_path: Path) -> None:
    (tmp_path / "mine.yaml").write_text("env:\n  id: theirs:Theirs-v0\n")
    train(tmp_path / "mine.yaml", resume=str(theirs), progress=False)
    assert stranger.exists()


def test_a_run_folder_without_a_checkpoint_imports_nothing_either(theirs: Path, stranger: Path) -> None:
    """Its config.yaml is as much a stranger's as a checkpoint is."""
    shutil.rmtree(theirs / "checkpoints")
    with pytest.raises(UntrustedCodeError, match=r"config\.yaml names code"):
        train(resume=str(theirs), progress=False)
    assert not stranger.exists()


def test_another_environment_and_a_policy_alone_need_none_of_its_code(theirs: Path, stranger: Path) -> None:
    """What is not loaded need not be trusted."""
    assert evaluate(theirs, env="probe_envs:Point-v0", episodes=1).episodes == 1
    assert load_policy(theirs).act(np.zeros(3)).shape == (2,)
    assert not stranger.exists()


@pytest.mark.parametrize("name", [".lock", "metrics.jsonl", "progress.csv", "summary.json", "config.yaml", "checkpoints", "tensorboard"])
def test_nothing_is_written_through_a_link_in_a_run_folder(name: str, trained: Run, tmp_path: Path) -> None:
    """A run goes on in its folder alone; what a link in it leads to stays as it was."""
    run, outside = tmp_path / "run", tmp_path / "outside"
    shutil.copytree(trained.directory, run)
    if (run / name).exists():
        (run / name).rename(outside)
    else:
        outside.write_text("precious")
    before = contents(outside)
    (run / name).symlink_to(outside)
    with pytest.raises(UserError, match=rf"{name}(:| in it is) a link"):
        train(resume=str(run), overrides={"run.total_timesteps": 512}, progress=False)
    assert contents(outside) == before


def contents(path: Path) -> dict[Path, bytes]:
    return {file: file.read_bytes() for file in [path, *path.rglob("*")] if file.is_file()}


def test_a_strangers_file_names_do_not_reach_the_terminal(trained: Run, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """A name can hold what clears a screen or writes a title; messages show it escaped."""
    run = tmp_path / "run\x1b[2J"
    shutil.copytree(trained.directory, run)
    (run / "checkpoints" / "ckpt_00000003" / "state.json").write_text("")
    assert main(["evaluate", str(run)]) == 2
    message = capsys.readouterr().err
    assert "\x1b" not in message and "run\\x1b[2J" in message and "state.json: cut short" in message


def test_a_pipe_in_a_run_folder_is_refused_and_not_waited_for(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "metrics.jsonl")
    with pytest.raises(UserError, match=r"metrics\.jsonl in it is neither a file nor a folder"):
        RunDirectory(tmp_path, continued=True)


@pytest.mark.parametrize(
    ("section", "key", "value", "message"),
    [
        ("learner", "version", 1.5, "learner is not as distppo writes it"),
        ("learner", "gradient_steps", -1, "learner is not as distppo writes it"),
        ("learner", "learning_rate", "fast", "learner is not as distppo writes it"),
        ("progress", "env_steps", True, "progress is not as distppo writes it"),
        ("progress", "iteration", 10**30, "progress is not as distppo writes it"),
        ("progress", "episodes", {"episodes": [[1]]}, "progress is not as distppo writes it"),
        ("progress", "surprise", 1, "progress is not as distppo writes it"),
        ("progress", "best_evaluation", {"return_mean": 1.0}, "best_evaluation is not a mean return and its env steps"),
        ("progress", "best_evaluation", [["return_mean", 1.0], ["env_steps", 1]], "best_evaluation is not a mean return"),
        ("progress", "unevaluated", {"time/total_timesteps": 1}, "unevaluated is not the newest row"),
        ("progress", "unevaluated", {"event": "x", "time/total_timesteps": 384}, "unevaluated is not the newest row"),
        ("progress", "unevaluated", ["x"], "unevaluated is not the newest row"),
        ("env_spec", "observation_shape", [2**40, 2**40], "env_spec is not as distppo writes it"),
        ("env_spec", "id", ["found by fuzzing"], "env_spec is not as distppo writes it"),
        ("env_spec", "id", "\x1b[2J", "env_spec is not as distppo writes it"),
        ("env_spec", "max_episode_steps", 1e300, "env_spec is not as distppo writes it"),
        ("env_spec", "action_low", [0.0], "env_spec is not as distppo writes it"),
        ("env_spec", "observation_shape", [4], "do not fit its own config"),
        ("config", "network", {"hidden_sizes": [100_000, 100_000]}, "do not fit its own config"),
    ],
)
def test_values_that_no_run_writes_are_refused_before_anything_of_their_size_is_made(
    section: str, key: str, value: Any, message: str, trained: Run, tmp_path: Path
) -> None:
    loaded = load_checkpoint(list_checkpoints(trained.directory)[-1].path)
    loaded.state[section][key] = value
    run = tmp_path / "run"
    CheckpointStore(run, 2).save(iteration=3, env_steps=384, arrays=loaded.arrays, state=loaded.state)
    with pytest.raises(UserError, match=message):
        train(overrides={"run.total_timesteps": 512}, resume=str(run), progress=False)


@pytest.mark.parametrize(
    ("name", "change", "message"),
    [
        ("parameters", lambda array: array.astype(np.float64), "not float32"),
        ("parameters", lambda array: array * np.nan, "not finite"),
        ("parameters", lambda array: array[1:], "do not fit its own config"),
        ("obs_moments/m2", lambda array: -array, "negative where they cannot be"),
        ("obs_moments/count", lambda array: np.zeros(3), "do not fit each other"),
        ("obs_moments/mean", lambda array: array.astype(np.float32), "not float64"),
    ],
)
def test_arrays_that_no_learner_arrives_at_are_refused(name: str, change: Any, message: str, trained: Run, tmp_path: Path) -> None:
    loaded = load_checkpoint(list_checkpoints(trained.directory)[-1].path)
    loaded.arrays["learner"][name] = change(loaded.arrays["learner"][name])
    path = CheckpointStore(tmp_path, 2).save(iteration=3, env_steps=384, arrays=loaded.arrays, state=loaded.state)
    with pytest.raises(UserError, match=message):
        load_policy(path)


def test_the_settings_of_a_small_run_name_its_environment(trained: Run) -> None:
    assert trained.result.code == (SMALL["env.id"],)
