"""Several learner processes: they learn what one learns, and survive the death of any of them."""

from __future__ import annotations

import os
import signal
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import ray
from runtime.running import Run, kill_when_busy
from runtime.test_supervision import assert_equal, at, undisturbed

from distppo.runtime.ray_backend import RayBackend

__all__ = ["at", "undisturbed"]
pytestmark = pytest.mark.ray

ONE = {"rollout.num_workers": 2, "learner.step": "torch", "run.checkpoint_every": 128, "run.keep_checkpoints": 5}
TWO = ONE | {"learner.num_learners": 2}


def pid_of(backend: RayBackend, rank: int) -> int:
    presence = backend._learner.hosts[rank].presence
    assert presence is not None
    return int(presence.pid)


@pytest.mark.slow
@pytest.mark.parametrize("mode", ["sync", pytest.param("overlap", marks=pytest.mark.long)])
def test_two_learners_learn_what_one_learns(mode: str, undisturbed: Callable[..., Run]) -> None:
    """Each update is the same but for rounding."""
    one, two = undisturbed(ONE | {"rollout.mode": mode}), undisturbed(TWO | {"rollout.mode": mode})
    keys = [key for key in one.rows[0] if key.startswith(("rollout/", "train/", "value/"))]
    assert {key: two.rows[0][key] for key in keys} == pytest.approx({key: one.rows[0][key] for key in keys}, rel=1e-4, abs=1e-6)
    np.testing.assert_allclose(two.arrays["parameters"], one.arrays["parameters"], rtol=0, atol=1e-5)
    assert two.faults == [] and two.rows[-1]["dist/obs_count"] == two.rows[-1]["time/total_timesteps"] == 384
    assert [row["dist/learners"] for row in two.rows] == [2, 2, 2] and all(row["dist/exchange_seconds"] > 0 for row in two.rows)
    (ready,) = [event for event in two.events if event["event"] == "ready"]
    assert ready["description"].startswith("on Ray, 2 workers and 2 learners, ") and ready["step"] == "torch"
    groups = ray.util.placement_group_table().values()
    assert any(group["bundles"] == {number: {"CPU": 1.0} for number in range(4)} for group in groups), "all in one placement group"


@pytest.mark.parametrize(
    ("rank", "when", "mode"),
    [
        pytest.param(1, "updating", "sync", marks=pytest.mark.slow),
        pytest.param(0, "updating", "overlap", marks=pytest.mark.long),
        pytest.param(1, "idle", "sync", marks=pytest.mark.long),
    ],
)
def test_a_killed_learner_of_two_changes_nothing(
    rank: int,
    when: str,
    mode: str,
    small: Callable[..., Run],
    undisturbed: Callable[..., Run],
    at: Callable[..., None],
    recovery: Callable[..., None],
) -> None:
    """Row 8: both start again from the last state, and the update is made again, to the same bits."""
    settings = TWO | {"rollout.mode": mode}
    reference = undisturbed(settings)
    if when == "idle":
        at("update", 3, lambda backend: os.kill(pid_of(backend, rank), signal.SIGKILL))
    else:
        at("update", 3, lambda backend: kill_when_busy(pid_of(backend, rank), "follow" if rank else "update"))
    run = small(settings)
    assert_equal(run, reference)
    assert run.faults == ["learner_died"] and run.summary["faults"]["learner_restarts"] == 1
    (fault,) = [event for event in run.events if event["event"] == "fault"]
    assert fault["where"] == "the learners" and fault["why"]
    recovery(run.directory)


@pytest.mark.long
def test_a_stopped_learner_of_two_is_not_waited_for_longer_than_is_said(
    small: Callable[..., Run], undisturbed: Callable[..., Run], at: Callable[..., None], recovery: Callable[..., None]
) -> None:
    """It is killed, and both start again."""
    reference = undisturbed(TWO)
    at("update", 3, lambda backend: os.kill(pid_of(backend, 1), signal.SIGSTOP))
    run = small(TWO | {"fault.learner_timeout": 2})
    assert_equal(run, reference)
    (fault,) = [event for event in run.events if event["event"] == "fault"]
    assert "learner 0 of 2 waited for another that is gone or hangs" in fault["why"]
    recovery(run.directory)


@pytest.mark.long
def test_learners_with_other_bits_start_again(small: Callable[..., Run], undisturbed: Callable[..., Run], at: Callable[..., None]) -> None:
    """The digests of every update are compared; here a bit in learner 1's memory has flipped."""

    def flip(learner: Any) -> None:
        learner._learner._vectors.second_moment.view(np.uint32)[0] ^= 1

    reference = undisturbed(TWO)
    at("update", 3, lambda backend: ray.get(backend._learner.hosts[1].actor.__ray_call__.remote(flip)))
    run = small(TWO)
    assert_equal(run, reference)
    (fault,) = [event for event in run.events if event["event"] == "fault"]
    assert fault["why"].startswith("learner 1 has not the bits of learner 0 after the same update")


@pytest.mark.long
def test_another_number_of_learners_goes_on_and_says_that_it_is_not_to_the_bit(
    small: Callable[..., Run], undisturbed: Callable[..., Run], capsys: pytest.CaptureFixture[str]
) -> None:
    """Checkpoints are the same whoever wrote them: two learners go on from one's."""
    one, two = undisturbed(ONE), undisturbed(TWO)
    capsys.readouterr()
    mixed = small({"learner.num_learners": 2}, resume=f"{one.directory}@256")
    assert "2 learners where there was 1: they minimize the same loss" in capsys.readouterr().out
    assert [event["event"] for event in mixed.events].count("layout_changed") == 1 and mixed.faults == []
    assert {name: array.shape for name, array in mixed.arrays.items()} == {name: array.shape for name, array in one.arrays.items()}
    for whole in (one, two):
        np.testing.assert_allclose(mixed.arrays["parameters"], whole.arrays["parameters"], rtol=0, atol=1e-5)


@pytest.mark.slow
def test_the_same_number_of_learners_goes_on_to_the_bit(small: Callable[..., Run], undisturbed: Callable[..., Run]) -> None:
    """And one learner, or another number, where it is not asked for them."""
    whole = undisturbed(TWO)
    assert small(resume=f"{whole.directory}@256").same_bits(whole)
    one = small({"learner.num_learners": 1}, resume=f"{whole.directory}@256")
    np.testing.assert_allclose(one.arrays["parameters"], whole.arrays["parameters"], rtol=0, atol=1e-5)


@pytest.mark.long
def test_the_curves_of_one_and_two_learners_are_closer_than_those_of_two_seeds(small: Callable[..., Run], shared_ray: Any) -> None:
    """InvertedPendulum, mean return of the last 100 episodes over the iterations."""
    pendulum = {"env.id": "InvertedPendulum-v4", "rollout.num_envs": 8, "rollout.num_steps": 256, "rollout.num_workers": 1}
    learning = {"ppo.mini_batch_size": 256, "ppo.epochs": 5, "ppo.learning_rate": 1e-3, "run.total_timesteps": 12_288}

    def curve(learners: int, seed: int) -> np.ndarray:
        run = small(pendulum | learning | {"learner.step": "torch", "learner.num_learners": learners, "run.seed": seed})
        return np.array([row["rollout/ep_rew_mean"] for row in run.rows])

    one, two, other = curve(1, 0), curve(2, 0), curve(1, 1)
    assert np.abs(one - two).mean() < np.abs(one - other).mean()
    assert two[-1] > 2 * two[0]
