"""Random streams that depend on (seed, purpose, keys) alone: not on timing, nor on which process draws from them."""

from __future__ import annotations

from enum import IntEnum

import numpy as np


class Purpose(IntEnum):
    """What a stream is for. The numbers are part of every run's identity: never reuse or renumber one."""

    NETWORK_INIT = 0
    ENV_RESET = 1
    ACTION_NOISE = 2
    MINIBATCHES = 3
    EVALUATION_RESET = 4
    EVALUATION_NOISE = 5
    TRIAL_SETTINGS = 6


def seed_sequence(seed: int, purpose: Purpose, *keys: int) -> np.random.SeedSequence:
    """Returns the descendant that `SeedSequence(seed).spawn` would give child `purpose`, then its children `keys`.

    Args:
        seed: the run's seed, >= 0.
        purpose: what the stream is for.
        keys: for instance the global environment index and the iteration, each >= 0.
    """
    return np.random.SeedSequence(entropy=seed, spawn_key=(int(purpose), *keys))


def stream(seed: int, purpose: Purpose, *keys: int) -> np.random.Generator:
    """Returns a generator of its own for (seed, purpose, keys)."""
    return np.random.Generator(np.random.PCG64(seed_sequence(seed, purpose, *keys)))


def env_seed(seed: int, purpose: Purpose, *keys: int) -> int:
    """Returns a 31-bit seed for `env.reset(seed=...)`; 31 bits because some environments take a C int."""
    return int(seed_sequence(seed, purpose, *keys).generate_state(1, np.uint32)[0] >> 1)
