"""Writing flight records. One is a directory in the format of a checkpoint: arrays, JSON and a hashed manifest, there as a whole or not."""

from __future__ import annotations

import os
from collections.abc import Mapping
from contextlib import suppress
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np

from distppo.checkpoint.content import encode_arrays, encode_state
from distppo.checkpoint.manifest import ARRAYS_SUFFIX, MANIFEST_NAME, STATE_NAME, Manifest, describe_file, encode_manifest
from distppo.config import Config
from distppo.envs import packed
from distppo.evaluation.restore import LEARNER_ARRAYS, checkpoint_state
from distppo.files import staging_directory, sync_directory, write_synced
from distppo.metrics import machine_info
from distppo.types import EnvSpec, EnvStates, FaultEvent, FlightRecord, PolicySnapshot

FAULTS_DIRECTORY = "faults"
RECORD_ARRAYS = "record"
STATE_ARRAYS = "environments"
LARGEST_WINDOW = 8 << 20
"""Bytes of observations in a record; of larger ones fewer are kept."""
LARGEST_RECORD = 64 << 20
"""Bytes of a whole record; a larger one, as of a fragment with a very large network, is not written."""


class FlightRecorder:
    """Writes what led to faults into a run directory, at most `fault.max_dumps` times.

    Args:
        run_directory: of the run; `faults/` in it is made with the first record.
        config: of the run.
        env: spec of its environment.
    """

    def __init__(self, run_directory: Path, config: Config, env: EnvSpec) -> None:
        self._directory = run_directory / FAULTS_DIRECTORY
        self._config, self._env = config, env

    def record_environment(self, fault: FaultEvent) -> Path | None:
        """Writes down the record that came with the fault of an environment.

        Returns:
            Where it is; None if the fault has no record, there are enough already, or the disk refused.
        """
        record = fault.record
        if record is None:
            return None
        keep = max(1, LARGEST_WINDOW // max(1, record.observations[:1].nbytes))
        arrays = {RECORD_ARRAYS: {"observations": record.observations[-keep:], "actions": record.actions}}
        values: dict[str, Any] = {"sort": "environment", **_told(fault), **_fields(record)}
        if record.states is not None:
            arrays[STATE_ARRAYS], values["environments"] = packed(record.states)
        return self._write(f"environment{record.env}-iteration{record.iteration}", record.iteration, arrays, values, {})

    def record_fragment(self, fault: FaultEvent, states: EnvStates, snapshot: PolicySnapshot, iteration: int) -> Path | None:
        """Writes down a whole fragment that a process has not come back from: all that is needed to collect it again.

        Args:
            fault: what happened.
            states: of the worker's environments before the fragment.
            snapshot: it was being collected with.
            iteration: it was being collected for.

        Returns:
            As `record_environment`.
        """
        arrays, values = packed(states)
        moments = {f"obs_moments/{name}": np.asarray(value) for name, value in snapshot.obs_moments._asdict().items()}
        groups = {STATE_ARRAYS: arrays, LEARNER_ARRAYS: {"parameters": snapshot.parameters, **moments}}
        state = {"sort": "fragment", **_told(fault), "iteration": iteration, "environments": values}
        name = f"environments{states.first_env}to{states.first_env + len(states.captures) - 1}-iteration{iteration}"
        return self._write(name, iteration, groups, state, {"version": snapshot.version})

    def _write(
        self,
        name: str,
        iteration: int,
        arrays: Mapping[str, Mapping[str, np.ndarray]],
        values: Mapping[str, Any],
        learner: Mapping[str, Any],
    ) -> Path | None:
        """Writes a record unless there are enough; a disk that refuses costs the record and nothing else."""
        if sum(array.nbytes for group in arrays.values() for array in group.values()) > LARGEST_RECORD:
            return None
        with suppress(OSError):
            number = len(list(self._directory.glob("[0-9]*"))) if self._directory.exists() else 0
            if number >= self._config.fault.max_dumps:
                return None
            self._directory.mkdir(exist_ok=True)
            state = checkpoint_state(self._config, self._env, learner, {}, {}) | {"fault": dict(values), "machine": machine_info()}
            contents = {f"{stem}{ARRAYS_SUFFIX}": encode_arrays(group) for stem, group in arrays.items()}
            target = self._directory / f"{number + 1:04d}-{name}"
            _write_directory(target, contents | {STATE_NAME: encode_state(state)}, iteration)
            return target
        return None


def _told(fault: FaultEvent) -> dict[str, Any]:
    return {"what": fault.kind, "where": fault.where, "why": fault.why}


def _fields(record: FlightRecord) -> dict[str, Any]:
    return {
        "env": record.env,
        "iteration": record.iteration,
        "step": record.step,
        "reset_seed": record.reset_seed,
        "traceback": record.traceback,
    }


def _write_directory(target: Path, contents: dict[str, bytes], iteration: int) -> None:
    files = {name: describe_file(data) for name, data in contents.items()}
    now = datetime.now(UTC).isoformat(timespec="microseconds")
    manifest = Manifest(iteration=iteration, env_steps=0, serial=0, saved_at=now, files=files)
    with staging_directory(target) as staged:
        for name, data in (contents | {MANIFEST_NAME: encode_manifest(manifest)}).items():
            write_synced(staged / name, data)
        sync_directory(staged)
        os.replace(staged, target)
    sync_directory(target.parent)
