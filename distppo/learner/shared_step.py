"""The torch step of one learner among several: its share of every minibatch, and then everybody's gradient."""

from __future__ import annotations

import torch

from distppo.algo.batch import Batch, OptimizerVectors
from distppo.algo.losses import normalize_advantages
from distppo.learner.group import LearnerGroup
from distppo.learner.torch_step import TorchStep, adam_step, compiled_step, gradient_function_of
from distppo.models.actor_critic import Network

ADVANTAGES = 3
"""Where they are in a batch."""


class SharedStep(TorchStep):
    """The step over minibatches of which each learner takes an equal part; what it changes is the same in all of them, to the bit.

    The loss is a mean over the minibatch, so its gradient is the sum of the parts' gradients divided by the number of learners, and so is
    every mean that is reported. Every learner has the whole batch: advantages are normalized over the whole minibatch without asking
    anybody. The sums of a step travel together, [P + 6] numbers; the new log-probs of an epoch travel at its end.

    Args:
        network: whose loss is minimized.
        device: where.
        compiled: through torch.compile.
        group: the learners.
    """

    def __init__(self, network: Network, device: torch.device, *, compiled: bool, group: LearnerGroup) -> None:
        super().__init__(network, device, compiled=compiled)
        self._replays = False
        self._group = group
        gradient = gradient_function_of(network)
        self._gradient = compiled_step(gradient) if compiled else gradient
        self._adam = compiled_step(adam_step) if compiled else adam_step

    def _one_step(self, normalize: bool) -> None:
        state, batch = self._tensors[:3], self._tensors[3:]
        share = self._group.share(len(self._rows))
        rows = self._rows[share]
        minibatch = [array[rows] for array in batch]
        if normalize:
            minibatch[ADVANTAGES] = normalize_advantages(batch[ADVANTAGES][self._rows])[share]
        gradient, (new_log_probs, stats) = self._gradient(state[0], minibatch, self._floats, False)
        together = torch.cat([gradient, stats])
        self._group.add(together)
        together /= self._group.size
        step = self._adam(state, self._steps_taken, together[: len(gradient)], together[len(gradient) :], self._floats)
        self._new_log_probs.index_copy_(0, rows, new_log_probs)
        self._count(step)

    def _upload(self) -> None:
        super()._upload()
        self._new_log_probs = torch.zeros_like(self._tensors[-1])

    def _download(self, vectors: OptimizerVectors, batch: Batch) -> None:
        # Each sample was in one learner's part, and is 0 in those of the others.
        self._group.add(self._new_log_probs)
        self._tensors[-1].copy_(self._new_log_probs)
        super()._download(vectors, batch)
