"""Runs a policy that `distppo export --format numpy` has written. It needs numpy alone, and this one file: copy it where it is needed.

    policy = load("policy.npz")
    action = policy.act(observation)

The file is a zip archive without compression: `policy.json` lists the operations, one .npy each holds their arrays. Nothing in it is
executed, and a file whose contents do not have the SHA-256 that it states is refused.
"""

from __future__ import annotations

import hashlib
import io
import json
import math
import os
import zipfile
from typing import Any, BinaryIO

import numpy as np

FORMAT = "distppo policy"
FORMAT_VERSION = 1
DESCRIPTION = "policy.json"
_DTYPES = ("float32", "float64", "int64")
_LARGEST_DESCRIPTION = 2**20
_MOST_MEMBERS = 4096


class NumpyPolicy:
    """A deterministic policy with its normalizer, network, clipping and rescaling.

    Args:
        file: its path, or an open binary file.

    Attributes:
        observation_shape: of one raw observation, as the environment gives it.
        action_shape: of one action, as the environment takes it.
        origin: what the policy was trained in and for how long.

    Raises:
        ValueError: it is not such a file, of a newer version, or damaged.
        OSError: it cannot be read.
    """

    def __init__(self, file: str | os.PathLike[str] | BinaryIO) -> None:
        place = f"{os.fspath(file)}: " if isinstance(file, str | os.PathLike) else ""
        try:
            description, arrays = _read(file)
            self.observation_shape = tuple(int(n) for n in description["observation"]["shape"])
            self.observation_dtype = np.dtype(str(description["observation"]["dtype"]))
            self.action_shape = tuple(int(n) for n in description["action"]["shape"])
            self.action_dtype = np.dtype(str(description["action"]["dtype"]))
            self.origin: dict[str, Any] = description["origin"]
            self._operations = [_operation(entry, arrays) for entry in description["operations"]]
            action = self._act_one(np.zeros((1, *self.observation_shape), self.observation_dtype))
            if action.shape != self.action_shape:
                raise ValueError(f"it gives actions of shape {action.shape} instead of {self.action_shape}")
        except (zipfile.BadZipFile, KeyError, TypeError, ValueError, RecursionError, EOFError, NotImplementedError) as error:
            raise ValueError(f"{place}not a sound policy file ({error})") from error

    def act(self, observation: np.ndarray) -> np.ndarray:
        """Returns the action for one observation, or one each for a batch; an action never depends on the rest of the batch.

        Args:
            observation: [*S] or [n, *S], raw.

        Returns:
            [*action shape] or [n, *action shape].

        Raises:
            ValueError: the observation's shape does not fit.
        """
        observation = np.asarray(observation, self.observation_dtype)
        if observation.shape == self.observation_shape:
            return self._act_one(observation[None])
        if observation.ndim == 0 or observation.shape[1:] != self.observation_shape:
            shape = self.observation_shape
            raise ValueError(f"observation has shape {observation.shape}; the policy was trained on {shape}, or a batch [n, *{shape}]")
        actions = [self._act_one(row[None]) for row in observation]
        return np.stack(actions) if actions else np.empty((0, *self.action_shape), self.action_dtype)

    def _act_one(self, x: np.ndarray) -> np.ndarray:
        for function, arguments in self._operations:
            x = function(x, **arguments)
        return x[0]


load = NumpyPolicy
"""load(file) -> NumpyPolicy."""


def _normalize(x: np.ndarray, mean: np.ndarray, inverse_std: np.ndarray, clip: float) -> np.ndarray:
    standardized = (x - mean) * inverse_std
    return np.minimum(np.maximum(standardized, -clip), clip).astype(np.float32)


def _elu(x: np.ndarray) -> np.ndarray:
    return np.where(x < 0, np.expm1(np.minimum(x, np.float32(0))), x)


def _image(x: np.ndarray, stack: int, channels: int, height: int, width: int, channels_last: bool) -> np.ndarray:
    if channels_last:
        x = x.reshape(len(x), stack, height, width, channels).transpose(0, 1, 4, 2, 3)
    return x.reshape(len(x), stack * channels, height, width).astype(np.float32) * np.float32(1 / 255)


def _conv(x: np.ndarray, weight: np.ndarray, bias: np.ndarray, stride: int) -> np.ndarray:
    windows = np.lib.stride_tricks.sliding_window_view(x, weight.shape[2:], axis=(2, 3))[:, :, ::stride, ::stride]
    return np.tensordot(windows, weight, axes=((1, 4, 5), (1, 2, 3))).transpose(0, 3, 1, 2) + bias[:, None, None]


