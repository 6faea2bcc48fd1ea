"""Networks of the user's own: the interface, the bridge to the flat parameter vector, and the check before anything starts."""

from __future__ import annotations

import inspect
from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np
import torch
from torch import Tensor

from distppo.config.schema import NetworkConfig
from distppo.errors import UserError, failure_text
from distppo.models.distributions import ActionDistribution
from distppo.models.layout import slots_of
from distppo.plugins import import_named
from distppo.types import EnvSpec


class ActorCriticModule(torch.nn.Module):
    """Base class for `network.class`: a torch module that says how to act and what a state is worth.

    Define `act` and `value`; define `evaluate` too where both share work. Observations come as a batch [M, *S]: float32, normalized as the
    config says, or uint8 as the environment gives them. Everything that learns must be a `torch.nn.Parameter` of the module, float32: all
    of them travel as one flat vector, and nothing else does. The same observation must give the same result every time, whatever else
    is in the batch: no dropout, no batch normalization.

    Args:
        env: observation and action space. `env.observation_shape` is *S, `env.action_size` A, `env.action_choices` the number of choices
            of each action where actions are choices, else empty.
        options: network.options of the config arrive as keyword arguments of a subclass.

    Example:
        >>> class Linear(ActorCriticModule):
        ...     def __init__(self, env):
        ...         super().__init__(env)
        ...         self.actor = torch.nn.Linear(env.observation_size, env.action_outputs)
        ...         self.critic = torch.nn.Linear(env.observation_size, 1)
        ...
        ...     def act(self, observations):
        ...         return Categorical(self.actor(observations.flatten(1)), self.env.action_choices)
        ...
        ...     def value(self, observations):
        ...         return self.critic(observations.flatten(1)).squeeze(-1)
    """

    def __init__(self, env: EnvSpec) -> None:
        super().__init__()
        self.env = env

    def act(self, observations: Tensor) -> ActionDistribution:
        """Returns the distribution of actions.

        For continuous actions that is a `DiagonalGaussian(mean [M, A], log_std [A] or [M, A])`, in units where the environment's bounds
        are +-1; for choices a `Categorical(logits [M, K], env.action_choices)`. Any object with their four methods will do.

        Args:
            observations: [M, *S], normalized float32; uint8 where the environment's are images.
        """
        raise NotImplementedError

    def value(self, observations: Tensor) -> Tensor:
        """Returns V [M] float32: the expected discounted sum of scaled rewards.

        Args:
            observations: as for `act`.
        """
        raise NotImplementedError

    def evaluate(self, observations: Tensor) -> tuple[ActionDistribution, Tensor]:
        """Returns what `act` and `value` return; a network that shares a trunk runs it once here.

        Args:
            observations: as for `act`.
        """
        return self.act(observations), self.value(observations)


class CustomNetwork:
    """A user's module as a function of its parameters: the interface of `actor_critic.Network`.

    Args:
        env: observation and action space.
        network: names the class and its options.

    Raises:
        UserError: the class cannot be imported or made, or its parameters cannot travel.
    """

    def __init__(self, env: EnvSpec, network: NetworkConfig) -> None:
        self.module = _made(env, network)
        self.layout = slots_of((name, tuple(parameter.shape)) for name, parameter in self.module.named_parameters())
        self._methods = _Methods(self.module)

    def evaluate(self, parameters: Mapping[str, Tensor], observations: Tensor) -> tuple[ActionDistribution, Tensor]:
        """Returns the action distribution and V [M] of observations [M, *S]."""
        result: tuple[ActionDistribution, Tensor] = self._call("evaluate", parameters, observations)
        return result

    def distribution(self, parameters: Mapping[str, Tensor], observations: Tensor) -> ActionDistribution:
        """Returns the action distribution for observations [M, *S]."""
        policy: ActionDistribution = self._call("act", parameters, observations)
        return policy

    def value(self, parameters: Mapping[str, Tensor], observations: Tensor) -> Tensor:
        """Returns V [M] of observations [M, *S]."""
        values: Tensor = self._call("value", parameters, observations)
        return values

    def _call(self, method: str, parameters: Mapping[str, Tensor], observations: Tensor) -> Any:
        # Buffers are moved here and not with the module: moving a module inside of torch.func.grad spoils its parameters (torch 2.13).
        buffers = {name: buffer.to(observations.device) for name, buffer in self.module.named_buffers()}
        named = {f"module.{name}": tensor for name, tensor in {**parameters, **buffers}.items()}
        return torch.func.functional_call(self._methods, named, (method, observations))


