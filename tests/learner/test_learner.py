"""The laws of an update: what it may not depend on, what it must count, and that its state is the whole truth."""

from __future__ import annotations

import copy
import dataclasses

import numpy as np
import pytest
import torch
from scripted_env import Scripted, gaussian_observations, spec_of

from distppo.algo.moments import standard_deviation
from distppo.collector import RolloutCollector
from distppo.config import load_config
from distppo.envs import VectorStepper
from distppo.errors import UserError
from distppo.learner import Learner
from distppo.learner.fragments import join_rollouts
from distppo.models.actor_critic import split_parameters

SMALL = {"num_envs": 4, "num_steps": 32, "mini_batch_size": 16, "epochs": 3, "hidden_sizes": [8, 8], "total_timesteps": 10_000}


def make_scripted():
    env = Scripted(7, False, gaussian_observations(), lambda o, a, t: float(o[0] - a[0] ** 2), observation_size=3)
    return env, spec_of(env)


class Run:
    """Collectors and a learner in one process, with the observations they saw."""

    def __init__(self, workers=2, **settings):
        overrides = {key: settings.pop(key) for key in list(settings) if "." in key}
        self.config = load_config(**{**SMALL, **settings}, overrides=overrides)
        share = self.config.rollout.num_envs // workers
        self.collectors = [
            RolloutCollector(self.config, make_scripted, VectorStepper, first_env=index * share, num_envs=share) for index in range(workers)
        ]
        self.learner = Learner(self.config, self.collectors[0].spec)
        self.snapshot = self.learner.snapshot()
        self.metrics = []
        self.fed = []
        self._ahead = None

    def collect(self, iteration):
        rollouts = copy.deepcopy([collector.collect(self.snapshot, iteration) for collector in self.collectors])
        self.fed.append(np.concatenate([collector._raw[:-1].reshape(-1, 3) for collector in self.collectors]))
        return rollouts

    def iterate(self, count=1, order=1):
        """In overlap mode the next fragments are collected before this iteration's are learned from."""
        for _ in range(count):
            rollouts = self._ahead or self.collect(self.learner.version)
            self._ahead = self.collect(self.learner.version + 1) if self.config.rollout.mode == "overlap" else None
            self.snapshot, metrics = self.learner.update(*rollouts[::order])
            self.metrics.append(metrics)
        return self


MODES = ["sync", "overlap"]


def bits(learner):
    arrays, values = learner.state()
    return {name: array.tobytes() for name, array in arrays.items()} | values


@pytest.mark.parametrize("mode", MODES)
def test_the_first_minibatch_has_ratio_1(mode):
    run = Run(epochs=1, mini_batch_size=128, num_steps=32, mode=mode)
    for iteration in range(3):
        run.iterate()
        assert run.metrics[-1]["train/gradient_steps"] == len(run.metrics)
        assert run.metrics[-1]["train/approx_kl"] == pytest.approx(0.0, abs=1e-9)
        assert run.metrics[-1]["train/clip_fraction"] == 0.0
        stale = mode == "overlap" and iteration > 0
        assert run.metrics[-1]["dist/staleness"] == stale
        assert (run.metrics[-1]["dist/ratio_error"] < 1e-5) is not stale


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("step", ["fused", "torch"])
def test_the_same_seed_gives_the_same_bits_and_another_seed_others(step, mode):
    first, again, other = (Run(seed=seed, mode=mode, **{"learner.step": step}).iterate(3) for seed in (1, 1, 2))
    assert bits(first.learner) == bits(again.learner)
    assert bits(first.learner)["parameters"] != bits(other.learner)["parameters"]


@pytest.mark.parametrize("mode", MODES)
def test_the_order_in_which_fragments_arrive_changes_nothing(mode):
    assert bits(Run(workers=4, mode=mode).iterate(3).learner) == bits(Run(workers=4, mode=mode).iterate(3, order=-1).learner)


