"""Fuzzes what reads files: configurations, checkpoints, metrics and run folders, from valid ones changed a little.

    .venv/bin/python benchmarks/fuzz.py config --inputs 100000
    .venv/bin/python benchmarks/fuzz.py content --seed 7 --first 41234 --inputs 1      # one input again

Every input ends in a valid load or in an error for the user. An audit hook proves of each that no code ran, no connection was opened, and
no file was touched outside the folder that the input lies in; a timer and a limit of the address space, that nothing hangs and no memory
fills up. Input k depends on (loader, seed, k) alone. With --output the counts are added to a file, so that a long run can be done in
pieces; exit code 1 if any input failed.
"""

from __future__ import annotations

import argparse
import collections
import importlib
import json
import os
import random
import re
import resource
import shutil
import sys
import tempfile
import time
import traceback
from pathlib import Path
from typing import Any

from fuzzing.guard import Escaped, Guard, Hang
from fuzzing.loaders import LOADERS, Loader, is_refusal

from distppo.metrics import machine_info
from distppo.runtime.train import train

SEED_RUN = {
    "env.id": "Pendulum-v1",
    "rollout.num_envs": 2,
    "rollout.num_steps": 128,
    "rollout.num_workers": 0,
    "ppo.mini_batch_size": 64,
    "ppo.epochs": 1,
    "network.hidden_sizes": [8],
    "learner.step": "torch",
    "evaluation.every": 256,
    "evaluation.episodes": 1,
    "run.total_timesteps": 512,
}
"""A run of two iterations, whose files are what is changed."""
SECONDS = 10.0
MEBIBYTES = 768
MOST_SHOWN = 5


def fuzz(loader: Loader, guard: Guard, name: str, *, seed: int, first: int, inputs: int, seconds: float) -> dict[str, Any]:
    """Gives the loader inputs `first`, `first` + 1, ... until `inputs` are done or `seconds` are over; returns what happened."""
    counts: collections.Counter[str] = collections.Counter()
    messages: set[str] = set()
    failures: list[dict[str, Any]] = []
    slowest, slowest_input, began, done = 0.0, first, time.monotonic(), 0
    while done < inputs and time.monotonic() - began < seconds:
        index = first + done
        loader.prepare(random.Random(f"{name} {seed} {index}"))
        before = time.perf_counter()
        outcome, message = attempt(loader, guard)
        elapsed = time.perf_counter() - before
        if elapsed > slowest:
            slowest, slowest_input = elapsed, index
        counts[outcome] += 1
        if outcome == "refused":
            messages.add(re.sub(r"\d+|'[^']*'|\"[^\"]*\"", "#", message.replace(str(loader.root), ""))[:100])
        elif outcome == "failed":
            failures.append({"input": index, "error": message})
        done += 1
    return {
        "first": first,
        "inputs": done,
        "loaded": counts["loaded"],
        "refused": counts["refused"],
        "kinds_of_refusal": len(messages),
        "failures": failures,
        "seconds": round(time.monotonic() - began, 1),
        "slowest_seconds": round(slowest, 3),
        "slowest_input": slowest_input,
        "peak_mebibytes": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024,
    }


def attempt(loader: Loader, guard: Guard) -> tuple[str, str]:
    """Loads the input that was prepared; returns loaded, refused or failed, and the message or traceback."""
    try:
        with guard.armed(may_write=loader.may_write):
            loader.load()
    except (Exception, Escaped, Hang) as error:
        if is_refusal(error):
            return "refused", str(error)
        return "failed", traceback.format_exc(limit=-8)
    return "loaded", ""


def add_piece(path: Path, name: str, seed: int, piece: dict[str, Any]) -> dict[str, Any]:
    """Adds a piece to the file of a loader and seed; returns what is in it then."""
    record: dict[str, Any] = {"loader": name, "seed": seed, "machine": machine_info(), "pieces": []}
    if path.exists():
        found = json.loads(path.read_text())
        if (found["loader"], found["seed"]) == (name, seed):
            record = found
    record["pieces"].append(piece)
    record["inputs"] = sum(each["inputs"] for each in record["pieces"])
    record["failed"] = sum(len(each["failures"]) for each in record["pieces"])
    path.write_text(json.dumps(record, indent=1) + "\n")
    return record


def main() -> int:
    """Runs the command; returns its exit code."""
    arguments = _parser().parse_args()
    base = Path(tempfile.mkdtemp(prefix="distppo-fuzz-", dir="/dev/shm" if os.access("/dev/shm", os.W_OK) else None))
    try:
        run = Path(arguments.run) if arguments.run else base / "run"
        if not arguments.run:
            train(overrides=SEED_RUN | {"run.directory": str(run)}, progress=False)
        work = base / "work"
        work.mkdir()
        loader = LOADERS[arguments.loader](run, work)
        warm_up(loader)
        guard = Guard(work, seconds=SECONDS, mebibytes=MEBIBYTES)
        piece = fuzz(
            loader,
            guard,
            arguments.loader,
            seed=arguments.seed,
            first=arguments.first,
            inputs=arguments.inputs,
            seconds=arguments.seconds,
        )
    finally:
        os.chdir("/")
        shutil.rmtree(base, ignore_errors=True)
    for failure in piece["failures"][:MOST_SHOWN]:
        print(f"input {failure['input']}:\n{failure['error']}", file=sys.stderr)
    shown = {key: value for key, value in piece.items() if key != "failures"} | {"failed": len(piece["failures"])}
    print(json.dumps(shown))
    if arguments.output:
        record = add_piece(arguments.output, arguments.loader, arguments.seed, piece)
        print(f"{arguments.output}: {record['inputs']:,} inputs, {record['failed']} failed")
    return 1 if piece["failures"] else 0


def warm_up(loader: Loader) -> None:
    """Loads a few hundred inputs unguarded, so that every module that a loader imports when it first needs it is there."""
    importlib.import_module("distppo.models.custom")  # for network classes of the package's own, which few inputs name
    for index in range(300):
        loader.prepare(random.Random(f"warm-up {index}"))
        try:
            loader.load()
        except Exception as error:
            if not is_refusal(error):
                continue  # found again, with its number, when it counts


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("loader", choices=LOADERS)
    parser.add_argument("--inputs", type=int, default=1000, help="how many (default: 1000)")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--first", type=int, default=0, help="number of the first input (default: 0)")
    parser.add_argument("--seconds", type=float, default=float("inf"), help="stop after this long")
    parser.add_argument("--run", metavar="DIR", help="finished run to take the valid files from (default: a small one is trained)")
    parser.add_argument("--output", type=lambda text: Path(text).resolve(), metavar="JSON", help="file to add the counts to")
    return parser


if __name__ == "__main__":
    sys.exit(main())
