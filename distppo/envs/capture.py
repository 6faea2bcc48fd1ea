"""The state of one environment, captured exactly and put back: what makes a resumed run the same run.

What is captured of every layer (the wrappers and the environment itself):

- its instance attributes that have changed since it was made, where they are numbers, text, numpy arrays, numpy generators, or lists,
  tuples, dicts and deques of those. The environment's `np_random` is one of them. Spaces and functions stay as they were made: functions
  whose closures hold nothing but such values, functions, spaces and other layers, as those of Gymnasium's wrappers do;
- of MuJoCo data the full integration state with the solver's warm start, and the positions that environments read before they step
  (`mujoco_state.LAGGING`), of a MuJoCo model what resets have changed in it.

A layer whose state is elsewhere (an object of its own class, a simulator behind a handle) says so itself with two methods, which then
take the place of its attributes:

    def capture_state(self) -> dict[str, Any]      # plain values as above
    def restore_state(self, state: dict[str, Any])  # after a reset; the same continuation, bit for bit

`np_random`, MuJoCo data and models are captured beside them. What can be seen not to fit is an obstacle: such an environment restarts its
episode where another would be restored. What cannot be seen is state outside the environment: module globals, `numpy.random`, files,
clocks.
"""

from __future__ import annotations

import types
from collections import deque
from collections.abc import Iterable, Iterator
from pathlib import PurePath
from typing import Any

import gymnasium as gym
import numpy as np
from gymnasium.envs.registration import EnvSpec as GymSpec

from distppo.envs.mujoco_state import MadeModel, data_state, is_mujoco, made_model, model_checksum, mujoco_version, restore_data
from distppo.envs.plain import DEPTH, NotPlainError, decode, encode, same
from distppo.types import EnvCapture

