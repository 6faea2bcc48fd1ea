"""`doctor` finds what would keep training from working, and says how to fix it, in one line each."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from distppo.config import Config, load_config
from distppo.envs import probe_env
from distppo.runtime import doctor
from distppo.runtime.diagnosis import Check

Launch = Callable[..., subprocess.CompletedProcess[str]]
CONFIG = load_config(env="InvertedPendulum-v4")


def machine(config: Config = CONFIG, address: str | None = None) -> dict[str, Check]:
    """What the checks find that need no process of their own."""
    return {check.name: check for check in doctor._machine(config, probe_env(config.env), address)}


@pytest.mark.slow
@pytest.mark.ray
def test_this_machine_is_fit_and_its_report_is_json(launch: Launch, tmp_path: Path) -> None:
    done = launch("doctor", "--env", "InvertedPendulum-v4", "--json")
    report = json.loads(done.stdout)
    assert (done.returncode, report["fit"], done.stderr) == (0, True, "")
    checks = {check["name"]: check for check in report["checks"]}
    assert {"python", "packages", "cores", "memory", "writing", "disk", "clock", "device", "ray", "compiled learner"} <= checks.keys()
    assert {"render egl", "render osmesa", "render glfw"} <= checks.keys() or sys.platform != "linux"
    assert all(check["state"] != "failure" for check in checks.values())
    assert "start" in checks["ray"]["found"]  # on a machine that is busy with other tests it may not within the time
    assert not list(tmp_path.iterdir())


@pytest.mark.slow
@pytest.mark.ray
def test_failures_are_told_with_a_fix_and_the_exit_code(launch: Launch, tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    done = launch("doctor", "--env", "HalfCheeta-v4", "--address", "127.0.0.1:1", "--set", "learner.device=cuda")
    assert done.returncode == 1
    failed = [line for line in done.stdout.splitlines() if line.startswith("failure")]
    assert [line.split()[1] for line in failed][:2] == ["cluster", "environment"]
    assert "did you mean HalfCheetah" in failed[1] and done.stdout.count("fix: ") >= len(failed)


def test_a_machine_that_fits_has_no_failure() -> None:
    assert {check.state for check in machine().values()} <= {"ok", "warning"}


def test_more_workers_than_cores_are_told(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(doctor, "available_cores", lambda: 2)
    check = machine(load_config(env="InvertedPendulum-v4", num_workers=8))["cores"]
    assert (check.state, check.fix) == ("warning", "use --num-workers 2, or auto")


def test_a_batch_that_does_not_fit_into_memory_is_a_failure() -> None:
    check = machine(load_config(env="InvertedPendulum-v4", num_steps=10**9, num_envs=64))["memory"]
    assert check.state == "failure" and "--num-steps" in check.fix


def test_a_shared_memory_that_is_too_small_is_told(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(doctor, "_SHARED_MEMORY", tmp_path)
    check = machine(load_config(env="InvertedPendulum-v4", num_steps=10**9, num_envs=64))["object store"]
    assert check.state == "warning" and "--shm-size=" in check.fix


def test_a_place_that_takes_no_files_is_a_failure() -> None:
    place = "/proc/nowhere" if os.geteuid() == 0 else "/nowhere"
    check = machine(load_config(env="InvertedPendulum-v4", run_dir=place))["writing"]
    assert check.state == "failure" and "--run-dir" in check.fix


def test_a_run_directory_that_train_would_refuse_is_a_failure(tmp_path: Path) -> None:
    """By the same rules: a file in the way is not passed over for the folder above it, and a run is not written over."""
    (tmp_path / "afile").touch()
    taken = tmp_path / "taken"
    taken.mkdir()
    (taken / "metrics.jsonl").write_text('{"time/total_timesteps": 1}\n')
    for place, found in ((tmp_path / "afile/x", "a file is in the way"), (taken, "already holds a run")):
        check = machine(load_config(env="InvertedPendulum-v4", run_dir=str(place)))["writing"]
        assert (check.state, check.found.endswith(found)) == ("failure", True) and "--run-dir" in check.fix
    assert machine(load_config(env="InvertedPendulum-v4", run_dir=str(tmp_path / "new/run")))["writing"].state == "ok"
    assert {path.name for path in tmp_path.rglob("*")} == {"afile", "taken", "metrics.jsonl"}


def test_a_missing_gpu_is_a_failure_if_it_is_asked_for() -> None:
    torch = pytest.importorskip("torch")
    if torch.cuda.is_available():
        pytest.skip("there is a GPU")
    assert machine(load_config(env="InvertedPendulum-v4", overrides={"learner.device": "cuda"}))["device"].state == "failure"
    assert machine()["device"].state == "ok"


def test_a_missing_compiler_is_a_failure_if_it_is_asked_for(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", "/nowhere")
    config = load_config(env="InvertedPendulum-v4", overrides={"learner.compile": True, "learner.step": "torch"})
    assert machine(config)["compiler"].state == "failure"


def test_a_cache_that_cannot_be_written_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("distppo.algo.fused.cache_folder", lambda: "/proc/nowhere")
    check = machine()["compiled learner"]
    assert check.state == "warning" and "NUMBA_CACHE_DIR" in check.fix


def test_missing_packages_end_the_examination(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(doctor, "PACKAGES", ("ray", "not_a_package_at_all"))
    checks: list[Any] = list(doctor.diagnose(CONFIG, address=None))
    assert [check.name for check in checks] == ["python", "packages"] and checks[1].state == "failure"
