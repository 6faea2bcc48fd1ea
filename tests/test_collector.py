"""The laws of a fragment: what the policy saw, what it did, what the environment said, and nothing else."""

from __future__ import annotations

import pickle
import subprocess
import sys

import numpy as np
import pytest
import torch
from probe_envs import Point
from scripted_env import Scripted, gaussian_observations, spec_of

from distppo.algo.moments import moments_of, standard_deviation
from distppo.algo.seeding import Purpose, env_seed
from distppo.collector import RolloutCollector
from distppo.config import load_config
from distppo.envs import VectorStepper, joined, make_env, part_of
from distppo.errors import EnvFaultError, UserError
from distppo.models.actor_critic import ActorCritic, initial_parameters, split_parameters
from distppo.models.architecture import resolved_network
from distppo.types import PolicySnapshot, PolicySpec


def make(length=10, terminates=False, observe=None, reward=lambda o, a, t: 1.0, limit=None):
    env = Scripted(length, terminates, observe or gaussian_observations(), reward, observation_size=3, action_size=2)
    return env, spec_of(env, limit)


def collector_of(make_env=make, num_envs=2, first_env=0, num_steps=25, states=None, first_iteration=0, **settings):
    config = load_config(num_envs=4, num_steps=num_steps, mini_batch_size=5, **settings)
    place = {"first_env": first_env, "num_envs": num_envs, "first_iteration": first_iteration}
    return RolloutCollector(config, make_env, VectorStepper, states=states, **place), config


def bits_of(rollout):
    """Everything in a rollout but its wall time, as bytes."""
    parts = [*rollout[3:10], *rollout.final_observations, *rollout.obs_moments, *rollout.return_moments]
    return [np.asarray(part).tobytes() for part in parts if isinstance(part, np.ndarray)] + [rollout.episodes]


def snapshot_of(config, spec, moments=None, version=0, clip=10.0):
    layout = ActorCritic(spec, config.network).layout
    parameters = initial_parameters(spec, config.network, 0)
    return PolicySnapshot(
        version, parameters, moments or moments_of(np.zeros((0, 3))), PolicySpec(spec, resolved_network(spec, config.network), layout, clip)
    )


@pytest.mark.parametrize("activation", ["tanh", "relu", "elu"])
@pytest.mark.parametrize("shared", [False, True])
def test_acting_in_numpy_is_the_torch_network(activation, shared):
    collector, config = collector_of(activation=activation, shared=shared, hidden_sizes=[16, 8])
    snapshot = snapshot_of(config, collector.spec)
    rollout = collector.collect(snapshot, 0)
    model = ActorCritic(collector.spec, config.network)
    policy = model.distribution(
        split_parameters(torch.from_numpy(snapshot.parameters), snapshot.spec.layout),
        torch.from_numpy(rollout.observations[:-1].reshape(-1, 3)),
    )
    log_probs = policy.log_prob(torch.from_numpy(rollout.actions.reshape(-1, 2))).detach().numpy()
    np.testing.assert_allclose(rollout.log_probs.reshape(-1), log_probs, atol=2e-6)
    np.testing.assert_allclose(collector._outputs.reshape(-1, 2), policy.mean.detach().numpy(), atol=1e-6)


def test_observations_are_normalized_by_the_snapshot_s_moments_and_clipped():
    collector, config = collector_of()
    moments = moments_of(np.random.default_rng(0).normal(5.0, 0.5, (100, 3)))
    rollout = collector.collect(snapshot_of(config, collector.spec, moments, clip=3.0), 0)
    expected = np.clip((collector._raw - moments.mean) / standard_deviation(moments), -3.0, 3.0)
    np.testing.assert_allclose(rollout.observations, expected, atol=1e-6)
    assert np.abs(rollout.observations).max() == 3.0


def test_the_moments_of_a_fragment_are_of_its_raw_observations_without_the_last():
    collector, config = collector_of()
    rollout = collector.collect(snapshot_of(config, collector.spec), 0)
    assert rollout.obs_moments.count == 25
    np.testing.assert_allclose(rollout.obs_moments.mean, collector._raw[:-1].mean(axis=0), rtol=1e-14)
    np.testing.assert_allclose(rollout.obs_moments.m2 / 25, collector._raw[:-1].var(axis=0), rtol=1e-12)


