"""A disk that is full, for a while or for good: a small file system of its own, really filled."""

from __future__ import annotations

import errno
import itertools
import os
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from runtime.running import Run

from distppo.checkpoint import CheckpointStore, best_checkpoint, list_checkpoints, load_checkpoint, store
from distppo.errors import UserError
from distppo.evaluation.episodes import EpisodeResult
from distppo.metrics import RunWriter
from distppo.runtime.backend import LocalBackend

EVERY_ITERATION = {"run.checkpoint_every": 128, "run.total_timesteps": 1280}


class Disk:
    """A file system of half a MiB."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def fill(self) -> None:
        """Leaves not a byte free."""
        with open(self.path / "filler", "ab", buffering=0) as file:
            for size in (2**16, 2**12, 1):
                try:
                    while True:
                        file.write(bytes(size))
                except OSError:
                    continue

    def free(self) -> None:
        (self.path / "filler").unlink()


@pytest.fixture
def disk(tmp_path: Path) -> Iterator[Disk]:
    path = tmp_path / "disk"
    path.mkdir()
    mounted = subprocess.run(["mount", "-t", "tmpfs", "-o", "size=512k", "tmpfs", str(path)], capture_output=True, check=False)
    if mounted.returncode != 0:
        pytest.skip("mounting a file system is not allowed here")
    yield Disk(path)
    subprocess.run(["umount", "--lazy", str(path)], check=True)


@pytest.fixture
def at_row(monkeypatch: pytest.MonkeyPatch) -> Callable[..., None]:
    """Does something before the row of an iteration is written."""
    acts: dict[int, Callable[[], None]] = {}
    original = RunWriter.row

    def row(writer: RunWriter, values: Any) -> None:
        acts.get(values["time/iterations"], lambda: None)()
        original(writer, values)

    monkeypatch.setattr(RunWriter, "row", row)
    return lambda iteration, act: acts.update({iteration: act})


def test_training_goes_on_while_the_disk_is_full_and_nothing_is_missing_afterwards(
    disk: Disk, small: Callable[..., Run], at_row: Callable[..., None], capsys: pytest.CaptureFixture[str]
) -> None:
    """Row 11: the old checkpoint stays valid, failures are counted, told and put up with; every line of metrics.jsonl is written later."""
    reference = small(EVERY_ITERATION)
    seen: list[int] = []

    def look_and_free() -> None:
        (newest,) = list_checkpoints(disk.path / "run")[-1:]
        seen.append(load_checkpoint(newest.path).env_steps)
        disk.free()

    at_row(3, disk.fill)
    at_row(7, look_and_free)
    run = small(EVERY_ITERATION | {"run.directory": str(disk.path / "run")})
    assert seen == [2 * 128], "the last one before the disk was full was whole all the time"
    assert [row["time/total_timesteps"] for row in run.rows] == [row["time/total_timesteps"] for row in reference.rows]
    assert run.same_bits(reference)
    assert run.faults[0] == "metrics_failed" and run.faults.count("checkpoint_failed") == 4
    assert run.summary["faults"]["checkpoint_failures"] == 4
    assert "No space left on device" in capsys.readouterr().out
    with open(run.directory / "progress.csv") as file:
        assert len(file.readlines()) == 1 + len(reference.rows)


def test_a_best_policy_that_the_disk_refused_does_not_stand_in_the_way_of_the_next(
    disk: Disk, small: Callable[..., Run], at_row: Callable[..., None], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Row 11: what no checkpoint holds is not the best; the summary and `best` agree."""
    falling_evaluations(monkeypatch)
    at_row(1, disk.fill)
    at_row(2, disk.free)
    run = small({"evaluation.every": 128, "run.directory": str(disk.path / "run")})
    assert run.faults.count("checkpoint_failed") == 1
    assert run.summary["best_evaluation"] == {"return_mean": 4.0, "env_steps": 256}
    assert best_steps(run.directory) == 256


def test_a_checkpoint_that_cannot_be_named_the_best_is_named_so_later(small: Callable[..., Run], monkeypatch: pytest.MonkeyPatch) -> None:
    """It is in place: only its mark was refused, and the next save makes up for it."""
    falling_evaluations(monkeypatch)
    refuse_mark(monkeypatch, OSError(errno.ENOSPC, "full"))
    run = small({"evaluation.every": 128, "run.checkpoint_every": 128, "run.total_timesteps": 384, "run.keep_checkpoints": 2})
    assert run.summary["best_evaluation"] == {"return_mean": 5.0, "env_steps": 128} and best_steps(run.directory) == 128


class Killed(BaseException):
    """Ends a run without any of its orderly ways."""


