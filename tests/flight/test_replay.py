"""Flight records: they lead back to the fault, are bounded, and are safe to open."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from distppo.checkpoint.reader import CHECKPOINTS
from distppo.cli import main
from distppo.collector import RolloutCollector
from distppo.config import Config, load_config
from distppo.config.trust import TRUST_VARIABLE, UntrustedCodeError
from distppo.envs import VectorStepper, make_env, part_of
from distppo.errors import EnvFaultError, UserError
from distppo.flight import FlightRecorder, load_dump, replay
from distppo.flight import recorder as recorder_module
from distppo.models.actor_critic import ActorCritic, initial_parameters
from distppo.models.architecture import policy_spec
from distppo.types import FaultEvent, FlightRecord, Moments, PolicySnapshot

TRUST = ["probe_envs:Failing-v0", "probe_envs:Slow-v0"]
SMALL = {"rollout.num_envs": 2, "rollout.num_steps": 32, "ppo.mini_batch_size": 32, "network.hidden_sizes": [16]}


def settings(how: str, after: int, **others: Any) -> Config:
    given = {"env.id": "probe_envs:Failing-v0", "env.kwargs": {"how": how, "after": after}, "fault.max_env_restarts": 0}
    return load_config(overrides=SMALL | given | others)


def collector_of(config: Config, states: Any = None) -> RolloutCollector:
    return RolloutCollector(config, lambda: make_env(config.env), VectorStepper, first_env=0, num_envs=2, states=states)


def snapshot_of(config: Config) -> PolicySnapshot:
    spec = make_env(config.env)[1]
    moments = Moments(np.zeros(()), np.zeros(spec.observation_shape), np.zeros(spec.observation_shape))
    layout = ActorCritic(spec, config.network).layout
    return PolicySnapshot(0, initial_parameters(spec, config.network, 0), moments, policy_spec(config, spec, layout))


def failed(config: Config, iterations: int = 9) -> FaultEvent:
    collector, snapshot = collector_of(config), snapshot_of(config)
    with pytest.raises(EnvFaultError) as caught:
        for iteration in range(iterations):
            collector.collect(snapshot, iteration)
            collector.receipt()
    assert caught.value.fault is not None
    return caught.value.fault


def dump_of(config: Config, directory: Path, fault: FaultEvent | None = None) -> Path:
    spec = make_env(config.env)[1]
    path = FlightRecorder(directory, config, spec).record_environment(fault or failed(config))
    assert path is not None
    return path


def played(path: Path, **others: Any) -> tuple[Any, list[str]]:
    lines: list[str] = []
    arguments = {"trust": TRUST, "last": 2, "timeout": 60.0} | others
    return replay(load_dump(str(path)), show=lines.append, **arguments), lines


@pytest.mark.parametrize("how", ["raise", "nan", "inf_reward"])
@pytest.mark.parametrize("after", [9, 45])
def test_a_replay_ends_in_the_fault_with_the_recorded_bits(how: str, after: int, tmp_path: Path) -> None:
    """From the reset that the run began with, and from the state before a later fragment."""
    result, lines = played(dump_of(settings(how, after), tmp_path))
    assert result.happened and result.step == after % 32
    assert {"raise": "RuntimeError: the wheel came off", "nan": "observation element 1 = nan", "inf_reward": "reward = inf"}[
        how
    ] in result.text
    assert [line.split(":")[0] for line in lines[:-1]] == [f"step {after % 32 - 1}", f"step {after % 32}"]
    assert lines[-1].endswith("observations are those of the record, to the bit")


def test_an_environment_that_has_been_mended_takes_all_steps(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The replay says so, and the command's exit code does."""
    path = dump_of(settings("raise", 9), tmp_path)
    monkeypatch.setattr("probe_envs.Failing._failure", lambda self, *step: (step[0], step[1], *step[2]))
    assert not played(path)[0].happened
    assert main(["replay", str(path), "--trust", TRUST[0]]) == 1


def test_a_mujoco_environment_is_put_back_into_the_middle_of_an_episode(tmp_path: Path) -> None:
    """Contacts and all: the recorded observations are reached to the bit."""
    config = load_config(overrides=SMALL | {"env.id": "Hopper-v4"})
    collector, snapshot = collector_of(config), snapshot_of(config)
    collector.collect(snapshot, 0)
    states = collector.receipt().states
    rollout = collector.collect(snapshot, 1)
    raw = collector._raw[:-1, 1]
    actions = np.clip(rollout.actions[:, 1], -1.0, 1.0)
    record = FlightRecord(1, 1, 31, part_of(states, 1, 1), None, raw[-8:].copy(), actions, "")
    path = dump_of(config, tmp_path, FaultEvent("env_error", "environment 1", "made up", "", record=record))
    result, lines = played(path, trust=[])
    assert not result.happened and lines[-1] == "the last 8 observations are those of the record, to the bit"