def test_the_next_fragment_begins_where_the_last_one_ended():
    collector, config = collector_of()
    snapshot = snapshot_of(config, collector.spec)
    last = collector.collect(snapshot, 0).observations[-1].copy()
    np.testing.assert_array_equal(collector.collect(snapshot, 1).observations[0], last)


@pytest.mark.parametrize("terminates", [False, True])
def test_the_end_of_an_episode_is_a_termination_or_a_truncation_with_its_real_final_observation(terminates):
    collector, config = collector_of(lambda: make(10, terminates, lambda env, step: np.full(3, float(step))))
    rollout = collector.collect(snapshot_of(config, collector.spec), 0)
    ends = np.zeros((25, 2), bool)
    ends[[9, 19]] = True
    np.testing.assert_array_equal(rollout.terminations, ends & terminates)
    np.testing.assert_array_equal(rollout.truncations, ends & (not terminates))
    final = rollout.final_observations
    assert final.steps.tolist() == ([] if terminates else [9, 9, 19, 19])
    assert final.envs.tolist() == ([] if terminates else [0, 1, 0, 1])
    # The episode ended in step 10; the next row is the reset's 0.
    assert (final.observations == 10.0).all()
    assert (rollout.observations[10] == 0.0).all()
    assert [(episode.env_index, episode.step, episode.length, episode.terminated) for episode in rollout.episodes] == [
        (0, 9, 10, terminates),
        (1, 9, 10, terminates),
        (0, 19, 10, terminates),
        (1, 19, 10, terminates),
    ]


def test_the_time_limit_truncates_unless_the_last_step_terminates():
    for terminates, length in ((False, 100), (True, 100), (True, 6)):
        collector, config = collector_of(lambda t=terminates, n=length: make(n, t, limit=6))
        rollout = collector.collect(snapshot_of(config, collector.spec), 0)
        at_the_end = terminates and length == 6
        assert rollout.terminations[5].all() == at_the_end
        assert rollout.truncations[5].all() != at_the_end
        assert all(episode.length == 6 for episode in rollout.episodes)


def test_returns_and_lengths_run_over_the_border_of_fragments():
    collector, config = collector_of(lambda: make(40, reward=lambda o, a, t: float(t)))
    snapshot = snapshot_of(config, collector.spec)
    assert collector.collect(snapshot, 0).episodes == ()
    (first, second) = collector.collect(snapshot, 1).episodes
    # 0 + 1 + ... + 39 = 780
    assert (first.episode_return, first.length, first.step) == (780.0, 40, 14)
    assert second.env_index == 1


def test_the_discounted_return_runs_over_an_episode_and_restarts_with_the_next():
    collector, config = collector_of(lambda: make(3), gamma=0.5)
    rollout = collector.collect(snapshot_of(config, collector.spec), 0)
    # 1, 1 + 0.5, 1 + 0.75, and again.
    np.testing.assert_allclose(collector._discounted_returns[:6, 0], [1.0, 1.5, 1.75, 1.0, 1.5, 1.75])
    np.testing.assert_allclose(rollout.return_moments.mean, collector._discounted_returns.mean(axis=0))


def test_what_an_environment_does_depends_on_its_index_not_on_who_hosts_it():
    both, config = collector_of(num_envs=2)
    second, _ = collector_of(num_envs=1, first_env=1)
    snapshot = snapshot_of(config, both.spec)
    for iteration in range(2):
        whole, part = both.collect(snapshot, iteration), second.collect(snapshot, iteration)
        np.testing.assert_array_equal(both._raw[:, 1], second._raw[:, 0])
        np.testing.assert_allclose(whole.actions[:, 1], part.actions[:, 0], atol=1e-6)


def make_point():
    env = Point(termination=0.1)
    return env, spec_of(env, 15)


