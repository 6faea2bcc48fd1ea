"""`config diff` says in which settings two files, runs or checkpoints differ."""

from __future__ import annotations

from pathlib import Path

import pytest

from distppo.cli import main
from distppo.runtime.train import train

TINY = {
    "env.id": "probe_envs:Point-v0",
    "rollout.num_envs": 2,
    "rollout.num_steps": 16,
    "rollout.num_workers": 0,
    "ppo.mini_batch_size": 16,
    "ppo.epochs": 1,
    "network.hidden_sizes": [4],
    "evaluation.every": 0,
    "run.total_timesteps": 64,
}


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return train(overrides=TINY | {"run.directory": str(tmp_path_factory.mktemp("diff") / "run")}, progress=False).run_directory


def diff(capsys: pytest.CaptureFixture[str], *names: object) -> tuple[int, list[list[str]]]:
    """The exit code and the words of every line."""
    code = main(["config", "diff", *map(str, names)])
    captured = capsys.readouterr()
    assert captured.err == ""
    return code, [line.split() for line in captured.out.splitlines()]


def test_files_are_compared_with_the_defaults_filled_in(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "a.yaml").write_text("ppo: {epochs: 10, gamma: 0.9}\n")
    (tmp_path / "b.yaml").write_text("rollout: {num_envs: 4}\nnetwork: {hidden_sizes: [8]}\n")
    monkeypatch.chdir(tmp_path)
    code, lines = diff(capsys, "a.yaml", "b.yaml")
    assert code == 1
    assert lines == [
        ["a.yaml", "b.yaml"],
        ["rollout.num_envs", "8", "4"],
        ["ppo.gamma", "0.9", "0.99"],
        ["network.hidden_sizes", "auto", "[8]"],
    ]
    assert diff(capsys, "a.yaml", "a.yaml") == (0, [["the", "same", "settings"]])


def test_a_run_a_checkpoint_and_a_file_can_be_compared(run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (checkpoint,) = [path for path in (run / "checkpoints").iterdir() if path.name.startswith("ckpt_")]
    for name in (checkpoint, f"{run}@last", run / "config.yaml"):
        assert diff(capsys, run, name)[0] == 0
    changed = tmp_path / "changed.yaml"
    changed.write_text((run / "config.yaml").read_text().replace("seed: 0", "seed: 3"))
    assert diff(capsys, checkpoint, changed)[1][1:] == [["run.seed", "0", "3"]]


def test_what_does_not_exist_is_a_mistake(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["config", "diff", "nowhere.yaml", "neither.yaml"]) == 2
    assert capsys.readouterr().err.startswith("error: nowhere.yaml")
    assert main(["config", "diff", "nothing", "nothing"]) == 2
    assert capsys.readouterr().err.startswith("error: 'nothing' is neither a path nor a run")
