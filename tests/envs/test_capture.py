"""Capturing and restoring: the same continuation to the last bit, or a reason why not."""

from __future__ import annotations

import copy
import json
from collections import deque
from typing import Any

import gymnasium as gym
import numpy as np
import pytest
from gymnasium.wrappers import DelayObservation, FrameStackObservation
from probe_envs import Point

from distppo.config.schema import EnvConfig
from distppo.envs import CaptureError, EnvCapturer, make_env, mujoco_state
from distppo.envs.capture import LONGEST_TEXT

BODIES = ["Ant", "HalfCheetah", "Hopper", "Humanoid", "HumanoidStandup", "InvertedDoublePendulum", "InvertedPendulum", "Swimmer"]
BODIES += ["Reacher", "Walker2d"]
MUJOCO = [f"{body}-v{version}" for body in BODIES for version in (4, 5)] + ["Pusher-v5"]
CONTINUED_STEPS = 300


def made(env_id: str) -> gym.Env[Any, Any]:
    return make_env(EnvConfig(id=env_id))[0]


def play(env: gym.Env[Any, Any], steps: int, seed: int) -> list[bytes]:
    """Steps with random actions and resets; returns the bits of everything that came back."""
    rng, space, answers = np.random.default_rng(seed), env.action_space, []
    for _ in range(steps):
        if isinstance(space, gym.spaces.Discrete):
            action = space.start + rng.integers(space.n)
        else:
            assert isinstance(space, gym.spaces.Box)
            action = rng.uniform(np.maximum(space.low, -10.0), np.minimum(space.high, 10.0)).astype(np.float32)
        observation, reward, terminated, truncated, _ = env.step(action)
        answers.append(np.asarray(observation).tobytes() + np.float64(reward).tobytes() + bytes([terminated, truncated]))
        if terminated or truncated:
            answers.append(np.asarray(env.reset()[0]).tobytes())
    return answers


def continued(env: gym.Env[Any, Any], fresh: gym.Env[Any, Any]) -> tuple[list[bytes], list[bytes]]:
    """What an environment does after 37 steps, and what a fresh one does that takes its state over, after some life of its own."""
    first, second = EnvCapturer(env), EnvCapturer(fresh)
    env.reset(seed=3)
    play(env, 37, seed=1)
    captured = first.capture()
    assert captured.obstacle is None, captured.obstacle
    # As a checkpoint stores it.
    stored = captured._replace(values=json.loads(json.dumps(captured.values, allow_nan=False)))
    fresh.reset(seed=99)
    play(fresh, 5, seed=2)
    second.restore(stored)
    return play(env, CONTINUED_STEPS, seed=7), play(fresh, CONTINUED_STEPS, seed=7)


@pytest.mark.parametrize("env_id", [*MUJOCO, "Pendulum-v1", "MountainCarContinuous-v0"])
def test_a_restored_environment_goes_on_with_the_same_bits(env_id: str) -> None:
    """300 steps with contacts, falls and resets: observations, rewards, ends."""
    first, second = continued(made(env_id), made(env_id))
    assert first == second


