"""What a checkpoint's state holds, and the way back to the objects it was written from."""

from __future__ import annotations

import math
import re
from collections.abc import Iterable, Mapping
from typing import Any

import numpy as np

from distppo.checkpoint import Checkpoint
from distppo.config import Config, config_from_dict, config_to_dict
from distppo.config.suggest import shortened
from distppo.errors import CheckpointError
from distppo.models.acting import policy_layout
from distppo.models.architecture import moments_shape, policy_spec
from distppo.models.layout import layout_size
from distppo.models.structured import flattened_size
from distppo.types import EnvSpec, Moments, PolicySnapshot

LEARNER_ARRAYS = "learner"
_MOST_DIMENSIONS = 32
_DEEPEST_PARTS = 16
_MOST_NUMBERS = 1 << 30


def checkpoint_state(
    config: Config, env: EnvSpec, learner: Mapping[str, Any], progress: Mapping[str, Any], boundary: Mapping[str, Any]
) -> dict[str, Any]:
    """Returns the JSON-like state of a checkpoint."""
    return {
        "config": config_to_dict(config),
        "env_spec": env_spec_fields(env),
        "learner": dict(learner),
        "progress": dict(progress),
        "boundary": dict(boundary),
    }


def env_spec_fields(env: EnvSpec) -> dict[str, Any]:
    """Returns the spec as JSON values; missing action bounds are null."""
    bounds = {name: [x if math.isfinite(x) else None for x in getattr(env, name)] for name in ("action_low", "action_high")}
    return {**env._asdict(), **bounds}


def config_of(checkpoint: Checkpoint) -> Config:
    """Returns the run's config as it was when the checkpoint was written."""
    return config_from_dict(_section(checkpoint, "config"))


def env_spec_of(checkpoint: Checkpoint) -> EnvSpec:
    """Returns the spec of the environment the policy was trained in."""
    return env_spec_from(_section(checkpoint, "env_spec"), f"{checkpoint.path}/state.json")


def env_spec_from(fields: Mapping[str, Any], place: str) -> EnvSpec:
    """Returns the spec that `env_spec_fields` took apart; `place` is for the message.

    Raises:
        CheckpointError: something is missing or of another kind.
    """
    try:
        spec = EnvSpec(
            id=_text(fields["id"]),
            observation_shape=_shape(fields["observation_shape"]),
            action_shape=_shape(fields["action_shape"]),
            action_low=_bounds(fields["action_low"], -math.inf),
            action_high=_bounds(fields["action_high"], math.inf),
            max_episode_steps=None if fields["max_episode_steps"] is None else _count(fields["max_episode_steps"]),
            # Checkpoints from before there were images and choices of actions do not have these.
            observation_dtype=_dtype(fields.get("observation_dtype", "float64")),
            action_choices=_choices(fields.get("action_choices", ())),
            action_start=tuple(map(_whole, fields.get("action_start", ()))),
            observation_parts=_parts(fields.get("observation_parts", ())),
        )
        _require_whole_actions(spec)
        if spec.observation_parts and flattened_size(spec.observation_parts) != spec.observation_size:
            raise ValueError(f"parts of {flattened_size(spec.observation_parts)} numbers for {spec.observation_size}")
        return spec
    except (KeyError, TypeError, ValueError) as error:
        raise CheckpointError(f"{place}: env_spec is not as distppo writes it ({error})") from error


def learner_state_of(checkpoint: Checkpoint) -> tuple[Mapping[str, Any], Mapping[str, Any]]:
    """Returns the (arrays, values) that `Learner.load_state` takes."""
    values = _section(checkpoint, "learner")
    try:
        for name in ("version", "env_steps", "epochs_done", "gradient_steps"):
            _count(values[name])
        _number(values["learning_rate"])
    except (KeyError, TypeError, ValueError) as error:
        raise CheckpointError(f"{checkpoint.path}/state.json: learner is not as distppo writes it ({error})") from error
    return checkpoint.arrays.get(LEARNER_ARRAYS, {}), values


def progress_of(checkpoint: Checkpoint) -> dict[str, Any]:
    """Returns the trainer's progress as it was stored."""
    fields = _section(checkpoint, "progress")
    try:
        _count(fields["iteration"])
        _count(fields["env_steps"])
        _number(fields["seconds"])
        if fields["first_return"] is not None:
            _number(fields["first_return"])
        if fields["best_evaluation"] is not None:
            for value in dict(fields["best_evaluation"]).values():
                _number(value)
    except (KeyError, TypeError, ValueError) as error:
        raise CheckpointError(f"{checkpoint.path}/state.json: progress is not as distppo writes it ({error})") from error
    return fields