def test_a_fragment_is_a_function_of_snapshot_iteration_and_states():
    """A collector made from the states before a fragment collects it again, bit for bit, episodes that began before it included."""
    first, config = collector_of(make_point)
    snapshot = snapshot_of(config, first.spec)
    first.collect(snapshot, 0)
    states = first.receipt().states
    expected = bits_of(first.collect(snapshot, 1))
    after = first.receipt().states
    second, _ = collector_of(make_point, states=states, first_iteration=1)
    assert bits_of(second.collect(snapshot, 1)) == expected
    receipt = second.receipt()
    assert receipt.faults == ()
    assert bits_of(second.collect(snapshot, 2)) == bits_of(first.collect(snapshot, 2))
    assert [array.tobytes() for array in after[1:5]] == [array.tobytes() for array in receipt.states[1:5]]


def test_states_are_cut_and_joined_at_environments():
    """What two environments had, two collectors of one go on with; to rounding, since the network sees other rows."""
    both, config = collector_of(make_point)
    snapshot = snapshot_of(config, both.spec)
    both.collect(snapshot, 0)
    states = both.receipt().states
    whole = both.collect(snapshot, 1)
    for env in range(2):
        part, _ = collector_of(make_point, num_envs=1, first_env=env, states=part_of(states, env, 1))
        np.testing.assert_allclose(part.collect(snapshot, 1).rewards[:, 0], whole.rewards[:, env], rtol=1e-4)
    again = joined([part_of(states, 1, 1), part_of(states, 0, 1)])
    assert again.observations.tobytes() == states.observations.tobytes() and again.captures == states.captures


def test_an_environment_that_cannot_be_captured_starts_a_new_episode_and_that_is_told_once():
    """The same new episode whenever it happens in this iteration; its books begin with it."""

    def remembering():
        env, spec = make()
        memory, observe = [], env._observe
        env._observe = lambda env, step: memory.append(step) or observe(env, step)
        return env, spec

    first, config = collector_of(remembering)
    snapshot = snapshot_of(config, first.spec)
    first.collect(snapshot, 0)
    states = first.receipt().states
    runs = [collector_of(remembering, states=states, first_iteration=1)[0] for _ in range(2)]
    rollouts = [bits_of(run.collect(snapshot, 1)) for run in runs]
    assert rollouts[0] == rollouts[1]
    (fault,) = runs[0].receipt().faults
    assert (fault.kind, fault.where, fault.times) == ("episode_restarted", "environments 0, 1", 2)
    assert "Scripted._observe is a builtins.function" in fault.why
    assert runs[0].receipt().faults == ()
    assert rollouts[0][-1][0].length == 10


def test_states_are_small():
    """They travel to the driver every iteration: under 2 kB for an environment of HalfCheetah."""
    config = load_config(num_envs=4, num_steps=16, mini_batch_size=16)
    collector = RolloutCollector(config, lambda: make_env(config.env), VectorStepper, first_env=0, num_envs=4)
    assert len(pickle.dumps(collector.receipt(), 5)) < 4 * 2000


def test_noise_is_drawn_anew_every_iteration_and_is_standard_normal():
    collector, config = collector_of(num_steps=5000, initial_log_std=0.5)
    snapshot = snapshot_of(config, collector.spec)
    first = (collector.collect(snapshot, 0).actions - collector._outputs) / np.exp(0.5)
    second = (collector.collect(snapshot, 1).actions - collector._outputs) / np.exp(0.5)
    assert abs(first.mean()) < 0.03
    assert first.std() == pytest.approx(1.0, abs=0.03)
    assert abs(np.corrcoef(first.ravel(), second.ravel())[0, 1]) < 0.03


def test_actions_are_stored_as_sampled_and_sent_clipped_and_rescaled():
    sent = []

    def make_bounded():
        env, _ = make(reward=lambda o, a, t: sent.append(a.copy()) or 0.0)
        low, high = np.array([-0.4, 1.0], np.float32), np.array([0.4, 3.0], np.float32)
        env.action_space = type(env.action_space)(low, high, dtype=np.float32)
        return env, spec_of(env)

    collector, config = collector_of(make_bounded, num_envs=1, initial_log_std=1.0)
    rollout = collector.collect(snapshot_of(config, collector.spec), 0)
    clipped = np.clip(rollout.actions[:, 0], -1.0, 1.0)
    assert np.abs(rollout.actions).max() > 1.0
    np.testing.assert_allclose(np.array(sent), clipped * [0.4, 1.0] + [0.0, 2.0], atol=1e-6)


