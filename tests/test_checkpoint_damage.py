"""A checkpoint that is damaged, foreign or hostile ends in a CheckpointError that names the file, and in nothing else."""

from __future__ import annotations

import functools
import hashlib
import json
import os
import shutil
import struct
import tracemalloc
import zipfile

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from distppo.checkpoint import CheckpointStore, list_checkpoints, load_checkpoint, load_latest_valid
from distppo.checkpoint.manifest import read_manifest
from distppo.errors import CheckpointError

ARRAYS = {"learner": {"parameters": np.arange(6, dtype=np.float32)}, "normalizer": {"obs_moments/mean": np.arange(3.0)}}
FILES = ["MANIFEST.json", "learner.safetensors", "normalizer.safetensors", "state.json"]


def save(run, iteration=1):
    state = {"version": iteration, "rate": 0.25}
    return CheckpointStore(run, keep=5).save(iteration=iteration, env_steps=1000 * iteration, arrays=ARRAYS, state=state)


def reseal(path, **changes):
    """Gives a checkpoint a manifest that matches its (changed) files, as someone hostile would."""
    fields = json.loads((path / "MANIFEST.json").read_text())
    del fields["checksum"]
    for name in [name for name in fields["files"] if (path / name).is_file()]:
        data = (path / name).read_bytes()
        fields["files"][name] = {"size": len(data), "sha256": hashlib.sha256(data).hexdigest()}
    fields |= changes
    fields["checksum"] = hashlib.sha256(json.dumps(fields, sort_keys=True).encode()).hexdigest()
    (path / "MANIFEST.json").write_text(json.dumps(fields))


def manifest_files(path):
    return json.loads((path / "MANIFEST.json").read_text())["files"]


@pytest.fixture
def checkpoint(tmp_path):
    return save(tmp_path)


