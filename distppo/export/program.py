"""What a deployed policy computes, said once for every file format: a list of operations, each over the result of the one before.

The input is a batch of raw observations [n, *S]. Operations and their arrays:

    normalize  clip((x - mean) * inverse_std, +-clip) in float64, then float32    mean, inverse_std [*S] float64
    cast       x as float32
    image      whole numbers 0 to 255 as [n, stack * channels, height, width] in [0, 1]
    conv       2-d convolution without padding                                    weight [out, in, k, k], bias [out] float32
    flatten    x as [n, all the rest]
    linear     x W^T + b                                                          weight [out, in], bias [out] float32
    layer_norm (x - mean) / sqrt(variance + epsilon) * scale + shift over a row   scale, shift [H] float32
    tanh, relu, elu
    clip       min(max(x, minimum), maximum)                                      minimum, maximum [A] float32
    rescale    x * scale + shift                                                  scale, shift [A] float32
    choose     of each group of columns the first largest, numbered from start    -> int64 [n, A]
    reshape    x as [n, *shape]

`image` has the values stack, channels, height, width and channels_last; `conv` a stride; `choose` the groups' sizes as choices, and A
starts.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any, NamedTuple

import numpy as np

from distppo.algo.moments import standard_deviation
from distppo.config.schema import NetworkConfig
from distppo.models.architecture import image_shape, sees_images
from distppo.models.heads import action_scaling, rounds_outside
from distppo.models.layout import actor_layers, parameter_views
from distppo.models.numpy_policy import LAYER_NORM_EPSILON
from distppo.types import EnvSpec, PolicySnapshot


class Operation(NamedTuple):
    """One operation.

    Attributes:
        name: what is done.
        arrays: role -> array.
        values: name -> number or list of numbers.
    """

    name: str
    arrays: dict[str, np.ndarray] = {}  # noqa: RUF012 - never changed
    values: dict[str, Any] = {}  # noqa: RUF012


class Program(NamedTuple):
    """A deterministic policy: a raw observation in, the environment's action out.

    Attributes:
        observation_shape: *S.
        observation_dtype: of the input.
        action_shape: of one action.
        action_dtype: of the output, float32 or int64.
        operations: in order.
    """

    observation_shape: tuple[int, ...]
    observation_dtype: str
    action_shape: tuple[int, ...]
    action_dtype: str
    operations: tuple[Operation, ...]


def program_of(snapshot: PolicySnapshot) -> Program:
    """Returns what `Policy(snapshot).act(observation)` computes, operation by operation, for the built-in networks."""
    env, network = snapshot.spec.env, snapshot.spec.network
    assert network.class_ is None, "what a network of the user's own computes only torch knows"
    parameters = parameter_views(snapshot.parameters, snapshot.spec.layout)
    inputs = _convolutions(env, network, parameters) if network.torso == "cnn" else _preparation(snapshot)
    return Program(
        observation_shape=env.observation_shape,
        observation_dtype="uint8" if sees_images(env, network) else "float64",
        action_shape=env.action_shape,
        action_dtype="int64" if env.action_choices else "float32",
        operations=(*inputs, *_layers(network, parameters), *_to_environment(env)),
    )


def _preparation(snapshot: PolicySnapshot) -> Iterator[Operation]:
    clip = snapshot.spec.observation_clip
    if clip is None:
        yield Operation("cast")
    else:
        moments = snapshot.obs_moments
        arrays = {"mean": np.asarray(moments.mean, np.float64), "inverse_std": 1.0 / standard_deviation(moments)}
        yield Operation("normalize", arrays, {"clip": float(clip)})
    yield Operation("flatten")


def _convolutions(env: EnvSpec, network: NetworkConfig, parameters: Mapping[str, np.ndarray]) -> Iterator[Operation]:
    image = image_shape(env)
    assert image is not None, "resolved_network takes a cnn for images only"
    yield Operation("image", {}, image._asdict())
    trunk = "trunk" if network.shared else "actor"
    for index, stride in enumerate(network.strides):
        arrays = {role: parameters[f"{trunk}.conv.{index}.{role}"] for role in ("weight", "bias")}
        yield Operation("conv", arrays, {"stride": stride})
        yield Operation("relu")
    yield Operation("flatten")


def _layers(network: NetworkConfig, parameters: Mapping[str, np.ndarray]) -> Iterator[Operation]:
    *hidden, head = actor_layers(parameters)
    for layer in hidden:
        yield Operation("linear", {"weight": layer.weight, "bias": layer.bias})
        if layer.scale is not None and layer.shift is not None:
            yield Operation("layer_norm", {"scale": layer.scale, "shift": layer.shift}, {"epsilon": float(LAYER_NORM_EPSILON)})
        yield Operation(network.activation or "tanh")
    yield Operation("linear", {"weight": head.weight, "bias": head.bias})


def _to_environment(env: EnvSpec) -> Iterator[Operation]:
    if env.action_choices:
        yield Operation("choose", {"start": np.array(env.action_start, np.int64)}, {"choices": list(env.action_choices)})
    else:
        minimum, maximum, scale, shift = action_scaling(env.action_low, env.action_high)
        yield Operation("clip", {"minimum": minimum, "maximum": maximum})
        if (scale != 1.0).any() or (shift != 0.0).any():
            yield Operation("rescale", {"scale": scale, "shift": shift})
        if rounds_outside(env.action_low, env.action_high):
            low, high = (np.array(bound, np.float32) for bound in (env.action_low, env.action_high))
            yield Operation("clip", {"minimum": low, "maximum": high})
    yield Operation("reshape", {}, {"shape": list(env.action_shape)})
