"""What `evaluate` passes on and prints."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import pytest

from distppo.cli import main
from distppo.errors import CheckpointError
from distppo.evaluation import session
from distppo.evaluation.episodes import EpisodeResult
from distppo.evaluation.evaluate import EvaluationResult
from distppo.evaluation.recording import VideoSettings
from distppo.evaluation.session import Options

EPISODES = [EpisodeResult(0, 1234.5, 1000, 11, False), EpisodeResult(1, 34.5, 7, 12, True), *[EpisodeResult(2, 34.5, 9, 1, True)] * 20]
RESULT = EvaluationResult(Path("runs/a/checkpoints/ckpt_9"), "Hopper-v4", 147456, 3, False, EPISODES)
VALUES = {
    "episodes": 10, "reward_scale": 96.6, "predicted_mean": 284.66, "realised_mean": 289.7, "bias": -5.04, "r2": 0.23,
    "explained_variance": None, "rmse": 17.5, "td_error": {"mean": 0.05, "std": 3.4}, "most_overestimated": [],
    "most_underestimated": [5, 9],
}  # fmt: skip


class Played:
    """Stands for a session in which everything has been done already."""

    folder: Path | None = Path("runs/a/evaluations/now")
    values: dict[str, Any] | None = None
    content: dict[str, Any]

    def __init__(self) -> None:
        self.content = {"return_mean": 5.0}
        self.calls: list[str] = []

    def play(self) -> EvaluationResult:
        print("chatter of an environment")
        return RESULT

    def analyze(self) -> None:
        self.calls.append("analyze")

    def record(self) -> None:
        self.calls.append("record")


@pytest.fixture
def played(monkeypatch: pytest.MonkeyPatch) -> Played:
    one = Played()

    def begin(options: Options, say: Any) -> Played:
        one.calls.append(options)  # type: ignore[arg-type]
        return one

    monkeypatch.setattr(session, "Session", begin)
    return one


def asked(played: Played, *flags: str) -> Options:
    """Runs the command and returns what it asks for."""
    assert main(["evaluate", *flags]) == 0
    options, *then = played.calls
    assert then == ["analyze", "record"] and isinstance(options, Options)
    return options


def test_the_defaults_are_ten_deterministic_episodes_with_seed_0(played: Played) -> None:
    """In as many processes as pay, with nothing drawn."""
    assert asked(played, "latest") == Options("latest", None, [], 10, 0, True, None, False, None, False, None)


def test_flags_stand_before_or_after_the_checkpoint(played: Played) -> None:
    """Each reaches the evaluation."""
    flags = ["--env", "Hopper-v4", "--seed", "3", "--trust", "a:B", "--trust", "c:D", "--workers", "4", "--output", "out", "--render"]
    options = asked(played, "--stochastic", "--episodes", "2e1", "runs/a", *flags, "--analyze-value")
    assert options == Options("runs/a", "Hopper-v4", ["a:B", "c:D"], 20, 3, False, 4, True, None, True, Path("out"))


@pytest.mark.parametrize(
    ("flags", "settings"),
    [
        ("--record --format gif", VideoSettings(".gif", 320, 240, 10.0)),
        ("--record-episodes 3 --format gif --size 64x48 --seconds 2.5", VideoSettings(".gif", 64, 48, 2.5, 3)),
    ],
)
def test_how_to_record_is_passed_on(flags: str, settings: VideoSettings, played: Played) -> None:
    """--record-episodes records by itself."""
    assert asked(played, "latest", *flags.split()).video == settings


def test_json_is_one_valid_object_and_nothing_else(played: Played, capsys: pytest.CaptureFixture[str]) -> None:
    """What an environment prints goes to stderr."""
    asked(played, "runs/a", "--json")
    captured = capsys.readouterr()
    assert json.loads(captured.out) == {"return_mean": 5.0, "folder": "runs/a/evaluations/now"}
    assert captured.err == "chatter of an environment\n"


def test_the_table_has_a_line_an_episode_and_the_statistics(played: Played, capsys: pytest.CaptureFixture[str]) -> None:
    """The first twenty episodes; of 22 returns the middle 12 are 34.5, and so is every resample's IQM."""
    asked(played, "runs/a")
    lines = capsys.readouterr().out.splitlines()
    assert lines[0] == "Hopper-v4, stochastic, seed 3"
    assert lines[1] == "runs/a/checkpoints/ckpt_9, trained for 147,456 env steps"
    assert lines[4].split() == ["0", "1,234.50", "1,000", "truncation"]
    assert lines[5].split() == ["1", "34.50", "7", "termination"]
    assert lines[24].split() == ["...", "2", "more"]
    mean = (1234.5 + 21 * 34.5) / 22
    std = math.sqrt(((1234.5 - mean) ** 2 + 21 * (34.5 - mean) ** 2) / 22)
    assert [line.split()[:2] for line in lines[26:30]] == [
        ["mean", f"{mean:,.2f}"],
        ["std", f"{std:,.2f}"],
        ["median", "34.50"],
        ["IQM", "34.50"],
    ]
    assert lines[29].endswith("95% interval 34.50 to 34.50")
    assert lines[31] == "written to runs/a/evaluations/now"


