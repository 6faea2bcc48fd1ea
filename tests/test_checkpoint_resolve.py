"""Every way to name a checkpoint resolves to the right one, and what does not resolve lists what would."""

from __future__ import annotations

import numpy as np
import pytest

from distppo.checkpoint import CheckpointStore, load_for_resume, resolve_checkpoint
from distppo.errors import CheckpointError


def make_run(directory, iterations, best=None):
    store = CheckpointStore(directory, keep=9)
    for iteration in iterations:
        store.save(iteration=iteration, env_steps=1000 * iteration, arrays={"a": {"x": np.zeros(2)}}, state={}, best=iteration == best)


@pytest.fixture
def root(tmp_path, monkeypatch):
    """runs/old has 1, 2 (best), 3; runs/new, saved later, has 5, 6 and no best."""
    monkeypatch.chdir(tmp_path)
    make_run(tmp_path / "runs" / "old", (1, 2, 3), best=2)
    make_run(tmp_path / "runs" / "new", (5, 6))
    (tmp_path / "runs" / "empty" / "checkpoints").mkdir(parents=True)
    return tmp_path


@pytest.mark.parametrize(
    ("reference", "prefer", "expected"),
    [
        ("latest", "best", "new/6"),
        ("latest", "last", "new/6"),
        ("latest@5000", "last", "new/5"),
        ("runs/old", "best", "old/2"),
        ("runs/old/", "last", "old/3"),
        ("old", "best", "old/2"),
        ("old@last", "best", "old/3"),
        ("runs/old@best", "last", "old/2"),
        ("runs/old@1000", "best", "old/1"),
        ("runs/old@1,000", "best", "old/1"),
        ("runs/new", "best", "new/6"),
        ("runs/old/checkpoints", "last", "old/3"),
        ("runs/old/checkpoints/best", "last", "old/2"),
        ("runs/old/checkpoints/latest", "best", "old/3"),
        ("runs/old/checkpoints/ckpt_00000001", "best", "old/1"),
    ],
)
def test_a_reference_resolves(root, reference, prefer, expected):
    run, iteration = expected.split("/")
    path = resolve_checkpoint(reference, prefer=prefer)
    assert path.resolve() == root / "runs" / run / "checkpoints" / f"ckpt_{int(iteration):08d}"


@pytest.mark.parametrize("reference", ["ckpt_00000001", "../checkpoints/ckpt_00000001", "../ckpt_00000001", "./ckpt_00000001/"])
def test_the_run_is_two_levels_above_a_checkpoint_wherever_it_is_named_from(root, monkeypatch, reference):
    run = root / "runs" / "old"
    (run / "checkpoints" / "sub").mkdir()
    monkeypatch.chdir(run / "checkpoints" / ("sub" if reference.startswith("../ckpt") else ""))
    assert resolve_checkpoint(reference, prefer="best").parent.parent.resolve() == run


@pytest.mark.parametrize(
    ("reference", "message"),
    [
        ("runs/od", r"(?s)neither a path nor a run.*Did you mean runs/old\?.*runs/new  \(last at 6,000 env steps\).*runs/old"),
        ("runs/old@2500", r"(?s)exactly this many env steps.*old@1000  \(iteration 1\).*old@2000  \(iteration 2, best\).*old@3000"),
        ("runs/old@wurst", r"(?s)what follows the @ is best, last or env steps.*old@1000"),
        ("runs/old@", "nothing follows the @"),
        ("runs/new@best", r"(?s)no checkpoint is marked best.*new@5000"),
        ("runs/empty", "a run without a checkpoint so far"),
        ("runs", r"(?s)neither a run directory.*Runs with a checkpoint:.*runs/new"),
        ("runs/old/checkpoints/ckpt_00000001/state.json", "name its directory"),
        ("runs/old/checkpoints/ckpt_00000001@best", "a checkpoint, not a run"),
        ("", "neither a path nor a run"),
        ("a\0b", "neither a path nor a run"),
        ("x" * 5000, "neither a path nor a run"),
        ("@best", "neither a path nor a run"),
    ],
)
def test_what_does_not_resolve_says_why_and_what_would(root, reference, message):
    for call in (lambda: resolve_checkpoint(reference, prefer="best"), lambda: load_for_resume(reference)):
        with pytest.raises(CheckpointError, match=message):
            call()


def test_latest_without_any_run_says_so(tmp_path):
    with pytest.raises(CheckpointError, match=r"no run under .* has a checkpoint"):
        resolve_checkpoint("latest", prefer="last", runs_root=tmp_path / "runs")


def test_a_run_with_only_damaged_manifests_says_what_is_wrong(root):
    for manifest in (root / "runs" / "new").glob("checkpoints/*/MANIFEST.json"):
        manifest.write_text("{}")
    with pytest.raises(CheckpointError, match=r"(?s)none of its checkpoints can be read.*ckpt_00000005.*ckpt_00000006"):
        resolve_checkpoint("runs/new", prefer="best")


@pytest.mark.parametrize("reference", ["latest", "runs/new", "new@last"])
def test_resuming_a_run_passes_over_a_damaged_newest(root, reference):
    (root / "runs" / "new" / "checkpoints" / "ckpt_00000006" / "state.json").write_text("")
    checkpoint, problems = load_for_resume(reference)
    assert checkpoint.iteration == 5 and "ckpt_00000006" in problems[0]


@pytest.mark.parametrize("reference", ["runs/new/checkpoints/ckpt_00000006", "new@6000"])
def test_resuming_a_damaged_checkpoint_named_exactly_is_refused(root, reference):
    (root / "runs" / "new" / "checkpoints" / "ckpt_00000006" / "state.json").write_text("")
    with pytest.raises(CheckpointError, match=r"state\.json: cut short"):
        load_for_resume(reference)


@pytest.mark.parametrize("content", [b"", b"ckpt_00000001", b"../../new\n", b"\xff", b"x" * 10_000])
def test_a_damaged_pointer_hides_no_checkpoint(root, content):
    checkpoints = root / "runs" / "old" / "checkpoints"
    for pointer in ("best", "latest"):
        (checkpoints / pointer).write_bytes(content)
    assert load_for_resume("old")[0].iteration == load_for_resume("old@last")[0].iteration == 3
    if content != b"ckpt_00000001":
        assert resolve_checkpoint("old", prefer="best").name == "ckpt_00000003"
        with pytest.raises(CheckpointError, match=r"(?s)the file `best` is damaged.*old@2000"):
            resolve_checkpoint("old@best", prefer="best")


def test_resuming_a_run_takes_the_last_not_the_best(root):
    assert load_for_resume("old")[0].iteration == 3
    assert load_for_resume("old@best")[0].iteration == 2
