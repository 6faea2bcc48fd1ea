"""The implementations of one inner step, and which of them a run gets."""

from __future__ import annotations

from typing import Protocol

import numpy as np
import torch

from distppo.algo.batch import Batch, Coefficients, EpochStats, OptimizerVectors
from distppo.config.schema import LearnerConfig, NetworkConfig
from distppo.errors import UserError
from distppo.learner.group import LearnerGroup
from distppo.learner.shared_step import SharedStep
from distppo.learner.torch_step import TorchStep
from distppo.models.architecture import resolved_network
from distppo.models.layout import network_layout
from distppo.models.torch_policy import make_network
from distppo.types import EnvSpec


class UpdateStep(Protocol):
    """One epoch of gradient steps on the flat vectors, however it is computed."""

    name: str

    def epoch(
        self, vectors: OptimizerVectors, batch: Batch, permutation: np.ndarray, mini_batch_size: int, coefficients: Coefficients
    ) -> EpochStats:
        """Takes one gradient step per contiguous slice of the permutation [B]: changes `vectors` in place, returns sums over the steps."""


def make_step(
    config: LearnerConfig, network: NetworkConfig, env: EnvSpec, threads: int = 1, group: LearnerGroup | None = None
) -> UpdateStep:
    """Returns the step that `learner.step` asks for; auto takes the fused kernel for MLPs on a CPU and torch for everything else.

    Several learners have to meet in every gradient step, so they take torch's; the kernel makes an epoch without a stop.

    Args:
        config: of the learner.
        network: of the policy.
        env: observation and action space.
        threads: of the fused kernel (torch's are set for the process).
        group: of learners that this one belongs to; None: it is alone.

    Raises:
        UserError: learner.device is cuda and torch finds none, or learner.step is fused and the network is no MLP.
    """
    device, resolved = learner_device(config.device), resolved_network(env, network)
    is_mlp = resolved.class_ is None and resolved.torso == "mlp"
    if config.step == "fused" and not is_mlp:
        kind = f"network.class {resolved.class_}" if resolved.class_ else f"network.torso {resolved.torso}"
        raise UserError(f"learner.step fused computes MLPs only, but the network is {kind}; use learner.step auto or torch")
    alone = config.num_learners == 1
    if config.step == "fused" or (config.step == "auto" and is_mlp and device.type == "cpu" and not config.compile and alone):
        return FusedStep(resolved, env, threads)
    if group is not None:
        return SharedStep(make_network(env, resolved), device, compiled=config.compile, group=group)
    return TorchStep(make_network(env, resolved), device, compiled=config.compile)


def learner_device(name: str) -> torch.device:
    if name == "cuda" and not torch.cuda.is_available():
        raise UserError("learner.device is cuda, but torch finds no CUDA device on the learner's node; use cpu or auto")
    if name == "auto":
        name = "cuda" if torch.cuda.is_available() else "cpu"
    return torch.device(name)


class FusedStep:
    """The epoch kernel of `distppo.algo.fused`."""

    def __init__(self, network: NetworkConfig, env: EnvSpec, threads: int = 1) -> None:
        from distppo.algo import fused

        network = resolved_network(env, network)
        layout = network_layout(env, network)
        self.name = "fused" if threads == 1 else f"fused, {threads} threads"
        self._threads = threads
        self._run = fused.fused_epoch
        self._network = fused.network_of(layout, env, network)

    def epoch(
        self, vectors: OptimizerVectors, batch: Batch, permutation: np.ndarray, mini_batch_size: int, coefficients: Coefficients
    ) -> EpochStats:
        """Runs the kernel once."""
        return self._run(self._network, vectors, batch, permutation, mini_batch_size, coefficients, self._threads)