@pytest.mark.parametrize("mode", MODES)
def test_the_normalizer_counts_every_env_step_and_knows_the_observations_fed(mode):
    run = Run(mode=mode).iterate(4)
    fed, moments = np.concatenate(run.fed[:4]), run.snapshot.obs_moments
    assert moments.count == len(fed) == run.learner.env_steps == run.metrics[-1]["dist/obs_count"] == 4 * 4 * 32
    np.testing.assert_allclose(moments.mean, fed.mean(axis=0), rtol=1e-12)
    np.testing.assert_allclose(standard_deviation(moments), fed.std(axis=0), rtol=1e-8)


@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        (lambda rollouts: rollouts[:1], "rollouts of 2 environments, the run has 4"),
        (lambda rollouts: [rollouts[0], rollouts[0]], "environment 2 is missing or there twice"),
        (lambda rollouts: [rollouts[0], rollouts[1]._replace(version=7)], "rollout of policy version 7, the learner expects 0"),
        (
            lambda rollouts: [rollout._replace(version=-1) for rollout in rollouts],
            "data of policy version -1 reached the learner at version 0",
        ),
    ],
)
def test_a_batch_that_is_not_exactly_one_iteration_is_refused(spoil, message):
    run = Run()
    with pytest.raises(AssertionError, match=message):
        run.learner.update(*spoil(run.collect(0)))


def test_workers_that_acted_with_another_policy_are_noticed():
    run = Run()
    rollouts = [rollout._replace(log_probs=rollout.log_probs + 0.1) for rollout in run.collect(0)]
    with pytest.raises(AssertionError, match="the workers acted with another policy"):
        run.learner.update(*rollouts)


@pytest.mark.parametrize("mode", MODES)
def test_a_loaded_state_continues_bit_for_bit(mode):
    run = Run(lr_schedule="kl", values=True, mode=mode).iterate(2)
    arrays, values = run.learner.state()
    resumed = Learner(run.config, run.collectors[0].spec)
    resumed.load_state(arrays, values)
    assert bits(resumed) == bits(run.learner)
    rollouts = run._ahead or run.collect(2)
    assert resumed.update(*rollouts)[1]["train/learning_rate"] == run.learner.update(*rollouts)[1]["train/learning_rate"]
    assert bits(resumed) == bits(run.learner)


def test_a_state_of_another_network_is_refused_by_the_array_s_name():
    state = Run().learner.state()
    with pytest.raises(UserError, match=r"parameters has shape .* need"):
        Run(hidden_sizes=[4]).learner.load_state(*state)


def test_staleness_1_is_allowed_in_overlap_mode_only():
    run = Run(mode="overlap")
    first, ahead = run.collect(0), Run(mode="overlap").collect(0)
    _, metrics = run.learner.update(*first)
    assert metrics["dist/staleness"] == 0.0
    _, metrics = run.learner.update(*[rollout._replace(iteration=1) for rollout in ahead])
    assert metrics["dist/staleness"] == 1.0


def test_target_kl_stops_the_epochs():
    free, stopped = Run(learning_rate=0.02).iterate(), Run(learning_rate=0.02, target_kl=1e-4).iterate()
    assert free.metrics[0]["train/epochs"] == 3
    assert stopped.metrics[0]["train/epochs"] == 1
    assert stopped.metrics[0]["train/gradient_steps"] == 8


def test_the_kl_schedule_moves_the_rate_both_ways():
    assert Run(lr_schedule="kl", lr_schedule_kl=100.0, learning_rate=1e-4).iterate().metrics[0]["train/learning_rate"] == pytest.approx(
        1e-4 * 1.5**3
    )
    assert Run(lr_schedule="kl", lr_schedule_kl=1e-9, learning_rate=1e-4).iterate().metrics[0]["train/learning_rate"] == pytest.approx(
        1e-4 / 1.5**3
    )


def test_the_linear_schedule_follows_absolute_progress():
    run = Run(lr_schedule="linear", learning_rate=1e-3, total_timesteps=512).iterate(4)
    # 128 env steps an iteration: progress 0, 1/4, 1/2, 3/4 before each.
    assert [metrics["train/learning_rate"] for metrics in run.metrics] == pytest.approx([1e-3, 7.5e-4, 5e-4, 2.5e-4])


