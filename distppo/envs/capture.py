"""The state of one environment, captured exactly and put back: what makes a resumed run the same run.

What is captured of every layer (the wrappers and the environment itself):

- its instance attributes that have changed since it was made, where they are numbers, text, numpy arrays, numpy generators, or lists,
  tuples, dicts and deques of those. The environment's `np_random` is one of them;
- of MuJoCo data the full integration state with the solver's warm start, and the positions that environments read before they step
  (`mujoco_state.LAGGING`).

A layer whose state is elsewhere (an object of its own class, a simulator behind a handle) says so itself with two methods, which then
take the place of its attributes:

    def capture_state(self) -> dict[str, Any]      # plain values as above
    def restore_state(self, state: dict[str, Any])  # after a reset; the same continuation, bit for bit

`np_random` and MuJoCo data are captured beside them. What can be seen not to fit is an obstacle: such an environment restarts its episode
where another would be restored. What cannot be seen is state outside the environment: module globals, `numpy.random`, files, clocks.
"""

from __future__ import annotations

import types
from pathlib import PurePath
from typing import Any

import gymnasium as gym
import numpy as np
from gymnasium.envs.registration import EnvSpec as GymSpec

from distppo.envs.mujoco_state import data_state, is_mujoco, model_checksum, mujoco_version, restore_data
from distppo.envs.plain import NotPlainError, decode, encode, same
from distppo.types import EnvCapture

RENDERER = "gymnasium.envs.mujoco.mujoco_rendering.MujocoRenderer"
CONSTANT = (GymSpec, type, types.ModuleType, types.BuiltinFunctionType, np.ufunc, PurePath)
OWN_GENERATOR = "_np_random"


class CaptureError(ValueError):
    """A state that cannot be captured, or not be put back; the message says what stands in the way."""


class Attribute:
    """One attribute as it is stored."""

    __slots__ = ("arrays", "encoded")

    def __init__(self, value: Any, name: str) -> None:
        self.arrays: dict[str, np.ndarray] = {}
        self.encoded = encode(value, name, self.arrays)

    def same(self, other: Attribute) -> bool:
        """Says whether both hold the same, to the last bit."""
        return same(self.encoded, self.arrays, other.encoded, other.arrays)


class Layer:
    """A wrapper or the environment itself, and how it was when it was made.

    Args:
        env: the layer.
        name: unique among the layers.
    """

    def __init__(self, env: Any, name: str) -> None:
        self._env, self._name = env, name
        self._hooks = all(callable(getattr(type(env), hook, None)) for hook in ("capture_state", "restore_state"))
        self._made: dict[str, Attribute] = {}
        self._constants: dict[str, tuple[Any, str | None]] = {}
        self._models: dict[str, int] = {}
        for attribute, value in self._attributes().items():
            if is_mujoco(value, "MjModel"):
                self._models[attribute] = model_checksum(value)
            elif not is_mujoco(value, "MjData"):
                try:
                    self._made[attribute] = Attribute(value, self._key(attribute))
                except NotPlainError:
                    self._constants[attribute] = value, _fingerprint(value)

    def capture(self, arrays: dict[str, np.ndarray]) -> dict[str, Any]:
        """Returns the layer's state as JSON; its arrays are added to `arrays`.

        Raises:
            CaptureError: an attribute is neither plain nor constant.
        """
        found: dict[str, Any] = {}
        for attribute, value in self._attributes().items():
            if self._is_constant(attribute, value):
                continue
            if is_mujoco(value, "MjModel"):
                self._check_model(attribute, value)
            elif is_mujoco(value, "MjData"):
                arrays[self._key(attribute)] = data_state(value)
                found[attribute] = {"mujoco": mujoco_version()}
            elif not self._hooks or attribute == OWN_GENERATOR:
                self._capture_plain(attribute, value, arrays, found)
        if not self._hooks:
            return {"attributes": found, "gone": [attribute for attribute in self._made if attribute not in vars(self._env)]}
        try:
            return {"attributes": found, "own": encode(self._env.capture_state(), self._key("own"), arrays)}
        except NotPlainError as error:
            raise CaptureError(f"{self._title}.capture_state() returns {error}, which is not plain data") from error

    def restore(self, state: dict[str, Any], arrays: dict[str, np.ndarray]) -> None:
        """Puts the layer into a captured state, whatever it has done since it was made.

        Raises:
            CaptureError: the state is another layer's.
        """
        attributes = dict(state["attributes"])
        if ("own" in state) != self._hooks:
            raise CaptureError(f"{self._title} captures its state in another way than it was captured")
        for attribute, encoded in attributes.items():
            current = vars(self._env).get(attribute)
            if isinstance(encoded, dict) and "mujoco" in encoded:
                self._restore_mujoco(attribute, current, encoded["mujoco"], arrays)
            else:
                self._set(attribute, decode(encoded, arrays))
        if self._hooks:
            self._env.restore_state(decode(state["own"], arrays))
            return
        for attribute in [name for name in vars(self._env) if name not in attributes]:
            self._revert(attribute)
        for attribute in state["gone"]:
            vars(self._env).pop(attribute, None)

    @property
    def _title(self) -> str:
        return type(self._env).__name__

    def _key(self, attribute: str) -> str:
        return f"{self._name}/{attribute}"

    def _attributes(self) -> dict[str, Any]:
        inner = self._env.env if isinstance(self._env, gym.Wrapper) else None
        return {name: value for name, value in vars(self._env).items() if inner is None or value is not inner}

    def _capture_plain(self, attribute: str, value: Any, arrays: dict[str, np.ndarray], found: dict[str, Any]) -> None:
        try:
            now = Attribute(value, self._key(attribute))
        except NotPlainError as error:
            hint = f"{self._title} can define capture_state and restore_state"
            raise CaptureError(f"{self._title}.{attribute} is {error}{_change(value)}; {hint}") from error
        made = self._made.get(attribute)
        if made is None or not made.same(now):
            found[attribute] = now.encoded
            arrays |= now.arrays

    def _is_constant(self, attribute: str, value: Any) -> bool:
        """Says whether an attribute that is not plain is the object it was, and of a kind that does not change inside."""
        made, fingerprint = self._constants.get(attribute, (None, None))
        return made is value and made is not None and (self._hooks or (fingerprint is not None and fingerprint == _fingerprint(value)))

    def _check_model(self, attribute: str, model: Any) -> None:
        """Notices models that are changed by resets; looked at once, after the first, for it takes half a millisecond."""
        made = self._models.get(attribute)
        if made == 0:
            return
        if made is None or made != model_checksum(model):
            raise CaptureError(f"{self._title}.{attribute}, its MuJoCo model, was changed after it was made")
        self._models[attribute] = 0

    def _restore_mujoco(self, attribute: str, data: Any, version: str, arrays: dict[str, np.ndarray]) -> None:
        if not is_mujoco(data, "MjData"):
            raise CaptureError(f"{self._title}.{attribute} is not MuJoCo data")
        if version != mujoco_version():
            raise CaptureError(f"it was captured by MuJoCo {version}, here is {mujoco_version()}")
        try:
            restore_data(data, arrays[self._key(attribute)])
        except ValueError as error:
            raise CaptureError(str(error)) from error

    def _set(self, attribute: str, value: Any) -> None:
        """Sets an attribute; arrays and generators that fit are filled, so that whoever shares them sees the same."""
        if not attribute.isidentifier() or attribute.startswith("__") or hasattr(getattr(type(self._env), attribute, None), "__get__"):
            raise CaptureError(f"{self._title} has no attribute {attribute!r} of its own")
        current = vars(self._env).get(attribute)
        if type(current) is type(value) is np.ndarray and (current.dtype, current.shape) == (value.dtype, value.shape):
            if current.flags.writeable:
                current[...] = value
                return
        elif type(current) is type(value) is np.random.Generator and type(current.bit_generator) is type(value.bit_generator):
            current.bit_generator.state = value.bit_generator.state
            return
        vars(self._env)[attribute] = value

    def _revert(self, attribute: str) -> None:
        """Undoes what happened to an attribute since the layer was made."""
        value = vars(self._env)[attribute]
        if attribute in self._constants or attribute in self._models or is_mujoco(value, "MjData"):
            return
        if isinstance(self._env, gym.Wrapper) and value is self._env.env:
            return
        made = self._made.get(attribute)
        if made is None:
            del vars(self._env)[attribute]
        elif not made.same(Attribute(value, self._key(attribute))):
            self._set(attribute, decode(made.encoded, made.arrays))


