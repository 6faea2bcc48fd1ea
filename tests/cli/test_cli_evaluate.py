"""What `evaluate` passes on and prints."""

from __future__ import annotations

import json
import math
import sys
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import pytest

from distppo.cli import main
from distppo.errors import CheckpointError

EPISODES = [
    SimpleNamespace(episode=0, episode_return=1234.5, length=1000, seed=11, terminated=False),
    SimpleNamespace(episode=1, episode_return=math.nan, length=7, seed=12, terminated=True),
]
RESULT = SimpleNamespace(
    checkpoint=Path("runs/a/checkpoints/ckpt_9"), env_id="Hopper-v4", env_steps=147456, return_mean=math.nan, return_std=2.5,
    length_mean=503.5, episodes=2, seed=3, deterministic=False, results=EPISODES,
)  # fmt: skip


@pytest.fixture
def calls(monkeypatch: pytest.MonkeyPatch) -> list[dict[str, Any]]:
    """What the command line calls the evaluation with; nothing is played."""
    seen: list[dict[str, Any]] = []

    def evaluate(checkpoint: str, **others: Any) -> SimpleNamespace:
        print("chatter of an environment")
        seen.append({"checkpoint": checkpoint, **others})
        return RESULT

    module = ModuleType("distppo.evaluation.evaluate")
    module.evaluate = evaluate  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "distppo.evaluation.evaluate", module)
    return seen


def test_the_defaults_are_ten_deterministic_episodes_with_seed_0(calls: list[dict[str, Any]]) -> None:
    assert main(["evaluate", "latest"]) == 0
    assert calls == [{"checkpoint": "latest", "env": None, "episodes": 10, "seed": 0, "deterministic": True, "trust": []}]


def test_flags_stand_before_or_after_the_checkpoint(calls: list[dict[str, Any]]) -> None:
    flags = ["--env", "Hopper-v4", "--seed", "3", "--trust", "a:B", "--trust", "c:D"]
    assert main(["evaluate", "--stochastic", "--episodes", "2e1", "runs/a", *flags]) == 0
    (call,) = calls
    assert call.pop("trust") == ["a:B", "c:D"]
    assert call == {"checkpoint": "runs/a", "env": "Hopper-v4", "episodes": 20, "seed": 3, "deterministic": False}


def test_json_is_one_valid_object_and_nothing_else(calls: list[dict[str, Any]], capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["evaluate", "runs/a", "--json"]) == 0

    def refuse(constant: str) -> None:
        raise ValueError(constant)

    assert json.loads(capsys.readouterr().out, parse_constant=refuse) == {
        "checkpoint": "runs/a/checkpoints/ckpt_9",
        "env": "Hopper-v4",
        "env_steps": 147456,
        "return_mean": None,
        "return_std": 2.5,
        "length_mean": 503.5,
        "episodes": 2,
        "seed": 3,
        "deterministic": False,
        "per_episode": [
            {"return": 1234.5, "length": 1000, "seed": 11, "terminated": False},
            {"return": None, "length": 7, "seed": 12, "terminated": True},
        ],
    }


def test_the_table_has_a_line_an_episode(calls: list[dict[str, Any]], capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["evaluate", "runs/a"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[0] == "Hopper-v4, stochastic, seed 3"
    assert lines[1] == "runs/a/checkpoints/ckpt_9, trained for 147,456 env steps"
    assert lines[4].split() == ["0", "1,234.50", "1000", "truncation"]
    assert lines[5].split() == ["1", "nan", "7", "termination"]
    assert [line.split()[0] for line in lines[6:]] == ["mean", "std"]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ("", "the following arguments are required: CHECKPOINT"),
        ("a b", "unexpected argument 'b'"),
        ("a --episodes 0", "argument --episodes: must be at least 1, got 0"),
        ("a --episodes ten", "argument --episodes: must be a whole number, got 'ten'"),
        ("a --seed -1", "argument --seed: must be at least 0"),
        ("a --deterministic --stochastic", "argument --stochastic: not allowed with argument --deterministic"),
        ("a --episode 3", "unknown flag --episode - did you mean --episodes?"),
    ],
)
def test_a_wrong_argument_is_told_and_nothing_is_played(
    arguments: str, message: str, calls: list[dict[str, Any]], capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["evaluate", *arguments.split()]) == 2
    assert capsys.readouterr().err.startswith(f"error: {message}")
    assert calls == []


def test_a_bad_checkpoint_is_one_message(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    def evaluate(checkpoint: str, **others: Any) -> None:
        raise CheckpointError(f"{checkpoint}: no checkpoint")

    module = ModuleType("distppo.evaluation.evaluate")
    module.evaluate = evaluate  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "distppo.evaluation.evaluate", module)
    assert main(["evaluate", "x", "--json"]) == 2
    captured = capsys.readouterr()
    assert (captured.out, captured.err) == ("", "error: x: no checkpoint\n")
