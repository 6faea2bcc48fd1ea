"""Checkpoints on shared storage: what is copied there is what comes back, and a copy that was cut short is never taken for one."""

from __future__ import annotations

import itertools
from collections.abc import Callable
from pathlib import Path
from typing import Any

import fsspec
import pytest
from test_checkpoint_store import save

from distppo.checkpoint import CheckpointStore, list_checkpoints, load_checkpoint, load_latest_valid
from distppo.checkpoint.storage import Storage, is_url
from distppo.errors import CheckpointError, UserError

numbers = itertools.count()


@pytest.fixture(params=["memory", "file", "path"])
def url(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    """The folder of a run named `run`, on storage that is empty."""
    place = tmp_path / "shared" / "run"
    return {"memory": f"memory://{next(numbers)}/run", "file": f"file://{place}", "path": str(place)}[request.param]


@pytest.fixture
def store(tmp_path: Path) -> CheckpointStore:
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / "config.yaml").write_text("env: {}\n")
    return CheckpointStore(tmp_path / "run", keep=2)


def content(run: Path) -> dict[str, bytes]:
    """Every file below a run directory's checkpoints, by its path there."""
    return {str(path.relative_to(run)): path.read_bytes() for path in (run / "checkpoints").rglob("*") if path.is_file()}


def test_what_is_copied_comes_back_byte_for_byte(store: CheckpointStore, url: str, tmp_path: Path) -> None:
    """The newest, the best, and the run's settings; those that the run has removed go there too."""
    for iteration in (1, 2, 3, 4):
        Storage(url).put(save(store, iteration, best=iteration == 2))
    assert Storage(url).names() == ["ckpt_00000002", "ckpt_00000003", "ckpt_00000004"]
    fetched = Storage(url).fetch(tmp_path / "elsewhere")
    assert fetched == tmp_path / "elsewhere" / "run"
    here, there = content(store.run_directory), content(fetched)
    assert there == {name: data for name, data in here.items() if "00000003" not in name}
    assert (fetched / "config.yaml").read_text() == "env: {}\n"
    assert Storage(url).fetch(tmp_path / "elsewhere") == fetched, "what is there is used"


def test_a_copy_without_its_manifest_is_none(store: CheckpointStore, url: str, tmp_path: Path) -> None:
    """The manifest is the commit mark: it is copied last, and taken away before anything is written over."""
    storage = Storage(url)
    storage.put(save(store, 1))
    second = save(store, 2)
    manifest = (second / "MANIFEST.json").read_bytes()
    (second / "MANIFEST.json").unlink()
    with pytest.raises(FileNotFoundError):
        storage.put(second)
    assert storage.names() == ["ckpt_00000001"]
    assert load_latest_valid(storage.fetch(tmp_path / "elsewhere"))[0].iteration == 1
    (second / "MANIFEST.json").write_bytes(manifest)
    storage.put(second)
    (second / "state.json").unlink()
    (second / "MANIFEST.json").unlink()
    with pytest.raises(FileNotFoundError):
        storage.put(second)
    assert storage.names() == ["ckpt_00000001"]


def test_a_damaged_one_is_passed_over_and_never_left_behind(store: CheckpointStore, url: str, tmp_path: Path) -> None:
    """Cut short or changed on the storage: the one before is taken; where there is none, the error says what is wrong with each."""
    storage = Storage(url)
    first, second = save(store, 1), save(store, 2)
    storage.put(first)
    storage.put(second)
    files, root = fsspec.core.url_to_fs(url)
    data = files.cat_file(f"{root}/checkpoints/ckpt_00000002/learner.safetensors")
    files.pipe_file(f"{root}/checkpoints/ckpt_00000002/learner.safetensors", data[:-1] + b"\x7f")
    fetched = storage.fetch(tmp_path / "elsewhere")
    assert [info.iteration for info in list_checkpoints(fetched)] == [1]
    assert load_checkpoint(fetched / "checkpoints" / "ckpt_00000001").state["version"] == 1
    files.pipe_file(f"{root}/checkpoints/ckpt_00000001/learner.safetensors", data[:-1])
    with pytest.raises(CheckpointError, match=r"no checkpoint of this run can be loaded:\n.*damaged.*\n.*not of the"):
        storage.fetch(tmp_path / "another")


