"""What `train` passes on, how it ends, and what it says about wrong arguments."""

from __future__ import annotations

import signal
import sys
from collections.abc import Callable
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import pytest

from distppo.cli import main
from distppo.config import Config, Overrides, apply_overrides, load_config
from distppo.errors import ResourceError

Trainer = Callable[..., dict[str, Any]]
SUMMARY = {"env_steps": 1_000_000, "episode_return_first": -200.0, "episode_return_mean": 5784.25, "env_steps_per_second": 9876.5}


@pytest.fixture
def calls(monkeypatch: pytest.MonkeyPatch) -> list[dict[str, Any]]:
    """What the command line calls the trainer with; nothing is trained."""
    seen: list[dict[str, Any]] = []
    install(monkeypatch, lambda config, **others: seen.append({"config": config, **others}) or result())
    return seen


def install(monkeypatch: pytest.MonkeyPatch, train: Callable[..., Any]) -> None:
    module = ModuleType("distppo.runtime.train")
    module.train = train  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "distppo.runtime.train", module)


def result(signal_number: int | None = None) -> SimpleNamespace:
    return SimpleNamespace(run_directory=Path("runs/a b"), summary=SUMMARY, signal=signal_number, code=(), storage=None)


def test_without_arguments_the_default_is_trained(calls: list[dict[str, Any]]) -> None:
    assert main(["train"]) == 0
    assert calls == [{"config": Config(), "resume": None, "address": None, "trust": [], "progress": None, "overrides": Overrides()}]


def test_every_flag_sets_its_setting(calls: list[dict[str, Any]]) -> None:
    command = (
        "train --env Walker2d-v4 --total-timesteps 3e6 --learning-rate 1e-3 --num-envs 16 --num-workers 2 --num-steps 128 "
        "--mode overlap --lr-schedule cosine --seed 7 --run-dir out/x --address host:6379 "
        "--no-progress --set ppo.gamma=0.9 ppo.epochs=3 --set ppo.gamma=0.8"
    )
    assert main(command.split()) == 0
    (call,) = calls
    assert call["config"] == load_config(
        env="Walker2d-v4", total_timesteps=3_000_000, learning_rate=1e-3, num_envs=16, num_workers=2, num_steps=128, mode="overlap",
        lr_schedule="cosine", seed=7, run_dir="out/x", gamma=0.8, epochs=3,
    )  # fmt: skip
    assert (call["address"], call["progress"]) == ("host:6379", False)


def test_files_then_flags_then_set(calls: list[dict[str, Any]], tmp_path: Path) -> None:
    (tmp_path / "a.yaml").write_text("rollout: {num_envs: 2, num_steps: 128}\nppo: {epochs: 2}\n")
    (tmp_path / "b.yaml").write_text("rollout: {num_envs: 4}\nrun: {seed: 3}\n")
    argv = ["train", "--set", "run.seed=5", "--num-envs=16", "--config", str(tmp_path / "a.yaml"), str(tmp_path / "b.yaml"), "--seed", "4"]
    assert main(argv) == 0
    assert calls[0]["config"] == load_config(num_envs=16, num_steps=128, epochs=2, seed=5)
    assert calls[0]["overrides"].origins() == {
        "rollout.num_envs": "--num-envs 16",
        "rollout.num_steps": f"{tmp_path}/a.yaml:1:24",
        "ppo.epochs": f"{tmp_path}/a.yaml:2:7",
        "run.seed": "--set run.seed=5",
    }


