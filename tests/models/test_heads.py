"""From a policy's actions to the environment's: never beyond its bounds, not by a rounding either."""

from __future__ import annotations

import gymnasium as gym
import numpy as np
import pytest

from distppo.envs.spaces import _float32_bounds
from distppo.models.heads import ActionScaler, rounds_outside


def test_no_rounding_leads_out_of_the_bounds() -> None:
    """Over 4,000 pairs of bounds with a decimal, of which a third would, in float32 and float64 spaces."""
    random = np.random.default_rng(0)
    low = random.integers(-60, 60, 4000) / 10
    high = low + random.integers(1, 60, 4000) / 10
    bounds = _float32_bounds(low, np.inf), _float32_bounds(high, -np.inf)
    assert rounds_outside(*bounds)
    scaler = ActionScaler(*bounds, rows=5)
    actions = np.stack([np.full(4000, value, np.float32) for value in (-3.0, -1.0, 0.0, 1.0, 3.0)])
    scaled = scaler(actions)
    for dtype in (np.float32, np.float64):
        space = gym.spaces.Box(low.astype(dtype), high.astype(dtype), dtype=dtype)
        assert all(space.contains(row.astype(dtype)) for row in scaled)
    np.testing.assert_allclose(scaled[2], (low + high) / 2, atol=1e-6)


@pytest.mark.parametrize(
    ("low", "high"), [((-1.0,), (1.0,)), ((-0.4000000059604645,), (0.4000000059604645,)), ((-np.inf, 0.0), (np.inf, np.inf))]
)
def test_where_no_rounding_does_nothing_is_clipped_twice(low: tuple[float, ...], high: tuple[float, ...]) -> None:
    """As with Gymnasium's robots: their numbers are what they were."""
    assert not rounds_outside(low, high)