def snapshot_of(checkpoint: Checkpoint) -> PolicySnapshot:
    """Returns the policy of a checkpoint.

    Raises:
        CheckpointError: arrays are missing or do not fit the config and environment stored beside them.
    """
    config, env = config_of(checkpoint), env_spec_of(checkpoint)
    arrays = checkpoint.arrays.get(LEARNER_ARRAYS, {})
    layout = policy_layout(env, config.network)
    size = layout_size(layout)
    try:
        parameters = arrays["parameters"]
        moments = Moments(*(arrays[f"obs_moments/{field}"] for field in Moments._fields))
    except KeyError as error:
        raise CheckpointError(f"{checkpoint.path}: no array {error} in it") from error
    if parameters.shape != (size,) or moments.mean.shape != moments_shape(env, config.network):
        raise CheckpointError(
            f"{checkpoint.path}: {parameters.shape} parameters and moments of {moments.mean.shape} do not fit its own config "
            f"({size} parameters, observations {env.observation_shape})"
        )
    require_sound(checkpoint, parameters, moments)
    try:
        version = _count(_section(checkpoint, "learner")["version"])  # a flight record has nothing else of the learner
    except (KeyError, ValueError) as error:
        raise CheckpointError(f"{checkpoint.path}/state.json: learner is not as distppo writes it ({error})") from error
    return PolicySnapshot(version, parameters, moments, policy_spec(config, env, layout))


def _require_whole_actions(spec: EnvSpec) -> None:
    """Raises ValueError unless every action has its bounds, or every one its choices."""
    numbers = {name: len(getattr(spec, f"action_{name}")) for name in ("low", "high", "choices", "start")}
    bounded, chosen = (numbers["low"], numbers["high"]), (numbers["choices"], numbers["start"])
    whole = (spec.action_size, spec.action_size)
    if (bounded, chosen) not in ((whole, (0, 0)), ((0, 0), whole)):
        raise ValueError(f"{numbers} for {spec.action_size} actions")
    if 0 in spec.action_choices:
        raise ValueError("an action without a choice")


def require_sound(checkpoint: Checkpoint, parameters: np.ndarray, moments: Moments) -> None:
    """Raises CheckpointError for numbers that no learner arrives at."""
    if parameters.dtype != np.float32 or any(array.dtype != np.float64 for array in moments):
        raise CheckpointError(f"{checkpoint.path}: its parameters are not float32, or its moments not float64")
    if moments.count.shape != () or moments.m2.shape != moments.mean.shape:
        raise CheckpointError(f"{checkpoint.path}: its moments do not fit each other")
    finite = all(np.isfinite(array).all() for array in (parameters, *moments))
    if not finite or moments.count < 0 or (moments.m2 < 0).any():
        raise CheckpointError(f"{checkpoint.path}: holds weights or moments that are not finite, or negative where they cannot be")


def _shape(values: Any) -> tuple[int, ...]:
    shape = tuple(map(_count, values))
    if len(shape) > _MOST_DIMENSIONS or math.prod(shape) > _MOST_NUMBERS:
        raise ValueError(f"a shape of {len(shape)} dimensions and more than {_MOST_NUMBERS:,} numbers")
    return shape


def _choices(values: Any) -> tuple[int, ...]:
    choices = tuple(map(_count, values))
    if sum(choices) > _MOST_NUMBERS:
        raise ValueError(f"more than {_MOST_NUMBERS:,} choices")
    return choices


def _parts(value: Any, depth: int = 0) -> tuple[Any, ...]:
    """Returns what JSON has made lists of, or nothing where there are no parts."""
    if not value and depth == 0:
        return ()
    if depth > _DEEPEST_PARTS:
        raise ValueError("parts of an observation in one another without end")
    kind, *rest = value
    match kind, rest:
        case ("box" | "binary", [shape]):
            return kind, _shape(shape)
        case "discrete", [n, start]:
            return kind, _count(n), _whole(start)
        case "discretes", [shape, choices, starts] if math.prod(_shape(shape)) == len(choices) == len(starts):
            return kind, _shape(shape), _choices(choices), tuple(map(_whole, starts))
        case "tuple", [parts]:
            return kind, tuple(_parts(part, depth + 1) for part in parts)
        case "dict", [items]:
            return kind, tuple((key if type(key) is int else _text(key), _parts(part, depth + 1)) for key, part in items)
    raise ValueError(f"a part of the unknown kind {shortened(repr(kind))}")


def _text(value: Any) -> str:
    if not isinstance(value, str) or not value.isprintable():
        raise ValueError(f"{shortened(repr(value))} is not printable text")
    return value


def _dtype(value: Any) -> str:
    if not re.fullmatch(r"bool|(float|u?int)(8|16|32|64)", _text(value)):
        raise ValueError(f"{shortened(value)} is no type of observations")
    return str(value)


def _whole(value: Any) -> int:
    if type(value) is not int or abs(value) >= 2**63:
        raise ValueError(f"{shortened(repr(value))} is not a whole number")
    return value


def _count(value: Any) -> int:
    if type(value) is not int or not 0 <= value < 2**63:
        raise ValueError(f"{shortened(repr(value))} is not a count")
    return value


def _number(value: Any) -> float:
    if type(value) not in (int, float):
        raise ValueError(f"{shortened(repr(value))} is not a number")
    return float(value)


def _bounds(values: Iterable[float | None], missing: float) -> tuple[float, ...]:
    return tuple(missing if x is None else _number(x) for x in values)


def _section(checkpoint: Checkpoint, name: str) -> dict[str, Any]:
    section = checkpoint.state.get(name)
    if not isinstance(section, dict):
        raise CheckpointError(f"{checkpoint.path}/state.json: {name} is missing")
    return section