def test_a_fetch_that_was_cut_short_is_completed(store: CheckpointStore, url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Wherever it ended: the next one uses the same directory, and has there what an undisturbed one has."""
    for iteration in (1, 2):
        Storage(url).put(save(store, iteration, best=iteration == 1))
    (store.run_directory / "metrics.jsonl").write_text("{}\n")
    Storage(url).put(save(store, 3))
    whole = content(Storage(url).fetch(tmp_path / "whole"))
    for step in ("_copy", "_copy_beside", "_read"):
        root = tmp_path / step
        with monkeypatch.context() as patch, pytest.raises(CheckpointError, match="cannot be read"):
            patch.setattr(Storage, step, refuse(getattr(Storage, step), number=4 if step == "_read" else 1))
            Storage(url).fetch(root)
        fetched = Storage(url).fetch(root)
        assert [path.name for path in root.iterdir()] == ["run"] and content(fetched) == whole
        assert (fetched / "metrics.jsonl").read_text() == "{}\n"


def refuse(method: Callable[..., Any], number: int) -> Callable[..., Any]:
    """Returns the method, refusing its `number`-th call as a full disk does."""
    calls = itertools.count(1)

    def called(*args: Any, **kwargs: Any) -> Any:
        if next(calls) == number:
            raise OSError(28, "No space left on device")
        return method(*args, **kwargs)

    return called


def test_a_run_is_found_again_under_the_name_that_it_got_here(store: CheckpointStore, url: str, tmp_path: Path) -> None:
    """Beside another run of its name, after its checkpoints have changed, and when the storage is ahead; that of another URL is not it."""
    root = tmp_path / "elsewhere"
    (root / "run").mkdir(parents=True)
    (root / "run" / "config.yaml").write_text("another: {}\n")
    Storage(url).put(save(store, 1))
    here = Storage(url).fetch(root)
    assert here == root / "run-2"
    other = CheckpointStore(here, keep=2)
    for iteration in (2, 3, 4):
        Storage(url).put(save(other, iteration))
    assert Storage(url).names() == ["ckpt_00000003", "ckpt_00000004"], "the run that was there is the one that went on"
    assert Storage(url).fetch(root) == here
    assert Storage(url).fetch(tmp_path) == store.run_directory, "the machine where it began comes to where the other has got"
    assert list_checkpoints(store.run_directory)[-1].iteration == 4
    assert Storage(url).fetch(root) == here and not (root / "run-3").exists()


def test_what_another_machine_has_copied_is_neither_removed_nor_written_over(store: CheckpointStore, url: str, tmp_path: Path) -> None:
    """Two that go on with one run: the second is refused, keeps what it has, and comes to where the first is in a directory of its own."""
    Storage(url).put(save(store, 1))
    there = CheckpointStore(Storage(url).fetch(tmp_path / "elsewhere"), keep=2)
    Storage(url).put(save(there, 3))
    mine = save(store, 2)
    with pytest.raises(CheckpointError, match="its newest checkpoint, ckpt_00000003, is not of this run; it was left as it is"):
        Storage(url).put(mine)
    assert Storage(url).names() == ["ckpt_00000001", "ckpt_00000003"]
    again = Storage(url).fetch(tmp_path)
    assert again == tmp_path / "run-2" and list_checkpoints(again)[-1].iteration == 3
    assert list_checkpoints(store.run_directory)[-1].path == mine


def test_what_is_newer_here_stays(store: CheckpointStore, url: str, tmp_path: Path) -> None:
    """Where the last copies failed, the run's own directory is ahead: its curve and its best are not exchanged for older ones."""
    Storage(url).put(save(store, 1, best=True))
    save(store, 2, best=True)
    save(store, 3)
    (store.run_directory / "config.yaml").write_text("newer: {}\n")
    before = content(store.run_directory)
    assert Storage(url).fetch(tmp_path) == store.run_directory
    assert {name: content(store.run_directory)[name] for name in before} == before
    assert (store.run_directory / "config.yaml").read_text() == "newer: {}\n"
    assert Storage(url).stranger(store.run_directory) is None


def test_a_manifest_cannot_name_files_elsewhere(store: CheckpointStore, url: str, tmp_path: Path) -> None:
    """What comes from storage is trusted no more than what lies on disk."""
    Storage(url).put(save(store, 1))
    files, root = fsspec.core.url_to_fs(url)
    path = f"{root}/checkpoints/ckpt_00000001/MANIFEST.json"
    files.pipe_file(path, files.cat_file(path).replace(b"learner.safetensors", b"../../up.safetensors"))
    with pytest.raises(CheckpointError, match="no checkpoint there"):
        Storage(url).fetch(tmp_path / "elsewhere")
    assert not (tmp_path / "elsewhere").exists()


def test_what_is_not_there_is_told_with_what_is(store: CheckpointStore, url: str, tmp_path: Path) -> None:
    """A folder of runs lists them; an unknown protocol says which there are packages for."""
    Storage(url).put(save(store, 1))
    with pytest.raises(CheckpointError, match=r"no checkpoint there; it has runs, name one of them:\n  .*/run$"):
        Storage(url.removesuffix("/run")).fetch(tmp_path)
    with pytest.raises(CheckpointError, match="no checkpoint there, nor a run"):
        Storage(f"{url}-2").fetch(tmp_path)
    with pytest.raises(UserError, match=r"s3x://bucket/run: .*; for s3:// install s3fs"):
        Storage("s3x://bucket/run")


def test_only_what_has_a_protocol_is_a_url() -> None:
    assert is_url("s3://bucket/run") and is_url("memory://run")
    assert not any(map(is_url, ("runs/a", "/runs/a", "latest", "run@best", "a:b")))
