"""The torch step: one minibatch's loss, gradient and Adam step in a loop, on any device."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from torch import Tensor

from distppo.algo import losses
from distppo.algo.batch import Batch, Coefficients, EpochStats, OptimizerVectors
from distppo.models.actor_critic import Network, split_parameters


class TorchStep:
    """`minibatch_step` in a loop, eager or compiled, on any device; on a GPU replayed as one CUDA graph.

    On a CPU its tensors are the learner's arrays themselves. On a GPU they are static buffers: of the batch only what changed since the
    last epoch is moved, which is everything once an iteration and, where advantages are recomputed, those.

    Args:
        network: whose loss is minimized.
        device: where.
        compiled: through torch.compile.
    """

    def __init__(self, network: Network, device: torch.device, *, compiled: bool) -> None:
        self.name = ("compiled" if compiled else "torch") + ("" if device.type == "cpu" else f" on {device}")
        self._device = device
        self._replays = device.type == "cuda"
        step = minibatch_step_of(network)
        self._step = compiled_step(step) if compiled else step
        self._sources: list[np.ndarray] = []
        self._tensors: list[Tensor] = []
        self._rows = torch.zeros(0)
        self._graph: tuple[tuple[int, bool], torch.cuda.CUDAGraph] | None = None

    def epoch(
        self, vectors: OptimizerVectors, batch: Batch, permutation: np.ndarray, mini_batch_size: int, coefficients: Coefficients
    ) -> EpochStats:
        """Runs the epoch without reading a number back until its end."""
        self._hold([vectors.parameters, vectors.first_moment, vectors.second_moment, *batch], mini_batch_size)
        key = (mini_batch_size, coefficients.normalize_advantages)
        if self._replays and (self._graph is None or self._graph[0] != key):
            self._graph = (key, self._captured(coefficients.normalize_advantages))
        self._upload()
        self._steps_taken.fill_(float(vectors.gradient_steps))
        self._floats.copy_(torch.tensor(coefficients[:-1], dtype=torch.float32))
        self._sums.zero_()
        order = torch.from_numpy(permutation).to(self._device)
        for start in range(0, len(order), mini_batch_size):
            self._rows.copy_(order[start : start + mini_batch_size])
            if self._graph is None:
                self._one_step(coefficients.normalize_advantages)
            else:
                self._graph[1].replay()
        self._download(vectors, batch)
        return EpochStats._make(self._sums.tolist())

    def _one_step(self, normalize: bool) -> None:
        state, batch = self._tensors[:3], self._tensors[3:]
        minibatch = [array[self._rows] for array in batch]
        new_log_probs, stats = self._step(state, self._steps_taken, minibatch, self._floats, normalize)
        batch[-1].index_copy_(0, self._rows, new_log_probs)
        self._count(stats)

    def _count(self, stats: Tensor) -> None:
        self._sums[:-1] += stats[:-1]
        self._sums[-1] = torch.maximum(self._sums[-1], stats[-1])

    def _hold(self, arrays: list[np.ndarray], mini_batch_size: int) -> None:
        """Makes the tensors that stand for these arrays; on a GPU they stay where they are as long as the shapes do."""
        on_cpu = self._device.type == "cpu"
        fits = [tuple(tensor.shape) for tensor in self._tensors] == [array.shape for array in arrays]
        self._arrays = arrays
        if on_cpu:
            self._tensors = [torch.from_numpy(array) for array in arrays]
        elif not fits:
            self._graph, self._sources = None, []
            self._tensors = [torch.zeros_like(torch.from_numpy(array), device=self._device) for array in arrays]
        if not fits or len(self._rows) != mini_batch_size:
            self._graph = None
            self._rows = torch.zeros(mini_batch_size, dtype=torch.int64, device=self._device)
            self._floats = torch.zeros(len(Coefficients._fields) - 1, device=self._device)
            self._sums = torch.zeros(len(EpochStats._fields), dtype=torch.float64, device=self._device)
            # One element, not zero dimensions: torch 2.13's compiled code loses an in-place change of a zero-dimensional CPU tensor.
            self._steps_taken = torch.zeros(1, dtype=torch.float64, device=self._device)

    def _captured(self, normalize: bool) -> torch.cuda.CUDAGraph:
        """Records one step on the static buffers, whose contents it spoils: they are filled afterwards."""
        side = torch.cuda.Stream()
        side.wait_stream(torch.cuda.current_stream())
        with torch.cuda.stream(side):
            for _ in range(3):
                self._one_step(normalize)
        torch.cuda.current_stream().wait_stream(side)
        graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(graph):
            self._one_step(normalize)
        self._sources = []
        return graph

    def _upload(self) -> None:
        """Fills the GPU's buffers: the optimizer's vectors always, of the batch what is not there yet."""
        if self._device.type == "cpu":
            return
        for index, (array, tensor) in enumerate(zip(self._arrays, self._tensors, strict=True)):
            if index < 3 or not self._sources or array is not self._sources[index]:
                tensor.copy_(torch.from_numpy(array))
        self._sources = self._arrays

    def _download(self, vectors: OptimizerVectors, batch: Batch) -> None:
        if self._device.type != "cpu":
            for array, tensor in zip(self._arrays[:3], self._tensors[:3], strict=True):
                torch.from_numpy(array).copy_(tensor)
            torch.from_numpy(batch.previous_log_probs).copy_(self._tensors[-1])
        vectors.gradient_steps = round(self._steps_taken.item())


def compiled_step(step: Callable[..., Any]) -> Callable[..., Any]:
    """Returns the step through torch.compile, as one graph."""
    # Isolated, as all steps share their code: from the ninth network of a process on torch would refuse to compile.
    isolated: dict[str, Any] = {"isolate_recompiles": True} if "isolate_recompiles" in inspect.signature(torch.compile).parameters else {}
    compiled: Callable[..., Any] = torch.compile(step, fullgraph=True, dynamic=False, **isolated)
    return compiled


def minibatch_step_of(network: Network) -> Callable[..., tuple[Tensor, Tensor]]:
    """Returns `minibatch_step(state, steps_taken, minibatch, floats, normalize)` for this network: loss, gradient, norm clip, Adam.

    It changes `state` (parameters, first and second moment, [P] each) and `steps_taken` ([1] float64) in place and returns the new
    log-probs [M] and the stats in `EpochStats`' order. A step whose gradient is not finite changes nothing and counts as skipped.
    """
    gradient_of = gradient_function_of(network)

    def minibatch_step(
        state: list[Tensor], steps_taken: Tensor, minibatch: list[Tensor], floats: Tensor, normalize: bool
    ) -> tuple[Tensor, Tensor]:
        gradient, (log_probs, stats) = gradient_of(state[0], minibatch, floats, normalize)
        return log_probs, adam_step(state, steps_taken, gradient, stats, floats)

    return minibatch_step


def gradient_function_of(network: Network) -> Callable[..., tuple[Tensor, tuple[Tensor, Tensor]]]:
    """Returns `gradient(parameters, minibatch, floats, normalize)` for this network: ([P] gradient, ([M] new log-probs, [6] stats))."""
    layout = network.layout

    def loss_of(parameters: Tensor, minibatch: list[Tensor], floats: Tensor, normalize: bool) -> tuple[Tensor, tuple[Tensor, Tensor]]:
        observations, actions, old_log_probs, advantages, returns, old_values, previous_log_probs = minibatch
        _, clip_epsilon, penalized, entropy_coef, value_loss_coef, value_clip, _, _ = floats.unbind()
        policy, values = network.evaluate(split_parameters(parameters, layout), observations)
        log_probs = policy.log_prob(actions)
        log_ratio = log_probs - old_log_probs
        if normalize:
            advantages = losses.normalize_advantages(advantages)
        policy_loss = losses.surrogate_loss(log_ratio, advantages, clip_epsilon, penalized)
        value_loss = losses.clipped_value_loss(values, returns, old_values, value_clip)
        entropy = policy.entropy().mean()
        loss = policy_loss + value_loss_coef * value_loss - entropy_coef * entropy
        with torch.no_grad():
            stats = torch.stack(
                [
                    policy_loss,
                    value_loss,
                    entropy,
                    losses.approximate_kl(log_ratio),
                    losses.approximate_kl(log_probs - previous_log_probs),
                    losses.clip_fraction(log_ratio, clip_epsilon),
                ]
            )
        return loss, (log_probs.detach(), stats)

    gradient_function: Callable[..., tuple[Tensor, tuple[Tensor, Tensor]]] = torch.func.grad(loss_of, has_aux=True)
    return gradient_function


def adam_step(state: list[Tensor], steps_taken: Tensor, gradient: Tensor, stats: Tensor, floats: Tensor) -> Tensor:
    """Clips the gradient's norm and takes Adam's step in place, if the gradient is finite.

    Args:
        state: parameters, first and second moment, [P] each; changed.
        steps_taken: [1] float64; changed.
        gradient: [P].
        stats: [6] of the minibatch, in `EpochStats`' order from the policy loss on.
        floats: the coefficients.

    Returns:
        The step's `EpochStats`.
    """
    parameters, first, second = state
    learning_rate, _, _, _, _, _, max_grad_norm, adam_epsilon = floats.unbind()
    norm = torch.linalg.vector_norm(gradient)
    finite = torch.isfinite(norm)
    scale = torch.clamp(max_grad_norm / (norm + 1e-6), max=1.0)
    gradient = torch.where(finite, gradient * scale, 0.0)
    taken = finite.to(norm.dtype)
    steps_taken.add_(taken)
    step = torch.clamp(steps_taken, min=1.0)
    first.lerp_(gradient, 0.1 * taken)
    second.lerp_(gradient.square(), 0.001 * taken)
    step_size = taken * (learning_rate / (1.0 - torch.pow(0.9, step))).float()
    correction = torch.rsqrt(1.0 - torch.pow(0.999, step)).float()
    parameters.sub_(step_size * first / (second.sqrt() * correction + adam_epsilon))
    one = torch.ones_like(taken)
    kept = torch.where(finite, stats, torch.zeros_like(stats))
    norm = torch.where(finite, norm, torch.zeros_like(norm))
    return torch.cat([torch.stack([one, one - taken]), kept, torch.stack([norm, norm])])