@pytest.mark.parametrize(
    ("argv", "resume"),
    [(["--resume"], "latest"), (["--resume", "runs/a"], "runs/a"), (["--resume=runs/a"], "runs/a"), (["--checkpoint", "ckpt_3"], "ckpt_3")],
)
def test_both_ways_to_continue_are_one(argv: list[str], resume: str, calls: list[dict[str, Any]]) -> None:
    assert main(["train", *argv, "--num-workers", "12"]) == 0  # more than the default's environments, not than the run's
    assert calls[0]["resume"] == resume
    saved = load_config(num_envs=16, gamma=0.5)
    assert apply_overrides(saved, calls[0]["overrides"]) == load_config(num_envs=16, gamma=0.5, num_workers=12)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ("--num-env 8", "unknown flag --num-env - did you mean --num-envs?"),
        ("--num-env=8 --sed 3", "unknown flag --num-env - did you mean --num-envs?; unknown flag --sed - did you mean --seed?"),
        ("--total 3e6", "unknown flag --total"),
        ("-x", "unknown flag -x"),
        ("HalfCheetah-v4", "unexpected argument 'HalfCheetah-v4'"),
        ("--num-envs", "argument --num-envs: expected one argument"),
        ("--checkpoint a --resume", "--checkpoint a and --resume latest both name what to continue from: give one"),
        ("--checkpoint=", "what to continue from is empty"),
        ("--num-envs 0", "--num-envs 0  rollout.num_envs must be at least 1 and at most 1048576, got 0"),
        ("--num-envs many", "--num-envs many  rollout.num_envs must be a whole number, got 'many'"),
        ("--total-timesteps 1.5", "--total-timesteps 1.5  run.total_timesteps must be a whole number, got '1.5'"),
        ("--learning-rate nan", "--learning-rate nan  ppo.learning_rate must be a finite number, got 'nan'"),
        ("--mode snyc", "--mode snyc  rollout.mode must be sync or overlap, got 'snyc' - did you mean sync?"),
        ("--seed -1", "--seed -1  run.seed must be at least 0"),
        ("--num-workers 12", "--num-workers 12  num_workers 12 > num_envs 8"),
        ("--num-steps 4", "--num-steps 4  mini_batch_size 64 is larger than the batch 32 = 8 envs x 4 steps"),
        ("--set ppo.clip_epsilom=1", "--set ppo.clip_epsilom=1  unknown key ppo.clip_epsilom - did you mean ppo.clip_epsilon?"),
        ("--set ppo.gamma", "--set ppo.gamma  must be key=value"),
        ("--config nowhere.yaml", "nowhere.yaml  no such file"),
        ("--resume --num-envs 0", "--num-envs 0  rollout.num_envs must be at least 1"),
    ],
)
def test_a_wrong_argument_is_told_and_nothing_is_trained(
    arguments: str, message: str, calls: list[dict[str, Any]], capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["train", *arguments.split()]) == 2
    captured = capsys.readouterr()
    assert captured.err.startswith(f"error: {message}") and captured.err.count("\n") == 1
    assert captured.out == "" and calls == []


def test_all_problems_of_all_sources_come_in_one_list(
    calls: list[dict[str, Any]], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file = tmp_path / "a.yaml"
    file.write_text("ppo:\n  epochs: ten\n")
    assert main(["train", "--config", str(file), "--num-envs", "0", "--set", "ppo=1"]) == 2
    lines = capsys.readouterr().err.splitlines()
    assert lines[0] == "error: 3 problems:"
    assert [line.strip().split("  ")[0] for line in lines[1:]] == [f"{file}:2:3", "--num-envs 0", "--set ppo=1"]


def test_the_end_says_what_was_reached_and_where(calls: list[dict[str, Any]], capsys: pytest.CaptureFixture[str]) -> None:
    main(["train"])
    assert capsys.readouterr().out.splitlines() == [
        "finished: 1,000,000 env steps, episode return -200.0 -> 5,784.2, 9,876 env steps/s",
        "run directory:   runs/a b",
        "report with:     distppo report 'runs/a b'",
    ]


def test_a_report_that_cannot_be_written_spoils_no_training(calls: list[dict[str, Any]], capsys: pytest.CaptureFixture[str]) -> None:
    """The run is trained; what is missing and how to get it stands below."""
    assert main(["train", "--report"]) == 0
    out = capsys.readouterr().out.splitlines()
    assert out[2].startswith("no report:       'runs/a b' is neither a folder nor a run") and out[3].endswith("report 'runs/a b'")


def test_a_signal_is_the_exit_code_and_the_way_on_is_printed(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    install(monkeypatch, lambda config, **others: result(signal.SIGTERM))
    assert main(["train"]) == 143
    out = capsys.readouterr().out
    assert out.startswith("interrupted: ") and out.endswith("continue with:   distppo train --resume 'runs/a b'\n")


def test_the_way_on_names_the_code_that_has_to_be_named_again_and_is_safe_to_paste(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    ended = result(signal.SIGTERM)
    ended.code = ("mine:Env-v0", "x:y; rm -r ~")
    install(monkeypatch, lambda config, **others: ended)
    assert main(["train"]) == 143
    assert capsys.readouterr().out.endswith("--resume 'runs/a b' --trust mine:Env-v0 --trust 'x:y; rm -r ~'\n")


def test_a_mistake_found_by_the_trainer_is_one_message(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    def train(config: Config, **others: Any) -> None:
        raise ResourceError("needs 9 CPUs\navailable: 2")

    install(monkeypatch, train)
    assert main(["train"]) == 2
    assert capsys.readouterr().err == "error: needs 9 CPUs\navailable: 2\n"


def test_a_defect_of_ours_keeps_its_traceback(monkeypatch: pytest.MonkeyPatch) -> None:
    def train(config: Config, **others: Any) -> None:
        raise ValueError("ours")

    install(monkeypatch, train)
    with pytest.raises(ValueError, match="ours"):
        main(["train"])


def test_an_interrupt_before_training_is_130(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    def train(config: Config, **others: Any) -> None:
        raise KeyboardInterrupt

    install(monkeypatch, train)
    assert main(["train"]) == 130
    assert capsys.readouterr().err == "interrupted\n"
