"""What a checkpoint store promises while nothing breaks: exact round trips, pointers, pruning, replacement."""

from __future__ import annotations

import json
import subprocess
import sys

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from distppo.checkpoint import CheckpointStore, load_checkpoint
from distppo.checkpoint.content import decode_arrays, encode_arrays
from distppo.errors import CheckpointError

DTYPES = ["?", "<i8", "<i4", "<u4", "|u1", "<f2", "<f4", "<f8", ">f8", ">i4"]


def save(store, iteration, *, best=False, value=0.0):
    return store.save(
        iteration=iteration,
        env_steps=1000 * iteration,
        arrays={"learner": {"parameters": np.full(3, value, np.float32)}, "normalizer": {"obs_moments/mean": np.arange(4.0)}},
        state={"version": iteration, "value": value},
        best=best,
    )


def iterations(store):
    return [info.iteration for info in store.list()]


@settings(max_examples=150, deadline=None)
@given(st.data())
def test_arrays_round_trip_in_dtype_shape_and_bits(tmp_path_factory, data):
    dtype = data.draw(st.sampled_from(DTYPES))
    array = data.draw(hnp.arrays(dtype, hnp.array_shapes(min_dims=0, max_dims=4, min_side=0, max_side=4)))
    if data.draw(st.booleans()):
        array = array.T
    array.flags.writeable = False
    loaded = decode_arrays(encode_arrays({"group/name": array}), tmp_path_factory.getbasetemp())["group/name"]
    assert loaded.dtype == array.dtype.newbyteorder("=")
    assert loaded.shape == array.shape
    assert loaded.tobytes() == array.astype(loaded.dtype).tobytes()
    assert loaded.flags.writeable


def test_strided_views_round_trip(tmp_path):
    whole = np.arange(24.0).reshape(4, 6)
    views = {"columns": whole[:, ::2], "reversed": whole[::-1], "broadcast": np.broadcast_to(np.float32(2), (3, 2))}
    loaded = decode_arrays(encode_arrays(views), tmp_path)
    for name, view in views.items():
        np.testing.assert_array_equal(loaded[name], view)


def test_nan_payloads_and_signed_zeros_keep_their_bits(tmp_path):
    bits = np.array([0x7FF8000000000001, 0xFFF0000000000000, 0x8000000000000000], np.uint64)
    loaded = decode_arrays(encode_arrays({"x": bits.view(np.float64)}), tmp_path)["x"]
    np.testing.assert_array_equal(loaded.view(np.uint64), bits)


def test_a_saved_checkpoint_loads_with_everything_in_it(tmp_path):
    store = CheckpointStore(tmp_path, keep=3)
    state = {"rng": {"state": 2**127 + 1}, "rate": 0.1 + 0.2, "none": None, "list": [1, [True, "caf\u00e9"]], "empty": {}}
    path = store.save(iteration=12, env_steps=196_608, arrays={"a": {"x": np.float64(3.5)}, "nothing": {}}, state=state)
    assert path == tmp_path / "checkpoints" / "ckpt_00000012"
    loaded = load_checkpoint(path)
    assert (loaded.path, loaded.iteration, loaded.env_steps, loaded.state) == (path, 12, 196_608, state)
    assert loaded.arrays["nothing"] == {} and loaded.arrays["a"]["x"].shape == ()
    assert loaded.arrays["a"]["x"] == 3.5


def test_numpy_integers_are_fine_as_counters(tmp_path):
    path = CheckpointStore(tmp_path, keep=2).save(iteration=np.int64(1), env_steps=np.int64(8), arrays={}, state={})
    assert load_checkpoint(path).env_steps == 8


@pytest.mark.parametrize(
    ("arrays", "state", "message"),
    [
        ({"a": {"x": np.array(["text"])}}, {}, "'x' has dtype"),
        ({"a": {"x": np.array([{}])}}, {}, "'x' has dtype object"),
        ({"a": {"__metadata__": np.zeros(1)}}, {}, "__metadata__"),
        ({"../a": {}}, {}, "cannot be the name"),
        ({".a": {}}, {}, "cannot be the name"),
        ({"": {}}, {}, "cannot be the name"),
        ({}, {"a": {"b": [1.0, float("nan")]}}, r"state.json.a.b\[1\]: nan"),
        ({}, {"a": float("-inf")}, "state.json.a: -inf"),
        ({}, {1: 2}, "key 1 is not a string"),
        ({}, {"a": np.float32(1)}, "numpy.float32"),
        ({}, {"a": {1, 2}}, "builtins.set"),
    ],
)
def test_what_cannot_be_stored_is_refused_by_name_before_anything_is_written(tmp_path, arrays, state, message):
    store = CheckpointStore(tmp_path, keep=2)
    with pytest.raises(ValueError, match=message):
        store.save(iteration=1, env_steps=1, arrays=arrays, state=state)
    assert list(store.directory.iterdir()) == []


