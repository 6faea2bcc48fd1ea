"""A user's network: what is wrong with it is one message before anything starts; what is right is a function of the flat vector."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import own_networks
import pytest
import torch

from distppo.config import NetworkConfig
from distppo.errors import UserError
from distppo.models.acting import checked_network
from distppo.models.actor_critic import split_parameters
from distppo.models.custom import CustomNetwork, starting_parameters_of
from distppo.models.layout import layout_size
from distppo.types import EnvSpec

ENV = EnvSpec("test", (2,), (2,), (-1.0, -1.0), (1.0, 1.0), None)
CHOICES = EnvSpec("test", (2,), (2,), (), (), None, action_choices=(3, 2), action_start=(0, 0))


def named(name: str, **options: object) -> NetworkConfig:
    return NetworkConfig(class_=f"own_networks:{name}", options=options)


def test_a_good_network_is_described() -> None:
    assert checked_network(ENV, named("Gaussian")) == "network: own_networks:Gaussian, 2 continuous actions, 15 parameters"
    assert "choices [3, 2]" in checked_network(CHOICES, named("Small", width=4))


def test_the_parameters_are_the_module_s_own_in_the_flat_vector() -> None:
    """The function of the flat vector is the module, and the same seed starts it the same, whatever torch's generator was at."""
    network = named("Gaussian")
    own = CustomNetwork(ENV, network)
    torch.manual_seed(5)
    vector = starting_parameters_of(ENV, network, 3)
    np.testing.assert_array_equal(vector, starting_parameters_of(ENV, network, 3))
    assert torch.rand(1).item() == torch.rand(1, generator=torch.Generator().manual_seed(5)).item()
    assert not np.array_equal(vector, starting_parameters_of(ENV, network, 4))
    assert layout_size(own.layout) == len(vector)
    module = own_networks.Gaussian(ENV)
    torch.nn.utils.vector_to_parameters(torch.from_numpy(vector), module.parameters())
    observations = torch.randn(4, 2)
    parameters = split_parameters(torch.from_numpy(vector), own.layout)
    torch.testing.assert_close(own.value(parameters, observations), module.value(observations))
    torch.testing.assert_close(own.distribution(parameters, observations).mean, module.act(observations).mean)


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("NotOurs", "must be a subclass of distppo.ActorCriticModule, got <class 'own_networks.NotOurs'>"),
        ("Nowhere", "own_networks has no 'Nowhere'; it has Small, Gaussian, NoValue"),
        ("NoValue", "does not define value; docs/networks.md says what they return"),
        ("NoSuper", "its constructor does not call super().__init__(env)"),
        ("NoParameters", "it has no parameters; assign torch.nn modules"),
        ("ColumnOfValues", "value must have shape [3] for 3 observations, got [3, 1]"),
        ("ColumnOnItsOwn", "value must have shape [3] for 3 observations, got [3, 1]"),
        ("DoubleValues", "value must be float32, got float64"),
        ("DoubleParameters", "parameter actor.weight is torch.float64; use float32"),
        ("InfiniteValues", "value is not finite: ["),
        ("TensorOfActions", "act must return a distribution such as distppo.DiagonalGaussian or distppo.Categorical; Tensor has no"),
        ("WrongActionSize", "raised an error for observations [3, 2] float32:\n"),
        ("Dropout", "act gives another distribution than evaluate, or another every time it is called; it must be the same (no dropout)"),
        ("BatchNormalized", "the result for an observation depends on the others in the batch"),
        ("CountingBuffer", "buffer calls changes while it computes; only parameters travel"),
        ("HiddenLayers", "it learns with a tensor that is not a parameter of the module; assign modules to attributes"),
        ("Raises", "mat1 and mat2 shapes cannot be multiplied"),
    ],
)
def test_what_is_wrong_is_one_message(name: str, message: str) -> None:
    with pytest.raises(UserError) as caught:
        checked_network(ENV, named(name))
    assert str(caught.value).startswith(f"network.class 'own_networks:{name}'") and message in str(caught.value)


def test_options_and_modules_that_do_not_exist_are_told() -> None:
    with pytest.raises(UserError, match=r"(?s)could not be made with network.options \{'wide': 3\}:.*unexpected keyword argument 'wide'"):
        checked_network(CHOICES, named("Small", wide=3))
    with pytest.raises(UserError, match="No module named 'no_networks'; is it installed, or its folder the current one or on PYTHONPATH"):
        checked_network(ENV, NetworkConfig(class_="no_networks:Net"))


def test_a_module_that_fails_to_import_shows_where(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "broken_networks.py").write_text("import math\nwidth = math.sqroot(2)\n")
    monkeypatch.syspath_prepend(tmp_path)
    with pytest.raises(UserError, match=r"(?s)importing 'broken_networks' failed:.*line 2.*has no attribute 'sqroot'"):
        checked_network(ENV, NetworkConfig(class_="broken_networks:Net"))


def test_choices_outside_of_their_range_are_told() -> None:
    """A head of its own that numbers choices from 1."""
    with pytest.raises(UserError, match=r"sample\(noise\) must be choices from 0 to below \[3, 2\]"):
        checked_network(CHOICES, named("FromOne"))
