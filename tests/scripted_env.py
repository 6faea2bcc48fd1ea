"""Small environments with known answers, made directly (no registration)."""

from __future__ import annotations

import gymnasium as gym
import numpy as np

from distppo.types import EnvSpec

BOX = gym.spaces.Box(-1.0, 1.0, (1,), np.float32)


class Scripted(gym.Env):
    """Observations and rewards from functions of (step, action); ends by termination or truncation after `length` steps.

    Args:
        length: steps of an episode.
        terminates: whether the end is a termination.
        observe: step -> observation.
        reward: (observation acted on, action, step) -> reward.
    """

    def __init__(self, length, terminates, observe, reward, observation_size=1, action_size=1):
        self.observation_space = gym.spaces.Box(-np.inf, np.inf, (observation_size,), np.float64)
        self.action_space = gym.spaces.Box(-1.0, 1.0, (action_size,), np.float32)
        self._length, self._terminates, self._observe, self._reward = length, terminates, observe, reward

    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed)
        self._step = 0
        self._observation = self._observe(self, 0)
        return self._observation, {}

    def step(self, action):
        reward = self._reward(self._observation, action, self._step)
        self._step += 1
        self._observation = self._observe(self, self._step)
        ended = self._step >= self._length
        return self._observation, reward, ended and self._terminates, ended and not self._terminates, {}


def spec_of(env, max_episode_steps=None):
    """The spec that `make_env` would give."""
    return EnvSpec(
        "scripted",
        env.observation_space.shape,
        env.action_space.shape,
        tuple(map(float, env.action_space.low)),
        tuple(map(float, env.action_space.high)),
        max_episode_steps,
    )


def gaussian_observations(mean=5.0, std=2.0, size=3):
    """An `observe` that draws N(mean, std) from the environment's own generator."""
    return lambda env, step: env.np_random.normal(mean, std, size)
