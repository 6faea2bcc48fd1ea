"""Going back to a fault: the environment is made, put where it was, and stepped as it was, until it happens again or does not."""

from __future__ import annotations

import dataclasses
import multiprocessing
import os
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from distppo.checkpoint import Checkpoint, load_checkpoint
from distppo.checkpoint.foreign import explain_foreign
from distppo.checkpoint.manifest import MANIFEST_NAME
from distppo.collector import RolloutCollector
from distppo.collector.defects import LARGEST_FLOAT64, find_defects
from distppo.config import Config
from distppo.config.trust import require_named
from distppo.envs import VectorStepper, make_env, unpacked
from distppo.errors import CheckpointError, UserError
from distppo.evaluation.restore import config_of, snapshot_of
from distppo.files import RUNS_ROOT
from distppo.flight.recorder import FAULTS_DIRECTORY, RECORD_ARRAYS, STATE_ARRAYS
from distppo.types import EnvStates

POLL_SECONDS = 0.1
STARTUP_SECONDS = 600.0
"""For imports and making the environments, before the first step."""
EXPECTED = (
    f"Expected: a flight record (RUN/{FAULTS_DIRECTORY}/0001-...), or a run that has one: its directory, its name under {RUNS_ROOT}/, "
    "or latest."
)
_RECORDS = "[0-9]*-environment*"
"""The names that the recorder gives."""
Show = Callable[[str], None]


class Replay(NamedTuple):
    """What came of a replay.

    Attributes:
        happened: whether there was a fault at all.
        step: timestep t it happened at, or the last one taken.
        text: what happened, for people.
    """

    happened: bool
    step: int
    text: str


def load_dump(reference: str) -> Checkpoint:
    """Returns a flight record by its path, or the only one of a run, by its path or name. Loading it imports and executes nothing.

    Raises:
        CheckpointError: it is missing, damaged, or something else; or the run has none, or several, which are listed.
    """
    try:
        path = _record_path(reference)
    except OSError as error:
        raise CheckpointError(f"{reference}: {error.strerror or error}. {EXPECTED}") from error
    dump = load_checkpoint(path)
    if not isinstance(dump.state.get("fault"), dict):
        raise CheckpointError(f"{path}: a checkpoint, not a flight record; those are in RUN/{FAULTS_DIRECTORY}/")
    return dump


def _record_path(reference: str) -> Path:
    """Returns the directory of the record that is meant."""
    path = next((path for path in (Path(reference), RUNS_ROOT / reference) if _exists(path)), Path(reference))
    found = _records(path) if path.is_dir() else []
    if len(found) > 1:
        raise CheckpointError(f"{reference} has {len(found)} flight records; name one:\n" + "\n".join(f"  {each}" for each in found))
    record = found[0] if found else path
    if _exists(record / MANIFEST_NAME):
        return record
    if not record.is_dir():
        raise CheckpointError(explain_foreign(record, EXPECTED))
    if record.match(_RECORDS):
        raise CheckpointError(f"{record}: not a complete flight record, it has no {MANIFEST_NAME}. {EXPECTED}")
    raise CheckpointError(f"{record} has no flight record ({FAULTS_DIRECTORY}/): nothing went wrong that was recorded. {EXPECTED}")


def _exists(path: Path) -> bool:
    """Says whether there is anything; an OSError where that cannot be seen, which `os.path.lexists` takes for no."""
    try:
        path.lstat()
    except (FileNotFoundError, NotADirectoryError):
        return False
    return True


def _records(path: Path) -> list[Path]:
    """Returns the records of a run, or of the runs in a folder, as --seeds makes it; in order."""
    folders = [each for each in (path / FAULTS_DIRECTORY, *path.glob(f"*/{FAULTS_DIRECTORY}")) if each.is_dir()] or [path]
    # Not by glob: it takes a folder that cannot be read for an empty one.
    return sorted(each for folder in folders for each in folder.iterdir() if each.match(_RECORDS) and each.is_dir())


