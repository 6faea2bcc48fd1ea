"""The benchmarks' arithmetic: which runs count, what the tables say, and what a layer costs."""

from __future__ import annotations

import ast
import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import posture
import pytest
import throughput
from contestants import RECIPES, WARM_UP, Contestant, RunFailed, Task
from roofline_parts import BareEnvs, budget, collectors, layers

import distppo
from distppo.envs import probe_env
from distppo.learner import Learner

BENCHMARKS = Path(throughput.__file__).resolve().parent
SCRIPTS = sorted(path for path in BENCHMARKS.glob("*.py") if "__main__" in path.read_text(encoding="utf-8"))


@pytest.mark.parametrize("script", SCRIPTS, ids=lambda path: path.name)
def test_every_script_explains_itself(script: Path) -> None:
    """--help says what is measured and how to run it."""
    environment = os.environ | {"PYTHONPATH": str(BENCHMARKS.parent)}
    shown = subprocess.run(
        [sys.executable, str(script), "--help"], capture_output=True, text=True, timeout=120, env=environment, check=True
    )
    assert f"benchmarks/{script.name}" in shown.stdout


def test_the_peers_leave_out_the_same_warm_up() -> None:
    """The number stands twice because the peers' scripts run where distppo is not installed."""
    source = (BENCHMARKS / "peers" / "peer.py").read_text(encoding="utf-8")
    values = {
        node.targets[0].id: ast.literal_eval(node.value)
        for node in ast.parse(source).body
        if isinstance(node, ast.Assign) and isinstance(node.targets[0], ast.Name)
    }
    assert values["WARM_UP"] == WARM_UP


def test_a_run_is_the_warm_up_and_at_least_the_steps_asked_for() -> None:
    """20,000 env steps in batches of 16,384 are two iterations, after two of warm-up."""
    task = Task("HalfCheetah-v4", RECIPES["small"], 20_000)
    assert task.iterations == 4
    assert task.total_steps == 65_536


def contestant(name: str, rates: dict[str, float]) -> Contestant:
    def runner(rate: float) -> Any:
        def run(task: Task) -> dict[str, Any]:
            if rate < 0:
                raise RunFailed("broken")
            return {"env_steps_per_second": rate}

        return run

    return Contestant(name, {variant: runner(rate) for variant, rate in rates.items()})


def test_the_fastest_variant_of_the_first_round_goes_on() -> None:
    """Three variants run once, one of them three times; one that fails is reported and does not stop the others."""
    failures: dict[str, str] = {}
    task = Task("HalfCheetah-v4", RECIPES["small"], 1)
    results = throughput.play([contestant("x", {"slow": 1.0, "fast": 3.0, "broken": -1.0})], task, 3, failures)
    assert [record["variant"] for record in results["x"]] == ["slow", "fast", "fast", "fast"]
    assert throughput.rates(results["x"]) == {0: 3.0, 1: 3.0, 2: 3.0}
    assert failures == {"x, broken": "broken"}


def test_the_table_compares_within_a_round() -> None:
    """Rates of 100, 200, 400 against 50, 50, 50 are ratios of 2, 4, 8: the median is theirs, not that of the medians' spread."""
    runs = {
        "distppo sync": [{"round": i, "variant": "", "env_steps_per_second": rate} for i, rate in enumerate((100.0, 200.0, 400.0))],
        "distppo overlap": [{"round": i, "variant": "", "env_steps_per_second": 500.0} for i in range(3)],
        "other": [{"round": i, "variant": "v", "env_steps_per_second": 50.0} for i in range(3)],
    }
    table = throughput.markdown({"env": "E", "recipe": "small", "date": "today", "runs": runs, "failures": {}})
    assert "| other | v | 50 (50 - 50) | 4.0 (2.0 - 8.0) | 10.0 (10.0 - 10.0) |" in table


