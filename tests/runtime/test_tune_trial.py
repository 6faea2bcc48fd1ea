"""A trial is a run of `train`: stepped, saved, moved to other settings, in this process and with the real learner."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from runtime.running import SMALL, Run

from distppo.checkpoint import list_checkpoints, load_checkpoint
from distppo.config import load_config
from distppo.metrics import METRICS_FILE, read_metrics
from distppo.runtime.run_directory import RunDirectory
from distppo.runtime.tune import trial as trial_module
from distppo.runtime.tune.trial import JOB, NUMBER, OVER, SETTINGS, Job, TrainingTrial

RATE = "ppo.learning_rate"
METRIC = "rollout/ep_rew_mean"


class Named(TrainingTrial):
    """A trial outside of Tune, which has no name there."""

    @property
    def trial_name(self) -> str:
        return f"trial_{self.config[NUMBER]:03d}"


@pytest.fixture
def make(tmp_path: Path) -> Iterator[Callable[..., TrainingTrial]]:
    """Makes trials with the small settings, which end with the test."""
    trials: list[TrainingTrial] = []

    def maker(number: int = 0, settings: dict[str, Any] | None = None, metric: str = METRIC, **overrides: Any) -> TrainingTrial:
        job = Job(load_config(overrides=SMALL | overrides), str(tmp_path), metric, {})
        trials.append(Named({JOB: job, NUMBER: number, SETTINGS: settings or {}}))
        return trials[-1]

    yield maker
    for trial in trials:
        trial.stop()


def newest(trial: TrainingTrial) -> Any:
    """The learner's arrays and values in the run's newest checkpoint."""
    checkpoint = load_checkpoint(list_checkpoints(trial.run_directory)[-1].path)
    return checkpoint.arrays["learner"], checkpoint.state["learner"]


def test_a_trial_learns_what_train_learns(make: Callable[..., TrainingTrial], small: Callable[..., Run]) -> None:
    """The same loop: parameters are equal to the last bit, and the run directory is an ordinary one."""
    trial = make(settings={RATE: 1e-3})
    reports = [trial.train() for _ in range(3)]
    assert [report["done"] for report in reports] == [False, False, True] and reports[-1][OVER]
    assert [report["time/total_timesteps"] for report in reports] == [128, 256, 384]
    run = small({RATE: 1e-3})
    assert newest(trial)[0]["parameters"].tobytes() == run.arrays["parameters"].tobytes()
    assert (trial.run_directory / "summary.json").exists()


def test_a_report_waits_for_the_metric(make: Callable[..., TrainingTrial]) -> None:
    """As many iterations as it takes: evaluations come every 256 env steps here."""
    overrides = {"evaluation.every": 256, "evaluation.episodes": 1, "run.total_timesteps": 512}
    trial = make(metric="eval/mean_reward", **overrides)
    assert [trial.train()["time/total_timesteps"] for _ in range(2)] == [256, 512]


def test_a_metric_that_never_comes_ends_the_trial_with_an_error(make: Callable[..., TrainingTrial]) -> None:
    """No report without the metric reaches a scheduler. Episodes of 1,000 steps do not end within 96."""
    trial = make(**{"env.kwargs": {"termination": 0.0}, "env.max_episode_steps": 1000})
    with pytest.raises(ValueError, match="the trial has ended without a value of rollout/ep_rew_mean"):
        trial.train()


@pytest.mark.parametrize("schedule", ["constant", "kl"])
def test_settings_changed_by_a_scheduler_are_what_the_learner_uses_after_a_restore(
    schedule: str, make: Callable[..., TrainingTrial], tmp_path: Path
) -> None:
    """Read back from the optimizer: its step size in the learner's state, and how far it moves the parameters (Adam: about the rate)."""
    donor = make(0, {RATE: 1e-2}, **{"ppo.lr_schedule": schedule})
    donor.train()
    donor.save(str(tmp_path / "saved"))
    learned = np.array(newest(donor)[0]["parameters"])
    taker = make(1, {RATE: 1e-2}, **{"ppo.lr_schedule": schedule})
    taker.train()
    assert taker.reset({**taker.config, SETTINGS: {RATE: 1e-7}})
    taker.restore(str(tmp_path / "saved"))
    report = taker.train()
    taker.save()
    arrays, values = newest(taker)
    assert report["time/total_timesteps"] == 256, "it goes on from the donor's checkpoint"
    assert values["learning_rate"] < 1e-5 and report["train/learning_rate"] == values["learning_rate"]
    assert 0 < np.abs(arrays["parameters"] - learned).max() < 1e-4, "the donor's weights, hardly moved"
    assert read_metrics(taker.run_directory / METRICS_FILE)[-1]["train/learning_rate"] == values["learning_rate"]