def test_choices_are_replayed_as_the_environment_was_given_them(tmp_path: Path) -> None:
    """Whole numbers, which an environment with a Discrete space insists on."""
    config = load_config(overrides=SMALL | {"env.id": "CartPole-v1"})
    collector, snapshot = collector_of(config), snapshot_of(config)
    states = collector.receipt().states
    actions = collector.collect(snapshot, 0).actions[:9, 1, 0].astype(np.int64)
    record = FlightRecord(1, 0, 8, part_of(states, 1, 1), None, collector._raw[:9, 1].copy(), actions, "")
    path = dump_of(config, tmp_path, FaultEvent("env_error", "environment 1", "made up", "", record=record))
    result, lines = played(path)
    assert not result.happened and lines[-1] == "the last 9 observations are those of the record, to the bit"


@pytest.mark.parametrize(
    ("how", "said"),
    [("exit", "the process ended with exit code 3 at step 9 of the fragment"), ("raise", "RuntimeError: the wheel came off")],
)
def test_a_fragment_is_collected_again_in_a_process_that_may_die_of_it(how: str, said: str, tmp_path: Path) -> None:
    """What the driver writes when a worker has gone."""
    config = settings(how, 9)
    recorder = FlightRecorder(tmp_path, config, make_env(config.env)[1])
    states = collector_of(config).receipt().states
    fault = FaultEvent("worker_died", "rollout worker 0", "exit code 3", "replaced")
    path = recorder.record_fragment(fault, states, snapshot_of(config), 0)
    assert path is not None
    result, _ = played(path)
    assert (result.happened, result.step) == (True, 9) and said in result.text


def test_a_fragment_that_hangs_is_ended(tmp_path: Path) -> None:
    """And where it hangs is said."""
    config = load_config(overrides=SMALL | {"env.id": "probe_envs:Slow-v0", "env.kwargs": {"seed": 5, "seconds": 600}})
    states = collector_of(config).receipt().states
    states = states._replace(captures=tuple(hanging(capture) for capture in states.captures))
    path = FlightRecorder(tmp_path, config, make_env(config.env)[1]).record_fragment(
        FaultEvent("worker_hung", "rollout worker 0", "no answer", "replaced"), states, snapshot_of(config), 0
    )
    assert path is not None and played(path, timeout=1.0)[0].text == "it hangs: at step 0 for 1 s (--timeout)"


def test_a_damaged_fragment_is_not_taken_for_the_fault(tmp_path: Path) -> None:
    """Its own process is started for what is whole."""
    config = settings("raise", 9)
    recorder = FlightRecorder(tmp_path, config, make_env(config.env)[1])
    states = collector_of(config).receipt().states
    path = recorder.record_fragment(FaultEvent("worker_died", "worker", "gone", "replaced"), states, snapshot_of(config), 0)
    dump = load_dump(str(path))
    dump.arrays["learner"]["parameters"] = np.zeros(3, np.float32)
    with pytest.raises(UserError, match="do not fit its own config"):
        replay(dump, trust=TRUST, last=0, timeout=1.0, show=lambda line: None)


def hanging(capture: Any) -> Any:
    values = json.loads(json.dumps(capture.values))
    values["0"]["attributes"]["_sleeps"] = True
    return capture._replace(values=values)


