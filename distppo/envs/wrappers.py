"""Wrappers to use in `env.wrappers`, and to copy: the shortest complete example of a reward of one's own."""

from __future__ import annotations

from typing import Any, SupportsFloat

import gymnasium as gym
import numpy as np


class ActionRatePenalty(gym.Wrapper[Any, Any, Any, Any], gym.utils.RecordConstructorArgs):
    """Takes weight x the mean squared change of the action since the step before off the reward: smooth motion wears motors less.

    The first step of an episode has nothing before it and costs nothing. The part taken off is in `info["action_rate_penalty"]`.

    Args:
        env: with Box actions.
        weight: reward per squared unit of action, >= 0.

    Raises:
        ValueError: the weight is negative.

    Example:
        In YAML: `env: {wrappers: [{class: distppo.envs.wrappers:ActionRatePenalty, weight: 0.05}]}`
    """

    def __init__(self, env: gym.Env[Any, Any], weight: float = 0.1) -> None:
        gym.utils.RecordConstructorArgs.__init__(self, weight=weight)
        super().__init__(env)
        if weight < 0:
            raise ValueError(f"weight must be at least 0, got {weight}")
        self.weight = weight
        self._previous: np.ndarray | None = None

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> tuple[Any, dict[str, Any]]:
        """Starts an episode: no action lies before its first."""
        self._previous = None
        return self.env.reset(seed=seed, options=options)

    def step(self, action: Any) -> tuple[Any, SupportsFloat, bool, bool, dict[str, Any]]:
        """Takes a step and reduces its reward."""
        observation, reward, terminated, truncated, info = self.env.step(action)
        action = np.array(action, np.float64)
        change = 0.0 if self._previous is None else float(np.mean(np.square(action - self._previous)))
        self._previous = action
        penalty = self.weight * change
        return observation, float(reward) - penalty, terminated, truncated, {**info, "action_rate_penalty": penalty}
