"""Names and places of an actor-critic's parameters in the flat vector, shared by torch, numpy and the fused kernel.

Every linear layer keeps torch's orientation, weight [out, in]. The actor's and the critic's layers lie side by side, layer by layer, so
that the two first layers form one matrix:

    actor.0.weight [H1, S]  critic.0.weight [H1, S]  actor.0.bias [H1]  critic.0.bias [H1]  actor.1.weight ...
    ... actor.head.weight [K, H]  actor.head.bias [K]  critic.head.weight [1, H]  critic.head.bias [1]  log_std [A]

K is A means, or a logit for every choice; log_std exists for continuous actions only. With layer_norm each layer's biases are followed by
actor.0.scale, critic.0.scale, actor.0.shift, critic.0.shift [H1]. A CNN begins with actor.conv.0.weight [C, C_in, k, k] and so on in the
same order. With a shared trunk the layers before the heads are named trunk.0 ... and exist once.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Mapping
from typing import NamedTuple

import numpy as np

from distppo.config.schema import NetworkConfig
from distppo.models.architecture import ImageShape, feature_map, image_shape, resolved_network
from distppo.types import EnvSpec, ParameterSlot

HEADS = ("actor.head", "critic.head")


class ActorLayer(NamedTuple):
    """One linear layer of the actor.

    Attributes:
        weight: [out, in].
        bias: [out].
        scale: [out] of the layer normalization behind it; None: there is none.
        shift: [out], likewise.
    """

    weight: np.ndarray
    bias: np.ndarray
    scale: np.ndarray | None
    shift: np.ndarray | None


def network_layout(env: EnvSpec, network: NetworkConfig) -> tuple[ParameterSlot, ...]:
    """Returns the slots of the flat vector for an MLP or CNN actor-critic, in order and without gaps."""
    return slots_of(_named_shapes(env, resolved_network(env, network)))


def slots_of(named_shapes: Iterable[tuple[str, tuple[int, ...]]]) -> tuple[ParameterSlot, ...]:
    """Returns slots in the order given, without gaps."""
    slots, offset = [], 0
    for name, shape in named_shapes:
        slots.append(ParameterSlot(name, shape, offset))
        offset += math.prod(shape)
    return tuple(slots)


def layout_size(layout: tuple[ParameterSlot, ...]) -> int:
    """Returns P, the length of the flat vector."""
    last = layout[-1]
    return last.offset + math.prod(last.shape)


def parameter_views(vector: np.ndarray, layout: tuple[ParameterSlot, ...]) -> dict[str, np.ndarray]:
    """Returns name -> array that shares memory with `vector` [P]."""
    return {slot.name: vector[slot.offset : slot.offset + math.prod(slot.shape)].reshape(slot.shape) for slot in layout}


def actor_layers(parameters: Mapping[str, np.ndarray]) -> list[ActorLayer]:
    """Returns an MLP actor's layers from input to head, whether the trunk is shared or not."""
    trunk = "trunk" if "trunk.0.weight" in parameters else "actor"
    names: list[str] = []
    while f"{trunk}.{len(names)}.weight" in parameters:
        names.append(f"{trunk}.{len(names)}")
    return [
        ActorLayer(
            parameters[f"{name}.weight"], parameters[f"{name}.bias"], parameters.get(f"{name}.scale"), parameters.get(f"{name}.shift")
        )
        for name in [*names, "actor.head"]
    ]


def _named_shapes(env: EnvSpec, network: NetworkConfig) -> Iterator[tuple[str, tuple[int, ...]]]:
    trunks = ("trunk",) if network.shared else ("actor", "critic")
    fan_in = env.observation_size
    if network.torso == "cnn":
        yield from _convolutions(env, network, trunks)
        fan_in = network.channels[-1] * math.prod(feature_map(_image(env), network))
    for index, width in enumerate(network.hidden_sizes or ()):
        yield from _in_every_trunk(trunks, f"{index}.weight", (width, fan_in))
        for name in ("bias", "scale", "shift") if network.layer_norm else ("bias",):
            yield from _in_every_trunk(trunks, f"{index}.{name}", (width,))
        fan_in = width
    for head, width in zip(HEADS, (env.action_outputs, 1), strict=True):
        yield f"{head}.weight", (width, fan_in)
        yield f"{head}.bias", (width,)
    if not env.action_choices:
        yield "log_std", (env.action_size,)


def _convolutions(env: EnvSpec, network: NetworkConfig, trunks: tuple[str, ...]) -> Iterator[tuple[str, tuple[int, ...]]]:
    image = _image(env)
    fan_in = image.stack * image.channels
    for index, (channels, kernel) in enumerate(zip(network.channels, network.kernels, strict=True)):
        yield from _in_every_trunk(trunks, f"conv.{index}.weight", (channels, fan_in, kernel, kernel))
        yield from _in_every_trunk(trunks, f"conv.{index}.bias", (channels,))
        fan_in = channels


def _in_every_trunk(trunks: tuple[str, ...], name: str, shape: tuple[int, ...]) -> Iterator[tuple[str, tuple[int, ...]]]:
    return ((f"{trunk}.{name}", shape) for trunk in trunks)


def _image(env: EnvSpec) -> ImageShape:
    image = image_shape(env)
    assert image is not None, "resolved_network takes a cnn for images only"
    return image
