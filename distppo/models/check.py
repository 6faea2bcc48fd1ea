"""Tries a user's network on a few observations, so that what is wrong with it is said before any actor starts."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
import torch
from torch import Tensor

from distppo.config.schema import NetworkConfig
from distppo.errors import UserError, failure_text
from distppo.models.actor_critic import split_parameters
from distppo.models.architecture import policy_input
from distppo.models.custom import CustomNetwork, starting_parameters_of
from distppo.models.heads import action_noise
from distppo.types import EnvSpec

SAMPLES = 3
METHODS = ("log_prob", "entropy", "mode", "sample")


def check_own_network(env: EnvSpec, network: NetworkConfig) -> int:
    """Runs network.class forwards and backwards on random observations.

    Returns:
        Its number of parameters.

    Raises:
        UserError: with the first thing that is wrong: a class that cannot be imported or made, a missing method, a wrong shape or dtype,
            something not finite, results that vary or depend on the rest of the batch, tensors that learn but are not parameters.
    """
    where = f"network.class {network.class_!r}"
    own = CustomNetwork(env, network)
    vector = torch.from_numpy(starting_parameters_of(env, network, 0))
    observations = _observations(env, network)
    try:
        problem = next(_problems(own, vector, observations, env), None)
    except (Exception, SystemExit) as error:
        shape = f"{list(observations.shape)} {str(observations.dtype).removeprefix('torch.')}"
        raise UserError(f"{where} raised an error for observations {shape}:\n{failure_text(error)}") from error
    if problem:
        raise UserError(f"{where}: {problem}")
    return len(vector)


def _problems(own: CustomNetwork, vector: Tensor, observations: Tensor, env: EnvSpec) -> Iterator[str]:
    """Yields what is wrong; each check may rely on those before it."""
    parameters = split_parameters(vector, own.layout)
    buffers = {name: buffer.clone() for name, buffer in own.module.named_buffers()}
    with torch.no_grad():
        pair: Any = own.evaluate(parameters, observations)
        if not (isinstance(pair, tuple) and len(pair) == 2):
            yield f"evaluate must return (distribution, values), got {type(pair).__name__}"
            return
        policy, values = pair
        yield from _tensor_problems("value", values, (SAMPLES,))
        for method in METHODS:
            if not callable(getattr(policy, method, None)):
                yield (
                    f"act must return a distribution such as distppo.DiagonalGaussian or distppo.Categorical; "
                    f"{type(policy).__name__} has no {method}()"
                )
        yield from _distribution_problems(policy, env)
        yield from _tensor_problems("value", own.value(parameters, observations), (SAMPLES,))
        yield from _tensor_problems("act(...).mode()", own.distribution(parameters, observations).mode(), (SAMPLES, env.action_size))
        yield from _consistency_problems(own, parameters, observations, policy, values)
    for name, buffer in own.module.named_buffers():
        if not torch.equal(buffer, buffers[name]):
            yield f"buffer {name} changes while it computes; only parameters travel to the workers (no batch normalization)"
    yield from _gradient_problems(own, vector, observations)


def _distribution_problems(policy: Any, env: EnvSpec) -> Iterator[str]:
    size = env.action_size
    # Tried with the noise that workers act with.
    sampled = policy.sample(torch.from_numpy(action_noise(env, np.random.default_rng(0), SAMPLES)))
    for name, actions in (("sample(noise)", sampled), ("mode()", policy.mode())):
        yield from _tensor_problems(f"act(...).{name}", actions, (SAMPLES, size))
        choices = torch.tensor(env.action_choices)
        if env.action_choices and not bool(((actions == actions.round()) & (actions >= 0) & (actions < choices)).all()):
            yield f"act(...).{name} must be choices from 0 to below {list(env.action_choices)}, got {actions.tolist()}"
    yield from _tensor_problems("act(...).log_prob(actions)", policy.log_prob(sampled), (SAMPLES,))
    entropy = policy.entropy()
    yield from _tensor_problems("act(...).entropy()", entropy, () if getattr(entropy, "ndim", None) == 0 else (SAMPLES,))


def _consistency_problems(
    own: CustomNetwork, parameters: dict[str, Tensor], observations: Tensor, policy: Any, values: Tensor
) -> Iterator[str]:
    mode = policy.mode()
    for _ in range(2):
        alone = own.distribution(parameters, observations)
        if not torch.allclose(alone.mode(), mode, atol=1e-4) or not torch.allclose(alone.log_prob(mode), policy.log_prob(mode), atol=1e-4):
            yield "act gives another distribution than evaluate, or another every time it is called; it must be the same (no dropout)"
    if not torch.allclose(own.value(parameters, observations), values, atol=1e-4):
        yield "value gives other values than evaluate, or others every time it is called; they must be the same (no dropout)"
    single, value = own.evaluate(parameters, observations[:1])
    if not torch.allclose(single.log_prob(mode[:1]), policy.log_prob(mode)[:1], atol=1e-3) or not torch.allclose(
        value, values[:1], atol=1e-3
    ):
        yield "the result for an observation depends on the others in the batch; it must not (no batch normalization)"


def _gradient_problems(own: CustomNetwork, vector: Tensor, observations: Tensor) -> Iterator[str]:
    def loss_of(vector: Tensor) -> Tensor:
        policy, values = own.evaluate(split_parameters(vector, own.layout), observations)
        return policy.log_prob(policy.mode().detach()).sum() + policy.entropy().sum() + values.square().sum()

    gradient = torch.func.grad(loss_of)(vector)
    if not bool(torch.isfinite(gradient).all()):
        bad = [
            slot.name
            for slot, part in zip(own.layout, split_parameters(gradient, own.layout).values(), strict=True)
            if not part.isfinite().all()
        ]
        yield f"the gradient of {', '.join(bad)} is not finite"
    policy, values = own.module.evaluate(observations)
    known = {id(parameter) for parameter in own.module.parameters()}
    outputs = [policy.log_prob(policy.mode().detach()).sum(), values.sum()]
    if any(id(leaf) not in known for output in outputs for leaf in _leaves(output)):
        yield (
            "it learns with a tensor that is not a parameter of the module; assign modules to attributes (in lists with "
            "torch.nn.ModuleList), and tensors as torch.nn.Parameter"
        )


def _leaves(output: Tensor) -> Iterator[Tensor]:
    """Yields every tensor that a gradient of the output would be accumulated in."""
    waiting, seen = [output.grad_fn], set()
    while waiting:
        node: Any = waiting.pop()
        if node is None or node in seen:
            continue
        seen.add(node)
        if hasattr(node, "variable"):
            yield node.variable
        waiting.extend(parent for parent, _ in node.next_functions)


def _tensor_problems(name: str, tensor: Any, shape: tuple[int, ...]) -> Iterator[str]:
    if not isinstance(tensor, Tensor):
        yield f"{name} must return a tensor, got {type(tensor).__name__}"
    elif tuple(tensor.shape) != shape:
        yield f"{name} must have shape {list(shape)} for {SAMPLES} observations, got {list(tensor.shape)}"
    elif tensor.dtype != torch.float32:
        yield f"{name} must be float32, got {str(tensor.dtype).removeprefix('torch.')}"
    elif not bool(torch.isfinite(tensor).all()):
        yield f"{name} is not finite: {tensor.tolist()}"


def _observations(env: EnvSpec, network: NetworkConfig) -> Tensor:
    shape, dtype = policy_input(env, network)
    random = np.random.default_rng(0)
    if dtype == "uint8":
        return torch.from_numpy(random.integers(0, 256, (SAMPLES, *shape), np.uint8))
    return torch.from_numpy(random.standard_normal((SAMPLES, *shape), np.float32))