@settings(max_examples=400, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(name=st.sampled_from(FILES), data=st.data())
def test_flipped_cut_and_added_bytes_are_found_or_change_nothing(checkpoint, name, data):
    file = checkpoint / name
    good = file.read_bytes()
    position = data.draw(st.integers(0, len(good) - 1))
    flipped = good[:position] + bytes([good[position] ^ data.draw(st.integers(1, 255))]) + good[position + 1 :]
    added = good[:position] + data.draw(st.binary(min_size=1, max_size=8)) + good[position:]
    file.write_bytes(data.draw(st.sampled_from([flipped, good[:position], added])))
    try:
        loaded = load_checkpoint(checkpoint)
    except CheckpointError as error:
        assert str(file) in str(error)
    else:
        assert name == "MANIFEST.json"  # White space in it carries nothing.
        assert (loaded.iteration, loaded.env_steps, loaded.state) == (1, 1000, {"version": 1, "rate": 0.25})
        np.testing.assert_array_equal(loaded.arrays["learner"]["parameters"], ARRAYS["learner"]["parameters"])
    finally:
        file.write_bytes(good)


@settings(max_examples=300, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(name=st.sampled_from(FILES[1:]), data=st.data())
def test_damage_under_a_matching_hash_never_ends_in_another_exception(checkpoint, name, data):
    file = checkpoint / name
    good = file.read_bytes()
    position = data.draw(st.integers(0, len(good) - 1))
    file.write_bytes(good[:position] + data.draw(st.binary(max_size=8)) + good[position + data.draw(st.integers(0, 4)) :])
    reseal(checkpoint)
    try:
        load_checkpoint(checkpoint)
    except CheckpointError as error:
        assert str(file) in str(error)
    finally:
        file.write_bytes(good)


@settings(max_examples=100, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    st.dictionaries(
        st.sampled_from(["format_version", "iteration", "env_steps", "serial", "saved_at", "files", "format", "other"]),
        st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5) | st.sampled_from([[], {}, {"state.json": {}}]),
        min_size=1,
        max_size=2,
    )
)
def test_any_other_value_in_a_sealed_manifest_is_refused_or_sound(checkpoint, changes):
    good = (checkpoint / "MANIFEST.json").read_bytes()
    reseal(checkpoint, **changes)
    try:
        manifest = read_manifest(checkpoint)
        assert set(changes) <= {"format_version", "iteration", "env_steps", "serial"}
        assert all(isinstance(value, int) and value >= 0 for value in (manifest.iteration, manifest.env_steps, manifest.serial))
    except CheckpointError:
        pass
    finally:
        (checkpoint / "MANIFEST.json").write_bytes(good)


def test_a_newer_format_says_so(checkpoint):
    reseal(checkpoint, format_version=2)
    with pytest.raises(CheckpointError, match=r"made by a newer distppo.*Upgrade distppo"):
        load_checkpoint(checkpoint)


@pytest.mark.parametrize(
    "name", ["../secret.safetensors", "/etc/passwd", "a/b.safetensors", "..", "a\x00.safetensors", ".safetensors", "model.pt", ""]
)
def test_a_manifest_cannot_name_a_file_elsewhere_or_of_another_kind(checkpoint, name):
    files = manifest_files(checkpoint) | {name: {"size": 1, "sha256": "0" * 64}}
    reseal(checkpoint, files=files)
    with pytest.raises(CheckpointError, match=r"MANIFEST\.json: damaged"):
        load_checkpoint(checkpoint)


@pytest.mark.parametrize("size", [-1, True, 1.0, 2**40, 10**30])
def test_sizes_in_a_manifest_are_bounded(checkpoint, size):
    files = manifest_files(checkpoint) | {"more.safetensors": {"size": size, "sha256": "0" * 64}}
    reseal(checkpoint, files=files)
    with pytest.raises(CheckpointError, match=r"MANIFEST\.json: damaged"):
        load_checkpoint(checkpoint)


@pytest.mark.parametrize("name", FILES)
@pytest.mark.parametrize("kind", ["link", "directory", "pipe", "missing", "huge"])
def test_only_regular_files_of_the_stated_size_are_read(checkpoint, name, kind):
    file = checkpoint / name
    copy = checkpoint.parent / "copy"
    shutil.copy(file, copy)
    file.unlink()
    if kind == "link":
        file.symlink_to(copy)
    elif kind == "directory":
        file.mkdir()
    elif kind == "pipe":
        os.mkfifo(file)
    elif kind == "huge":
        with open(file, "wb") as sparse:
            sparse.truncate(1 << 40)
    with pytest.raises(CheckpointError) as caught:
        load_checkpoint(checkpoint)
    assert str(file if (name, kind) != ("MANIFEST.json", "missing") else checkpoint) in str(caught.value)


def header(fields, data=b""):
    text = json.dumps(fields).encode()
    return struct.pack("<Q", len(text)) + text + data


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"\x80\x04cos\nsystem\n(S'touch /tmp/owned'\ntR.",
        struct.pack("<Q", 2**60) + b"{}",
        header({"a": {"dtype": "F32", "shape": [0, 2**62], "data_offsets": [0, 0]}}),
        header({"a": {"dtype": "F32", "shape": [2**63, 4], "data_offsets": [0, 0]}}),
        header({"a": {"dtype": "F32", "shape": [0] * 100, "data_offsets": [0, 0]}}),
        header({"a": {"dtype": "BF16", "shape": [1], "data_offsets": [0, 2]}}, b"xx"),
        header({"a": {"dtype": "F32", "shape": [1], "data_offsets": [0, 400]}}, b"xxxx"),
        header({"a": {"dtype": "F32", "shape": [-1], "data_offsets": [0, 4]}}, b"xxxx"),
        header({"a": 1}),
    ],
)
def test_hostile_safetensors_with_a_matching_hash_are_refused(checkpoint, data):
    (checkpoint / "learner.safetensors").write_bytes(data)
    reseal(checkpoint)
    with pytest.raises(CheckpointError, match=r"learner\.safetensors: not a readable safetensors"):
        load_checkpoint(checkpoint)


