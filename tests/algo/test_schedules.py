"""Schedules are functions of absolute progress; the KL schedule moves by 1.5 and only outside its band."""

from __future__ import annotations

import pytest

from distppo.algo.schedules import kl_adapted_rate, scheduled_rate


@pytest.mark.parametrize(
    ("schedule", "progress", "expected"),
    [
        ("constant", 0.9, 1.0),
        ("linear", 0.0, 1.0),
        ("linear", 0.25, 0.75),
        ("linear", 1.0, 0.0),
        ("cosine", 0.0, 1.0),
        ("cosine", 0.5, 0.5),
        ("cosine", 1.0, 0.0),
        ("linear", 1.5, 0.0),
    ],
)
def test_rate_at_progress(schedule, progress, expected):
    assert scheduled_rate(schedule, 1.0, progress) == pytest.approx(expected, abs=1e-15)


def test_cosine_is_above_linear_in_the_first_half_and_below_in_the_second():
    assert scheduled_rate("cosine", 1.0, 0.25) > scheduled_rate("linear", 1.0, 0.25)
    assert scheduled_rate("cosine", 1.0, 0.75) < scheduled_rate("linear", 1.0, 0.75)


def test_an_unknown_schedule_is_refused():
    with pytest.raises(ValueError, match="unknown schedule 'kl'"):
        scheduled_rate("kl", 1.0, 0.0)


@pytest.mark.parametrize(("kl", "expected"), [(0.021, 2e-4), (0.02, 3e-4), (0.01, 3e-4), (0.005, 3e-4), (0.0049, 4.5e-4)])
def test_the_rate_follows_the_kl_outside_half_and_twice_the_target(kl, expected):
    assert kl_adapted_rate(3e-4, kl, 0.01) == pytest.approx(expected)


def test_the_followed_rate_stays_in_its_bounds():
    assert kl_adapted_rate(1e-6, 1.0, 0.01) == 1e-6
    assert kl_adapted_rate(1e-2, 0.0, 0.01) == 1e-2
