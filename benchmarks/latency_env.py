"""Latency-v0: an environment whose steps take a fixed time and almost no processor, so that 64 workers fit on two cores."""

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
OBSERVATIONS = np.random.default_rng(0).standard_normal((64, OBSERVATION_SIZE))


class LatencyEnv(gym.Env[np.ndarray, np.ndarray]):
    """Observations of HalfCheetah's shape, shown in turn; an episode never ends by itself.

    Args:
        latency: seconds that a step takes.
        sleep_every: steps that share one sleep, the first of which sleeps for all.
    """

    def __init__(self, latency: float = 0.005, sleep_every: int = 1) -> None:
        self.observation_space = gym.spaces.Box(-np.inf, np.inf, (OBSERVATION_SIZE,), np.float64)
        self.action_space = gym.spaces.Box(-1.0, 1.0, (ACTION_SIZE,), np.float32)
        self._sleep = latency * sleep_every
        self._sleep_every = sleep_every
        self._steps = 0

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> tuple[np.ndarray, dict[str, Any]]:
        """Starts an episode."""
        super().reset(seed=seed)
        return OBSERVATIONS[0], {}

    def step(self, action: np.ndarray) -> tuple[np.ndarray, float, bool, bool, dict[str, Any]]:
        """Sleeps if it is this step's turn."""
        if self._steps % self._sleep_every == 0:
            time.sleep(self._sleep)
        self._steps += 1
        observation = OBSERVATIONS[self._steps % len(OBSERVATIONS)]
        return observation, float(observation[0]), False, False, {}


gym.register("Latency-v0", entry_point=LatencyEnv, max_episode_steps=EPISODE_STEPS)
