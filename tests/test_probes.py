"""Learning on environments whose values and best actions are known by hand."""

from __future__ import annotations

import copy

import gymnasium as gym
import numpy as np
import pytest
import torch
from scripted_env import Scripted, spec_of

from distppo.collector import RolloutCollector
from distppo.config import load_config
from distppo.envs import VectorStepper, spaces
from distppo.evaluation.policy import Policy
from distppo.learner import Learner
from distppo.models.actor_critic import split_parameters


def coin(env, step):
    """An observation of -1 or 1."""
    return np.array([env.np_random.choice([-1.0, 1.0])])


def solve(make, iterations, **settings):
    """Trains in one process; returns the policy and a function observation -> V in units of raw reward."""
    settings = {"rewards": False, "observations": False, "learning_rate": 3e-3, "entropy_coef": 0.0, "lr_schedule": "linear"} | settings
    config = load_config(num_envs=8, num_steps=64, mini_batch_size=64, hidden_sizes=[16], total_timesteps=512 * iterations, **settings)
    collector = RolloutCollector(config, make, VectorStepper, first_env=0, num_envs=8)
    learner = Learner(config, collector.spec)
    snapshot = learner.snapshot()
    rollout = copy.deepcopy(collector.collect(snapshot, 0))
    for iteration in range(iterations):
        # In overlap mode the next fragment is collected before this one is learned from, in sync mode after.
        ahead = copy.deepcopy(collector.collect(snapshot, iteration + 1)) if config.rollout.mode == "overlap" else None
        snapshot, _ = learner.update(rollout)
        rollout = ahead or collector.collect(snapshot, iteration + 1)

    def value(observation):
        parameters = split_parameters(torch.from_numpy(snapshot.parameters), snapshot.spec.layout)
        return learner._network.value(parameters, torch.tensor([[observation]])).item()

    return Policy(snapshot), value


def probe(length, terminates, observe, reward):
    def make():
        env = Scripted(length, terminates, observe, reward)
        return env, spec_of(env)

    return make


@pytest.mark.parametrize("step", ["fused", "torch"])
def test_one_step_of_reward_1_is_worth_1(step):
    _, value = solve(probe(1, True, lambda env, t: np.zeros(1), lambda o, a, t: 1.0), 10, step=step)
    assert value(0.0) == pytest.approx(1.0, abs=0.02)


def test_a_reward_that_the_observation_announces_is_predicted_from_it():
    _, value = solve(probe(1, True, coin, lambda o, a, t: float(o[0])), 12)
    assert value(1.0) == pytest.approx(1.0, abs=0.05)
    assert value(-1.0) == pytest.approx(-1.0, abs=0.05)


def test_a_reward_one_step_away_is_discounted_once():
    _, value = solve(probe(2, True, lambda env, t: np.array([float(t)]), lambda o, a, t: float(t == 1)), 15, gamma=0.5)
    assert value(0.0) == pytest.approx(0.5, abs=0.05)
    assert value(1.0) == pytest.approx(1.0, abs=0.05)


@pytest.mark.parametrize("mode", ["sync", "overlap"])
@pytest.mark.parametrize(("terminates", "expected"), [(False, 10.0), (True, 1.0)])
def test_an_endless_reward_of_1_is_worth_1_over_1_minus_gamma_however_often_it_is_truncated(terminates, expected, mode):
    # Episodes of one step: only the bootstrap tells a truncation from a termination.
    _, value = solve(probe(1, terminates, lambda env, t: np.zeros(1), lambda o, a, t: 1.0), 60, gamma=0.9, learning_rate=1e-2, mode=mode)
    assert value(0.0) == pytest.approx(expected, rel=0.05)


@pytest.mark.parametrize(("step", "mode"), [("fused", "sync"), ("torch", "sync"), ("fused", "overlap")])
def test_the_best_action_is_found(step, mode):
    target = probe(1, True, lambda env, t: np.zeros(1), lambda o, a, t: -float((a[0] - 0.5) ** 2))
    policy, _ = solve(target, 40, step=step, mode=mode, initial_log_std=-0.5)
    assert policy.act(np.zeros(1))[0] == pytest.approx(0.5, abs=0.08)


