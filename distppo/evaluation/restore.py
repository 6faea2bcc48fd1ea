"""What a checkpoint's state holds, and the way back to the objects it was written from."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from typing import Any

from distppo.checkpoint import Checkpoint
from distppo.config import Config, config_from_dict, config_to_dict
from distppo.errors import CheckpointError
from distppo.models.layout import mlp_layout
from distppo.types import EnvSpec, Moments, PolicySnapshot, PolicySpec

LEARNER_ARRAYS = "learner"


def checkpoint_state(
    config: Config, env: EnvSpec, learner: Mapping[str, Any], progress: Mapping[str, Any], boundary: Mapping[str, Any]
) -> dict[str, Any]:
    """Returns the JSON-like state of a checkpoint; missing action bounds are stored as null."""
    bounds = {name: [x if math.isfinite(x) else None for x in getattr(env, name)] for name in ("action_low", "action_high")}
    return {
        "config": config_to_dict(config),
        "env_spec": {**env._asdict(), **bounds},
        "learner": dict(learner),
        "progress": dict(progress),
        "boundary": dict(boundary),
    }


def config_of(checkpoint: Checkpoint) -> Config:
    """Returns the run's config as it was when the checkpoint was written."""
    return config_from_dict(_section(checkpoint, "config"))


def env_spec_of(checkpoint: Checkpoint) -> EnvSpec:
    """Returns the spec of the environment the policy was trained in."""
    fields = _section(checkpoint, "env_spec")
    try:
        return EnvSpec(
            id=str(fields["id"]),
            observation_shape=tuple(int(n) for n in fields["observation_shape"]),
            action_shape=tuple(int(n) for n in fields["action_shape"]),
            action_low=_bounds(fields["action_low"], -math.inf),
            action_high=_bounds(fields["action_high"], math.inf),
            max_episode_steps=None if fields["max_episode_steps"] is None else int(fields["max_episode_steps"]),
        )
    except (KeyError, TypeError, ValueError) as error:
        raise CheckpointError(f"{checkpoint.path}/state.json: env_spec is not as distppo writes it ({error})") from error


def learner_state_of(checkpoint: Checkpoint) -> tuple[Mapping[str, Any], Mapping[str, Any]]:
    """Returns the (arrays, values) that `Learner.load_state` takes."""
    return checkpoint.arrays.get(LEARNER_ARRAYS, {}), _section(checkpoint, "learner")


def progress_of(checkpoint: Checkpoint) -> dict[str, Any]:
    """Returns the trainer's progress as it was stored."""
    return _section(checkpoint, "progress")


def snapshot_of(checkpoint: Checkpoint) -> PolicySnapshot:
    """Returns the policy of a checkpoint.

    Raises:
        CheckpointError: arrays are missing or do not fit the config and environment stored beside them.
    """
    config, env = config_of(checkpoint), env_spec_of(checkpoint)
    arrays = checkpoint.arrays.get(LEARNER_ARRAYS, {})
    layout = mlp_layout(env, config.network)
    size = layout[-1].offset + env.action_size
    try:
        parameters = arrays["parameters"]
        moments = Moments(*(arrays[f"obs_moments/{field}"] for field in Moments._fields))
    except KeyError as error:
        raise CheckpointError(f"{checkpoint.path}: no array {error} in it") from error
    if parameters.shape != (size,) or moments.mean.shape != env.observation_shape:
        raise CheckpointError(
            f"{checkpoint.path}: {parameters.shape} parameters and moments of {moments.mean.shape} do not fit its own config "
            f"({size} parameters, observations {env.observation_shape})"
        )
    clip = config.normalization.observation_clip if config.normalization.observations else None
    version = int(_section(checkpoint, "learner")["version"])
    return PolicySnapshot(version, parameters, moments, PolicySpec(env, config.network.activation, layout, clip))


def _bounds(values: Iterable[float | None], missing: float) -> tuple[float, ...]:
    return tuple(missing if x is None else float(x) for x in values)


def _section(checkpoint: Checkpoint, name: str) -> dict[str, Any]:
    section = checkpoint.state.get(name)
    if not isinstance(section, dict):
        raise CheckpointError(f"{checkpoint.path}/state.json: {name} is missing")
    return section
