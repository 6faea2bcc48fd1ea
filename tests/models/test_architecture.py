"""What the spaces decide when the settings leave it to them, and how images are read."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest
import torch

from distppo.config import NetworkConfig
from distppo.errors import UserError
from distppo.models.actor_critic import ActorCritic, initial_parameters, split_parameters
from distppo.models.architecture import ImageShape, feature_map, image_shape, policy_input, resolved_network, smallest_side
from distppo.models.layout import layout_size, network_layout
from distppo.types import EnvSpec

VECTOR = EnvSpec("Vector-v0", (5,), (2,), (-1.0, -1.0), (1.0, 1.0), None)
ATARI = EnvSpec("Atari-v0", (84, 84, 4), (), (), (), None, "uint8", (6,), (0,))


def shaped(*shape: int) -> EnvSpec:
    return ATARI._replace(observation_shape=shape)


def test_features_get_an_mlp_and_images_the_nature_cnn() -> None:
    mlp, cnn = resolved_network(VECTOR, NetworkConfig()), resolved_network(ATARI, NetworkConfig())
    assert (mlp.torso, mlp.hidden_sizes, mlp.activation) == ("mlp", (64, 64), "tanh")
    assert (cnn.torso, cnn.channels, cnn.kernels, cnn.strides) == ("cnn", (32, 64, 64), (8, 4, 3), (4, 2, 1))
    assert (cnn.hidden_sizes, cnn.activation) == ((512,), "relu")
    # Mnih et al. (2015): 84 x 84 x 4 leaves 7 x 7 x 64; one such network has 1,687,206 parameters with six logits, and a value adds 513.
    assert layout_size(network_layout(ATARI, NetworkConfig(shared=True))) == 1_687_206 + 513
    assert resolved_network(ATARI, cnn) == cnn


def test_settings_count_over_what_the_spaces_suggest() -> None:
    chosen = NetworkConfig(hidden_sizes=(7,), activation="elu")
    assert resolved_network(ATARI, chosen) == dataclasses.replace(chosen, torso="cnn")
    assert resolved_network(ATARI, NetworkConfig(torso="mlp")).hidden_sizes == (64, 64)
    assert policy_input(ATARI, resolved_network(ATARI, NetworkConfig(torso="mlp"))) == ((84 * 84 * 4,), "float32")
    assert policy_input(ATARI, resolved_network(ATARI, NetworkConfig())) == ((84, 84, 4), "uint8")


@pytest.mark.parametrize(
    ("shape", "read"),
    [
        ((48, 64), ImageShape(1, 1, 48, 64, False)),
        ((48, 64, 3), ImageShape(1, 3, 48, 64, True)),
        ((3, 48, 64), ImageShape(1, 3, 48, 64, False)),
        ((4, 48, 64, 3), ImageShape(4, 3, 48, 64, True)),
        ((4, 3, 48, 64), ImageShape(4, 3, 48, 64, False)),
        ((128,), None),
    ],
)
def test_the_channels_are_found_from_the_space(shape: tuple[int, ...], read: ImageShape | None) -> None:
    assert image_shape(shaped(*shape)) == read
    assert image_shape(shaped(*shape)._replace(observation_dtype="float32")) is None


def test_every_order_of_axes_is_the_same_picture() -> None:
    """One stack of frames, its channels first or last: the same policy and values, equal to a convolution of pixels in [0, 1]."""
    random = np.random.default_rng(0)
    frames = random.integers(0, 256, (5, 2, 3, 20, 24), np.uint8)
    network = NetworkConfig(torso="cnn", channels=(4,), kernels=(5,), strides=(3,), hidden_sizes=())
    first, last = shaped(2, 3, 20, 24), shaped(2, 20, 24, 3)
    vector = torch.from_numpy(initial_parameters(first, network, 0))
    outputs = []
    for env, array in ((first, frames), (last, np.ascontiguousarray(frames.transpose(0, 1, 3, 4, 2)))):
        model = ActorCritic(env, network)
        policy, values = model.evaluate(split_parameters(vector, model.layout), torch.from_numpy(array))
        outputs.append((policy.logits, values))
    torch.testing.assert_close(outputs[0], outputs[1])
    named = split_parameters(vector, ActorCritic(first, network).layout)
    pixels = torch.from_numpy(frames.reshape(5, 6, 20, 24)).float() / 255
    hidden = torch.relu(torch.nn.functional.conv2d(pixels, named["critic.conv.0.weight"], named["critic.conv.0.bias"], 3)).flatten(1)
    torch.testing.assert_close(outputs[0][1], hidden @ named["critic.head.weight"][0] + named["critic.head.bias"])


def test_images_that_the_convolutions_do_not_fit_on_get_an_mlp_unless_a_cnn_is_asked_for() -> None:
    least = smallest_side(NetworkConfig())
    assert (least, feature_map(ImageShape(1, 1, 36, 36, False), NetworkConfig())) == (36, (1, 1))
    assert resolved_network(shaped(least, least), NetworkConfig()).torso == "cnn"
    assert resolved_network(shaped(least - 1, least), NetworkConfig()).torso == "mlp"
    with pytest.raises(UserError, match=r"images of 35 x 36 pixels; network.kernels \[8, 4, 3\] with strides \[4, 2, 1\] need 36 x 36"):
        resolved_network(shaped(least - 1, least), NetworkConfig(torso="cnn"))


def test_a_cnn_on_features_is_refused_with_the_way_out() -> None:
    with pytest.raises(UserError, match=r"'Vector-v0' has float64 observations of shape \(5,\).*Use network.torso auto or mlp"):
        resolved_network(VECTOR, NetworkConfig(torso="cnn"))


def test_layer_normalization_starts_as_plain_normalization() -> None:
    """Scale 1, shift 0: the critic's features have mean 0 and variance 1 before the non-linearity."""
    network = NetworkConfig(hidden_sizes=(32,), layer_norm=True, activation="relu")
    model = ActorCritic(VECTOR, network)
    named = split_parameters(torch.from_numpy(initial_parameters(VECTOR, network, 0)), model.layout)
    observations = torch.randn(7, 5, generator=torch.Generator().manual_seed(0))
    before = observations @ named["critic.0.weight"].T
    unit = (before - before.mean(1, keepdim=True)) / before.std(1, keepdim=True, correction=0)
    expected = torch.relu(unit) @ named["critic.head.weight"][0]
    torch.testing.assert_close(model.value(named, observations), expected, atol=1e-3, rtol=1e-3)


def test_convolutions_that_are_not_described_alike_are_refused() -> None:
    """Also in a checkpoint's config, whose settings nobody has held against each other."""
    with pytest.raises(UserError, match=r"one entry for each convolution, at least one: channels \[4\], kernels \[8, 4, 3\]"):
        resolved_network(ATARI, NetworkConfig(channels=(4,)))