def test_a_header_that_costs_more_than_its_bytes_is_refused_before_it_is_read(checkpoint):
    entry = '"%d":{"dtype":"F32","shape":[0],"data_offsets":[0,0]}'
    text = ("{" + ",".join(entry % number for number in range(180_000)) + "}").encode()
    for data, message in [
        (struct.pack("<Q", len(text)) + text, r"a header of \d+,\d+,\d+ bytes, more than the 8,388,608 allowed"),
        (header({}).replace(b"{}", b'{"a":{"dtype":"U8","shape":[0],"data_offsets":[0,0]},"a":1}'), "not a readable safetensors"),
    ]:
        (checkpoint / "learner.safetensors").write_bytes(data)
        reseal(checkpoint)
        with pytest.raises(CheckpointError, match=message):
            load_checkpoint(checkpoint)


def test_a_whole_checkpoint_is_bounded_not_only_each_file(checkpoint):
    entries = {f"part{number}.safetensors": {"size": 1 << 30, "sha256": "0" * 64} for number in range(3)}
    for name in entries:
        with open(checkpoint / name, "wb") as sparse:
            sparse.truncate(1 << 30)
    fields = json.loads((checkpoint / "MANIFEST.json").read_text())
    del fields["checksum"]
    fields["files"] |= entries
    fields["checksum"] = hashlib.sha256(json.dumps(fields, sort_keys=True).encode()).hexdigest()
    (checkpoint / "MANIFEST.json").write_text(json.dumps(fields))
    with pytest.raises(CheckpointError, match=r"MANIFEST\.json: damaged"):
        load_checkpoint(checkpoint)


def test_memory_is_not_taken_for_a_size_that_the_file_has_not(checkpoint):
    fields = json.loads((checkpoint / "MANIFEST.json").read_text())
    del fields["checksum"]
    fields["files"]["learner.safetensors"]["size"] = 1 << 30
    fields["checksum"] = hashlib.sha256(json.dumps(fields, sort_keys=True).encode()).hexdigest()
    (checkpoint / "MANIFEST.json").write_text(json.dumps(fields))
    tracemalloc.start()
    with pytest.raises(CheckpointError, match=r"learner\.safetensors: cut short"):
        load_checkpoint(checkpoint)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 1_000_000


def test_what_could_not_be_read_again_is_not_written(tmp_path):
    store = CheckpointStore(tmp_path, keep=2)
    deep: dict[str, object] = {}
    for state, message in [
        ({"a": 10**100}, "an integer of 101 characters"),
        ({"a": "\ud800"}, "surrogate"),
        ({"a": functools.reduce(lambda inner, _: {"a": inner}, range(70), deep)}, "nested more than 64 deep"),
        ({"a": "x" * (33 << 20)}, "could not be read again"),
    ]:
        with pytest.raises(ValueError, match=message):
            store.save(iteration=1, env_steps=1, arrays={}, state=state)
    assert list(store.directory.iterdir()) == []


def test_a_manifest_that_names_fewer_files_gives_those_and_no_more(checkpoint):
    files = manifest_files(checkpoint)
    del files["normalizer.safetensors"]
    reseal(checkpoint, files=files)
    assert set(load_checkpoint(checkpoint).arrays) == {"learner"}
    del files["state.json"]
    reseal(checkpoint, files=files)
    with pytest.raises(CheckpointError, match=r"MANIFEST\.json: damaged"):
        load_checkpoint(checkpoint)


def test_a_link_in_a_run_is_no_checkpoint_of_it(tmp_path):
    save(tmp_path / "other")
    path = save(tmp_path / "run")
    (path.parent / "ckpt_00000002").symlink_to(tmp_path / "other" / "checkpoints" / "ckpt_00000001")
    checkpoint, problems = load_latest_valid(tmp_path / "run")
    assert checkpoint.path == path and "ckpt_00000002: a link, which a run never holds" in problems[0]
    (tmp_path / "linked").mkdir()
    (tmp_path / "linked" / "checkpoints").symlink_to(path.parent)
    assert list_checkpoints(tmp_path / "linked") == []
    with pytest.raises(CheckpointError, match=r"checkpoints: a link, which a run never holds"):
        load_latest_valid(tmp_path / "linked")


