"""The interquartile mean and its interval: by hand, against scipy's trimmed mean, and by how often the truth lies inside."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from scipy.stats import trim_mean

from distppo.algo.scores import interquartile_mean, iqm_interval


def test_the_middle_half_by_hand() -> None:
    """Of eight scores the two lowest and the two highest are left out: (3 + 4 + 5 + 6) / 4."""
    assert interquartile_mean(np.array([6.0, 3, 100, 1, 4, -50, 5, 7])) == 4.5
    assert interquartile_mean(np.array([1.0, 2, 6])) == 3.0  # floor(3 / 4) = 0: nothing is left out
    assert interquartile_mean(np.array([7.0])) == 7.0


@given(arrays(np.float64, st.integers(1, 40), elements=st.floats(-1e6, 1e6)))
def test_it_is_the_trimmed_mean_that_the_paper_s_code_takes(scores: np.ndarray) -> None:
    """scipy.stats.trim_mean with a quarter off each end."""
    assert interquartile_mean(scores) == pytest.approx(trim_mean(scores, 0.25), rel=1e-9, abs=1e-6)


def test_the_interval_holds_the_truth_about_as_often_as_it_says() -> None:
    """Of 200 samples of 60 from N(3, 1), whose IQM is 3, about 95% have it inside: 190 +- 3 sigma, which is 9."""
    draws = np.random.default_rng(1).normal(3.0, 1.0, (200, 60))
    intervals = [iqm_interval([row], resamples=400) for row in draws]
    inside = sum(low <= 3.0 <= high for low, high in filter(None, intervals))
    assert 181 <= inside <= 199


def test_strata_are_drawn_from_separately() -> None:
    """Scores that are equal inside each stratum leave no doubt, however much the strata differ; mixed together they do."""
    first, second = np.zeros(8), np.ones(8)
    assert iqm_interval([first, second]) == (0.5, 0.5)
    mixed = iqm_interval([np.concatenate([first, second])])
    assert mixed is not None and mixed[0] < 0.3 and mixed[1] > 0.7


def test_a_single_score_has_no_interval_and_the_same_scores_always_the_same() -> None:
    """One score says nothing of its spread; the resampling draws alike every time."""
    assert iqm_interval([np.array([1.0])]) is None
    scores = np.random.default_rng(0).normal(size=9)
    assert iqm_interval([scores]) == iqm_interval([scores])
