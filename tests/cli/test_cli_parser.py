"""What is said of words on the command line that no flag takes."""

from __future__ import annotations

import argparse
from pathlib import Path

import pytest

from distppo.cli.parser import Parser
from distppo.cli.settings import add_setting_flags
from distppo.errors import UserError
from distppo.runtime.run_directory import RunDirectory


def parser(*, settings: bool = True) -> Parser:
    """One of a command with or without --set, and with flags of its own."""
    made = Parser("distppo x", "[FILE] [FLAGS]", "Tests.")
    for flag in ("--report", "--trust", "--episodes"):
        made.add_argument(flag, nargs="?")
    if settings:
        add_setting_flags(made)
    return made


def told(*words: str, settings: bool = True) -> str:
    """The message that these words end in, without the hint at the help."""
    with pytest.raises(UserError) as caught:
        parser(settings=settings).read(words)
    return str(caught.value).removesuffix(" (see distppo x --help)")


@pytest.mark.parametrize(
    ("words", "instead"),
    [
        (["--epochs", "3"], "--set ppo.epochs=3"),
        (["--epochs=3", "--seed", "1"], "--set ppo.epochs=3"),
        (["--seed", "1", "--device", "cuda", "--num-envs", "8"], "--set learner.device=cuda"),
        (["--threads"], "--set learner.threads=VALUE"),
        (["--initial-log-std", "-1e-1"], "--set network.initial_log_std=-1e-1"),
        (["--hidden_sizes", "[64, 64]"], "--set 'network.hidden_sizes=[64, 64]'"),
        (["--hidden-sizes", "64", "64"], "--set network.hidden_sizes=VALUE"),
        (["--epochs", "x" * 100], "--set ppo.epochs=VALUE"),
        (["--ppo.gamma", "1"], "--set ppo.gamma=1"),
        (["--ppo-gamma", "1"], "--set ppo.gamma=1"),
        (["--env.kwargs.a=1"], "--set env.kwargs.a=1"),
    ],
)
def test_a_flag_that_is_a_setting_is_shown_as_set(words: list[str], instead: str) -> None:
    flag = next(word for word in words if word not in ("--seed", "--num-envs") and word.startswith("--")).partition("=")[0]
    assert told(*words) == f"unknown flag {flag}: it is a setting, {instead}"


def test_a_setting_is_no_hint_where_there_is_no_set() -> None:
    assert told("--epochs", "3", settings=False) == "unknown flag --epochs"


def test_only_a_flag_that_is_near_is_proposed() -> None:
    assert told("--num_envs", "8") == "unknown flag --num_envs - did you mean --num-envs?"
    assert told("--sed=8", "--n-envs", "8") == "unknown flag --sed - did you mean --seed?; unknown flag --n-envs - did you mean --num-envs?"
    assert (
        told("--epochs", "--device", "--threads", settings=False) == "unknown flag --epochs; unknown flag --device; unknown flag --threads"
    )


def test_behind_two_dashes_nothing_is_a_flag() -> None:
    assert told("--seed", "2", "--", "--seed", "1") == "unexpected argument '--seed', '1'; behind -- nothing is a flag"
    assert told("--sed", "2", "--", "--seed", "1") == "unknown flag --sed - did you mean --seed?"
    assert told("--", "one") == "unexpected argument 'one'"
    assert parser().read(["--seed", "2", "--"]).seed == "2"
    files = Parser("distppo x", "FILE", "Tests.")
    files.add_argument("file")
    assert files.read(["--", "--seed"]) == argparse.Namespace(file="--seed")


@pytest.mark.parametrize("text", ["-3", "-1e-3", "-.5", "-inf", "-NaN", "-.inf", "-1_000", "-2k"])
def test_a_negative_number_is_a_value(text: str) -> None:
    assert parser().read(["--learning-rate", text, "--seed", "1"]).learning_rate == text
    assert told("--sed", text) == "unknown flag --sed - did you mean --seed?"
    assert told(text) == f"unexpected argument '{text}'"


def test_what_only_begins_like_a_word_for_a_number_is_a_flag() -> None:
    assert told("--learning-rate", "-info") == "argument --learning-rate: expected one argument"


def test_the_way_on_with_a_run_is_quoted_for_the_shell(tmp_path: Path) -> None:
    directory = tmp_path / "a b"
    directory.mkdir()
    (directory / "metrics.jsonl").write_text('{"time/total_timesteps": 64}\n')
    with pytest.raises(UserError, match=r"already holds a run; .* continue it with --resume '.*/a b'$"):
        RunDirectory(directory, continued=False)
