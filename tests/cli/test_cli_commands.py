"""Finding a command, help, version, `config`, the top-level names, and what a bare process does."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

import distppo
from distppo.cli import main
from distppo.cli.commands import COMMANDS
from distppo.cli.missing import explain_missing
from distppo.cli.settings import FLAGS
from distppo.config import load_config
from distppo.config.fields import FIELDS

ROOT = Path(__file__).parents[2]
NAMES = ", ".join(command.name for command in COMMANDS)
HEAVY = ("torch", "ray", "numpy", "gymnasium", "numba", "rich")


def run(*argv: str, python_flags: tuple[str, ...] = ()) -> subprocess.CompletedProcess[str]:
    """Runs launch.py as a user does, from another directory."""
    command = [sys.executable, *python_flags, str(ROOT / "launch.py"), *argv]
    return subprocess.run(command, capture_output=True, text=True, cwd="/", timeout=60, check=False)


@pytest.mark.parametrize(
    ("argv", "message"),
    [
        ([], f"a command is missing: {NAMES}"),
        (["trian"], "unknown command trian - did you mean train?"),
        (["xyzzy"], f"unknown command xyzzy; there are {NAMES}"),
        (["--env", "Hopper-v4"], "the command comes first, as in: distppo train --env"),
        (["config"], "a command is missing: show, check"),
        (["config", "shwo"], "unknown command shwo - did you mean show?"),
        (["config", "check"], "the following arguments are required: FILE"),
    ],
)
def test_an_unknown_command_is_told(argv: list[str], message: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(argv) == 2
    captured = capsys.readouterr()
    assert captured.err.startswith(f"error: {message}") and captured.out == ""


@pytest.mark.parametrize("argv", [["--help"], ["-h"], ["config", "--help"], *([command.name, "--help"] for command in COMMANDS)])
def test_help_is_for_every_command(argv: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    assert main(argv) == 0
    captured = capsys.readouterr()
    assert captured.out.startswith("usage: distppo") and captured.err == ""


def test_help_of_train_shows_the_schemas_meaning_and_default_of_every_flag(capsys: pytest.CaptureFixture[str]) -> None:
    main(["train", "--help"])
    shown = " ".join(capsys.readouterr().out.split())
    for flag in (flag for flags in FLAGS.values() for flag in flags):
        assert flag.name in shown and FIELDS[flag.key].doc in shown
    for text in (
        "(default: 8)",
        "(default: auto)",
        "(default: HalfCheetah-v4)",
        "(default: 0.0003)",
        "Env steps",
        "--resume [latest|RUN|PATH|URL]",
    ):
        assert text in shown


def test_version(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--version"]) == 0
    assert capsys.readouterr().out == f"distppo {distppo.__version__}\n"


def test_config_show_prints_what_loads_to_the_same(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["config", "show", "--set", "ppo.gamma=0.9", "--num-envs", "16"]) == 0
    path = tmp_path / "a.yaml"
    path.write_text(capsys.readouterr().out)
    assert load_config(path) == load_config(gamma=0.9, num_envs=16)


def test_config_show_explain_names_file_flag_set_and_default(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "a.yaml"
    path.write_text("ppo:\n  epochs: 3\n")
    assert main(["config", "show", "--config", str(path), "--num-envs", "16", "--set", "ppo.gamma=0.9", "--explain"]) == 0
    origins = dict(line.strip().split("  # ") for line in capsys.readouterr().out.splitlines() if "#" in line)
    origins = {key.strip(): origin for key, origin in origins.items()}
    assert origins["epochs: 3"] == f"{path}:2:3"
    assert origins["num_envs: 16"] == "--num-envs 16"
    assert origins["gamma: 0.9"] == "--set ppo.gamma=0.9"
    assert origins["num_steps: 2048"] == "default"


def test_config_check_says_ok_or_everything_that_is_wrong(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    good, bad, worse = (tmp_path / name for name in ("good.yaml", "bad.yaml", "worse.yaml"))
    good.write_text("ppo: {gamma: 0.9}\n")
    bad.write_text("ppo: {gama: 0.9}\n")
    worse.write_text("ppo: {epochs: 0}\nrollout: {num_workers: 12}\n")
    assert main(["config", "check", str(good)]) == 0
    assert capsys.readouterr().out == f"{good}: ok\n"
    assert main(["config", "check", str(bad), str(good), str(worse)]) == 2
    captured = capsys.readouterr()
    assert captured.out == f"{good}: ok\n"
    places = [line.strip().split("  ")[0] for line in captured.err.splitlines()]
    assert places == ["error: 3 problems:", f"{bad}:1:7", f"{worse}:1:7", f"{worse}:2:11"]


@pytest.mark.parametrize(
    "argv", [["--help"], ["train", "--help"], ["evaluate", "--help"], ["export", "--help"], ["env", "check", "--help"], ["config", "show"]]
)
def test_help_imports_nothing_heavy(argv: list[str]) -> None:
    code = f"import sys; from distppo.cli import main; main({argv}); print(sorted(set({HEAVY}) & set(sys.modules)))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=ROOT, timeout=60, check=True)
    assert done.stdout.splitlines()[-1] == "[]"


def test_the_package_offers_its_names_and_imports_nothing_heavy_for_it() -> None:
    code = f"import sys, distppo; print(set(distppo.__all__) <= set(dir(distppo)), set({HEAVY}) & set(sys.modules))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=ROOT, timeout=60, check=True)
    assert done.stdout == "True set()\n"
    assert {"Config", "__version__", "evaluate", "export_policy", "load_config", "load_policy", "train"} <= set(distppo.__all__)
    assert distppo.load_config(num_envs=4).rollout.num_envs == 4
    with pytest.raises(AttributeError, match="no attribute 'trian'"):
        distppo.trian  # noqa: B018


def test_launch_ends_with_2_and_no_traceback_for_a_mistake() -> None:
    done = run("train", "--num-envs", "0")
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr == "error: --num-envs 0  rollout.num_envs must be at least 1 and at most 1048576, got 0\n"


def test_launch_and_the_module_are_the_same_program() -> None:
    by_file = run("config", "show")
    by_module = subprocess.run(
        [sys.executable, "-m", "distppo", "config", "show"], capture_output=True, text=True, cwd=ROOT, timeout=60, check=True
    )
    assert by_file.stdout == by_module.stdout != ""


def test_the_hint_can_be_pasted_back() -> None:
    done = run("train", "--num-env", "8")
    hint = done.stderr.rpartition("(see ")[2].removesuffix(")\n")
    shown = subprocess.run(hint, shell=True, capture_output=True, text=True, cwd="/", timeout=60, check=True)
    assert "--num-envs" in shown.stdout


def test_a_missing_package_is_one_line_with_the_way_out(tmp_path: Path) -> None:
    # -S: no site-packages, so that no package is there; the standard library still is.
    done = run("train", python_flags=("-S",))
    assert done.returncode == 2
    assert done.stderr.startswith("error: the Python package pyyaml is not installed: ") and done.stderr.count("\n") == 1
    assert run("--help", python_flags=("-S",)).returncode == 0


def test_only_packages_of_ours_are_explained() -> None:
    assert "ray[default,tune]" in (explain_missing("ray.tune") or "")
    assert explain_missing("somebody_elses") is None
    assert explain_missing("distppo.nowhere") is None


@pytest.mark.parametrize("unbuffered", ["", "1"])
def test_a_reader_that_leaves_is_no_error(unbuffered: str) -> None:
    read, write = os.pipe()
    os.close(read)
    with os.fdopen(write, "w") as closed:
        done = subprocess.run(
            [sys.executable, str(ROOT / "launch.py"), "config", "show"],
            stdout=closed,
            env=os.environ | {"PYTHONUNBUFFERED": unbuffered},
            stderr=subprocess.PIPE,
            text=True,
            timeout=60,
            check=False,
        )
    assert (done.returncode, done.stderr) == (141, "")


def test_a_pipe_that_breaks_elsewhere_is_not_hidden(monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(argv: list[str]) -> int:
        raise BrokenPipeError("a worker's pipe")

    monkeypatch.setattr("distppo.cli.run_command", fail)
    with pytest.raises(BrokenPipeError, match="worker"):
        main(["train"])
