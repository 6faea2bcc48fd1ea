"""Chooses what acts: numpy for MLPs, torch for every other network. Torch is imported only where it is needed."""

from __future__ import annotations

from collections.abc import Callable
from typing import Protocol

import numpy as np

from distppo.config.schema import NetworkConfig
from distppo.models.architecture import describe_network, resolved_network
from distppo.models.layout import layout_size, network_layout
from distppo.models.numpy_policy import NumpyActor
from distppo.types import EnvSpec, ParameterSlot, PolicySnapshot


class Actor(Protocol):
    """One snapshot's policy for n observations a call. Arrays are written in place; K is `EnvSpec.action_outputs`."""

    def act(self, observations: np.ndarray, noise: np.ndarray, outputs: np.ndarray, actions: np.ndarray) -> None:
        """Writes actions [n, A] sampled with scaled noise [n, K], and what `log_probs` needs of them, [n, K]."""

    def mode(self, observations: np.ndarray, actions: np.ndarray) -> None:
        """Writes the most likely actions [n, A]."""

    def scale_noise(self, noise: np.ndarray) -> None:
        """Turns what `heads.action_noise` drew, [..., K], into what `act` takes."""

    def log_probs(self, actions: np.ndarray, outputs: np.ndarray) -> np.ndarray:
        """Returns the log-probabilities [...] of actions [..., A] from the outputs [..., K] that were written with them."""


ActorFactory = Callable[[PolicySnapshot, int], Actor]


def actor_factory(env: EnvSpec, network: NetworkConfig) -> ActorFactory:
    """Returns the function (snapshot, rows) -> actor for this network, with everything imported that it needs.

    Raises:
        UserError: network.class cannot be imported or made.
    """
    network = resolved_network(env, network)
    if network.class_ is None and network.torso == "mlp":
        return NumpyActor
    from distppo.models.torch_policy import TorchActor, make_network

    made = make_network(env, network)
    return lambda snapshot, rows: TorchActor(made, snapshot)


def policy_layout(env: EnvSpec, network: NetworkConfig) -> tuple[ParameterSlot, ...]:
    """Returns the slots of the flat vector, whatever the network.

    Raises:
        UserError: network.class cannot be imported or made.
    """
    if network.class_ is None:
        return network_layout(env, network)
    from distppo.models.torch_policy import make_network

    return make_network(env, network).layout


def checked_network(env: EnvSpec, network: NetworkConfig) -> str:
    """Returns the network in a line for people, once it is known to fit the environment; one of the user's own is tried.

    Raises:
        UserError: it does not fit, or does not do what `ActorCriticModule` asks for.
    """
    resolved = resolved_network(env, network)
    if resolved.class_ is None:
        return describe_network(env, resolved, layout_size(network_layout(env, resolved)))
    from distppo.models.check import check_own_network

    return describe_network(env, resolved, check_own_network(env, resolved))
