"""Action distributions over torch tensors, behind the interface that `ActorCritic` and the torch step use."""

from __future__ import annotations

import math
from typing import NamedTuple, Protocol

from torch import Tensor

LOG_SQRT_2PI = 0.5 * math.log(2.0 * math.pi)


class ActionDistribution(Protocol):
    """What the algorithm needs of a policy's output for M observations."""

    def log_prob(self, actions: Tensor) -> Tensor:
        """Returns [M], nats, of actions [M, A]."""

    def entropy(self) -> Tensor:
        """Returns [M] or a scalar that holds for all of them, nats."""

    def mode(self) -> Tensor:
        """Returns the most likely actions, [M, A]."""


class DiagonalGaussian(NamedTuple):
    """Independent normal distributions with a standard deviation that does not depend on the state.

    Attributes:
        mean: [M, A].
        log_std: [A].
    """

    mean: Tensor
    log_std: Tensor

    def log_prob(self, actions: Tensor) -> Tensor:
        """Returns sum_a -((a - mean) / std)^2 / 2 - log std - log sqrt(2 pi), [M], of actions before clipping."""
        standardized = (actions - self.mean) * (-self.log_std).exp()
        return -(0.5 * standardized.square() + (self.log_std + LOG_SQRT_2PI)).sum(-1)

    def entropy(self) -> Tensor:
        """Returns sum_a log std + (1 + log 2 pi) / 2, a scalar: it is the same in every state."""
        return (self.log_std + (0.5 + LOG_SQRT_2PI)).sum()

    def mode(self) -> Tensor:
        """Returns the mean, [M, A]."""
        return self.mean
