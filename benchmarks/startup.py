"""How long a run takes to its first learned iteration, phase by phase, and how large its processes are.

    .venv/bin/python benchmarks/startup.py                       2 cold and 5 warm starts of HalfCheetah-v4; about two minutes
    .venv/bin/python benchmarks/startup.py --env Humanoid-v4     another environment
    .venv/bin/python benchmarks/startup.py --quick               one warm start

Every start is `launch.py train` with default settings, on the clock from the command to the first row of metrics.jsonl. Cold means that
the compiled kernels are not on disk yet; the files of Python and its packages stay in the kernel's page cache, which a program without
privileges cannot empty. The last warm run goes on for a few iterations, after which the memory of its processes is read from /proc. Run
it on an idle machine.
"""

from __future__ import annotations

import argparse
import itertools
import json
import os
import statistics
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from watched_run import ROOT, Line, Process, RunFailed, WatchedRun

from distppo.metrics import machine_info

PHASES = {
    "program": "distppo, gymnasium and mujoco imported, settings read, environment probed",
    "ray_import": "Ray imported, until its first process starts",
    "ray_start": "Ray's own processes, until the first process for an actor starts",
    "actors": "processes import, environments are made, the kernel is compiled or loaded",
    "first_collect": "first fragments",
    "first_update": "first update",
    "rest": "everything between: references, metrics, files",
}
"""In order; they add up to the whole."""
ACTORS = ("worker", "learner")
NEVER = 10**9
"""Env steps no run here reaches; each is stopped when it has shown what is asked of it."""


def main() -> int:
    arguments = parse_arguments()
    runs: list[dict[str, Any]] = []
    try:
        start("warm-up, not counted", arguments, iterations=1)
        runs += [start("cold", arguments, iterations=1) for _ in range(arguments.cold)]
        runs += [start("warm", arguments, iterations=1) for _ in range(arguments.warm - 1)]
        runs += [start("warm", arguments, iterations=arguments.iterations)]
    except RunFailed as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    report = {
        "env": arguments.env,
        "date": time.strftime("%Y-%m-%d %H:%M:%S"),
        "machine": machine_info(),
        "phases": PHASES,
        "runs": runs,
        "memory_after_iterations": arguments.iterations,
    }
    path = arguments.out / f"startup-{arguments.env}{'-quick' * arguments.quick}-{time.strftime('%Y-%m-%d')}.json"
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(report, indent=1) + "\n", encoding="utf-8")
    print(f"\n{markdown(report)}\n\nraw results: {path}")
    return 0


def parse_arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    add = parser.add_argument
    add("--env", default="HalfCheetah-v4", help="gymnasium id (default: HalfCheetah-v4)")
    add("--cold", type=int, default=2, help="starts with nothing compiled (default: 2)")
    add("--warm", type=int, default=5, help="starts with everything compiled, at least one (default: 5)")
    add("--iterations", type=int, default=10, help="after which memory is read (default: 10)")
    add("--quick", action="store_true", help="one warm start and 2 iterations")
    add("--out", type=Path, default=ROOT / "benchmarks" / "results", help="where the raw results go (default: benchmarks/results)")
    arguments = parser.parse_args()
    if arguments.warm < 1 or arguments.cold < 0 or arguments.iterations < 1:
        parser.error("--warm and --iterations want 1 or more, --cold 0 or more")
    if arguments.quick:
        arguments.cold, arguments.warm, arguments.iterations = 0, 1, 2
    return arguments


def start(kind: str, arguments: argparse.Namespace, *, iterations: int) -> dict[str, Any]:
    """Starts once and returns when everything happened; with more than one iteration also the memory after the last.

    Raises:
        RunFailed: it ended before.
    """
    load = os.getloadavg()[0]
    flags = ["--env", arguments.env, "--total-timesteps", str(NEVER), "--set", "evaluation.every=0", "run.checkpoint_every=0"]
    with tempfile.TemporaryDirectory() as empty:
        environment = {"NUMBA_CACHE_DIR": empty} if kind == "cold" else {}
        with WatchedRun(flags, environment) as run:
            record: dict[str, Any] = {"kind": kind, "load_before": load}
            rows = 0
            for line in run.lines():
                if line.event == "ready":
                    ready, processes, configured = line, run.processes(), run.seconds_to("config.yaml")
                rows += line.event is None
                if rows == 1:
                    record |= {"seconds": line.seconds, "phases": phases(configured, processes, ready, line)}
                if rows == iterations:
                    break
            if rows < iterations:
                raise RunFailed(f"it ended after {rows} iterations")
            if iterations > 1:
                record["memory_mib"] = [{"role": process.role, **process.memory} for process in run.processes()]
    print(f"{kind}: {record['seconds']:.2f} s", flush=True)
    return record


def phases(configured: float, processes: list[Process], ready: Line, row: Line) -> dict[str, float]:
    """Returns the seconds of each of PHASES.

    Args:
        configured: seconds from the command until config.yaml was written.
        processes: of the run, when its actors were ready.
        ready: the event of that.
        row: of the first iteration.
    """
    head = min(process.started for process in processes if process.role == "gcs")
    first_actor = min(process.started for process in processes if process.role in ACTORS)
    collect, update = row.values["time/collect"], row.values["time/update"]
    marks = [0.0, configured, head, first_actor, ready.seconds]
    before = [after - earlier for earlier, after in itertools.pairwise(marks)]
    return dict(zip(PHASES, [*before, collect, update, row.seconds - ready.seconds - collect - update], strict=True))


def markdown(report: dict[str, Any]) -> str:
    """Returns the tables of times (medians) and of memory (the largest process of each role)."""
    kinds = [kind for kind in ("cold", "warm") if any(run["kind"] == kind for run in report["runs"])]
    by_kind = {kind: [run for run in report["runs"] if run["kind"] == kind] for kind in kinds}
    head = f"{report['env']}, {report['date']}; seconds, medians"
    lines = [head, "", f"| phase | {' | '.join(kinds)} |", "|---" * (1 + len(kinds)) + "|"]
    for phase, meaning in report["phases"].items():
        values = [statistics.median(run["phases"][phase] for run in by_kind[kind]) for kind in kinds]
        lines.append(f"| {meaning} | {' | '.join(f'{value:.2f}' for value in values)} |")
    totals = [[run["seconds"] for run in by_kind[kind]] for kind in kinds]
    spans = [f"{statistics.median(total):.2f} ({min(total):.2f} - {max(total):.2f})" for total in totals]
    lines.append(f"| command to first learned iteration, median (min - max) | {' | '.join(spans)} |")
    memory = report["runs"][-1].get("memory_mib", [])
    if memory:
        lines += ["", f"| process, after {report['memory_after_iterations']} iterations | count | RSS, MiB | PSS | USS |", "|---" * 5 + "|"]
    for role in dict.fromkeys(process["role"] for process in memory):
        same = [process for process in memory if process["role"] == role]
        largest = (max(process[kind] for process in same) for kind in ("rss", "pss", "uss"))
        lines.append(f"| {role} | {len(same)} | {' | '.join(f'{value:.0f}' for value in largest)} |")
    return "\n".join(lines)


if __name__ == "__main__":
    sys.exit(main())
