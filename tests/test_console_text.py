"""Numbers as short text."""

from __future__ import annotations

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from distppo.console import format_count, format_duration, sparkline
from distppo.console.text import format_number
from distppo.console.view import History


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        (0, "0s"),
        (0.4, "0s"),
        (59.4, "59s"),
        (59.6, "1m00s"),
        (85, "1m25s"),
        (3599.4, "59m59s"),
        (3599.6, "1h00m"),
        (7380, "2h03m"),
        (86_400, "1d00h"),
        (100_800, "1d04h"),
        (-1, "-"),
        (None, "-"),
        (math.nan, "-"),
        (math.inf, "-"),
    ],
)
def test_a_duration_shows_its_two_largest_units(seconds, text):
    assert format_duration(seconds) == text


@pytest.mark.parametrize(("value", "text"), [(0, "0"), (999, "999"), (163_840, "163,840"), (9811.7, "9,812"), (None, "-"), (math.nan, "-")])
def test_a_count_has_its_thousands_separated(value, text):
    assert format_count(value) == text


@pytest.mark.parametrize(("value", "text"), [(1234.56, "1234.6"), (-0.25, "-0.2"), (None, "-"), (math.nan, "-"), (-math.inf, "-")])
def test_a_number_that_is_not_there_is_a_dash(value, text):
    assert format_number(value, ".1f") == text


def test_a_sparkline_runs_from_its_lowest_to_its_highest_value():
    assert sparkline([0, 1, 2, 3, 4, 5, 6, 7], 8) == "\u2581\u2582\u2583\u2584\u2585\u2586\u2587\u2588"
    assert sparkline([0, 0, 7, 7], 2) == "\u2581\u2588"
    assert sparkline([5.0, 5.0], 8) == "\u2581\u2581"
    assert sparkline([1.0, math.nan, 2.0], 3) == "\u2581 \u2588"
    assert sparkline([], 8) == sparkline([1.0], 0) == ""


@given(st.lists(st.floats(allow_nan=True, allow_infinity=True, width=32)), st.integers(0, 60))
def test_a_sparkline_is_never_wider_than_asked(values, width):
    line = sparkline(values, width)
    assert len(line) == min(width, len(values))
    assert set(line) <= set(" \u2581\u2582\u2583\u2584\u2585\u2586\u2587\u2588")


@given(st.integers(0, 400))
def test_a_history_stays_in_its_bounds_in_order_and_true_to_the_mean(count):
    history = History(capacity=8)
    for value in range(count):
        history.add(float(value))
    values = history.values()
    assert len(values) <= 8
    assert values == sorted(values)
    if count:
        assert 0 <= values[0] <= values[-1] <= count - 1
        assert abs(sum(values) / len(values) - (count - 1) / 2) <= count / 4


def test_a_history_leaves_out_what_is_not_a_number():
    history = History()
    for value in (None, math.nan, math.inf, 2.0):
        history.add(value)
    assert history.values() == [2.0]
