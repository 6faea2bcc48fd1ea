"""A disk that is full, for a while or for good: a small file system of its own, really filled."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from runtime.running import Run

from distppo.checkpoint import CheckpointStore, list_checkpoints, load_checkpoint
from distppo.errors import UserError
from distppo.metrics import RunWriter

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
    assert seen == [3 * 128], "the last one before the disk was full was whole all the time"
    assert [row["time/total_timesteps"] for row in run.rows] == [row["time/total_timesteps"] for row in reference.rows]
    assert run.same_bits(reference)
    assert run.faults[0] == "metrics_failed" and run.faults.count("checkpoint_failed") == 4
    assert run.summary["faults"]["checkpoint_failures"] == 4
    assert "No space left on device" in capsys.readouterr().out
    with open(run.directory / "progress.csv") as file:
        assert len(file.readlines()) == 1 + len(reference.rows)


def test_a_disk_that_stays_full_ends_the_run(disk: Disk, small: Callable[..., Run], at_row: Callable[..., None]) -> None:
    """After more than fault.max_checkpoint_failures in a row, with the way back in the message."""
    at_row(3, disk.fill)
    with pytest.raises(UserError, match=r"3 checkpoints in a row could not be saved \(fault.max_checkpoint_failures 2\): .*No space left"):
        small(EVERY_ITERATION | {"run.directory": str(disk.path / "run"), "fault.max_checkpoint_failures": 2})
    assert list_checkpoints(disk.path / "run")[-1].env_steps == 3 * 128


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
