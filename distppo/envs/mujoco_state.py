"""The state of MuJoCo data as one vector, and what resets have changed in a model.

MuJoCo is not imported here: whoever has data of it has done so.
"""

from __future__ import annotations

import sys
import weakref
import zlib
from collections.abc import Mapping
from typing import Any

import numpy as np

LAGGING = ("xpos", "xipos", "geom_xpos", "site_xpos", "sensordata")
"""Positions and sensors in MuJoCo data. After a step they are those of its last substep's beginning, so the integration state does not
give them, and a reward that compares before with after reads them (Humanoid's centre of mass, Reacher-v4's distance)."""
GROUPS = ("opt", "stat")
"""Parts of a model that hold numbers of their own, beside its arrays."""

_made: weakref.WeakValueDictionary[int, MadeModel] = weakref.WeakValueDictionary()


def mujoco_version() -> str:
    """Returns the version that is running."""
    return str(_mujoco().__version__)


def is_mujoco(value: Any, name: str) -> bool:
    """Says whether a value is of a class of MuJoCo's, MjModel or MjData."""
    return type(value).__name__ == name and type(value).__module__.partition(".")[0] == "mujoco"


def model_checksum(model: Any) -> int:
    """Returns a number that is never 0, and another one when anything in the model has changed."""
    mujoco = _mujoco()
    buffer = np.empty(mujoco.mj_sizeModel(model), np.uint8)
    mujoco.mj_saveModel(model, None, buffer)
    return zlib.crc32(buffer.data) | 1 << 32


class MadeModel:
    """A model's numbers as they were when it was made; one for all models of a process that are alike.

    Attributes:
        checksum: of the model.
        fields: name to a copy, such as body_mass, opt.gravity.
    """

    def __init__(self, model: Any, checksum: int) -> None:
        self.checksum = checksum
        self.fields: dict[str, np.ndarray] = {}
        for group in ("", *GROUPS):
            owner = getattr(model, group) if group else model
            for name in dir(owner):
                value = None if name.startswith("_") else getattr(owner, name)
                if isinstance(value, np.ndarray) or (group and isinstance(value, int | float)):
                    self.fields[f"{group}.{name}" if group else name] = np.array(value)

    def changes(self, model: Any) -> dict[str, np.ndarray]:
        """Returns copies of the fields that are different now."""
        now = ((name, _field(model, name)) for name in self.fields)
        return {name: np.array(value) for name, value in now if value.tobytes() != self.fields[name].tobytes()}

    def put(self, model: Any, changes: Mapping[str, np.ndarray]) -> None:
        """Makes a model, of whatever numbers, the one that was made with these changes.

        Raises:
            ValueError: the changes are another model's.
        """
        for name, value in changes.items():
            made = self.fields.get(name)
            if made is None or (made.shape, made.dtype) != (value.shape, value.dtype):
                raise ValueError("it is the state of another MuJoCo model")
        for name in self.changes(model).keys() | changes.keys():
            _set_field(model, name, changes.get(name, self.fields[name]))


def made_model(model: Any) -> MadeModel:
    """Returns the numbers of a model that has just been made."""
    checksum = model_checksum(model)
    made = _made.get(checksum)
    if made is None:
        made = _made[checksum] = MadeModel(model, checksum)
    return made


def data_state(data: Any) -> np.ndarray:
    """Returns [integration state, lagging positions] as one float64 vector."""
    mujoco = _mujoco()
    signature = mujoco.mjtState.mjSTATE_INTEGRATION
    state = np.empty(mujoco.mj_stateSize(data.model, signature))
    mujoco.mj_getState(data.model, data, state, signature)
    return np.concatenate([state, *(getattr(data, name).ravel() for name in LAGGING)])


def restore_data(data: Any, vector: np.ndarray) -> None:
    """Puts data where `data_state` was taken.

    Raises:
        ValueError: it was taken of another model.
    """
    mujoco = _mujoco()
    signature = mujoco.mjtState.mjSTATE_INTEGRATION
    sizes = [mujoco.mj_stateSize(data.model, signature), *(getattr(data, name).size for name in LAGGING)]
    if vector.shape != (sum(sizes),) or vector.dtype != np.float64:
        raise ValueError("it is the state of another MuJoCo model")
    state, *lagging = np.split(vector, np.cumsum(sizes)[:-1])
    mujoco.mj_resetData(data.model, data)
    mujoco.mj_setState(data.model, data, state, signature)
    # What else is derived belongs to the state now; the step to come derives it anew. The forward pass may move the warm start.
    mujoco.mj_forward(data.model, data)
    mujoco.mj_setState(data.model, data, state, signature)
    for name, values in zip(LAGGING, lagging, strict=True):
        getattr(data, name).flat[:] = values


def _field(model: Any, name: str) -> np.ndarray:
    group, _, field = name.rpartition(".")
    return np.asarray(getattr(getattr(model, group) if group else model, field))


def _set_field(model: Any, name: str, value: np.ndarray) -> None:
    group, _, field = name.rpartition(".")
    if value.shape == ():
        setattr(getattr(model, group), field, value.item())
    else:
        _field(model, name)[...] = value


def _mujoco() -> Any:
    return sys.modules["mujoco"]
