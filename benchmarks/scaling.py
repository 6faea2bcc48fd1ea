"""How orchestration grows with workers and weights: the whole program, with environments that sleep instead of computing.

    .venv/bin/python benchmarks/scaling.py              1 to 64 workers, weights of 44 kB to 50 MB; about ten minutes on two cores
    .venv/bin/python benchmarks/scaling.py --quick      2 workers at most, a minute; shows that it works

Every measurement is `launch.py train` in sync mode: Ray, real learner, metrics on disk. Every worker has four environments whose steps take
5 ms and compute nothing, so that many workers share a core; the batch grows with the workers. Orchestration is what an iteration takes
beyond its slowest worker's collection and the learner's update. A formula is fitted to it and asked for 1,024 workers.

Waking a process costs a tenth of a millisecond of processor, which 64 workers at 200 steps a second would fill two cores with. So ten
steps share one sleep of 50 ms; `--sleep-every 1` shows what it is otherwise. Run it on an idle machine.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import sys
import time
from collections import Counter
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from latency_env import ACTION_SIZE, ENV_ID, OBSERVATION_SIZE
from scaling_model import TERMS, Model, Network, Sample, fit
from watched_run import ROOT, RunFailed, WatchedRun

from distppo.config.schema import NetworkConfig
from distppo.metrics import machine_info
from distppo.models.layout import layout_size, network_layout
from distppo.types import EnvSpec

WARM_UP = 3
"""Iterations before the clock starts: the first touch of every buffer lies in them."""
SMALL = 64
"""Width of both hidden layers where the workers vary."""
MINI_BATCH = 1024
"""Samples of a minibatch, or the next smaller number that divides the batch."""
PREDICTED = (64, 128, 256, 512, 1024)


@dataclass(frozen=True)
class Cell:
    """One measurement.

    Attributes:
        workers: W, with one environment each.
        width: of both hidden layers of actor and critic.
        num_steps: T.
        iterations: on the clock.
        latency: seconds a step takes.
        sleep_every: steps that share one sleep.
    """

    workers: int
    num_envs: int
    width: int
    num_steps: int
    iterations: int
    latency: float
    sleep_every: int

    @property
    def weight_bytes(self) -> int:
        """Size of the policy that is sent out in every iteration."""
        spec = EnvSpec(ENV_ID, (OBSERVATION_SIZE,), (ACTION_SIZE,), (-1.0,) * ACTION_SIZE, (1.0,) * ACTION_SIZE, None)
        return 4 * layout_size(network_layout(spec, NetworkConfig(hidden_sizes=(self.width, self.width))))

    @property
    def batch(self) -> int:
        """Env steps of an iteration."""
        return self.workers * self.num_envs * self.num_steps

    def flags(self) -> list[str]:
        """Returns the flags of `launch.py train`: one epoch, of minibatches whose activations fit into the cache."""
        settings = {
            "env.kwargs.latency": self.latency,
            "env.kwargs.sleep_every": self.sleep_every,
            "ppo.epochs": 1,
            "ppo.mini_batch_size": next(size for size in range(MINI_BATCH, 0, -1) if self.batch % size == 0),
            "network.hidden_sizes": f"{self.width},{self.width}",
            "evaluation.every": 0,
            "run.checkpoint_every": 0,
            "fault.startup_timeout": 600,
        }
        steps = (WARM_UP + self.iterations) * self.batch
        flags = ["--env", ENV_ID, "--num-envs", str(self.workers * self.num_envs), "--num-workers", str(self.workers)]
        flags += ["--num-steps", str(self.num_steps), "--total-timesteps", str(steps)]
        return [*flags, *(part for key, value in settings.items() for part in ("--set", f"{key}={value}"))]


def main() -> int:
    arguments = parse_arguments()
    records, failures = [], {}
    for cell in cells(arguments):
        try:
            record = measure(cell)
        except RunFailed as error:
            failures[f"{cell.workers} workers, width {cell.width}"] = str(error)
            print(f"{cell.workers} workers, width {cell.width}: {error}", file=sys.stderr, flush=True)
            continue
        records.append(record)
        print(progress_line(record), flush=True)
    report: dict[str, Any] = {
        "date": time.strftime("%Y-%m-%d %H:%M:%S"),
        "machine": machine_info(),
        "cells": records,
        "failures": failures,
    }
    report["model"] = modelled(records, arguments) if len(records) >= len(TERMS) else None
    path = arguments.out / f"{arguments.name}{'-quick' * arguments.quick}-{time.strftime('%Y-%m-%d')}.json"
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(report, indent=1) + "\n", encoding="utf-8")
    print(f"\n{markdown(report)}\n\nraw results: {path}")
    return 1 if failures else 0


def parse_arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    add = parser.add_argument
    add("--workers", type=numbers, default=[1, 2, 4, 8, 16, 32, 64], help="worker counts; the first is the base (default: 1,2,4 ... 64)")
    add("--widths", type=numbers, default=[256, 840, 2480], help="hidden widths beside 64: 256 is 0.6 MB (default: 256,840,2480)")
    add("--width-workers", type=numbers, default=[2, 8], help="worker counts for these widths (default: 2,8)")
    add("--envs-per-worker", type=int, default=4, help="environments of each worker (default: 4)")
    add("--latency", type=float, default=0.005, help="seconds a step takes (default: 0.005)")
    add("--sleep-every", type=int, default=10, help="steps that share one sleep (default: 10)")
    add("--num-steps", type=int, default=256, help="steps of each environment, a tenth of it where the width varies (default: 256)")
    add("--iterations", type=int, default=6, help="on the clock, after 3 of warm-up; 4 times as many where the width varies (default: 6)")
    add("--gigabits", type=float, default=10.0, help="assumed bandwidth of a node, Gbit/s each way (default: 10)")
    add("--round-trip", type=float, default=0.0002, help="assumed round trip of a message, seconds (default: 0.0002)")
    add("--workers-per-node", type=int, default=64, help="assumed (default: 64)")
    add("--quick", action="store_true", help="1 and 2 workers, short fragments, few iterations")
    add("--name", default="scaling", help="of the raw results' file (default: scaling)")
    add("--out", type=Path, default=ROOT / "benchmarks" / "results", help="where the raw results go (default: benchmarks/results)")
    arguments = parser.parse_args()
    if arguments.quick:
        arguments.workers, arguments.widths, arguments.width_workers = [1, 2], [256], [1, 2]
        arguments.num_steps, arguments.iterations = 40, 3
    return arguments


def numbers(text: str) -> list[int]:
    """Returns the whole numbers in a comma-separated list."""
    return [int(part) for part in text.split(",") if part]


def cells(arguments: argparse.Namespace) -> list[Cell]:
    """Returns what is measured, in order."""
    short = max(1, arguments.num_steps // 10)
    envs = arguments.envs_per_worker
    sizes = [(workers, envs, SMALL, arguments.num_steps) for workers in arguments.workers]
    cells = [Cell(*size, arguments.iterations, arguments.latency, arguments.sleep_every) for size in sizes]
    wide = [(workers, envs, width, short) for width in arguments.widths for workers in arguments.width_workers]
    return cells + [Cell(*size, 4 * arguments.iterations, arguments.latency, arguments.sleep_every) for size in wide]


def measure(cell: Cell) -> dict[str, Any]:
    """Trains once.

    Raises:
        RunFailed: it ended with an error, or before its last iteration.
    """
    load = os.getloadavg()[0]
    rows: list[dict[str, Any]] = []
    with WatchedRun(cell.flags(), {"PYTHONPATH": os.pathsep.join((str(ROOT), str(ROOT / "benchmarks")))}) as run:
        for line in run.lines():
            if line.event is not None:
                continue
            rows.append(line.values)
            if len(rows) == WARM_UP:
                cpu_before = cpu_seconds(run)
            if len(rows) == WARM_UP + cell.iterations:
                cpu_after = cpu_seconds(run)
    if len(rows) < WARM_UP + cell.iterations:
        raise RunFailed(f"it ended after {len(rows)} iterations")
    timed = [milliseconds(row, cell.batch) for row in rows[WARM_UP:]]
    return {
        **asdict(cell),
        "weight_bytes": cell.weight_bytes,
        "rollout_bytes": rows[-1]["dist/rollout_bytes"],
        "load_before": load,
        "median_ms": {name: statistics.median(row[name] for row in timed) for name in timed[0]},
        "cpu_ms": {role: 1e3 * (cpu_after[role] - cpu_before[role]) / cell.iterations for role in cpu_after},
        "iterations_ms": timed,
    }


def cpu_seconds(run: WatchedRun) -> Counter[str]:
    """Returns role -> processor seconds so far, all processes of that role together."""
    total: Counter[str] = Counter()
    for process in run.processes():
        total[process.role] += process.cpu_seconds  # type: ignore[assignment]
    return total


def milliseconds(row: dict[str, Any], batch: int) -> dict[str, float]:
    """Returns where the time of an iteration went."""
    iteration = batch / row["time/fps_iteration"]
    slowest, learner = row["dist/worker_seconds_max"], row["dist/learner_seconds"]
    parts = {
        "iteration": iteration,
        "slowest_worker": slowest,
        "mean_worker": row["dist/worker_seconds_mean"],
        "learner": learner,
        "orchestration": iteration - slowest - learner,
        "update_transport": row["time/update"] - learner,
    }
    return {name: 1e3 * seconds for name, seconds in parts.items()}


def modelled(records: list[dict[str, Any]], arguments: argparse.Namespace) -> dict[str, Any]:
    """Returns the fitted formula, how far every measurement is from it, and what it predicts."""
    samples = [Sample(record["workers"], record["weight_bytes"], record["median_ms"]["orchestration"]) for record in records]
    model = fit(samples)
    network = Network(arguments.gigabits * 1e9 / 8, arguments.round_trip, arguments.workers_per_node)
    base = records[0]
    fragment_bytes = base["rollout_bytes"] // base["workers"]
    return {
        "coefficients_ms": dict(zip(TERMS, model.coefficients, strict=True)),
        "residuals": [{**sample._asdict(), "fitted": model.on_one_node(sample.workers, sample.weight_bytes)} for sample in samples],
        "network_assumed": network._asdict(),
        "fragment_bytes": fragment_bytes,
        "predictions": [
            {"workers": workers, "weight_bytes": weight_bytes, **predicted(model, workers, weight_bytes, fragment_bytes, network)}
            for weight_bytes in sorted({record["weight_bytes"] for record in records})
            for workers in PREDICTED
        ],
    }


def predicted(model: Model, workers: int, weight_bytes: int, fragment_bytes: int, network: Network) -> dict[str, float]:
    """Returns milliseconds on one node and on a cluster."""
    return {
        "one_node_ms": model.on_one_node(workers, weight_bytes),
        "cluster_ms": model.on_cluster(workers, weight_bytes, fragment_bytes, network),
    }


def efficiencies(record: dict[str, Any], base: dict[str, Any]) -> dict[str, float]:
    """Returns env steps per second and worker against the base: of whole iterations, and of iterations without the learner's update."""
    ours, theirs = record["median_ms"], base["median_ms"]
    return {
        "whole": theirs["iteration"] / ours["iteration"],
        "without_learner": (theirs["iteration"] - theirs["learner"]) / (ours["iteration"] - ours["learner"]),
    }


