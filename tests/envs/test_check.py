"""What `reset` and `step` must return, and what `env.check` says of an environment."""

from __future__ import annotations

from typing import Any

import gymnasium as gym
import numpy as np
import pytest
from probe_envs import Point

from distppo.cli import main
from distppo.config.schema import EnvConfig
from distppo.envs.check import examine_env, require_sound
from distppo.envs.contract import reset_findings, step_findings
from distppo.errors import UserError

BOX = gym.spaces.Box(-1.0, 1.0, (2,), np.float32)
GOOD = np.zeros(2, np.float32)


@pytest.mark.parametrize(
    ("result", "what", "stops"),
    [
        (GOOD, "returned an array, not a pair", True),
        ((np.zeros(3, np.float32), {}), "shape (3,), but its observation_space has shape (2,)", True),
        ((np.array([0, 1.5], np.float32), {}), "element 1 is 1.5, its bounds are -1 and 1", True),
        ((np.array(["a", "b"]), {}), "observation of dtype <U1", True),
        ((np.zeros(2), {}), "dtype float64; its space has float32", False),
        (([0.0, 0.0], {}), "a list; its space has float32", False),
        ((GOOD, None), "gave None as info", False),
    ],
)
def test_each_fault_of_a_reset_is_named(result: Any, what: str, stops: bool) -> None:
    """With a fix; what training can live with does not stop it."""
    (finding,) = reset_findings(result, BOX)
    assert what in finding.what and finding.stops == stops and finding.fix


@pytest.mark.parametrize(
    ("result", "what", "stops"),
    [
        ((GOOD, 0.0, False, {}), "step() returned a tuple of 4, not five values", True),
        ((GOOD, "much", False, False, {}), "the reward 'much', which is a str, not a number", True),
        ((GOOD, None, False, False, {}), "which is None, not a number", True),
        ((GOOD, np.zeros(2), False, False, {}), "which is an array, not a number", True),
        ((GOOD, np.zeros(1), False, False, {}), "which is an array, not a number", False),
        ((GOOD, 0.0, 1, False, {}), "terminated = 1, which is an int", False),
        ((GOOD, 0.0, False, None, {}), "truncated = None, which is None", False),
        ((GOOD, 0.0, False, False, []), "step() gave a list as info", False),
    ],
)
def test_each_fault_of_a_step_is_named(result: Any, what: str, stops: bool) -> None:
    """As for a reset."""
    (finding,) = step_findings(result, BOX)
    assert what in finding.what and finding.stops == stops and finding.fix


@pytest.mark.parametrize("reward", [1, 1.0, np.float32(1), np.float64(1), np.int64(1), True, np.bool_(True)])
def test_every_kind_of_number_is_a_reward(reward: Any) -> None:
    """And bounds hold up to the rounding of float32."""
    assert not list(step_findings((np.full(2, 1 + 1e-7), reward, np.bool_(False), False, {}), gym.spaces.Box(-1.0, 1.0, (2,), np.float64)))


class Outside(Point):
    """Leaves its bounds in the first step, or later."""

    def __init__(self, after: int = 3) -> None:
        super().__init__()
        self.observation_space = gym.spaces.Box(-200.0, 200.0, (3,), np.float64)
        self._left = after

    def step(self, action: Any) -> Any:
        observation, *rest = super().step(action)
        self._left -= 1
        return (observation + 1000 * (self._left < 0), *rest)


class Unseeded(Point):
    """Takes no notice of the seed."""

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> Any:
        return super().reset(options=options)


class Old(gym.Env):
    """Written for the interface of gym 0.21."""

    observation_space = BOX
    action_space = BOX

    def reset(self) -> Any:
        return GOOD

    def step(self, action: Any) -> Any:
        return GOOD, 0.0, False, {}


class Reusing(Point):
    """Returns the array it goes on to change."""

    def step(self, action: Any) -> Any:
        before = self._position
        _, *rest = super().step(action)
        before[:] = self._position
        self._position = before
        return (self._position, *rest)

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> Any:
        return (super().reset(seed=seed, options=options)[0], {}) and (self._position, {})


ENVIRONMENTS = {"Outside-v0": Outside, "Unseeded-v0": Unseeded, "Old-v0": Old, "Reusing-v0": Reusing, "Unlimited-v0": Point}
for environment in ENVIRONMENTS.keys() - gym.registry.keys():  # imported as a test, and again by the name of the environments
    gym.register(environment, entry_point=ENVIRONMENTS[environment])


@pytest.mark.parametrize(
    ("name", "kwargs", "says", "problems"),
    [
        ("probe_envs:Point-v0", {"length": 5}, [], 0),
        ("envs.test_check:Unlimited-v0", {"termination": 0.0}, ["no episode ended within 1000 steps", "set env.max_episode_steps"], 0),
        ("envs.test_check:Unseeded-v0", {}, ["reset(seed=1) gives another first observation each time", "self.np_random"], 1),
        ("envs.test_check:Old-v0", {}, ["the environment raised an error", "unexpected keyword argument 'seed'"], 2),
        ("envs.test_check:Outside-v0", {"after": 3}, ["outside its space", "clip what is returned"], 1),
        ("envs.test_check:Reusing-v0", {}, ["changes the array it has returned before", "return a copy"], 0),
        ("probe_envs:Failing-v0", {"how": "inf_reward", "after": 2}, ["the reward at step", "is not finite: inf"], 1),
        ("probe_envs:Failing-v0", {"how": "nan", "after": 2}, ["the observation at step", "is not finite"], 1),
        ("probe_envs:Failing-v0", {"how": "shape"}, ["shape (2,), but its observation_space has shape (3,)"], 1),
        ("probe_envs:Failing-v0", {"how": "raise", "after": 9}, ["the wheel came off", "mend it where the last frame points"], 2),
    ],
)
def test_the_check_finds_what_is_wrong(name: str, kwargs: dict[str, Any], says: list[str], problems: int) -> None:
    """All of it at once, each with its fix; a problem ends a run with env.check before it starts."""
    config = EnvConfig(name, kwargs)
    report = examine_env(config)
    text = "\n".join(report.lines())
    assert all(part in text for part in says), text
    assert (report.problems > 0) == (problems > 0), text
    assert text.count("fix: ") == sum(len(part.findings) for part in report.parts)
    if problems:
        with pytest.raises(UserError, match=r"env\.check found \d problems? with"):
            require_sound(config)


def test_a_run_with_env_check_says_what_was_examined_and_does_not_start_with_a_problem(tmp_path, capsys) -> None:
    """The note is on the display; the error has exit code 2."""
    short = ["--num-workers", "0", "--num-steps", "64", "--total-timesteps", "1", "--set", "evaluation.every=0", "ppo.mini_batch_size=64"]
    run = ["train", *short, "--no-progress", "--set", "env.check=true", "--run-dir", str(tmp_path / "run")]
    assert main([*run, "--env", "probe_envs:Point-v0"]) == 0
    assert "ok       seeding" in capsys.readouterr().out
    assert main([*run, "--env", "envs.test_check:Outside-v0"]) == 2
    assert "env.check found 2 problems" in capsys.readouterr().err
