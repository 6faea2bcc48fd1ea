"""The action distributions are torch's, in torch and in numpy, and sampling from our noise is distributed as they say."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import distributions

from distppo.algo.losses import approximate_kl
from distppo.models.distributions import Categorical, DiagonalGaussian
from distppo.models.heads import CategoricalHead, GaussianHead, action_noise
from distppo.types import EnvSpec

CHOICES = (2, 5, 3)
SPEC = EnvSpec("test", (1,), (3,), (), (), None, action_choices=CHOICES, action_start=(0, 0, 0))


def logits(rows: int, seed: int = 0) -> torch.Tensor:
    return torch.from_numpy(np.random.default_rng(seed).normal(0, 2, (rows, sum(CHOICES))).astype(np.float32))


def expected(values: torch.Tensor) -> list[distributions.Categorical]:
    return [distributions.Categorical(logits=part) for part in values.split(list(CHOICES), -1)]


def all_actions() -> torch.Tensor:
    """Every combination of choices, [30, 3]."""
    return torch.cartesian_prod(*(torch.arange(float(n)) for n in CHOICES))


def test_choices_have_torch_s_log_probs_entropy_and_mode() -> None:
    values, actions = logits(30), all_actions()
    policy, parts = Categorical(values, CHOICES), expected(values)
    torch.testing.assert_close(policy.log_prob(actions), sum(part.log_prob(actions[:, a]) for a, part in enumerate(parts)))
    torch.testing.assert_close(policy.entropy(), sum(part.entropy() for part in parts))
    torch.testing.assert_close(policy.mode(), torch.stack([part.probs.argmax(-1).float() for part in parts], -1))


def test_the_probabilities_of_all_combinations_add_up_to_1() -> None:
    policy = Categorical(logits(1).expand(30, -1), CHOICES)
    assert policy.log_prob(all_actions()).exp().sum().item() == pytest.approx(1.0, abs=1e-5)


def test_gumbel_noise_draws_choices_with_the_policy_s_probabilities() -> None:
    """200,000 draws: the standard error of a frequency is at most 0.0011."""
    values, samples = logits(1, seed=3), 200_000
    noise = torch.from_numpy(action_noise(SPEC, np.random.default_rng(0), samples))
    drawn = Categorical(values.expand(samples, -1), CHOICES).sample(noise)
    for a, part in enumerate(expected(values)):
        frequencies = torch.bincount(drawn[:, a].long(), minlength=CHOICES[a]) / samples
        torch.testing.assert_close(frequencies, part.probs[0], atol=0.006, rtol=0)


def test_numpy_and_torch_choose_and_score_alike() -> None:
    values = logits(500)
    noise = action_noise(SPEC, np.random.default_rng(1), 500)
    policy, head = Categorical(values, CHOICES), CategoricalHead(CHOICES)
    actions, mode = np.empty((500, 3), np.float32), np.empty((500, 3), np.float32)
    head.choose(values.numpy(), noise, actions)
    head.mode(values.numpy(), mode)
    np.testing.assert_array_equal(actions, policy.sample(torch.from_numpy(noise)).numpy())
    np.testing.assert_array_equal(mode, policy.mode().numpy())
    np.testing.assert_allclose(head.log_probs(actions, values.numpy()), policy.log_prob(torch.from_numpy(actions)).numpy(), atol=3e-6)


def test_extreme_logits_stay_finite() -> None:
    values = torch.tensor([[1e4, -1e4] + [0.0] * 8])
    head, policy = CategoricalHead(CHOICES), Categorical(values, CHOICES)
    for action in (torch.zeros(1, 3), torch.ones(1, 3)):
        assert np.isfinite(head.log_probs(action.numpy(), values.numpy())).all() and policy.log_prob(action).isfinite().all()
    assert policy.entropy().isfinite().all()


@pytest.mark.parametrize("shape", [(3,), (20, 3)], ids=["std of its own", "std from the state"])
def test_the_gaussian_has_torch_s_log_probs_and_entropy(shape: tuple[int, ...]) -> None:
    random = np.random.default_rng(0)
    mean, actions = (torch.from_numpy(random.normal(size=(20, 3)).astype(np.float32)) for _ in range(2))
    log_std = torch.from_numpy(random.normal(0, 0.5, shape).astype(np.float32))
    policy, reference = DiagonalGaussian(mean, log_std), distributions.Normal(mean, log_std.exp().expand(20, 3))
    torch.testing.assert_close(policy.log_prob(actions), reference.log_prob(actions).sum(-1))
    torch.testing.assert_close(policy.entropy().expand(20), reference.entropy().sum(-1))
    torch.testing.assert_close(policy.sample(torch.ones(20, 3)), mean + log_std.exp().expand(20, 3))
    if len(shape) == 1:
        scored = GaussianHead(log_std.numpy()).log_probs(actions.numpy(), mean.numpy())
        np.testing.assert_allclose(scored, policy.log_prob(actions).numpy(), atol=3e-6)


@pytest.mark.parametrize("kind", ["choices", "continuous"])
def test_the_estimated_kl_is_torch_s_on_average(kind: str) -> None:
    """k3 over samples of the old policy; 400,000 samples bring the standard error below 0.001."""
    samples = 400_000
    old, new = logits(1, seed=1) / 4, logits(1, seed=2) / 4
    if kind == "choices":
        before, after = Categorical(old.expand(samples, -1), CHOICES), Categorical(new.expand(samples, -1), CHOICES)
        noise = torch.from_numpy(action_noise(SPEC, np.random.default_rng(0), samples))
        exact = sum(distributions.kl_divergence(p, q).item() for p, q in zip(expected(old), expected(new), strict=True))
    else:
        before, after = (DiagonalGaussian(x[:, :3].expand(samples, -1), x[0, 3:6]) for x in (old, new))
        noise = torch.from_numpy(np.random.default_rng(0).standard_normal((samples, 3), np.float32))
        normals = [distributions.Normal(x[0, :3], x[0, 3:6].exp()) for x in (old, new)]
        exact = distributions.kl_divergence(*normals).sum().item()
    actions = before.sample(noise)
    assert approximate_kl(after.log_prob(actions) - before.log_prob(actions)).item() == pytest.approx(exact, rel=0.03)