def progress_line(record: dict[str, Any]) -> str:
    """Returns one measurement in a line."""
    ms = record["median_ms"]
    return (
        f"{record['workers']:4d} workers, weights {record['weight_bytes'] / 1e6:6.2f} MB: iteration {ms['iteration']:7.1f} ms = "
        f"slowest worker {ms['slowest_worker']:7.1f} + learner {ms['learner']:6.1f} + orchestration {ms['orchestration']:6.1f}"
    )


def markdown(report: dict[str, Any]) -> str:
    """Returns the tables: by workers, by weights, the formula, its predictions."""
    records = report["cells"]
    if not records:
        return "nothing was measured"
    base = records[0]
    by_workers = [record for record in records if record["width"] == SMALL]
    lines = [
        "| workers | iteration ms | slowest worker | learner | orchestration | driver CPU | efficiency | without the learner |",
        "|---|---|---|---|---|---|---|---|",
    ]
    for record in by_workers:
        ms, efficiency = record["median_ms"], efficiencies(record, base)
        lines.append(
            f"| {record['workers']} | {ms['iteration']:.1f} | {ms['slowest_worker']:.1f} | {ms['learner']:.1f} | {ms['orchestration']:.1f} "
            f"| {record['cpu_ms'].get('driver', 0):.1f} | {efficiency['whole']:.1%} | {efficiency['without_learner']:.1%} |"
        )
    lines += ["", "| weights | workers | orchestration ms |", "|---|---|---|"]
    lines += [
        f"| {record['weight_bytes'] / 1e6:.2f} MB | {record['workers']} | {record['median_ms']['orchestration']:.1f} |"
        for record in sorted(records, key=lambda record: (record["weight_bytes"], record["workers"]))
        if record["workers"] in {other["workers"] for other in records if other["width"] != SMALL}
    ]
    return "\n".join([*lines, *model_lines(report["model"])])


def model_lines(model: dict[str, Any] | None) -> list[str]:
    """Returns the formula with its errors, and the predictions as a table."""
    if model is None:
        return []
    fixed, per_worker, per_byte, per_both = model["coefficients_ms"].values()
    errors = [abs(row["fitted"] / row["milliseconds"] - 1) for row in model["residuals"]]
    lines = [
        "",
        f"orchestration ms = {fixed:.2f} + {per_worker:.3f} W + {1e6 * per_byte:.3f} MB + {1e6 * per_both:.4f} W MB;"
        f" relative errors: median {statistics.median(errors):.0%}, largest {max(errors):.0%}",
        "",
        "| weights | workers | one node, ms | cluster, ms |",
        "|---|---|---|---|",
    ]
    return lines + [
        f"| {row['weight_bytes'] / 1e6:.2f} MB | {row['workers']} | {row['one_node_ms']:.0f} | {row['cluster_ms']:.0f} |"
        for row in model["predictions"]
    ]


if __name__ == "__main__":
    sys.exit(main())