def replay(dump: Checkpoint, *, trust: Sequence[str], last: int, timeout: float, show: Show) -> Replay:
    """Steps to the fault.

    Args:
        dump: from `load_dump`.
        trust: `module:Name`s that may be loaded although the record names them.
        last: how many of the last steps are shown.
        timeout: seconds that a step of a fragment that is collected again may take, before it counts as hanging.
        show: takes each line for people.

    Raises:
        UntrustedCodeError: the record names code that `trust` does not.
        UserError: its environment cannot be made here, or cannot be put where it was.
        CheckpointError: the record is not as distppo writes it.
    """
    config = config_of(dump)
    require_named(config, trust, source=dump.path, sections=("env", "network"))
    try:
        sort = dump.state["fault"]["sort"]
        if sort == "environment":
            return _replay_environment(dump, config, last, show)
        if sort == "fragment":
            return _replay_fragment(dump, timeout, show)
    except (KeyError, TypeError, IndexError, AttributeError) as error:
        raise CheckpointError(f"{dump.path}: not as distppo writes it ({type(error).__name__}: {error})") from error
    raise CheckpointError(f"{dump.path}: a flight record of the unknown sort {sort!r}")


def _replay_environment(dump: Checkpoint, config: Config, last: int, show: Show) -> Replay:
    fault, arrays = dump.state["fault"], dump.arrays[RECORD_ARRAYS]
    env, spec = make_env(config.env)
    actions, recorded = arrays["actions"].astype(np.int64 if spec.action_choices else np.float32), arrays["observations"]
    stepper = VectorStepper([env], first_env=int(fault["env"]), max_episode_steps=spec.max_episode_steps, gamma=config.ppo.gamma)
    try:
        raw = np.zeros((len(actions) + 1, 1, *spec.observation_shape))
        _put_where_it_was(stepper, dump, raw[0])
        rewards, ends, steps = np.zeros((len(actions), 1), np.float32), np.zeros((2, len(actions), 1), bool), np.zeros((len(actions), 1))
        taken = 0
        while taken < len(actions) and not stepper.broken:
            t = taken
            stepper.step(t, actions[t : t + 1], raw[t + 1], rewards[t], ends[0, t], ends[1, t], steps[t])
            if t >= len(actions) - last:
                show(_step_text(t, raw[t, 0], actions[t], rewards[t, 0], terminated=ends[0, t, 0], truncated=ends[1, t, 0]))
            taken += 1
        show(_agreement(raw[:, 0], recorded, int(fault["step"]) + (fault["what"] == "env_nonfinite")))
        return _outcome(stepper, raw[: taken + 1], rewards[:taken], taken)
    finally:
        stepper.close()


def _put_where_it_was(stepper: VectorStepper, dump: Checkpoint, out: np.ndarray) -> None:
    fault = dump.state["fault"]
    seed = fault["reset_seed"]
    if "environments" in fault:
        obstacles = stepper.restore(_states(dump), [0 if seed is None else int(seed)], out)
        if obstacles:
            raise UserError(f"{dump.path}: the environment cannot be put where it was: {obstacles[0]}")
    elif seed is not None:
        stepper.reset([int(seed)], out)
    else:
        raise UserError(f"{dump.path}: it happened in the middle of an episode of an environment whose state could not be captured")


def _states(dump: Checkpoint) -> EnvStates:
    try:
        return unpacked(dump.arrays.get(STATE_ARRAYS, {}), dump.state["fault"]["environments"])
    except ValueError as error:
        raise CheckpointError(f"{dump.path}: {error}") from error


def _step_text(t: int, observation: np.ndarray, action: np.ndarray, reward: float, *, terminated: bool, truncated: bool) -> str:
    with np.printoptions(precision=4, threshold=12, edgeitems=4, linewidth=10_000):
        end = "  terminated" if terminated else "  truncated" if truncated else ""
        return f"step {t}: observation {observation}  action {action}  reward {reward:.6g}{end}"


