"""`train --seeds`: a run a seed in one folder, each as it would have been alone; skipped, gone on with and stopped together."""

from __future__ import annotations

import json
import signal
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest
from runtime.running import SECONDS, SMALL, Run, processes_of, read_events, wait_until

from distppo.checkpoint import load_checkpoint, resolve_checkpoint
from distppo.config import load_config
from distppo.errors import UserError
from distppo.runtime.seeds import open_group, parse_seeds

Launch = Callable[..., subprocess.CompletedProcess[str]]


@pytest.mark.parametrize(("text", "seeds"), [("3", [0, 1, 2]), ("1", [0]), ("0,5,2", [0, 5, 2]), ("7,", [7]), (" 1, 2 ", [1, 2])])
def test_a_number_is_a_count_and_a_list_has_commas(text: str, seeds: list[int]) -> None:
    assert parse_seeds(text, 0) == seeds


def test_a_count_begins_at_the_seed() -> None:
    assert parse_seeds("2", 40) == [40, 41]


@pytest.mark.parametrize("text", ["0", "", "-1", "a", "1,a", "1,1", "1.5", "99999999999"])
def test_what_names_no_seeds_is_a_mistake(text: str) -> None:
    with pytest.raises(UserError, match="--seeds"):
        parse_seeds(text, 0)


def parameters(directory: Path) -> bytes:
    arrays = load_checkpoint(resolve_checkpoint(str(directory), prefer="last")).arrays["learner"]
    return b"".join(arrays[name].tobytes() for name in sorted(arrays))


def test_each_seed_is_the_run_it_would_be_alone_and_finished_ones_are_skipped(
    launch: Launch, small: Callable[..., Run], small_file: str, tmp_path: Path
) -> None:
    done = launch("train", "--config", small_file, "--seeds", "2", "--run-dir", "group")
    assert (done.returncode, done.stderr) == (0, "")
    group = tmp_path / "group"
    assert {path.name for path in group.iterdir()} == {"config.yaml", "seeds.json", "summary.json", "seed0", "seed1"}
    assert parameters(group / "seed1") == parameters(small({"run.seed": 1}).directory) != parameters(group / "seed0")
    summary = json.loads((group / "summary.json").read_text())
    assert (summary["seeds"], summary["finished"]) == ([0, 1], 2)
    returns = [json.loads((group / f"seed{seed}/summary.json").read_text())["episode_return_mean"] for seed in (0, 1)]
    assert summary["episode_return_mean"] == pytest.approx(sum(returns) / 2)
    assert [row["episode_return_mean"] for row in summary["runs"]] == returns
    assert "finished: 2 of 2 seeds, episode return" in done.stdout
    again = launch("train", "--config", small_file, "--seeds", "0,1,5", "--run-dir", "group", "--parallel", "2")
    assert again.returncode == 0 and "finished already: seed 0, 1" in again.stdout
    assert "seed 5 | probe_envs:Point-v0 -> group/seed5" in again.stdout and "finished: 3 of 3 seeds" in again.stdout
    assert len([event for event in read_events(group / "seed0") if event["event"] == "started"]) == 1
    other = launch("train", "--config", small_file, "--seeds", "2", "--run-dir", "group", "--set", "ppo.gamma=0.5")
    assert other.returncode == 2 and "holds seeds with other settings" in other.stderr


@pytest.mark.slow
def test_stopping_stops_all_and_continuing_goes_on_with_all(
    started: Callable[..., subprocess.Popen[bytes]], launch: Launch, small_file: str, tmp_path: Path
) -> None:
    arguments = ["--config", small_file, "--seeds", "2", "--parallel", "2", "--run-dir", "group", "--total-timesteps", "1e9"]
    process = started("train", *arguments)
    rows = [tmp_path / f"group/seed{seed}/metrics.jsonl" for seed in (0, 1)]
    wait_until(lambda: all(path.exists() and "time/fps" in path.read_text() for path in rows), SECONDS, "both learn")
    process.send_signal(signal.SIGINT)
    assert process.wait(SECONDS) == 130
    wait_until(lambda: not processes_of(process.pid), 10, "no process is left")
    output = (tmp_path / "stdout").read_text()
    assert output.rstrip().endswith("train --resume group") and (tmp_path / "stderr").read_text() == ""
    steps = [json.loads((tmp_path / f"group/seed{seed}/summary.json").read_text())["env_steps"] for seed in (0, 1)]
    assert min(steps) > 0
    total = str(max(steps) + 256)
    done = launch("train", "--resume", "group", "--total-timesteps", total)
    assert done.returncode == 0 and "finished: 2 of 2 seeds" in done.stdout
    for seed in (0, 1):
        assert [event["event"] for event in read_events(tmp_path / f"group/seed{seed}")].count("resumed") == 1


