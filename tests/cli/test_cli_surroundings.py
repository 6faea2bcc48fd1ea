"""What the command line does where its surroundings fail: no stdout, a full one, letters it lacks, a directory that is gone or locked."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from distppo.cli import main

ROOT = Path(__file__).resolve().parents[2]
LAUNCH = [sys.executable, str(ROOT / "launch.py")]


def test_a_full_disk_behind_stdout_is_one_line() -> None:
    with open("/dev/full", "w") as full:
        done = subprocess.run([*LAUNCH, "config", "schema"], stdout=full, stderr=subprocess.PIPE, text=True, timeout=60, check=False)
    assert (done.returncode, done.stderr) == (2, "error: stdout cannot be written: No space left on device\n")


def test_without_a_stdout_the_command_works() -> None:
    done = subprocess.run(["bash", "-c", '"$@" >&-', "bash", *LAUNCH, "config", "show"], stderr=subprocess.PIPE, timeout=60, check=False)
    assert (done.returncode, done.stderr) == (0, b"")


def test_letters_that_the_terminal_lacks_are_escaped(tmp_path: Path) -> None:
    """A message with a name that cannot be printed ends nothing."""
    (tmp_path / "é.yaml").write_text("{}\n")
    env = os.environ | {"PYTHONIOENCODING": "ascii"}
    done = subprocess.run([*LAUNCH, "config", "check", "é.yaml"], cwd=tmp_path, env=env, capture_output=True, timeout=60, check=False)
    assert done.returncode == 0 and b"\\xe9.yaml" in done.stdout and done.stderr == b""


def test_help_works_in_a_directory_that_is_gone(tmp_path: Path) -> None:
    gone = tmp_path / "gone"
    gone.mkdir()
    script = 'rmdir "$PWD"; exec "$@"'
    done = subprocess.run(
        ["bash", "-c", script, "bash", *LAUNCH, "--help"], cwd=gone, capture_output=True, text=True, timeout=60, check=False
    )
    assert done.returncode == 0 and done.stdout.startswith("usage:") and done.stderr == ""


@pytest.mark.parametrize(
    "argv", [["watch"], ["evaluate"], ["export"], ["config", "diff", "x"], ["train", "--resume"], ["tune", "--resume"]]
)
def test_a_name_that_is_too_long_is_one_line(argv: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    """As is a folder that may not be looked into."""
    assert main([*argv, "x" * 300]) == 2
    error = capsys.readouterr().err
    assert error.startswith("error: ") and "Traceback" not in error and len(error.splitlines()) == 1


def test_a_folder_that_may_not_be_looked_into_is_one_line(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    def locked(argv: list[str]) -> int:
        raise PermissionError(13, "Permission denied", "locked/run/config.yaml")

    monkeypatch.setattr("distppo.cli.run_command", locked)
    assert main(["watch", "locked/run"]) == 2
    assert capsys.readouterr().err == "error: locked/run/config.yaml: Permission denied\n"


def test_an_exit_in_a_user_s_module_is_no_success(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """A script without a guard, named as a module."""
    (tmp_path / "leaves.py").write_text("import sys\nsys.exit(0)\n")
    monkeypatch.syspath_prepend(tmp_path)
    assert main(["train", "--env", "leaves:Env", "--num-workers", "0", "--run-dir", str(tmp_path / "run")]) == 2
    error = capsys.readouterr().err
    assert "importing 'leaves' failed" in error and "SystemExit: 0" in error


def test_any_other_exit_is_no_success_either(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    """Only the parser ends a command by itself."""
    monkeypatch.setattr("distppo.cli.run_command", lambda argv: sys.exit(0))
    assert main(["train"]) == 2
    assert "ended the command with sys.exit(0)" in capsys.readouterr().err


def test_many_problems_are_counted_before_they_are_shortened(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """In one file, and in several."""
    text = "ppo:\n" + "".join(f"  unknown_{number}: 1\n" for number in range(100))
    for name in ("a.yaml", "b.yaml"):
        (tmp_path / name).write_text(text)
    assert main(["config", "check", str(tmp_path / "a.yaml")]) == 2
    assert capsys.readouterr().err.startswith("error: 100 problems:\n")
    assert main(["config", "check", str(tmp_path / "a.yaml"), str(tmp_path / "b.yaml")]) == 2
    assert capsys.readouterr().err.startswith("error: 200 problems:\n")
