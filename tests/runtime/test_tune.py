"""`tune` as a whole: trials with actors of their own under ASHA, PBT and Optuna, interrupted, continued, and without room."""

from __future__ import annotations

import csv
import json
import re
import signal
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from runtime.running import SECONDS, SMALL, processes_of, read_events, wait_until

from distppo.cli import main
from distppo.config import dump_config, load_config
from distppo.metrics import METRICS_FILE, read_metrics
from distppo.metrics.keys import STEPS
from distppo.runtime.run_directory import find_begun_run
from distppo.runtime.tune import search as search_module

# The learning rate itself as the metric: how good a trial is depends on its settings alone.
SPACE = """
metric: train/learning_rate
space:
  ppo:
    learning_rate: {loguniform: [1.0e-5, 1.0e-2]}
    epochs: {choice: [1, 2]}
asha: {grace_period: 256, reduction_factor: 2}
pbt: {perturbation_interval: 256, quantile_fraction: 0.5, resample_probability: 0}
"""


@pytest.fixture
def project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with a small configuration and a space."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "small.yaml").write_text(dump_config(load_config(overrides=SMALL | {"run.total_timesteps": 1024})))
    (tmp_path / "space.yaml").write_text(SPACE)
    return tmp_path


def tune(*more: str) -> int:
    return main(["tune", "--config", "small.yaml", "--space", "space.yaml", "--run-dir", "search", *more])


def results() -> dict[int, dict[str, Any]]:
    """The records of the search, by number."""
    return {record["number"]: record for record in json.loads(Path("search/results.json").read_text())["records"]}


@pytest.mark.slow
@pytest.mark.ray
def test_asha_stops_the_worse_trials_and_the_best_trains_on(project: Path, shared_ray: Any, capsys: pytest.CaptureFixture[str]) -> None:
    """Each trial has a learner and a worker in bundles of its own; table, JSON, CSV and best.yaml agree."""
    assert tune("--trials", "4", "--workers-per-trial", "1", "--seed", "3") == 0
    output, records = capsys.readouterr().out, results()
    assert len(records) == 4 and {record["state"] for record in records.values()} == {"finished", "stopped"}
    ranked = sorted(records.values(), key=lambda record: -record["score"])
    assert ranked[0]["state"] == "finished" and ranked[0]["env_steps"] == 1024
    assert all(256 <= record["env_steps"] < 1024 for record in records.values() if record["state"] == "stopped")
    for record in records.values():
        rows = read_metrics(Path(f"search/trial_{record['number']:03d}") / METRICS_FILE)
        assert rows[-1]["train/learning_rate"] == record["settings"]["ppo.learning_rate"] and rows[-1]["dist/workers"] == 1
    with open("search/results.csv", newline="") as file:
        assert [row["trial"] for row in csv.DictReader(file)] == [f"trial_{record['number']:03d}" for record in ranked]
    assert re.search(rf"\n +{ranked[0]['number']} +\S+ +1,024 +finished", output) and "Ray" not in output
    best = load_config("search/best.yaml")
    assert best.run.directory is None and best.rollout.num_workers == 0, "as configured, but for what was found"
    assert best.ppo.learning_rate == ranked[0]["settings"]["ppo.learning_rate"]
    assert not Path("search/ray").exists(), "nothing of Tune's stays, its pickles least of all"
    assert main(["train", "--config", "search/best.yaml", "--total-timesteps", "128", "--run-dir", "run", "--no-progress"]) == 0
    assert wait_until(lambda: shared_ray.available_resources().get("CPU") == 4, SECONDS, "every actor has ended")