def test_the_value_analysis_is_summed_up(played: Played, capsys: pytest.CaptureFixture[str]) -> None:
    """Whose actions, which units, how far off; a number that is not defined says so."""
    played.values = VALUES
    played.content |= {"values": "values.json", "figures": ["a.png"], "videos": [{"file": "best.mp4"}]}
    asked(played, "runs/a")
    shown = capsys.readouterr().out
    assert "value function over 10 episodes of sampled actions, which are what it predicts; training divided rewards by 96.6" in shown
    assert "predicted 284.66 on average, realised 289.70: bias -5.04" in shown
    assert "R2 0.23, explained variance undefined, rmse 17.50" in shown
    assert "most overestimated: none; most underestimated: episodes 5, 9" in shown
    assert shown.endswith("\n  evaluation.json  values.json  a.png  best.mp4\n")


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ("", "the following arguments are required: CHECKPOINT"),
        ("a b", "unexpected argument 'b'"),
        ("a --episodes 0", "argument --episodes: must be at least 1, got 0"),
        ("a --episodes ten", "argument --episodes: must be a whole number, got 'ten'"),
        ("a --seed -1", "argument --seed: must be at least 0"),
        ("a --workers 0", "argument --workers: must be at least 1 and at most 1048576, got 0"),
        ("a --deterministic --stochastic", "argument --stochastic: not allowed with argument --deterministic"),
        ("a --episode 3", "unknown flag --episode - did you mean --episodes?"),
        ("a --record --size 640", "argument --size: must be WIDTHxHEIGHT in pixels, each 16 to 4096, as in 640x480, got '640'"),
        ("a --record --size 8x9999999", "argument --size: must be WIDTHxHEIGHT"),
        ("a --record --seconds nan", "argument --seconds: must be a number of seconds above 0, got 'nan'"),
        ("a --record-episodes 0", "argument --record-episodes: must be at least 1, got 0"),
        ("a --size 640x480", "--size says how to record, and nothing is recorded; add --record"),
        ("a --record --format avi", "argument --format: invalid choice: 'avi'"),
    ],
)
def test_a_wrong_argument_is_told_and_nothing_is_played(
    arguments: str, message: str, played: Played, capsys: pytest.CaptureFixture[str]
) -> None:
    """One line, exit code 2."""
    assert main(["evaluate", *arguments.split()]) == 2
    assert capsys.readouterr().err.startswith(f"error: {message}")
    assert played.calls == []


def test_a_bad_checkpoint_is_one_message(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    """And stdout stays empty."""

    def begin(options: Options, say: Any) -> None:
        raise CheckpointError(f"{options.checkpoint}: no checkpoint")

    monkeypatch.setattr(session, "Session", begin)
    assert main(["evaluate", "x", "--json"]) == 2
    captured = capsys.readouterr()
    assert (captured.out, captured.err) == ("", "error: x: no checkpoint\n")
