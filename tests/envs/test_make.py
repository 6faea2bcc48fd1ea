"""Making an environment: what is peeled off, what stays, what is refused and how that is said."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import gymnasium as gym
import numpy as np
import pytest
from probe_envs import TIME_LIMIT, Doubled

from distppo.config.schema import EnvConfig
from distppo.envs import make_env, probe_env
from distppo.errors import UserError


def made(env_id: str, max_episode_steps: int | None = None, **kwargs: Any) -> Any:
    return make_env(EnvConfig(id=env_id, kwargs=kwargs, max_episode_steps=max_episode_steps))


def test_the_time_limit_becomes_part_of_the_spec_and_no_wrapper_is_left() -> None:
    """Whoever steps the environment truncates; a step costs no wrapper."""
    env, spec = made("probe_envs:Point-v0")
    assert env is env.unwrapped
    assert spec.max_episode_steps == TIME_LIMIT
    assert (spec.id, spec.observation_shape, spec.action_shape) == ("probe_envs:Point-v0", (3,), (2,))
    assert (spec.action_low, spec.action_high) == ((-1.0, -1.0), (1.0, 1.0))


@pytest.mark.parametrize(("name", "limit"), [("Point", TIME_LIMIT), ("Endless", None), ("Wrapped", TIME_LIMIT)])
def test_the_registered_limit_is_the_default_and_the_setting_counts_over_it(name: str, limit: int | None) -> None:
    """Longer or shorter than the registered one, or where there is none."""
    assert made(f"probe_envs:{name}-v0")[1].max_episode_steps == limit
    for override in (7, 33):
        env, spec = made(f"probe_envs:{name}-v0", override, termination=0.0)
        assert spec.max_episode_steps == override
        env.reset(seed=0)
        ends = [any(env.step(np.zeros(2, np.float32))[2:4]) for _ in range(override)]
        assert not any(ends[:-1]), "the environment may not end an episode before its limit"


def test_wrappers_it_is_registered_with_stay() -> None:
    """They are part of the environment, and a TimeLimit inside of them keeps working."""
    env, _ = made("probe_envs:Wrapped-v0")
    bare, _ = made("probe_envs:Point-v0")
    assert isinstance(env, Doubled)
    np.testing.assert_array_equal(env.reset(seed=3)[0], 2 * bare.reset(seed=3)[0])


def test_the_tighter_of_two_limits_is_the_one_that_counts() -> None:
    """An environment that brings a TimeLimit of its own beneath the registered one ends where it did under gymnasium."""
    gym.register("Tight-v0", entry_point=lambda: gym.wrappers.TimeLimit(gym.make("Pendulum-v1").unwrapped, 5), max_episode_steps=9)
    try:
        assert made("Tight-v0")[1].max_episode_steps == 5
    finally:
        del gym.registry["Tight-v0"]


def test_unbounded_and_one_sided_actions_are_in_the_spec() -> None:
    """-inf and inf stand for bounds that are not there; a matrix of actions is listed row by row."""
    _, spec = made("probe_envs:Shaped-v0", action=[2, 2], low=[["-inf", 0], [-1, -2]], high=[["inf", "inf"], [1, 3]])
    assert spec.action_shape == (2, 2) and spec.action_size == 4
    assert spec.action_low == (-np.inf, 0.0, -1.0, -2.0) and spec.action_high == (np.inf, np.inf, 1.0, 3.0)


@pytest.mark.parametrize(
    ("config", "message"),
    [
        (EnvConfig("HalfCheetah-v44"), "no environment 'HalfCheetah-v44' is registered - did you mean HalfCheetah-v5 or HalfCheetah-v4?"),
        (EnvConfig("halfcheetah-v4"), "did you mean HalfCheetah-v5 or HalfCheetah-v4?"),
        (EnvConfig("Hoper-v4"), "did you mean Hopper-v5 or Hopper-v4?"),
        (EnvConfig("HalfCheetah"), "did you mean HalfCheetah-v5 or HalfCheetah-v4?"),
        (EnvConfig("Xyzzy-v0"), "no environment 'Xyzzy-v0' is registered; module:Env-v0 imports the module that registers it"),
        (
            EnvConfig("probe_envs:Piont-v0"),
            "env.id 'probe_envs:Piont-v0': no environment 'Piont-v0' is registered - did you mean Point-v0?",
        ),
        (
            EnvConfig("no_such_module:X-v0"),
            "No module named 'no_such_module'; is it installed, or its folder the current one or on PYTHONPATH?",
        ),
        (EnvConfig("a:b:c"), "No module named 'a:b'"),
        (EnvConfig("Ant-v2"), "env.id 'Ant-v2' could not be made: The mujoco v2 and v3 based environments have been moved"),
        (
            EnvConfig("probe_envs:Point-v0", {"terminaton": 1}),
            "env.kwargs.terminaton: probe_envs:Point-v0 does not take it - did you mean termination?",
        ),
        (EnvConfig("probe_envs:Point-v0", {"x": 1}), "env.kwargs.x: probe_envs:Point-v0 does not take it; it takes termination, length"),
        (EnvConfig("probe_envs:Logged-v0"), "could not be made:\n"),
        (EnvConfig("probe_envs:Logged-v0", {"path": "/no/where"}), "FileNotFoundError: [Errno 2] No such file or directory: '/no/where'"),
        (EnvConfig("probe_envs:Drawn-v0", {"action": "mapping"}), "MultiBinary: put one of these in front with a gymnasium.ActionWrapper"),
        (EnvConfig("probe_envs:Drawn-v0", {"action": "integers"}), "whole numbers between bounds; distppo takes a Box of floats, Discrete"),
        (EnvConfig("probe_envs:Drawn-v0", {"observation": "nothing"}), "observations Box([], [], (0,), float32) without a single number"),
        (EnvConfig("probe_envs:Drawn-v0", {"action": "nothing"}), "actions Box([], [], (0,), float32) without a single number in them"),
        (EnvConfig("probe_envs:Drawn-v0", {"action": "no_choices"}), "actions MultiDiscrete([]) without a single number in them"),
        (EnvConfig("probe_envs:Drawn-v0", {"observation": "text"}), "leave it out with gymnasium.wrappers.FilterObservation"),
        (EnvConfig("probe_envs:Drawn-v0", {"observation": "camera_in_mapping"}), "observations['camera'] is Box(0, 255, (16, 20), uint8)"),
    ],
)
def test_what_cannot_be_made_is_told_with_the_way_out(config: EnvConfig, message: str) -> None:
    """One message that names the value and what would work."""
    with pytest.raises(UserError) as caught:
        probe_env(config)
    assert message in str(caught.value) and str(caught.value).startswith("env.")


def test_discrete_and_nested_observations_are_flattened() -> None:
    """A choice becomes one-hot, a mapping one vector with its keys in order."""
    env, spec = made("probe_envs:Drawn-v0", observation="discrete_from_5")
    assert spec.observation_shape == (3,)
    assert np.sort(env.reset(seed=0)[0]).tolist() == [0, 0, 1]
    # "both": 2 numbers and 2 bits, "mode": 4 choices, "x": 2 numbers.
    assert made("probe_envs:Drawn-v0", observation="mapping")[1].observation_shape == (10,)


@pytest.mark.parametrize(
    ("action", "shape", "choices", "start"),
    [
        ("discrete", (), (3,), (0,)),
        ("discrete_from_5", (), (3,), (5,)),
        ("multi_discrete", (3,), (2, 5, 3), (0, 0, 0)),
        ("matrix_of_choices", (2, 2), (2, 3, 4, 2), (0, 1, -1, 0)),
        ("multi_binary", (4,), (2, 2, 2, 2), (0, 0, 0, 0)),
    ],
)
def test_choices_are_in_the_spec(action: str, shape: tuple[int, ...], choices: tuple[int, ...], start: tuple[int, ...]) -> None:
    """How many each action has, and what the environment calls the first."""
    _, spec = made("probe_envs:Drawn-v0", action=action)
    assert (spec.action_shape, spec.action_choices, spec.action_start) == (shape, choices, start)
    assert (spec.action_size, spec.action_outputs, spec.action_low) == (len(choices), sum(choices), ())


def test_frames_are_stacked_oldest_first() -> None:
    """The first observation of an episode is all there is to stack at first."""
    env, spec = make_env(EnvConfig("probe_envs:Drawn-v0", {"observation": "grey"}, frame_stack=3))
    assert (spec.observation_shape, spec.observation_dtype) == ((3, 16, 20), "uint8")
    first = env.reset(seed=0)[0]
    assert first.dtype == np.uint8 and (first[0] == first[2]).all()
    second = env.step(np.zeros(2, np.float32))[0]
    assert (second[1] == first[2]).all() and (second[2] != first[2]).any()


def test_a_module_that_fails_to_import_shows_where(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The end of its traceback is in the message."""
    (tmp_path / "broken_envs.py").write_text("import math\nlimit = math.sqroot(2)\n")
    monkeypatch.syspath_prepend(tmp_path)
    with pytest.raises(UserError, match=r"(?s)importing 'broken_envs' failed:.*line 2.*has no attribute 'sqroot'"):
        made("broken_envs:X-v0")


def test_mujoco_leaves_no_log_file(tmp_path: Path) -> None:
    """MUJOCO_LOG.TXT, where Gymnasium's models have it write deprecations, does not appear where a user happens to stand; nor a warning."""
    code = "from distppo.config import Config; from distppo.envs import make_env; make_env(Config().env)[0].reset()"
    search = {"PYTHONPATH": str(Path(__file__).parents[2])}
    done = subprocess.run([sys.executable, "-c", code], cwd=tmp_path, env=os.environ | search, capture_output=True, text=True, timeout=60)
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")
    assert list(tmp_path.iterdir()) == []