@pytest.mark.long
@pytest.mark.ray
def test_pbt_moves_weights_and_settings_and_the_learner_uses_them(project: Path, shared_ray: Any) -> None:
    """The learning rate that the real learner reports after each change is the one that was chosen for it."""
    (project / "space.yaml").write_text(SPACE.replace("perturbation_interval: 256", "perturbation_interval: 25600"))
    # Long enough for both to be at work together: a population's trials meet at no fixed time.
    assert tune("--trials", "2", "--scheduler", "pbt", "--workers-per-trial", "1", "--seed", "3", "--total-timesteps", "102400") == 0
    records = results()
    changed = [record for record in records.values() if record["changes"]]
    moved = False
    for record in changed:
        rates = [change["settings"]["ppo.learning_rate"] for change in record["changes"]] + [record["settings"]["ppo.learning_rate"]]
        moved = moved or len(set(rates)) > 1
        directory = Path(f"search/trial_{record['number']:03d}")
        reported = [json.loads(line) for line in (directory / METRICS_FILE).read_text().splitlines()]
        used = [row["train/learning_rate"] for row in reported if "train/learning_rate" in row]
        assert set(used) <= set(rates) and used[-1] == rates[-1]
        assert len([event for event in read_events(directory) if event["event"] == "resumed"]) >= len(record["changes"])
    assert moved, "a trial learned with two learning rates"
    assert {record["env_steps"] for record in records.values()} == {102_400}


@pytest.mark.ray
def test_optuna_proposes_and_goes_on_from_the_records(project: Path, shared_ray: Any) -> None:
    """A search of 3 trials becomes one of 5 with --resume, and no trial is made twice."""
    pytest.importorskip("optuna")
    assert tune("--trials", "3", "--search", "optuna", "--scheduler", "none", "--workers-per-trial", "0") == 0
    before = results()
    assert main(["tune", "--resume", "search", "--trials", "5"]) == 0
    after = results()
    assert {number: after[number] for number in before} == before
    assert len(after) == 5 and len({record["settings"]["ppo.learning_rate"] for record in after.values()}) == 5
    assert all(1e-5 <= record["settings"]["ppo.learning_rate"] <= 1e-2 for record in after.values())


@pytest.mark.slow
@pytest.mark.ray
def test_a_limit_ends_a_trial_and_one_that_fails_does_not_end_the_search(project: Path, shared_ray: Any) -> None:
    """A trial at its limit has finished; one whose environment cannot be made has failed, with the reason in its record."""
    space = (
        "metric: rollout/ep_len_mean\nstop: {rollout/ep_len_mean: {at_most: 1000}}\nspace: {env: {kwargs: {length: {choice: [5, five]}}}}"
    )
    (project / "space.yaml").write_text(space)
    assert tune("--trials", "2", "--scheduler", "none", "--workers-per-trial", "0", "--seed", "1") == 0
    records = {record["settings"]["env.kwargs.length"]: record for record in results().values()}
    assert records[5]["state"] == "finished" and records[5]["env_steps"] == 128


@pytest.mark.ray
def test_too_few_cpus_are_told_with_needed_against_available(project: Path, shared_ray: Any, capsys: pytest.CaptureFixture[str]) -> None:
    """More than the cluster has at once; more than is free within the start-up timeout. It never hangs."""
    assert tune("--workers-per-trial", "4") == 2
    message = "error: the cluster is too small for this run. CPU: needed 5, in the cluster 4, free 4. Lower --workers-per-trial, or end"
    assert capsys.readouterr().err.startswith(message)

    class Holder:
        def ready(self) -> None:
            pass

    holder = shared_ray.remote(num_cpus=3)(Holder).remote()
    shared_ray.get(holder.ready.remote())
    try:
        assert tune("--workers-per-trial", "1", "--set", "fault.startup_timeout=3") == 2
    finally:
        shared_ray.kill(holder)
    message = "no trial could start within 3 s (fault.startup_timeout). CPU: needed 2, in the cluster 4, free 1. Lower --workers-per-trial"
    assert message in capsys.readouterr().err


