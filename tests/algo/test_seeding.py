"""Streams are children in numpy's spawn tree and never meet."""

from __future__ import annotations

import itertools

import numpy as np

from distppo.algo.seeding import Purpose, env_seed, seed_sequence, stream


def test_a_stream_is_what_spawn_would_give():
    root = np.random.SeedSequence(7)
    purpose_child = root.spawn(len(Purpose))[Purpose.ACTION_NOISE]
    expected = purpose_child.spawn(4)[3].generate_state(4)
    np.testing.assert_array_equal(seed_sequence(7, Purpose.ACTION_NOISE, 3).generate_state(4), expected)


def test_streams_of_different_purpose_env_or_seed_differ():
    keys = list(itertools.product((0, 1), Purpose, (0, 1, 2)))
    draws = {tuple(stream(seed, purpose, env).integers(0, 2**63, 2)) for seed, purpose, env in keys}
    assert len(draws) == len(keys)


def test_env_seeds_fit_a_c_int():
    assert all(0 <= env_seed(seed, Purpose.ENV_RESET, seed) < 2**31 for seed in range(200))