@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        ({"reward": lambda o, a, t: float("nan") if t == 4 else 0.0}, r"environment 0 .* gave reward = nan at step 4"),
        ({"reward": lambda o, a, t: 1e300 if t == 4 else 0.0}, r"environment 0 .* gave reward = inf at step 4"),
        ({"observe": lambda env, step: np.array([0.0, np.inf if step == 5 else 0.0, 0.0])}, r"gave observation element 1 = inf at step 4"),
        ({"observe": lambda env, step: np.array([0.0, -1e200 if step == 5 else 0.0, 0.0])}, r"observation element 1 = -1e\+200 at step 4"),
        (
            {"observe": lambda env, step: np.full(3, np.nan if step == 0 else 0.0)},
            r"observation element 0 = nan in its reset",
        ),
        ({"observe": lambda env, step: np.full(3, np.nan if step == 10 else 0.0)}, r"environment 0 .* ended in observation .* at step 9"),
    ],
)
@pytest.mark.filterwarnings("ignore:overflow encountered in cast:RuntimeWarning")
def test_nothing_non_finite_gets_into_a_fragment(spoil, message):
    """Environment, step and element are named; the record has what is needed to see it again."""
    collector, config = collector_of(lambda: make(**spoil))
    with pytest.raises(EnvFaultError, match=message) as caught:
        collector.collect(snapshot_of(config, collector.spec), 0)
    assert caught.value.fault.kind == "env_nonfinite"
    assert caught.value.fault.record.reset_seed == env_seed(0, Purpose.ENV_RESET, 0, 0)
    assert str(pickle.loads(pickle.dumps(caught.value))) == str(caught.value)


def test_raw_observations_must_fit_the_network_s_numbers_where_they_are_not_normalized():
    collector, config = collector_of(lambda: make(observe=lambda env, step: np.full(3, 1e60 if step == 5 else 0.0)))
    collector.collect(snapshot_of(config, collector.spec), 0)
    with pytest.raises(EnvFaultError, match=r"element 0 = 1e\+60 at step 4"), np.errstate(over="ignore"):
        collector_of(lambda: make(observe=lambda env, step: np.full(3, 1e60 if step == 5 else 0.0)))[0].collect(
            snapshot_of(config, collector.spec, clip=None), 0
        )


def test_a_policy_that_diverged_is_told_from_an_environment_that_did():
    collector, config = collector_of(on_nonfinite="drop")
    snapshot = snapshot_of(config, collector.spec)
    snapshot.parameters[0] = np.nan
    with pytest.raises(UserError, match=r"the policy of version 0 diverged: environment 0 .* action element 0 = nan at step 0"):
        collector.collect(snapshot, 0)


class Breaking(Point):
    """Breaks at its k-th step, if it is the one: what it is was decided when it was made."""

    def __init__(self, at, how):
        super().__init__(termination=0.1)
        self._left, self._how = at, how

    def step(self, action):
        self._left -= 1
        if self._left == 0 and self._how == "raise":
            raise RuntimeError("the wheel came off")
        observation, *rest = super().step(action)
        return (observation * np.nan if self._left == 0 else observation), *rest


def breaking(lives, how="raise"):
    """A `make_env` whose environments break after so many steps each, in the order they are made; the rest never do."""
    lives = iter(lives)

    def make_breaking():
        env = Breaking(next(lives, 0), how)
        return env, spec_of(env, 15)

    return make_breaking


