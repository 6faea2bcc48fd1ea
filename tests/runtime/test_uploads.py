"""A run whose checkpoints are copied to shared storage, and one that goes on from there on another machine."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
from runtime.running import Run

from distppo.checkpoint.storage import Storage
from distppo.config.trust import resume_flags
from distppo.errors import UserError

EVERY = {"run.checkpoint_every": 128}


def test_a_run_goes_on_from_storage_on_a_fresh_machine(small: Callable[..., Run], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """With nothing but the URL: its settings, curve and counters are there, and the end is that of an undisturbed run, bit for bit."""
    shared = f"memory://{tmp_path.name}"
    whole = small(EVERY | {"run.total_timesteps": 768})
    half = small(EVERY | {"run.directory": str(tmp_path / "mine"), "run.storage": shared})
    machine = tmp_path / "machine"
    machine.mkdir()
    monkeypatch.chdir(machine)
    rest = small({"run.total_timesteps": 768}, resume=f"{shared}/mine")
    assert rest.directory == Path("runs/mine") and rest.same_bits(whole)
    steps = [row["time/total_timesteps"] for row in rest.rows]
    assert steps == [row["time/total_timesteps"] for row in whole.rows] and len(half.rows) == 3
    assert Storage(f"{shared}/mine").names()[-1] == "ckpt_00000006"


def test_a_strangers_run_does_not_say_where_to_copy_to(small: Callable[..., Run], tmp_path: Path) -> None:
    """Only who names the storage again has it written to; the note, and the command that goes on with a run, say how."""
    shared = str(tmp_path / "shared")
    first = small({"run.directory": str(tmp_path / "run"), "run.storage": shared})
    assert resume_flags((), first.result.storage) == f" --set run.storage={shared}"
    before = Storage(f"{shared}/run").names()
    rest = small({"run.total_timesteps": 512}, resume=str(first.directory))
    assert Storage(f"{shared}/run").names() == before
    assert any(f"--set run.storage={shared} goes on with that" in note for event in rest.events for note in event.get("notes", []))
    small({"run.total_timesteps": 640, "run.storage": shared}, resume=str(first.directory))
    assert Storage(f"{shared}/run").names() != before


def test_a_run_comes_back_to_the_url_that_was_named(small: Callable[..., Run], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Though another run has its name here: the command that is repeated gets on, as does the one that is printed."""
    shared = f"file://{tmp_path}/shared"
    small(EVERY | {"run.directory": str(tmp_path / "mine"), "run.storage": shared})
    for machine in ("second", "third"):
        (tmp_path / machine).mkdir()
        monkeypatch.chdir(tmp_path / machine)
        small({"run.directory": "runs/mine", "run.seed": 5, "run.total_timesteps": 128})
    for machine, total in (("second", 768), ("second", 1280), ("third", 1408), ("second", 1536)):
        monkeypatch.chdir(tmp_path / machine)
        rest = small({"run.total_timesteps": total}, resume=f"{shared}/mine")
        assert rest.directory == Path("runs/mine-2")
        assert [row["time/total_timesteps"] for row in rest.rows] == list(range(128, total + 1, 128))
    printed = small({"run.total_timesteps": 1664, "run.storage": shared}, resume="runs/mine-2")
    assert [path.name for path in (tmp_path / "shared").iterdir()] == ["mine"]
    assert Storage(f"{shared}/mine").names()[-1] == "ckpt_00000013" and printed.faults == []


def test_a_run_that_another_machine_has_gone_on_with_is_left_to_it(
    small: Callable[..., Run], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Said before anything is trained; and a run that begins again does not remove what the storage has."""
    shared = str(tmp_path / "shared")
    first = small(EVERY | {"run.directory": str(tmp_path / "run"), "run.storage": shared})
    (tmp_path / "machine").mkdir()
    monkeypatch.chdir(tmp_path / "machine")
    small({"run.total_timesteps": 512}, resume=f"file://{shared}/run")
    before = Storage(f"{shared}/run").names()
    with pytest.raises(UserError, match=r"already holds a run run, and ckpt_00000004 there is not of the one in .*--resume .*/run$"):
        small({"run.total_timesteps": 640, "run.storage": shared}, resume=str(first.directory))
    shutil.rmtree(first.directory / "checkpoints")
    with pytest.raises(UserError, match=r"already holds a run run; choose another name with --run-dir, or continue it with --resume"):
        small({"run.storage": shared}, resume=str(first.directory))
    assert Storage(f"{shared}/run").names() == before


def test_a_run_is_not_copied_onto_itself_by_its_url(small: Callable[..., Run], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    small({"run.directory": "runs/a"})
    rest = small({"run.total_timesteps": 512}, resume=f"file://{tmp_path}/runs/a")
    assert rest.directory == Path("runs/a") and rest.faults == [] and rest.summary["env_steps"] == 512


def test_storage_that_refuses_does_not_stop_training_at_once(small: Callable[..., Run], tmp_path: Path) -> None:
    """Each failure is a fault; the run directory has everything, and the end says that the storage has not."""
    (tmp_path / "full").write_text("a file where the folder would be")
    with pytest.raises(UserError, match=r"^training has reached its end, but its last checkpoint could not be copied to .*full/own$"):
        small(EVERY | {"run.directory": str(tmp_path / "own"), "run.storage": str(tmp_path / "full")})
    with pytest.raises(UserError, match=r"1 checkpoints in a row could not be copied to .*full/other \(fault\.max_checkpoint_failures 0\)"):
        small(EVERY | {"run.directory": str(tmp_path / "other"), "run.storage": str(tmp_path / "full"), "fault.max_checkpoint_failures": 0})


def test_another_run_of_the_same_name_is_not_written_over(small: Callable[..., Run], tmp_path: Path) -> None:
    """Said before anything is trained, with the command that goes on with it."""
    shared = str(tmp_path / "shared")
    small({"run.directory": str(tmp_path / "a" / "run"), "run.storage": shared})
    with pytest.raises(
        UserError, match=r"already holds a run run; choose another name with --run-dir, or continue it with --resume .*/run$"
    ):
        small({"run.directory": str(tmp_path / "b" / "run"), "run.storage": shared})


def test_a_run_directory_on_the_storage_is_not_copied_onto_itself(small: Callable[..., Run], tmp_path: Path) -> None:
    """Where all machines see the same folder, it is enough."""
    run = small(EVERY | {"run.directory": str(tmp_path / "run"), "run.storage": str(tmp_path)})
    assert run.faults == [] and len(list((tmp_path / "run" / "checkpoints").glob("ckpt_*"))) == 3


def test_a_url_as_run_directory_is_told_the_way_out() -> None:
    from distppo import load_config
    from distppo.errors import ConfigError

    with pytest.raises(ConfigError, match=r"run\.directory must be a folder of this machine; copies of its checkpoints go to run\.storage"):
        load_config(run_dir="s3://bucket/run")