def _agreement(raw: np.ndarray, recorded: np.ndarray, seen: int) -> str:
    """Says whether what was replayed is what was recorded."""
    mine = raw[max(0, seen + 1 - len(recorded)) : seen + 1]
    if len(mine) == len(recorded) and mine.tobytes() == np.asarray(recorded, mine.dtype).tobytes():
        return f"the last {len(recorded)} observations are those of the record, to the bit"
    return (
        f"the last {len(recorded)} observations are not those of the record, to the bit: other versions, or state outside the environment"
    )


def _outcome(stepper: VectorStepper, raw: np.ndarray, rewards: np.ndarray, taken: int) -> Replay:
    no_actions = np.zeros((taken, 1, 0), np.float32)
    found = find_defects(raw, rewards, no_actions, [], largest=LARGEST_FLOAT64).get(0)
    broken = stepper.broken.get(0)
    if broken is not None and (found is None or broken.step <= found.step):
        return Replay(True, broken.step, f"{broken.text}\n{broken.traceback}")
    if found is not None:
        return Replay(True, found.step, f"the environment {found.text}")
    return Replay(False, taken - 1, f"nothing: the environment has taken all {taken} steps")


class WatchedStepper(VectorStepper):
    """Leaves the timestep it is at where another process can read it."""

    def __init__(self, envs: Any, *, position: Any, **arguments: Any) -> None:
        super().__init__(envs, **arguments)
        self._position = position

    def step(self, t: int, *arguments: Any) -> Any:
        """Steps."""
        if not self.broken:
            self._position.value = t
        return super().step(t, *arguments)


def _replay_fragment(dump: Checkpoint, timeout: float, show: Show) -> Replay:
    """Collects a fragment again in a process of its own, which may die of it."""
    context = multiprocessing.get_context("spawn")
    position, said = context.Value("q", -1, lock=False), context.SimpleQueue()
    states = _states(dump)
    snapshot_of(dump)  # what is wrong with the record is to be told here, and not taken for the fault
    first, count = states.first_env, len(states.captures)
    show(f"collecting the fragment of environments {first} to {first + count - 1} again, in a process of its own")
    process = context.Process(target=_recollect, args=(os.fspath(dump.path), position, said))
    process.start()
    hangs = _wait_while_it_moves(process, position, timeout)
    step = int(position.value)
    if hangs:
        process.kill()
        process.join()
        return Replay(True, step, f"it hangs: at step {step} for {timeout:g} s (--timeout)")
    if not said.empty():
        return Replay(True, step, said.get())
    if process.exitcode == 0:
        return Replay(False, step, f"nothing: the fragment was collected, {step + 1} steps")
    code = process.exitcode or 0
    ended = f"signal {-code}" if code < 0 else f"exit code {code}"
    return Replay(True, step, f"the process ended with {ended} at step {step} of the fragment")


def _wait_while_it_moves(process: Any, position: Any, timeout: float) -> bool:
    """Returns False when the process has ended, True when it has been at the same timestep for too long."""
    step, since = -1, time.monotonic()
    while process.is_alive():
        process.join(POLL_SECONDS)
        if position.value != step:
            step, since = position.value, time.monotonic()
        if time.monotonic() - since > (STARTUP_SECONDS if step < 0 else timeout):
            return True
    return False


def _recollect(path: str, position: Any, said: Any) -> None:
    """The process that collects a fragment again; what an environment raises, it says."""
    dump = load_dump(path)
    config, states = config_of(dump), _states(dump)
    # What was mended then is to be seen now.
    config = dataclasses.replace(config, fault=dataclasses.replace(config.fault, max_env_restarts=0, on_nonfinite="raise"))
    iteration = int(dump.state["fault"]["iteration"])
    try:
        collector = RolloutCollector(
            config,
            lambda: make_env(config.env),
            lambda envs, **arguments: WatchedStepper(envs, position=position, **arguments),
            first_env=states.first_env,
            num_envs=len(states.captures),
            first_iteration=iteration,
            states=states,
        )
        collector.collect(snapshot_of(dump), iteration)
    except UserError as error:
        said.put(str(error))
