"""GAE against a brute-force oracle, at the limits of its formula, and at the two kinds of episode end."""

from __future__ import annotations

import numpy as np
import pytest

from distppo.algo.gae import gae


def oracle(rewards, values, next_values, terminations, truncations, gamma, gae_lambda):
    """A_t = sum_l (gamma lambda)^l delta_{t+l}, summed term by term until the episode or the fragment ends."""
    steps, envs = rewards.shape
    advantages = np.zeros((steps, envs))
    for n in range(envs):
        for t in range(steps):
            weight = 1.0
            for k in range(t, steps):
                bootstrap = 0.0 if terminations[k, n] else gamma * next_values[k, n]
                advantages[t, n] += weight * (rewards[k, n] + bootstrap - values[k, n])
                if terminations[k, n] or truncations[k, n]:
                    break
                weight *= gamma * gae_lambda
    return advantages


def random_fragment(seed, steps=40, envs=3):
    rng = np.random.default_rng(seed)
    rewards, values, next_values = (rng.standard_normal((steps, envs)).astype(np.float32) for _ in range(3))
    terminations = rng.random((steps, envs)) < 0.1
    truncations = (rng.random((steps, envs)) < 0.1) & ~terminations
    return rewards, values, next_values, terminations, truncations


@pytest.mark.parametrize("seed", range(5))
@pytest.mark.parametrize(("gamma", "gae_lambda"), [(0.99, 0.95), (0.9, 0.5), (1.0, 1.0), (0.0, 0.7), (0.97, 0.0)])
def test_equals_the_sum_of_discounted_td_errors(seed, gamma, gae_lambda):
    fragment = random_fragment(seed)
    np.testing.assert_allclose(gae(*fragment, gamma=gamma, gae_lambda=gae_lambda), oracle(*fragment, gamma, gae_lambda), atol=2e-5)


def test_lambda_0_gives_the_td_error():
    rewards, values, next_values, terminations, truncations = random_fragment(0)
    delta = rewards + 0.9 * next_values * ~terminations - values
    np.testing.assert_allclose(gae(rewards, values, next_values, terminations, truncations, gamma=0.9, gae_lambda=0.0), delta, atol=1e-6)


def test_gamma_0_gives_reward_minus_value():
    rewards, values, *rest = random_fragment(1)
    np.testing.assert_allclose(gae(rewards, values, *rest, gamma=0.0, gae_lambda=0.9), rewards - values, atol=1e-6)


def test_lambda_1_with_consistent_values_gives_the_discounted_return_minus_value():
    rewards = np.array([[1.0], [2.0], [4.0]], np.float32)
    values = np.array([[10.0], [20.0], [30.0]], np.float32)
    next_values = np.array([[20.0], [30.0], [8.0]], np.float32)
    flags = np.zeros((3, 1), bool)
    # Returns at gamma 0.5: 4 + 0.5 * 8 = 8, 2 + 4 = 6, 1 + 3 = 4.
    np.testing.assert_allclose(gae(rewards, values, next_values, flags, flags, gamma=0.5, gae_lambda=1.0)[:, 0], [4 - 10, 6 - 20, 8 - 30])


def test_a_truncation_bootstraps_and_a_termination_does_not():
    rewards, values, next_values = np.array([[1.0]], np.float32), np.array([[2.0]], np.float32), np.array([[10.0]], np.float32)
    yes, no = np.ones((1, 1), bool), np.zeros((1, 1), bool)
    # 1 + 0.9 * 10 - 2 = 8 against 1 - 2 = -1.
    assert gae(rewards, values, next_values, no, yes, gamma=0.9, gae_lambda=0.95)[0, 0] == pytest.approx(8.0)
    assert gae(rewards, values, next_values, yes, no, gamma=0.9, gae_lambda=0.95)[0, 0] == pytest.approx(-1.0)


@pytest.mark.parametrize("kind", [3, 4])
def test_no_advantage_crosses_the_end_of_an_episode(kind):
    fragment = list(random_fragment(2))
    fragment[3][:], fragment[4][:] = False, False
    fragment[kind][19] = True
    before = gae(*fragment, gamma=0.99, gae_lambda=0.95)
    fragment[0][20:] += 100.0
    np.testing.assert_array_equal(gae(*fragment, gamma=0.99, gae_lambda=0.95)[:20], before[:20])


def test_arrays_of_different_shapes_are_refused_by_name():
    rewards, values, next_values, terminations, truncations = random_fragment(0)
    with pytest.raises(ValueError, match=r"next_values has shape \(39, 3\), rewards \(40, 3\)"):
        gae(rewards, values, next_values[1:], terminations, truncations, gamma=0.99, gae_lambda=0.95)
