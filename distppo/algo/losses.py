"""PPO's losses as pure functions of tensors, each for one minibatch of M samples.

Schulman et al.: "Proximal Policy Optimization Algorithms" (2017), https://arxiv.org/abs/1707.06347.
"""

from __future__ import annotations

import torch
from torch import Tensor


def normalize_advantages(advantages: Tensor) -> Tensor:
    """Returns (A - mean) / (std + 1e-8) with the unbiased std.

    Args:
        advantages: [M], M >= 2.
    """
    return (advantages - advantages.mean()) / (advantages.std() + 1e-8)


def clipped_surrogate_loss(log_ratio: Tensor, advantages: Tensor, clip_epsilon: Tensor) -> Tensor:
    """Returns -mean min(ratio A, clip(ratio, 1 - epsilon, 1 + epsilon) A), equation 7 of the paper.

    Args:
        log_ratio: [M], log pi_new(a|s) - log pi_old(a|s), nats.
        advantages: [M].
        clip_epsilon: scalar in (0, 1).
    """
    ratio = log_ratio.exp()
    clipped = ratio.clamp(1.0 - clip_epsilon, 1.0 + clip_epsilon)
    return -torch.minimum(ratio * advantages, clipped * advantages).mean()


def penalized_surrogate_loss(log_ratio: Tensor, advantages: Tensor, clip_epsilon: Tensor) -> Tensor:
    """Returns -mean(ratio A - |A| (ratio - 1)^2 / (2 epsilon)), whose gradient is 0 at 1 + epsilon for A > 0 and at 1 - epsilon for A < 0.

    Past these it points back, where the clipped loss has none: ratios stay near 1 in every epoch. Xie et al.: "Simple Policy
    Optimization" (2024), https://arxiv.org/abs/2401.16025.

    Args:
        log_ratio: [M], log pi_new(a|s) - log pi_old(a|s), nats.
        advantages: [M].
        clip_epsilon: scalar in (0, 1).
    """
    excess = log_ratio.expm1()
    return -(log_ratio.exp() * advantages - advantages.abs() * excess.square() / (2.0 * clip_epsilon)).mean()


def surrogate_loss(log_ratio: Tensor, advantages: Tensor, clip_epsilon: Tensor, penalized: Tensor) -> Tensor:
    """Returns the penalized surrogate loss where `penalized` (scalar) is 1, the clipped one where it is 0."""
    # The one that is not asked for sees ratios of 1: an infinite number in it would make the gradient of both NaN.
    return torch.where(
        penalized > 0,
        penalized_surrogate_loss(log_ratio * penalized, advantages, clip_epsilon),
        clipped_surrogate_loss(log_ratio * (1.0 - penalized), advantages, clip_epsilon),
    )


def value_loss(values: Tensor, returns: Tensor) -> Tensor:
    """Returns mean (V - R)^2; [M] each."""
    return (values - returns).square().mean()


def clipped_value_loss(values: Tensor, returns: Tensor, old_values: Tensor, value_clip: Tensor) -> Tensor:
    """Returns mean max((V - R)^2, (clip(V, V_old - c, V_old + c) - R)^2).

    The *prediction* is clipped, not the error: the gradient stops only where the prediction has moved by more than c in a way that made
    the error smaller.

    Args:
        values: [M] predictions of the critic being trained.
        returns: [M] regression targets.
        old_values: [M] predictions at the start of the update.
        value_clip: scalar c > 0, in the critic's units; inf never clips.
    """
    moved = old_values + (values - old_values).clamp(-value_clip, value_clip)
    return torch.maximum((values - returns).square(), (moved - returns).square()).mean()


def approximate_kl(log_ratio: Tensor) -> Tensor:
    """Returns Schulman's k3 estimate of KL(old || new), mean(ratio - 1 - log ratio) >= 0, nats.

    http://joschu.net/blog/kl-approx.html

    Args:
        log_ratio: [M], log pi_new(a|s) - log pi_old(a|s) of actions drawn from the old policy.
    """
    return (torch.expm1(log_ratio) - log_ratio).mean()


def clip_fraction(log_ratio: Tensor, clip_epsilon: Tensor) -> Tensor:
    """Returns the fraction of samples with |ratio - 1| > epsilon, as a scalar tensor."""
    return (torch.expm1(log_ratio).abs() > clip_epsilon).float().mean()