@pytest.mark.parametrize("how", ["raise", "nan"])
def test_only_the_broken_environment_is_made_anew_and_its_column_has_exactly_its_steps(how):
    """The others are as in a fragment where nothing happened; the column is a fragment of its own from a reset, books included."""
    settings = {"num_envs": 3, "overrides": {"fault.on_nonfinite": "drop"}}
    whole, config = collector_of(breaking([]), **settings)
    collector, _ = collector_of(breaking([0, 37, 0], how), **settings)
    snapshot = snapshot_of(config, whole.spec)
    for iteration in range(2):
        expected, rollout = whole.collect(snapshot, iteration), collector.collect(snapshot, iteration)
    for mine, its in zip(rollout[3:9], expected[3:9], strict=True):
        np.testing.assert_array_equal(mine[:, [0, 2]], its[:, [0, 2]])
    assert [e for e in rollout.episodes if e.env_index != 1] == [e for e in expected.episodes if e.env_index != 1]
    assert sorted(rollout.episodes, key=lambda e: (e.step, e.env_index)) == list(rollout.episodes)
    ended = rollout.terminations[:, 1] | rollout.truncations[:, 1]
    mine = [e for e in rollout.episodes if e.env_index == 1]
    assert [e.step for e in mine] == np.flatnonzero(ended).tolist() and mine[0].length == mine[0].step + 1
    assert rollout.obs_moments.count == rollout.return_moments.count == 25 and np.isfinite(rollout.obs_moments.m2).all()
    np.testing.assert_allclose(rollout.obs_moments.mean[1], collector._raw[:-1, 1].mean(axis=0))
    assert set(rollout.final_observations.envs.tolist()) <= {0, 1, 2}
    (fault,) = collector.receipt().faults
    assert fault.kind == {"raise": "env_error", "nan": "env_nonfinite"}[how]
    assert fault.where == "environment 1, iteration 1, step 11 of the fragment" and "attempt 1" in fault.done
    # It goes on like any other, and what it collects is a function of its state too.
    states = collector.receipt().states
    again, _ = collector_of(breaking([]), states=states, first_iteration=2, **settings)
    assert bits_of(again.collect(snapshot, 2)) == bits_of(collector.collect(snapshot, 2))


def test_the_new_episode_is_another_one_at_every_attempt_and_the_same_in_every_repetition():
    """Otherwise what led to the fault would be repeated; and a worker that is replaced collects the same."""
    first_rows = []
    for lives in ([30, 0], [30, 20, 0], [30, 20, 0]):
        collector, config = collector_of(breaking(lives), num_envs=1, overrides={"fault.env_restart_backoff": 0})
        snapshot = snapshot_of(config, collector.spec)
        collector.collect(snapshot, 0)
        first_rows.append(bits_of(collector.collect(snapshot, 1))[0])
        assert len(collector.receipt().faults) == len(lives) - 1
    assert first_rows[1] == first_rows[2] != first_rows[0]


def test_an_environment_that_cannot_be_made_again_is_tried_again_too():
    """A licence server that is away for a moment."""
    lives = breaking([10, 0, 0])
    made = []

    def make_sometimes():
        made.append(None)
        if len(made) == 2:
            raise UserError("no licence")
        return lives()

    collector, config = collector_of(make_sometimes, num_envs=1, overrides={"fault.env_restart_backoff": 0})
    rollout = collector.collect(snapshot_of(config, collector.spec), 0)
    assert rollout.obs_moments.count == 25 and len(made) == 3
    assert [fault.why.splitlines()[-1].strip() for fault in collector.receipt().faults] == [
        "RuntimeError: the wheel came off",
        "no licence",
    ]


@pytest.mark.parametrize("restarts", [0, 2])
def test_after_so_many_attempts_the_traceback_is_the_message(restarts):
    collector, config = collector_of(
        breaking([10] * 9), num_envs=1, overrides={"fault.max_env_restarts": restarts, "fault.env_restart_backoff": 0}
    )
    with pytest.raises(EnvFaultError, match="RuntimeError: the wheel came off") as caught:
        collector.collect(snapshot_of(config, collector.spec), 0)
    assert ("made anew 2 times for this fragment (fault.max_env_restarts)" in str(caught.value)) == (restarts > 0)
    record = caught.value.fault.record
    assert (record.step, len(record.actions), len(record.observations)) == (9, 10, 10)


def test_a_worker_does_not_import_torch():
    code = "import sys, distppo.runtime.processes; sys.exit('torch' in sys.modules or 'numba' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