class EnvCapturer:
    """Captures and restores one environment, wrappers included.

    Args:
        env: as it was made, before its first reset.
    """

    def __init__(self, env: gym.Env[Any, Any]) -> None:
        layers: list[Any] = [env]
        while isinstance(layers[-1], gym.Wrapper):
            layers.append(layers[-1].env)
        self._layers = {str(depth): Layer(layer, str(depth)) for depth, layer in enumerate(layers)}

    def capture(self) -> EnvCapture:
        """Returns the state between two steps, or what stands in the way of capturing it."""
        arrays: dict[str, np.ndarray] = {}
        try:
            return EnvCapture(arrays, {name: layer.capture(arrays) for name, layer in self._layers.items()}, None)
        except CaptureError as error:
            return EnvCapture({}, {}, str(error))
        except Exception as error:
            return EnvCapture({}, {}, f"its capture_state raised {type(error).__name__}: {error}")

    def restore(self, capture: EnvCapture) -> None:
        """Puts the environment, which has been reset, into the captured state.

        Raises:
            CaptureError: it could not be captured, or is another environment's; it has to be reset again then.
        """
        if capture.obstacle is not None:
            raise CaptureError(capture.obstacle)
        if capture.values.keys() != self._layers.keys():
            raise CaptureError(f"it was captured with {len(capture.values)} layers, here it has {len(self._layers)}")
        try:
            for name, layer in self._layers.items():
                layer.restore(capture.values[name], capture.arrays)
        except CaptureError:
            raise
        except Exception as error:
            raise CaptureError(f"its state could not be put back: {type(error).__name__}: {error}") from error


def _fingerprint(value: Any) -> str | None:
    """Returns what tells that an object has not changed inside; None for one that may change unseen."""
    if isinstance(value, gym.Space):
        return repr(_generator_states(value))
    if isinstance(value, types.FunctionType):
        return "" if value.__closure__ is None else None
    constant = isinstance(value, CONSTANT) or f"{type(value).__module__}.{type(value).__qualname__}" == RENDERER
    return "" if constant else None


def _change(value: Any) -> str:
    """Returns what has happened to an object that would have been constant."""
    if isinstance(value, gym.Space):
        return " that is sampled from"
    return "" if _fingerprint(value) is None else " that is exchanged"


def _generator_states(space: gym.Space[Any]) -> list[Any]:
    """Returns the states of a space's generators, nested as it is; None where nobody has drawn yet."""
    inner = getattr(space, "spaces", ())
    parts = inner.values() if isinstance(inner, dict) else inner
    generator = vars(space)["_np_random"]
    return [generator and generator.bit_generator.state, *(_generator_states(part) for part in parts)]