def test_the_files_on_disk_are_those_of_the_documented_format(tmp_path):
    path = save(CheckpointStore(tmp_path, keep=2), 7, best=True)
    assert sorted(file.name for file in path.iterdir()) == ["MANIFEST.json", "learner.safetensors", "normalizer.safetensors", "state.json"]
    manifest = json.loads((path / "MANIFEST.json").read_text())
    assert (manifest["format_version"], manifest["iteration"], manifest["env_steps"]) == (1, 7, 7000)
    assert (path.parent / "latest").read_text() == (path.parent / "best").read_text() == "ckpt_00000007\n"


def test_the_newest_and_the_best_are_kept_and_the_rest_pruned(tmp_path):
    store = CheckpointStore(tmp_path, keep=3)
    save(store, 1)
    save(store, 2, best=True)
    for iteration in range(3, 8):
        save(store, iteration)
    assert iterations(store) == [2, 5, 6, 7]
    assert store.latest().iteration == 7 and store.best().iteration == 2
    store.mark_best(store.latest().path)
    save(store, 8)
    assert iterations(store) == [6, 7, 8]
    assert sorted(path.name for path in store.directory.iterdir()) == ["best", "ckpt_00000006", "ckpt_00000007", "ckpt_00000008", "latest"]


def test_at_least_two_are_kept(tmp_path):
    store = CheckpointStore(tmp_path, keep=0)
    for iteration in range(1, 4):
        save(store, iteration)
    assert iterations(store) == [2, 3]


def test_a_new_store_is_empty(tmp_path):
    store = CheckpointStore(tmp_path / "new" / "run", keep=2)
    assert store.list() == [] and store.latest() is None and store.best() is None


def test_saving_an_iteration_again_replaces_it(tmp_path):
    store = CheckpointStore(tmp_path, keep=2)
    save(store, 1, value=1.0)
    path = save(store, 1, value=2.0)
    assert iterations(store) == [1]
    assert load_checkpoint(path).state["value"] == 2.0
    assert sorted(entry.name for entry in store.directory.iterdir()) == ["ckpt_00000001", "latest"]


def test_a_replaced_best_is_no_longer_the_best(tmp_path):
    store = CheckpointStore(tmp_path, keep=2)
    save(store, 1, best=True)
    save(store, 1)
    assert store.best() is None
    save(store, 1, best=True)
    assert store.best().iteration == 1


def test_after_going_back_the_newest_is_what_was_saved_last_not_the_highest_iteration(tmp_path):
    store = CheckpointStore(tmp_path, keep=2)
    for iteration in (5, 10):
        save(store, iteration)
    for iteration in (6, 7):
        save(store, iteration)
    assert iterations(store) == [6, 7] and store.latest().iteration == 7


def test_mark_best_refuses_what_is_not_in_the_store(tmp_path):
    store, other = CheckpointStore(tmp_path / "a", keep=2), CheckpointStore(tmp_path / "b", keep=2)
    save(store, 1)
    elsewhere = save(other, 1)
    with pytest.raises(CheckpointError, match="not a checkpoint of"):
        store.mark_best(elsewhere)
    with pytest.raises(CheckpointError, match="not a checkpoint of"):
        store.mark_best(store.directory / "ckpt_00000002")
    assert store.best() is None


@pytest.mark.parametrize("content", [b"", b"ckpt_99999999\n", b"../../etc\n", b"\xff\xfe", b"x" * 10_000])
def test_a_pointer_to_nowhere_points_to_nothing(tmp_path, content):
    store = CheckpointStore(tmp_path, keep=2)
    save(store, 1, best=True)
    (store.directory / "best").write_bytes(content)
    assert store.best() is None and store.latest().iteration == 1


def test_reading_a_checkpoint_imports_no_torch(tmp_path):
    path = save(CheckpointStore(tmp_path, keep=2), 1)
    code = f"import sys; from distppo.checkpoint import load_checkpoint; load_checkpoint({str(path)!r}); sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