def test_the_floating_point_operations_of_a_minibatch() -> None:
    """HalfCheetah, two 2x64 networks: first layers need no gradient of their inputs."""
    config = distppo.load_config(overrides={"env.id": "HalfCheetah-v4"})
    spec = probe_env(config.env)
    # per sample and network: 2 products of 17x64 and 3 of 64x64, 3 of 64x6 (actor) or 64x1 (critic); 2 operations a weight
    expected = 64 * 2 * (2 * (2 * 17 * 64 + 3 * 64 * 64) + 3 * 64 * 7)
    assert sum(layer.flop(64) for layer in layers(config, spec)) == expected


def test_the_budget_of_an_iteration_accounts_for_all_of_it() -> None:
    """What both cores spend is physics, products and everything above them; the fraction of the limit is the first two of it."""
    config = distppo.load_config()
    rates = {
        "physics in mujoco.rollout": 20_000.0,
        "the bare environment's step": 16_000.0,
        "collector": 15_000.0,
        "large matrices": 28_000.0,
        "the layers' own products": 20_000.0,
        "gradient steps": 14_000.0,
        "whole update": 12_000.0,
        "physics, all cores busy": 30_000.0,
        "large matrices, all cores busy": 42_000.0,
        "training, sync": 18_000.0,
        "training, overlap": 20_000.0,
    }
    values = dict(line.strip("| ").rsplit(" | ", 1) for line in budget([rates], config).splitlines()[2:])
    parts = [float(value.replace(",", "")) for name, value in values.items() if "sync" not in name and "overlap" not in name]
    for mode, rate in (("sync", 18_000.0), ("overlap", 20_000.0)):
        waiting = float(values[f"{mode}: waiting, Ray, and cores slowing each other down"].replace(",", ""))
        spent = 1e3 * 2 * config.batch_size / rate
        assert sum(parts) + waiting == pytest.approx(spent, abs=len(values))
        limit = 1e3 * (config.batch_size / 20_000 + 10 * config.batch_size / 64 / 28_000)
        assert values[f"{mode}: fraction of what 2 cores would do, each as fast as one alone"] == f"{limit / spent:.0%}"
        # Busy, each core does three quarters of what one alone does.
        assert values[f"{mode}: fraction of what 2 busy cores do"] == f"{limit / 0.75 / spent:.0%}"


def test_the_ablations_page_tells_what_the_postures_are() -> None:
    """On their backs, and the mean returns: of log-std-0, the recipe and all others together."""
    rows = json.loads(max((BENCHMARKS / "results").glob("posture-*.json")).read_text(encoding="utf-8"))["runs"]
    groups: dict[str, list[dict[str, Any]]] = {"`log-std-0`": [], "the recipe": [], "all other variants": []}
    for row in rows:
        label = f"`{row['variant']}`" if row["variant"] == "log-std-0" else row["variant"]
        groups[label if label in groups else "all other variants"].append(row)
    page = (BENCHMARKS.parent / "docs" / "ablations.md").read_text(encoding="utf-8")
    for label, group in groups.items():
        *_, line = posture.table([row | {"variant": label, "env": "x"} for row in group]).splitlines()
        assert line.removeprefix("| x ") in page


def test_the_bare_environments_are_where_the_collector_s_are() -> None:
    """After two fragments with episodes ending in them, every robot is in the same place to the bit."""
    config = distppo.load_config(overrides={"env.id": "Hopper-v4", "rollout.num_envs": 4, "rollout.num_steps": 64})
    (_, collector), learner = collectors(config, 2), Learner(config, probe_env(config.env))
    bare = BareEnvs(config, 2, 2)
    for iteration in range(2):
        rollout = collector.collect(learner.snapshot(), iteration)
        bare.prepared(rollout.actions)()
        assert rollout.episodes, "some have ended"
        for mine, its in zip(bare.envs, collector._stepper.envs, strict=True):
            np.testing.assert_array_equal(mine.data.qpos, its.unwrapped.data.qpos)
