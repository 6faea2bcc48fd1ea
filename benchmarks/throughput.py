"""Training throughput of distppo and its peers on this machine: env steps per second, collection and updates together.

    .venv/bin/python benchmarks/throughput.py                                   HalfCheetah-v4, minibatch 64
    .venv/bin/python benchmarks/throughput.py --env Humanoid-v4 --recipe large  minibatch 2048
    .venv/bin/python benchmarks/throughput.py --peers sb3 --rounds 1            distppo and one peer, once

Every contestant does the same work: the same environment, batch, minibatches, epochs and network sizes. They run in turn, several
rounds; of each the first two iterations are left out; a peer's fastest variant of the first round goes on. Each peer is installed
into a virtual environment of its own under --cache. Run it on an idle machine.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import sys
import time
from pathlib import Path
from typing import Any

from contestants import PEERS, RECIPES, ROOT, Contestant, RunFailed, Task, distppo, extra, peer

from distppo.metrics import machine_info

Results = dict[str, list[dict[str, Any]]]
"""Name of a contestant to the record of every run, of all variants."""


def main() -> int:
    arguments = parse_arguments()
    task = Task(arguments.env, RECIPES[arguments.recipe], arguments.steps)
    contestants, failures = gather(arguments)
    results = play(contestants, task, arguments.rounds, failures)
    report = {
        "env": task.env,
        "recipe": arguments.recipe,
        "sizes": vars(task.recipe),
        "steps": task.steps,
        "date": time.strftime("%Y-%m-%d %H:%M:%S"),
        "machine": machine_info(),
        "runs": results,
        "failures": failures,
    }
    path = arguments.out / f"throughput-{task.env}-{arguments.recipe}-{time.strftime('%Y-%m-%d')}.json"
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(report, indent=1, default=str) + "\n", encoding="utf-8")
    print(f"\n{markdown(report)}\n\nraw results: {path}")
    return 1 if failures else 0


def parse_arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    add = parser.add_argument
    add("--env", default="HalfCheetah-v4", help="gymnasium id (default: HalfCheetah-v4)")
    add(
        "--recipe",
        default="small",
        choices=sorted(RECIPES),
        help="small (8 x 2,048, minibatch 64), many (64 x 32) or large (minibatch 2048) (default: small)",
    )
    add("--peers", default=",".join(PEERS), help=f"comma-separated, of {', '.join(PEERS)}; empty: none (default: all)")
    add("--extra", action="append", default=[], metavar="NAME=COMMAND", help="one more; placeholders as in contestants.extra")
    add("--rounds", type=int, default=3, help="times that everybody runs (default: 3)")
    add("--steps", type=int, default=98_304, help="env steps on the clock, rounded up to iterations (default: 98304)")
    add("--cache", type=Path, default=ROOT / ".bench", help="where peers are installed and logs are kept (default: .bench)")
    add("--out", type=Path, default=ROOT / "benchmarks" / "results", help="where the raw results go (default: benchmarks/results)")
    arguments = parser.parse_args()
    arguments.peers = [key for key in arguments.peers.split(",") if key]
    unknown = set(arguments.peers) - set(PEERS)
    if unknown:
        parser.error(f"unknown peers {sorted(unknown)}; there are {', '.join(PEERS)}")
    if any("=" not in entry for entry in arguments.extra):
        parser.error("--extra wants NAME=COMMAND")
    return arguments


def gather(arguments: argparse.Namespace) -> tuple[list[Contestant], dict[str, str]]:
    """Returns who can take part, and why the others cannot."""
    contestants, failures = [distppo("sync"), distppo("overlap")], {}
    for key in arguments.peers:
        try:
            contestants.append(peer(key, arguments.cache))
        except RunFailed as error:
            failures[PEERS[key].title] = str(error)
    contestants += [extra(*entry.split("=", 1), arguments.cache) for entry in arguments.extra]
    return contestants, failures


def play(contestants: list[Contestant], task: Task, rounds: int, failures: dict[str, str]) -> Results:
    """Runs everybody in turn; whoever fails is out, with the reason in `failures`."""
    results: Results = {contestant.name: [] for contestant in contestants}
    for number in range(rounds):
        for contestant in contestants:
            first = fastest(results[contestant.name])
            variants = list(contestant.variants) if number == 0 else [record["variant"] for record in first[:1]]
            for variant in variants:
                label = f"{contestant.name}, {variant}" if variant else contestant.name
                try:
                    record = contestant.variants[variant](task)
                except RunFailed as error:
                    failures[label] = str(error)
                    print(f"round {number + 1}  {label}: {error}", file=sys.stderr, flush=True)
                    continue
                results[contestant.name].append({"round": number, "variant": variant, "load": os.getloadavg()[0], **record})
                print(f"round {number + 1}  {label}: {record['env_steps_per_second']:,.0f} env steps/s", flush=True)
    return results


def fastest(records: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Returns the first round's records, fastest first."""
    return sorted((record for record in records if record["round"] == 0), key=lambda record: -record["env_steps_per_second"])


def rates(records: list[dict[str, Any]]) -> dict[int, float]:
    """Returns round -> env steps per second of the variant that went on."""
    chosen = fastest(records)[0]["variant"] if fastest(records) else None
    return {record["round"]: record["env_steps_per_second"] for record in records if record["variant"] == chosen}


def markdown(report: dict[str, Any]) -> str:
    """Returns the table: medians over the rounds, and the advantage of both of distppo's modes from round to round."""
    ours = [rates(report["runs"][f"distppo {mode}"]) for mode in ("sync", "overlap")]
    lines = [
        f"{report['env']}, recipe {report['recipe']}, {report['date']}; medians (min - max)",
        "",
        "| | variant | env steps/s | distppo sync / this | distppo overlap / this |",
        "|---|---|---|---|---|",
    ]
    for name, records in report["runs"].items():
        theirs = rates(records)
        if not theirs:
            continue
        ratios = [[mode[number] / rate for number, rate in theirs.items() if number in mode] for mode in ours]
        cells = [spread(list(theirs.values()), 0), *(spread(values, 1) for values in ratios)]
        lines.append(f"| {name} | {fastest(records)[0]['variant'] or '-'} | {' | '.join(cells)} |")
    lines += [f"\nnot run: {name}: {reason}" for name, reason in report["failures"].items()]
    return "\n".join(lines)


def spread(values: list[float], digits: int) -> str:
    """Returns median (min - max)."""
    if not values:
        return "-"
    median, least, most = (f"{value:,.{digits}f}" for value in (statistics.median(values), min(values), max(values)))
    return f"{median} ({least} - {most})"


if __name__ == "__main__":
    sys.exit(main())
