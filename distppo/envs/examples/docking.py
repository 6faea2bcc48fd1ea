"""Docking: a craft on a plane with a thruster for each axis, each with three positions. An example of MultiDiscrete actions."""

from __future__ import annotations

from typing import Any

import gymnasium as gym
import numpy as np

TIME_LIMIT = 100
SECONDS_A_STEP = 0.1
THRUST = 2.0
"""Acceleration of a thruster, m/s^2."""


class Docking(gym.Env[np.ndarray, np.ndarray]):
    """A craft starts up to 1 m from the dock at rest and has 100 steps of 0.1 s to come to a stop there.

    Observations: position and velocity, [x, y, vx, vy], m and m/s, float32. Actions: MultiDiscrete([3, 3]), for each axis 0 thrusts
    against it, 1 coasts, 2 thrusts along it. The reward of a step is -(distance + 0.1 x speed) / 100, so an episode's return is minus the
    mean distance, about: random thrust scores -1 and less, a good pilot above -0.1. Leaving the square of +-4 m ends the episode
    with -5.
    """

    def __init__(self) -> None:
        self.observation_space = gym.spaces.Box(-np.inf, np.inf, (4,), np.float32)
        self.action_space = gym.spaces.MultiDiscrete([3, 3])

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> tuple[np.ndarray, dict[str, Any]]:
        """Returns a new start at rest."""
        super().reset(seed=seed)
        self._position = self.np_random.uniform(-1.0, 1.0, 2)
        self._velocity = np.zeros(2)
        return self._observation(), {}

    def step(self, action: np.ndarray) -> tuple[np.ndarray, float, bool, bool, dict[str, Any]]:
        """Fires the thrusters for a step: action [2], each 0, 1 or 2."""
        self._velocity += THRUST * SECONDS_A_STEP * (np.asarray(action) - 1)
        self._position += SECONDS_A_STEP * self._velocity
        lost = bool(np.abs(self._position).max() > 4.0)
        cost = (np.linalg.norm(self._position) + 0.1 * np.linalg.norm(self._velocity)) / TIME_LIMIT
        return self._observation(), -5.0 if lost else -float(cost), lost, False, {}

    def _observation(self) -> np.ndarray:
        return np.concatenate([self._position, self._velocity]).astype(np.float32)


gym.register("Docking-v0", entry_point=f"{__name__}:Docking", max_episode_steps=TIME_LIMIT)
