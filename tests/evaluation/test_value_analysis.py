"""Value analysis where the truth is known: by hand, against a second computation of everything, and of critics that were trained."""

from __future__ import annotations

import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from runtime.running import SMALL, Run
from scripted_env import Scripted, spec_of

from distppo.checkpoint import load_checkpoint, resolve_checkpoint
from distppo.evaluation.episodes import EpisodeResult
from distppo.evaluation.restore import env_spec_of, learner_state_of, snapshot_of
from distppo.evaluation.session import Options, Session
from distppo.evaluation.value_analysis import along_the_episode, analyze, calibration, compare, histogram, realised_returns, td_errors
from distppo.evaluation.values import Trace, ValueFunction, play_traced, value_units
from distppo.learner import Learner
from distppo.runtime.train import train

GAMMA = 0.9
LENGTH = 8


def trace_of(rewards: Any, values: Any, *, terminated: bool, episode: int = 0) -> Trace:
    result = EpisodeResult(episode, float(np.sum(rewards)), len(rewards), 11, terminated)
    return Trace(result, np.asarray(rewards, float), np.asarray(values, float))


class Still:
    """A policy that does nothing."""

    def act(self, observation: Any, **_: Any) -> np.ndarray:
        return np.zeros(1, np.float32)


def countdown(terminates: bool, error: Callable[[np.ndarray], np.ndarray]) -> list[Trace]:
    """Three episodes that pay 1 a step, with the true values off by `error` of the timestep.

    V(t) = (1 - gamma^(L-t)) / (1 - gamma) where the L-th step terminates; 1 / (1 - gamma) where the episode is only cut there.
    """
    env = Scripted(LENGTH, terminates, lambda env, t: np.array([float(t)]), lambda o, a, t: 1.0)

    def value(observations: Any) -> np.ndarray:
        steps = np.concatenate(observations)
        left = LENGTH - steps if terminates else math.inf
        return (1 - GAMMA**left) / (1 - GAMMA) + error(steps)

    return play_traced(env, spec_of(env), Still(), value, range(3), seed=0, deterministic=True)  # type: ignore[arg-type]


def test_the_true_values_have_no_error_at_all() -> None:
    """Of a terminated episode, R2 1, and every TD error 0."""
    report, compared = analyze(countdown(True, np.zeros_like), gamma=GAMMA)
    assert report["bias"] == pytest.approx(0, abs=1e-12) and report["rmse"] == pytest.approx(0, abs=1e-12)
    assert report["r2"] == pytest.approx(1) and report["explained_variance"] == pytest.approx(1)
    assert max(np.abs(one.td_errors).max() for one in compared) < 1e-12
    assert report["settled"]["steps"] == report["steps"] == 3 * LENGTH


def test_a_truncated_episode_is_worth_what_it_would_have_gone_on_to_pay() -> None:
    """Cut after 8 steps, each step is worth 1 / (1 - 0.9) = 10 all the same; outcomes that do not vary leave R2 undefined."""
    report, compared = analyze(countdown(False, np.zeros_like), gamma=GAMMA)
    np.testing.assert_allclose(compared[0].realised, 10.0)
    assert report["bias"] == pytest.approx(0, abs=1e-9) and math.isnan(report["r2"]) and math.isnan(report["correlation"])
    # The bootstrap weighs 0.9^8 = 0.43 at the start and 0.9 at the end, never as little as 5%.
    np.testing.assert_allclose(compared[0].bootstrap_weight, 0.9 ** np.arange(8, 0, -1))
    assert report["settled"]["steps"] == 0 and math.isnan(report["settled"]["bias"])


def test_bias_and_r2_of_a_critic_that_is_off_are_as_by_hand() -> None:
    """Two steps that pay 1 and 3, gamma 0.5, then the end: G = (2.5, 3). Predictions (3.5, 3): errors (1, 0).

    Bias (1 + 0) / 2 = 0.5; rmse sqrt(1 / 2); mean G 2.75, squared deviations 2 x 0.25^2 = 0.125, so R2 = 1 - 1 / 0.125 = -7;
    Var(error) = 0.25, Var(G) = 0.0625: explained variance 1 - 4 = -3. TD errors: 1 + 0.5 x 3 - 3.5 = -1 and 3 - 3 = 0.
    """
    report, (one,) = analyze([trace_of([1, 3], [3.5, 3, 99], terminated=True)], gamma=0.5)
    np.testing.assert_array_equal(one.realised, [2.5, 3.0])
    np.testing.assert_array_equal(one.td_errors, [-1.0, 0.0])
    found = {name: report[name] for name in ("bias", "rmse", "r2", "explained_variance", "predicted_mean", "realised_mean")}
    assert found == pytest.approx(
        {"bias": 0.5, "rmse": 0.5**0.5, "r2": -7, "explained_variance": -3, "predicted_mean": 3.25, "realised_mean": 2.75}
    )
    assert report["td_error"]["mean"] == -0.5


def test_a_constant_error_is_bias_and_costs_no_explained_variance() -> None:
    """True values + 2: bias 2; R2 = 1 - 4 / Var(G) with Var(G) over the 8 closed-form values."""
    report, _ = analyze(countdown(True, lambda steps: np.full(len(steps), 2.0)), gamma=GAMMA)
    truth = [(1 - GAMMA**left) / (1 - GAMMA) for left in range(8, 0, -1)]
    variance = sum((value - sum(truth) / 8) ** 2 for value in truth) / 8
    assert report["bias"] == pytest.approx(2) and report["explained_variance"] == pytest.approx(1)
    assert report["r2"] == pytest.approx(1 - 4 / variance)


