"""Settings that do not fit together are told with the arithmetic, and only where each is right by itself."""

from __future__ import annotations

from typing import Any

import pytest

from distppo.config import load_config
from distppo.config.checks import divisors_around
from distppo.errors import ConfigError

WRONG = [
    (
        {"mini_batch_size": 100},
        "mini_batch_size=100  batch 16384 = 8 envs x 2048 steps is not a multiple of mini_batch_size 100: "
        "84 samples of every epoch would be left over; 64 or 128 divide it",
    ),
    # 2 x 17 = 34 = 2 * 17; nothing but 34 divides it above 33, and 17 below.
    ({"num_envs": 2, "num_steps": 17, "mini_batch_size": 33}, "1 sample of every epoch would be left over; 17 or 34 divide it"),
    # 31 is prime, and a minibatch of 1 is no advice.
    ({"num_envs": 1, "num_steps": 31, "mini_batch_size": 2}, "1 sample of every epoch would be left over; 31 divides it"),
    (
        {"num_envs": 2, "num_steps": 16},
        "mini_batch_size 64 is larger than the batch 32 = 2 envs x 16 steps: use at most 32, or more envs or steps",
    ),
    ({"num_workers": 12}, "num_workers=12  num_workers 12 > num_envs 8: 4 workers would have no environment; use at most 8, or auto"),
    ({"mini_batch_size": 1}, "advantage_normalization minibatch over 1 sample: its std is 0 and every advantage would become 0"),
    (
        {"num_envs": 1, "num_steps": 1, "mini_batch_size": 1, "advantage_normalization": "batch"},
        "advantage_normalization batch over 1 sample",
    ),
    ({"step": "fused", "device": "cuda"}, "learner.step fused runs on a CPU only, but learner.device is cuda"),
    ({"step": "fused", "compile": True}, "learner.compile compiles the torch step, but learner.step is fused"),
    ({"num_learners": 3}, "mini_batch_size 64 is not a multiple of num_learners 3; 2 or 4 divide it"),
    ({"num_learners": 100}, "mini_batch_size 64 is not a multiple of num_learners 100; 64 divides it"),
    ({"num_learners": 2, "num_workers": 0}, "num_learners 2 are Ray actors, but num_workers 0 does without Ray; use num_workers auto"),
    ({"num_learners": 2, "step": "fused"}, "num_learners 2 add up their gradients in every step, but step fused makes a whole epoch"),
    ({"kwargs": {"max_episode_steps": 5}}, "env.kwargs.max_episode_steps has a setting of its own: use env.max_episode_steps"),
]


@pytest.mark.parametrize(("settings", "message"), WRONG)
def test_settings_that_do_not_fit_are_told_with_the_arithmetic(settings: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError) as caught:
        load_config(**settings)
    (line,) = str(caught.value).splitlines()
    assert message in line


@pytest.mark.parametrize(
    "settings",
    [
        {"mini_batch_size": 16384},
        {"num_workers": 8},
        {"mini_batch_size": 1, "advantage_normalization": "batch"},
        {"mini_batch_size": 1, "advantage_normalization": "off"},
        {"step": "torch", "device": "cuda", "compile": True},
        {"device": "auto", "step": "fused"},
        {"num_learners": 64},
        {"num_learners": 4, "step": "torch", "compile": True},
    ],
)
def test_settings_at_the_edge_of_fitting_are_taken(settings: dict[str, Any]) -> None:
    load_config(**settings)


def test_the_place_is_every_setting_that_was_given_explicitly() -> None:
    with pytest.raises(ConfigError, match=r"^ppo.mini_batch_size=30, rollout.num_steps=10  batch 80 = 8 envs x 10 steps"):
        load_config(overrides=["ppo.mini_batch_size=30", "rollout.num_steps=10"])


@pytest.mark.parametrize("wrong", ["ppo.mini_batch_size=ten", "ppo.mini_batch_sise=20"])
def test_a_setting_with_a_problem_of_its_own_is_not_compared(wrong: str) -> None:
    with pytest.raises(ConfigError) as caught:
        load_config(overrides=[wrong, "rollout.num_steps=5", "rollout.num_workers=12"])
    lines = str(caught.value).splitlines()
    assert len(lines) == 2 and "mini_batch" in lines[0] and "num_workers 12 > num_envs 8" in lines[1]


def test_the_nearest_divisors_are_those_of_a_search_by_hand() -> None:
    for batch in range(2, 200):
        for size in range(1, batch):
            below = [d for d in range(2, size) if batch % d == 0][-1:]
            above = [d for d in range(size + 1, batch + 1) if batch % d == 0][:1]
            assert divisors_around(batch, size) == below + above
    assert divisors_around(2**80, 100) == []