@pytest.mark.parametrize("mode", ["sync", "overlap"])
def test_the_best_action_for_each_observation_is_found_with_normalization_on(mode):
    policy, _ = solve(
        probe(1, True, coin, lambda o, a, t: -float((a[0] - 0.6 * o[0]) ** 2)),
        50,
        initial_log_std=-0.5,
        rewards=True,
        observations=True,
        values=True,
        mode=mode,
    )
    assert policy.act(np.array([1.0]))[0] == pytest.approx(0.6, abs=0.12)
    assert policy.act(np.array([-1.0]))[0] == pytest.approx(-0.6, abs=0.12)


def test_an_action_pays_off_a_step_later():
    """The reward comes a step after the action that earned it and the observation does not show it: credit must go back."""

    class Delayed(Scripted):
        def step(self, action):
            if self._step == 0:
                self._earned = -float((action[0] + 0.5) ** 2)
            observation, _, *flags = super().step(action)
            return observation, self._earned if self._step == 2 else 0.0, *flags

    def make():
        env = Delayed(2, True, lambda env, t: np.array([float(t)]), lambda o, a, t: 0.0)
        return env, spec_of(env)

    policy, _ = solve(make, 60, initial_log_std=-0.5)
    assert policy.act(np.array([0.0]))[0] == pytest.approx(-0.5, abs=0.12)


def choosing(space, observe, reward, observations=None):
    """One step an episode, with choices for actions."""

    def make():
        env = Scripted(1, True, observe, reward)
        env.action_space = space
        if observations is not None:
            env.observation_space = observations
        return env, spaces.spec_of("choosing", env, None)

    return make


@pytest.mark.parametrize("settings", [{"step": "fused"}, {"step": "torch"}, {"layer_norm": True}, {"class": "own_networks:Small"}], ids=str)
def test_the_best_choice_for_each_observation_is_found(settings):
    """The sign of the observation says which of three choices, called 5, 6 and 7, pays."""
    network = settings.pop("class", None)
    policy, _ = solve(
        choosing(gym.spaces.Discrete(3, start=5), coin, lambda o, a, t: float(a == (7 if o[0] > 0 else 5))),
        12,
        overrides={"network.class": network},
        **settings,
    )
    assert (policy.act(np.array([1.0])), policy.act(np.array([-1.0]))) == (7, 5)


def test_several_choices_are_learned_side_by_side():
    """The first must follow the observation, the second is best at 2 whatever it is, the third does not matter."""
    policy, _ = solve(choosing(gym.spaces.MultiDiscrete([2, 4, 2]), coin, lambda o, a, t: float(a[0] == (o[0] > 0)) + float(a[1] == 2)), 40)
    assert policy.act(np.array([1.0]))[:2].tolist() == [1, 2]
    assert policy.act(np.array([-1.0]))[:2].tolist() == [0, 2]


@pytest.mark.parametrize("action", [gym.spaces.Discrete(2), gym.spaces.Box(-1.0, 1.0, (1,), np.float32)], ids=["choices", "continuous"])
def test_a_cnn_acts_on_where_the_light_is(action):
    """One half of the image is bright; going there pays."""

    def picture(env, step):
        image = env.np_random.integers(0, 60, (12, 12, 1), np.uint8)
        left = env.np_random.random() < 0.5
        image[:, :6] += np.uint8(150 * left)
        image[:, 6:] += np.uint8(150 * (not left))
        return image

    def reward(observation, action, t):
        right = observation[:, 6:].mean() > observation[:, :6].mean()
        return float((float(np.sum(action)) > 0) == right)

    make = choosing(action, picture, reward, gym.spaces.Box(0, 255, (12, 12, 1), np.uint8))
    policy, _ = solve(make, 12, overrides={"network.torso": "cnn", "network.channels": 4, "network.kernels": 4, "network.strides": 2})
    env, _ = make()
    env.reset(seed=1)
    assert np.mean([reward(image, policy.act(image), 0) for image in (picture(env, 0) for _ in range(100))]) > 0.95
