"""What the first reset and step must return, what `env.check` says of an environment, and the shipped wrapper."""

from __future__ import annotations

from typing import Any

import gymnasium as gym
import numpy as np
import pytest
from probe_envs import Point

from distppo.cli import main
from distppo.config import Plugin
from distppo.config.schema import EnvConfig
from distppo.envs import VectorStepper, make_env
from distppo.envs.check import examine_env, require_sound
from distppo.envs.contract import reset_findings, step_findings
from distppo.envs.wrappers import ActionRatePenalty
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
        ((GOOD, np.zeros(1), False, False, {}), "the reward array([0.]), which is an array, not a number", True),
        ((GOOD, np.array(0.5), False, False, {}), "the reward array(0.5), which is an array, not a number", False),
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

    def __init__(self, after: int) -> None:
        super().__init__()
        self.observation_space = gym.spaces.Box(-200.0, 200.0, (3,), np.float64)
        self._left = after

    def step(self, action: Any) -> Any:
        observation, *rest = super().step(action)
        self._left -= 1
        return (observation + 1000 * (self._left < 0), *rest)


def stepped(env: gym.Env, steps: int) -> VectorStepper:
    stepper = VectorStepper([env], first_env=7, max_episode_steps=None, gamma=0.9)
    raw, flags = np.zeros((1, 3)), np.zeros((2, 1), bool)
    stepper.reset([0], raw)
    for t in range(steps):
        stepper.step(t, np.zeros((1, 2), np.float32), raw, np.zeros(1, np.float32), flags[0], flags[1], np.zeros(1))
    return stepper


def test_the_first_step_is_looked_at_and_the_others_cost_nothing() -> None:
    """The environment, the value and the fix are named; from the second step on the environment's own method is called."""
    with pytest.raises(
        UserError, match=r"^environment 7 \(Outside\): step\(\) gave an observation outside .* Fix: widen observation_space"
    ):
        stepped(Outside(0), 1)
    env = Outside(1)
    assert stepped(env, 2)._steps == [env.step]


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


