"""Networks as a user writes them, good and bad, for `network.class`."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from distppo import ActorCriticModule, Categorical, DiagonalGaussian
from distppo.types import EnvSpec


class Small(ActorCriticModule):
    """A shared layer with a skip connection, on features or on images, for choices."""

    def __init__(self, env: EnvSpec, width: int = 8) -> None:
        super().__init__(env)
        self.first = nn.Linear(env.observation_size, width)
        self.second = nn.Linear(width, width)
        self.actor = nn.Linear(width, env.action_outputs)
        self.critic = nn.Linear(width, 1)

    def features(self, observations: Tensor) -> Tensor:
        scale = 1 / 255 if observations.dtype == torch.uint8 else 1.0
        hidden = torch.tanh(self.first(observations.float().flatten(1) * scale))
        return hidden + torch.tanh(self.second(hidden))

    def act(self, observations: Tensor) -> Categorical:
        return Categorical(self.actor(self.features(observations)), self.env.action_choices)

    def value(self, observations: Tensor) -> Tensor:
        return self.critic(self.features(observations)).squeeze(-1)

    def evaluate(self, observations: Tensor) -> tuple[Categorical, Tensor]:
        features = self.features(observations)
        return Categorical(self.actor(features), self.env.action_choices), self.critic(features).squeeze(-1)


class Gaussian(ActorCriticModule):
    """Mean and standard deviation from the state."""

    def __init__(self, env: EnvSpec) -> None:
        super().__init__(env)
        self.actor = nn.Linear(env.observation_size, 2 * env.action_size)
        self.critic = nn.Linear(env.observation_size, 1)

    def act(self, observations: Tensor) -> DiagonalGaussian:
        mean, log_std = self.actor(observations).chunk(2, -1)
        return DiagonalGaussian(mean, log_std.clamp(-3, 1))

    def value(self, observations: Tensor) -> Tensor:
        return self.critic(observations).squeeze(-1)


class NotOurs(nn.Linear):
    """A module that is no actor-critic."""


class NoValue(Small):
    """Leaves a method out."""

    value = ActorCriticModule.value


class NoSuper(Gaussian):
    """Does not call the constructor of torch's modules."""

    def __init__(self, env: EnvSpec) -> None:
        self.layers = 3


class NoParameters(ActorCriticModule):
    """Learns nothing."""

    def act(self, observations: Tensor) -> DiagonalGaussian:
        return DiagonalGaussian(observations, torch.zeros(2))

    def value(self, observations: Tensor) -> Tensor:
        return observations.sum(-1)


class ColumnOfValues(Gaussian):
    """[M, 1] where [M] is asked for."""

    def value(self, observations: Tensor) -> Tensor:
        return self.critic(observations)


class ColumnOnItsOwn(Gaussian):
    """[M, 1] from value alone; evaluate squeezes."""

    def value(self, observations: Tensor) -> Tensor:
        return self.critic(observations)

    def evaluate(self, observations: Tensor) -> tuple[Any, Tensor]:
        return self.act(observations), self.critic(observations).squeeze(-1)


class DoubleValues(Gaussian):
    """float64 where float32 is asked for."""

    def value(self, observations: Tensor) -> Tensor:
        return super().value(observations).double()


class DoubleParameters(Gaussian):
    """Parameters that cannot travel in the flat vector."""

    def __init__(self, env: EnvSpec) -> None:
        super().__init__(env)
        self.double()


class InfiniteValues(Gaussian):
    """Divides by zero."""

    def value(self, observations: Tensor) -> Tensor:
        return super().value(observations) / 0.0


class TensorOfActions(Gaussian):
    """Returns means, not a distribution."""

    def act(self, observations: Tensor) -> Tensor:  # type: ignore[override]
        return super().act(observations).mean


class WrongActionSize(Gaussian):
    """One action too many."""

    def act(self, observations: Tensor) -> DiagonalGaussian:
        return DiagonalGaussian(self.actor(observations)[:, :3], torch.zeros(3))


class Dropout(Gaussian):
    """Another result every time."""

    def act(self, observations: Tensor) -> DiagonalGaussian:
        return super().act(nn.functional.dropout(observations))


class BatchNormalized(Gaussian):
    """A result that depends on the rest of the batch."""

    def __init__(self, env: EnvSpec) -> None:
        super().__init__(env)
        self.norm = nn.BatchNorm1d(env.observation_size, track_running_stats=False)

    def value(self, observations: Tensor) -> Tensor:
        return super().value(self.norm(observations) if len(observations) > 1 else observations)


class CountingBuffer(Gaussian):
    """Keeps a state that does not travel."""

    def __init__(self, env: EnvSpec) -> None:
        super().__init__(env)
        self.register_buffer("calls", torch.zeros(1))

    def value(self, observations: Tensor) -> Tensor:
        self.calls += 1
        return super().value(observations)


class HiddenLayers(Gaussian):
    """Layers in a plain list, which torch does not see."""

    def __init__(self, env: EnvSpec) -> None:
        super().__init__(env)
        self.layers = [nn.Linear(env.observation_size, env.observation_size)]

    def value(self, observations: Tensor) -> Tensor:
        return super().value(self.layers[0](observations))


class Raises(Gaussian):
    """Fails in the forward pass."""

    def act(self, observations: Tensor) -> DiagonalGaussian:
        return DiagonalGaussian(observations @ torch.zeros(9, 2), torch.zeros(2))


class CountedFromOne(Categorical):
    """Numbers choices from 1."""

    def sample(self, noise: Tensor) -> Tensor:
        return super().sample(noise) + 1


class FromOne(Small):
    """With a head of its own."""

    def act(self, observations: Tensor) -> Categorical:
        return CountedFromOne(self.actor(self.features(observations)), self.env.action_choices)

    def evaluate(self, observations: Tensor) -> tuple[Categorical, Tensor]:
        return self.act(observations), self.value(observations)
