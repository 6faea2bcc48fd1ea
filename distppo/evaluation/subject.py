"""What is evaluated: a checkpoint's or an exported policy, and the environment it is played in."""

from __future__ import annotations

import dataclasses
import os
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

from distppo.checkpoint import Checkpoint, load_resolved
from distppo.config import Config, config_from_dict
from distppo.config.trust import require_named
from distppo.errors import CheckpointError, UserError
from distppo.evaluation.policy import ExportedPolicy, Policy
from distppo.evaluation.restore import config_of, env_spec_from, env_spec_of, snapshot_of
from distppo.evaluation.zoo import from_zoo
from distppo.export.formats import is_exported, read_exported
from distppo.types import EnvSpec, PolicySnapshot


class Subject(NamedTuple):
    """A policy, and where it comes from. It crosses to other processes, which make the policy themselves.

    Attributes:
        path: checkpoint directory or exported file.
        config: what it was trained with; of an exported policy only `env` is known, the rest are defaults. `env` is what is played.
        spec: of the environment it was trained in.
        env_steps: it was trained for.
        snapshot: the policy; None: it is in the exported file.
    """

    path: Path
    config: Config
    spec: EnvSpec
    env_steps: int
    snapshot: PolicySnapshot | None

    def policy(self) -> Policy | ExportedPolicy:
        """Returns the policy, ready to act."""
        return ExportedPolicy(read_exported(self.path)) if self.snapshot is None else Policy(self.snapshot)


def load_subject(
    reference: str | os.PathLike[str], *, env: str | None = None, trust: Sequence[str] = ()
) -> tuple[Subject, Checkpoint | None]:
    """Returns what a reference names, and its checkpoint unless it is an exported file.

    Args:
        reference: a checkpoint, a run directory (its best, else its last), `latest`, `RUN@best|last|N`, an exported file, or `zoo:NAME`.
        env: Gymnasium id to play instead of the one trained in.
        trust: `module:Name`s that may be loaded although the checkpoint names them; what `env` names may anyway.

    Raises:
        CheckpointError: there is no valid checkpoint, or the file is damaged.
        UntrustedCodeError: it names code that neither `env` nor `trust` does.
    """
    reference = from_zoo(reference)
    if is_exported(reference):
        subject, checkpoint = _exported(Path(reference)), None
    else:
        checkpoint = load_resolved(str(reference), prefer="best")
        subject = Subject(checkpoint.path, config_of(checkpoint), env_spec_of(checkpoint), checkpoint.env_steps, None)
    if env is not None:
        config = subject.config
        subject = subject._replace(config=dataclasses.replace(config, env=dataclasses.replace(config.env, id=env)))
    require_named(subject.config, trust if env is None else [env, *trust], source=subject.path, sections=("env", "network"))
    return (subject if checkpoint is None else subject._replace(snapshot=snapshot_of(checkpoint))), checkpoint


def require_sampling(subject: Subject) -> None:
    """Raises UserError where only the most likely action is to be had."""
    if subject.snapshot is None:
        raise UserError(f"{subject.path} is an exported policy, which is deterministic; evaluate its checkpoint to sample actions")


def _exported(path: Path) -> Subject:
    origin = ExportedPolicy(read_exported(path)).origin
    try:
        config = config_from_dict({"env": origin["env"]}, origin=str(path))
        return Subject(path, config, env_spec_from(origin["env_spec"], str(path)), int(origin["env_steps"]), None)
    except (KeyError, TypeError, ValueError) as error:
        raise CheckpointError(f"{path}: it does not say what it was trained in ({error}). Export it again") from error


def require_same_spaces(trained: EnvSpec, given: EnvSpec, path: Path) -> None:
    """Raises CheckpointError unless a policy trained in one environment can act in the other."""
    names = ["observation_shape", "action_shape", "action_low", "action_high", "action_choices", "action_start"]
    for name in [*names, "observation_dtype"] if trained.observation_dtype == "uint8" else names:
        if getattr(trained, name) != getattr(given, name):
            what = name.replace("_", " ")
            raise CheckpointError(
                f"{path} was trained in {trained.id} with {what} {getattr(trained, name)}; {given.id} has {what} {getattr(given, name)}. "
                "Use the environment it was trained in, with the same env.kwargs"
            )
