"""Acting with a network that only torch can run: a CNN, or one of the user's own."""

from __future__ import annotations

import numpy as np
import torch

from distppo.config.schema import NetworkConfig
from distppo.models.actor_critic import ActorCritic, Network, initial_parameters, split_parameters
from distppo.models.distributions import ActionDistribution
from distppo.types import EnvSpec, PolicySnapshot


def make_network(env: EnvSpec, network: NetworkConfig) -> Network:
    """Returns the torch network that the settings describe.

    Raises:
        UserError: network.class cannot be imported or made.
    """
    if network.class_ is None:
        return ActorCritic(env, network)
    from distppo.models.custom import CustomNetwork

    return CustomNetwork(env, network)


def starting_parameters(env: EnvSpec, network: NetworkConfig, seed: int) -> np.ndarray:
    """Returns the flat vector [P] float32 that training starts from, which depends on the seed alone."""
    if network.class_ is None:
        return initial_parameters(env, network, seed)
    from distppo.models.custom import starting_parameters_of

    return starting_parameters_of(env, network, seed)


class TorchActor:
    """A policy for a fixed number of observations; the interface of `NumpyActor`.

    Args:
        network: as `make_network` returns it.
        snapshot: weights, copied.
    """

    def __init__(self, network: Network, snapshot: PolicySnapshot) -> None:
        self._network = network
        self._parameters = split_parameters(torch.tensor(snapshot.parameters), snapshot.spec.layout)

    @torch.inference_mode()
    def act(self, observations: np.ndarray, noise: np.ndarray, outputs: np.ndarray, actions: np.ndarray) -> None:
        """Writes sampled actions [n, A] for observations [n, *S], and their log-probabilities into the first column of outputs [n, K]."""
        policy = self._policy(observations)
        sampled = policy.sample(torch.from_numpy(noise))
        actions[...] = sampled.numpy()
        outputs[:, 0] = policy.log_prob(sampled).numpy()

    @torch.inference_mode()
    def mode(self, observations: np.ndarray, actions: np.ndarray) -> None:
        """Writes the most likely actions [n, A] for observations [n, *S]."""
        actions[...] = self._policy(observations).mode().numpy()

    def scale_noise(self, noise: np.ndarray) -> None:
        """Leaves the noise to the distribution's `sample`."""

    def log_probs(self, actions: np.ndarray, outputs: np.ndarray) -> np.ndarray:
        """Returns the log-probabilities [...] float32, nats, that `act` has written."""
        return outputs[..., 0].copy()

    def _policy(self, observations: np.ndarray) -> ActionDistribution:
        return self._network.distribution(self._parameters, torch.from_numpy(observations))