def test_rewards_are_scaled_by_the_std_of_the_discounted_return_and_never_shifted():
    run = Run(**{"ppo.gamma": 0.5})
    rollouts = run.collect(0)
    discounted = np.concatenate([collector._discounted_returns for collector in run.collectors], axis=1)
    _, metrics = run.learner.update(*rollouts)
    assert metrics["dist/reward_scale"] == pytest.approx(discounted.std(), rel=1e-6)
    assert Run(**{"normalization.rewards": False}).iterate().metrics[0]["dist/reward_scale"] == 1.0


def test_normalized_value_targets_leave_the_critic_a_unit_scale():
    def steady(values):
        run = Run(values=values, rewards=False, total_timesteps=100_000, learning_rate=3e-3, gamma=0.9, epochs=10).iterate(30)
        return run.metrics[-1]

    plain, normalized = steady(False), steady(True)
    assert normalized["value/return_mean"] == pytest.approx(plain["value/return_mean"], rel=0.15)
    assert normalized["value/return_mean"] > 10  # N(5, 2) rewards over gamma 0.9: far from unit scale
    assert normalized["value/mean"] == pytest.approx(normalized["value/return_mean"], rel=0.1)


def test_recomputed_advantages_change_the_update_from_the_second_epoch_on():
    once, twice = (Run(epochs=epochs, recompute_advantages=True).iterate() for epochs in (1, 2))
    plain_once, plain_twice = (Run(epochs=epochs).iterate() for epochs in (1, 2))
    assert bits(once.learner)["parameters"] == bits(plain_once.learner)["parameters"]
    assert bits(twice.learner)["parameters"] != bits(plain_twice.learner)["parameters"]


@pytest.mark.parametrize("choice", ["minibatch", "batch", "off"])
def test_every_advantage_normalization_trains(choice):
    metrics = Run(advantage_normalization=choice).iterate(2).metrics[-1]
    assert np.isfinite(list(metrics.values())).all()


def test_weights_that_are_no_longer_finite_end_the_run_with_the_way_out():
    broken = Run(mode="overlap")
    broken.learner.update(*broken.collect(0))
    broken.learner._vectors.parameters[:] = np.nan
    with pytest.raises(UserError, match=r"update 2 diverged: (\d+) of \1 gradients were not finite.*lower ppo.learning_rate"):
        broken.learner.update(*Run(mode="overlap").collect(0))


def too_large(run, iteration):
    """Rollouts with one reward that float32 holds and a squared error does not: some minibatches have no finite gradient."""
    rollouts = run.collect(iteration)
    rollouts[0].rewards[1, 0] = 1e37
    return rollouts


@pytest.mark.parametrize("settings", [{"normalization.values": True}, {"recompute_advantages": True}, {"rollout.mode": "overlap"}])
def test_value_clip_holds_on_to_what_the_critic_said_before_the_update(settings, monkeypatch):
    """Whatever its units become in the update, and however often targets are computed anew: no sample is clipped at its first step."""
    run = Run(value_clip=0.1, learning_rate=0.01, **settings).iterate(3)
    learner, seen = run.learner, []
    epoch, vectors = learner._step.epoch, learner._vectors

    def noted(state, batch, *rest):
        seen.append((vectors.parameters.copy(), batch))
        return epoch(state, batch, *rest)

    monkeypatch.setattr(learner._step, "epoch", noted)
    run.iterate()
    (parameters, first), *later = seen
    raw = learner._network.value(
        split_parameters(torch.from_numpy(parameters), learner._network.layout), torch.from_numpy(first.observations)
    )
    np.testing.assert_allclose(first.values, raw.numpy(), rtol=1e-4, atol=1e-5)
    assert len(later) == 2 and all((batch.values == first.values).all() for _, batch in later)


def test_a_policy_without_noise_is_told_as_one():
    """Rounding decides its probabilities; it is not the workers' fault."""
    with pytest.raises(UserError, match=r"standard deviation has come to 2\.1e-09 \(log -20\.0\).*raise network\.initial_log_std"):
        Run(initial_log_std=-20.0).iterate(3)


RAW = {"normalization.rewards": False, "ppo.advantage_normalization": "off", "normalization.values": True, "ppo.lr_schedule": "kl"}