def test_records_are_bounded_in_number_and_size(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """fault.max_dumps of them, fault.dump_observations in each, and never a huge one."""
    config = settings("raise", 29, **{"fault.max_dumps": 2, "fault.dump_observations": 4})
    fault, recorder = failed(config), FlightRecorder(tmp_path, config, make_env(config.env)[1])
    paths = [recorder.record_environment(fault) for _ in range(3)]
    assert [path and path.name for path in paths] == ["0001-environment0-iteration0", "0002-environment0-iteration0", None]
    assert len(load_dump(str(paths[0])).arrays["record"]["observations"]) == 4
    monkeypatch.setattr(recorder_module, "LARGEST_WINDOW", 50)
    other = FlightRecorder(tmp_path / "other", config, make_env(config.env)[1])
    (tmp_path / "other").mkdir()
    assert len(load_dump(str(other.record_environment(fault))).arrays["record"]["observations"]) == 2
    monkeypatch.setattr(recorder_module, "LARGEST_RECORD", 50)
    assert other.record_environment(fault) is None


def test_a_disk_that_refuses_costs_the_record_alone(tmp_path: Path) -> None:
    """A file where the directory would be."""
    config = settings("raise", 9)
    (tmp_path / "faults").write_text("in the way")
    assert FlightRecorder(tmp_path, config, make_env(config.env)[1]).record_environment(failed(config)) is None


def test_a_record_has_nothing_imported_that_its_user_does_not_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The module is the record's choice; opening the record alone loads no module."""
    path = dump_of(settings("raise", 9), tmp_path)
    monkeypatch.delenv(TRUST_VARIABLE)
    named = r"names code that would be imported.*\n  env.id: probe_envs:Failing-v0\n.*--trust probe_envs:Failing-v0"
    with pytest.raises(UntrustedCodeError, match=named):
        played(path, trust=[])
    assert played(path, trust=["probe_envs:Failing-v0"])[0].happened


@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        (lambda path: (path / "state.json").write_bytes(b"{}"), "state.json"),
        (lambda path: (path / "record.safetensors").unlink(), "record.safetensors"),
        (lambda path: shutil.rmtree(path), "nothing here"),
    ],
)
def test_a_damaged_record_is_named(spoil: Any, message: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Exit code 2, one message, no traceback."""
    path = dump_of(settings("raise", 9), tmp_path)
    spoil(path)
    assert main(["replay", str(path)]) == 2
    err = capsys.readouterr().err
    assert err.startswith("error: ") and message in err and "Traceback" not in err


def test_several_records_are_listed(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """What to type instead is in the message."""
    config = settings("raise", 9)
    fault, recorder = failed(config), FlightRecorder(tmp_path, config, make_env(config.env)[1])
    paths = [recorder.record_environment(fault) for _ in range(2)]
    assert main(["replay", str(tmp_path)]) == 2
    err = capsys.readouterr().err
    assert "has 2 flight records; name one:" in err and all(str(path) in err for path in paths)


def begun_run(directory: Path) -> Path:
    """What every command takes for a run, without a record so far."""
    (directory / CHECKPOINTS).mkdir(parents=True)
    for name in ("config.yaml", ".lock", "metrics.jsonl"):
        (directory / name).touch()
    return directory


@pytest.mark.parametrize("reference", ["runs/tr", "tr", "latest"])
def test_a_run_in_which_nothing_went_wrong_is_told_as_that(
    reference: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """And not as one without checkpoints, which a replay does not need."""
    monkeypatch.chdir(tmp_path)
    begun_run(Path("runs/tr"))
    assert main(["replay", reference]) == 2
    err = capsys.readouterr().err
    assert err.startswith("error: runs/tr has no flight record (faults/): nothing went wrong that was recorded. Expected: a flight record")
    assert err.count("\n") == 1 and "checkpoint" not in err and "@" not in err


def test_latest_a_name_and_a_folder_of_seeds_mean_the_record_of_their_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """As for the other commands."""
    monkeypatch.chdir(tmp_path)
    path = dump_of(settings("raise", 9), begun_run(Path("runs/group/seed0")))
    for reference in ("runs/group/seed0", "group/seed0", "group", "latest"):
        assert main(["replay", reference, "--trust", TRUST[0]]) == 0
        assert reference == "latest" or load_dump(reference).path == path


def test_what_cannot_be_looked_at_is_one_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    """A name that is too long; a folder that is closed to this user, whether it is named or looked for."""
    monkeypatch.chdir(tmp_path)
    begun_run(Path("runs/closed"))

    def refused(path: Path) -> bool:
        raise PermissionError(13, "Permission denied", str(path))

    assert main(["replay", "x" * 300]) == 2
    monkeypatch.setattr(Path, "is_dir", refused)
    assert main(["replay", "closed"]) == 2
    monkeypatch.setattr("distppo.runtime.run_directory.find_run", refused)
    assert main(["replay", "latest"]) == 2
    lines = capsys.readouterr().err.splitlines()
    assert len(lines) == 3 and "File name too long" in lines[0]
    assert lines[1].startswith("error: closed: Permission denied. Expected: ") and "Permission denied" in lines[2]


def test_a_record_without_its_manifest_is_not_taken_for_a_run_without_records(tmp_path: Path) -> None:
    path = dump_of(settings("raise", 9), tmp_path)
    (path / "MANIFEST.json").unlink()
    for reference in (path, tmp_path):
        with pytest.raises(UserError, match="not a complete flight record"):
            load_dump(str(reference))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda state: state["fault"].update(sort="rocket"), "unknown sort 'rocket'"),
        (lambda state: state["fault"].pop("reset_seed"), "not as distppo writes it"),
        (lambda state: state["fault"]["environments"].update(captures=[]), "arrays do not fit 0 environments"),
        (lambda state: state["fault"]["environments"]["captures"][0].update(obstacle="x"), "cannot be put where it was: x"),
        (lambda state: state["fault"].pop("environments") and state["fault"].update(reset_seed=None), "could not be captured"),
    ],
)
def test_a_record_that_somebody_has_made_up_is_an_error_and_nothing_else(change: Any, message: str, tmp_path: Path) -> None:
    """The manifest may be right and the contents wrong."""
    dump = load_dump(str(dump_of(settings("raise", 45), tmp_path)))
    change(dump.state)
    with pytest.raises(UserError, match=message):
        replay(dump, trust=TRUST, last=0, timeout=1.0, show=lambda line: None)


def test_what_a_record_says_cannot_command_the_terminal(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Escape sequences are shown as question marks."""
    config = settings("raise", 9)
    dump_of(config, tmp_path, failed(config)._replace(where="here\x1b]0;owned\x07"))
    assert main(["replay", str(tmp_path), "--trust", TRUST[0]]) == 0
    out = capsys.readouterr().out
    assert "\x1b" not in out and "here?]0;owned?" in out
