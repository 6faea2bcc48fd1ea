"""The numpy form: one .npz file without pickle, which `numpy_loader` runs."""

from __future__ import annotations

import io
import json
import zipfile
from collections.abc import Mapping
from typing import Any

import numpy as np

from distppo.export.numpy_loader import DESCRIPTION, FORMAT, FORMAT_VERSION, NumpyPolicy, digest
from distppo.export.program import Program

_EPOCH = (1980, 1, 1, 0, 0, 0)
"""A date for every member, so that equal policies are equal files."""


def encode_numpy(program: Program, origin: Mapping[str, Any]) -> bytes:
    """Returns the file.

    Args:
        program: what the policy computes.
        origin: JSON values that say where the policy comes from.
    """
    arrays: dict[str, np.ndarray] = {}
    operations = []
    for index, operation in enumerate(program.operations):
        names = {role: f"{index:03d}_{operation.name}_{role}" for role in operation.arrays}
        arrays |= {names[role]: np.array(array, order="C") for role, array in operation.arrays.items()}
        operations.append({"operation": operation.name, "arrays": names, "values": operation.values})
    description: dict[str, Any] = {
        "format": FORMAT,
        "format_version": FORMAT_VERSION,
        "observation": {"shape": list(program.observation_shape), "dtype": program.observation_dtype},
        "action": {"shape": list(program.action_shape), "dtype": program.action_dtype},
        "operations": operations,
        "origin": dict(origin),
    }
    description["sha256"] = digest(description, arrays)
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_STORED) as archive:
        archive.writestr(zipfile.ZipInfo(DESCRIPTION, _EPOCH), json.dumps(description, indent=1))
        for name, array in arrays.items():
            member = io.BytesIO()
            np.lib.format.write_array(member, array, version=(1, 0))
            archive.writestr(zipfile.ZipInfo(f"{name}.npy", _EPOCH), member.getvalue())
    return buffer.getvalue()


def decode_numpy(data: bytes) -> NumpyPolicy:
    """Returns the policy.

    Raises:
        ValueError: the data is no such file, or damaged.
    """
    return NumpyPolicy(io.BytesIO(data))
