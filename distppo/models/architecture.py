"""Decides what a network's settings leave to `auto`, from the observation and action space."""

from __future__ import annotations

import dataclasses
from typing import Any, NamedTuple

from distppo.config.schema import Config, NetworkConfig
from distppo.errors import UserError
from distppo.types import EnvSpec, ParameterSlot, PolicySpec

MLP_DEFAULTS: dict[str, Any] = {"hidden_sizes": (64, 64), "activation": "tanh"}
CNN_DEFAULTS: dict[str, Any] = {"hidden_sizes": (512,), "activation": "relu"}
"""Mnih et al.: "Human-level control through deep reinforcement learning" (2015), https://doi.org/10.1038/nature14236."""


class ImageShape(NamedTuple):
    """How an image observation is read.

    Attributes:
        stack: images in one observation, along a first axis; 1 where there is no such axis.
        channels: of one image.
        height: pixels.
        width: pixels.
        channels_last: [H, W, C]; else [C, H, W] or [H, W].
    """

    stack: int
    channels: int
    height: int
    width: int
    channels_last: bool


def resolved_network(env: EnvSpec, network: NetworkConfig) -> NetworkConfig:
    """Returns the settings with nothing left to `auto`; settings that are resolved already come back equal.

    Raises:
        UserError: torso cnn is asked for and the observations are not uint8 images, or are too small for the convolutions.
    """
    if network.class_ is not None:
        return network
    torso = network.torso
    _require_convolutions(network)
    if torso == "auto":
        image = image_shape(env)
        torso = "cnn" if image is not None and all(feature_map(image, network)) else "mlp"
    if torso == "cnn":
        _require_fit(env, network)
    decided = {name: value for name, value in (CNN_DEFAULTS if torso == "cnn" else MLP_DEFAULTS).items() if getattr(network, name) is None}
    return dataclasses.replace(network, torso=torso, **decided)


def policy_input(env: EnvSpec, network: NetworkConfig) -> tuple[tuple[int, ...], str]:
    """Returns shape and dtype of one observation as the learner's batch holds it, for resolved settings.

    An MLP takes flat float32. A CNN, and a network of one's own, take the environment's shape; uint8 stays uint8.
    """
    if network.class_ is None and network.torso == "mlp":
        return (env.observation_size,), "float32"
    return env.observation_shape, "uint8" if env.observation_dtype == "uint8" else "float32"


def sees_images(env: EnvSpec, network: NetworkConfig) -> bool:
    """Whether the policy takes uint8 observations as they are: nothing is normalized, and rollouts hold a byte a number."""
    return policy_input(env, resolved_network(env, network))[1] == "uint8"


def policy_spec(config: Config, env: EnvSpec, layout: tuple[ParameterSlot, ...]) -> PolicySpec:
    """Returns the unchanging part of a run's policy.

    Args:
        config: of the run.
        env: its environment.
        layout: of the network's parameters.
    """
    network = resolved_network(env, config.network)
    normalized = config.normalization.observations and not sees_images(env, network)
    return PolicySpec(env, network, layout, config.normalization.observation_clip if normalized else None)


def moments_shape(env: EnvSpec, network: NetworkConfig) -> tuple[int, ...]:
    """Returns the shape of the observations' moments: *S; () for images, of which they are only counted."""
    return () if sees_images(env, network) else env.observation_shape


def image_shape(env: EnvSpec) -> ImageShape | None:
    """Returns how to read the observations as images: uint8 [H, W], [H, W, C], [C, H, W], or a stack of those; None where they are none.

    Of three axes, the channels' is the shorter one of the first and the last; the last one where they are equal.
    """
    shape = env.observation_shape
    if env.observation_dtype != "uint8" or not 2 <= len(shape) <= 4:
        return None
    if len(shape) == 2:
        return ImageShape(1, 1, *shape, channels_last=False)
    stack, image = (shape[0], shape[1:]) if len(shape) == 4 else (1, shape)
    if image[2] <= image[0]:
        return ImageShape(stack, image[2], image[0], image[1], channels_last=True)
    return ImageShape(stack, image[0], image[1], image[2], channels_last=False)


def feature_map(image: ImageShape, network: NetworkConfig) -> tuple[int, int]:
    """Returns (height, width) of what the last convolution leaves; 0 where the image is too small."""
    sides = []
    for side in (image.height, image.width):
        for kernel, stride in zip(network.kernels, network.strides, strict=True):
            side = max(0, (side - kernel) // stride + 1)
        sides.append(side)
    return sides[0], sides[1]


def smallest_side(network: NetworkConfig) -> int:
    """Returns the pixels on a side that the convolutions leave one pixel of."""
    side = 1
    for kernel, stride in zip(reversed(network.kernels), reversed(network.strides), strict=True):
        side = (side - 1) * stride + kernel
    return side


def describe_network(env: EnvSpec, network: NetworkConfig, parameters: int) -> str:
    """Returns resolved settings in a line for people."""
    if network.class_ is not None:
        torso = network.class_
    else:
        widths = list(network.hidden_sizes or ())
        convolutions = f"{list(network.channels)} channels, " if network.torso == "cnn" else ""
        torso = f"{network.torso} ({convolutions}hidden {widths}, {network.activation}{', shared' if network.shared else ''})"
    head = f"choices {list(env.action_choices)}" if env.action_choices else f"{env.action_size} continuous actions"
    return f"network: {torso}, {head}, {parameters:,} parameters"


def _require_convolutions(network: NetworkConfig) -> None:
    if not 0 < len(network.channels) == len(network.kernels) == len(network.strides):
        lists = f"channels {list(network.channels)}, kernels {list(network.kernels)}, strides {list(network.strides)}"
        raise UserError(f"network.channels, kernels and strides must hold one entry for each convolution, at least one: {lists}")


def _require_fit(env: EnvSpec, network: NetworkConfig) -> None:
    image = image_shape(env)
    if image is None:
        raise UserError(
            f"network.torso is cnn, but {env.id!r} has {env.observation_dtype} observations of shape {env.observation_shape}; a cnn takes "
            "uint8 images: [H, W], [H, W, C], [C, H, W] or a stack of them. Use network.torso auto or mlp"
        )
    if not all(feature_map(image, network)):
        least = smallest_side(network)
        raise UserError(
            f"{env.id!r} has images of {image.height} x {image.width} pixels; network.kernels {list(network.kernels)} with strides "
            f"{list(network.strides)} need {least} x {least}. Use smaller ones, for instance network.kernels 4,3 strides 2,1 channels 16,32"
        )