@pytest.mark.parametrize("env_id", ["Humanoid-v5", "Reacher-v4", "Ant-v4"])
def test_the_integration_state_alone_is_not_enough(env_id: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Why the lagging positions are stored: these environments read them before they step."""
    monkeypatch.setattr(mujoco_state, "LAGGING", ())
    first, second = continued(made(env_id), made(env_id))
    assert first[0] != second[0] and len(first) == len(second)


class Stateful(Point):
    """Every kind of attribute that is captured, with a generator of its own that shares its stream with nobody."""

    def __init__(self) -> None:
        super().__init__(termination=0.02)
        self._noise = np.random.Generator(np.random.MT19937(1))
        self._recent: deque[Any] = deque(maxlen=3)
        self._phase: tuple[int, float] | None = None
        self._table = {"best": -np.inf, "visited": [0, 0]}
        self._gain = np.float32(1.0)

    def step(self, action: Any) -> Any:
        observation, reward, *rest = super().step(action)
        self._recent.append(observation)
        self._phase = ((self._phase or (0, 0.0))[0] + 1, float(reward))
        self._table["best"] = max(self._table["best"], reward)
        self._table["visited"][int(reward > -1)] += 1
        self._gain = self._gain * np.float32(1.001)
        self.made_by_the_first_step = True
        observation = np.mean(self._recent, axis=0) * self._gain + self._noise.normal(size=3) + self._phase[0]
        return observation, reward + self._table["best"] + self._table["visited"][0], *rest


def test_plain_attributes_and_generators_are_state() -> None:
    """An environment in Python needs no method for it."""
    first, second = continued(Stateful(), Stateful())
    assert first == second


def test_wrappers_are_part_of_the_state() -> None:
    """Their queues too."""

    def wrapped() -> gym.Env[Any, Any]:
        return FrameStackObservation(DelayObservation(Stateful(), delay=2), stack_size=2)

    first, second = continued(wrapped(), wrapped())
    assert first == second


@pytest.mark.parametrize("env_id", ["FrozenLake-v1", "Taxi-v4", "CliffWalking-v1", "Blackjack-v1", "CartPole-v1", "Acrobot-v1"])
def test_tables_texts_and_flattened_observations_are_state(env_id: str) -> None:
    """Gymnasium's environments of choices, with their transition tables and maps; their observations are flattened."""
    first, second = continued(made(env_id), made(env_id))
    assert first == second


class Arm(Point):
    """Observes a Dict."""

    def __init__(self) -> None:
        super().__init__(termination=0.02)
        self.observation_space = gym.spaces.Dict({"point": self.observation_space, "close": gym.spaces.Discrete(2)})

    def _dict(self, observation: Any) -> dict[str, Any]:
        return {"point": observation.astype(np.float32), "close": int(observation[0] > 0)}

    def reset(self, **arguments: Any) -> Any:
        observation, info = super().reset(**arguments)
        return self._dict(observation), info

    def step(self, action: Any) -> Any:
        observation, *rest = super().step(action)
        return self._dict(observation), *rest


def test_dict_observations_are_state() -> None:
    """`make_env` flattens them."""

    def arm() -> gym.Env[Any, Any]:
        return make_env(EnvConfig(id=f"{__name__}:Arm"))[0]

    first, second = continued(arm(), arm())
    assert first == second


@pytest.mark.parametrize(
    "wrap",
    [
        lambda env: gym.wrappers.RescaleAction(env, np.float32(-0.5), np.float32(0.5)),
        gym.wrappers.ClipAction,
        lambda env: gym.wrappers.ClipReward(env, -1.0, 1.0),
        lambda env: gym.wrappers.TimeAwareObservation(gym.wrappers.TimeLimit(env, 50)),
        gym.wrappers.FlattenObservation,
        lambda env: gym.wrappers.TransformReward(env, lambda reward: 2.0 * reward),
        lambda env: gym.wrappers.RescaleObservation(env, np.float32(-1), np.float32(1)),
    ],
)
def test_gymnasium_s_wrappers_are_state(wrap: Any) -> None:
    """Those that hold functions with closures, too."""
    first, second = continued(wrap(made("Pendulum-v1")), wrap(made("Pendulum-v1")))
    assert first == second


class Randomized(gym.Wrapper[Any, Any, Any, Any]):
    """Draws masses, friction, gravity and the time step at every reset."""

    def reset(self, **arguments: Any) -> Any:
        answer = self.env.reset(**arguments)
        model: Any = self.unwrapped.model  # type: ignore[attr-defined]
        rng = self.unwrapped.np_random
        model.body_mass[1:] = rng.uniform(1.0, 3.0, len(model.body_mass) - 1)
        model.geom_friction[:, 0] = rng.uniform(0.5, 1.5, len(model.geom_friction))
        model.opt.gravity[2] = -rng.uniform(9.0, 10.0)
        model.opt.timestep = rng.uniform(0.0015, 0.0025)
        return answer


class Machine:
    """A simulator behind a handle."""

    def __init__(self) -> None:
        self.position = 0.0


class Handled(Point):
    """Keeps its state where nobody can see it."""

    def __init__(self) -> None:
        super().__init__(termination=0.0)
        self._machine = Machine()

    def step(self, action: Any) -> Any:
        self._machine.position += float(action[0])
        observation, reward, *rest = super().step(action)
        return observation + self._machine.position, reward, *rest


class Hooked(Handled):
    """And says what it is."""

    def capture_state(self) -> dict[str, Any]:
        return {"machine": self._machine.position, "position": self._position, "steps": self._steps}

    def restore_state(self, state: dict[str, Any]) -> None:
        self._machine.position, self._position, self._steps = state["machine"], state["position"], state["steps"]


def test_an_environment_can_capture_itself() -> None:
    """With capture_state and restore_state; its np_random comes with it."""
    first, second = continued(Hooked(), Hooked())
    assert first == second


class Sampling(Point):
    """Draws from a space, which has a generator of its own."""

    def reset(self, **arguments: Any) -> Any:
        self.action_space.sample()
        return super().reset(**arguments)


class Closed(Point):
    """Has a function with a memory."""

    def __init__(self) -> None:
        super().__init__()
        memory: list[int] = []
        self._observe = lambda: memory.append(1)

    def step(self, action: Any) -> Any:
        self._observe()
        return super().step(action)


class Growing(Point):
    """Remembers more and more."""

    def __init__(self, begun: bool = True) -> None:
        super().__init__()
        if begun:
            self._history: Any = []

    def step(self, action: Any) -> Any:
        self._history = getattr(self, "_history", []) + [0.5] * (LONGEST_TEXT // 6)
        return super().step(action)


class Wordy(Hooked):
    """Hands out a long text."""

    def capture_state(self) -> dict[str, Any]:
        return {"log": "x" * LONGEST_TEXT}


class Aliased(Point):
    """Has two names for one list."""

    def __init__(self) -> None:
        super().__init__()
        self.trail: list[float] = []
        self.view = {"trail": self.trail}

    def step(self, action: Any) -> Any:
        self.trail.append(float(action[0]))
        return super().step(action)


class Unplain(Hooked):
    """Hands out what cannot be stored."""

    def capture_state(self) -> dict[str, Any]:
        return {"machine": self._machine}


class Raising(Hooked):
    """Fails when it is asked."""

    def capture_state(self) -> dict[str, Any]:
        raise RuntimeError("not now")


@pytest.mark.parametrize(
    ("make", "obstacle"),
    [
        (Handled, "Handled._machine is a .*Machine; Handled can define capture_state and restore_state"),
        (Sampling, "Sampling.action_space is a gymnasium.spaces.box.Box that is sampled from"),
        (Closed, "Closed._observe is a builtins.function that has changed since it was made; Closed can define"),
        (Aliased, "Aliased.view and Aliased.trail share a list; Aliased can define"),
        (Unplain, r"Unplain.capture_state\(\) returns a .*Machine, which is not plain data"),
        (Raising, "its capture_state raised RuntimeError: not now"),
        (Growing, "Growing._history is more than 1,048,576 characters of plain data; Growing can define capture_state"),
        (lambda: Growing(begun=False), "Growing._history is more than 1,048,576 characters of plain data"),
        (lambda: gym.wrappers.TransformReward(Growing(), float), "Growing._history is more than 1,048,576"),
        (Wordy, r"Wordy.capture_state\(\) returns more than 1,048,576 characters of plain data"),
    ],
)
def test_what_cannot_be_captured_says_why(make: Any, obstacle: str) -> None:
    """Never a state that would go on differently."""
    env = make()
    capturer = EnvCapturer(env)
    env.reset(seed=0)
    play(env, 3, seed=0)
    captured = capturer.capture()
    assert captured.obstacle is not None and not captured.arrays and not captured.values
    with pytest.raises(CaptureError, match=obstacle):
        capturer.restore(captured)


def randomized(env_id: str = "Hopper-v5") -> gym.Env[Any, Any]:
    return Randomized(made(env_id))


@pytest.mark.parametrize("env_id", ["Hopper-v5", "Humanoid-v4"])
def test_a_model_that_resets_change_is_state(env_id: str) -> None:
    """Domain randomization: masses, friction, gravity and the time step are other ones in every episode."""
    first, second = continued(randomized(env_id), randomized(env_id))
    assert first == second and len(set(first)) == len(first)


def test_a_model_goes_back_to_how_it_was_made() -> None:
    """Where the captured one had not been changed, and the one that takes its place has."""
    first, second = randomized(), randomized()
    capturers = EnvCapturer(first), EnvCapturer(second)
    first.env.reset(seed=0)  # past the wrapper
    captured = capturers[0].capture()
    second.reset(seed=1)
    changed = second.unwrapped.model.body_mass.copy()  # type: ignore[attr-defined]
    capturers[1].restore(captured)
    assert (second.unwrapped.model.body_mass == first.unwrapped.model.body_mass).all()  # type: ignore[attr-defined]
    assert (second.unwrapped.model.body_mass != changed).any()  # type: ignore[attr-defined]


@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        (lambda capture: capture.arrays.update({"1/model.body_mass": np.zeros(3)}), "another MuJoCo model"),
        (lambda capture: capture.arrays["1/model.body_mass"].__imul__(2.0), "changed in what cannot be put back"),
        (lambda capture: capture.values["1"]["attributes"]["model"]["mujoco_model"].__setitem__(0, "2.1"), "captured by MuJoCo 2.1"),
        (lambda capture: capture.arrays.pop("1/model.body_mass"), "could not be put back"),
    ],
)
def test_a_model_s_changes_that_do_not_fit_are_refused(spoil: Any, message: str) -> None:
    """Nothing is stepped with half of them: the environment is reset."""
    first, second = randomized(), randomized()
    capturers = EnvCapturer(first), EnvCapturer(second)
    first.reset(seed=0)
    second.reset(seed=1)
    captured = capturers[0].capture()
    spoil(captured)
    with pytest.raises(CaptureError, match=message):
        capturers[1].restore(captured)