def test_a_seed_that_cannot_be_trained_keeps_the_others_from_being_started(launch: Launch, small_file: str, tmp_path: Path) -> None:
    done = launch("train", "--config", small_file, "--env", "Nowhere-v0", "--seeds", "3", "--run-dir", "group")
    assert done.returncode == 1
    assert "seed 0 ended with an error (exit code 2)" in done.stdout and "the others are not started" in done.stdout
    assert "no environment 'Nowhere-v0' is registered" in done.stderr
    assert not (tmp_path / "group/seed1").exists()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("--parallel",), "--parallel is for --seeds"),
        (("--seeds", "2", "--parallel", "none"), "--parallel none  must be a whole number"),
        (("--seeds", "two"), "--seeds two  must be how many"),
        (("--seeds", "2", "--resume", "nowhere"), "--resume nowhere is no folder of seeds"),
    ],
)
def test_wrong_arguments_are_told(arguments: tuple[str, ...], message: str, launch: Launch, tmp_path: Path) -> None:
    done = launch("train", *arguments)
    assert done.returncode == 2 and done.stderr.startswith(f"error: {message}") and not list(tmp_path.iterdir())


def test_a_folder_that_holds_something_else_is_left_alone(launch: Launch, small_file: str, tmp_path: Path) -> None:
    (tmp_path / "group").mkdir()
    (tmp_path / "group/precious").touch()
    done = launch("train", "--config", small_file, "--seeds", "2", "--run-dir", "group")
    assert done.returncode == 2 and "holds something else already" in done.stderr
    assert {path.name for path in (tmp_path / "group").iterdir()} == {"precious"}


def test_a_dry_run_says_what_would_be_done_and_writes_nothing(launch: Launch, small_file: str, tmp_path: Path) -> None:
    done = launch("train", "--config", small_file, "--dry-run", "--run-dir", "run")
    assert (done.returncode, done.stderr) == (0, "")
    lines = {line.split()[0]: line.split(maxsplit=1)[1] for line in done.stdout.splitlines()}
    assert lines["iteration"] == "one process, 4 envs x 32 steps = 128 env steps"
    assert lines["update"] == "2 epochs x 4 minibatches of 32 = 8 gradient steps"
    assert lines["run"].startswith("3 updates x 128 = 384 env steps, 24 gradient steps")
    assert lines["memory"].startswith("about ") and "store" not in lines
    assert "without evaluations on" in lines["time"] and "env steps/s" in lines["time"]
    assert not list(tmp_path.iterdir())


def test_a_folder_of_seeds_from_somebody_else_runs_no_code(launch: Launch, small_file: str, tmp_path: Path) -> None:
    (tmp_path / "group").mkdir()
    (tmp_path / "group/seeds.json").write_text('{"seeds": [0]}')
    config = Path(small_file).read_text().replace("callbacks: []", "callbacks: [strange:Code]")
    assert "strange:Code" in config
    (tmp_path / "group/config.yaml").write_text(config)
    done = launch("train", "--resume", "group")
    assert done.returncode == 2 and "names code that would be imported" in done.stderr and "--trust strange:Code" in done.stderr
    assert not (tmp_path / "group/seed0").exists()


def test_a_dry_run_of_seeds_says_how_many(launch: Launch, small_file: str, tmp_path: Path) -> None:
    done = launch("train", "--config", small_file, "--seeds", "3", "--dry-run")
    assert done.returncode == 0 and done.stdout.splitlines()[-1].split(maxsplit=1) == ["seeds", "3 runs like this: 0, 1, 2"]
    assert not list(tmp_path.iterdir())


def test_a_dry_run_of_a_continued_run_plans_what_is_left(launch: Launch, trained: Run, tmp_path: Path) -> None:
    done = launch("train", "--resume", str(trained.directory), "--total-timesteps", str(SMALL["run.total_timesteps"] + 256), "--dry-run")
    assert done.returncode == 0, done.stderr
    assert "resumed " in done.stdout and "2 updates x 128 = 256 env steps" in done.stdout


def test_a_dry_run_of_a_broken_environment_is_told_at_once(launch: Launch) -> None:
    done = launch("train", "--dry-run", "--env", "Nowhere-v0")
    assert done.returncode == 2 and "no environment 'Nowhere-v0' is registered" in done.stderr


def test_a_second_command_for_the_same_seeds_is_refused_and_changes_nothing(launch: Launch, small_file: str, tmp_path: Path) -> None:
    """Each would rewrite the settings that the other's next seed begins with."""
    assert launch("train", "--config", small_file, "--seeds", "1", "--run-dir", "group").returncode == 0
    before = (tmp_path / "group" / "config.yaml").read_text()
    with open_group(load_config(small_file), [0], continued=tmp_path / "group"):
        other = launch("train", "--resume", "group", "--set", "ppo.gamma=0.5", "--trust", "probe_envs:Point-v0")
    assert other.returncode == 2 and "group is in use by another process" in other.stderr
    assert (tmp_path / "group" / "config.yaml").read_text() == before


def test_several_seeds_end_with_a_report_of_all(launch: Launch, small_file: str, tmp_path: Path) -> None:
    """As --report says."""
    done = launch("train", "--config", small_file, "--seeds", "2", "--run-dir", "group", "--report")
    assert done.returncode == 0 and f"report:          {Path('group') / 'report.html'}" in done.stdout
    assert (tmp_path / "group" / "report.html").stat().st_size > 10_000
