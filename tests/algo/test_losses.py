"""Losses by hand arithmetic and at their limits."""

from __future__ import annotations

import math

import pytest
import torch

from distppo.algo import losses

EPSILON = torch.tensor(0.2)


def test_the_surrogate_with_ratio_1_is_minus_the_mean_advantage():
    advantages = torch.tensor([1.0, -2.0, 4.0])
    assert losses.clipped_surrogate_loss(torch.zeros(3), advantages, EPSILON).item() == pytest.approx(-1.0)


@pytest.mark.parametrize(
    ("ratio", "advantage", "objective", "has_gradient"),
    [
        (1.5, 1.0, 1.2, False),  # already better than the bound: no reason to go on
        (1.5, -1.0, -1.5, True),  # worse: pulled back however far it is
        (0.5, 1.0, 0.5, True),
        (0.5, -1.0, -0.8, False),
        (1.1, 1.0, 1.1, True),
    ],
)
def test_the_surrogate_is_the_pessimistic_bound(ratio, advantage, objective, has_gradient):
    log_ratio = torch.tensor([math.log(ratio)], requires_grad=True)
    loss = losses.clipped_surrogate_loss(log_ratio, torch.tensor([advantage]), EPSILON)
    loss.backward()
    assert loss.item() == pytest.approx(-objective)
    assert (log_ratio.grad.item() != 0.0) == has_gradient


@pytest.mark.parametrize(
    ("ratio", "advantage", "objective", "pull"),
    [
        (1.0, 2.0, 2.0, 1),  # at 1 the penalty has no say
        (1.1, 1.0, 1.1 - 0.01 / 0.4, 1),
        (1.2, 1.0, 1.2 - 0.04 / 0.4, 0),  # the bound is where the objective is largest
        (1.5, 1.0, 1.5 - 0.25 / 0.4, -1),  # past it the ratio is pulled back, where clipping lets it be
        (0.8, -3.0, 3 * (-0.8 - 0.04 / 0.4), 0),
        (0.5, -3.0, 3 * (-0.5 - 0.25 / 0.4), 1),
        (1.5, -1.0, -1.5 - 0.25 / 0.4, -1),
    ],
)
def test_the_penalized_surrogate_is_largest_at_the_bound(ratio, advantage, objective, pull):
    log_ratio = torch.tensor([math.log(ratio)], dtype=torch.float64, requires_grad=True)
    loss = losses.penalized_surrogate_loss(log_ratio, torch.tensor([advantage], dtype=torch.float64), EPSILON.double())
    loss.backward()
    assert loss.item() == pytest.approx(-objective, rel=1e-6)
    slope = -log_ratio.grad.item()
    assert abs(slope) < 1e-6 if pull == 0 else slope * pull > 0.1


@pytest.mark.parametrize("penalized", [0.0, 1.0])
def test_of_the_two_surrogates_the_other_one_spoils_nothing(penalized):
    one = losses.penalized_surrogate_loss if penalized else losses.clipped_surrogate_loss
    gradients = []
    for loss in (one, lambda *arguments: losses.surrogate_loss(*arguments, torch.tensor(penalized))):
        log_ratio = torch.tensor([0.1, -0.5, 40.0 if penalized else 60.0], requires_grad=True)  # exp(60) is finite, its square is not
        loss(log_ratio, torch.tensor([1.0, -2.0, 3.0]), EPSILON).backward()
        gradients.append(log_ratio.grad)
    assert torch.equal(*gradients) and gradients[0].isfinite().all() and gradients[0].any()


def test_the_clipped_value_loss_stops_only_beyond_the_bound_in_the_direction_of_the_target():
    returns, old = torch.tensor([10.0, 10.0, 10.0]), torch.zeros(3)
    values = torch.tensor([0.5, 2.0, -2.0], requires_grad=True)
    losses.clipped_value_loss(values, returns, old, torch.tensor(1.0)).backward()
    # Inside the bound, past it towards the target (stopped), past it away from the target (pulled back).
    assert [g != 0.0 for g in values.grad.tolist()] == [True, False, True]


def test_an_infinite_value_clip_is_the_plain_squared_error():
    values, returns = torch.tensor([1.0, 5.0], requires_grad=True), torch.tensor([2.0, 2.0])
    clipped = losses.clipped_value_loss(values, returns, torch.zeros(2), torch.tensor(math.inf))
    assert clipped.item() == losses.value_loss(values, returns).item() == pytest.approx(5.0)
    clipped.backward()
    # d/dV mean (V - R)^2 = 2 (V - R) / 2
    assert values.grad.tolist() == pytest.approx([-1.0, 3.0])


def test_k3_is_zero_for_equal_policies_positive_otherwise_and_close_to_the_kl():
    assert losses.approximate_kl(torch.zeros(5)).item() == 0.0
    # KL(N(0,1) || N(m,1)) = m^2 / 2
    samples = torch.randn(200_000, generator=torch.Generator().manual_seed(0))
    shift = 0.1
    log_ratio = -0.5 * (samples - shift) ** 2 + 0.5 * samples**2
    assert losses.approximate_kl(log_ratio).item() == pytest.approx(shift**2 / 2, rel=0.05)


def test_the_clip_fraction_counts_samples_outside_the_bounds():
    log_ratio = torch.log(torch.tensor([1.0, 1.19, 1.21, 0.79, 0.81]))
    assert losses.clip_fraction(log_ratio, EPSILON).item() == pytest.approx(2 / 5)


def test_normalized_advantages_have_mean_0_and_unbiased_std_1():
    normalized = losses.normalize_advantages(torch.tensor([1.0, 2.0, 3.0, 10.0]))
    assert normalized.mean().item() == pytest.approx(0.0, abs=1e-6)
    assert normalized.std().item() == pytest.approx(1.0, abs=1e-6)