@pytest.mark.parametrize("text", ["[" * 100_000, '{"a": NaN}', '{"a": Infinity}', "[]", "1", "", '{"a": ' + "9" * 5000 + "}", "\ufeff{}"])
def test_hostile_json_with_a_matching_hash_is_refused(checkpoint, text):
    (checkpoint / "state.json").write_text(text)
    reseal(checkpoint)
    with pytest.raises(CheckpointError, match=r"state\.json: damaged"):
        load_checkpoint(checkpoint)


def test_files_that_the_manifest_does_not_list_are_never_opened(checkpoint):
    os.mkfifo(checkpoint / "extra.safetensors")
    assert set(load_checkpoint(checkpoint).arrays) == {"learner", "normalizer"}


@pytest.mark.parametrize("name", FILES)
def test_resume_falls_back_to_the_one_before_a_damaged_one_and_says_so(tmp_path, name):
    for iteration in (1, 2, 3):
        save(tmp_path, iteration)
    damaged = tmp_path / "checkpoints" / "ckpt_00000003" / name
    damaged.write_bytes(damaged.read_bytes()[:-5])
    checkpoint, problems = load_latest_valid(tmp_path)
    assert checkpoint.iteration == 2
    assert len(problems) == 1 and str(damaged) in problems[0]


def test_resume_with_nothing_whole_lists_what_is_wrong_with_each(tmp_path):
    for iteration in (1, 2):
        (save(tmp_path, iteration) / "state.json").write_text("{}")
    with pytest.raises(CheckpointError, match=r"(?s)no checkpoint of this run.*ckpt_00000001.*ckpt_00000002|ckpt_00000002.*ckpt_00000001"):
        load_latest_valid(tmp_path)


def test_a_whole_run_has_no_problems(tmp_path):
    save(tmp_path)
    assert load_latest_valid(tmp_path)[1] == []


def test_only_whole_manifests_are_listed(tmp_path):
    save(tmp_path, 1)
    (save(tmp_path, 2) / "MANIFEST.json").unlink()
    (tmp_path / "checkpoints" / "ckpt_00000003").mkdir()
    (tmp_path / "checkpoints" / "notes.txt").write_text("mine")
    assert [info.iteration for info in list_checkpoints(tmp_path)] == [1]


def make_zip(path):
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("policy.pth", b"")


@pytest.mark.parametrize(
    ("name", "make", "message"),
    [
        ("model.zip", make_zip, "Stable-Baselines3"),
        ("model.pt", lambda path: path.write_bytes(b"\x80\x04."), "loading one can run code"),
        ("model.pth", lambda path: path.write_bytes(b""), "loading one can run code"),
        ("notes.txt", lambda path: path.write_text(""), "a file, not a distppo checkpoint"),
        ("weights.safetensors", lambda path: path.write_bytes(b""), "name its directory"),
        ("folder", lambda path: path.mkdir(), "neither a run directory"),
        ("absent", lambda path: None, "there is nothing here"),
        ("ckpt_00000001", lambda path: path.mkdir(), "not a complete checkpoint"),
        ("run", lambda path: (path / "checkpoints").mkdir(parents=True), "a run without a checkpoint so far"),
        ("rllib", lambda path: (path.mkdir(), (path / "rllib_checkpoint.json").touch()), "an RLlib checkpoint"),
    ],
)
def test_a_foreign_thing_is_called_by_its_name(tmp_path, name, make, message):
    make(tmp_path / name)
    for load in (load_checkpoint, load_latest_valid):
        with pytest.raises(CheckpointError, match=message) as caught:
            load(tmp_path / name)
        assert str(tmp_path / name) in str(caught.value) and "Expected:" in str(caught.value)