def test_another_model_in_its_place_is_noticed() -> None:
    """A simulator that resets load anew cannot be put back."""
    env = made("Hopper-v5")
    capturer = EnvCapturer(env)
    env.reset(seed=0)
    unwrapped: Any = env.unwrapped
    unwrapped.other = made("Hopper-v5").unwrapped.model  # type: ignore[attr-defined]
    assert "other, its MuJoCo model, is not the one" in str(capturer.capture().obstacle)


def captured_point() -> Any:
    env = Point()
    capturer = EnvCapturer(env)
    env.reset(seed=0)
    return capturer.capture()


@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        (lambda values: values["0"]["attributes"].update(step=1), "Point has no attribute 'step' of its own"),
        (lambda values: values["0"]["attributes"].update(__class__=1), "no attribute '__class__' of its own"),
        (lambda values: values["0"]["attributes"].update(unwrapped=1), "no attribute 'unwrapped' of its own"),
        (lambda values: values["0"]["attributes"].update(_steps={"array": "nowhere"}), "could not be put back"),
        (lambda values: values["0"]["attributes"].update(_steps={"function": "os.system"}), "unknown kind 'function'"),
        (lambda values: values["0"]["attributes"].update(_steps=[1]), "a list that is not marked as one"),
        (lambda values: values["0"]["attributes"].update(_steps={"mujoco": "3.0"}), "Point._steps is not MuJoCo data"),
        (lambda values: values["0"].update(own=1), "captures its state in another way"),
        (lambda values: values.update({"1": {}}), "captured with 2 layers, here it has 1"),
        (lambda values: values["0"].clear(), "could not be put back"),
    ],
)
def test_a_state_that_is_not_the_environment_s_is_refused(spoil: Any, message: str) -> None:
    """Also one that somebody has made up: it sets plain attributes and nothing else."""
    captured = captured_point()
    values = json.loads(json.dumps(captured.values))
    spoil(values)
    env = Point()
    capturer = EnvCapturer(env)
    env.reset(seed=1)
    with pytest.raises(CaptureError, match=message.replace("(", r"\(")):
        capturer.restore(captured._replace(values=values))


def test_the_state_of_another_model_is_refused() -> None:
    """Sizes decide."""
    hopper, walker = made("Hopper-v5"), made("Walker2d-v5")
    first, second = EnvCapturer(hopper), EnvCapturer(walker)
    hopper.reset(seed=0)
    walker.reset(seed=0)
    with pytest.raises(CaptureError, match="another MuJoCo model"):
        second.restore(first.capture())


@pytest.mark.parametrize(("before", "after"), [(-0.0, 0.0), (0.0, 0), (False, 0), ([1.0], [1]), ({"a": True}, {"a": 1})])
def test_what_is_equal_but_not_the_same_has_changed(before: Any, after: Any) -> None:
    """Signs of zeros and types are bits, too."""
    first: Any = Point()
    second: Any = Point()
    first.mark, second.mark = copy.deepcopy(before), copy.deepcopy(before)
    capturers = EnvCapturer(first), EnvCapturer(second)
    first.reset(seed=0)
    second.reset(seed=1)
    first.mark = after
    capturers[1].restore(capturers[0].capture())
    assert repr(second.mark) == repr(after)
