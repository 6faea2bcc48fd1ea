"""Stepping several environments: books, ends of episodes, and environments that break."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from probe_envs import Failing, Point

from distppo.envs import VectorStepper
from distppo.errors import UserError

NUM_ENVS = 2


class Fragment:
    """Buffers of a few steps."""

    def __init__(self, envs: list[Any], *, steps: int = 40, limit: int | None = None, gamma: float = 0.9) -> None:
        self.stepper = VectorStepper(envs, first_env=4, max_episode_steps=limit, gamma=gamma)
        n = len(envs)
        self.observations = np.zeros((steps + 1, n, 3))
        self.rewards, self.discounted = np.zeros((steps, n), np.float32), np.zeros((steps, n))
        self.terminations, self.truncations = np.zeros((steps, n), bool), np.zeros((steps, n), bool)

    def run(self) -> list[Any]:
        self.stepper.reset(range(len(self.stepper)), self.observations[0])
        return self.take_all()

    def take_all(self) -> list[Any]:
        ends = []
        for t in range(len(self.rewards)):
            actions = np.zeros((len(self.stepper), 2), np.float32)
            ends += self.stepper.step(
                t, actions, self.observations[t + 1], self.rewards[t], self.terminations[t], self.truncations[t], self.discounted[t]
            )
        return ends


def test_an_end_hands_out_the_final_observation_and_the_next_episode_begins() -> None:
    """The observation after an end is a reset's; the one it ended in, return and length come with it."""
    fragment = Fragment([Point(termination=0.1) for _ in range(NUM_ENVS)], limit=15)
    ends = fragment.run()
    assert {end.stats.terminated for end in ends} == {True, False}
    assert int(fragment.terminations.sum() + fragment.truncations.sum()) == len(ends)
    assert not (fragment.terminations & fragment.truncations).any()
    for end in ends:
        t, n, length = end.stats.step, end.env, end.stats.length
        flags = fragment.terminations if end.stats.terminated else fragment.truncations
        assert flags[t, n] and end.stats.env_index == 4 + n
        assert end.stats.terminated or length == 15
        assert end.stats.episode_return == pytest.approx(fragment.rewards[t + 1 - length : t + 1, n].sum(), rel=1e-5)
        assert not np.array_equal(fragment.observations[t + 1, n], end.observation)


def test_discounted_returns_start_again_with_each_episode() -> None:
    """G_t = gamma G_{t-1} + r_t, from 0 at the start of every episode."""
    fragment = Fragment([Point(termination=0.1) for _ in range(NUM_ENVS)], limit=15)
    fragment.run()
    expected = np.zeros(NUM_ENVS)
    for t in range(len(fragment.rewards)):
        expected = 0.9 * expected + fragment.rewards[t]
        np.testing.assert_allclose(fragment.discounted[t], expected, rtol=1e-5)
        expected[fragment.terminations[t] | fragment.truncations[t]] = 0.0


def test_an_environment_that_truncates_by_itself_is_a_truncation() -> None:
    """The limit that counts is the one reached first."""
    ends = Fragment([Point(termination=0.0, length=6)], limit=15).run()
    assert [(end.stats.length, end.stats.terminated) for end in ends] == [(6, False)] * 6


@pytest.mark.parametrize(
    ("how", "message"),
    [
        ("reset", "RuntimeError: the simulator has no licence"),
        ("reset_shape", "reset() gave an observation of shape (2,), but its observation_space has shape (3,)"),
    ],
)
def test_an_environment_that_cannot_start_is_named_with_its_reason(how: str, message: str) -> None:
    """Which one of the run it was, and the end of its traceback."""
    with pytest.raises(UserError) as caught:
        Fragment([Failing(how), Point()]).run()
    assert str(caught.value).startswith("environment 4 (Failing)") and message in str(caught.value)


@pytest.mark.parametrize(
    ("how", "message"),
    [
        ("raise", "RuntimeError: the wheel came off"),
        ("reward_type", "could not convert string to float: 'much'"),
        ("shape", "could not broadcast input array from shape (2,) into shape (3,)"),
    ],
)
def test_an_environment_that_raises_stands_still_and_the_others_go_on(how: str, message: str) -> None:
    """To the bit as if it were not there, whether they come before it or behind it in the same step."""
    alone = Fragment([Point(), Point()])
    ends = alone.run()
    fragment = Fragment([Point(), Failing(how, after=3), Point()])
    fragment.stepper.reset([0, 0, 1], fragment.observations[0])
    its_ends = fragment.take_all()
    ((n, broken),) = fragment.stepper.broken.items()
    assert (n, broken.step) == (1, 3)
    assert broken.text.startswith("environment 5 (Failing)") and message in broken.text
    assert broken.traceback.startswith("Traceback (most recent call last)")
    np.testing.assert_array_equal(fragment.observations[:, [0, 2]], alone.observations)
    np.testing.assert_array_equal(fragment.discounted[:, [0, 2]], alone.discounted)
    others = [(end.stats.step, end.stats.length, end.stats.episode_return) for end in its_ends if end.env != 1]
    assert others == [(end.stats.step, end.stats.length, end.stats.episode_return) for end in ends]


def test_another_environment_takes_the_place_of_a_broken_one_with_its_books() -> None:
    """As the mending of a fragment does."""
    fragment = Fragment([Point(), Failing("raise", after=3)])
    fragment.run()
    other = VectorStepper([Point()], first_env=5, max_episode_steps=None, gamma=0.9)
    other.reset([7], np.zeros((1, 3)))
    fragment.stepper.adopt(1, other)
    assert not fragment.stepper.broken
    states = fragment.stepper.states(fragment.observations[-1])
    assert states.lengths[1] == 0 and states.captures[1].obstacle is None


class Leaving(Point):
    """Exits instead of ending its episode."""

    def step(self, action: Any) -> Any:
        raise SystemExit(0)


def test_an_environment_that_exits_is_broken_and_the_others_go_on() -> None:
    """Nobody takes the end of the process for the end of the training."""
    fragment = Fragment([Point(), Leaving()], steps=3)
    fragment.run()
    assert list(fragment.stepper.broken) == [1] and "SystemExit: 0" in str(fragment.stepper.broken[1])
    assert np.isfinite(fragment.rewards[:, 0]).all() and (fragment.rewards[:, 0] != 0).any()