@pytest.mark.parametrize("total", [128, 384])
def test_a_run_killed_before_its_best_is_marked_marks_it_when_it_goes_on(
    total: int, small: Callable[..., Run], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Row 12: the checkpoint itself tells that it is the best; also where nothing else is left to do."""
    falling_evaluations(monkeypatch)
    settings = {"evaluation.every": 128, "run.checkpoint_every": 128, "run.keep_checkpoints": 2, "run.total_timesteps": total}
    with monkeypatch.context() as patch:
        refuse_mark(patch, Killed())
        with pytest.raises(Killed):
            small(settings | {"run.directory": str(tmp_path / "killed")})
    assert best_checkpoint(tmp_path / "killed") is None
    run = small(resume=str(tmp_path / "killed"))
    assert run.summary["best_evaluation"] == {"return_mean": 5.0, "env_steps": 128} and best_steps(run.directory) == 128


def test_a_state_that_is_too_large_is_left_out_of_the_checkpoint(
    small: Callable[..., Run], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """The learner is saved; whoever goes on from there starts new episodes. If the rest is too large as well, a save has failed."""
    whole = small()
    (state,) = whole.directory.glob("checkpoints/*/state.json")
    monkeypatch.setattr(store, "MAX_STATE_BYTES", state.stat().st_size - 1000)
    run = small()
    assert "in state.json, could not be read again; saved without the environments' states" in capsys.readouterr().out
    assert run.same_bits(whole) and not run.faults
    assert small({"run.total_timesteps": 512}, resume=str(run.directory)).summary["faults"]["episodes_restarted"] == 4
    monkeypatch.setattr(store, "MAX_STATE_BYTES", 100)
    with pytest.raises(UserError, match=r"training has reached its end, but: a checkpoint of .* could not be read again"):
        small()


def falling_evaluations(monkeypatch: pytest.MonkeyPatch) -> None:
    """Has the evaluations of a run end with returns of 5, 4, 3, ..."""
    returns = itertools.count(5, -1)
    monkeypatch.setattr(LocalBackend, "evaluate", lambda *_: [EpisodeResult(0, float(next(returns)), 20, 0, True)])


def best_steps(directory: Path) -> int:
    best = best_checkpoint(directory)
    assert best is not None
    return best.env_steps


def refuse_mark(monkeypatch: pytest.MonkeyPatch, error: BaseException) -> None:
    """Has the first replacement of the file `best` end with an error."""
    original, errors = CheckpointStore._point, [error]

    def point(self: CheckpointStore, pointer: str, name: str) -> None:
        if pointer == "best" and errors:
            raise errors.pop()
        original(self, pointer, name)

    monkeypatch.setattr(CheckpointStore, "_point", point)


def test_a_disk_that_stays_full_ends_the_run(disk: Disk, small: Callable[..., Run], at_row: Callable[..., None]) -> None:
    """After more than fault.max_checkpoint_failures in a row, with the way back in the message."""
    at_row(3, disk.fill)
    with pytest.raises(UserError, match=r"3 checkpoints in a row could not be saved \(fault.max_checkpoint_failures 2\): .*No space left"):
        small(EVERY_ITERATION | {"run.directory": str(disk.path / "run"), "fault.max_checkpoint_failures": 2})
    assert list_checkpoints(disk.path / "run")[-1].env_steps == 2 * 128


def test_a_run_whose_last_checkpoint_cannot_be_saved_is_not_a_success(
    disk: Disk, small: Callable[..., Run], at_row: Callable[..., None]
) -> None:
    """What was trained is lost: that is an error, however long training went well."""
    at_row(10, disk.fill)
    with pytest.raises(UserError, match="training has reached its end, but: cannot save checkpoint"):
        small({"run.total_timesteps": 1280, "run.directory": str(disk.path / "run")})


def test_a_full_disk_at_the_start_is_told(disk: Disk, small: Callable[..., Run]) -> None:
    """One message with the folder's name."""
    disk.fill()
    with pytest.raises(UserError, match=rf"run directory {disk.path}/run: No space left on device"):
        small({"run.directory": str(disk.path / "run")})


def test_a_store_whose_folder_cannot_grow_keeps_what_it_has(disk: Disk) -> None:
    """The store alone: nothing half-written is left, and the next save works when there is space."""
    store = CheckpointStore(disk.path, keep=2)
    arrays = {"learner": {"parameters": np.zeros(2000)}}
    store.save(iteration=1, env_steps=1, arrays=arrays, state={})
    disk.fill()
    with pytest.raises(OSError, match="No space left on device"):
        store.save(iteration=2, env_steps=2, arrays=arrays, state={})
    assert [info.iteration for info in store.list()] == [1]
    assert not [name for name in os.listdir(store.directory) if ".tmp-" in name]
    disk.free()
    store.save(iteration=2, env_steps=2, arrays=arrays, state={})
    assert [info.iteration for info in store.list()] == [1, 2]