def _layer_norm(x: np.ndarray, scale: np.ndarray, shift: np.ndarray, epsilon: float) -> np.ndarray:
    centered = x - x.mean(axis=1, keepdims=True)
    variance = np.square(centered).mean(axis=1, keepdims=True)
    return centered / np.sqrt(variance + x.dtype.type(epsilon)) * scale + shift


def _choose(x: np.ndarray, start: np.ndarray, choices: list[int]) -> np.ndarray:
    groups = np.split(x, np.cumsum(choices)[:-1], axis=1)
    return np.stack([group.argmax(axis=1) for group in groups], axis=1) + start


OPERATIONS: dict[str, Any] = {
    "normalize": _normalize,
    "cast": lambda x: x.astype(np.float32),
    "flatten": lambda x: x.reshape(len(x), -1),
    "image": _image,
    "conv": _conv,
    "layer_norm": _layer_norm,
    "choose": _choose,
    "linear": lambda x, weight, bias: np.dot(x, weight.T) + bias,
    "tanh": np.tanh,
    "relu": lambda x: np.maximum(x, np.float32(0)),
    "elu": _elu,
    "clip": lambda x, minimum, maximum: np.minimum(np.maximum(x, minimum), maximum),
    "rescale": lambda x, scale, shift: x * scale + shift,
    "reshape": lambda x, shape: x.reshape(len(x), *shape),
}
"""Every operation over a batch [n, ...]; its arrays and values are keyword arguments."""


def digest(description: dict[str, Any], arrays: dict[str, np.ndarray]) -> str:
    """Returns the SHA-256 of everything in a policy file but the digest itself."""
    body = {name: value for name, value in description.items() if name != "sha256"}
    total = hashlib.sha256(json.dumps(body, sort_keys=True).encode())
    for name in sorted(arrays):
        array = arrays[name]
        total.update(f"{name} {array.dtype.str} {array.shape}".encode())
        total.update(array.tobytes())
    return total.hexdigest()


def _operation(entry: dict[str, Any], arrays: dict[str, np.ndarray]) -> tuple[Any, dict[str, Any]]:
    name = entry["operation"]
    if name not in OPERATIONS:
        raise ValueError(f"unknown operation {str(name)[:40]!r}; it may need a newer loader")
    return OPERATIONS[name], {**{role: arrays[key] for role, key in entry["arrays"].items()}, **entry["values"]}


def _read(file: str | os.PathLike[str] | BinaryIO) -> tuple[dict[str, Any], dict[str, np.ndarray]]:
    """Returns the description and the arrays by name, verified."""
    with zipfile.ZipFile(file) as archive:
        members = archive.infolist()
        if len(members) > _MOST_MEMBERS or len({member.filename for member in members}) < len(members):
            raise ValueError("too many members, or one twice")
        for member in members:  # stored as they are, so that nothing can be larger than the file itself
            if member.compress_type != zipfile.ZIP_STORED or member.file_size != member.compress_size:
                raise ValueError(f"{member.filename[:40]!r} is compressed")
        if archive.getinfo(DESCRIPTION).file_size > _LARGEST_DESCRIPTION:
            raise ValueError(f"{DESCRIPTION} is too large")
        description = json.loads(archive.read(DESCRIPTION))
        arrays = {name.removesuffix(".npy"): _array(archive.read(name)) for name in archive.namelist() if name != DESCRIPTION}
    if not isinstance(description, dict) or description.get("format") != FORMAT:
        raise ValueError("it holds no distppo policy")
    if description.get("format_version") != FORMAT_VERSION:
        raise ValueError(f"format version {description.get('format_version')!r}, this loader reads {FORMAT_VERSION}")
    if description.get("sha256") != digest(description, arrays):
        raise ValueError("damaged or changed: its contents do not have the SHA-256 that it states")
    return description, arrays


def _array(data: bytes) -> np.ndarray:
    """Returns the array of a .npy file, of one of the kinds of number that a policy has."""
    stream = io.BytesIO(data)
    if np.lib.format.read_magic(stream) != (1, 0):
        raise ValueError("unknown version of .npy")
    shape, fortran, dtype = np.lib.format.read_array_header_1_0(stream)
    if dtype.name not in _DTYPES or fortran or math.prod(shape) * dtype.itemsize != len(data) - stream.tell():
        raise ValueError("an array is not as it should be")
    return np.frombuffer(data, dtype, offset=stream.tell()).reshape(shape)
