"""Environments of every supported shape train; `Shaped` itself checks that each action lies in its space."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
from runtime.running import Run

from distppo.checkpoint import list_checkpoints, load_checkpoint
from distppo.evaluation.restore import env_spec_of

TWO_ITERATIONS = {"run.total_timesteps": 256, "evaluation.every": 256, "evaluation.episodes": 2}


@pytest.mark.parametrize(
    "kwargs",
    [
        pytest.param({"action": [2, 3]}, id="matrix of actions"),
        pytest.param({"action": []}, id="a single number as action"),
        pytest.param({"low": "-inf", "high": "inf"}, id="unbounded actions"),
        pytest.param({"low": 0, "high": "inf"}, id="actions bounded below"),
        pytest.param({"low": ["-inf", -3], "high": [5, 7]}, id="bounds of every kind"),
        pytest.param({"action_dtype": "float64", "low": -0.4, "high": 0.4}, id="float64 actions"),
        pytest.param({"dtype": "int64"}, id="whole numbers as observations"),
        pytest.param({"dtype": "uint8", "observation": [4, 4, 3]}, id="an image"),
        pytest.param({"observation": [3, 4]}, id="matrix of observations"),
        pytest.param({"observation": []}, id="a single number as observation"),
        pytest.param({"dtype": "float32"}, id="float32 observations"),
    ],
)
def test_every_supported_space_trains(kwargs: dict[str, Any], small: Callable[..., Run], recwarn: pytest.WarningsRecorder) -> None:
    """Two iterations and an evaluation, with actions in bounds and without a warning."""
    run = small(TWO_ITERATIONS | {"env.id": "probe_envs:Shaped-v0", "env.kwargs": kwargs})
    assert [row["time/total_timesteps"] for row in run.rows] == [128, 256]
    assert env_spec_of(load_checkpoint(list_checkpoints(run.directory)[-1].path)).id == "probe_envs:Shaped-v0"
    assert [str(warning.message) for warning in recwarn] == []


@pytest.mark.parametrize(
    ("settings", "length"),
    [
        ({"env.id": "probe_envs:Point-v0", "env.kwargs": {"termination": 0.0}}, 20),
        ({"env.id": "probe_envs:Point-v0", "env.kwargs": {"termination": 0.0}, "env.max_episode_steps": 8}, 8),
        ({"env.id": "probe_envs:Point-v0", "env.kwargs": {"termination": 0.0}, "env.max_episode_steps": 32}, 32),
        ({"env.id": "probe_envs:Point-v0", "env.kwargs": {"termination": 0.0, "length": 10}}, 10),
        ({"env.id": "probe_envs:Endless-v0", "env.max_episode_steps": 16}, 16),
        ({"env.id": "probe_envs:Wrapped-v0", "env.kwargs": {"termination": 0.0}, "env.max_episode_steps": 32}, 32),
    ],
)
def test_episodes_end_at_the_limit_that_counts(settings: dict[str, Any], length: int, small: Callable[..., Run]) -> None:
    """The setting over the registered limit, and an environment that truncates by itself before either; in evaluation too."""
    row = small(TWO_ITERATIONS | settings).rows[-1]
    assert row["rollout/ep_len_mean"] == row["eval/mean_ep_length"] == length


def test_an_environment_without_an_end_trains(small: Callable[..., Run]) -> None:
    """No episode ever ends: there is no return to report, and training goes on all the same."""
    run = small(TWO_ITERATIONS | {"env.id": "probe_envs:Endless-v0", "evaluation.every": 0})
    assert run.summary["episode_return_mean"] is None
    assert "rollout/ep_rew_mean" not in run.rows[-1]
