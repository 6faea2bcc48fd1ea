"""The fused kernel, the eager and the compiled torch step are one step: same vectors, same stats, for every option."""

from __future__ import annotations

import dataclasses
import math
import threading

import numpy as np
import pytest
import torch

from distppo.algo import fused, losses
from distppo.algo.batch import Batch, Coefficients, OptimizerVectors
from distppo.config import LearnerConfig, NetworkConfig
from distppo.errors import UserError
from distppo.learner.steps import FusedStep, TorchStep, make_step
from distppo.models.actor_critic import ActorCritic, initial_parameters, split_parameters
from distppo.models.architecture import policy_input, resolved_network
from distppo.models.heads import action_noise
from distppo.types import EnvSpec

ENV = EnvSpec("test", (5,), (3,), (-1.0,) * 3, (1.0,) * 3, 100)
CHOICES = ENV._replace(action_shape=(), action_low=(), action_high=(), action_choices=(4,), action_start=(0,))
SEVERAL_CHOICES = CHOICES._replace(action_shape=(3,), action_choices=(2, 5, 3), action_start=(0, 0, 0))
IMAGES = CHOICES._replace(observation_shape=(12, 12, 3), observation_dtype="uint8")
SMALL_CNN = NetworkConfig(torso="cnn", channels=(4, 6), kernels=(4, 3), strides=(2, 1), hidden_sizes=(8,))
DEFAULT = Coefficients(
    learning_rate=1e-3,
    clip_epsilon=0.2,
    penalized=0.0,
    entropy_coef=0.01,
    value_loss_coef=0.5,
    value_clip=math.inf,
    max_grad_norm=0.5,
    adam_epsilon=1e-5,
    normalize_advantages=True,
)


def batch_of(network: NetworkConfig, parameters: np.ndarray, size: int, seed: int = 0, env: EnvSpec = ENV) -> Batch:
    """A batch whose behaviour policy is near the parameters', so that some ratios are clipped and most are not."""
    rng = np.random.default_rng(seed)
    shape, dtype = policy_input(env, resolved_network(env, network))
    images = dtype == "uint8"
    observations = rng.integers(0, 256, (size, *shape), np.uint8) if images else rng.standard_normal((size, *shape)).astype(np.float32)
    model = ActorCritic(env, network)

    with torch.no_grad():
        policy, values = model.evaluate(split_parameters(torch.from_numpy(parameters), model.layout), torch.from_numpy(observations))
        actions = policy.sample(torch.from_numpy(action_noise(env, rng, size)))
        log_probs = policy.log_prob(actions).numpy() + rng.normal(0, 0.15, size).astype(np.float32)
    returns = (values.numpy() + rng.standard_normal(size)).astype(np.float32)
    advantages = rng.standard_normal(size).astype(np.float32)
    return Batch(observations, actions.numpy(), log_probs, advantages, returns, values.numpy(), log_probs.copy())


def run(step, network, coefficients, *, epochs=4, size=256, mini_batch_size=32, env=ENV):
    parameters = initial_parameters(env, network, 3)
    vectors = OptimizerVectors(parameters, np.zeros_like(parameters), np.zeros_like(parameters))
    batch = batch_of(network, parameters, size, env=env)
    shuffle = np.random.default_rng(1)
    stats = [step.epoch(vectors, batch, shuffle.permutation(size), mini_batch_size, coefficients) for _ in range(epochs)]
    return vectors, stats, batch.previous_log_probs


def assert_same(network: NetworkConfig, coefficients: Coefficients, env: EnvSpec = ENV, **sizes: int) -> None:
    torch_step = TorchStep(ActorCritic(env, network), torch.device("cpu"), compiled=False)
    expected, expected_stats, expected_previous = run(torch_step, network, coefficients, env=env, **sizes)
    actual, stats, previous = run(FusedStep(network, env), network, coefficients, env=env, **sizes)
    assert actual.gradient_steps == expected.gradient_steps > 0
    np.testing.assert_allclose(actual.parameters, expected.parameters, atol=3e-5)
    np.testing.assert_allclose(actual.first_moment, expected.first_moment, atol=3e-5)
    np.testing.assert_allclose(actual.second_moment, expected.second_moment, atol=3e-6)
    np.testing.assert_allclose(previous, expected_previous, atol=1e-3)
    np.testing.assert_allclose(stats, expected_stats, rtol=2e-3, atol=2e-3)


@pytest.mark.parametrize("activation", ["tanh", "relu", "elu"])
@pytest.mark.parametrize("shared", [False, True])
@pytest.mark.parametrize("hidden_sizes", [(), (16,), (16, 16), (24, 8, 12)])
def test_fused_equals_torch_for_every_network(activation, shared, hidden_sizes):
    assert_same(NetworkConfig(hidden_sizes=hidden_sizes, activation=activation, shared=shared, initial_log_std=-0.3), DEFAULT)


