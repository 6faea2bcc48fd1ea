"""The state of MuJoCo data as one vector. MuJoCo is not imported here: whoever has data of it has done so."""

from __future__ import annotations

import sys
import zlib
from typing import Any

import numpy as np

LAGGING = ("xpos", "xipos", "geom_xpos", "site_xpos", "sensordata")
"""Positions and sensors in MuJoCo data. After a step they are those of its last substep's beginning, so the integration state does not
give them, and a reward that compares before with after reads them (Humanoid's centre of mass, Reacher-v4's distance)."""


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


def _mujoco() -> Any:
    return sys.modules["mujoco"]
