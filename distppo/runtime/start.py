"""Where a run begins: from settings, or from a checkpoint and what is laid over its settings."""

from __future__ import annotations

import dataclasses
import os
from collections.abc import Collection, Mapping, Sequence
from pathlib import Path
from types import MappingProxyType
from typing import Any, NamedTuple

from distppo.checkpoint import Checkpoint, CheckpointInfo, list_checkpoints, load_for_resume
from distppo.checkpoint.storage import Storage, is_url
from distppo.config import Config, NetworkConfig, Overrides, apply_overrides, load_layers
from distppo.config.dump import format_value
from distppo.config.fields import FIELDS, Field
from distppo.config.load import Paths
from distppo.config.recipes import recipe_hint
from distppo.config.sources import from_mapping, from_names
from distppo.config.suggest import printable
from distppo.config.trust import require_named
from distppo.errors import CheckpointError
from distppo.evaluation.restore import config_of, env_spec_of, learner_state_of, snapshot_of
from distppo.models.architecture import resolved_network
from distppo.plugins import extend_search_path
from distppo.runtime.backend import LearnerState
from distppo.runtime.boundary import Boundary, boundary_of, restored_text
from distppo.runtime.run_directory import CONFIG_FILE, RUNS_ROOT, RunDirectory, find_begun_run, free_name


class Start(NamedTuple):
    """Where a run begins.

    Attributes:
        config: resolved.
        directory: of the run; None makes a new one under runs/.
        continued: the directory's own run goes on.
        checkpoint: to continue from, or None.
        boundary: where its next iteration begins.
        notes: what the user should know, one line each.
        newest: when the newest checkpoint in the directory had been saved as that was read; None if there was none.
        origins: where the settings that were given for this start come from, such as "configs/my.yaml:12:3", by key.
    """

    config: Config
    directory: Path | None
    continued: bool
    checkpoint: Checkpoint | None
    boundary: Boundary
    notes: list[str]
    newest: str | None = None
    origins: Mapping[str, str] = MappingProxyType({})

    def is_outdated(self) -> bool:
        """Whether the directory's own run has saved a checkpoint since it was read."""
        return self.continued and self.directory is not None and _newest(list_checkpoints(self.directory)) != self.newest


def read_settings(
    config: Config | Paths | None, overrides: Overrides | Mapping[str, Any] | None, settings: Mapping[str, Any], *, check: bool
) -> tuple[Config, Overrides]:
    """Returns the config, and what was set explicitly (what a resumed run lays over its own settings).

    Modules that the settings name are looked for beside the files, too.
    """
    base = config if isinstance(config, Config) else None
    if isinstance(overrides, Overrides):
        return base or Config(), overrides
    named, wrong_names = from_names(settings)
    dotted, wrong_keys = from_mapping(overrides or {})
    if config is None or isinstance(config, Config):
        files: list[str | os.PathLike[str]] = []
    else:
        files = [config] if isinstance(config, str | os.PathLike) else list(config)
    extend_search_path(Path(file).parent for file in files)
    return load_layers(files, [*named, *dotted], base=base, problems=[*wrong_names, *wrong_keys], check=check)


def fresh(config: Config) -> Start:
    directory = Path(config.run.directory).expanduser() if config.run.directory else None
    return Start(config, directory, continued=False, checkpoint=None, boundary=Boundary(), notes=recipe_hint(config))


