"""What the critic predicts along episodes, in units of raw reward."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import gymnasium as gym
import numpy as np

from distppo.algo.moments import standard_deviation
from distppo.checkpoint import Checkpoint
from distppo.errors import CheckpointError
from distppo.evaluation.episodes import EpisodeResult, play_episodes
from distppo.evaluation.policy import ActingPolicy
from distppo.evaluation.restore import LEARNER_ARRAYS, config_of
from distppo.models.architecture import policy_input
from distppo.models.numpy_policy import ObservationNormalizer
from distppo.types import EnvSpec, Moments, PolicySnapshot

ROWS_A_PASS = 256


class ValueUnits(NamedTuple):
    """From the critic's output to raw reward: V = reward_scale x (shift + scale x output).

    The learner divides rewards by `reward_scale`, the std of the running discounted return, and fits its critic to targets that are
    shifted and scaled to mean 0 and std 1 where normalization.values is on.

    Attributes:
        shift: mean of the value targets, scaled reward.
        scale: std of the value targets, scaled reward.
        reward_scale: raw reward that counts as 1; 1 where rewards are not normalized.
    """

    shift: float
    scale: float
    reward_scale: float


class Trace(NamedTuple):
    """One episode with what the critic said of it.

    Attributes:
        result: of the episode, which has T steps.
        rewards: [T] float64, raw.
        values: [T+1] float64, V(s_0) ... V(s_T) in raw reward; s_T is the observation the episode really ended in.
    """

    result: EpisodeResult
    rewards: np.ndarray
    values: np.ndarray


def value_units(checkpoint: Checkpoint) -> ValueUnits:
    """Returns the units of a checkpoint's critic.

    Raises:
        CheckpointError: the moments they follow from are missing or no moments.
    """
    normalization = config_of(checkpoint).normalization
    shift, scale, reward_scale = 0.0, 1.0, 1.0
    if normalization.values:
        moments = _moments(checkpoint, "value_moments")
        shift, scale = float(moments.mean), float(standard_deviation(moments))
    if normalization.rewards:
        reward_scale = float(standard_deviation(_moments(checkpoint, "return_moments")))
    return ValueUnits(shift, scale, reward_scale)


class ValueFunction:
    """The critic of a snapshot: raw observations in, V in raw reward out.

    Args:
        snapshot: its weights and frozen normalizer.
        units: of its output.
    """

    def __init__(self, snapshot: PolicySnapshot, units: ValueUnits) -> None:
        import torch

        from distppo.models.actor_critic import split_parameters
        from distppo.models.torch_policy import make_network

        env, network = snapshot.spec.env, snapshot.spec.network
        self._units = units
        self._network = make_network(env, network)
        self._parameters = split_parameters(torch.from_numpy(snapshot.parameters), snapshot.spec.layout)
        self._input_shape, self._input_dtype = policy_input(env, network)
        self._moments, self._clip = snapshot.obs_moments, snapshot.spec.observation_clip
        self._raw_dtype = np.uint8 if self._input_dtype == "uint8" else np.float64

    def __call__(self, observations: Sequence[Any]) -> np.ndarray:
        """Returns V [n] float64 of observations [n, *S], raw."""
        import torch

        parts = []
        with torch.inference_mode():
            for start in range(0, len(observations), ROWS_A_PASS):
                raw = np.asarray(observations[start : start + ROWS_A_PASS], self._raw_dtype)
                seen = np.empty(raw.shape, self._input_dtype)
                ObservationNormalizer(self._moments, self._clip, rows=len(raw))(raw, seen)
                inputs = torch.from_numpy(seen.reshape(-1, *self._input_shape))
                parts.append(self._network.value(self._parameters, inputs).numpy().astype(np.float64))
        shift, scale, reward_scale = self._units
        return reward_scale * (shift + scale * np.concatenate(parts))


def play_traced(
    env: gym.Env[Any, Any],
    spec: EnvSpec,
    policy: ActingPolicy,
    value: ValueFunction,
    episodes: Sequence[int],
    *,
    seed: int,
    deterministic: bool,
) -> list[Trace]:
    """Returns the traces of episodes, which are played as `play_episodes` plays them; arguments and errors as there."""
    traces = []
    for episode in episodes:
        steps = _Steps()
        (result,) = play_episodes(env, spec, policy, [episode], seed=seed, deterministic=deterministic, watcher=steps)
        traces.append(Trace(result, np.array(steps.rewards), value(steps.observations)))
    return traces


class _Steps:
    """Keeps the observations and rewards of an episode."""

    def __init__(self) -> None:
        self.observations: list[Any] = []
        self.rewards: list[float] = []

    def begin(self, observation: Any) -> None:
        self.observations.append(np.array(observation))

    def step(self, observation: Any, reward: float) -> None:
        self.observations.append(np.array(observation))
        self.rewards.append(reward)


def _moments(checkpoint: Checkpoint, name: str) -> Moments:
    arrays = checkpoint.arrays.get(LEARNER_ARRAYS, {})
    try:
        moments = Moments(*(arrays[f"{name}/{field}"] for field in Moments._fields))
    except KeyError as error:
        raise CheckpointError(f"{checkpoint.path}: no array {error} in it, by which its values are scaled") from error
    sound = all(array.shape == () and array.dtype == np.float64 and np.isfinite(array) for array in moments)
    if not sound or moments.count < 0 or moments.m2 < 0:
        raise CheckpointError(f"{checkpoint.path}: its {name} are no moments of numbers")
    return moments
