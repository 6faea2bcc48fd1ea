"""Where actors go: one placement group a run, which is gone afterwards; and runs that start with fewer workers than they may have."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from runtime.running import Run, wait_until

from distppo.config import Config
from distppo.errors import ResourceError
from distppo.runtime.placement import Placement

pytestmark = pytest.mark.ray


@contextlib.contextmanager
def held(ray: Any, cpus: int) -> Iterator[None]:
    """Keeps CPUs from the block."""

    class Holder:
        def ready(self) -> None:
            pass

    holder = ray.remote(num_cpus=cpus)(Holder).remote()
    ray.get(holder.ready.remote())
    try:
        yield
    finally:
        ray.kill(holder)
        wait_until(lambda: ray.available_resources().get("CPU") == 4, 20, "everything has ended")


def groups(ray: Any) -> list[dict[str, Any]]:
    """Placement groups that there are or have been."""
    return list(ray.util.placement_group_table().values())


def left(ray: Any) -> list[str]:
    """Placement groups that are not removed."""
    return [group["name"] for group in groups(ray) if group["state"] != "REMOVED"]


@pytest.mark.parametrize("placement", ["pack", pytest.param("spread", marks=pytest.mark.slow)])
def test_a_run_has_one_group_of_known_bundles_and_gives_it_back(small: Callable[..., Run], shared_ray: Any, placement: str) -> None:
    """The learner's bundle and one a worker, with the strategy that was asked for, named after the run."""
    before = {group["placement_group_id"] for group in groups(shared_ray)}
    run = small({"rollout.num_workers": 2, "cluster.placement": placement})
    (mine,) = [group for group in groups(shared_ray) if group["placement_group_id"] not in before]
    assert mine["name"].startswith(f"{run.directory.name}-") and mine["strategy"] == placement.upper()
    assert mine["bundles"] == {0: {"CPU": 1.0}, 1: {"CPU": 1.0}, 2: {"CPU": 1.0}}
    wait_until(lambda: left(shared_ray) == [], 10, "the group is removed")


def test_runs_of_one_name_do_not_meet(shared_ray: Any) -> None:
    """Names of groups and actors carry the run's and are drawn anew; who takes another's place has a name of its own."""
    ours = [Placement(Config(), 1, name="run", check=lambda: None) for _ in range(2)]
    assert len({each.name for each in ours}) == 2 and all(each.name.startswith("run-") for each in ours)
    names = [each.options(role, None)["name"] for each in ours for role in ("learner", "worker-0", "worker-0")]
    assert len(set(names)) == 6 and names[2] == f"{ours[0].name}/worker-0.1"
    for each in ours:
        each.close()
    wait_until(lambda: left(shared_ray) == [], 10, "the groups are removed")


@pytest.mark.parametrize(
    "settings", [{"env.id": "probe_envs:Failing-v0", "fault.max_env_restarts": 0}, {"rollout.num_workers": 3, "fault.startup_timeout": 2}]
)
def test_a_run_that_fails_leaves_no_group(small: Callable[..., Run], shared_ray: Any, settings: dict[str, Any]) -> None:
    """Neither one whose environments raise, nor one that there was no room for."""
    with held(shared_ray, 1), pytest.raises(Exception):  # noqa: B017 - whichever it is
        small({"rollout.num_workers": 1} | settings)
    wait_until(lambda: left(shared_ray) == [], 10, "the group is removed")


def test_inside_another_group_that_one_is_used(shared_ray: Any, small_file: str, tmp_path: Any) -> None:
    """As a Tune trial is: whoever made the group has given the run its bundles, and nothing is taken besides."""
    ray = shared_ray
    group = ray.util.placement_group([{"CPU": 1}, {"CPU": 1}, {"CPU": 1}])
    strategy = ray.util.scheduling_strategies.PlacementGroupSchedulingStrategy(group, 0, placement_group_capture_child_tasks=True)

    @ray.remote(num_cpus=1, scheduling_strategy=strategy)
    def trial(directory: str) -> tuple[int, int]:
        from distppo import train

        before = len(ray.util.placement_group_table())
        result = train(small_file, num_workers=1, run_dir=directory, progress=False)
        return int(result.summary["env_steps"]), len(ray.util.placement_group_table()) - before

    assert ray.get(trial.remote(str(tmp_path / "run"))) == (384, 0)
    assert left(ray) == [""]
    ray.util.remove_placement_group(group)


@pytest.mark.slow
def test_workers_that_are_missing_change_nothing_but_the_time(small: Callable[..., Run], shared_ray: Any) -> None:
    """A range starts with what there is room for; those that are there do the others' work, evenly, and the bits are the same."""
    with held(shared_ray, 1):
        few = small({"rollout.num_workers": "2-4"})
    assert [row["dist/workers"] for row in few.rows] == [2, 2, 2] and few.faults == []
    assert [row["time/total_timesteps"] for row in few.rows] == [128, 256, 384]
    evaluated = {"evaluation.every": 128, "evaluation.episodes": 4}
    exact = small({"rollout.num_workers": 3} | evaluated)
    with held(shared_ray, 2):
        one = small({"rollout.num_workers": "1-3"} | evaluated)
    assert [row["dist/workers"] for row in one.rows] == [1, 1, 1] and one.same_bits(exact)
    assert [row["eval/mean_reward"] for row in one.rows] == [row["eval/mean_reward"] for row in exact.rows]


def test_less_than_the_least_is_not_enough(small: Callable[..., Run], shared_ray: Any) -> None:
    """What is needed is said of the least."""
    with held(shared_ray, 2), pytest.raises(ResourceError, match=r"3 actors of this run could not be placed .* CPU: needed 3,.* free 2"):
        small({"rollout.num_workers": "2-4", "fault.startup_timeout": 2})