@pytest.mark.parametrize("env", [CHOICES, SEVERAL_CHOICES], ids=["one choice", "several choices"])
@pytest.mark.parametrize("shared", [False, True])
@pytest.mark.parametrize("hidden_sizes", [(), (16, 12)])
def test_fused_equals_torch_for_choices(env, shared, hidden_sizes):
    assert_same(NetworkConfig(hidden_sizes=hidden_sizes, shared=shared), DEFAULT._replace(entropy_coef=0.3), env)


@pytest.mark.parametrize("activation", ["tanh", "relu", "elu"])
@pytest.mark.parametrize("shared", [False, True])
@pytest.mark.parametrize("env", [ENV, SEVERAL_CHOICES], ids=["continuous", "choices"])
def test_fused_equals_torch_with_layer_normalization(activation, shared, env):
    assert_same(NetworkConfig(hidden_sizes=(16, 12), activation=activation, shared=shared, layer_norm=True), DEFAULT, env)


LOSS_OPTIONS = [
    {"normalize_advantages": False},
    {"value_clip": 0.2},
    {"max_grad_norm": math.inf},
    {"max_grad_norm": 0.01},
    {"entropy_coef": 0.0},
    {"value_loss_coef": 0.0},
    {"clip_epsilon": 0.02},
    {"penalized": 1.0},
    {"learning_rate": 0.0},
]


@pytest.mark.parametrize("change", LOSS_OPTIONS)
def test_fused_equals_torch_for_every_loss_option(change):
    assert_same(NetworkConfig(hidden_sizes=(16, 16)), DEFAULT._replace(**change))


def test_fused_equals_torch_after_a_thousand_gradient_steps():
    network = NetworkConfig(hidden_sizes=(16, 16))
    assert_same(network, DEFAULT._replace(learning_rate=1e-4), epochs=125)


@pytest.mark.slow
@pytest.mark.parametrize("change", LOSS_OPTIONS)
def test_all_three_steps_agree_over_a_thousand_gradient_steps_for_every_loss_option(change):
    assert_thousand(NetworkConfig(hidden_sizes=(16, 16)), DEFAULT._replace(learning_rate=1e-4)._replace(**change))


@pytest.mark.long
@pytest.mark.parametrize("activation", ["tanh", "relu", "elu"])
@pytest.mark.parametrize("shared", [False, True])
@pytest.mark.parametrize("hidden_sizes", [(), (24, 8, 12)])
def test_all_three_steps_agree_over_a_thousand_gradient_steps_for_every_network(activation, shared, hidden_sizes):
    assert_thousand(NetworkConfig(hidden_sizes=hidden_sizes, activation=activation, shared=shared), DEFAULT._replace(learning_rate=1e-4))


def assert_thousand(network: NetworkConfig, coefficients: Coefficients) -> None:
    """Fused, eager and compiled walk the same way: apart by less than a hundredth of the way."""
    model, cpu = ActorCritic(ENV, network), torch.device("cpu")
    steps = [FusedStep(network, ENV), TorchStep(model, cpu, compiled=False), TorchStep(model, cpu, compiled=True)]
    ends = [run(step, network, coefficients, epochs=125)[0] for step in steps]
    assert [end.gradient_steps for end in ends] == [1000] * 3
    way = np.abs(ends[1].parameters - initial_parameters(ENV, network, 3)).max()
    assert (way > 0.01) == (coefficients.learning_rate > 0)
    for end in (ends[0], ends[2]):
        np.testing.assert_allclose(end.parameters, ends[1].parameters, rtol=0, atol=0.01 * way)


@pytest.mark.parametrize("env", [ENV, SEVERAL_CHOICES], ids=["continuous", "choices"])
@pytest.mark.parametrize("hidden_sizes", [(), (16, 8)])
def test_a_second_thread_with_the_critic_s_tower_changes_no_bit(hidden_sizes, env):
    network = NetworkConfig(hidden_sizes=hidden_sizes, layer_norm=env is not ENV)
    alone, alone_stats, _ = run(FusedStep(network, env), network, DEFAULT, epochs=20, env=env)
    helped, helped_stats, _ = run(FusedStep(network, env, 2), network, DEFAULT, epochs=20, env=env)
    for mine, its in ((alone.parameters, helped.parameters), (alone.first_moment, helped.first_moment)):
        np.testing.assert_array_equal(mine, its)
    assert alone_stats == helped_stats


def test_a_second_thread_that_comes_late_is_not_waited_for():
    network = NetworkConfig(hidden_sizes=(64, 64))
    occupied, free = threading.Event(), threading.Event()
    fused._HELPER.submit(lambda: (occupied.set(), free.wait()))
    occupied.wait()
    late, late_stats, _ = run(FusedStep(network, ENV, 2), network, DEFAULT)
    free.set()
    again, again_stats, _ = run(FusedStep(network, ENV, 2), network, DEFAULT)
    np.testing.assert_array_equal(late.parameters, again.parameters)
    assert late_stats == again_stats


