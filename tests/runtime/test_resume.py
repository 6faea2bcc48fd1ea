"""Going on with a run: what is restored, where it is written, and what is refused."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from runtime.running import Run

from distppo.checkpoint import list_checkpoints, load_checkpoint, load_for_resume
from distppo.cli import main
from distppo.evaluation.restore import config_of, env_spec_of, learner_state_of
from distppo.metrics import METRICS_FILE
from distppo.runtime import train as train_module
from distppo.runtime.backend import LocalBackend
from distppo.runtime.run_directory import find_begun_run
from distppo.runtime.signals import StopSignal

DECAYING = {"ppo.lr_schedule": "linear", "run.checkpoint_every": 128, "run.keep_checkpoints": 10}


def contents(directory: Path) -> dict[Path, bytes]:
    """Everything below a directory but the lock."""
    return {path: path.read_bytes() for path in directory.rglob("*") if path.is_file() and path.name != ".lock"}


def events(directory: Path) -> list[dict[str, Any]]:
    lines = map(json.loads, (directory / METRICS_FILE).read_text().splitlines())
    return [line for line in lines if "event" in line]


@pytest.mark.parametrize("step", ["fused", "torch"])
def test_a_restored_learner_is_the_saved_one_to_the_last_bit(step: str, small: Callable[..., Any]) -> None:
    """After zero further iterations every array and every value is what the checkpoint holds."""
    run = small({"learner.step": step, "normalization.values": True})
    checkpoint = load_checkpoint(list_checkpoints(run.directory)[-1].path)
    saved = learner_state_of(checkpoint)
    with StopSignal() as stop:
        backend = LocalBackend(config_of(checkpoint), env_spec_of(checkpoint), first_iteration=3, restored=saved, states=None, stop=stop)
        arrays, values = backend.learner_state()
        backend.close()
    assert arrays.keys() == saved[0].keys()
    assert all(arrays[name].dtype == saved[0][name].dtype and arrays[name].tobytes() == saved[0][name].tobytes() for name in arrays)
    assert values == saved[1]


def test_an_older_checkpoint_goes_on_in_a_new_directory(small: Callable[..., Any]) -> None:
    """What came after it is not written over; counters and the learning rate go on from where it stood."""
    whole = small(DECAYING | {"run.total_timesteps": 768})
    before = contents(whole.directory)
    branch = small(resume=f"{whole.directory}@384")
    assert branch.directory == whole.directory.with_name(f"{whole.directory.name}-from-384")
    assert contents(whole.directory) == before
    counters = (
        "time/total_timesteps",
        "time/iterations",
        "train/learning_rate",
        "train/n_updates",
        "train/gradient_steps",
        "dist/obs_count",
    )
    assert [[row[key] for key in counters] for row in branch.rows] == [[row[key] for key in counters] for row in whole.rows[3:]]
    assert branch.summary["env_steps"] == 768


def test_a_finished_run_goes_on_in_place_when_its_total_is_raised(small: Callable[..., Any]) -> None:
    """--resume RUN --total-timesteps N: rows and checkpoints are added, the note says what was restored."""
    first = small({"evaluation.every": 384, "evaluation.episodes": 2})
    second = small({"run.total_timesteps": 512, "evaluation.every": 0}, resume=str(first.directory))
    assert second.directory == first.directory
    assert [row["time/total_timesteps"] for row in second.rows] == [128, 256, 384, 512]
    assert second.summary["best_evaluation"] == first.summary["best_evaluation"]
    assert second.summary["best_checkpoint"] == first.summary["best_checkpoint"]
    kinds = [event["event"] for event in events(first.directory)]
    assert kinds.count("resumed") == 1 and kinds.count("finished") == 2


def test_a_stop_before_the_first_new_iteration_leaves_the_checkpoints_alone(
    small: Callable[..., Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    """The restored state is in the store already; above all it stays the best."""
    run = small({"evaluation.every": 384, "evaluation.episodes": 2})
    before = contents(run.directory / "checkpoints")
    monkeypatch.setattr(StopSignal, "number", 15, raising=False)
    monkeypatch.setattr(StopSignal, "__init__", lambda self: setattr(self, "_previous", {}))
    small({"run.total_timesteps": 512}, resume=str(run.directory))
    assert contents(run.directory / "checkpoints") == before


def test_a_branch_chooses_its_own_best(small: Callable[..., Any]) -> None:
    """The best checkpoint of a directory lies in that directory, however good the one it came from was."""
    evaluated = DECAYING | {"evaluation.every": 128, "evaluation.episodes": 2, "run.total_timesteps": 512}
    whole = small(evaluated)
    branch = small(resume=f"{whole.directory}@384")
    assert Path(branch.summary["best_checkpoint"]).is_relative_to(branch.directory)
    assert branch.summary["best_evaluation"]["env_steps"] == 512


@pytest.mark.parametrize("cut_off", [False, True])
def test_a_run_without_a_checkpoint_starts_from_the_beginning(
    cut_off: bool, small: Callable[..., Any], capsys: pytest.CaptureFixture[str]
) -> None:
    """What an interrupt in the first seconds prints works, and so does a kill while the first one is written: same folder and settings."""
    run = small({"ppo.gamma": 0.9})
    reference = run.arrays
    first, *others = sorted((run.directory / "checkpoints").iterdir())
    for path in others:
        shutil.rmtree(path) if path.is_dir() else path.unlink()
    if cut_off:
        first.rename(first.with_name(f"{first.name}.tmp-{'0' * 32}"))
    else:
        shutil.rmtree(first.parent)
    again = small(resume=str(run.directory))
    assert again.directory == run.directory
    assert "has no checkpoint yet: it starts from the beginning, with its own settings" in capsys.readouterr().out
    assert [row["time/total_timesteps"] for row in again.rows] == [128, 256, 384]
    assert all(again.arrays[name].tobytes() == reference[name].tobytes() for name in reference)


def test_a_run_that_starts_again_says_where_it_no_longer_copies_to(small: Callable[..., Any], tmp_path: Path) -> None:
    """The storage is not believed from a file, here as with a checkpoint; which other settings are not its own is said too."""
    shared = str(tmp_path / "shared")
    run = small({"run.storage": shared})
    shutil.rmtree(run.directory / "checkpoints")
    again = small({"ppo.gamma": 0.9}, resume=str(run.directory))
    note, storage, *_ = next(event["notes"] for event in reversed(again.events) if event.get("notes"))
    assert note.endswith("it starts from the beginning, with its own settings but ppo.gamma, run.storage")
    assert storage == f"its checkpoints were copied to {shared}; --set run.storage={shared} goes on with that"


@pytest.mark.parametrize("begun", [False, True])
def test_what_is_saved_while_a_resume_starts_is_gone_on_from(
    begun: bool, small: Callable[..., Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    """As by a job that is asked to end when the one that takes over from it has just been started: its last checkpoint counts."""
    whole = small({"run.total_timesteps": 640})
    run = small({"run.total_timesteps": 512, "run.checkpoint_every": 256})
    last, late = run.directory / "checkpoints" / "ckpt_00000004", run.directory / "late"
    last.rename(late)
    if begun:
        shutil.rmtree(run.directory / "checkpoints" / "ckpt_00000002")
    probe = train_module.probe_env

    def saved_meanwhile(config: Any) -> Any:
        if late.exists():
            late.rename(last)
        return probe(config)

    monkeypatch.setattr(train_module, "probe_env", saved_meanwhile)
    rest = small({"run.total_timesteps": 640}, resume=str(run.directory))
    assert rest.directory == run.directory and rest.same_bits(whole)
    assert [row["time/total_timesteps"] for row in rest.rows] == [128, 256, 384, 512, 640]
    notes = next(event["notes"] for event in reversed(rest.events) if event.get("notes"))
    assert "ckpt_00000004 at iteration 4" in notes[0]


def test_latest_is_the_run_that_began_last_though_it_has_saved_nothing(
    small: Callable[..., Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Killed before its first checkpoint it begins again, and an older run is left alone; once that has saved later, it is the latest."""
    monkeypatch.chdir(tmp_path)
    older, newer = (small({"run.directory": f"runs/{name}"}) for name in ("older", "newer"))
    whole = newer.arrays
    shutil.rmtree(newer.directory / "checkpoints")
    again = small(resume="latest")
    assert again.directory == newer.directory
    assert all(again.arrays[name].tobytes() == whole[name].tobytes() for name in whole)
    shutil.rmtree(newer.directory / "checkpoints")
    small({"run.total_timesteps": 512}, resume=str(older.directory))
    assert find_begun_run("latest") is None and load_for_resume("latest")[0].path.is_relative_to(older.directory)


