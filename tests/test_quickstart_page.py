"""docs/quickstart.md shows commands that exist, with flags they have, a logger that works, and a display that is drawn so."""

from __future__ import annotations

import os
import re
import shlex
from pathlib import Path

import pytest

from distppo.cli import main
from distppo.config import load_config
from distppo.console.panel import panel
from distppo.console.view import RunView
from distppo.runtime.train import train

ROOT = Path(__file__).parents[1]
PAGE = (ROOT / "docs" / "quickstart.md").read_text()
BLOCKS = re.findall(r"```(\w*)\n(.*?)```", PAGE, flags=re.DOTALL)
COMMANDS = [
    line.removeprefix("python launch.py ").partition("  #")[0].partition(" > ")[0].strip()
    for language, text in BLOCKS
    if not language
    for line in text.splitlines()
    if line.startswith("python launch.py ")
]


def test_the_page_shows_the_commands_it_is_about() -> None:
    assert {shlex.split(command)[0] for command in COMMANDS} == {"train", "watch", "evaluate", "config", "doctor", "autotune"}


@pytest.mark.parametrize("command", COMMANDS)
def test_a_command_has_the_flags_it_is_shown_with(command: str, capsys: pytest.CaptureFixture[str]) -> None:
    words = shlex.split(command)
    name = words[: 2 if words[0] == "config" else 1]
    assert main([*name, "--help"]) == 0
    shown = capsys.readouterr().out
    assert all(re.search(rf"(?<![\w-]){word}(?![\w-])", shown) for word in words if word.startswith("--"))
    settings = [word for word in words if re.match(r"[a-z]+\.[a-z_.]+=", word)]
    assert load_config(overrides=settings) or not settings
    assert all((ROOT / word).exists() for word in words if word.startswith("configs/"))


def test_the_logger_it_shows_logs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (example,) = [text for language, text in BLOCKS if language == "python"]
    (tmp_path / "my_loggers.py").write_text(example.replace("1000", "0.001"))
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(str(tmp_path))
    overrides = {
        "env.id": "CartPole-v1",
        "rollout.num_workers": 0,
        "rollout.num_envs": 2,
        "rollout.num_steps": 64,
        "ppo.mini_batch_size": 64,
        "ppo.epochs": 1,
        "evaluation.every": 0,
        "run.total_timesteps": 256,
        "run.directory": "run",
        "metrics.loggers": {"class": "my_loggers:Milestones", "path": "milestones.txt"},
    }
    result = train(overrides=overrides, progress=False)
    assert result.summary["faults"]["logger_failures"] == 0
    assert re.match(r"128 env steps: \d+,000\n", (tmp_path / "milestones.txt").read_text())


def test_the_display_it_shows_is_the_display() -> None:
    (shown,) = [text for _, text in BLOCKS if text.startswith("HalfCheetah-v4 -> ")]
    labels = [line.split()[0] for line in shown.splitlines()[2:]]
    view = RunView("", total=10, initial=0)
    view.update({"time/total_timesteps": 5, "time/collect": 1.0, "dist/workers": 2, "dist/learner_seconds": 0.5, "eval/mean_reward": 1.0})
    assert labels == [line.plain.split()[0] for line in panel(view, width=80, height=24)[2:]]


def test_every_file_that_is_linked_exists() -> None:
    links = [link.partition("#")[0] for link in re.findall(r"\]\(([^)#:]+)", PAGE)]
    assert links and all(os.path.exists(ROOT / "docs" / link) for link in links)
