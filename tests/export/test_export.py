"""Exported policies act as their checkpoints do, need what they say they need, and are refused when changed."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from runtime.running import SMALL, Run, environment

from distppo import evaluate, export_policy, load_policy
from distppo.cli import main
from distppo.config.schema import NetworkConfig
from distppo.errors import CheckpointError, ExportError, UserError
from distppo.evaluation import export as export_module
from distppo.evaluation.policy import Policy
from distppo.export import numpy_loader
from distppo.export.formats import FORMATS
from distppo.export.program import Operation, Program, program_of
from distppo.export.verify import TOLERANCE, allowed_difference, clear_cases, largest_difference, sample_observations
from distppo.models.architecture import moments_shape, resolved_network
from distppo.models.layout import layout_size, network_layout
from distppo.runtime.train import train
from distppo.types import EnvSpec, Moments, PolicySnapshot, PolicySpec

INSTALLED = {"numpy": [], "torch": [], "onnx": ["onnx", "onnxruntime"]}
INF = float("inf")
ORIGIN = {"observation": {"shape": [2, 3], "dtype": "float64"}}
ALONE = """
import importlib.abc, json, sys
class Refuse(importlib.abc.MetaPathFinder):
    def find_spec(self, name, path, target=None):
        if name.partition(".")[0] in {"distppo", "torch", "gymnasium", "ray", "scipy", "safetensors", "onnx"}:
            raise ImportError(name)