def test_a_reached_total_is_said_and_nothing_is_started(
    trained: Run, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Resuming a finished run ends at once with exit code 0 and writes nothing."""
    monkeypatch.setattr(train_module, "_backend", lambda *_: pytest.fail("something was started"))
    before = contents(trained.directory)
    assert main(["train", "--resume", str(trained.directory)]) == 0
    out = capsys.readouterr().out
    assert "has 384 env steps, its total is 384: nothing is left to do; raise --total-timesteps to train on" in out
    assert "finished: 384 env steps" in out
    assert contents(trained.directory) == before


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (
            "{run} --env probe_envs:Endless-v0",
            "was trained in probe_envs:Point-v0 (asked for: probe_envs:Endless-v0); a run goes on in its own environment. "
            "Leave --env out, or start a new run without --resume",
        ),
        ("{run} --set network.hidden_sizes=16,16", "holds network.hidden_sizes [16] (asked for: [16, 16]); leave the network as it was"),
        ("{run} --set network.activation=relu", "holds network.activation tanh (asked for: relu)"),
        ("{run} --set ppo.mini_batch_size=48", "batch 128 = 4 envs x 32 steps is not a multiple of mini_batch_size 48"),
        ("{run}@7", "no checkpoint at exactly this many env steps. It has:\n  {run}@384  (iteration 3)"),
        ("{run}@best", "no checkpoint is marked best"),
        ("{root}/nowhere", "is neither a path nor a run under runs/"),
        ("{root}/model.zip", "a .zip file is not a distppo checkpoint"),
        ("{root}", "neither a run directory"),
        ("{run} --num-workers 0 --address localhost:6379", "--address localhost:6379 needs Ray, which rollout.num_workers 0 does without"),
    ],
)
def test_what_does_not_fit_is_refused_before_anything_starts(
    arguments: str, message: str, trained: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Exit code 2, one message with the way out, no traceback, and the run as it was."""
    monkeypatch.setattr(train_module, "_backend", lambda *_: pytest.fail("something was started"))
    (tmp_path / "model.zip").write_bytes(b"PK")
    before = contents(trained.directory)
    places = {"run": trained.directory, "root": tmp_path}
    argv = ["train", "--resume", *arguments.format(**places).split(), "--total-timesteps", "1000"]
    assert main(argv) == 2
    captured = capsys.readouterr()
    assert captured.err.startswith("error: ") and message.format(**places) in captured.err and "Traceback" not in captured.err
    assert captured.out == ""
    assert contents(trained.directory) == before


def test_changed_kwargs_that_change_the_spaces_are_refused(small: Callable[..., Any], capsys: pytest.CaptureFixture[str]) -> None:
    """The same id with other observations is another environment; so is one with other action bounds."""
    run = small({"env.id": "probe_envs:Shaped-v0"})
    argv = ["train", "--resume", str(run.directory), "--total-timesteps", "1000", "--set"]
    assert main([*argv, "env.kwargs.observation=[5]"]) == 2
    assert "with observation shape (3,); probe_envs:Shaped-v0 has observation shape (5,)" in capsys.readouterr().err
    assert main([*argv, "env.kwargs.high=2"]) == 2
    assert "with action high (1.0, 1.0); probe_envs:Shaped-v0 has action high (2.0, 2.0)" in capsys.readouterr().err


def test_missing_runs_are_answered_with_those_there_are(
    trained: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """A name that does not resolve lists the candidates."""
    shutil.copytree(trained.directory, tmp_path / "runs" / "walker")
    monkeypatch.chdir(tmp_path)
    assert main(["train", "--resume", "walkr"]) == 2
    err = capsys.readouterr().err
    assert "Did you mean runs/walker?" in err and "runs/walker  (last at 384 env steps)" in err


def test_a_command_that_is_repeated_begins_a_run_or_goes_on_with_it(
    launch: Callable[..., Any], small_file: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """`--resume latest --or-start` is one command for a job's first attempt and for its retries; runs are where DISTPPO_RUNS says."""
    monkeypatch.setenv("DISTPPO_RUNS", str(tmp_path / "storage"))
    retried = ("train", "--config", small_file, "--resume", "latest", "--or-start")
    first = launch(*retried)
    (run,) = (tmp_path / "storage").iterdir()
    assert (first.returncode, first.stderr) == (0, "") and f"run directory:   {run}" in first.stdout
    again = launch(*retried, "--total-timesteps", "512")
    assert f"resumed {run}/checkpoints/" in again.stdout and "finished: 512 env steps" in again.stdout
    assert list((tmp_path / "storage").iterdir()) == [run] and not (tmp_path / "runs").exists()


def test_a_run_that_is_named_begins_where_the_retry_will_look_for_it(
    small_file: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """By its path or its name; one that is damaged is an error, and not begun again."""
    monkeypatch.chdir(tmp_path)
    argv = ["train", "--or-start", "--no-progress", "--config", small_file]
    for reference, place in (("job", "runs/job"), ("storage/job", "storage/job")):
        for total in ("128", "256"):
            assert main([*argv, "--resume", reference, "--total-timesteps", total]) == 0
        assert json.loads((tmp_path / place / "summary.json").read_text())["env_steps"] == 256
        for file in (tmp_path / place / "checkpoints").glob("ckpt_*/MANIFEST.json"):
            file.write_text("{")
        assert main([*argv, "--resume", reference]) == 2
    assert main(argv) == 2


def test_a_run_directory_may_be_in_the_home_directory(small: Callable[..., Run], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """No folder of the name ~ is made."""
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    monkeypatch.chdir(tmp_path)
    run = small({"run.directory": "~/deep/run"})
    assert run.directory == tmp_path / "home" / "deep" / "run" and (run.directory / "summary.json").is_file()
    assert not (tmp_path / "~").exists()
