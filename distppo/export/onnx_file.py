"""The ONNX form: a graph of standard operators, written without torch and run by onnxruntime or any other runtime.

Input `observation` [n, *S] in float64 (float32 would round away what the normalizer needs of large, nearly constant numbers);
output `action` [n, *action shape] float32.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from typing import Any

import numpy as np

from distppo import __version__
from distppo.errors import ExportError
from distppo.export.program import Operation, Program
from distppo.export.seal import open_sealed, seal

OPSET = 17
"""Of 2022: every operator used here exists in it, and runtimes of that age on read it."""
IR_VERSION = 8
ORIGIN = "distppo_origin"
SEAL = "distppo_sha256"
PLACEHOLDER = "0" * 64
MISSING = "the ONNX form needs the packages onnx and onnxruntime: pip install 'distppo[export]', or pip install onnx onnxruntime"

_SIMPLE = {"tanh": "Tanh", "relu": "Relu", "elu": "Elu"}
_RECORDED = re.compile(re.escape(SEAL).encode() + rb"\x12\x40([0-9a-f]{64})")
"""The seal's entry in protobuf's encoding: the key, then field 2 of 64 bytes."""


class OnnxPolicy:
    """A policy in onnxruntime, with one thread.

    Args:
        data: the file.

    Raises:
        ExportError: onnxruntime is not installed.
        ValueError: the data is no policy of distppo's, or damaged.
    """

    def __init__(self, data: bytes) -> None:
        onnx, runtime = _packages()
        open_sealed(data, _RECORDED)
        properties = {entry.key: entry.value for entry in onnx.load_model_from_string(data).metadata_props}
        self.origin: dict[str, Any] = json.loads(properties[ORIGIN])
        options = runtime.SessionOptions()
        options.intra_op_num_threads = options.inter_op_num_threads = 1
        options.log_severity_level = 3
        self._session = runtime.InferenceSession(data, options, providers=["CPUExecutionProvider"])
        self.observation_shape = tuple(self.origin["observation"]["shape"])
        self._dtype = np.dtype(self.origin["observation"]["dtype"])

    def act(self, observation: np.ndarray) -> np.ndarray:
        """Returns the action for one observation [*S], or one each for a batch [n, *S]."""
        observation = np.asarray(observation, self._dtype)
        if observation.shape == self.observation_shape:
            return np.asarray(self._session.run(None, {"observation": observation[None]})[0])[0]
        if observation.ndim == 0 or observation.shape[1:] != self.observation_shape:
            raise ValueError(f"observation has shape {observation.shape}; the policy was trained on {self.observation_shape}, or a batch")
        return np.asarray(self._session.run(None, {"observation": observation})[0])


def encode_onnx(program: Program, origin: Mapping[str, Any]) -> bytes:
    """Returns the file, having passed ONNX's own checker.

    Args:
        program: what the policy computes.
        origin: JSON values that say where the policy comes from; they go into the model's metadata.

    Raises:
        ExportError: onnx is not installed.
    """
    onnx, _ = _packages()
    nodes: list[Any] = []
    initializers: list[Any] = []
    result = "observation"
    for index, operation in enumerate(program.operations):
        made, result = _nodes(onnx, operation, f"{index:03d}_{operation.name}", result, initializers)
        nodes += made
    nodes.append(onnx.helper.make_node("Identity", [result], ["action"]))
    kinds = {
        "float64": onnx.TensorProto.DOUBLE,
        "uint8": onnx.TensorProto.UINT8,
        "float32": onnx.TensorProto.FLOAT,
        "int64": onnx.TensorProto.INT64,
    }
    inputs = [onnx.helper.make_tensor_value_info("observation", kinds[program.observation_dtype], ["n", *program.observation_shape])]
    outputs = [onnx.helper.make_tensor_value_info("action", kinds[program.action_dtype], ["n", *program.action_shape])]
    graph = onnx.helper.make_graph(nodes, "policy", inputs, outputs, initializers)
    model = onnx.helper.make_model(
        graph,
        opset_imports=[onnx.helper.make_opsetid("", OPSET)],
        ir_version=IR_VERSION,
        producer_name="distppo",
        producer_version=__version__,
    )
    onnx.helper.set_model_props(model, {ORIGIN: json.dumps(dict(origin)), SEAL: PLACEHOLDER})
    onnx.checker.check_model(model, full_check=True)
    return seal(model.SerializeToString(), _RECORDED)


def _packages() -> tuple[Any, Any]:
    try:
        import onnx
        import onnxruntime
    except ImportError as error:
        raise ExportError(f"{MISSING} ({error})") from error
    return onnx, onnxruntime


def _nodes(onnx: Any, operation: Operation, name: str, source: str, initializers: list[Any]) -> tuple[list[Any], str]:
    """Returns the nodes of one operation and the name of its result; its arrays are added to the initializers."""

    def stored(role: str, array: np.ndarray) -> str:
        initializers.append(onnx.numpy_helper.from_array(np.ascontiguousarray(array), f"{name}_{role}"))
        return f"{name}_{role}"

    def chain(*steps: tuple[Any, ...]) -> tuple[list[Any], str]:
        made, current = [], source
        for number, (kind, *inputs, attributes) in enumerate(steps):
            made.append(onnx.helper.make_node(kind, [current, *inputs], [f"{name}_{number}"], **attributes))
            current = f"{name}_{number}"
        return made, current

    arrays, values, float32 = operation.arrays, operation.values, {"to": onnx.TensorProto.FLOAT}
    match operation.name:
        case "normalize":
            bounds = [stored(role, np.array(bound)) for role, bound in (("low", -values["clip"]), ("high", values["clip"]))]
            mean, inverse_std = stored("mean", arrays["mean"]), stored("inverse_std", arrays["inverse_std"])
            return chain(("Sub", mean, {}), ("Mul", inverse_std, {}), ("Clip", *bounds, {}), ("Cast", float32))
        case "cast":
            return chain(("Cast", float32))
        case "flatten":
            return chain(("Flatten", {"axis": 1}))
        case "linear":
            return chain(("Gemm", stored("weight", arrays["weight"]), stored("bias", arrays["bias"]), {"transB": 1}))
        case "image":
            stack, channels, height, width = (values[key] for key in ("stack", "channels", "height", "width"))
            split = stored("split", np.array([-1, stack, height, width, channels], np.int64))
            joined = stored("joined", np.array([-1, stack * channels, height, width], np.int64))
            first = [("Reshape", split, {}), ("Transpose", {"perm": [0, 1, 4, 2, 3]})] if values["channels_last"] else []
            return chain(*first, ("Reshape", joined, {}), ("Cast", float32), ("Mul", stored("unit", np.array(1 / 255, np.float32)), {}))
        case "conv":
            weight, bias = stored("weight", arrays["weight"]), stored("bias", arrays["bias"])
            return chain(("Conv", weight, bias, {"strides": [values["stride"]] * 2}))
        case "layer_norm":
            scale, shift = stored("scale", arrays["scale"]), stored("shift", arrays["shift"])
            return chain(("LayerNormalization", scale, shift, {"axis": -1, "epsilon": values["epsilon"]}))
        case "choose":
            sizes = stored("choices", np.array(values["choices"], np.int64))
            groups = [f"{name}_group{index}" for index in range(len(values["choices"]))]
            made = [onnx.helper.make_node("Split", [source, sizes], groups, axis=1)]
            made += [onnx.helper.make_node("ArgMax", [group], [f"{group}_best"], axis=1, keepdims=1) for group in groups]
            made.append(onnx.helper.make_node("Concat", [f"{group}_best" for group in groups], [f"{name}_best"], axis=1))
            made.append(onnx.helper.make_node("Add", [f"{name}_best", stored("start", arrays["start"])], [name]))
            return made, name
        case "tanh" | "relu" | "elu":
            return chain((_SIMPLE[operation.name], {}))
        case "clip":
            return chain(("Max", stored("minimum", arrays["minimum"]), {}), ("Min", stored("maximum", arrays["maximum"]), {}))
        case "rescale":
            return chain(("Mul", stored("scale", arrays["scale"]), {}), ("Add", stored("shift", arrays["shift"]), {}))
        case "reshape":
            return chain(("Reshape", stored("shape", np.array([-1, *values["shape"]], np.int64)), {}))
    raise ExportError(f"the ONNX form has no operation {operation.name!r}; use --format numpy or torch")
