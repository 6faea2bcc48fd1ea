"""Environments of every supported shape train; `Shaped` itself checks that each action lies in its space."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
from runtime.running import Run

from distppo.checkpoint import list_checkpoints, load_checkpoint
from distppo.evaluation.evaluate import evaluate
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


SMALL_CNN = {"network.channels": [4], "network.kernels": [4], "network.strides": [3]}


@pytest.mark.parametrize(
    ("observation", "action", "settings"),
    [
        pytest.param("box", "discrete", {}, id="choices"),
        pytest.param("box", "discrete_from_5", {"learner.step": "torch"}, id="choices that do not begin with 0"),
        pytest.param("box", "multi_discrete", {}, id="several choices"),
        pytest.param("box", "matrix_of_choices", {"network.shared": True}, id="a matrix of choices"),
        pytest.param("box", "multi_binary", {"network.layer_norm": True}, id="bits"),
        pytest.param("box", "box", {"network.layer_norm": True}, id="layer normalization"),
        pytest.param("mapping", "discrete", {}, id="a mapping as observation"),
        pytest.param("discrete", "discrete", {}, id="a choice as observation"),
        pytest.param("grey", "box", SMALL_CNN, id="grey images, continuous actions"),
        pytest.param("channels_last", "discrete", SMALL_CNN, id="images, choices"),
        pytest.param("channels_first", "multi_discrete", SMALL_CNN | {"network.shared": True}, id="images, several choices"),
        pytest.param("grey", "discrete", SMALL_CNN | {"env.frame_stack": 3}, id="stacked images"),
        pytest.param("grey", "discrete", {"network.torso": "mlp"}, id="images as features"),
        pytest.param("box", "discrete", {"network.class": "own_networks:Small"}, id="a network of one's own"),
        pytest.param("box", "box", {"network.class": "own_networks:Gaussian"}, id="std from the state"),
        pytest.param("grey", "multi_binary", {"network.class": "own_networks:Small"}, id="a network of one's own on images"),
    ],
)
def test_every_head_and_torso_acts_as_it_learns(
    observation: str, action: str, settings: dict[str, Any], small: Callable[..., Run], recwarn: pytest.WarningsRecorder
) -> None:
    """Before the first gradient step every ratio is 1: one minibatch an update has no KL. `evaluate` repeats the run's own score."""
    one_step = {"ppo.epochs": 1, "ppo.mini_batch_size": 128}
    env = {"env.id": "probe_envs:Drawn-v0", "env.max_episode_steps": 20, "env.kwargs": {"observation": observation, "action": action}}
    run = small(TWO_ITERATIONS | one_step | env | settings)
    for row in run.rows:
        assert row["train/approx_kl"] == pytest.approx(0.0, abs=1e-6) and row["train/clip_fraction"] == 0.0
        assert row["dist/ratio_error"] < 1e-4
        assert row["dist/obs_count"] == row["time/total_timesteps"]
    again = evaluate(run.directory, episodes=2, seed=run.summary["seed"])
    assert again.return_mean == run.rows[-1]["eval/mean_reward"]
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


@pytest.mark.parametrize("settings", [{}, {"evaluation.every": 0}, {"env.max_episode_steps": 16}])
def test_who_evaluates_without_a_time_limit_is_told(
    settings: dict[str, Any], small: Callable[..., Run], capsys: pytest.CaptureFixture[str]
) -> None:
    """Before the first iteration: an evaluation would wait for the end of an episode. Not where there is a limit, or no evaluation."""
    small(
        {"run.total_timesteps": 128, "env.id": "probe_envs:Endless-v0", "env.kwargs": {"termination": 0.5}, "evaluation.every": 128}
        | settings
    )
    told = "probe_envs:Endless-v0 has no time limit: an evaluation episode that never ends would end the run; see env.max_episode_steps\n"
    assert (told in capsys.readouterr().out) == (not settings)
