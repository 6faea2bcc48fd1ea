"""MuJoCo from rendered pixels: the policy sees a small grey image in place of positions and velocities."""

from __future__ import annotations

from typing import Any

import gymnasium as gym
import numpy as np

GREY = np.array([0.299, 0.587, 0.114], np.float32)
"""Weights of red, green and blue in luminance (ITU-R BT.601)."""


class RenderedPixels(gym.Wrapper[np.ndarray, Any, Any, Any]):
    """Replaces the observation by the rendered frame in grey, [height, width] uint8.

    Args:
        env: made with render_mode rgb_array.
    """

    def __init__(self, env: gym.Env[Any, Any]) -> None:
        super().__init__(env)
        env.reset(seed=0)
        self.observation_space = gym.spaces.Box(0, 255, self._frame().shape, np.uint8)

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> tuple[np.ndarray, dict[str, Any]]:
        """Returns the first frame of a new episode."""
        _, info = self.env.reset(seed=seed, options=options)
        return self._frame(), info

    def step(self, action: Any) -> tuple[np.ndarray, Any, bool, bool, dict[str, Any]]:
        """Returns the frame after the step."""
        _, reward, terminated, truncated, info = self.env.step(action)
        return self._frame(), reward, terminated, truncated, info

    def _frame(self) -> np.ndarray:
        frame: Any = self.env.render()
        return np.asarray((frame @ GREY).astype(np.uint8))


def rendered(*, task: str, side: int = 64, render_mode: str = "rgb_array", **kwargs: Any) -> RenderedPixels:
    """Makes a MuJoCo environment that is seen through its camera.

    Args:
        task: Gymnasium id.
        side: pixels on each side of the frame.
        render_mode: must be rgb_array, which the observations come from; what records the environment asks for it, too.
        kwargs: for gymnasium.make.
    """
    if render_mode != "rgb_array":
        raise ValueError(f"render_mode must be rgb_array, got {render_mode!r}: the observations are rendered")
    env = gym.make(task, render_mode=render_mode, width=side, height=side, disable_env_checker=True, **kwargs)
    return RenderedPixels(env.unwrapped)


gym.register("MujocoPixels-v0", entry_point=f"{__name__}:rendered")
