"""Names and places of an MLP actor-critic's parameters in the flat vector, shared by torch, numpy and the fused kernel.

Every linear layer keeps torch's orientation, weight [out, in]. The actor's and the critic's layers lie side by side, layer by layer, so
that the two first layers form one matrix:

    actor.0.weight [H1, S]  critic.0.weight [H1, S]  actor.0.bias [H1]  critic.0.bias [H1]  actor.1.weight ...
    ... actor.head.weight [A, H]  actor.head.bias [A]  critic.head.weight [1, H]  critic.head.bias [1]  log_std [A]

With a shared trunk the hidden layers are named trunk.0 ... and exist once.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping

import numpy as np

from distppo.config.schema import NetworkConfig
from distppo.types import EnvSpec, ParameterSlot

HEADS = ("actor.head", "critic.head")


def mlp_layout(env: EnvSpec, network: NetworkConfig) -> tuple[ParameterSlot, ...]:
    """Returns the slots of the flat vector for a Gaussian MLP actor-critic, in order and without gaps."""
    return tuple(_slots(_named_shapes(env, network)))


def layout_size(layout: tuple[ParameterSlot, ...]) -> int:
    """Returns P, the length of the flat vector."""
    last = layout[-1]
    return last.offset + math.prod(last.shape)


def parameter_views(vector: np.ndarray, layout: tuple[ParameterSlot, ...]) -> dict[str, np.ndarray]:
    """Returns name -> array that shares memory with `vector` [P]."""
    return {slot.name: vector[slot.offset : slot.offset + math.prod(slot.shape)].reshape(slot.shape) for slot in layout}


def actor_layers(parameters: Mapping[str, np.ndarray]) -> list[tuple[np.ndarray, np.ndarray]]:
    """Returns the actor's (weight [out, in], bias [out]) from input to head, whether the trunk is shared or not."""
    trunk = "trunk" if "trunk.0.weight" in parameters else "actor"
    names: list[str] = []
    while f"{trunk}.{len(names)}.weight" in parameters:
        names.append(f"{trunk}.{len(names)}")
    return [(parameters[f"{name}.weight"], parameters[f"{name}.bias"]) for name in [*names, "actor.head"]]


def _named_shapes(env: EnvSpec, network: NetworkConfig) -> Iterator[tuple[str, tuple[int, ...]]]:
    trunks = ("trunk",) if network.shared else ("actor", "critic")
    fan_in = env.observation_size
    for index, width in enumerate(network.hidden_sizes):
        for trunk in trunks:
            yield f"{trunk}.{index}.weight", (width, fan_in)
        for trunk in trunks:
            yield f"{trunk}.{index}.bias", (width,)
        fan_in = width
    for head, width in zip(HEADS, (env.action_size, 1), strict=True):
        yield f"{head}.weight", (width, fan_in)
        yield f"{head}.bias", (width,)
    yield "log_std", (env.action_size,)


def _slots(shapes: Iterator[tuple[str, tuple[int, ...]]]) -> Iterator[ParameterSlot]:
    offset = 0
    for name, shape in shapes:
        yield ParameterSlot(name, shape, offset)
        offset += math.prod(shape)
