"""A writer killed, or refused by the disk, at any single operation never harms what was there."""

from __future__ import annotations

import errno
import functools
import itertools
import os
import resource
import signal
import subprocess
import sys

import numpy as np
import pytest

from distppo import files
from distppo.checkpoint import CheckpointStore, best_checkpoint, list_checkpoints, load_checkpoint, load_latest_valid, load_resolved
from distppo.errors import CheckpointError

OPERATIONS = ["mkdir", "open", "fsync", "replace", "rename", "unlink", "rmdir"]


def save(run, iteration, value, *, best=False):
    arrays = {"learner": {"parameters": np.full(5000, value, np.float32)}, "moments": {"mean": np.full(3, value)}}
    CheckpointStore(run, keep=2).save(iteration=iteration, env_steps=iteration, arrays=arrays, state={"value": value}, best=best)


def before_each_operation(act, setattr):
    """Calls `act` before every call to the operating system that changes a file, and in the middle of every write."""

    def wrap(function):
        def wrapped(*args, **kwargs):
            act()
            return function(*args, **kwargs)

        return wrapped

    class TornFile:
        def __init__(self, *args):
            self._file = open(*args)  # noqa: SIM115

        def __enter__(self):
            return self

        def __exit__(self, *_):
            self._file.close()

        def write(self, data):
            self._file.write(data[: len(data) // 2])
            self._file.flush()
            act()
            self._file.write(data[len(data) // 2 :])

        def __getattr__(self, name):
            return getattr(self._file, name)

    for name in OPERATIONS:
        setattr(os, name, wrap(getattr(os, name)))
    setattr(files, "open", TornFile)


def die_at(k):
    count = itertools.count()

    def act():
        if next(count) == k:
            os.kill(os.getpid(), signal.SIGKILL)

    return act


def crash_everywhere(root, before, interrupted, check):
    """Runs `interrupted` in children killed at its first, second, ... operation, until one survives; checks what each leaves."""
    for k in itertools.count():
        run = os.path.join(root, str(k))
        before(run)
        pid = os.fork()
        if pid == 0:
            before_each_operation(die_at(k), setattr)
            interrupted(run)
            os._exit(0)
        _, status = os.waitpid(pid, 0)
        check(run)
        if os.WIFEXITED(status):
            assert os.WEXITSTATUS(status) == 0
            return k


def check_whole(run, allowed):
    """Every visible checkpoint loads, the newest is one of `allowed` (iteration, value), and a new store goes on from there."""
    for info in list_checkpoints(run):
        load_checkpoint(info.path)
    checkpoint, problems = load_latest_valid(run)
    assert problems == []
    assert (checkpoint.iteration, checkpoint.state["value"]) in allowed
    assert float(checkpoint.arrays["learner"]["parameters"][-1]) == checkpoint.state["value"]
    store = CheckpointStore(run, keep=2)
    assert not [name for name in os.listdir(store.directory) if ".tmp-" in name or ".old" in name]
    assert load_checkpoint(store.latest().path).state == checkpoint.state
    save(run, 9, 9.0)
    assert load_latest_valid(run)[0].iteration == 9


def new_checkpoint(root):
    def before(run):
        for iteration in (1, 2, 3):
            save(run, iteration, iteration, best=iteration == 1)

    def check(run):
        assert best_checkpoint(run).iteration in (1, 4)
        check_whole(run, {(3, 3), (4, 4)})

    return crash_everywhere(root, before, lambda run: save(run, 4, 4, best=True), check)


def replaced_checkpoint(root):
    return crash_everywhere(
        root, lambda run: save(run, 1, 1, best=True), lambda run: save(run, 1, 2), lambda run: check_whole(run, {(1, 1), (1, 2)})
    )


@pytest.mark.parametrize("scenario", ["new_checkpoint", "replaced_checkpoint"])
def test_a_writer_killed_at_any_operation_leaves_the_previous_checkpoint_or_the_new_one(tmp_path, scenario):
    # A process of its own, since forking one that other tests have filled with threads can hang.
    child = subprocess.run([sys.executable, __file__, scenario, str(tmp_path)], capture_output=True, text=True, check=False)
    assert child.returncode == 0, child.stderr
    assert int(child.stdout) > 30


@pytest.mark.parametrize("iteration", [1, 2])
def test_a_disk_that_refuses_any_one_operation_leaves_what_was_there_and_the_next_save_works(tmp_path, monkeypatch, iteration):
    arrays = {"learner": {"parameters": np.full(9, 2.0)}}
    for k in itertools.count():
        run = tmp_path / str(k)
        save(run, 1, 1.0)
        store = CheckpointStore(run, keep=2)
        operations = itertools.count()

        def refuse(k=k, operations=operations):
            if next(operations) == k:
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

        with monkeypatch.context() as patch:
            before_each_operation(refuse, functools.partial(patch.setattr, raising=False))
            try:
                store.save(iteration=iteration, env_steps=2, arrays=arrays, state={"value": 2.0})
            except OSError as error:
                assert error.errno == errno.ENOSPC
                assert "cannot save checkpoint" in str(error) and f"ckpt_0000000{iteration}" in str(error)
        if next(operations) <= k:
            break
        checkpoint, problems = load_latest_valid(run)
        assert problems == [] and checkpoint.state["value"] in (1.0, 2.0)
        store.save(iteration=iteration, env_steps=2, arrays=arrays, state={"value": 2.0})
        check_whole(run, {(iteration, 2.0)})
    assert k > 20


def test_a_full_disk_leaves_nothing_half_written(tmp_path):
    save(tmp_path, 1, 1.0)
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (4096, hard))
    try:
        with pytest.raises(OSError, match=r"cannot save checkpoint .*ckpt_00000002.* the older ones are untouched"):
            save(tmp_path, 2, 2.0)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert sorted(os.listdir(tmp_path / "checkpoints")) == ["ckpt_00000001", "latest"]
    assert load_latest_valid(tmp_path)[0].iteration == 1


def test_opening_a_store_removes_leftovers_of_dead_writers_but_not_of_living_ones(tmp_path):
    store = CheckpointStore(tmp_path, keep=2)
    dead = store.directory / f"ckpt_00000001.tmp-{'0' * 32}"
    dead.mkdir()
    (dead / "learner.safetensors").write_bytes(b"half")
    mine = store.directory / "notes.tmp-1"
    mine.touch()
    with files.staging_directory(store.directory / "ckpt_00000002") as living:
        assert store.list() == []
        CheckpointStore(tmp_path, keep=2)
        assert living.exists() and not dead.exists() and mine.exists()


WRITER = """
import sys
import numpy as np
from distppo.checkpoint import CheckpointStore
store = CheckpointStore(sys.argv[1], keep=2)
for number in range(10**9):
    # The second of each three replaces the first; the third is the best and stays until the next best.
    iteration = number - number % 3 % 2
    arrays = {"learner": {"parameters": np.full(5000, number, np.float32)}, "moments": {"mean": np.full(3, float(number))}}
    store.save(iteration=iteration, env_steps=iteration, arrays=arrays, state={"number": number}, best=number % 3 == 2)
    print(number, flush=True)
"""


@pytest.mark.parametrize("reference", ["", "@last", "@best"])
def test_a_reader_sees_a_whole_checkpoint_while_others_are_written_replaced_and_pruned(tmp_path, reference):
    with subprocess.Popen([sys.executable, "-c", WRITER, str(tmp_path)], stdout=subprocess.PIPE, text=True) as writer:
        try:
            for _ in range(6):
                writer.stdout.readline()
            numbers = set()
            while len(numbers) < 12:
                checkpoint = load_resolved(f"{tmp_path}{reference}", prefer="last")
                newest, problems = load_latest_valid(tmp_path)
                for whole in (checkpoint, newest):
                    number = whole.state["number"]
                    assert (whole.arrays["learner"]["parameters"] == number).all() and (whole.arrays["moments"]["mean"] == number).all()
                assert problems == []
                numbers.add(checkpoint.state["number"])
                assert writer.poll() is None
        finally:
            writer.kill()
    assert reference != "@best" or all(number % 3 == 2 for number in numbers)


def test_a_store_does_not_write_through_a_link(tmp_path):
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / "checkpoints").symlink_to(tmp_path / "elsewhere")
    with pytest.raises(CheckpointError, match=r"checkpoints is a link; a run is written in its own folder alone"):
        CheckpointStore(tmp_path / "run", keep=2)
    assert os.listdir(tmp_path / "elsewhere") == []


def test_a_leftover_that_leads_elsewhere_is_removed_and_what_it_leads_to_is_not(tmp_path):
    precious = tmp_path / "precious"
    precious.mkdir()
    (precious / "file").write_text("mine")
    store = CheckpointStore(tmp_path, keep=2)
    for name in (f"ckpt_00000001.tmp-{'0' * 32}", "ckpt_00000002.old", f"latest.tmp-{'1' * 32}"):
        (store.directory / name).symlink_to(precious)
    inner = store.directory / f"ckpt_00000003.tmp-{'2' * 32}"
    inner.mkdir()
    (inner / "link").symlink_to(precious)
    save(tmp_path, 2, 2.0)
    assert (precious / "file").read_text() == "mine"
    assert sorted(os.listdir(store.directory)) == ["ckpt_00000002", "latest"]


if __name__ == "__main__":
    print(globals()[sys.argv[1]](sys.argv[2]))
