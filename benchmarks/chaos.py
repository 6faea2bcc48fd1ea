"""Kills processes of a real training, again and again, and holds the result against an undisturbed one.

    .venv/bin/python benchmarks/chaos.py                              a random worker every 3 s for 3 minutes of HalfCheetah-v4
    .venv/bin/python benchmarks/chaos.py --what all                   workers and the learner
    .venv/bin/python benchmarks/chaos.py --what driver --times 10     ten drivers, each at a random moment, followed by --resume latest
    .venv/bin/python benchmarks/chaos.py --minutes 0.5 --every 5      a quick look

Besides the disturbed run there is an undisturbed one with the same settings and as many env steps. Env steps, the count of the observation
moments and every parameter must be equal, bit for bit; speed and return are reported. The exit code is 1 if they are not equal. Writes
results/chaos-<what>.json and prints the table.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import os
import random
import shutil
import signal
import subprocess
import sys
import tempfile
import threading
import time
from pathlib import Path
from typing import Any

from watched_run import ROOT, WatchedRun

from distppo.checkpoint import list_checkpoints, load_checkpoint
from distppo.metrics import machine_info, read_metrics

TARGETS = {"workers": ("worker",), "all": ("worker", "learner"), "driver": ("driver",)}
FOREVER = 10**9
QUIET = ["--set", "evaluation.every=0"]
LAUNCH = [sys.executable, str(ROOT / "launch.py"), "train", "--no-progress"]


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--what", choices=TARGETS, default="workers", help="which processes are killed")
    parser.add_argument("--every", type=float, default=3.0, help="seconds between two kills (workers, all)")
    parser.add_argument("--minutes", type=float, default=3.0, help="of killing (workers, all)")
    parser.add_argument("--times", type=int, default=10, help="runs whose driver is killed (driver)")
    parser.add_argument("--total-timesteps", type=int, default=163_840, help="env steps of each of them (driver)")
    parser.add_argument("--seed", type=int, default=0, help="of the kills")
    parser.add_argument("--env", default="HalfCheetah-v4", help="Gymnasium id")
    parser.add_argument("--flags", default="--num-workers 2", help="more flags of launch.py train")
    parser.add_argument("--out", type=Path, default=ROOT / "benchmarks/results", help="folder of the results")
    arguments = parser.parse_args()
    flags = ["--env", arguments.env, *QUIET, *arguments.flags.split()]
    chance = random.Random(arguments.seed)
    with tempfile.TemporaryDirectory(prefix="distppo-chaos-") as folder:
        if arguments.what == "driver":
            outcome = kill_drivers(flags, Path(folder), arguments.total_timesteps, arguments.times, chance)
            reference = outcome.pop("reference")
        else:
            disturbed, undisturbed = Path(folder) / "disturbed", Path(folder) / "undisturbed"
            outcome = kill_actors(flags, disturbed, TARGETS[arguments.what], arguments.every, 60 * arguments.minutes, chance)
            train(flags, undisturbed, outcome["results"][0]["env_steps"])
            reference = result_of(undisturbed)
    equal = all(result[key] == reference[key] for result in outcome["results"] for key in ("env_steps", "obs_count", "parameters"))
    report = {
        "what": arguments.what,
        "settings": {name: value for name, value in vars(arguments).items() if name != "out"},
        "equal": equal,
        **outcome,
    }
    arguments.out.mkdir(parents=True, exist_ok=True)
    text = json.dumps(report | {"undisturbed": reference, "machine": machine_info()}, indent=1)
    (arguments.out / f"chaos-{arguments.what}.json").write_text(text + "\n", encoding="utf-8")
    print(markdown(outcome, reference, equal))
    return 0 if equal else 1


def kill_actors(
    flags: list[str], directory: Path, roles: tuple[str, ...], every: float, seconds: float, chance: random.Random
) -> dict[str, Any]:
    """Trains for so long with a kill every so often, then lets the run end; returns what became of it."""
    kills: list[dict[str, Any]] = []
    with WatchedRun([*flags, "--total-timesteps", str(FOREVER)], directory=directory) as run:
        stop = threading.Event()
        killer = threading.Thread(target=lambda: _kill_around(run, roles, every, kills, chance, stop), daemon=True)
        began = None
        for line in run.lines():
            if line.event is None and began is None:
                began = line.seconds
                killer.start()
            if began is not None and line.seconds - began > seconds and not stop.is_set():
                stop.set()
                killer.join()
                run.interrupt()
    return {"kills": kills, "results": [result_of(directory)]}


def _kill_around(
    run: WatchedRun, roles: tuple[str, ...], every: float, kills: list[dict[str, Any]], chance: random.Random, stop: threading.Event
) -> None:
    while not stop.wait(every):
        targets = [process for process in run.processes() if process.role in roles]
        if targets:
            target = chance.choice(targets)
            try:
                os.kill(target.pid, signal.SIGKILL)
            except ProcessLookupError:
                continue
            kills.append({"role": target.role, "pid": target.pid})


def kill_drivers(flags: list[str], folder: Path, steps: int, times: int, chance: random.Random) -> dict[str, Any]:
    """Kills the drivers of so many runs, each at a random moment of it, and has `--resume latest` end what they had begun."""
    flags = [*flags, "--set", "run.checkpoint_every=1", "--total-timesteps", str(steps)]
    undisturbed = folder / "undisturbed"
    undisturbed.mkdir()
    began = time.monotonic()
    subprocess.run([*LAUNCH, *flags], cwd=undisturbed, check=True, stdout=subprocess.DEVNULL)
    whole = time.monotonic() - began
    kills, results = [], []
    while len(kills) < times:
        place, moment = folder / f"run{len(kills)}", chance.uniform(0.0, whole)
        place.mkdir(exist_ok=True)
        if not killed_at([*LAUNCH, *flags], place, moment):
            shutil.rmtree(place)  # it had ended by then
            continue
        begun = list(place.glob("runs/*/config.yaml"))
        saved = [info.iteration for config in begun for info in list_checkpoints(config.parent)]
        resumed = time.monotonic()
        subprocess.run([*LAUNCH, *(["--resume", "latest"] if begun else flags)], cwd=place, check=True, stdout=subprocess.DEVNULL)
        kills.append(
            {"role": "driver", "after_seconds": moment, "saved": max(saved, default=0), "seconds_to_the_end": time.monotonic() - resumed}
        )
        results.append(result_of(only_run(place)))
        print(
            f"kill {len(kills)}: after {moment:.1f} s, {kills[-1]['saved']} iterations saved; {results[-1]['parameters'][:16]}", flush=True
        )
    return {"kills": kills, "results": results, "reference": result_of(only_run(undisturbed))}


def killed_at(command: list[str], place: Path, moment: float) -> bool:
    """Starts a command and kills it after so many seconds; returns False if it had ended before."""
    process = subprocess.Popen(command, cwd=place, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, start_new_session=True)
    try:
        process.wait(moment)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()
        return True
    return False


def only_run(place: Path) -> Path:
    """Returns the one run under this folder."""
    (directory,) = place.glob("runs/*")
    return directory


def train(flags: list[str], directory: Path, steps: int) -> None:
    """Runs launch.py train to its end."""
    command = [*LAUNCH, *flags, "--total-timesteps", str(steps), "--run-dir", str(directory)]
    subprocess.run(command, cwd=ROOT, check=True, stdout=subprocess.DEVNULL)


def result_of(directory: Path) -> dict[str, Any]:
    """Returns what a run came to: its counts, a hash over all of the learner's arrays, its speed, return and faults."""
    checkpoint = load_checkpoint(list_checkpoints(directory)[-1].path)
    arrays = checkpoint.arrays["learner"]
    digest = hashlib.sha256()
    for name in sorted(arrays):
        digest.update(name.encode() + arrays[name].tobytes())
    rows = read_metrics(directory / "metrics.jsonl")
    summary = json.loads((directory / "summary.json").read_text(encoding="utf-8"))
    return {
        "env_steps": checkpoint.env_steps,
        "obs_count": float(arrays["obs_moments/count"]),
        "parameters": digest.hexdigest(),
        "episode_return": rows[-1].get("rollout/ep_rew_mean"),
        "env_steps_per_second": summary["env_steps_per_second"],
        "faults": summary["faults"],
    }


def markdown(outcome: dict[str, Any], reference: dict[str, Any], equal: bool) -> str:
    """The table of both runs."""
    names = {"env_steps": ",d", "obs_count": ",.0f", "env_steps_per_second": ",.0f", "episode_return": ".1f"}
    results = outcome["results"]
    lines = [f"{len(outcome['kills'])} kills", "", f"| |{' disturbed |' * len(results)} undisturbed |", "|---" * (len(results) + 2) + "|"]
    for name, form in names.items():
        lines.append(f"| {name} | " + " | ".join(_cell(result[name], form) for result in [*results, reference]) + " |")
    lines.append("| parameters, SHA-256 | " + " | ".join(result["parameters"][:16] for result in [*results, reference]) + " |")
    return "\n".join([*lines, "", f"all {len(results)} equal, bit for bit" if equal else "NOT EQUAL"])


def _cell(value: float | None, form: str) -> str:
    return "-" if value is None else format(value, form)


if __name__ == "__main__":
    sys.exit(main())
