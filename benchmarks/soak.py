"""Whether memory grows over a thousand iterations, and whether anything is left when a run has ended.

    .venv/bin/python benchmarks/soak.py                       1,000 small iterations on two workers: three minutes
    .venv/bin/python benchmarks/soak.py --iterations 100      a quick look

The memory of every process is looked at once an iteration, or less often where looking takes longer than training: of driver, learner and
workers what is resident and theirs alone, of the raylet, which holds the object store, all that is resident. After a warm-up the median of
the last tenth is compared with that of the first. Only what is seen while training goes on counts: once learner and workers have ended, the
libraries that the driver shared with them are its alone.
The exit code is 1 if one of these grew by more than 5 percent, or if a process is left. Writes results/soak.json and prints the table.
"""

from __future__ import annotations

import argparse
import json
import statistics
import sys
import time
from collections import defaultdict
from contextlib import suppress
from pathlib import Path
from typing import Any

from watched_run import ROOT, WatchedRun

from distppo.metrics import machine_info

SMALL = [
    "--num-envs",
    "4",
    "--num-workers",
    "2",
    "--set",
    "rollout.num_steps=64",
    "--set",
    "ppo.mini_batch_size=64",
    "--set",
    "ppo.epochs=2",
]
QUIET = ["--set", "evaluation.every=0", "--set", "run.checkpoint_every=25600"]
BATCH = 256
TOLERANCE = 0.05
COUNTED = {"driver": "uss", "learner": "uss", "worker": "uss", "raylet": "rss"}
"""Whose memory must stay flat, and which; the others are reported beside them."""
SLACK_MIB = 2.0
"""Growth that is noise on a small process."""


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--iterations", type=int, default=1000, help="of 256 env steps each")
    parser.add_argument("--env", default="HalfCheetah-v4", help="Gymnasium id")
    parser.add_argument("--warm-up", type=float, default=0.2, help="share of the iterations that is not counted")
    parser.add_argument("--out", type=Path, default=ROOT / "benchmarks/results", help="folder of the results")
    arguments = parser.parse_args()
    samples, left = watch(arguments.env, arguments.iterations)
    table = {name: growth(series, arguments.warm_up) for name, series in sorted(samples.items())}
    report = {"iterations": arguments.iterations, "memory": table, "left": left, "machine": machine_info()}
    arguments.out.mkdir(parents=True, exist_ok=True)
    (arguments.out / "soak.json").write_text(json.dumps(report, indent=1) + "\n", encoding="utf-8")
    print(markdown(table) + f"\n\nleft after the end: {', '.join(left) or 'nothing'}")
    return 0 if not left and all(row["flat"] for name, row in table.items() if name.startswith(tuple(COUNTED))) else 1


def watch(env: str, iterations: int) -> tuple[dict[str, list[float]], list[str]]:
    """Trains; returns resident memory in MiB by process, a value an iteration that was seen, and what is left afterwards."""
    samples: dict[str, list[float]] = defaultdict(list)
    flags = ["--env", env, *SMALL, *QUIET, "--total-timesteps", str(iterations * BATCH)]
    with WatchedRun(flags) as run:
        for line in run.lines():
            if line.event is None and line.newest and line.values["time/iterations"] < iterations:
                for name, memory in memories(run).items():
                    samples[name].append(memory)
        left = run.left()
    return samples, left


def memories(run: WatchedRun) -> dict[str, float]:
    """Returns MiB of each process by its role, numbered where there are several."""
    found: dict[str, float] = {}
    for process in run.processes():
        name = next(name for name in (process.role, *(f"{process.role} {k}" for k in range(2, 100))) if name not in found)
        with suppress(FileNotFoundError, ProcessLookupError, KeyError):  # it has just ended
            found[name] = process.memory[COUNTED.get(process.role, "rss")]
    return found


def growth(series: list[float], warm_up: float) -> dict[str, Any]:
    """Compares the last tenth of what was measured after the warm-up with the first."""
    counted = series[int(len(series) * warm_up) :]
    tenth = max(1, len(counted) // 10)
    first, last = statistics.median(counted[:tenth]), statistics.median(counted[-tenth:])
    grown = last / first - 1 if first else 0.0
    return {"first_mib": first, "last_mib": last, "growth": grown, "flat": grown <= TOLERANCE or last - first <= SLACK_MIB}


def markdown(table: dict[str, dict[str, Any]]) -> str:
    """The table of all processes."""
    lines = ["| process | MiB after the warm-up | MiB at the end | growth |", "|---|---|---|---|"]
    lines += [f"| {name} | {row['first_mib']:.1f} | {row['last_mib']:.1f} | {row['growth']:+.1%} |" for name, row in table.items()]
    return "\n".join(lines)


if __name__ == "__main__":
    began = time.perf_counter()
    code = main()
    print(f"took {time.perf_counter() - began:.0f} s")
    sys.exit(code)
