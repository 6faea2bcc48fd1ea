"""Where one iteration ends and the next begins: what the next one is collected from, in a checkpoint and back."""

from __future__ import annotations

from collections import Counter
from typing import Any, NamedTuple

import numpy as np

from distppo.checkpoint import Checkpoint
from distppo.config import Config
from distppo.envs import joined, obstructed, packed, part_of, unpacked
from distppo.errors import CheckpointError
from distppo.evaluation.restore import config_of, env_spec_of, require_sound, snapshot_of
from distppo.types import EnvStates, Moments, PolicySnapshot

ENV_ARRAYS = "environments"
COLLECTING_ARRAYS = "collecting"


class Boundary(NamedTuple):
    """All that the next iteration's fragments depend on besides the learner.

    Attributes:
        states: of all environments; None: new episodes, as at the start of a run.
        collecting: the snapshot they are collected with, where that is not the learner's newest: overlap collects with the one before.
        num_workers: that the environments were shared out over; None: not known.
    """

    states: EnvStates | None = None
    collecting: PolicySnapshot | None = None
    num_workers: int | None = None


def stored(boundary: Boundary) -> tuple[dict[str, dict[str, np.ndarray]], dict[str, Any]]:
    """Returns the boundary as groups of arrays and JSON values, for a checkpoint."""
    groups: dict[str, dict[str, np.ndarray]] = {}
    values: dict[str, Any] = {"num_workers": boundary.num_workers}
    if boundary.states is not None:
        groups[ENV_ARRAYS], values["environments"] = packed(boundary.states)
    if boundary.collecting is not None:
        moments = boundary.collecting.obs_moments._asdict()
        groups[COLLECTING_ARRAYS] = {"parameters": boundary.collecting.parameters} | {
            f"obs_moments/{name}": np.asarray(value) for name, value in moments.items()
        }
        values["collecting_version"] = boundary.collecting.version
    return groups, values


def boundary_of(checkpoint: Checkpoint, config: Config) -> Boundary:
    """Returns the boundary that a run with these settings goes on from.

    Raises:
        CheckpointError: what the checkpoint holds of it is not as distppo writes it.
    """
    values = checkpoint.state.get("boundary", {})
    try:
        num_workers = values.get("num_workers")
        if num_workers is not None and type(num_workers) is not int:
            raise ValueError(f"{type(num_workers).__name__} workers")
        return Boundary(_states(checkpoint, config, values), _collecting(checkpoint, config, values), num_workers)
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise CheckpointError(f"{checkpoint.path}: what the next iteration begins with is not as distppo writes it ({error})") from error


def restored_text(boundary: Boundary, num_envs: int) -> str:
    """Returns what becomes of the environments, for people."""
    captures = boundary.states.captures if boundary.states is not None else ()
    reasons = Counter(capture.obstacle for capture in captures if capture.obstacle is not None)
    if not reasons:
        return "environments go on where they were"
    reason, _ = reasons.most_common(1)[0]
    return f"{reasons.total()} of {num_envs} environments start new episodes ({reason})"


def other_layout(boundary: Boundary, num_workers: int) -> str | None:
    """Returns what another number of workers means, or None where the layout is the one of before."""
    if boundary.num_workers is None or max(boundary.num_workers, 1) == max(num_workers, 1):
        return None
    return (
        f"{num_workers} workers where there were {boundary.num_workers}: the learner's state, the environments and all random streams are "
        "the same; actions may differ in their last bit, so the run goes on equal to rounding, not to the bit"
    )


def other_learners(checkpoint: Checkpoint | None, num_learners: int) -> str | None:
    """Returns what another number of learners means, or None where there are as many as before."""
    before = num_learners if checkpoint is None else config_of(checkpoint).learner.num_learners
    if before == num_learners:
        return None
    now, then = f"{num_learners} learner{'s' if num_learners > 1 else ''}", "were" if before > 1 else "was"
    same = "they minimize the same loss, in another order of sums, so the run goes on equal to rounding, not to the bit"
    return f"{now} where there {then} {before}: {same}"


def _states(checkpoint: Checkpoint, config: Config, values: dict[str, Any]) -> EnvStates:
    """Returns the states of the environments that a run has now, as far as the checkpoint has them."""
    wanted, shape, trained = config.rollout.num_envs, env_spec_of(checkpoint).observation_shape, config_of(checkpoint)
    if "environments" not in values:
        return obstructed(0, wanted, shape, "the checkpoint does not hold their state")
    if trained.env != config.env:
        return obstructed(0, wanted, shape, "the env settings have changed")
    states = unpacked(checkpoint.arrays.get(ENV_ARRAYS, {}), values["environments"])
    there = len(states.captures)
    if states.first_env != 0 or states.observations.shape[1:] != shape:
        raise ValueError(f"states of environments {states.first_env} and on, observations {states.observations.shape[1:]}")
    if wanted <= there:
        kept = part_of(states, 0, wanted)
        assert kept is not None
        return kept
    return joined([states, obstructed(there, wanted - there, shape, f"the checkpoint has {there} of them")])


def _collecting(checkpoint: Checkpoint, config: Config, values: dict[str, Any]) -> PolicySnapshot | None:
    arrays = checkpoint.arrays.get(COLLECTING_ARRAYS)
    if arrays is None or config.rollout.mode != "overlap":
        return None
    newest = snapshot_of(checkpoint)
    moments = Moments(*(arrays[f"obs_moments/{name}"] for name in Moments._fields))
    snapshot = PolicySnapshot(int(values["collecting_version"]), arrays["parameters"], moments, newest.spec)
    if snapshot.parameters.shape != newest.parameters.shape or moments.mean.shape != newest.obs_moments.mean.shape:
        raise ValueError("the snapshot it was collecting with has other shapes than the newest")
    require_sound(checkpoint, snapshot.parameters, moments)
    if newest.version - snapshot.version not in (0, 1):
        raise ValueError(f"it was collecting with version {snapshot.version} of {newest.version}")
    return snapshot