@pytest.mark.parametrize("step", ["fused", "torch"])
def test_a_gradient_that_is_not_finite_ends_the_run_by_default(step):
    run = Run(step=step, **RAW).iterate()
    with pytest.raises(UserError, match=r"update 2 diverged: \d+ of \d+ gradients were not finite.*fault.on_nonfinite drop leaves out"):
        run.learner.update(*too_large(run, 1))


@pytest.mark.parametrize("step", ["fused", "torch"])
def test_a_dropped_update_leaves_weights_and_optimizer_as_they_were_and_counts_its_samples(step):
    run = Run(step=step, **RAW, **{"fault.on_nonfinite": "drop"}).iterate()
    before, values = bits(run.learner), run.learner.state()[1]
    _, metrics = run.learner.update(*too_large(run, 1))
    after = bits(run.learner)
    changed = {name for name in before if before[name] != after[name]}
    moments = {f"{name}_moments/{field}" for name in ("obs", "return") for field in ("count", "mean", "m2")}
    assert changed == moments | {"version", "env_steps", "dropped_in_a_row"}
    assert metrics["dist/obs_count"] == run.learner.env_steps == 2 * values["env_steps"]
    assert metrics["train/skipped_steps"] > 0
    (fault,) = run.learner.take_faults()
    assert (fault.kind, run.learner.take_faults()) == ("update_skipped", ())
    assert "weights and optimizer are as before it" in fault.done
    # The return moments have seen the reward, but nothing that is not finite is in them.
    assert all(np.isfinite(array).all() for array in run.learner.state()[0].values())
    run.snapshot = run.learner.snapshot()
    run.iterate()
    assert run.learner.state()[1]["dropped_in_a_row"] == 0


def test_a_run_whose_every_update_is_dropped_ends():
    run = Run(**RAW, **{"fault.on_nonfinite": "drop"})
    for iteration in range(5):
        run.snapshot, _ = run.learner.update(*too_large(run, iteration))
    with pytest.raises(UserError, match=r"update 6 diverged: .*, and so did the 5 before it"):
        run.learner.update(*too_large(run, 5))


def test_the_snapshot_is_a_value_of_its_own():
    run = Run()
    before = run.snapshot.parameters.copy()
    run.learner.update(*run.collect(0))
    np.testing.assert_array_equal(run.snapshot.parameters, before)
    assert run.snapshot.obs_moments.count == 0


def test_without_observation_normalization_the_policy_sees_raw_observations():
    run = Run(**{"normalization.observations": False}).iterate(2)
    rollout = run.collect(2)[0]
    np.testing.assert_allclose(rollout.observations[1:], run.collectors[0]._raw[1:].astype(np.float32))


def test_every_configured_number_of_envs_splits_into_workers_the_same_way():
    whole, split = Run(workers=1).iterate(2), Run(workers=4).iterate(2)
    np.testing.assert_allclose(whole.learner.state()[0]["parameters"], split.learner.state()[0]["parameters"], atol=1e-4)
    assert dataclasses.replace(whole.config) == split.config


def test_stale_data_is_clipped_around_the_current_policy_and_weighted_back_to_the_behaviour_policy():
    run = Run(mode="overlap", epochs=1, mini_batch_size=128, learning_rate=0.05)
    ahead = run.collect(1)  # with version 0, learned from at version 1
    _, first = run.learner.update(*run.collect(0))
    batch = run.learner._batch(join_rollouts(ahead, num_envs=4, version=0))
    stale, weights = run.learner._decoupled(batch)
    current = run.learner._log_probs(batch.observations, batch.actions)
    np.testing.assert_array_equal(stale.log_probs, current)
    np.testing.assert_allclose(weights, np.exp(np.clip(current - batch.log_probs, -1.0, 1.0)), rtol=1e-6)
    assert np.abs(weights - 1.0).max() > 0.01
    _, second = run.learner.update(*ahead)
    # The only gradient step starts at the current policy: it sees none of the staleness in its ratios.
    assert (first["dist/staleness"], second["dist/staleness"]) == (0.0, 1.0)
    assert second["train/approx_kl"] == pytest.approx(0.0, abs=1e-9)
    assert second["train/clip_fraction"] == 0.0


def test_an_update_leaves_the_process_s_arithmetic_as_it_was():
    Run().iterate()
    assert np.float32(1e-40) / np.float32(2) > 0
