"""The loop: what a run leaves behind, and that its bits depend on seed and layout alone."""

from __future__ import annotations

import csv
import json
import math
import os
from collections.abc import Callable
from typing import Any

import numpy as np
import probe_envs
import pytest

from distppo.algo.seeding import Purpose, env_seed
from distppo.config import load_config
from distppo.metrics import KEYS

EVALUATED = {"evaluation.every": 200, "evaluation.episodes": 3}


def test_a_run_leaves_everything_the_contract_lists(small: Callable[..., Any]) -> None:
    """config.yaml, metrics.jsonl, progress.csv, TensorBoard events, checkpoints and summary.json, in the run directory alone."""
    run = small(EVALUATED | {"run.checkpoint_every": 128})
    names = {path.name for path in run.directory.iterdir()}
    assert names == {".lock", "config.yaml", "metrics.jsonl", "progress.csv", "tensorboard", "checkpoints", "summary.json"}
    assert load_config(run.directory / "config.yaml").env.id == "probe_envs:Point-v0"
    (events,) = (run.directory / "tensorboard").iterdir()
    assert "tfevents" in events.name and events.stat().st_size > 1000
    checkpoints = {path.name for path in (run.directory / "checkpoints").iterdir()}
    assert checkpoints == {"best", "latest", *(f"ckpt_{iteration:08d}" for iteration in (1, 2, 3))}
    with open(run.directory / "progress.csv") as file:
        assert [int(row["time/total_timesteps"]) for row in csv.DictReader(file)] == [128, 256, 384]


def test_the_summary_has_the_contracts_keys(small: Callable[..., Any]) -> None:
    """What was reached, how fast, the best evaluation, and on what it ran."""
    run = small(EVALUATED)
    summary = json.loads((run.directory / "summary.json").read_text())
    assert summary == run.summary
    assert summary["env_steps"] == 384 and summary["iterations"] == 3
    assert summary["wall_seconds"] > 0 and summary["env_steps_per_second"] > 0
    assert summary["episode_return_mean"] == run.rows[-1]["rollout/ep_rew_mean"]
    best = max((row for row in run.rows if "eval/mean_reward" in row), key=lambda row: row["eval/mean_reward"])
    assert summary["best_evaluation"] == {"return_mean": best["eval/mean_reward"], "env_steps": best["time/total_timesteps"]}
    for name in ("python", "ray", "torch", "gymnasium", "mujoco", "platform", "cpu", "cores", "memory_bytes"):
        assert summary[name], name


def test_every_row_has_every_metric_and_all_are_finite(small: Callable[..., Any]) -> None:
    """An iteration's row holds each key of docs/metrics.md, an evaluation's where one was due and at the end."""
    run = small(EVALUATED)
    assert [row["time/total_timesteps"] for row in run.rows] == [128, 256, 384]
    keys = KEYS.keys() - {"dist/exchange_seconds"}  # one learner exchanges nothing
    always = {key for key in keys if not key.startswith("eval/")}
    assert [keys - row.keys() for row in run.rows] == [keys - always, set(), set()]
    for row in run.rows:
        assert row.keys() <= KEYS.keys()
        assert all(math.isfinite(value) for value in row.values())
        assert row["dist/obs_count"] == row["time/total_timesteps"] and row["dist/staleness"] == 0 and row["dist/ratio_error"] < 1e-4


def test_phases_add_up_to_the_time_of_an_iteration(small: Callable[..., Any]) -> None:
    """collect, update, broadcast, evaluate, checkpoint and other account for all of it; collecting is not booked as other."""
    run = small(EVALUATED)
    for row in run.rows:
        phases = {name: row[f"time/{name}"] for name in ("collect", "update", "broadcast", "evaluate", "checkpoint", "other")}
        assert sum(phases.values()) == pytest.approx(128 / row["time/fps_iteration"], rel=1e-6)
        assert phases["collect"] == pytest.approx(row["dist/worker_seconds_max"], rel=0.05)


@pytest.mark.parametrize("mode", ["sync", "overlap"])
def test_the_same_seed_gives_the_same_bits_and_another_other_bits(mode: str, small: Callable[..., Any]) -> None:
    """A run is a function of its settings."""
    first, second, other = (small({"rollout.mode": mode, "run.seed": seed}) for seed in (0, 0, 1))
    assert first.same_bits(second)
    assert not first.same_bits(other)


def test_overlap_has_staleness_0_then_1(small: Callable[..., Any]) -> None:
    """The first fragments are learned from at once, all others one update later."""
    run = small({"rollout.mode": "overlap"})
    assert [row["dist/staleness"] for row in run.rows] == [0, 1, 1]


