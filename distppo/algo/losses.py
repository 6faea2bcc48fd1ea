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