sys.meta_path.insert(0, Refuse())
import numpy as np
import copied_loader
policy = copied_loader.load("policy.npz")
observations = np.random.default_rng(0).normal([0, -50, 0], [1, 20, 1e-3], (20, 3))
print(json.dumps([policy.act(observations).tobytes().hex(), policy.act(observations[3]).tobytes().hex()]))
"""


@pytest.fixture(params=FORMATS)
def form(request: pytest.FixtureRequest) -> str:
    """Each form whose packages are installed."""
    for package in INSTALLED[request.param]:
        pytest.importorskip(package)
    return str(request.param)


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Run:
    """A finished run, evaluated, whose observations have very different scales."""
    settings = {"evaluation.every": 128, "evaluation.episodes": 2, "run.directory": str(tmp_path_factory.mktemp("export") / "run")}
    return Run(train(overrides=SMALL | settings, progress=False))


def snapshot(
    network: NetworkConfig, *, low: tuple[float, ...], high: tuple[float, ...], clip: float | None = 10.0, scale: float = 0.2
) -> PolicySnapshot:
    """A policy with random parameters over observations [2, 3] of scales from 1e-3 to 1e4."""
    rng = np.random.default_rng(0)
    env = EnvSpec("x", (2, 3), (len(low),), low, high, None)
    network = resolved_network(env, network)
    layout = network_layout(env, network)
    parameters = rng.normal(0.0, scale, layout_size(layout)).astype(np.float32)
    mean, std = rng.normal(0, 100, (2, 3)), 10.0 ** rng.uniform(-3, 4, (2, 3))
    return PolicySnapshot(1, parameters, Moments(np.array(100.0), mean, 100 * std**2), PolicySpec(env, network, layout, clip))


@pytest.mark.parametrize(
    ("network", "bounds", "clip"),
    [
        pytest.param(NetworkConfig(), (-1.0, 1.0), 10.0, id="tanh"),
        pytest.param(NetworkConfig(activation="relu", hidden_sizes=(32,)), (-0.4, 0.4), 10.0, id="relu, rescaled"),
        pytest.param(NetworkConfig(activation="elu", shared=True), (-INF, INF), 10.0, id="elu, shared, unbounded"),
        pytest.param(NetworkConfig(hidden_sizes=()), (0.0, INF), 5.0, id="linear, bounded below"),
        pytest.param(NetworkConfig(), (-2.0, 3.0), None, id="not normalized"),
    ],
)
def test_every_policy_acts_as_before(
    network: NetworkConfig, bounds: tuple[float, float], clip: float | None, form: str, record_property: Callable[[str, object], None]
) -> None:
    """Over 1,000 observations, as in training, extreme and zero; the numpy form to the last bit."""
    policy = snapshot(network, low=(bounds[0],) * 3, high=(bounds[1],) * 3, clip=clip)
    program = program_of(policy)
    exported = FORMATS[form].decode(FORMATS[form].encode(program, ORIGIN))
    inputs = sample_observations(program, policy.obs_moments, normalized=clip is not None)
    assert inputs.shape == (1000, 2, 3) and (inputs == 0).all(axis=(1, 2)).sum() >= 40
    difference = largest_difference(Policy(policy).act, exported.act, inputs)
    record_property("largest difference", difference)
    print(f"largest difference, {form}: {difference:.1e}")
    assert difference == 0.0 if form == "numpy" else difference < TOLERANCE
    np.testing.assert_array_equal(exported.act(inputs[5]), exported.act(inputs[5:6])[0])
    with pytest.raises(ValueError, match=r"observation has shape \(4,\); the policy was trained on \(2, 3\)"):
        exported.act(np.zeros(4))


def space(shape: tuple[int, ...], dtype: str, *, choices: tuple[int, ...] = (), action_shape: tuple[int, ...] = (2,)) -> EnvSpec:
    """An environment with two actions in [-1, 1], or with choices, the second numbered from 1."""
    bounds = () if choices else (1.0, 1.0)
    return EnvSpec("x", shape, action_shape, tuple(-x for x in bounds), bounds, None, dtype, choices, tuple(range(len(choices))))


@pytest.mark.parametrize(
    ("env", "network"),
    [
        pytest.param(space((5,), "float64"), NetworkConfig(layer_norm=True, activation="elu"), id="MLP with layer_norm"),
        pytest.param(space((4,), "float32", choices=(4,), action_shape=()), NetworkConfig(), id="MLP, one choice"),
        pytest.param(space((4,), "float64", choices=(2, 3)), NetworkConfig(layer_norm=True, shared=True), id="shared MLP, two choices"),
        pytest.param(space((4, 4, 3), "uint8"), NetworkConfig(), id="MLP over small images"),
        pytest.param(space((44, 40, 3), "uint8"), NetworkConfig(), id="CNN"),
        pytest.param(space((2, 1, 40, 44), "uint8", choices=(4,), action_shape=()), NetworkConfig(shared=True), id="shared CNN, choice"),
        pytest.param(space((40, 40), "uint8", choices=(2, 3)), NetworkConfig(layer_norm=True), id="CNN with layer_norm, two choices"),
    ],
)
def test_every_torso_and_head_acts_as_before(env: EnvSpec, network: NetworkConfig, form: str) -> None:
    """Images, choices and layer normalization too; of a CNN every twentieth observation, since numpy is slow at convolutions."""
    network, rng = resolved_network(env, network), np.random.default_rng(0)
    layout, shape = network_layout(env, network), moments_shape(env, network)
    parameters = rng.normal(0.0, 0.05 if network.torso == "cnn" else 0.2, layout_size(layout)).astype(np.float32)
    std = 10.0 ** rng.uniform(-3, 3, shape)
    moments = Moments(np.array(100.0), np.asarray(rng.normal(0, 50, shape)), np.asarray(100 * std**2))
    normalized = network.torso == "mlp"
    policy = PolicySnapshot(1, parameters, moments, PolicySpec(env, network, layout, 10.0 if normalized else None))
    program = program_of(policy)
    inputs = sample_observations(program, moments, normalized=normalized)
    inputs = clear_cases(program, inputs if normalized else inputs[::20])
    origin = {"observation": {"shape": list(env.observation_shape), "dtype": program.observation_dtype}}
    exported = FORMATS[form].decode(FORMATS[form].encode(program, origin))
    expected, given = Policy(policy).act(inputs), exported.act(inputs)
    difference = largest_difference(lambda _: expected, lambda _: given, inputs)
    print(f"largest difference, {form}, {network.torso}, {len(inputs)} observations: {difference:.1e}")
    assert difference < TOLERANCE and len(inputs) >= (900 if normalized else 45)
    one = exported.act(inputs[0])
    assert np.asarray(one).dtype == expected.dtype and np.shape(one) == env.action_shape


def image_program(channels_last: bool) -> Program:
    """A small CNN with layer normalization over stacked images, that makes two choices."""
    rng = np.random.default_rng(0)

    def normal(*shape: int) -> np.ndarray:
        return rng.normal(0, 0.3, shape).astype(np.float32)

    image = {"stack": 2, "channels": 3, "height": 12, "width": 10, "channels_last": channels_last}
    operations = (
        Operation("image", {}, image),
        Operation("conv", {"weight": normal(5, 6, 4, 4), "bias": normal(5)}, {"stride": 2}),
        Operation("relu"),
        Operation("conv", {"weight": normal(4, 5, 2, 2), "bias": normal(4)}, {"stride": 1}),
        Operation("elu"),
        Operation("flatten"),
        Operation("linear", {"weight": normal(8, 4 * 4 * 3), "bias": normal(8)}),
        Operation("layer_norm", {"scale": normal(8), "shift": normal(8)}, {"epsilon": 1e-5}),
        Operation("tanh"),
        Operation("linear", {"weight": normal(5, 8), "bias": normal(5)}),
        Operation("choose", {"start": np.array([0, 10])}, {"choices": [2, 3]}),
        Operation("reshape", {}, {"shape": [2]}),
    )
    return Program((2, 12, 10, 3) if channels_last else (2, 3, 12, 10), "uint8", (2,), "int64", operations)


@pytest.mark.parametrize("channels_last", [True, False])
@pytest.mark.parametrize("chooses", [True, False])
def test_every_form_computes_images_layer_norms_and_choices_alike(channels_last: bool, chooses: bool, form: str) -> None:
    """Against torch's own layers; with and without the last step, which hides small differences."""
    import torch

    program = image_program(channels_last)
    if not chooses:
        program = program._replace(operations=program.operations[:-2], action_shape=(5,), action_dtype="float32")
    moments = Moments(np.array(1.0), np.array(0.0), np.array(0.0))
    inputs = clear_cases(program, sample_observations(program, moments, normalized=False)[::8])
    assert inputs.dtype == np.uint8 and len(inputs) > 120
    arrays = [{role: torch.from_numpy(array) for role, array in operation.arrays.items()} for operation in program.operations]
    x = torch.from_numpy(inputs)
    x = (x.permute(0, 1, 4, 2, 3) if channels_last else x).reshape(-1, 6, 12, 10).float() / 255
    x = torch.relu(torch.nn.functional.conv2d(x, **arrays[1], stride=2))
    x = torch.nn.functional.elu(torch.nn.functional.conv2d(x, **arrays[3])).flatten(1)
    x = torch.nn.functional.layer_norm(torch.nn.functional.linear(x, **arrays[6]), (8,), arrays[7]["scale"], arrays[7]["shift"])
    x = torch.nn.functional.linear(torch.tanh(x), **arrays[9])
    expected = torch.stack([x[:, :2].argmax(1), 10 + x[:, 2:].argmax(1)], 1) if chooses else x
    origin = {"observation": {"shape": list(program.observation_shape), "dtype": "uint8"}}
    exported = FORMATS[form].decode(FORMATS[form].encode(program, origin))
    given = exported.act(inputs)
    assert given.dtype == program.action_dtype and exported.act(inputs[0]).shape == program.action_shape
    difference = largest_difference(lambda _: expected.numpy(), lambda _: given, inputs)
    print(f"largest difference, {form}, {'choices' if chooses else 'scores'} of a CNN: {difference:.1e}")
    assert difference < TOLERANCE


