"""What actors print: in files of the run directory, one each."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from runtime.running import Run

from distppo.runtime.output import RunLogs


@pytest.mark.ray
def test_each_actor_has_a_file(small: Callable[..., Run], shared_ray: Any) -> None:
    """With who wrote it, and what code of the user's printed."""
    run = small({"rollout.num_workers": 2, "env.id": "probe_envs:Talking-v0"})
    logs = run.directory / "logs"
    assert sorted(path.name for path in logs.iterdir()) == ["learner.log", "worker-0.log", "worker-1.log"]
    text = (logs / "worker-1.log").read_text()
    assert text.startswith("--- 20") and " worker-1, process " in text.splitlines()[0]
    assert "said by the environment\n" in text and "complained by it\n" in text


@pytest.mark.ray
def test_where_the_run_directory_is_not_the_file_says_where_the_output_is(shared_ray: Any, tmp_path: Path) -> None:
    """A machine may have a folder of the same name that is not the run's."""
    (tmp_path / ".lock").write_text("process 1 on here")
    logs = RunLogs.of(tmp_path)
    (tmp_path / ".lock").write_text("process 2 on there")

    @shared_ray.remote(num_cpus=1)
    def elsewhere() -> str:
        return logs.redirect("worker-0")

    place = shared_ray.get(elsewhere.remote())
    assert place.startswith("node ") and place.endswith(".err")
    logs.note("worker-0", place)
    assert (tmp_path / "logs" / "worker-0.log").read_text() == f"the output of worker-0 is on {place}\n"
