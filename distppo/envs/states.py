"""States of consecutive environments: cut apart and put together, since other workers can go on with them, and stored in files."""

from __future__ import annotations

import itertools
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from distppo.types import EnvCapture, EnvStates

BOOKS = ("observations", "lengths", "returns", "discounted_returns")


def joined(parts: Sequence[EnvStates]) -> EnvStates:
    """Returns the states of all environments of several workers, in order of the environments.

    Raises:
        AssertionError: an environment is missing between them or there twice.
    """
    ordered = sorted(parts, key=lambda part: part.first_env)
    for before, after in itertools.pairwise(ordered):
        assert after.first_env == before.first_env + len(before.captures), f"environment {after.first_env} does not follow"
    return EnvStates(
        first_env=ordered[0].first_env,
        observations=np.concatenate([part.observations for part in ordered]),
        lengths=np.concatenate([part.lengths for part in ordered]),
        returns=np.concatenate([part.returns for part in ordered]),
        discounted_returns=np.concatenate([part.discounted_returns for part in ordered]),
        captures=tuple(capture for part in ordered for capture in part.captures),
    )


def part_of(states: EnvStates | None, first_env: int, num_envs: int) -> EnvStates | None:
    """Returns the states of `num_envs` environments from `first_env` on; None of None."""
    if states is None:
        return None
    begin = first_env - states.first_env
    assert begin >= 0 and begin + num_envs <= len(states.captures), f"no states of environments {first_env} to {first_env + num_envs - 1}"
    part = slice(begin, begin + num_envs)
    return EnvStates(
        first_env=first_env,
        observations=states.observations[part],
        lengths=states.lengths[part],
        returns=states.returns[part],
        discounted_returns=states.discounted_returns[part],
        captures=states.captures[part],
    )


def packed(states: EnvStates) -> tuple[dict[str, np.ndarray], dict[str, Any]]:
    """Returns the states as named arrays and JSON values, for a file."""
    arrays = {name: getattr(states, name) for name in BOOKS}
    for n, capture in enumerate(states.captures):
        arrays |= {f"{n}/{name}": array for name, array in capture.arrays.items()}
    captures = [{"values": capture.values, "obstacle": capture.obstacle} for capture in states.captures]
    return arrays, {"first_env": states.first_env, "captures": captures}


def unpacked(arrays: Mapping[str, np.ndarray], values: Mapping[str, Any]) -> EnvStates:
    """Returns what `packed` was given.

    Raises:
        ValueError: something is missing, or does not fit together.
    """
    own: dict[str, dict[str, np.ndarray]] = {}
    try:
        for name, array in arrays.items():
            number, _, inner = name.partition("/")
            if inner:
                own.setdefault(number, {})[inner] = array
        captures = tuple(
            EnvCapture(own.get(str(n), {}), dict(each["values"]), None if each["obstacle"] is None else str(each["obstacle"]))
            for n, each in enumerate(values["captures"])
        )
        observations, lengths, returns, discounted_returns = (arrays[name] for name in BOOKS)
        states = EnvStates(int(values["first_env"]), observations, lengths, returns, discounted_returns, captures)
    except (KeyError, TypeError, AttributeError) as error:
        raise ValueError(f"environments' states that are not as they are written ({error})") from error
    if any(getattr(states, name).shape[:1] != (len(captures),) for name in BOOKS) or any(array.ndim != 1 for array in states[2:5]):
        raise ValueError(f"environments' states whose arrays do not fit {len(captures)} environments")
    if states.lengths.dtype != np.int64 or (states.lengths < 0).any():
        raise ValueError("environments' states in which the length of an episode is not a count")
    return states


def obstructed(first_env: int, num_envs: int, observation_shape: tuple[int, ...], obstacle: str) -> EnvStates:
    """Returns the states of environments of which nothing is known: they start new episodes, and say why."""
    zeros = np.zeros(num_envs)
    captures = (EnvCapture({}, {}, obstacle),) * num_envs
    return EnvStates(first_env, np.zeros((num_envs, *observation_shape)), zeros.astype(np.int64), zeros, zeros, captures)
