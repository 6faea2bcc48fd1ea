"""Small environments for tests of the runtime, registered as `probe_envs:<Name>-v0` so that Ray workers can import them too."""

from __future__ import annotations

import copy
import os
import signal
import sys
import time
from pathlib import Path
from typing import Any

import gymnasium as gym
import numpy as np

TIME_LIMIT = 20
Step = tuple[Any, float, bool, bool, dict[str, Any]]


class Point(gym.Env[Any, Any]):
    """A noisy point that actions push; the closer to the origin, the better. Some episodes terminate, the time limit ends the others.

    Args:
        termination: probability that a step terminates.
        length: steps after which it truncates by itself; 0: never.
    """

    def __init__(self, termination: float = 0.05, length: int = 0) -> None:
        self.observation_space = gym.spaces.Box(-np.inf, np.inf, (3,), np.float64)
        self.action_space = gym.spaces.Box(-1.0, 1.0, (2,), np.float32)
        self._termination, self._length = termination, length

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> tuple[Any, dict[str, Any]]:
        super().reset(seed=seed)
        self._steps = 0
        self._position = self.np_random.normal([1.0, -100.0, 1e-3], [1.0, 5.0, 1e-4])
        return self._position.copy(), {}

    def step(self, action: Any) -> Step:
        self._steps += 1
        push = np.array([action[0], 10 * action[1], 1e-4 * action[0] * action[1]])
        self._position = 0.9 * self._position + push + self.np_random.normal(0.0, [0.1, 1.0, 1e-5])
        terminated = bool(self.np_random.random() < self._termination)
        return self._position.copy(), -float(self._position[0] ** 2), terminated, self._steps == self._length, {}


class Talking(Point):
    """Prints, as a user's environment may."""

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> tuple[Any, dict[str, Any]]:
        print("said by the environment")
        print("complained by it", file=sys.stderr)
        return super().reset(seed=seed, options=options)


class Logged(Point):
    """Appends every observation that it is acted on in to a file, as float64.

    Args:
        path: of the file, shared by all environments: such short appends are atomic.
    """

    def __init__(self, path: str) -> None:
        super().__init__()
        self._file = os.open(path, os.O_CREAT | os.O_APPEND | os.O_WRONLY)

    def step(self, action: Any) -> Step:
        os.write(self._file, self._position.tobytes())
        return super().step(action)


class Camera(Point):
    """The point as a bright column in a grey image, 16 x 20."""

    def __init__(self) -> None:
        super().__init__()
        self.observation_space = gym.spaces.Box(0, 255, (16, 20), np.uint8)

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> tuple[Any, dict[str, Any]]:
        _, info = super().reset(seed=seed, options=options)
        return self._image(), info

    def step(self, action: Any) -> Step:
        _, *rest = super().step(action)
        return self._image(), *rest

    def _image(self) -> Any:
        image = np.zeros((16, 20), np.uint8)
        image[:, int(np.clip(10 + 3 * self._position[0], 0, 19))] = 255
        return image


class Painted(Point):
    """The point, seen: a white square on grey that stands where the point is, [48, 64, 3].

    Args:
        render_mode: rgb_array or None.
        broken: whether drawing raises.
    """

    metadata = {"render_modes": ["rgb_array"], "render_fps": 25}  # noqa: RUF012 - as gymnasium.Env declares it

    def __init__(self, render_mode: str | None = None, broken: bool = False) -> None:
        super().__init__()
        self.render_mode, self._broken = render_mode, broken

    def render(self) -> Any:
        assert self.render_mode == "rgb_array"
        if self._broken:
            raise RuntimeError("the lamp went out")
        picture = np.full((48, 64, 3), 90, np.uint8)
        left = int(np.clip(28 + 8 * self._position[0], 0, 56))
        picture[20:28, left : left + 8] = 255
        return picture


class Paid(gym.Env[Any, Any]):
    """Pays 1 for every step, whatever is done, and never ends by itself: worth 1 / (1 - gamma) in every state."""

    def __init__(self) -> None:
        self.observation_space = gym.spaces.Box(-np.inf, np.inf, (2,), np.float64)
        self.action_space = gym.spaces.Box(-1.0, 1.0, (1,), np.float32)

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> tuple[Any, dict[str, Any]]:
        super().reset(seed=seed)
        return self.np_random.normal(size=2), {}

    def step(self, action: Any) -> Step:
        return self.np_random.normal(size=2), 1.0, False, False, {}