def resumed(reference: str, given: Overrides, named: Collection[str]) -> Start:
    """Takes config and directory from the checkpoint, then what was set explicitly.

    Args:
        reference: of the run or checkpoint; the URL of a run on shared storage is copied to runs/ first.
        given: set explicitly.
        named: code that the user trusts, as `module:Name`.

    Raises:
        UserError: there is no such run, it cannot be gone on from with these settings, or it names code that the user has not.
    """
    storage = None
    if is_url(reference):
        storage = reference.rstrip("/").rpartition("/")[0]
        reference = str(Storage(reference).fetch(RUNS_ROOT, lambda run: RunDirectory(run, continued=True)))
    begun = find_begun_run(reference)
    if begun is not None:
        base, _ = load_layers([begun / CONFIG_FILE], check=False)
        config = apply_overrides(_with_places(base, storage), given)
        require_named(config, named, source=begun / CONFIG_FILE)
        note = f"{begun} has no checkpoint yet: it starts from the beginning, with its own settings{_changes(base, config)}"
        directory = Path(config.run.directory or begun).expanduser()
        notes = [note, *_storage_note(base, config)]
        return Start(config, directory, continued=not config.run.directory, checkpoint=None, boundary=Boundary(), notes=notes)
    checkpoint, problems = load_for_resume(reference)
    own = checkpoint.path.parent.parent
    saved = list_checkpoints(own)  # right after it: what is saved later is found by is_outdated
    trained = config_of(checkpoint)
    config = apply_overrides(_with_places(trained, storage), given)
    _require_same_run(checkpoint, trained, config)
    require_named(config, named, source=checkpoint.path)
    snapshot_of(checkpoint)  # raises if the arrays do not fit the settings, before anything of their size is made
    newest = problems or saved[-1].path == checkpoint.path
    if config.run.directory:
        directory = Path(config.run.directory).expanduser()
    else:
        # Going on from an older checkpoint in place would write over what came after it.
        directory = own if newest else free_name(own.with_name(f"{own.name}-from-{checkpoint.env_steps}"))
    boundary = boundary_of(checkpoint, config)
    notes = [*map(printable, problems), _restored_note(checkpoint, restored_text(boundary, config.rollout.num_envs), directory)]
    notes += _storage_note(trained, config)
    continued = directory.resolve() == own.resolve()
    return Start(config, directory, continued=continued, checkpoint=checkpoint, boundary=boundary, notes=notes, newest=_newest(saved))


def _newest(saved: Sequence[CheckpointInfo]) -> str | None:
    return saved[-1].saved_at if saved else None


def _changes(own: Config, config: Config) -> str:
    """Returns which of a run's own settings do not count, for the end of a sentence."""
    changed = (field.key for field in FIELDS.values() if _value(own, field) != _value(config, field))
    keys = [key for key in changed if key != "run.directory"]
    return f" but {', '.join(keys)}" if keys else ""


def _value(config: Config, field: Field) -> object:
    return getattr(getattr(config, field.section), field.attribute)


def _storage_note(own: Config, config: Config) -> list[str]:
    """Says where a run's checkpoints were copied to, if they no longer are."""
    if own.run.storage is None or config.run.storage is not None:
        return []
    was = printable(own.run.storage)
    return [f"its checkpoints were copied to {was}; --set run.storage={was} goes on with that"]


def _with_places(config: Config, storage: str | None) -> Config:
    """Returns the settings with the places that the user has named: a stranger's files do not say where to write."""
    return dataclasses.replace(config, run=dataclasses.replace(config.run, directory=None, storage=storage))


def restored_learner(start: Start) -> LearnerState | None:
    """Returns the learner's state to go on from, or None.

    A learning rate that is asked for and differs from the trained one counts: under the schedule `kl` the state has a rate of its own,
    which has been adapted since, and which would otherwise hide it.
    """
    if start.checkpoint is None:
        return None
    arrays, values = learner_state_of(start.checkpoint)
    asked = start.config.ppo.learning_rate
    if asked != config_of(start.checkpoint).ppo.learning_rate:
        values = {**values, "learning_rate": asked}
    return arrays, values


def _require_same_run(checkpoint: Checkpoint, trained: Config, asked: Config) -> None:
    """Raises CheckpointError where a setting asks for what another run would be."""
    if asked.env.id != trained.env.id:
        raise CheckpointError(
            f"{checkpoint.path} was trained in {trained.env.id} (asked for: {asked.env.id}); a run goes on in its own environment. "
            "Leave --env out, or start a new run without --resume"
        )
    env = env_spec_of(checkpoint)
    networks = resolved_network(env, trained.network), resolved_network(env, asked.network)
    if networks[0] != networks[1]:
        raise CheckpointError(f"{checkpoint.path} holds {_differences(*networks)}; leave the network as it was to resume")


def _differences(trained: NetworkConfig, asked: NetworkConfig) -> str:
    fields = [field for field in FIELDS.values() if field.section == "network"]
    values = [(field, getattr(trained, field.attribute), getattr(asked, field.attribute)) for field in fields]
    return ", ".join(
        f"{field.key} {format_value(field, old)} (asked for: {format_value(field, new)})" for field, old, new in values if old != new
    )


def _restored_note(checkpoint: Checkpoint, environments: str, directory: Path) -> str:
    return (
        f"resumed {checkpoint.path} at iteration {checkpoint.iteration}, {checkpoint.env_steps:,} env steps: weights, optimizer, "
        f"normalizers, schedules and counters restored; {environments}; continues in {directory}"
    )
