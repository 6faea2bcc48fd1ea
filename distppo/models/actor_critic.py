"""The torch actor-critics whose parameters are views of one flat vector."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Protocol

import numpy as np
import torch
from torch import Tensor

from distppo.config.schema import NetworkConfig
from distppo.models.architecture import image_shape, resolved_network
from distppo.models.distributions import ActionDistribution, Categorical, DiagonalGaussian
from distppo.models.layout import layout_size, network_layout, parameter_views
from distppo.types import EnvSpec, ParameterSlot

ACTIVATIONS = {"tanh": torch.tanh, "relu": torch.relu, "elu": torch.nn.functional.elu}
HEAD_GAINS = {"actor.head": 0.01, "critic.head": 1.0}


class Network(Protocol):
    """A policy and a value function as functions of their parameters (name -> tensor), which the flat vector is split into.

    Holding shapes only, the same object serves eager autograd, `torch.compile` and batched evaluation.

    Attributes:
        layout: of the flat vector.
    """

    layout: tuple[ParameterSlot, ...]

    def evaluate(self, parameters: Mapping[str, Tensor], observations: Tensor) -> tuple[ActionDistribution, Tensor]:
        """Returns the action distribution and V [M] of a batch of observations."""

    def distribution(self, parameters: Mapping[str, Tensor], observations: Tensor) -> ActionDistribution:
        """Returns the action distribution for a batch of observations."""

    def value(self, parameters: Mapping[str, Tensor], observations: Tensor) -> Tensor:
        """Returns V [M], in the critic's own units, of a batch of observations."""


class ActorCritic:
    """An MLP or CNN policy and a value function.

    Args:
        env: observation and action space.
        network: settings; what they leave to auto is decided by the spaces.
    """

    def __init__(self, env: EnvSpec, network: NetworkConfig) -> None:
        network = resolved_network(env, network)
        self.layout = network_layout(env, network)
        self._choices = env.action_choices
        self._image = image_shape(env) if network.torso == "cnn" else None
        self._strides = network.strides
        self._depth = len(network.hidden_sizes or ())
        self._activation = ACTIVATIONS[network.activation or "tanh"]
        self._layer_norm = network.layer_norm
        self._trunks = ("trunk", "trunk") if network.shared else ("actor", "critic")

    def evaluate(self, parameters: Mapping[str, Tensor], observations: Tensor) -> tuple[ActionDistribution, Tensor]:
        """Returns the action distribution and the values [M] of observations [M, S] (a CNN's: [M, *S] uint8); a shared trunk runs once."""
        inputs = self._inputs(observations)
        actor_features = self._features(parameters, self._trunks[0], inputs)
        shared = self._trunks[0] == self._trunks[1]
        critic_features = actor_features if shared else self._features(parameters, self._trunks[1], inputs)
        return self._policy(parameters, actor_features), self._value(parameters, critic_features)

    def distribution(self, parameters: Mapping[str, Tensor], observations: Tensor) -> ActionDistribution:
        """Returns the action distribution for observations [M, S] or [M, *S]."""
        return self._policy(parameters, self._features(parameters, self._trunks[0], self._inputs(observations)))

    def value(self, parameters: Mapping[str, Tensor], observations: Tensor) -> Tensor:
        """Returns V [M], in the critic's own units, of observations [M, S] or [M, *S]."""
        return self._value(parameters, self._features(parameters, self._trunks[1], self._inputs(observations)))

    def _inputs(self, observations: Tensor) -> Tensor:
        """Returns an MLP's inputs as they are, images as [M, stack x channels, height, width] float32 in [0, 1]."""
        if self._image is None:
            return observations
        stack, channels, height, width, channels_last = self._image
        if channels_last:
            images = observations.view(-1, stack, height, width, channels).permute(0, 1, 4, 2, 3)
        else:
            images = observations.view(-1, stack, channels, height, width)
        return images.reshape(-1, stack * channels, height, width).float() * (1.0 / 255.0)

    def _features(self, parameters: Mapping[str, Tensor], trunk: str, inputs: Tensor) -> Tensor:
        if self._image is not None:
            for index, stride in enumerate(self._strides):
                weight, bias = (parameters[f"{trunk}.conv.{index}.{name}"] for name in ("weight", "bias"))
                inputs = torch.relu(torch.nn.functional.conv2d(inputs, weight, bias, stride))
            inputs = inputs.flatten(1)
        for index in range(self._depth):
            inputs = _linear(parameters, f"{trunk}.{index}", inputs)
            if self._layer_norm:
                scale, shift = parameters[f"{trunk}.{index}.scale"], parameters[f"{trunk}.{index}.shift"]
                inputs = torch.nn.functional.layer_norm(inputs, scale.shape, scale, shift)
            inputs = self._activation(inputs)
        return inputs

    def _policy(self, parameters: Mapping[str, Tensor], features: Tensor) -> ActionDistribution:
        outputs = _linear(parameters, "actor.head", features)
        return Categorical(outputs, self._choices) if self._choices else DiagonalGaussian(outputs, parameters["log_std"])

    def _value(self, parameters: Mapping[str, Tensor], features: Tensor) -> Tensor:
        return _linear(parameters, "critic.head", features).squeeze(-1)


def split_parameters(vector: Tensor, layout: tuple[ParameterSlot, ...]) -> dict[str, Tensor]:
    """Returns name -> view of the flat vector [P]. One split, so that the backward pass is one concatenation."""
    sizes = [math.prod(slot.shape) for slot in layout]
    return {slot.name: piece.view(slot.shape) for slot, piece in zip(layout, torch.split_with_sizes(vector, sizes), strict=True)}


def initial_parameters(env: EnvSpec, network: NetworkConfig, seed: int) -> np.ndarray:
    """Returns the starting flat vector [P] float32.

    orthogonal: gain sqrt(2) for hidden layers, 0.01 for the action outputs, 1 for the value, biases 0. default: torch.nn.Linear's uniform
    in +-1 / sqrt(fan_in) for weights and biases. Layer normalization starts with scale 1 and shift 0.

    Args:
        env: observation and action space.
        network: widths, init and initial_log_std.
        seed: of torch's generator, >= 0.
    """
    layout = network_layout(env, network)
    vector = np.zeros(layout_size(layout), np.float32)
    generator = torch.Generator().manual_seed(seed)
    views = parameter_views(vector, layout)
    for name, view in views.items():
        tensor = torch.from_numpy(view)
        kind = name.rpartition(".")[2]
        if name == "log_std":
            tensor.fill_(network.initial_log_std)
        elif kind == "scale":
            tensor.fill_(1.0)
        elif kind == "shift":
            continue
        elif network.init == "default":
            bound = 1.0 / math.sqrt(math.prod(views[name.replace("bias", "weight")].shape[1:]))
            tensor.uniform_(-bound, bound, generator=generator)
        elif kind == "weight":
            gain = HEAD_GAINS.get(name.removesuffix(".weight"), math.sqrt(2.0))
            torch.nn.init.orthogonal_(tensor, gain, generator=generator)
    return vector


def _linear(parameters: Mapping[str, Tensor], name: str, inputs: Tensor) -> Tensor:
    return torch.nn.functional.linear(inputs, parameters[f"{name}.weight"], parameters[f"{name}.bias"])