@pytest.mark.parametrize(("threads", "shared"), [(2, True), (3, True), (3, False)])
@pytest.mark.parametrize("env", [ENV, SEVERAL_CHOICES], ids=["continuous", "choices"])
def test_threads_that_share_out_samples_change_nothing_but_rounding_and_repeat_to_the_bit(threads, shared, env):
    network = NetworkConfig(hidden_sizes=(16, 8), activation="elu", shared=shared, layer_norm=env is not ENV)
    one, one_stats, _ = run(FusedStep(network, env), network, DEFAULT, env=env)
    first, first_stats, _ = run(FusedStep(network, env, threads), network, DEFAULT, env=env)
    again, *_ = run(FusedStep(network, env, threads), network, DEFAULT, env=env)
    np.testing.assert_allclose(first.parameters, one.parameters, atol=3e-5)
    np.testing.assert_allclose(first_stats, one_stats, rtol=2e-3, atol=2e-3)
    np.testing.assert_array_equal(first.parameters, again.parameters)


@pytest.mark.parametrize(("name", "threads"), [("fused", 1), ("fused", 2), ("torch", 1)])
def test_a_gradient_that_is_not_finite_changes_nothing_and_is_counted(name, threads):
    network = NetworkConfig(hidden_sizes=(8,))
    parameters = initial_parameters(ENV, network, 0)
    vectors = OptimizerVectors(parameters.copy(), np.zeros_like(parameters), np.zeros_like(parameters))
    batch = batch_of(network, parameters, 64)
    batch.advantages[:32] = np.nan
    step = make_step(LearnerConfig(step=name), network, ENV, threads)
    stats = step.epoch(vectors, batch, np.arange(64), 32, DEFAULT)
    assert (stats.tried, stats.skipped, vectors.gradient_steps) == (2, 1, 1)
    assert np.isfinite(vectors.parameters).all()
    assert np.isfinite(stats).all()
    clean = OptimizerVectors(parameters.copy(), np.zeros_like(parameters), np.zeros_like(parameters))
    step.epoch(clean, Batch(*(array[32:] for array in batch)), np.arange(32), 32, DEFAULT)
    np.testing.assert_allclose(vectors.parameters, clean.parameters, atol=1e-7)


def test_adam_and_the_norm_clip_are_torch_s():
    network = NetworkConfig(hidden_sizes=(8,))
    parameters = initial_parameters(ENV, network, 0)
    vectors = OptimizerVectors(parameters.copy(), np.zeros_like(parameters), np.zeros_like(parameters))
    batch = batch_of(network, parameters, 32)
    model = ActorCritic(ENV, network)
    leaf = torch.from_numpy(parameters.copy()).requires_grad_()
    optimizer = torch.optim.Adam([leaf], lr=DEFAULT.learning_rate, eps=DEFAULT.adam_epsilon)
    for _ in range(20):
        policy, values = model.evaluate(split_parameters(leaf, model.layout), torch.from_numpy(batch.observations))
        log_ratio = policy.log_prob(torch.from_numpy(batch.actions)) - torch.from_numpy(batch.log_probs)
        loss = (
            losses.clipped_surrogate_loss(log_ratio, losses.normalize_advantages(torch.from_numpy(batch.advantages)), torch.tensor(0.2))
            + 0.5 * losses.value_loss(values, torch.from_numpy(batch.returns))
            - 0.01 * policy.entropy()
        )
        optimizer.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_([leaf], DEFAULT.max_grad_norm)
        optimizer.step()
    step = FusedStep(network, ENV)
    for _ in range(20):
        step.epoch(vectors, batch, np.arange(32), 32, DEFAULT)
    np.testing.assert_allclose(vectors.parameters, leaf.detach().numpy(), atol=2e-6)


def test_auto_takes_the_kernel_on_a_cpu_and_torch_when_compilation_is_asked_for():
    network = NetworkConfig(hidden_sizes=(8,))
    assert make_step(LearnerConfig(), network, ENV).name == "fused"
    assert make_step(LearnerConfig(step="torch"), network, ENV).name == "torch"
    assert make_step(LearnerConfig(compile=True), network, ENV).name == "compiled"
    assert make_step(LearnerConfig(), SMALL_CNN, IMAGES).name == "torch"


def test_the_kernel_refuses_what_it_cannot_compute():
    with pytest.raises(UserError, match=r"learner.step fused computes MLPs only, but the network is network.torso cnn; use .* auto"):
        make_step(LearnerConfig(step="fused"), SMALL_CNN, IMAGES)


@pytest.mark.parametrize("shared", [False, True])
def test_a_cnn_learns_from_bytes(shared):
    """The loss on one batch falls, and the batch stays uint8."""
    network = dataclasses.replace(SMALL_CNN, shared=shared)
    step = make_step(LearnerConfig(), network, IMAGES)
    _, stats, _ = run(step, network, DEFAULT._replace(learning_rate=3e-3), epochs=20, env=IMAGES)
    assert stats[-1].mean("value_loss") < 0.8 * stats[0].mean("value_loss")
    assert stats[-1].mean("policy_loss") < stats[0].mean("policy_loss")
