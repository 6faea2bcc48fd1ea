"""Action distributions over torch tensors, behind the interface that `ActorCritic` and the torch step use."""

from __future__ import annotations

import math
from typing import NamedTuple, Protocol

import torch
from torch import Tensor

LOG_SQRT_2PI = 0.5 * math.log(2.0 * math.pi)


class ActionDistribution(Protocol):
    """What the algorithm needs of a policy's output for M observations."""

    def log_prob(self, actions: Tensor) -> Tensor:
        """Returns [M], nats, of actions [M, A] float32."""

    def entropy(self) -> Tensor:
        """Returns [M] or a scalar that holds for all of them, nats."""

    def mode(self) -> Tensor:
        """Returns the most likely actions, [M, A] float32."""

    def sample(self, noise: Tensor) -> Tensor:
        """Returns actions [M, A] float32 as a function of noise alone.

        Args:
            noise: [M, A] standard normal for continuous actions; [M, K] standard Gumbel for choices, one for each.
        """


class DiagonalGaussian(NamedTuple):
    """Independent normal distributions.

    Attributes:
        mean: [M, A].
        log_std: [A], the same in every state, or [M, A].
    """

    mean: Tensor
    log_std: Tensor

    def log_prob(self, actions: Tensor) -> Tensor:
        """Returns sum_a -((a - mean) / std)^2 / 2 - log std - log sqrt(2 pi), [M], nats.

        Args:
            actions: [M, A], before clipping.
        """
        standardized = (actions - self.mean) * (-self.log_std).exp()
        return -(0.5 * standardized.square() + (self.log_std + LOG_SQRT_2PI)).sum(-1)

    def entropy(self) -> Tensor:
        """Returns sum_a log std + (1 + log 2 pi) / 2: a scalar where it is the same in every state, else [M]."""
        return (self.log_std + (0.5 + LOG_SQRT_2PI)).sum(-1)

    def mode(self) -> Tensor:
        """Returns the most likely actions: the mean, [M, A]."""
        return self.mean

    def sample(self, noise: Tensor) -> Tensor:
        """Returns mean + std x noise, [M, A].

        Args:
            noise: [M, A], standard normal.
        """
        return self.mean + self.log_std.exp() * noise


class Categorical(NamedTuple):
    """Independent choices: action a is one of choices[a], numbered from 0.

    Attributes:
        logits: [M, K], of all actions side by side; need not be normalized.
        choices: A whole numbers that add up to K.
    """

    logits: Tensor
    choices: tuple[int, ...]

    def log_prob(self, actions: Tensor) -> Tensor:
        """Returns sum_a log softmax(logits_a)[action_a], [M], nats.

        Args:
            actions: [M, A], whole numbers from 0.
        """
        chosen = zip(self._log_probs(), actions.long().split(1, -1), strict=True)
        return torch.cat([log_probs.gather(-1, column) for log_probs, column in chosen], -1).sum(-1)

    def entropy(self) -> Tensor:
        """Returns sum_a -sum_j p_j log p_j, [M]."""
        log_probs = torch.cat(self._log_probs(), -1)
        return -(log_probs.exp() * log_probs).sum(-1)

    def mode(self) -> Tensor:
        """Returns the most likely choice of each action, [M, A] float32; the first of several."""
        return self._largest(self.logits)

    def sample(self, noise: Tensor) -> Tensor:
        """Returns argmax(logits + noise) of each action, [M, A] float32: distributed as softmax(logits) for Gumbel noise.

        Args:
            noise: [M, K], standard Gumbel.
        """
        return self._largest(self.logits + noise)

    def _largest(self, scores: Tensor) -> Tensor:
        return torch.stack([part.argmax(-1) for part in scores.split(list(self.choices), -1)], -1).to(self.logits.dtype)

    def _log_probs(self) -> list[Tensor]:
        return [part.log_softmax(-1) for part in self.logits.split(list(self.choices), -1)]