def test_a_trial_that_is_saved_and_restored_goes_on_bit_for_bit(make: Callable[..., TrainingTrial], tmp_path: Path) -> None:
    """Through Tune's checkpoint, which is one of ours: no pickle in it."""
    straight, paused = make(0), make(1)
    for _ in range(3):
        straight.train()
    paused.train()
    paused.save(str(tmp_path / "saved"))
    names = {path.name for path in (tmp_path / "saved").rglob("*") if path.is_file()}
    assert {"MANIFEST.json", "learner.safetensors"} <= names and not [name for name in names if "pkl" in name]
    paused.reset(dict(paused.config))
    paused.restore(str(tmp_path / "saved"))
    assert [paused.train()["time/total_timesteps"] for _ in range(2)] == [256, 384]
    assert newest(paused)[0]["parameters"].tobytes() == newest(straight)[0]["parameters"].tobytes()


def test_a_trial_whose_process_died_goes_on_from_its_run_directory(make: Callable[..., TrainingTrial]) -> None:
    """Tune has no checkpoint of it then; the run directory has."""
    first = make(0, **{"run.checkpoint_every": 128})
    first.train()
    first.train()
    first.stop()
    again = make(0, **{"run.checkpoint_every": 128})
    assert again.train()["time/total_timesteps"] == 384


def test_a_trial_that_had_finished_reports_its_end_again(make: Callable[..., TrainingTrial]) -> None:
    """Where the search was killed between the run's end and its report."""
    first = make(0)
    end = [first.train() for _ in range(3)][-1]
    again = make(0).train()
    assert again["done"] and again[METRIC] == end[METRIC] and again["time/total_timesteps"] == 384


def test_a_trial_waits_until_its_former_process_has_left(make: Callable[..., TrainingTrial], monkeypatch: pytest.MonkeyPatch) -> None:
    """Two processes never train in one directory; one that stays is told by its lock."""
    monkeypatch.setattr(trial_module, "HANDOVER_SECONDS", 0.5)
    trial = make(0)
    with RunDirectory(trial.run_directory, continued=False), pytest.raises(ValueError, match="is in use by process"):
        trial.train()
    assert trial.train()["time/total_timesteps"] == 128


@pytest.mark.parametrize(("workers", "bundles"), [(0, [{"CPU": 1.0}]), (1, [{"CPU": 1.0}] * 2), (3, [{"CPU": 1.0}] * 4)])
def test_every_process_of_a_trial_has_its_bundle(workers: int, bundles: list[dict[str, float]]) -> None:
    """The learner and each worker one, the trial's own process none, unless it is the only one."""
    job = Job(load_config(overrides={"rollout.num_workers": workers}), "", METRIC, {})
    asked = TrainingTrial.default_resource_request({JOB: job})
    assert asked.bundles == bundles and asked.head_bundle_is_empty == (workers > 0)


def test_several_learners_have_a_bundle_each() -> None:
    config = load_config(overrides={"rollout.num_workers": 3, "learner.num_learners": 2})
    asked = TrainingTrial.default_resource_request({JOB: Job(config, "", METRIC, {})})
    assert asked.required_resources == {"CPU": 5.0} and len(asked.bundles) == 5
