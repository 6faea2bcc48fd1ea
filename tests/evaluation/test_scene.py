"""How environments are shown: at their own speed, followed, on a floor that does not end, and without a change to what they do."""

from __future__ import annotations

from typing import Any

import gymnasium as gym
import numpy as np
import pytest

from distppo.config.schema import EnvConfig
from distppo.envs import make_env
from distppo.evaluation.scene import pace, prepare_scene

PICTURE = (128, 96)


@pytest.mark.parametrize(
    ("fps", "mp4", "gif"),
    [(20, (20, 1), (20, 1)), (30, (30, 1), (15, 2)), (67, (33.5, 2), (16.75, 4)), (125, (31.25, 4), (15.625, 8)), (None, (30, 1), (15, 2))],
)
def test_an_environment_is_shown_at_its_own_speed(fps: int | None, mp4: Any, gif: Any) -> None:
    """Frames a second times env steps a frame are its steps a second, and never many more frames than a screen shows."""

    class Env(gym.Env[Any, Any]):
        metadata = {"render_fps": fps}  # noqa: RUF012

    assert pace(Env(), ".mp4") == mp4 and pace(Env(), ".gif") == gif


@pytest.mark.usefixtures("drawing")
def test_what_a_policy_sees_stays_as_it_is() -> None:
    """An environment whose observations are rendered keeps its size, camera and light: a video shows the policy's own picture."""
    pixels = {"task": "InvertedPendulum-v5", "side": 32, "render_mode": "rgb_array"}
    env, _ = make_env(EnvConfig("distppo.envs.examples.pixels:MujocoPixels-v0", pixels))
    before = env.reset(seed=0)[0]
    prepare_scene(env, 64, 48)
    np.testing.assert_array_equal(env.reset(seed=0)[0], before)
    assert np.shape(env.render()) == (32, 32, 3)


@pytest.mark.usefixtures("drawing")
def test_a_body_that_has_run_far_still_has_a_floor() -> None:
    """300 m from the start the picture is that of the start; Gymnasium's floor ends after 40. What is drawn changes no step."""
    pictures, states = [], []
    for prepared in (True, False):
        env, _ = make_env(EnvConfig("HalfCheetah-v4", {"render_mode": "rgb_array"}))
        inner: Any = env.unwrapped
        if prepared:
            prepare_scene(env, *PICTURE)
        for distance in (0.0, 300.0):
            env.reset(seed=0)
            inner.set_state(inner.init_qpos + distance * np.eye(9)[0], inner.init_qvel)
            if prepared:
                pictures.append(np.asarray(env.render(), int))
            for _ in range(20):
                env.step(np.ones(6, np.float32))
            states.append(inner.data.qpos.copy())
    floor = [picture[PICTURE[1] * 3 // 4 :] for picture in pictures]
    # Tiles of 4/3 m: 300 m are 225 of them, and black and white fall together.
    assert np.abs(floor[0] - floor[1]).mean() < 20 < floor[0].std()
    np.testing.assert_array_equal(states[:2], states[2:])