def test_the_command_says_the_difference_and_the_file_plays_as_the_checkpoint(
    form: str, run: Run, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    """`export RUN --format F`, then `evaluate FILE`: the same episodes; from the numpy form bit for bit."""
    output = tmp_path / f"policy{FORMATS[form].suffix}"
    assert main(["export", str(run.directory), "--format", form, "--output", str(output)]) == 0
    printed = capsys.readouterr().out
    assert f"-> {output}" in printed and "over 1,000 observations: " in printed
    assert float(printed.rpartition(": ")[2]) < TOLERANCE
    assert main(["evaluate", str(output), "--env", "probe_envs:Point-v0", "--episodes", "3", "--json"]) == 0
    played = json.loads(capsys.readouterr().out)
    trained = evaluate(run.directory, episodes=3)
    assert played["env_steps"] == trained.env_steps and played["checkpoint"] == str(output)
    if form == "numpy":
        assert played["return_mean"] == trained.return_mean
    assert played["return_mean"] == pytest.approx(trained.return_mean, rel=1e-4)
    with pytest.raises(UserError, match="is an exported policy, which is deterministic"):
        evaluate(output, deterministic=False)
    with pytest.raises(CheckpointError, match="with action shape"):
        evaluate(output, env="Pendulum-v1")


def test_the_numpy_form_needs_numpy_and_one_copied_file(run: Run, tmp_path: Path) -> None:
    """In a process that cannot import distppo, torch, gymnasium or ray: the same bits."""
    export_policy(run.directory, format="numpy", output=tmp_path / "policy.npz")
    shutil.copy(numpy_loader.__file__, tmp_path / "copied_loader.py")
    command = [sys.executable, "-c", ALONE]
    done = subprocess.run(command, cwd=tmp_path, env=environment(), capture_output=True, text=True, timeout=60, check=True)
    policy = load_policy(run.directory)
    observations = np.random.default_rng(0).normal([0, -50, 0], [1, 20, 1e-3], (20, 3))
    assert json.loads(done.stdout) == [policy.act(observations).tobytes().hex(), policy.act(observations[3]).tobytes().hex()]
    assert set(np.load(tmp_path / "policy.npz").files) >= {"policy.json", "000_normalize_mean"}


def test_the_torch_form_needs_torch_alone(run: Run, tmp_path: Path) -> None:
    """torch.export.load runs it where distppo cannot be imported."""
    result = export_policy(run.directory, format="torch", output=tmp_path / "policy.pt2")
    assert result.largest_difference < TOLERANCE
    code = (
        "import sys; sys.modules['distppo'] = None; import torch;"
        "policy = torch.export.load('policy.pt2').module();"
        "print(policy(torch.zeros(1, 3, dtype=torch.float64)).tolist(), policy(torch.zeros(7, 3, dtype=torch.float64)).shape[0])"
    )
    done = subprocess.run([sys.executable, "-c", code], cwd=tmp_path, capture_output=True, text=True, timeout=60, check=True)
    action = load_policy(run.directory).act(np.zeros(3))
    shown, _, rows = done.stdout.rpartition(" ")
    np.testing.assert_allclose(json.loads(shown)[0], action, atol=1e-6)
    assert int(rows) == 7


def test_every_changed_byte_is_noticed(form: str, run: Run, tmp_path: Path) -> None:
    """A flip anywhere in the file, or a missing end: refused with the file's name, or without effect on what it computes."""
    path = export_policy(run.directory, format=form, output=tmp_path / f"policy{FORMATS[form].suffix}").path
    data = path.read_bytes()
    expected = load_policy(path).act(np.ones(3))
    rng = np.random.default_rng(0)
    refused = 0
    places = rng.integers(len(data), size=60 if form == "numpy" else 25)
    for place in places:
        path.write_bytes(data[:place] + bytes([data[place] ^ 0x10]) + data[place + 1 :])
        try:
            np.testing.assert_array_equal(load_policy(path).act(np.ones(3)), expected)
        except CheckpointError as error:
            assert str(error).startswith(str(path)) and "Export it again" in str(error)
            refused += 1
    assert refused > len(places) / 2  # the rest are the zip's dates and attributes, and padding
    path.write_bytes(data[: len(data) // 2])
    with pytest.raises(CheckpointError):
        load_policy(path)


def test_changed_weights_are_refused_even_where_the_archive_is_sound(run: Run, tmp_path: Path) -> None:
    """Somebody swaps an array and writes the zip anew: the hash inside tells."""
    path = export_policy(run.directory, format="numpy", output=tmp_path / "policy.npz").path
    with zipfile.ZipFile(path) as archive:
        contents = {name: archive.read(name) for name in archive.namelist()}
    name = next(name for name in contents if "linear_bias" in name)
    contents[name] = contents[name][:-4] + np.float32(7).tobytes()
    with zipfile.ZipFile(path, "w") as archive:
        for member, data in contents.items():
            archive.writestr(member, data)
    with pytest.raises(CheckpointError, match=r"policy.npz: not a policy .*do not have the SHA-256 that it states"):
        load_policy(path)


@pytest.mark.parametrize(
    ("member", "content"),
    [
        pytest.param("policy.json", b"[" * 100_000, id="deep nesting"),
        pytest.param("policy.json", b'{"format": "distppo policy", "format_version": 2}', id="newer"),
        pytest.param("policy.json", b"{}", id="foreign"),
        pytest.param("x.npy", b"\x93NUMPY\x01\x00v\x00{'descr': '|O', 'fortran_order': False, 'shape': (1,)}", id="objects"),
        pytest.param(
            "x.npy",
            b"\x93NUMPY\x01\x00\x4d\x00" + b"{'descr': '<f4', 'fortran_order': False, 'shape': (999999999999,)}".ljust(77),
            id="huge",
        ),
    ],
)
def test_hostile_numpy_files_are_refused(member: str, content: bytes, tmp_path: Path) -> None:
    """Nothing is unpickled and nothing allocated beyond the file's own size."""
    path = tmp_path / "policy.npz"
    with zipfile.ZipFile(path, "w") as archive:
        for name, data in ({"policy.json": b"{}"} | {member: content}).items():
            archive.writestr(name, data)
    with pytest.raises(CheckpointError, match=r"policy\.npz: not a policy that can be used"):
        load_policy(path)
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("policy.json", b" " * 10**6)
    with pytest.raises(CheckpointError, match="is compressed"):
        load_policy(path)


def test_what_does_not_match_is_not_written(run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """With the largest difference; an older file stays as it was."""
    whole = program_of

    def off_by_a_little(policy: PolicySnapshot) -> Any:
        made = whole(policy)
        first = made.operations[0]
        changed = first._replace(arrays=first.arrays | {"mean": first.arrays["mean"] + 1e-3})
        return made._replace(operations=(changed, *made.operations[1:]))

    (tmp_path / "policy.npz").write_bytes(b"older")
    monkeypatch.setattr(export_module, "program_of", off_by_a_little)
    with pytest.raises(
        ExportError, match=r"was not written: its actions differ .* by up to \d.* over 1,000 observations, 1e-05 is allowed"
    ):
        export_policy(run.directory, format="numpy", output=tmp_path / "policy.npz")
    assert (tmp_path / "policy.npz").read_bytes() == b"older"


def test_a_policy_whose_own_rounding_is_larger_is_not_refused_for_it() -> None:
    """Wide sums that cancel: two orders of summation differ by more than 1e-5, and both are as right as float32 can be."""
    policy = snapshot(NetworkConfig(activation="elu", hidden_sizes=(64, 64, 64)), low=(-INF,) * 3, high=(INF,) * 3, scale=0.6)
    program, act = program_of(policy), Policy(policy).act
    inputs = sample_observations(program, policy.obs_moments, normalized=True)
    allowed = allowed_difference(program, inputs)
    assert TOLERANCE < allowed < 1e-2
    exported = FORMATS["torch"].decode(FORMATS["torch"].encode(program, ORIGIN))
    assert largest_difference(act, exported.act, inputs) < allowed


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"format": "onxx"}, r"format must be onnx, numpy, torch, got 'onxx' - did you mean onnx\?"),
        ({"format": "numpy", "output": "policy.onnx"}, r"a file of the numpy form is named \*\.npz"),
        ({"format": "numpy", "output": "/proc/no/policy.npz"}, "cannot be written: .*choose another place with --output"),
    ],
)
def test_what_cannot_be_written_is_told(arguments: dict[str, str], message: str, run: Run) -> None:
    with pytest.raises(ExportError, match=message):
        export_policy(run.directory, **arguments)


def test_a_missing_package_is_one_line(run: Run, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    """With the command that installs it."""
    monkeypatch.setitem(sys.modules, "onnxruntime", None)
    assert main(["export", str(run.directory), "--format", "onnx"]) == 2
    message = capsys.readouterr().err
    assert "pip install 'distppo[export]'" in message and message.count("\n") == 1


def test_without_a_name_it_lands_in_the_run_directory(run: Run) -> None:
    result = export_policy(run.directory)
    best = Path(run.summary["best_checkpoint"])
    assert result.path == run.directory / f"policy-{run.summary['best_evaluation']['env_steps']}.npz" and result.checkpoint == best
    with pytest.raises(ValueError, match="an exported policy is deterministic"):
        load_policy(result.path).act(np.zeros(3), deterministic=False)
