"""What one update of the networks works on: the batch, the coefficients, the vectors it changes and the sums it returns."""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

import numpy as np


class Batch(NamedTuple):
    """B samples, time and environments flattened, float32 (images uint8) and C-contiguous. Owned by the learner.

    Attributes:
        observations: [B, S] as the policy saw them; [B, *S] for networks other than an MLP.
        actions: [B, A] as sampled, before clipping; the number of the choice where actions are choices.
        log_probs: [B] under the behaviour policy, nats.
        advantages: [B].
        returns: [B] regression targets in the critic's units.
        values: [B] predictions at the start of the update in the critic's units.
        previous_log_probs: [B] as of the last pass over each sample; the step writes it.
    """

    observations: np.ndarray
    actions: np.ndarray
    log_probs: np.ndarray
    advantages: np.ndarray
    returns: np.ndarray
    values: np.ndarray
    previous_log_probs: np.ndarray


class Coefficients(NamedTuple):
    """Scalars of one epoch; everything here may change between epochs without recompiling anything.

    Attributes:
        learning_rate: Adam's.
        clip_epsilon: of the ratio.
        penalized: 1 where the ratio is penalized (SPO), 0 where it is clipped.
        entropy_coef: weight of the entropy bonus.
        value_loss_coef: weight of the squared value error.
        value_clip: of the value prediction; inf disables.
        max_grad_norm: global norm; inf disables.
        adam_epsilon: in Adam's denominator.
        normalize_advantages: over each minibatch.
    """

    learning_rate: float
    clip_epsilon: float
    penalized: float
    entropy_coef: float
    value_loss_coef: float
    value_clip: float
    max_grad_norm: float
    adam_epsilon: float
    normalize_advantages: bool


@dataclass
class OptimizerVectors:
    """The flat vectors that an update changes in place, all [P] float32.

    Attributes:
        parameters: of all networks, laid out by `distppo.models.layout`.
        first_moment: Adam's running mean of gradients.
        second_moment: Adam's running mean of squared gradients.
        gradient_steps: taken so far, for Adam's bias correction.
    """

    parameters: np.ndarray
    first_moment: np.ndarray
    second_moment: np.ndarray
    gradient_steps: int = 0


class EpochStats(NamedTuple):
    """Sums over the gradient steps of one or more epochs; `mean` gives means.

    Attributes:
        tried: gradient steps.
        skipped: of them, steps not taken because the gradient was not finite.
        policy_loss: surrogate, clipped or penalized.
        value_loss: squared error, before its weight.
        entropy: nats.
        approx_kl: k3 against the behaviour policy, nats.
        pass_kl: k3 against the policy of the previous pass over the same samples, nats.
        clip_fraction: of samples outside the ratio's bounds.
        grad_norm: before clipping.
        grad_norm_max: the largest (a maximum, not a sum).
    """

    tried: float
    skipped: float
    policy_loss: float
    value_loss: float
    entropy: float
    approx_kl: float
    pass_kl: float
    clip_fraction: float
    grad_norm: float
    grad_norm_max: float

    def merged(self, other: EpochStats) -> EpochStats:
        """Returns the sums over both."""
        sums = [a + b for a, b in zip(self[:-1], other[:-1], strict=True)]
        return EpochStats._make([*sums, max(self.grad_norm_max, other.grad_norm_max)])

    def mean(self, name: str) -> float:
        """Returns the mean of one of the sums over the gradient steps that were taken."""
        taken = self.tried - self.skipped
        return float(getattr(self, name)) / taken if taken else float("nan")


EMPTY_STATS = EpochStats._make([0.0] * len(EpochStats._fields))