@pytest.mark.parametrize(
    ("name", "kwargs", "says", "problems"),
    [
        ("probe_envs:Point", {"length": 5}, [], 0),
        ("probe_envs:Point", {"termination": 0.0}, ["no episode ended within 1000 steps", "set env.max_episode_steps"], 0),
        ("envs.test_contract:Unseeded", {}, ["reset(seed=1) gives another first observation each time", "self.np_random"], 1),
        ("envs.test_contract:Old", {}, ["the environment raised an error", "unexpected keyword argument 'seed'"], 2),
        ("envs.test_contract:Outside", {"after": 3}, ["outside its space", "clip what is returned"], 1),
        ("envs.test_contract:Reusing", {}, ["changes the array it has returned before", "return a copy"], 0),
        ("probe_envs:Failing", {"how": "inf_reward", "after": 2}, ["the reward at step", "is not finite: inf"], 1),
        ("probe_envs:Failing", {"how": "nan", "after": 2}, ["the observation at step", "is not finite"], 1),
        ("probe_envs:Failing", {"how": "shape"}, ["shape (2,), but its observation_space has shape (3,)"], 1),
        ("probe_envs:Failing", {"how": "raise", "after": 9}, ["the wheel came off", "mend it where the last frame points"], 2),
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


def test_the_command_prints_the_report(capsys: pytest.CaptureFixture[str]) -> None:
    """Exit code 0 if all is well, 2 if not; HalfCheetah is well."""
    assert main(["env", "check", "HalfCheetah-v4"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[0] == "HalfCheetah-v4: observations [17], actions [6], 1000 steps" and lines[-1] == "0 problems"
    assert [line.split()[0] for line in lines[1:-1]] == ["ok"] * 4
    assert main(["env", "check", "probe_envs:Failing-v0", "--set", "env.kwargs.how=shape"]) == 2
    assert "problem" in capsys.readouterr().out


def test_the_action_rate_penalty_is_the_mean_squared_change() -> None:
    """By hand: from (0, 0) to (1, -1) the mean square is 1, from there to (1, 1) it is 2; the first action of an episode costs nothing."""
    plain, config = (
        Point(termination=0.0),
        EnvConfig("probe_envs:Point", {"termination": 0.0}, (Plugin("distppo.envs.wrappers:ActionRatePenalty"),)),
    )
    wrapped, _ = make_env(config)
    assert isinstance(wrapped, ActionRatePenalty)
    for _ in range(2):
        plain.reset(seed=3)
        wrapped.reset(seed=3)
        for action, change in (((0, 0), 0.0), ((1, -1), 1.0), ((1, 1), 2.0)):
            expected = plain.step(np.array(action, np.float32))[1]
            _, reward, *_, info = wrapped.step(np.array(action, np.float32))
            assert reward == pytest.approx(expected - 0.1 * change) and info["action_rate_penalty"] == pytest.approx(0.1 * change)


class Repeat(gym.Wrapper):
    """Takes every action twice."""

    def step(self, action: Any) -> Any:
        result = self.env.step(action)
        return result if result[2] or result[3] else self.env.step(action)


def test_wrappers_see_the_registered_limit_and_the_setting_counts_the_policy_s_steps() -> None:
    """As with Gymnasium, an action repeated twice ends a 20 step episode after 10; env.max_episode_steps is what it says."""
    config = EnvConfig("probe_envs:Point-v0", {"termination": 0.0}, (Plugin("envs.test_contract:Repeat"),))
    env, spec = make_env(config)
    env.reset(seed=0)
    ends = [env.step(np.zeros(2, np.float32))[3] for _ in range(10)]
    assert ends == [False] * 9 + [True] and spec.max_episode_steps == 20
    env, spec = make_env(EnvConfig(config.id, config.kwargs, config.wrappers, max_episode_steps=30))
    env.reset(seed=0)
    assert not any(env.step(np.zeros(2, np.float32))[3] for _ in range(30)) and spec.max_episode_steps == 30


@pytest.mark.parametrize(
    ("config", "message"),
    [
        (EnvConfig("probe_envs:Piont"), "env.id 'probe_envs:Piont': no environment 'Piont' is registered - did you mean Point?"),
        (EnvConfig("probe_envs:TIME_LIMIT"), "env.id 'probe_envs:TIME_LIMIT' is int 20, neither a class nor a function"),
        (EnvConfig("probe_envs:read_log", {"path": "x"}), "could not be made with env.kwargs {'path': 'x'}:\n"),
        (EnvConfig("math:sqrt"), "env.id 'math:sqrt' cannot be called with no arguments: missing a required argument"),
        (EnvConfig("builtins:dict"), "gave dict, not a gymnasium.Env: derive the class from gymnasium.Env"),
        (EnvConfig("probe_envs:Point", {"lenght": 3}), "env.id 'probe_envs:Point' does not take lenght - did you mean length?"),
        (
            EnvConfig("probe_envs:Point", {}, (Plugin("no_such:W"),)),
            "env.wrappers[0] 'no_such:W': No module named 'no_such'; is it installed",
        ),
        (EnvConfig("probe_envs:Point", {}, (Plugin("probe_envs:Duobled"),)), "probe_envs has no Duobled - did you mean Doubled?"),
        (
            EnvConfig("probe_envs:Point", {}, (Plugin("probe_envs:Doubled"), Plugin("builtins:list"))),
            "env.wrappers[1] 'builtins:list' could not be made:\n",
        ),
        (EnvConfig("probe_envs:Point", {}, (Plugin("builtins:repr"),)), "gave str, which is not a gymnasium.Wrapper: derive it from one"),
        (
            EnvConfig("probe_envs:Point", {}, (Plugin("distppo.envs.wrappers:ActionRatePenalty", {"wieght": 1}),)),
            "env.wrappers[0] 'distppo.envs.wrappers:ActionRatePenalty' does not take wieght - did you mean weight?",
        ),
        (
            EnvConfig("probe_envs:Point", {}, (Plugin("distppo.envs.wrappers:ActionRatePenalty", {"weight": -1}),)),
            "ValueError: weight must be at least 0, got -1",
        ),
    ],
)
def test_a_class_or_wrapper_that_does_not_fit_is_told(config: EnvConfig, message: str) -> None:
    """Before any actor starts, with what was probably meant."""
    with pytest.raises(UserError) as caught:
        make_env(config)
    assert message in str(caught.value)


def test_a_run_with_env_check_says_what_was_examined_and_does_not_start_with_a_problem(tmp_path, capsys) -> None:
    """The note is on the display; the error has exit code 2."""
    short = ["--num-workers", "0", "--num-steps", "64", "--total-timesteps", "1", "--set", "evaluation.every=0", "ppo.mini_batch_size=64"]
    run = ["train", *short, "--no-progress", "--set", "env.check=true", "--run-dir", str(tmp_path / "run")]
    assert main([*run, "--env", "probe_envs:Point-v0"]) == 0
    assert "ok       seeding" in capsys.readouterr().out
    assert main([*run, "--env", "envs.test_contract:Outside", "--set", "env.kwargs.after=3"]) == 2
    assert "env.check found" in capsys.readouterr().err
