"""The torch form: a program of torch.export, which `torch.export.load(file).module()` runs without distppo.

Its weights are raw bytes and its graph is JSON. Files that hold anything pickled are refused here; torch.export.load itself would unpickle.
"""

from __future__ import annotations

import hashlib
import io
import json
import warnings
import zipfile
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
import torch
from torch import Tensor

from distppo.export.program import Operation, Program

MANIFEST = "distppo.json"
_WEIGHTS = "data/weights/"
_CONSTANTS = "data/constants/"
_CONFIGS = ("model_weights_config.json", "model_constants_config.json")
_LARGEST_JSON = 2**24


class TorchPolicy:
    """A policy as a program of torch.export.

    Args:
        data: the file.

    Raises:
        ValueError: the data is no policy of distppo's, damaged, or holds what a policy never does.
    """

    def __init__(self, data: bytes) -> None:
        self.origin = _verified_origin(data)
        self.observation_shape = tuple(self.origin["observation"]["shape"])
        self._dtype = np.dtype(self.origin["observation"]["dtype"])
        self._module = torch.export.load(io.BytesIO(data)).module()

    def act(self, observation: np.ndarray) -> np.ndarray:
        """Returns the action for one observation [*S], or one each for a batch [n, *S]."""
        tensor = torch.from_numpy(np.array(observation, self._dtype))
        single = tensor.shape == self.observation_shape
        if not single and (tensor.ndim == 0 or tensor.shape[1:] != self.observation_shape):
            raise ValueError(f"observation has shape {tuple(tensor.shape)}; the policy was trained on {self.observation_shape}, or a batch")
        with torch.inference_mode():
            actions = self._module(tensor[None] if single else tensor).numpy()
        return actions[0] if single else actions


class _Module(torch.nn.Module):
    """A Program over tensors."""

    def __init__(self, program: Program) -> None:
        super().__init__()
        self._steps: list[Callable[[Tensor], Tensor]] = []
        for index, operation in enumerate(program.operations):
            for role, array in operation.arrays.items():
                self.register_buffer(f"{operation.name}_{index}_{role}", torch.from_numpy(np.array(array)))
            self._steps.append(self._step(operation, index))

    def forward(self, observation: Tensor) -> Tensor:
        for step in self._steps:
            observation = step(observation)
        return observation

    def _step(self, operation: Operation, index: int) -> Callable[[Tensor], Tensor]:
        def array(role: str) -> Tensor:
            return self.get_buffer(f"{operation.name}_{index}_{role}")

        values = operation.values
        steps: dict[str, Callable[[Tensor], Tensor]] = {
            "normalize": lambda x: ((x - array("mean")) * array("inverse_std")).clamp(-values["clip"], values["clip"]).to(torch.float32),
            "cast": lambda x: x.to(torch.float32),
            "flatten": lambda x: x.flatten(1) if x.ndim > 1 else x[:, None],
            "linear": lambda x: torch.nn.functional.linear(x, array("weight"), array("bias")),
            "image": lambda x: _image(x, **values),
            "conv": lambda x: torch.nn.functional.conv2d(x, array("weight"), array("bias"), values["stride"]),
            "layer_norm": lambda x: torch.nn.functional.layer_norm(x, x.shape[1:], array("scale"), array("shift"), values["epsilon"]),
            "choose": lambda x: torch.stack([group.argmax(1) for group in x.split(values["choices"], 1)], 1) + array("start"),
            "tanh": torch.tanh,
            "relu": torch.relu,
            "elu": torch.nn.functional.elu,
            "clip": lambda x: torch.minimum(torch.maximum(x, array("minimum")), array("maximum")),
            "rescale": lambda x: x * array("scale") + array("shift"),
            "reshape": lambda x: x.reshape(-1, *values["shape"]),
        }
        return steps[operation.name]


def _image(x: Tensor, stack: int, channels: int, height: int, width: int, channels_last: bool) -> Tensor:
    if channels_last:
        x = x.reshape(-1, stack, height, width, channels).permute(0, 1, 4, 2, 3)
    return x.reshape(-1, stack * channels, height, width).to(torch.float32) * (1 / 255)


def encode_torch(program: Program, origin: Mapping[str, Any]) -> bytes:
    """Returns the file.

    Args:
        program: what the policy computes.
        origin: JSON values that say where the policy comes from.
    """
    example = torch.zeros((2, *program.observation_shape), dtype=getattr(torch, program.observation_dtype))
    rows = torch.export.Dim("n", min=1)
    buffer = io.BytesIO()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        exported = torch.export.export(_Module(program).eval(), (example,), dynamic_shapes={"observation": {0: rows}})
        torch.export.save(exported, buffer)
    with zipfile.ZipFile(buffer, "a", zipfile.ZIP_STORED) as archive:
        root = archive.namelist()[0].partition("/")[0]
        manifest = {"origin": dict(origin), "sha256": _digest(archive, json.dumps(dict(origin), sort_keys=True))}
        archive.writestr(f"{root}/extra/{MANIFEST}", json.dumps(manifest, indent=1))
    return buffer.getvalue()


def _digest(archive: zipfile.ZipFile, origin: str) -> str:
    """Returns the SHA-256 of the origin and of every member but the manifest."""
    total = hashlib.sha256(origin.encode())
    for name in sorted(name for name in archive.namelist() if not name.endswith(MANIFEST)):
        total.update(f"{name} {archive.getinfo(name).file_size} ".encode())
        total.update(archive.read(name))
    return total.hexdigest()


def _verified_origin(data: bytes) -> dict[str, Any]:
    with zipfile.ZipFile(io.BytesIO(data)) as archive:
        names = archive.namelist()
        if len(set(names)) < len(names) or any(member.compress_type != zipfile.ZIP_STORED for member in archive.infolist()):
            raise ValueError("a member comes twice or is compressed")
        (manifest,) = [name for name in names if name.endswith(f"/extra/{MANIFEST}")] or [""]
        if not manifest or archive.getinfo(manifest).file_size > _LARGEST_JSON:
            raise ValueError("it holds no distppo policy")
        stated = json.loads(archive.read(manifest))
        if stated["sha256"] != _digest(archive, json.dumps(stated["origin"], sort_keys=True)):
            raise ValueError("damaged or changed: its contents do not have the SHA-256 that it states")
        for name in names:
            _require_nothing_pickled(archive, name)
    origin: dict[str, Any] = stated["origin"]
    return origin


def _require_nothing_pickled(archive: zipfile.ZipFile, name: str) -> None:
    if name.endswith(_CONFIGS):
        entries = json.loads(archive.read(name))["config"]
        if any(entry["use_pickle"] for entry in entries.values()):
            raise ValueError(f"{name} names pickled data, which a policy does not have")
    elif _CONSTANTS in name:
        raise ValueError(f"it holds {name}, which a policy does not have")
