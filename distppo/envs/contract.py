"""What `reset` and `step` must return, as findings about one result: used at the first step of training and by `env.check`."""

from __future__ import annotations

import numbers
from collections.abc import Iterator
from typing import Any, NamedTuple

import gymnasium as gym
import numpy as np

TOLERANCE = 1e-6
"""By how much of its own size a number may pass its bound: float32 spaces hold rounded bounds."""
STEP_VALUES = "observation, reward, terminated, truncated, info"


class Finding(NamedTuple):
    """One thing that is not as it should be.

    Attributes:
        what: is wrong, with the value.
        fix: in one line.
        stops: training cannot be right with it; else it is worth knowing.
    """

    what: str
    fix: str
    stops: bool = True


def reset_findings(result: Any, space: gym.Space[Any]) -> Iterator[Finding]:
    """Yields what is wrong with what `reset` returned."""
    if not (isinstance(result, tuple) and len(result) == 2):
        yield Finding(f"reset() returned {_kind(result)}, not a pair", "return observation, info from reset()")
        return
    observation, info = result
    yield from observation_findings("reset()", observation, space)
    yield from _info_findings("reset()", info)


def step_findings(result: Any, space: gym.Space[Any]) -> Iterator[Finding]:
    """Yields what is wrong with what `step` returned."""
    if not (isinstance(result, tuple) and len(result) == 5):
        yield Finding(f"step() returned {_kind(result)}, not five values", f"return {STEP_VALUES} from step()")
        return
    observation, reward, terminated, truncated, info = result
    yield from observation_findings("step()", observation, space)
    yield from _reward_findings(reward)
    for name, flag in (("terminated", terminated), ("truncated", truncated)):
        if not isinstance(flag, bool | np.bool_):
            yield Finding(f"step() gave {name} = {flag!r}, which is {_kind(flag)}", f"return bool({name})", stops=False)
    yield from _info_findings("step()", info)


def observation_findings(source: str, observation: Any, space: gym.Space[Any]) -> Iterator[Finding]:
    """Yields what sets an observation apart from its declared space: shape, kind of number, bounds. NaN is for the caller to find.

    Args:
        source: "reset()" or "step()".
        observation: as returned.
        space: as declared; only a Box is looked into.
    """
    if not isinstance(space, gym.spaces.Box):
        if not space.contains(observation):
            yield Finding(f"{source} gave the observation {observation!r}, outside {space}", "make observation_space hold what is returned")
        return
    if np.shape(observation) != space.shape:
        yield Finding(
            f"{source} gave an observation of shape {np.shape(observation)}, but its observation_space has shape {space.shape}",
            "make them agree",
        )
        return
    array = np.asarray(observation)
    if not np.issubdtype(array.dtype, np.number) and array.dtype != np.bool_:
        yield Finding(f"{source} gave an observation of dtype {array.dtype}", f"return an array of {space.dtype}")
        return
    if not isinstance(observation, np.ndarray) or not np.can_cast(array.dtype, space.dtype):
        kind = f"dtype {array.dtype}" if isinstance(observation, np.ndarray) else _kind(observation)
        fix = f"return an array of {space.dtype}, or declare the space with the dtype that is returned"
        yield Finding(f"{source} gave an observation of {kind}; its space has {space.dtype}", fix, stops=False)
    yield from _bounds_findings(source, array.astype(np.float64), space)


def _bounds_findings(source: str, values: np.ndarray, space: gym.spaces.Box) -> Iterator[Finding]:
    low, high = space.low.astype(np.float64), space.high.astype(np.float64)
    slack = TOLERANCE * np.maximum(1.0, np.abs(values))
    outside = (values < low - slack) | (values > high + slack)
    if outside.any():
        index = tuple(int(i) for i in np.argwhere(outside)[0])
        element = f"element {index[0] if len(index) == 1 else index}" if index else "the number"
        yield Finding(
            f"{source} gave an observation outside its space: {element} is {values[index]:g}, its bounds are "
            f"{low[index]:g} and {high[index]:g}",
            "widen observation_space, or clip what is returned",
        )


def _reward_findings(reward: Any) -> Iterator[Finding]:
    fix = "return float(reward)"
    if isinstance(reward, numbers.Real | np.bool_):
        return
    try:
        single = np.size(reward) == 1 and np.isreal(float(np.asarray(reward).reshape(-1)[0]))
    except (TypeError, ValueError):
        single = False
    yield Finding(
        f"step() gave the reward {reward!r}, which is {_kind(reward)}, not a number", fix, stops=not single or np.ndim(reward) > 0
    )


def _info_findings(source: str, info: Any) -> Iterator[Finding]:
    if not isinstance(info, dict):
        yield Finding(f"{source} gave {_kind(info)} as info", "return a dict, {} where there is nothing to tell", stops=False)


def _kind(value: Any) -> str:
    if isinstance(value, tuple):
        return f"a tuple of {len(value)}"
    if isinstance(value, np.ndarray):
        return "an array"
    name = type(value).__name__
    return "None" if value is None else f"{'an' if name[0].lower() in 'aeiou' else 'a'} {name}"