def test_a_batch_larger_than_what_is_left_passes_the_total(small: Callable[..., Any]) -> None:
    """Iterations are whole: 300 env steps are three of 128."""
    assert small({"run.total_timesteps": 300}).summary["env_steps"] == 384


@pytest.mark.ray
@pytest.mark.parametrize("mode", [pytest.param("sync", marks=pytest.mark.slow), "overlap"])
def test_one_ray_worker_and_no_ray_give_the_same_bits(mode: str, small: Callable[..., Any], shared_ray: Any) -> None:
    """The same classes do the same work: parameters, optimizer, moments, and every metric that is no time."""
    settings = EVALUATED | {"rollout.mode": mode}
    local, remote = small(settings), small(settings | {"rollout.num_workers": 1})
    assert local.same_bits(remote)
    for mine, its in zip(local.rows, remote.rows, strict=True):
        timed = {key for key in mine if key.startswith("time/") or key.endswith(("seconds", "_min", "_mean", "_max", "_fps"))}
        kept = mine.keys() - timed - {"dist/workers"} | {"time/total_timesteps"}
        assert {key: mine[key] for key in kept} == {key: its[key] for key in kept}
    assert shared_ray.is_initialized(), "a Ray that the run did not start is not the run's to end"


@pytest.mark.ray
@pytest.mark.parametrize("mode", [pytest.param("sync", marks=pytest.mark.slow), "overlap"])
def test_the_order_in_which_workers_finish_changes_no_bit(mode: str, small: Callable[..., Any], shared_ray: Any) -> None:
    """Whichever worker is the slow one, the learner sees the same batch."""
    settings = {"env.id": "probe_envs:Slow-v0", "rollout.mode": mode, "rollout.num_workers": 2}
    slow_envs = [{"seconds": 0.003, "seed": env_seed(0, Purpose.ENV_RESET, env, 0)} for env in (0, 3)]
    runs = [small(settings | {"env.kwargs": kwargs}) for kwargs in slow_envs]
    assert all(row["dist/worker_seconds_max"] > 32 * 0.003 + row["dist/worker_seconds_min"] for run in runs for row in run.rows)
    assert runs[0].same_bits(runs[1])
    assert [row["dist/staleness"] for row in runs[0].rows] == ([0, 0, 0] if mode == "sync" else [0, 1, 1])


@pytest.mark.parametrize("mode", ["sync", "overlap"])
@pytest.mark.parametrize("workers", [0, pytest.param(2, marks=pytest.mark.ray)])
def test_the_normalizer_has_seen_what_was_fed(workers: int, mode: str, small: Callable[..., Any], tmp_path: Any, request: Any) -> None:
    """Count, mean and std after k iterations are those of the observations acted on, episodes ending inside fragments or not."""
    if workers:
        request.getfixturevalue("shared_ray")
    log = tmp_path / "observations"
    run = small({"env.id": "probe_envs:Logged-v0", "env.kwargs": {"path": str(log)}, "rollout.num_workers": workers, "rollout.mode": mode})
    fed = probe_envs.read_log(log)
    arrays = run.arrays
    assert arrays["obs_moments/count"] == len(fed) == 384
    # Two passes in long double: the reference is not to be the less exact of the two.
    exact = fed.astype(np.longdouble)
    mean = exact.mean(axis=0)
    np.testing.assert_allclose(arrays["obs_moments/mean"], mean.astype(float), rtol=1e-12)
    std = np.sqrt(arrays["obs_moments/m2"] / arrays["obs_moments/count"])
    np.testing.assert_allclose(std, np.sqrt(((exact - mean) ** 2).mean(axis=0)).astype(float), rtol=1e-12)


@pytest.mark.parametrize("when", ["make", "step"])
def test_an_environment_with_a_directory_of_its_own_leaves_the_run_where_it_is(
    when: str, small: Callable[..., Any], tmp_path: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It is there at every step; the run's files are where the command was started, and the run can be continued from there."""
    (tmp_path / "theirs").mkdir()
    monkeypatch.chdir(tmp_path)
    settings = {"env.id": "probe_envs:Wandering", "env.kwargs": {"place": str(tmp_path / "theirs"), "when": when}}
    run = small(EVALUATED | settings | {"env.max_episode_steps": 20, "run.directory": "here", "rollout.num_workers": 0})
    assert (tmp_path / "here" / "summary.json").is_file() and not list((tmp_path / "theirs").iterdir())
    more = small({"run.total_timesteps": 512}, resume="here", trust=["probe_envs:Wandering"])
    assert more.summary["env_steps"] == 512 and os.getcwd() == str(tmp_path) and run.directory == more.directory