class Slow(Point):
    """Sleeps in every step if its first reset had a certain seed: one environment of the run is slow, whichever process it is in.

    Args:
        seed: of the slow one.
        seconds: it sleeps.
    """

    def __init__(self, seed: int, seconds: float) -> None:
        super().__init__()
        self._slow_seed, self._seconds = seed, seconds
        self._sleeps: bool | None = None

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> tuple[Any, dict[str, Any]]:
        if self._sleeps is None:
            self._sleeps = seed == self._slow_seed
        return super().reset(seed=seed, options=options)

    def step(self, action: Any) -> Step:
        if self._sleeps:
            time.sleep(self._seconds)
        return super().step(action)


class Deaf(Point):
    """Has signals ignored, as a simulator that has handlers of its own may."""

    def __init__(self) -> None:
        super().__init__()
        for number in (signal.SIGINT, signal.SIGTERM):
            signal.signal(number, signal.SIG_IGN)


class Wandering(Point):
    """Works in a directory of its own, and expects to be there at every step.

    Args:
        place: the directory.
        when: make or step.
    """

    def __init__(self, place: str, when: str = "make") -> None:
        super().__init__()
        self._place, self._when = place, when
        if when == "make":
            os.chdir(place)

    def step(self, action: Any) -> Step:
        if self._when == "step":
            os.chdir(self._place)
        assert os.getcwd() == self._place
        return super().step(action)


class Closing(Point):
    """Appends a line to a file when it is made, and another when it is closed.

    Args:
        path: of the file, shared by all environments.
    """

    def __init__(self, path: str) -> None:
        super().__init__()
        self._path = path
        self._say("made")

    def close(self) -> None:
        self._say("closed")

    def _say(self, what: str) -> None:
        with open(self._path, "a") as file:
            file.write(f"{what}\n")


class Failing(Point):
    """Fails after so many steps of its life.

    Args:
        how: raise, nan, inf_reward, huge_reward, shape, reward_type, exit (of the process); in reset: reset, reset_shape.
        after: steps that go well.
    """

    def __init__(self, how: str, after: int = 0) -> None:
        super().__init__()
        self._how, self._left = how, after

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> tuple[Any, dict[str, Any]]:
        observation, info = super().reset(seed=seed, options=options)
        if self._how == "reset":
            raise RuntimeError("the simulator has no licence")
        return (observation[:2], info) if self._how == "reset_shape" else (observation, info)

    def step(self, action: Any) -> Step:
        observation, reward, *rest = super().step(action)
        self._left -= 1
        if self._left >= 0:
            return observation, reward, *rest
        return self._failure(observation, reward, rest)

    def _failure(self, observation: Any, reward: Any, rest: list[Any]) -> Any:
        if self._how == "raise":
            raise RuntimeError("the wheel came off")
        if self._how == "exit":
            os._exit(3)
        if self._how == "nan":
            observation[1] = np.nan
        if self._how == "shape":
            observation = observation[:2]
        if self._how == "inf_reward":
            reward = np.inf
        if self._how == "huge_reward":
            reward = 1e37
        if self._how == "reward_type":
            reward = "much"
        return observation, reward, *rest


class Shaped(gym.Env[Any, Any]):
    """Random observations and rewards in any spaces; checks that every action lies in its own.

    Args:
        observation: shape.
        dtype: of the observations.
        action: shape.
        low: bound of every action dimension, a number or a list of the action's shape.
        high: likewise; numbers may be written as text, as in "inf".
        action_dtype: of the action space.
    """

    def __init__(
        self,
        observation: tuple[int, ...] = (3,),
        dtype: str = "float64",
        action: tuple[int, ...] = (2,),
        low: Any = -1.0,
        high: Any = 1.0,
        action_dtype: str = "float32",
    ) -> None:
        self._integers = np.issubdtype(np.dtype(dtype), np.integer)
        least, most = (0, 255) if self._integers else (-np.inf, np.inf)
        self.observation_space = gym.spaces.Box(least, most, tuple(observation), np.dtype(dtype))
        bounds = [np.broadcast_to(np.asarray(bound, float), tuple(action)).astype(action_dtype) for bound in (low, high)]
        self.action_space = gym.spaces.Box(*bounds, dtype=np.dtype(action_dtype))

    def _observation(self) -> Any:
        space = self.observation_space
        values = self.np_random.integers(0, 255, space.shape) if self._integers else self.np_random.normal(size=space.shape)
        return values.astype(space.dtype)

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> tuple[Any, dict[str, Any]]:
        super().reset(seed=seed)
        return self._observation(), {}

    def step(self, action: Any) -> Step:
        space = self.action_space
        assert action.shape == space.shape, f"action of shape {action.shape}"
        assert (action >= space.low).all() and (action <= space.high).all(), f"action {action} out of bounds"
        return self._observation(), float(np.sum(action)), bool(self.np_random.random() < 0.1), False, {}


