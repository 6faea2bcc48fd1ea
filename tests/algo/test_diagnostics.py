"""Diagnostics at the values that people read them by."""

from __future__ import annotations

import math

import numpy as np
import pytest

from distppo.algo.diagnostics import explained_variance, ratio_error


def test_explained_variance_is_1_for_the_truth_0_for_a_constant_and_negative_for_worse():
    targets = np.array([1.0, 2.0, 3.0, 4.0], np.float32)
    assert explained_variance(targets, targets) == 1.0
    assert explained_variance(np.full(4, 7.0, np.float32), targets) == 0.0
    assert explained_variance(-targets, targets) == pytest.approx(-3.0)
    assert math.isnan(explained_variance(targets, np.ones(4, np.float32)))


def test_ratio_error_is_the_largest_deviation_of_the_ratio_from_1():
    worker = np.log(np.array([1.0, 1.0, 1.0], np.float32))
    learner = np.log(np.array([1.0, 1.02, 0.9], np.float32))
    assert ratio_error(learner, worker) == pytest.approx(0.1, abs=1e-6)
    assert ratio_error(worker[:0], worker[:0]) == 0.0
