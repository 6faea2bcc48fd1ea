"""How long a round of empty Ray calls takes: what no orchestration of as many actors, one call each, can stay below.

    .venv/bin/python benchmarks/empty_calls.py                     1, 8 and 64 actors on this machine, a minute
    .venv/bin/python benchmarks/empty_calls.py --actors 16,256

A Ray as distppo starts it, actors whose only method returns None, a pause between two rounds as between two iterations. Writes
results/empty-calls-<date>.json and prints the table.
"""

from __future__ import annotations

import argparse
import json
import logging
import statistics
import sys
import time
from pathlib import Path
from typing import Any

import ray

from distppo.metrics import machine_info

ROOT = Path(__file__).resolve().parent.parent
PAUSE_SECONDS = 0.2


class Idle:
    """An actor with nothing to do."""

    def nothing(self) -> None:
        """Returns."""


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--actors", default="1,8,64", help="numbers of actors (default: 1,8,64)")
    parser.add_argument("--rounds", type=int, default=40, help="of each (default: 40)")
    parser.add_argument("--out", type=Path, default=ROOT / "benchmarks" / "results", help="where the raw results go")
    arguments = parser.parse_args()
    numbers = [int(part) for part in arguments.actors.split(",") if part]
    ray.init(
        address="local",
        num_cpus=max(numbers),
        include_dashboard=False,
        log_to_driver=False,
        logging_level=logging.ERROR,
        _system_config={"task_events_report_interval_ms": 0},
    )
    rounds = {number: seconds_of_rounds(number, arguments.rounds) for number in numbers}
    ray.shutdown()
    report = {"date": time.strftime("%Y-%m-%d %H:%M:%S"), "machine": machine_info(), "seconds": rounds}
    path = arguments.out / f"empty-calls-{time.strftime('%Y-%m-%d')}.json"
    path.write_text(json.dumps(report, indent=1) + "\n", encoding="utf-8")
    print(markdown(rounds) + f"\n\nraw results: {path}")
    return 0


def seconds_of_rounds(number: int, rounds: int) -> list[float]:
    """Returns how long each round of one call an actor took."""
    actor: Any = ray.remote(Idle).options(num_cpus=1)
    actors = [actor.remote() for _ in range(number)]
    ray.get([each.nothing.remote() for each in actors])
    times = []
    for _ in range(rounds):
        time.sleep(PAUSE_SECONDS)
        begun = time.perf_counter()
        ray.get([each.nothing.remote() for each in actors])
        times.append(time.perf_counter() - begun)
    for each in actors:
        ray.kill(each)
    return times


def markdown(rounds: dict[int, list[float]]) -> str:
    """Returns the table."""
    lines = ["| actors | ms a round, median | quartiles |", "|---|---|---|"]
    for number, seconds in rounds.items():
        low, middle, high = (1e3 * cut for cut in statistics.quantiles(seconds, n=4))
        lines.append(f"| {number} | {middle:.1f} | {low:.1f} to {high:.1f} |")
    return "\n".join(lines)


if __name__ == "__main__":
    sys.exit(main())