BOX = gym.spaces.Box(-1.0, 1.0, (2,), np.float32)
GREY = gym.spaces.Box(0, 255, (16, 20), np.uint8)
SPACES: dict[str, gym.spaces.Space[Any]] = {
    "box": BOX,
    "discrete": gym.spaces.Discrete(3),
    "discrete_from_5": gym.spaces.Discrete(3, start=5),
    "multi_discrete": gym.spaces.MultiDiscrete([2, 5, 3]),
    "matrix_of_choices": gym.spaces.MultiDiscrete([[2, 3], [4, 2]], start=[[0, 1], [-1, 0]]),
    "multi_binary": gym.spaces.MultiBinary(4),
    "grey": GREY,
    "channels_last": gym.spaces.Box(0, 255, (16, 20, 3), np.uint8),
    "channels_first": gym.spaces.Box(0, 255, (3, 16, 20), np.uint8),
    "mapping": gym.spaces.Dict({"x": BOX, "mode": gym.spaces.Discrete(4), "both": gym.spaces.Tuple([BOX, gym.spaces.MultiBinary(2)])}),
    "camera_in_mapping": gym.spaces.Dict({"x": BOX, "camera": GREY}),
    "text": gym.spaces.Text(5),
    "nothing": gym.spaces.Box(-1, 1, (0,)),
    "no_choices": gym.spaces.MultiDiscrete(np.zeros(0, np.int64)),
    "integers": gym.spaces.Box(0, 9, (2,), np.int64),
}


class Drawn(gym.Env[Any, Any]):
    """Draws observations from a space, checks that every action lies in its own, and rewards what was done last in the same episode.

    Args:
        observation: a name of SPACES.
        action: likewise.
    """

    def __init__(self, observation: str = "box", action: str = "box") -> None:
        self.observation_space, self.action_space = copy.deepcopy(SPACES[observation]), SPACES[action]

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> tuple[Any, dict[str, Any]]:
        super().reset(seed=seed)
        if seed is not None:
            self.observation_space.seed(seed)
        return self.observation_space.sample(), {}

    def step(self, action: Any) -> Step:
        assert self.action_space.contains(action), f"action {action!r} of type {type(action).__name__} is not in {self.action_space}"
        return self.observation_space.sample(), float(np.sum(action)), bool(self.np_random.random() < 0.1), False, {}


class Doubled(gym.ObservationWrapper[Any, Any, Any], gym.utils.RecordConstructorArgs):
    """Doubles observations: a wrapper that an environment is registered with."""

    def __init__(self, env: gym.Env[Any, Any]) -> None:
        gym.utils.RecordConstructorArgs.__init__(self)
        super().__init__(env)

    def observation(self, observation: Any) -> Any:
        return 2 * observation


def read_log(path: Path) -> np.ndarray:
    """Returns the observations that `Logged` wrote, [n, 3] in no order."""
    return np.frombuffer(path.read_bytes()).reshape(-1, 3)


for environment in (Point, Talking, Logged, Camera, Painted, Paid, Slow, Deaf, Closing, Failing, Shaped, Drawn):
    gym.register(f"{environment.__name__}-v0", entry_point=environment, max_episode_steps=TIME_LIMIT)
gym.register("Endless-v0", entry_point=Point, kwargs={"termination": 0.0})
gym.register(
    "Wrapped-v0",
    entry_point=Point,
    max_episode_steps=TIME_LIMIT,
    additional_wrappers=(gym.envs.registration.WrapperSpec("Doubled", f"{__name__}:Doubled", {}),),
)
