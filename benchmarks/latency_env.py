"""Latency-v0: an environment whose step takes a fixed time and almost no processor, so that 64 workers fit on two cores."""

from __future__ import annotations

import time
from typing import Any

import gymnasium as gym
import numpy as np

ENV_ID = "latency_env:Latency-v0"
"""Importable where `benchmarks/` is on PYTHONPATH, which the worker processes inherit."""
OBSERVATION_SIZE = 17
ACTION_SIZE = 6
EPISODE_STEPS = 1000


class LatencyEnv(gym.Env[np.ndarray, np.ndarray]):
    """Random observations and rewards, HalfCheetah's shapes; an episode never ends by itself.

    Args:
        latency: seconds that a step sleeps.
    """

    def __init__(self, latency: float = 0.005) -> None:
        self.observation_space = gym.spaces.Box(-np.inf, np.inf, (OBSERVATION_SIZE,), np.float64)
        self.action_space = gym.spaces.Box(-1.0, 1.0, (ACTION_SIZE,), np.float32)
        self._latency = latency

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> tuple[np.ndarray, dict[str, Any]]:
        """Starts an episode."""
        super().reset(seed=seed)
        return self._observation(), {}

    def step(self, action: np.ndarray) -> tuple[np.ndarray, float, bool, bool, dict[str, Any]]:
        """Sleeps."""
        time.sleep(self._latency)
        observation = self._observation()
        return observation, float(observation[0]), False, False, {}

    def _observation(self) -> np.ndarray:
        return self.np_random.standard_normal(OBSERVATION_SIZE)


gym.register("Latency-v0", entry_point=LatencyEnv, max_episode_steps=EPISODE_STEPS)
