"""`train --dry-run` refuses what `train` refuses, and measures in a moment whatever the settings ask for."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import pytest
from runtime.running import SMALL, Run

from distppo.config import Overrides, load_config
from distppo.errors import UserError
from distppo.runtime import probe
from distppo.runtime.doctor import RunPlace
from distppo.runtime.plan import plan
from distppo.runtime.run_directory import RunDirectory
from distppo.runtime.train import train


def planned(settings: dict[str, Any], address: str | None = None, resume: str | None = None) -> list[str]:
    return plan(load_config(overrides=SMALL | settings), resume=resume, address=address, trust=(), overrides=Overrides(()))


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    """One iteration is enough to measure here."""
    monkeypatch.setattr(probe, "SECONDS", 0.0)


def refusal(place: Path) -> str:
    """What opening the folder for a new run says, and looking at it says too, without changing anything."""
    before = sorted(place.parent.rglob("*"))
    with pytest.raises(UserError) as looked:
        RunPlace(place, continued=False)
    assert sorted(place.parent.rglob("*")) == before
    with pytest.raises(UserError) as opened:
        RunDirectory(place, continued=False)
    assert str(looked.value) == str(opened.value)
    return str(looked.value)


def test_a_directory_is_refused_with_the_words_of_train(tmp_path: Path, trained: Run) -> None:
    """A run, somebody's settings, a link, a file in the way, also in the middle of the path, and a name that is too long."""
    shutil.copytree(trained.directory, tmp_path / "taken")
    (tmp_path / "settings").mkdir()
    (tmp_path / "settings/config.yaml").touch()
    (tmp_path / "linked").mkdir()
    (tmp_path / "linked/checkpoints").symlink_to(tmp_path)
    (tmp_path / "file").touch()
    (tmp_path / "gone").symlink_to("nowhere")
    assert "already holds a run" in refusal(tmp_path / "taken")
    assert "not a run's" in refusal(tmp_path / "settings")
    assert "is a link" in refusal(tmp_path / "linked")
    for name in ("file", "file/run", "gone"):
        assert "a file is in the way" in refusal(tmp_path / name)
    assert "File name too long" in refusal(tmp_path / ("x" * 300))


def test_a_directory_that_train_takes_is_not_refused(tmp_path: Path, trained: Run) -> None:
    """A new one, one that goes on, and a folder of seeds, in which the runs are one level deeper."""
    RunPlace(tmp_path / "new/run", continued=False)
    RunPlace(trained.directory, continued=True)
    (tmp_path / "config.yaml").touch()
    (tmp_path / "seeds.json").touch()
    RunPlace(tmp_path, continued=False)
    assert not (tmp_path / "new").exists()


@pytest.mark.parametrize(("address", "message"), [(None, "already holds a run"), ("127.0.0.1:1", "needs Ray, which rollout.num_workers 0")])
def test_a_plan_is_refused_with_the_words_of_train(address: str | None, message: str, trained: Run) -> None:
    settings = {"run.directory": str(trained.directory)}
    with pytest.raises(UserError, match=message) as of_plan:
        planned(settings, address)
    with pytest.raises(UserError) as of_train:
        train(overrides=SMALL | settings, address=address, progress=False)
    assert str(of_plan.value) == str(of_train.value)


def test_a_plan_of_any_number_of_epochs_takes_a_moment(tmp_path: Path) -> None:
    """A few are measured; an update counts as many as it has."""
    lines = planned({"ppo.epochs": 9 * 10**18, "run.directory": str(tmp_path / "run")})
    assert any("9000000000000000000 epochs x 4 minibatches of 32 = 36,000,000,000,000,000,000 gradient steps" in line for line in lines)
    times = probe.Probe(worker_fps=1000.0, gradient_step=0.5, step_name="fused", seconds=1.0)
    assert probe.estimate(load_config(overrides=SMALL | {"ppo.epochs": 10_000}), times, 0, 1).update == 10_000 * 4 * 0.5
    assert not list(tmp_path.iterdir())
