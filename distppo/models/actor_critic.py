"""The torch actor-critic whose parameters are views of one flat vector."""

from __future__ import annotations

import math
from collections.abc import Mapping

import numpy as np
import torch
from torch import Tensor

from distppo.config.schema import NetworkConfig
from distppo.models.distributions import ActionDistribution, DiagonalGaussian
from distppo.models.layout import layout_size, mlp_layout, parameter_views
from distppo.types import EnvSpec

ACTIVATIONS = {"tanh": torch.tanh, "relu": torch.relu, "elu": torch.nn.functional.elu}
HEAD_GAINS = {"actor.head": 0.01, "critic.head": 1.0}


class ActorCritic:
    """A Gaussian MLP policy and a value function as functions of their parameters.

    It holds shapes only; the parameters are an argument (name -> tensor), so the same object serves eager autograd, `torch.compile` and
    batched evaluation. What the learner needs of a network is `layout`, `distribution`, `value` and `evaluate`.

    Args:
        env: shapes of observations and actions.
        network: widths, activation and whether the trunk is shared.
    """

    def __init__(self, env: EnvSpec, network: NetworkConfig) -> None:
        self.layout = mlp_layout(env, network)
        self._depth = len(network.hidden_sizes)
        self._activation = ACTIVATIONS[network.activation]
        self._trunks = ("trunk", "trunk") if network.shared else ("actor", "critic")

    def evaluate(self, parameters: Mapping[str, Tensor], observations: Tensor) -> tuple[ActionDistribution, Tensor]:
        """Returns the action distribution and the values [M] of observations [M, S]; a shared trunk runs once."""
        actor_features = self._features(parameters, self._trunks[0], observations)
        shared = self._trunks[0] == self._trunks[1]
        critic_features = actor_features if shared else self._features(parameters, self._trunks[1], observations)
        return self._gaussian(parameters, actor_features), self._value(parameters, critic_features)

    def distribution(self, parameters: Mapping[str, Tensor], observations: Tensor) -> ActionDistribution:
        """Returns the action distribution for observations [M, S]."""
        return self._gaussian(parameters, self._features(parameters, self._trunks[0], observations))

    def value(self, parameters: Mapping[str, Tensor], observations: Tensor) -> Tensor:
        """Returns V [M], in the critic's own units, of observations [M, S]."""
        return self._value(parameters, self._features(parameters, self._trunks[1], observations))

    def _features(self, parameters: Mapping[str, Tensor], trunk: str, inputs: Tensor) -> Tensor:
        for index in range(self._depth):
            inputs = self._activation(_linear(parameters, f"{trunk}.{index}", inputs))
        return inputs

    def _gaussian(self, parameters: Mapping[str, Tensor], features: Tensor) -> DiagonalGaussian:
        return DiagonalGaussian(_linear(parameters, "actor.head", features), parameters["log_std"])

    def _value(self, parameters: Mapping[str, Tensor], features: Tensor) -> Tensor:
        return _linear(parameters, "critic.head", features).squeeze(-1)


def initial_parameters(env: EnvSpec, network: NetworkConfig, seed: int) -> np.ndarray:
    """Returns the starting flat vector [P] float32.

    orthogonal: gain sqrt(2) for hidden layers, 0.01 for the action mean, 1 for the value, biases 0. default: torch.nn.Linear's uniform
    in +-1 / sqrt(fan_in) for weights and biases.

    Args:
        env: shapes.
        network: widths, init and initial_log_std.
        seed: of torch's generator, >= 0.
    """
    layout = mlp_layout(env, network)
    vector = np.zeros(layout_size(layout), np.float32)
    generator = torch.Generator().manual_seed(seed)
    views = parameter_views(vector, layout)
    for name, view in views.items():
        tensor = torch.from_numpy(view)
        if name == "log_std":
            tensor.fill_(network.initial_log_std)
        elif network.init == "default":
            bound = 1.0 / math.sqrt(views[name.replace("bias", "weight")].shape[1])
            tensor.uniform_(-bound, bound, generator=generator)
        elif name.endswith("weight"):
            gain = HEAD_GAINS.get(name.removesuffix(".weight"), math.sqrt(2.0))
            torch.nn.init.orthogonal_(tensor, gain, generator=generator)
    return vector


def _linear(parameters: Mapping[str, Tensor], name: str, inputs: Tensor) -> Tensor:
    return torch.nn.functional.linear(inputs, parameters[f"{name}.weight"], parameters[f"{name}.bias"])
