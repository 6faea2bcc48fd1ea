"""network.class under its name in YAML, on the command line and back, and what must fit together in the section."""

from __future__ import annotations

import pytest

from distppo.config import config_from_dict, config_to_dict, dump_config, load_config
from distppo.errors import ConfigError


def test_the_key_is_class_although_that_is_a_word_of_python() -> None:
    config = load_config(overrides=["network.class=my_networks:Net", "network.options={width: 3}"])
    assert (config.network.class_, config.network.options) == ("my_networks:Net", {"width": 3})
    assert "  class: my_networks:Net" in dump_config(config).splitlines()
    assert config_from_dict(config_to_dict(config)) == config


@pytest.mark.parametrize(
    ("setting", "message"),
    [
        ("network.class=Net", "network.class must be module:Class, as in my_networks:MyActorCritic, got 'Net'"),
        ("network.class=my-networks:Net", "network.class must be module:Class"),
        ("network.options={width: 3}", "network.options {'width': 3} are for network.class, which is off"),
        ("network.channels=16,32", "one entry for each convolution, at least one: channels [16, 32], kernels [8, 4, 3], strides [4, 2, 1]"),
        ("network.torso=cmn", "network.torso must be auto or mlp or cnn, got 'cmn' - did you mean cnn?"),
        ("env.frame_stack=0", "env.frame_stack must be at least 1, got 0"),
    ],
)
def test_what_does_not_fit_is_told(setting: str, message: str) -> None:
    with pytest.raises(ConfigError) as caught:
        load_config(overrides=[setting])
    assert message in str(caught.value)
