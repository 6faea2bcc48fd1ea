"""Writes a trained policy as one file to deploy: the code behind `launch.py export` and `distppo.export_policy`."""

from __future__ import annotations

import os
from pathlib import Path
from typing import NamedTuple

from distppo import __version__
from distppo.checkpoint import Checkpoint, load_resolved
from distppo.config import config_to_dict
from distppo.config.suggest import did_you_mean
from distppo.errors import ExportError
from distppo.evaluation.policy import Policy
from distppo.evaluation.restore import config_of, env_spec_fields, env_spec_of, snapshot_of
from distppo.evaluation.zoo import from_zoo
from distppo.export.formats import FORMATS, is_exported
from distppo.export.program import Program, program_of
from distppo.export.verify import allowed_difference, clear_cases, largest_difference, sample_observations
from distppo.files import write_atomic


class ExportResult(NamedTuple):
    """A policy that was written.

    Attributes:
        path: of the file.
        checkpoint: directory it was made from.
        largest_difference: between its actions and the checkpoint's over `observations` observations, relative above size 1.
        observations: how many they were compared over.
    """

    path: Path
    checkpoint: Path
    largest_difference: float
    observations: int


def export_policy(
    checkpoint: str | os.PathLike[str], *, format: str = "numpy", output: str | os.PathLike[str] | None = None
) -> ExportResult:
    """Writes the deterministic policy of a checkpoint: raw observation in, environment action out, and nothing else needed.

    Normalizer, network, clipping and rescaling are inside. It is compared with the checkpoint's own policy over 1,000 observations (as in
    training, extreme, zeros) and not written unless they agree.

    Args:
        checkpoint: a checkpoint, a run directory (its best, else its last) or `latest`.
        format: numpy (one .npz for `distppo/export/numpy_loader.py`, which needs numpy alone), onnx, or torch (for torch.export.load).
        output: file to write, replaced as a whole if it exists; None: policy-<env steps> in the run directory.

    Raises:
        CheckpointError: there is no valid checkpoint.
        ExportError: the format is unknown, the policy is an exported one, a package is missing, the file cannot be written, or it does not
            act as the policy does.
    """
    if format not in FORMATS:
        raise ExportError(f"format must be {', '.join(FORMATS)}, got {format!r}{did_you_mean(format, FORMATS)}")
    form = FORMATS[format]
    if is_exported(from_zoo(checkpoint)):
        raise ExportError(f"{checkpoint} is an exported policy already: copy {from_zoo(checkpoint)}, or export the checkpoint it came from")
    loaded = load_resolved(str(checkpoint), prefer="best")
    own = config_of(loaded).network.class_
    if own is not None:
        raise ExportError(f"{loaded.path}: network.class {own} cannot be exported, the built-in networks can; act with load_policy instead")
    target = Path(output) if output is not None else _default_output(loaded, form.suffix)
    if target.suffix != form.suffix:
        raise ExportError(f"{target}: a file of the {format} form is named *{form.suffix}, by which it is recognized when it is read")
    snapshot = snapshot_of(loaded)
    program = program_of(snapshot)
    data = form.encode(program, _origin(loaded, program))
    normalized = snapshot.spec.observation_clip is not None
    inputs = clear_cases(program, sample_observations(program, snapshot.obs_moments, normalized=normalized))
    policy = Policy(snapshot)
    difference, allowed = largest_difference(policy.act, form.decode(data).act, inputs), allowed_difference(program, inputs)
    if not difference < allowed:
        raise ExportError(
            f"{target} was not written: its actions differ from those of {loaded.path} by up to {difference:.2g} over "
            f"{len(inputs):,} observations, {allowed:.2g} is allowed"
        )
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        write_atomic(target, data)
    except OSError as error:
        raise ExportError(f"{target} cannot be written: {error.strerror}; choose another place with --output") from error
    return ExportResult(target, loaded.path, difference, len(inputs))


def _default_output(checkpoint: Checkpoint, suffix: str) -> Path:
    return checkpoint.path.parent.parent / f"policy-{checkpoint.env_steps}{suffix}"


def _origin(checkpoint: Checkpoint, program: Program) -> dict[str, object]:
    return {
        "observation": {"shape": list(program.observation_shape), "dtype": program.observation_dtype},
        "distppo": __version__,
        "env": config_to_dict(config_of(checkpoint))["env"],
        "env_spec": env_spec_fields(env_spec_of(checkpoint)),
        "env_steps": checkpoint.env_steps,
        "checkpoint": checkpoint.path.name,
    }
