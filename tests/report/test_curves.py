"""Curves keep their shape with fewer points, and seeds are summed up as the papers do."""

from __future__ import annotations

import numpy as np
import pytest

from distppo.report.curves import Curve, over_seeds, thinned
from distppo.report.scale import compact, short, ticks, value_range


def test_a_short_curve_is_drawn_as_it_is() -> None:
    curve = Curve(np.arange(10.0), np.arange(10.0))
    assert thinned(curve, 10) is curve


@pytest.mark.parametrize("count", [401, 1000, 12_345])
def test_a_thinned_curve_keeps_its_ends_and_its_peaks(count: int) -> None:
    """A single spike in thousands of points is still there, as are the first and the last point; steps go on rising."""
    values = np.sin(np.linspace(0, 6, count))
    values[count // 3], values[2 * count // 3] = 50.0, -50.0
    thin = thinned(Curve(np.arange(float(count)), values, values - 1, values + 1), 400)
    assert len(thin.steps) == len(thin.values) == 400 and thin.low is not None and thin.high is not None
    assert (thin.steps[0], thin.steps[-1]) == (0, count - 1)
    assert (thin.values.max(), thin.values.min()) == (50.0, -50.0)
    assert (np.diff(thin.steps) > 0).all() and np.array_equal(thin.high - thin.low, np.full(400, 2.0))


def test_seeds_are_summed_up_by_the_interquartile_mean() -> None:
    """Of 1, 2, 3, 100 the middle half is 2 and 3; the interval lies around it. Where one seed has ended nothing is said."""
    steps = np.array([10.0, 20.0, 30.0])
    curves = [Curve(steps, np.full(3, value)) for value in (1.0, 2.0, 3.0)] + [Curve(steps[:2], np.full(2, 100.0))]
    together = over_seeds(curves)
    assert together.steps.tolist() == [10.0, 20.0] and together.values.tolist() == [2.5, 2.5]
    assert together.low is not None and together.high is not None
    assert (together.low >= 1).all() and (together.low < 2.5).all() and (together.high > 2.5).all() and (together.high <= 100).all()


def test_seeds_with_rows_at_other_env_steps_meet_by_interpolation() -> None:
    """Rising lines 0..20 and 0..20 at different steps are one line."""
    one, other = Curve(np.array([0.0, 20.0]), np.array([0.0, 20.0])), Curve(np.array([0.0, 7.0, 20.0]), np.array([0.0, 7.0, 20.0]))
    together = over_seeds([one, other])
    assert np.allclose(together.values, together.steps)


def test_nothing_gives_nothing() -> None:
    empty = Curve(np.empty(0), np.empty(0))
    assert len(over_seeds([]).steps) == len(over_seeds([empty, empty]).steps) == 0


def test_an_axis_shows_all_unless_a_few_values_would_hide_the_others() -> None:
    """0..10 is shown with a margin; one value of -1,000 among a hundred of them is cut off."""
    values = np.linspace(0, 10, 100)
    low, high = value_range([values])
    assert -1 < low < 0 and 10 < high < 11
    cut_low, _ = value_range([np.append(values, -1000.0)])
    assert -10 < cut_low < 0
    assert value_range([]) == (0.0, 1.0) and value_range([np.full(5, 3.0)]) == pytest.approx((2.7, 3.3))
    assert all(np.isfinite(value_range([np.array([-1.7e308, 1.7e308])])))


@pytest.mark.parametrize(
    ("bounds", "expected"),
    [((0.0, 1.0), [0.0, 0.2, 0.4, 0.6, 0.8, 1.0]), ((-3.0, 12.0), [0.0, 5.0, 10.0]), ((0.0, 606_208.0), [0, 200_000, 400_000, 600_000])],
)
def test_ticks_are_round(bounds: tuple[float, float], expected: list[float]) -> None:
    assert ticks(bounds) == pytest.approx(expected)


@pytest.mark.parametrize("bounds", [(0.0, 0.0), (1e300, 1.7e308), (-1e-320, 1e-320), (1e16, 1e16 + 4)])
def test_ticks_of_absurd_ranges_end(bounds: tuple[float, float]) -> None:
    assert len(ticks(bounds)) <= 21


def test_numbers_are_short() -> None:
    assert [short(value) for value in (0, 1234.5, -0.000123, 1.5e12, float("nan"))] == ["0", "1,234", "-0.000123", "1.5e+12", "-"]
    assert [compact(value) for value in (999.0, 1000.0, -2_500_000.0, 3e9)] == ["999", "1k", "-2.5M", "3G"]
