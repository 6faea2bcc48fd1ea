"""Wrong input to `train`: exit code 2, one message with value, place and way out, and nothing started."""

from __future__ import annotations

import socket
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from runtime.running import Run, environment

from distppo.cli import main
from distppo.config import load_config
from distppo.errors import UserError
from distppo.runtime import train as train_module
from distppo.runtime.run_directory import RunDirectory, new_run_directory

HOLDER = """
import pathlib, time
from distppo.runtime.run_directory import RunDirectory
with RunDirectory(pathlib.Path("run"), continued=False):
    print("ready", flush=True)
    time.sleep(60)
"""


@pytest.fixture
def refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Callable[..., str]:
    """Runs `train` in an empty directory and returns its message; fails if it starts anything or leaves anything."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(train_module, "_backend", lambda *_: pytest.fail("something was started"))

    def run(arguments: str) -> str:
        before = sorted(tmp_path.rglob("*"))
        assert main(["train", *arguments.split()]) == 2
        captured = capsys.readouterr()
        assert captured.out == "" and captured.err.startswith("error: ") and "Traceback" not in captured.err
        assert sorted(tmp_path.rglob("*")) == before
        return captured.err

    return run


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ("--env HalfCheeta-v4", "env.id 'HalfCheeta-v4': no environment 'HalfCheeta-v4' is registered - did you mean HalfCheetah-v5"),
        ("--env no_such_module:X-v0", "env.id 'no_such_module:X-v0': No module named 'no_such_module'"),
        ("--env probe_envs:Point-v0 --set env.kwargs.lenght=3", "env.kwargs.lenght: probe_envs:Point-v0 does not take it - did you mean"),
        ("--env probe_envs:Drawn-v0 --set env.kwargs.observation=text", "has observations Text("),
        ("--env probe_envs:Drawn-v0 --set env.kwargs.action=mapping", "has actions Dict("),
        ("--num-steps 100", "batch 800 = 8 envs x 100 steps is not a multiple of mini_batch_size 64"),
        ("--num-workers 9", "--num-workers 9  num_workers 9 > num_envs 8: 1 workers would have no environment; use at most 8, or auto"),
        ("--num-workers 0 --address auto", "--address auto needs Ray, which rollout.num_workers 0 does without"),
    ],
)
def test_what_cannot_work_is_told_before_anything_starts(arguments: str, message: str, refused: Callable[..., str]) -> None:
    """No run directory is made for it either."""
    assert message in refused(arguments)


def test_a_directory_that_cannot_be_one_is_told(refused: Callable[..., str], tmp_path: Path) -> None:
    """A file in the way, at the end of the path or in the middle of it, and a place where nothing can be made."""
    (tmp_path / "file").touch()
    assert "run directory file: a file is in the way; choose another with --run-dir" in refused("--run-dir file")
    assert "run directory file/run: a file is in the way" in refused("--run-dir file/run")
    assert "run directory /proc/run: No such file or directory; choose another" in refused("--run-dir /proc/run")


def test_a_directory_in_use_is_told_with_its_user(refused: Callable[..., str], tmp_path: Path) -> None:
    """Two runs never write into one directory; the lock goes with the process, whatever ended it."""
    holder = subprocess.Popen([sys.executable, "-c", HOLDER], cwd=tmp_path, env=environment(), stdout=subprocess.PIPE, text=True)
    assert holder.stdout is not None and holder.stdout.readline() == "ready\n"
    user = f"process {holder.pid} on {socket.gethostname()}"
    message = f"run directory run is in use by {user}; wait for it, or choose another with --run-dir"
    assert message in refused("--run-dir run")
    holder.kill()
    holder.wait()
    with RunDirectory(tmp_path / "run", continued=False):
        pass


def test_runs_of_the_same_second_get_directories_of_their_own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """runs/<env>-seed<k>-<time>, and a number behind it for those that come later."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("distppo.runtime.run_directory.time.strftime", lambda _: "20260101-000000")
    config = load_config(env="probe_envs:Point-v0", seed=3)
    paths = [str(new_run_directory(config)) for _ in range(3)]
    first = "runs/probe_envs_Point-v0-seed3-20260101-000000"
    assert paths == [first, f"{first}-2", f"{first}-3"]
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "elsewhere" / "runs").touch()
    monkeypatch.chdir(tmp_path / "elsewhere")
    with pytest.raises(UserError, match="a file is in the way; choose another with --run-dir"):
        new_run_directory(config)


def test_a_directory_with_another_run_is_told(refused: Callable[..., str], trained: Run) -> None:
    """With the command that continues that run."""
    message = refused(f"--run-dir {trained.directory}")
    assert f"run directory {trained.directory} already holds a run" in message and f"--resume {trained.directory}" in message


def test_a_config_file_of_the_users_is_not_written_over(refused: Callable[..., str], tmp_path: Path) -> None:
    """`--config exp/config.yaml --run-dir exp` would replace it, comments and all."""
    (tmp_path / "exp").mkdir()
    (tmp_path / "exp" / "config.yaml").write_text("ppo: {gamma: 0.9}  # why\n")
    assert "run directory exp holds a config.yaml that is not a run's" in refused("--config exp/config.yaml --run-dir exp")


def test_a_process_says_it_in_one_line(launch: Callable[..., subprocess.CompletedProcess[str]], tmp_path: Path) -> None:
    """The whole way through launch.py."""
    done = launch("train", "--env", "Walker-v4")
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr == "error: env.id 'Walker-v4': no environment 'Walker-v4' is registered - did you mean Walker2d-v5 or Walker2d-v4?\n"
    assert list(tmp_path.iterdir()) == []