class _Methods(torch.nn.Module):
    """Calls any method of a module by name, since torch puts parameters in place for `forward` only."""

    def __init__(self, module: torch.nn.Module) -> None:
        super().__init__()
        self.module = module

    def forward(self, method: str, observations: Tensor) -> Any:
        return getattr(self.module, method)(observations)


def starting_parameters_of(env: EnvSpec, network: NetworkConfig, seed: int) -> np.ndarray:
    """Returns the flat vector [P] float32 that the module's constructor initializes under this seed of torch."""
    module = _made(env, network, seed)
    return np.concatenate([parameter.detach().numpy().reshape(-1) for parameter in module.parameters()])


def load_class(network: NetworkConfig) -> type[ActorCriticModule]:
    """Imports network.class.

    Raises:
        UserError: the module cannot be imported, or has no such class, or that lacks a method.
    """
    assert network.class_ is not None
    module_name, _, name = network.class_.partition(":")
    where = f"network.class {network.class_!r}"
    module = import_named(module_name, where)
    found = getattr(module, name, None)
    if found is None:
        classes = [key for key, value in vars(module).items() if inspect.isclass(value) and issubclass(value, ActorCriticModule)]
        own = [key for key in classes if key != ActorCriticModule.__name__]
        raise UserError(f"{where}: {module_name} has no {name!r}" + (f"; it has {', '.join(own)}" if own else ""))
    if not (inspect.isclass(found) and issubclass(found, ActorCriticModule)):
        raise UserError(f"{where} must be a subclass of distppo.ActorCriticModule, got {found!r}")
    missing = [method for method in ("act", "value") if getattr(found, method) is getattr(ActorCriticModule, method)]
    if missing:
        raise UserError(f"{where} does not define {' and '.join(missing)}; docs/networks.md says what they return")
    return found


def _made(env: EnvSpec, network: NetworkConfig, seed: int = 0) -> ActorCriticModule:
    """Makes the module with torch's generator at this seed, and puts the generator back."""
    where, cls = f"network.class {network.class_!r}", load_class(network)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        try:
            module = cls(env, **network.options)
        except (Exception, SystemExit) as error:
            settings = f" with network.options {network.options}" if network.options else ""
            raise UserError(f"{where} could not be made{settings}:\n{failure_text(error)}") from error
    problem = next(_parameter_problems(module), None)
    if problem:
        raise UserError(f"{where}: {problem}")
    return module


def _parameter_problems(module: ActorCriticModule) -> Iterator[str]:
    if "_parameters" not in vars(module) or not hasattr(module, "env"):
        yield "its constructor does not call super().__init__(env)"
        return
    parameters = dict(module.named_parameters())
    if not parameters:
        yield "it has no parameters; assign torch.nn modules or torch.nn.Parameter to attributes of self"
    for name, parameter in parameters.items():
        if isinstance(parameter, torch.nn.parameter.UninitializedParameter):
            yield f"parameter {name} has no shape yet; lazy modules cannot be used, give them their sizes"
        elif parameter.dtype != torch.float32:
            yield f"parameter {name} is {parameter.dtype}; use float32"
        elif not bool(torch.isfinite(parameter).all()):
            yield f"parameter {name} starts with values that are not finite"
        elif not parameter.requires_grad:
            yield f"parameter {name} does not require a gradient; register what stays constant with self.register_buffer"