@pytest.mark.parametrize("terminated", [True, False])
def test_returns_and_td_errors_agree_with_a_second_computation(terminated: bool) -> None:
    """The sum of gamma^k r_{t+k} written out, with V(s_T) behind it only where the episode was cut; TD errors add up to G - V."""
    rng = np.random.default_rng(3)
    rewards, values = rng.normal(size=30), rng.normal(size=31)
    one = compare(trace_of(rewards, values, terminated=terminated), gamma=0.97)
    for t in range(30):
        written_out = sum(0.97**k * rewards[t + k] for k in range(30 - t)) + (0 if terminated else 0.97 ** (30 - t) * values[30])
        assert one.realised[t] == pytest.approx(written_out)
        assert one.realised[t] - values[t] == pytest.approx(sum(0.97**k * one.td_errors[t + k] for k in range(30 - t)))
    assert realised_returns(rewards, 0.0, gamma=0.0) == pytest.approx(rewards)
    assert td_errors(rewards, values, terminated=terminated, gamma=0.0) == pytest.approx(rewards - values[:-1])


def test_calibration_sorts_by_prediction_into_bins_of_equal_size() -> None:
    """Six steps in three bins; realised values follow their own predictions."""
    predicted, realised = np.array([5.0, 1, 4, 2, 6, 3]), np.array([50.0, 10, 40, 20, 60, 30])
    rows = calibration(predicted, realised, bins=3)
    assert [(row["predicted"], row["realised"], row["steps"]) for row in rows] == [(1.5, 15, 2), (3.5, 35, 2), (5.5, 55, 2)]
    assert rows[0]["realised_std"] == 5.0
    assert len(calibration(np.array([1.0]), np.array([2.0]))) == 1


def test_the_bias_along_the_episode_counts_every_step_once() -> None:
    """Episodes of 5 and 2 steps in bins of 2: the first holds both, the later ones only the long one."""
    rows = along_the_episode([np.array([1.0, 1, 2, 2, 3]), np.array([3.0, 3])], bins=3)
    assert [(row["first_step"], row["last_step"], row["bias"], row["steps"]) for row in rows] == [(0, 1, 2, 4), (2, 3, 2, 2), (4, 4, 3, 1)]


def test_the_histogram_keeps_every_sample() -> None:
    """Outliers are counted in the outermost bins; samples that are all equal make a histogram too."""
    rows = histogram(np.concatenate([np.linspace(-1, 1, 1000), [500.0]]))
    assert sum(rows["counts"]) == 1001 and rows["edges"][-1] < 2
    assert sum(histogram(np.zeros(4))["counts"]) == 4


def test_episodes_are_ranked_by_their_bias() -> None:
    """Only those that are overestimated count as such, the worst first."""
    errors = {0: 1.0, 1: -2.0, 2: 5.0, 3: -0.5, 4: 0.0}
    traces = [trace_of([0.0], [error, 0], terminated=True, episode=episode) for episode, error in errors.items()]
    report, _ = analyze(traces, gamma=0.9)
    assert report["most_overestimated"] == [2, 0] and report["most_underestimated"] == [1, 3]


@pytest.fixture(scope="module")
def paid(tmp_path_factory: pytest.TempPathFactory) -> Run:
    """A critic trained where every state is worth 1 / (1 - 0.9) = 10, with rewards and value targets normalized."""
    settings = {
        "env.id": "probe_envs:Paid-v0", "rollout.num_steps": 64, "ppo.gamma": GAMMA, "ppo.epochs": 10, "ppo.learning_rate": 1e-2,
        "normalization.rewards": True, "normalization.values": True, "run.total_timesteps": 10_240,
        "run.directory": str(tmp_path_factory.mktemp("paid") / "run"),
    }  # fmt: skip
    return Run(train(overrides=SMALL | settings, progress=False))


def test_values_are_in_units_of_raw_reward_whatever_was_normalized(paid: Run, tmp_path: Path) -> None:
    """A trained critic says about 10, where its own output is about 0 and scaled rewards are several; realised returns follow it."""
    session = Session(Options(str(paid.directory), episodes=3, analyze_value=True, output=tmp_path), print)
    session.play()
    session.analyze()
    values = session.values
    assert values is not None and values["reward_scale"] > 1.5
    assert values["predicted_mean"] == pytest.approx(10, rel=0.05) and values["realised_mean"] == pytest.approx(10, rel=0.05)
    assert values["td_error"]["mean"] == pytest.approx(0, abs=0.1)


def test_a_checkpoint_s_values_are_the_learner_s(paid: Run) -> None:
    """The learner's V, in scaled reward, times the std of the discounted returns."""
    checkpoint = load_checkpoint(resolve_checkpoint(str(paid.directory), prefer="last"))
    snapshot, units = snapshot_of(checkpoint), value_units(checkpoint)
    arrays, values = learner_state_of(checkpoint)
    from distppo.evaluation.restore import config_of

    learner = Learner(config_of(checkpoint), env_spec_of(checkpoint))
    learner.load_state(arrays, values)
    raw = np.random.default_rng(0).normal(size=(600, 2))
    moments = snapshot.obs_moments
    seen = np.clip((raw - moments.mean) / np.sqrt(moments.m2 / moments.count + 1e-8), -10, 10).astype(np.float32)
    scale = np.sqrt(arrays["return_moments/m2"] / arrays["return_moments/count"] + 1e-8)
    assert units.reward_scale == pytest.approx(float(scale)) and units.scale != 1
    np.testing.assert_allclose(ValueFunction(snapshot, units)(raw), learner._values(seen) * scale, rtol=1e-4)
