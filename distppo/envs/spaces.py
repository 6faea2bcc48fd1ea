"""From an environment's spaces to its spec, or to the reason why it cannot be trained in and the way out."""

from __future__ import annotations

from typing import Any

import gymnasium as gym
import numpy as np
from gymnasium import spaces

from distppo.errors import UserError
from distppo.types import EnvSpec


class Flattened(gym.ObservationWrapper[np.ndarray, Any, Any]):
    """Observations of any space that can be flattened, as the vector that `gymnasium.spaces.flatten` makes of them.

    Gymnasium's own wrapper does it with a function that is made with it, and so holds state that nobody can see.

    Args:
        env: with observations other than a Box.
    """

    def __init__(self, env: gym.Env[Any, Any]) -> None:
        super().__init__(env)
        flat: Any = spaces.flatten_space(env.observation_space)
        self.observation_space = flat

    def observation(self, observation: Any) -> np.ndarray:
        """Returns the vector."""
        vector = spaces.flatten(self.env.observation_space, observation)
        assert isinstance(vector, np.ndarray)
        return vector


FLAT_LEAVES = (spaces.Box, spaces.Discrete, spaces.MultiDiscrete, spaces.MultiBinary)


def spec_of(env_id: str, env: gym.Env[Any, Any], max_episode_steps: int | None, observation_parts: tuple[Any, ...] = ()) -> EnvSpec:
    """Returns the spec of an environment with Box observations, which may have been flattened from `observation_parts`.

    Raises:
        UserError: its actions are neither a Box of floats nor choices, or it has no number to observe or to choose.
    """
    observations, actions = env.observation_space, env.action_space
    assert isinstance(observations, spaces.Box)
    _require_numbers(env_id, "observations", observations)
    _require_numbers(env_id, "actions", actions)
    low, high, choices, start = _action_numbers(env_id, actions)
    return EnvSpec(
        id=env_id,
        observation_shape=tuple(observations.shape),
        action_shape=tuple(actions.shape or ()),
        action_low=low,
        action_high=high,
        max_episode_steps=max_episode_steps,
        observation_dtype=str(observations.dtype),
        action_choices=choices,
        action_start=start,
        observation_parts=observation_parts,
    )


def parts_of(space: spaces.Space[Any]) -> tuple[Any, ...]:
    """Returns a space that `require_flat_leaves` lets pass, as `distppo.models.structured` reads it, in the order of `spaces.flatten`.

    Nothing for one with keys that no file could hold.
    """
    return _parts_of(space) if _has_plain_keys(space) else ()


def _has_plain_keys(space: spaces.Space[Any]) -> bool:
    if isinstance(space, spaces.Dict):
        keys: list[Any] = list(space.spaces)
        plain = all(type(key) is int or (isinstance(key, str) and key.isprintable()) for key in keys)
        return plain and all(map(_has_plain_keys, space.spaces.values()))
    return all(map(_has_plain_keys, space.spaces)) if isinstance(space, spaces.Tuple) else True


def _parts_of(space: spaces.Space[Any]) -> tuple[Any, ...]:
    match space:
        case spaces.Box():
            return "box", tuple(space.shape)
        case spaces.MultiBinary():
            return "binary", tuple(space.shape)
        case spaces.Discrete():
            return "discrete", int(space.n), int(space.start)
        case spaces.MultiDiscrete():
            return "discretes", tuple(space.shape), tuple(space.nvec.reshape(-1).tolist()), tuple(space.start.reshape(-1).tolist())
        case spaces.Tuple():
            return "tuple", tuple(map(_parts_of, space.spaces))
        case spaces.Dict():
            return "dict", tuple((key, _parts_of(part)) for key, part in space.spaces.items())
    raise TypeError(f"{space} cannot be flattened")


def require_flat_leaves(env_id: str, space: spaces.Space[Any], name: str = "") -> None:
    """Raises UserError unless `Flattened` makes a vector of the space in which nothing is lost: no images, no variable length."""
    if isinstance(space, spaces.Dict | spaces.Tuple):
        parts = space.spaces.items() if isinstance(space, spaces.Dict) else enumerate(space.spaces)
        for key, part in parts:
            require_flat_leaves(env_id, part, f"{name}[{key!r}]")
    elif not isinstance(space, FLAT_LEAVES):
        raise UserError(
            f"env.id {env_id!r} has observations{name} {space}; distppo takes Box, Discrete, MultiDiscrete and MultiBinary, and flattens "
            "Dict and Tuple of those: leave it out with gymnasium.wrappers.FilterObservation, or turn it into a Box with "
            "gymnasium.wrappers.TransformObservation"
        )
    elif isinstance(space, spaces.Box) and space.dtype == np.uint8 and len(space.shape) > 1:
        raise UserError(
            f"env.id {env_id!r} has images among its observations: observations{name} is {space}. Flattened they would be no images any "
            "more: keep them alone with a gymnasium.ObservationWrapper that returns this one, or leave them out with "
            "gymnasium.wrappers.FilterObservation"
        )


def _require_numbers(env_id: str, what: str, space: spaces.Space[Any]) -> None:
    if 0 in (space.shape or ()):
        raise UserError(
            f"env.id {env_id!r} has {what} {space} without a single number in them, from which nothing can be learned: "
            f"give the space a shape without 0{', as in Box(0, 1, (1,)) for an observation that says nothing' * (what == 'observations')}"
        )


def _action_numbers(
    env_id: str, actions: spaces.Space[Any]
) -> tuple[tuple[float, ...], tuple[float, ...], tuple[int, ...], tuple[int, ...]]:
    """Returns (low, high, choices, start) as in `EnvSpec`."""
    if isinstance(actions, spaces.Box) and np.issubdtype(actions.dtype, np.floating):
        return _float32_bounds(actions.low, np.inf), _float32_bounds(actions.high, -np.inf), (), ()
    if isinstance(actions, spaces.Discrete):
        return (), (), (int(actions.n),), (int(actions.start),)
    if isinstance(actions, spaces.MultiDiscrete):
        return (), (), tuple(actions.nvec.reshape(-1).tolist()), tuple(actions.start.reshape(-1).tolist())
    if isinstance(actions, spaces.MultiBinary):
        size = int(np.prod(actions.shape))
        return (), (), (2,) * size, (0,) * size
    if isinstance(actions, spaces.Box):
        raise UserError(
            f"env.id {env_id!r} has actions {actions}: whole numbers between bounds; distppo takes a Box of floats, Discrete, "
            "MultiDiscrete or MultiBinary. Declare them as MultiDiscrete, with a gymnasium.ActionWrapper if the environment is not yours"
        )
    raise UserError(
        f"env.id {env_id!r} has actions {actions}; distppo takes a Box of floats, Discrete, MultiDiscrete or MultiBinary: "
        "put one of these in front with a gymnasium.ActionWrapper"
    )


def _float32_bounds(bounds: np.ndarray, inwards: float) -> tuple[float, ...]:
    """Returns the bounds as float32 numbers, which actions are, rounded towards the inside: 0.4 in float32 is above 0.4 in float64."""
    exact = bounds.reshape(-1).astype(np.float64)
    rounded = exact.astype(np.float32)
    outside = (rounded < exact) if inwards > 0 else (rounded > exact)
    return tuple(float(x) for x in np.where(outside, np.nextafter(rounded, np.float32(inwards)), rounded))