def test_a_mistake_is_told_before_ray_starts(project: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """A wrong key, range and metric, together; nothing is written."""
    (project / "space.yaml").write_text("metric: reward\nspace: {ppo: {gama: {uniform: [0, 1]}, epochs: {int: [3, 1]}}}\n")
    assert tune() == 2
    assert capsys.readouterr().err.count("space.yaml:") == 3
    assert not Path("search").exists()


def test_what_goes_on_is_found_and_has_its_own_settings(project: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Without a search there is nothing to go on with; what a search has settled cannot be given again."""
    for argv, message in (
        (["--resume"], "there is no search under runs/; `tune` makes one"),
        (["--resume", "nowhere"], "nowhere is no search; `tune` makes one"),
        (["--resume", "--space", "space.yaml"], "--space space.yaml: a search that is continued has its own; leave it out"),
        (["--resume", "--learning-rate", "1e-3"], "--learning-rate 1e-3: a search that is continued has its own settings; leave it out"),
    ):
        assert main(["tune", *argv]) == 2
        assert message in capsys.readouterr().err


def test_a_search_of_a_stranger_s_loads_nothing_by_its_own_word(project: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Code that its configuration, its space or a trial's settings name is named by the user, too."""
    search = project / "search"
    search.mkdir()
    (search / "base.yaml").write_text(dump_config(load_config(overrides=SMALL)))
    (search / "space.yaml").write_text("space: {network: {class: {choice: [off, 'theirs:Net']}}}\n")
    record = {"number": 0, "settings": {"network.class": "others:Net"}}
    content = {"trials": 2, "workers_per_trial": 0, "scheduler": "none", "search": "random", "records": [record]}
    (search / "results.json").write_text(json.dumps(content))
    assert find_begun_run("search") is None, "a search is no run that `train --resume` could mean"
    assert main(["tune", "--resume", "search"]) == 2
    error = capsys.readouterr().err
    assert "search names code that would be imported" in error and "--trust theirs:Net --trust others:Net" in error
    (search / "results.json").write_text(json.dumps(content | {"records": [{"number": -1, "settings": {}}]}))
    assert main(["tune", "--resume", "search"]) == 2
    assert "results.json is damaged" in capsys.readouterr().err


def test_what_a_search_has_reached_while_another_starts_is_not_written_over(
    project: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """As by a job that is asked to end when the one that takes over from it has just been started."""
    search = project / "search"
    search.mkdir()
    (search / "base.yaml").write_text(dump_config(load_config(overrides=SMALL)))
    (search / "space.yaml").write_text("space: {ppo: {epochs: {int: [1, 3]}}}\n")
    record = {"number": 0, "settings": {"ppo.epochs": 2}}
    content = {"trials": 2, "workers_per_trial": 0, "scheduler": "none", "search": "random", "records": [record]}
    (search / "results.json").write_text(json.dumps(content))
    later = json.dumps(content | {"records": [record | {"score": 1.0, "env_steps": 128}]})
    probe = search_module.probe_env

    def written_meanwhile(config: Any) -> Any:
        (search / "results.json").write_text(later)
        return probe(config)

    monkeypatch.setattr(search_module, "probe_env", written_meanwhile)
    assert main(["tune", "--resume", "search", "--trust", "probe_envs:Point-v0"]) == 2
    assert "search has been gone on with while this was starting; give the same command again" in capsys.readouterr().err
    assert (search / "results.json").read_text() == later


@pytest.mark.long
@pytest.mark.parametrize(("number", "trials"), [(signal.SIGKILL, 4), (signal.SIGKILL, 8), (signal.SIGTERM, 4)])
def test_an_interrupted_search_goes_on(
    number: int, trials: int, project: Path, started: Callable[..., Any], launch: Callable[..., Any]
) -> None:
    """ASHA trials on two cores. What had ended stays as it was, what was at work goes on from its checkpoint, the rest begins."""
    (project / "long.yaml").write_text(
        dump_config(load_config(overrides=SMALL | {"run.total_timesteps": 32_768, "run.checkpoint_every": 2048}))
    )
    space = SPACE.replace("grace_period: 256", "grace_period: 4096")
    (project / "space.yaml").write_text(space)
    argv = ("tune", "--config", "long.yaml", "--space", "space.yaml", "--run-dir", "search", "--workers-per-trial", "1")
    process = started(*argv, "--trials", str(trials))

    def half_way() -> bool:
        if not Path("search/results.json").exists():
            return False
        records = results().values()
        ended = any(record["state"] != "running" for record in records)
        return ended and any(record["state"] == "running" and record["env_steps"] >= 4096 for record in records)

    wait_until(half_way, SECONDS, "a trial has ended and another is at work")
    process.send_signal(number)
    assert process.wait(SECONDS) == (143 if number == signal.SIGTERM else -9)
    wait_until(lambda: not processes_of(process.pid), SECONDS, "nothing is left running")
    before = results()
    if number == signal.SIGTERM:
        assert (project / "stdout").read_text().splitlines()[-1].startswith("continue with: ")
    done = launch("tune", "--resume", "search")
    assert done.returncode == 0, done.stderr
    after = results()
    assert len(after) == trials and "running" not in {record["state"] for record in after.values()}
    states = {record["state"] for record in after.values()}
    assert states == {"finished", "stopped"} if trials == 8 else states <= {"finished", "stopped"}
    for record in before.values():
        if record["state"] != "running":
            assert after[record["number"]] == record
    resumed = [record for record in before.values() if record["state"] == "running" and record["env_steps"] >= 4096]
    assert resumed, "one was at work long enough to have a checkpoint"
    for record in resumed:
        directory = Path(f"search/trial_{record['number']:03d}")
        assert "resumed" in {event["event"] for event in read_events(directory)}
        steps = [row[STEPS] for row in read_metrics(directory / METRICS_FILE)]
        assert steps == sorted(set(steps)), "no env step is counted twice"
    assert main(["train", "--config", "search/best.yaml", "--total-timesteps", "128", "--run-dir", "run", "--num-workers", "0"]) == 0


@pytest.mark.long
def test_a_killed_population_goes_on_with_what_it_had_found(project: Path, started: Callable[..., Any], launch: Callable[..., Any]) -> None:
    """Settings that trials had taken over before the kill are those they learn with after it."""
    total, interval = 61_440, 10_240
    small = load_config(overrides=SMALL | {"run.total_timesteps": total, "run.checkpoint_every": 2048})
    (project / "long.yaml").write_text(dump_config(small))
    (project / "space.yaml").write_text(SPACE.replace("perturbation_interval: 256", f"perturbation_interval: {interval}"))
    argv = (
        "--config",
        "long.yaml",
        "--space",
        "space.yaml",
        "--run-dir",
        "search",
        "--workers-per-trial",
        "1",
        "--trials",
        "2",
        "--seed",
        "3",
    )
    process = started("tune", *argv, "--scheduler", "pbt")

    def moved() -> bool:
        return Path("search/results.json").exists() and any(record["changes"] for record in results().values())

    wait_until(lambda: moved() or process.poll() is not None, SECONDS, "a trial has taken over another's settings")
    process.kill()
    assert process.wait(SECONDS) == -9
    wait_until(lambda: not processes_of(process.pid), SECONDS, "nothing is left running")
    before = results()
    assert {record["state"] for record in before.values()} == {"running"}
    done = launch("tune", "--resume", "search")
    assert done.returncode == 0, done.stderr
    after = results()
    assert {record["env_steps"] for record in after.values()} == {total}
    for number, record in after.items():
        known = [change["settings"] for change in before[number]["changes"]] + [before[number]["settings"]]
        tried = [change["settings"] for change in record["changes"]] + [record["settings"]]
        assert tried[: len(known)] == known
        used = [row["train/learning_rate"] for row in read_metrics(Path(f"search/trial_{number:03d}") / METRICS_FILE)]
        assert set(used) <= {settings["ppo.learning_rate"] for settings in tried} and used[-1] == tried[-1]["ppo.learning_rate"]
