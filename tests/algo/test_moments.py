"""Moments of any partition, merged in any number of steps, equal a single pass."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from distppo.algo.moments import empty_moments, merge, merge_all, moments_of, per_env, standard_deviation


def assert_moments(moments, samples, *, relative=1e-12):
    assert moments.count == len(samples)
    scale = np.abs(samples).max() + 1.0
    np.testing.assert_allclose(moments.mean, samples.mean(axis=0), atol=relative * scale)
    np.testing.assert_allclose(moments.m2, ((samples - samples.mean(axis=0)) ** 2).sum(axis=0), rtol=1e-8, atol=relative * scale)


@settings(max_examples=60, deadline=None)
@given(st.lists(st.integers(0, 12), min_size=1, max_size=12), st.integers(0, 2**32 - 1), st.sampled_from([0.0, 5.0, -1e3, 1e6]))
def test_any_partition_equals_a_single_pass(sizes, seed, mean):
    samples = np.random.default_rng(seed).normal(mean, 2.0, (sum(sizes) + 1, 3))
    bounds = np.cumsum([1, *sizes])
    parts = [samples[:1], *(samples[a:b] for a, b in itertools.pairwise(bounds))]
    assert_moments(merge_all(empty_moments((3,)), [moments_of(part) for part in parts]), samples, relative=1e-9)


def test_ten_thousand_merges_of_samples_around_a_million_lose_nothing():
    samples = np.random.default_rng(0).normal(1e6, 1.0, (10_000, 2))
    merged = merge_all(empty_moments((2,)), (moments_of(row[None]) for row in samples))
    assert merged.count == 10_000
    np.testing.assert_allclose(merged.mean, samples.mean(axis=0), rtol=1e-14)
    np.testing.assert_allclose(merged.m2 / merged.count, samples.var(axis=0), rtol=1e-9)


def test_an_empty_delta_changes_nothing():
    moments = moments_of(np.arange(6.0).reshape(3, 2))
    empty = moments_of(np.zeros((0, 2)))
    for result in (merge(moments, empty), merge(empty, moments)):
        assert result.count == 3
        np.testing.assert_array_equal(result.mean, moments.mean)
        np.testing.assert_array_equal(result.m2, moments.m2)


def test_merging_is_symmetric_to_rounding():
    rng = np.random.default_rng(3)
    a, b = moments_of(rng.normal(5, 1, (7, 4))), moments_of(rng.normal(-5, 3, (11, 4)))
    for forward, backward in zip(merge(a, b), merge(b, a), strict=True):
        np.testing.assert_allclose(forward, backward, rtol=1e-12)


def test_float32_samples_are_accumulated_in_float64():
    samples = np.full((100_000, 1), 16_777_216.0, np.float32)
    samples[::2] += 2.0
    moments = moments_of(samples)
    assert moments.mean.dtype == np.float64
    assert moments.mean[0] == 16_777_217.0
    assert moments.m2[0] == 100_000.0


def test_the_middle_axis_gives_one_entry_per_environment():
    samples = np.random.default_rng(1).normal(size=(10, 3, 2))
    entries = per_env(moments_of(samples))
    assert len(entries) == 3
    for n, entry in enumerate(entries):
        assert_moments(entry, samples[:, n])


def test_the_std_of_nothing_is_one_and_of_a_constant_is_the_floor():
    assert standard_deviation(empty_moments((2,))).tolist() == [1.0, 1.0]
    assert standard_deviation(moments_of(np.ones((5, 1)))) == pytest.approx(1e-4)