RENDERER = "gymnasium.envs.mujoco.mujoco_rendering.MujocoRenderer"
CONSTANT = (GymSpec, type, types.ModuleType, types.BuiltinFunctionType, np.ufunc, PurePath)
OWN_GENERATOR = "_np_random"
CONTAINERS = (list, tuple, dict, deque)
LONGEST_TEXT = 1 << 20
"""Characters of one attribute as JSON. A history that grows for ever would fill receipts and checkpoints; arrays are not counted."""


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
        layers: all of them; each is captured for itself.
    """

    def __init__(self, env: Any, name: str, layers: list[Any]) -> None:
        self._env, self._name, self._layers = env, name, layers
        self._hooks = all(callable(getattr(type(env), hook, None)) for hook in ("capture_state", "restore_state"))
        self._made: dict[str, Attribute] = {}
        self._texts: dict[str, str | None] = {}
        self._constants: dict[str, tuple[Any, str | None]] = {}
        self._models: dict[str, MadeModel] = {}
        self._steady: set[str] = set()
        self._changing: set[str] = set()
        for attribute, value in self._attributes().items():
            if is_mujoco(value, "MjModel"):
                self._models[attribute] = made_model(value)
            elif not is_mujoco(value, "MjData"):
                try:
                    self._made[attribute] = Attribute(value, self._key(attribute))
                    self._texts[attribute] = _text_of(value, self._made[attribute])
                except NotPlainError:
                    self._constants[attribute] = value, _fingerprint(value, layers)

    def capture(self, arrays: dict[str, np.ndarray], seen: dict[int, str]) -> dict[str, Any]:
        """Returns the layer's state as JSON; its arrays are added to `arrays`, its containers to `seen`, by identity.

        Raises:
            CaptureError: an attribute is neither plain nor constant.
        """
        found: dict[str, Any] = {}
        for attribute, value in self._attributes().items():
            if self._is_constant(attribute, value):
                continue
            if is_mujoco(value, "MjModel"):
                if attribute not in self._steady:
                    self._capture_model(attribute, value, arrays, found)
            elif is_mujoco(value, "MjData"):
                arrays[self._key(attribute)] = data_state(value)
                found[attribute] = {"mujoco": mujoco_version()}
            elif not self._hooks or attribute == OWN_GENERATOR:
                self._capture_plain(attribute, value, arrays, seen, found)
        if not self._hooks:
            return {"attributes": found, "gone": [attribute for attribute in self._made if attribute not in vars(self._env)]}
        try:
            own = encode(self._env.capture_state(), self._key("own"), arrays)
        except NotPlainError as error:
            raise CaptureError(f"{self._title}.capture_state() returns {error}, which is not plain data") from error
        if _is_long(own):
            raise CaptureError(f"{self._title}.capture_state() returns more than {LONGEST_TEXT:,} characters of plain data")
        return {"attributes": found, "own": own}

    def restore(self, state: dict[str, Any], arrays: dict[str, np.ndarray]) -> None:
        """Puts the layer into a captured state, whatever it has done since it was made.

        Raises:
            CaptureError: the state is another layer's.
        """
        attributes = dict(state["attributes"])
        if ("own" in state) != self._hooks:
            raise CaptureError(f"{self._title} captures its state in another way than it was captured")
        models = {name: encoded["mujoco_model"] for name, encoded in attributes.items() if _is_model(encoded)}
        for attribute in self._models.keys() | models.keys():  # before the data, which needs its model
            self._restore_model(attribute, models.get(attribute), arrays)
        for attribute, encoded in attributes.items():
            current = vars(self._env).get(attribute)
            if attribute in models:
                continue
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

    @property
    def _hint(self) -> str:
        return f"{self._title} can define capture_state and restore_state"

    def _too_long(self, attribute: str) -> CaptureError:
        return CaptureError(f"{self._title}.{attribute} is more than {LONGEST_TEXT:,} characters of plain data; {self._hint}")

    def _key(self, attribute: str) -> str:
        return f"{self._name}/{attribute}"

    def _attributes(self) -> dict[str, Any]:
        inner = self._env.env if isinstance(self._env, gym.Wrapper) else None
        return {name: value for name, value in vars(self._env).items() if inner is None or value is not inner}

    def _capture_plain(
        self, attribute: str, value: Any, arrays: dict[str, np.ndarray], seen: dict[int, str], found: dict[str, Any]
    ) -> None:
        text, made = self._texts.get(attribute), self._made.get(attribute)
        if isinstance(value, CONTAINERS):
            # Each item takes at least three characters: what is sure to be new and too long is not even encoded.
            if len(value) > LONGEST_TEXT // 3 and (made is None if text is None else len(text) < len(value)):
                raise self._too_long(attribute)
            if text is not None and text == repr(value):  # large tables that never change are not encoded each time
                return
        try:
            now = Attribute(value, self._key(attribute))
        except NotPlainError as error:
            change = " that is sampled from" if isinstance(value, gym.Space) else ""
            if not change and attribute in self._constants and self._constants[attribute][1] is not None:
                change = " that has changed since it was made"
            raise CaptureError(f"{self._title}.{attribute} is {error}{change}; {self._hint}") from error
        if made is None or not made.same(now):
            if _is_long(now.encoded):
                raise self._too_long(attribute)
            self._require_single(attribute, value, seen)
            found[attribute] = now.encoded
            arrays |= now.arrays

    def _require_single(self, attribute: str, value: Any, seen: dict[int, str]) -> None:
        """Refuses a list, dict or deque that has two names: each would be restored as one of its own, and they would part."""
        name = f"{self._title}.{attribute}"
        for container in _changeable(value):
            if (other := seen.setdefault(id(container), name)) != name:
                raise CaptureError(f"{name} and {other} share a {type(container).__name__}; {self._hint}")

    def _is_constant(self, attribute: str, value: Any) -> bool:
        """Says whether an attribute that is not plain is the object it was, and of a kind that does not change inside."""
        made, fingerprint = self._constants.get(attribute, (None, None))
        return (
            made is value
            and made is not None
            and (self._hooks or (fingerprint is not None and fingerprint == _fingerprint(value, self._layers)))
        )

    def _capture_model(self, attribute: str, model: Any, arrays: dict[str, np.ndarray], found: dict[str, Any]) -> None:
        """Captures what resets have changed in a model; one that the first has left alone is not looked at again, for it takes half a
        millisecond."""
        made = self._models.get(attribute)
        if made is None:
            raise CaptureError(f"{self._title}.{attribute}, its MuJoCo model, is not the one it was made with")
        checksum = model_checksum(model)
        if checksum == made.checksum and attribute not in self._changing:
            self._steady.add(attribute)
            return
        self._changing.add(attribute)
        changes = made.changes(model)
        arrays |= {f"{self._key(attribute)}.{name}": value for name, value in changes.items()}
        found[attribute] = {"mujoco_model": [mujoco_version(), checksum, list(changes)]}

    def _restore_model(self, attribute: str, state: list[Any] | None, arrays: dict[str, np.ndarray]) -> None:
        """Makes a model what it was captured as; with None, what it was made as."""
        made, model = self._models.get(attribute), vars(self._env).get(attribute)
        if made is None or not is_mujoco(model, "MjModel"):
            raise CaptureError(f"{self._title}.{attribute} is not the MuJoCo model it was made with")
        if state is None and attribute in self._steady:
            return
        version, checksum, names = state or (mujoco_version(), made.checksum, [])
        _require_version(version)
        try:
            made.put(model, {name: arrays[f"{self._key(attribute)}.{name}"] for name in names})
        except ValueError as error:
            raise CaptureError(str(error)) from error
        if model_checksum(model) != checksum:
            raise CaptureError(f"{self._title}.{attribute}, its MuJoCo model, was changed in what cannot be put back")
        if state is not None:
            self._steady.discard(attribute)
            self._changing.add(attribute)

    def _restore_mujoco(self, attribute: str, data: Any, version: str, arrays: dict[str, np.ndarray]) -> None:
        if not is_mujoco(data, "MjData"):
            raise CaptureError(f"{self._title}.{attribute} is not MuJoCo data")
        _require_version(version)
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
        if attribute in self._models or is_mujoco(value, "MjData"):
            return
        if attribute in self._constants:
            if not self._is_constant(attribute, value):
                raise CaptureError(f"{self._title}.{attribute} has changed since it was made here")
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
        self._layers = {str(depth): Layer(layer, str(depth), layers) for depth, layer in enumerate(layers)}

    def capture(self) -> EnvCapture:
        """Returns the state between two steps, or what stands in the way of capturing it."""
        arrays: dict[str, np.ndarray] = {}
        seen: dict[int, str] = {}
        try:
            return EnvCapture(arrays, {name: layer.capture(arrays, seen) for name, layer in self._layers.items()}, None)
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


def _is_long(encoded: Any) -> bool:
    return isinstance(encoded, dict | str) and len(repr(encoded)) > LONGEST_TEXT


def _changeable(value: Any) -> Iterator[Any]:
    """Yields every list, dict and deque in a plain value, itself included."""
    if type(value) in (list, dict, deque):
        yield value
    if type(value) in CONTAINERS:
        for inner in value.values() if type(value) is dict else value:
            yield from _changeable(inner)


def _is_model(encoded: Any) -> bool:
    return isinstance(encoded, dict) and "mujoco_model" in encoded


def _require_version(version: str) -> None:
    if version != mujoco_version():
        raise CaptureError(f"it was captured by MuJoCo {version}, here is {mujoco_version()}")


def _fingerprint(value: Any, layers: list[Any], depth: int = 0) -> str | None:
    """Returns what tells that an object has not changed inside; None for one that may change unseen."""
    if depth > DEPTH:
        return None
    if any(value is layer for layer in layers):
        return ""
    if isinstance(value, gym.Space):
        return repr(_generator_states(value))
    if isinstance(value, types.FunctionType):
        return _joined([_contents(cell) for cell in value.__closure__ or ()], layers, depth)
    if isinstance(value, types.MethodType):
        return _joined([value.__self__], layers, depth)
    if isinstance(value, CONSTANT) or f"{type(value).__module__}.{type(value).__qualname__}" == RENDERER:
        return ""
    try:
        arrays: dict[str, np.ndarray] = {}
        encoded = encode(value, "", arrays)
    except NotPlainError:
        if type(value) in (list, tuple):
            return _joined(value, layers, depth)
        return _joined([part for item in value.items() for part in item], layers, depth) if type(value) is dict else None
    return repr((encoded, [(name, array.dtype.str, array.shape, array.tobytes()) for name, array in arrays.items()]))


def _joined(values: Iterable[Any], layers: list[Any], depth: int) -> str | None:
    parts = [_fingerprint(value, layers, depth + 1) for value in values]
    return None if None in parts else repr(parts)


def _contents(cell: types.CellType) -> Any:
    """Returns what a function's closure holds in one cell; where that is nothing yet, something that may change."""
    try:
        return cell.cell_contents
    except ValueError:
        return object()


def _text_of(value: Any, made: Attribute) -> str | None:
    """Returns a text that is the same only where nothing in a container has changed; None where there is none."""
    # What is printed of an array or a generator is not all that is in it.
    told = all(array.shape == () for array in made.arrays.values()) and "'generator'" not in repr(made.encoded)
    return repr(value) if told and isinstance(value, CONTAINERS) else None


def _generator_states(space: gym.Space[Any]) -> list[Any]:
    """Returns the states of a space's generators, nested as it is; None where nobody has drawn yet."""
    inner = getattr(space, "spaces", ())
    parts = inner.values() if isinstance(inner, dict) else inner
    generator = vars(space)["_np_random"]
    return [generator and generator.bit_generator.state, *(_generator_states(part) for part in parts)]
