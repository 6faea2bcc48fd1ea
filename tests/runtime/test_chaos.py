"""Short forms of the chaos and soak benchmarks, and what a run leaves on a cluster that is not its own: nothing."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from runtime.running import ROOT, Run, environment, wait_until

SMALL_BATCH = "--num-workers 2 --num-envs 4 --set rollout.num_steps=512 --set ppo.epochs=2"


def script(name: str, *arguments: str, out: Path) -> dict[str, Any]:
    """Runs a benchmark and returns its report."""
    command = [sys.executable, str(ROOT / "benchmarks" / f"{name}.py"), *arguments, "--out", str(out)]
    done = subprocess.run(command, capture_output=True, text=True, env=environment(), timeout=280, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    print(done.stdout)
    (report,) = out.glob("*.json")
    result: dict[str, Any] = json.loads(report.read_text())
    return result


@pytest.mark.ray
@pytest.mark.long
@pytest.mark.parametrize("what", ["workers", "all"])
def test_random_kills_change_no_bit(what: str, tmp_path: Path) -> None:
    """Row 18: env steps, moments and parameters are those of an undisturbed run."""
    report = script("chaos", "--what", what, "--every", "2", "--minutes", "0.25", "--flags", SMALL_BATCH, out=tmp_path)
    assert report["equal"] and len(report["kills"]) >= 3
    assert sum(report["results"][0]["faults"][name] for name in ("worker_restarts", "learner_restarts")) >= 3


@pytest.mark.ray
@pytest.mark.long
def test_a_driver_killed_at_random_moments_resumes_to_the_same_bits(tmp_path: Path) -> None:
    """Row 9: whatever it was doing, `--resume` goes on from the last whole checkpoint."""
    report = script("chaos", "--what", "driver", "--times", "2", "--total-timesteps", "20480", "--flags", SMALL_BATCH, out=tmp_path)
    assert report["equal"] and len(report["kills"]) == len(report["results"]) == 2


@pytest.mark.ray
@pytest.mark.slow
def test_memory_is_flat_and_no_process_is_left(tmp_path: Path) -> None:
    """Row 17: driver, learner, workers and the object store."""
    report = script("soak", "--iterations", "200", "--warm-up", "0.5", out=tmp_path)
    assert report["left"] == []


@pytest.mark.ray
def test_nothing_is_left_on_a_cluster_that_goes_on(small: Callable[..., Run], shared_ray: Any) -> None:
    """Row 17: no actor, no placement group, no object of ours, also after a worker was replaced."""
    small({"rollout.num_workers": 2})
    wait_until(lambda: shared_ray.available_resources().get("CPU") == 4, 10, "every actor has ended")
    states = {actor["State"] for actor in shared_ray._private.state.actors().values()}
    assert states == {"DEAD"}
    groups = shared_ray.util.placement_group_table().values()
    assert {group["state"] for group in groups} == {"REMOVED"}, "the table remembers groups that are gone"
    store = "object_store_memory"
    wait_until(
        lambda: shared_ray.available_resources().get(store) == shared_ray.cluster_resources()[store], 10, "the object store is empty"
    )
