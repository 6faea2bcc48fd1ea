"""States of consecutive environments, cut apart and put together: what one worker had, others can go on with."""

from __future__ import annotations

import itertools
from collections.abc import Sequence

import numpy as np

from distppo.types import EnvStates


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
