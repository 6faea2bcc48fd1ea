"""Observations that are no array become the vector that the policy was trained on, or an error that names what is wrong with them."""

from __future__ import annotations

import json
from typing import Any

import gymnasium as gym
import numpy as np
import pytest
from gymnasium import spaces

from distppo.config.schema import EnvConfig
from distppo.envs.make import make_env
from distppo.envs.spaces import parts_of
from distppo.evaluation.restore import env_spec_fields, env_spec_from
from distppo.models.structured import as_vectors, flattened_size

SPACES = [
    spaces.Discrete(5, start=-2),
    spaces.MultiDiscrete([2, 3, 4], start=[1, 0, -1]),
    spaces.MultiDiscrete([[2, 3], [4, 5]]),
    spaces.MultiBinary((2, 3)),
    spaces.Dict({"z": spaces.Discrete(3), "a": spaces.Box(-1, 1, (2, 2)), "inner": spaces.Dict({"b": spaces.MultiBinary(2)})}),
    spaces.Tuple([spaces.Discrete(32), spaces.Discrete(11), spaces.Discrete(2)]),
    spaces.Tuple([spaces.Dict({"x": spaces.Box(0, 9, (), np.int64)}), spaces.Discrete(2)]),
]


@pytest.mark.parametrize("space", SPACES, ids=str)
def test_it_is_gymnasium_s_flatten(space: gym.Space[Any]) -> None:
    """For every kind of space, one observation and a list of them, and for what is flat already."""
    space.seed(0)
    parts, samples = parts_of(space), [space.sample() for _ in range(20)]
    flat = np.stack([np.asarray(spaces.flatten(space, sample), np.float64) for sample in samples])
    assert flattened_size(parts) == flat.shape[1]
    for sample, expected in zip(samples, flat, strict=True):
        assert (as_vectors(parts, sample) == expected).all() and as_vectors(parts, sample).shape == expected.shape
        assert (as_vectors(parts, expected) == expected).all()
    assert (as_vectors(parts, samples) == flat).all() and (as_vectors(parts, flat) == flat).all()


@pytest.mark.parametrize(
    ("space", "observation", "message"),
    [
        (spaces.Discrete(5), 5, "is 5; its space has the whole numbers from 0 to 4"),
        (spaces.Discrete(5, start=1), 0, "the whole numbers from 1 to 5"),
        (spaces.Discrete(5), 0.5, "is 0.5; its space has the whole numbers"),
        (spaces.Discrete(16), list(range(16)), "may be one observation of Discrete(16), flattened, or 16 observations"),
        (spaces.Discrete(16), np.arange(16), "is no flattened observation: of 16 numbers one must be 1"),
        (spaces.Dict({"a": spaces.Discrete(2), "b": spaces.Discrete(2)}), {"a": 1}, "has ['a']; its space is a Dict of ['a', 'b']"),
        (spaces.Dict({"a": spaces.Box(0, 1, (2,))}), {"a": [1, 2, 3]}, "observation['a'] has shape (3,); its space has (2,)"),
        (spaces.Tuple([spaces.Discrete(2), spaces.Dict({"k": spaces.Discrete(3)})]), (0, {"k": 7}), "observation[1]['k'] is 7"),
        (spaces.Tuple([spaces.Tuple([spaces.Discrete(2)])]), (3,), "observation[0] is 3; its space is a Tuple of 1"),
        (spaces.Tuple([spaces.MultiDiscrete([2, 2])]), ([1],), "observation[0] has shape (1,); its space has (2,)"),
    ],
)
def test_what_is_no_observation_of_the_space_is_named(space: gym.Space[Any], observation: Any, message: str) -> None:
    """With its place in the observation."""
    with pytest.raises(ValueError) as error:
        as_vectors(parts_of(space), observation)
    assert message in str(error.value)


@pytest.mark.parametrize("space", SPACES, ids=str)
def test_the_parts_come_back_from_a_file(space: gym.Space[Any]) -> None:
    """As a checkpoint and an exported file hold them."""
    _, spec = make_env(EnvConfig(id="CartPole-v1"))
    parts = parts_of(space)
    spec = spec._replace(observation_parts=parts, observation_shape=(flattened_size(parts),))
    assert env_spec_from(json.loads(json.dumps(env_spec_fields(spec))), "here") == spec


def test_keys_that_no_file_can_hold_are_left_out() -> None:
    """Such observations have to be flattened by whoever acts."""
    assert parts_of(spaces.Dict({"line\nbreak": spaces.Discrete(2)})) == ()
    assert parts_of(spaces.Tuple([spaces.Dict({"a": spaces.Discrete(2)})])) != ()


@pytest.mark.parametrize(
    ("env_id", "stack", "kind"), [("FrozenLake-v1", 1, "discrete"), ("Blackjack-v1", 1, "tuple"), ("Blackjack-v1", 2, "")]
)
def test_an_environment_s_spec_has_its_parts(env_id: str, stack: int, kind: str) -> None:
    """Of stacked frames there are none: nobody has a stack of dicts."""
    _, spec = make_env(EnvConfig(id=env_id, frame_stack=stack))
    assert (spec.observation_parts or ("",))[0] == kind


@pytest.mark.parametrize("choices", [(2,) * 40, (100,) * 7])
def test_many_choices_come_back_from_a_file(choices: tuple[int, ...]) -> None:
    """More actions than an array has dimensions, and more combinations than it has elements."""
    _, spec = make_env(EnvConfig(id="CartPole-v1"))
    spec = spec._replace(action_shape=(len(choices),), action_choices=choices, action_start=(0,) * len(choices))
    assert env_spec_from(json.loads(json.dumps(env_spec_fields(spec))), "here") == spec
