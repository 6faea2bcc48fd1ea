"""The two implementations of one inner step, and which of them a run gets."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any, Protocol

import numpy as np
import torch
from torch import Tensor

from distppo.algo import losses
from distppo.algo.batch import Batch, Coefficients, EpochStats, OptimizerVectors
from distppo.config.schema import LearnerConfig, NetworkConfig
from distppo.errors import UserError
from distppo.models.actor_critic import ActorCritic
from distppo.types import EnvSpec, ParameterSlot


class UpdateStep(Protocol):
    """One epoch of gradient steps on the flat vectors, however it is computed."""

    name: str

    def epoch(
        self, vectors: OptimizerVectors, batch: Batch, permutation: np.ndarray, mini_batch_size: int, coefficients: Coefficients
    ) -> EpochStats:
        """Takes one gradient step per contiguous slice of the permutation [B]: changes `vectors` in place, returns sums over the steps."""


def make_step(config: LearnerConfig, network: NetworkConfig, env: EnvSpec, threads: int = 1) -> UpdateStep:
    """Returns the step that `learner.step` asks for; auto takes the fused kernel on a CPU and torch elsewhere.

    Args:
        config: of the learner.
        network: of the policy.
        env: shapes.
        threads: of the fused kernel (torch's are set for the process).

    Raises:
        UserError: learner.device is cuda and torch finds none.
    """
    device = _device(config.device)
    if config.step == "fused" or (config.step == "auto" and device.type == "cpu" and not config.compile):
        return FusedStep(network, env, threads)
    return TorchStep(ActorCritic(env, network), device, compiled=config.compile)


def _device(name: str) -> torch.device:
    if name == "cuda" and not torch.cuda.is_available():
        raise UserError("learner.device is cuda, but torch finds no CUDA device on the learner's node; use cpu or auto")
    if name == "auto":
        name = "cuda" if torch.cuda.is_available() else "cpu"
    return torch.device(name)


class FusedStep:
    """The epoch kernel of `distppo.algo.fused`."""

    def __init__(self, network: NetworkConfig, env: EnvSpec, threads: int = 1) -> None:
        from distppo.algo import fused

        layout = ActorCritic(env, network).layout
        self.name = "fused" if threads == 1 else f"fused, {threads} threads"
        self._threads = threads
        self._run = fused.fused_epoch
        self._network = fused.network_of(layout, env.observation_size, network.activation)

    def epoch(
        self, vectors: OptimizerVectors, batch: Batch, permutation: np.ndarray, mini_batch_size: int, coefficients: Coefficients
    ) -> EpochStats:
        """Runs the kernel once."""
        return self._run(self._network, vectors, batch, permutation, mini_batch_size, coefficients, self._threads)


class TorchStep:
    """`minibatch_step` in a loop, eager or compiled, on any device.

    On a CPU its tensors are the learner's vectors themselves; on a GPU they are copied there for each epoch and back.
    """

    def __init__(self, network: ActorCritic, device: torch.device, *, compiled: bool) -> None:
        self.name = ("compiled" if compiled else "torch") + ("" if device.type == "cpu" else f" on {device}")
        self._device = device
        step = minibatch_step_of(network)
        self._step = torch.compile(step, fullgraph=True, dynamic=False) if compiled else step

    def epoch(
        self, vectors: OptimizerVectors, batch: Batch, permutation: np.ndarray, mini_batch_size: int, coefficients: Coefficients
    ) -> EpochStats:
        """Runs the epoch without reading a number back until its end."""
        device = self._device
        state = [torch.from_numpy(array).to(device) for array in (vectors.parameters, vectors.first_moment, vectors.second_moment)]
        # One element, not zero dimensions: torch 2.13's compiled code loses an in-place change of a zero-dimensional CPU tensor.
        steps_taken = torch.tensor([float(vectors.gradient_steps)], dtype=torch.float64, device=device)
        order = torch.from_numpy(permutation)
        shuffled = [torch.from_numpy(array)[order].to(device) for array in batch]
        # float32 as in the kernel; a tensor, so that a changed coefficient does not recompile the step.
        floats = torch.tensor(coefficients[:-1], dtype=torch.float32, device=device)
        sums = torch.zeros(len(EpochStats._fields), device=device, dtype=torch.float64)
        for start in range(0, len(order), mini_batch_size):
            minibatch = [array[start : start + mini_batch_size] for array in shuffled]
            new_log_probs, stats = self._step(state, steps_taken, minibatch, floats, coefficients.normalize_advantages)
            minibatch[-1].copy_(new_log_probs)
            sums[:-1] += stats[:-1]
            sums[-1] = torch.maximum(sums[-1], stats[-1])
        torch.from_numpy(batch.previous_log_probs)[order] = shuffled[-1].cpu()
        if device.type != "cpu":
            for array, tensor in zip((vectors.parameters, vectors.first_moment, vectors.second_moment), state, strict=True):
                torch.from_numpy(array).copy_(tensor)
        vectors.gradient_steps = int(steps_taken.item())
        return EpochStats(*sums.tolist())


def split_parameters(vector: Tensor, layout: tuple[ParameterSlot, ...]) -> dict[str, Tensor]:
    """Returns name -> view of the flat vector [P]. One split, so that the backward pass is one concatenation."""
    sizes = [math.prod(slot.shape) for slot in layout]
    return {slot.name: piece.view(slot.shape) for slot, piece in zip(layout, torch.split_with_sizes(vector, sizes), strict=True)}


def minibatch_step_of(network: ActorCritic) -> Callable[..., tuple[Tensor, Tensor]]:
    """Returns `minibatch_step(state, steps_taken, minibatch, floats, normalize)` for this network: loss, gradient, norm clip, Adam.

    It changes `state` (parameters, first and second moment, [P] each) and `steps_taken` ([1] float64) in place and returns the new
    log-probs [M] and the stats in `EpochStats`' order. A step whose gradient is not finite changes nothing and counts as skipped.
    """
    layout = network.layout

    def loss_of(parameters: Tensor, minibatch: list[Tensor], floats: Tensor, normalize: bool) -> tuple[Tensor, tuple[Tensor, Tensor]]:
        observations, actions, old_log_probs, advantages, returns, old_values, previous_log_probs = minibatch
        _, clip_epsilon, entropy_coef, value_loss_coef, value_clip, _, _ = floats.unbind()
        policy, values = network.evaluate(split_parameters(parameters, layout), observations)
        log_probs = policy.log_prob(actions)
        log_ratio = log_probs - old_log_probs
        policy_loss = losses.clipped_surrogate_loss(
            log_ratio, losses.normalize_advantages(advantages) if normalize else advantages, clip_epsilon
        )
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

    gradient_of: Any = torch.func.grad(loss_of, has_aux=True)

    def minibatch_step(
        state: list[Tensor], steps_taken: Tensor, minibatch: list[Tensor], floats: Tensor, normalize: bool
    ) -> tuple[Tensor, Tensor]:
        parameters, first, second = state
        gradient, (log_probs, stats) = gradient_of(parameters, minibatch, floats, normalize)
        learning_rate, _, _, _, _, max_grad_norm, adam_epsilon = floats.unbind()
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
        return log_probs, torch.cat([torch.stack([one, one - taken]), kept, torch.stack([norm, norm])])

    return minibatch_step
