"""Several learners against one: the same learning curves, and what a gradient step takes.

    .venv/bin/python benchmarks/learners.py                          both parts
    .venv/bin/python benchmarks/learners.py --only speed --rounds 5
    .venv/bin/python benchmarks/learners.py --only curves --seeds 0 1 2 3 4

Curves: InvertedPendulum-v4 through `launch.py train`, one and two learners with the same seeds. Speed: an epoch of gradient steps on random
samples in processes of their own, with a thread each, one after the other in every round. Writes results/learners-<part>.json.
"""

from __future__ import annotations

import argparse
import json
import multiprocessing
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from itertools import combinations
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

import numpy as np

from distppo.config import load_config
from distppo.metrics import machine_info, read_metrics
from distppo.types import EnvSpec

ROOT = Path(__file__).resolve().parent.parent
SETTINGS = {
    "env.id": "InvertedPendulum-v4",
    "rollout.num_envs": 8,
    "rollout.num_steps": 256,
    "rollout.num_workers": 1,
    "ppo.mini_batch_size": 256,
    "ppo.epochs": 5,
    "ppo.learning_rate": 1e-3,
    "learner.step": "torch",
    "run.total_timesteps": 24_576,
    "run.checkpoint_every": 0,
    "evaluation.every": 0,
}
JOBS = {
    "two 2x64 tanh networks": (17, 6, {"hidden_sizes": [64, 64]}, 64),
    "two 256-128-64 elu networks": (348, 17, {"hidden_sizes": [256, 128, 64], "activation": "elu"}, 2048),
    "two 2x1024 elu networks": (348, 17, {"hidden_sizes": [1024, 1024], "activation": "elu"}, 2048),
}
"""Observation size, action size, network, minibatch."""
LAYOUTS = (("fused", 1), ("torch", 1), ("torch", 2))
STEPS = 16
"""Gradient steps of an epoch."""


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", choices=("curves", "speed"), help="one part alone")
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2], help="of the curves")
    parser.add_argument("--rounds", type=int, default=3, help="of the speed part")
    parser.add_argument("--out", type=Path, default=ROOT / "benchmarks/results", help="folder of the results")
    arguments = parser.parse_args()
    if arguments.only != "curves":
        write(arguments.out, "speed", {"jobs": speed(arguments.rounds)})
    if arguments.only != "speed":
        kept = earlier(arguments.out / "learners-curves.json", arguments.seeds)
        runs = kept + [curve(learners, seed) for seed in arguments.seeds for learners in (1, 2)]
        write(arguments.out, "curves", {"settings": SETTINGS, "runs": runs, **compared(runs)})
    return 0


def earlier(path: Path, seeds: Sequence[int]) -> list[dict[str, Any]]:
    """Returns the runs of other seeds that are there already, so that they can be made in pieces."""
    if not path.exists():
        return []
    report = json.loads(path.read_text(encoding="utf-8"))
    return [run for run in report["runs"] if run["seed"] not in seeds] if report["settings"] == SETTINGS else []


def write(out: Path, part: str, content: dict[str, Any]) -> None:
    """Keeps the raw results."""
    out.mkdir(parents=True, exist_ok=True)
    report = {"machine": machine_info(), "load_average": os.getloadavg(), **content}
    (out / f"learners-{part}.json").write_text(json.dumps(report, indent=1) + "\n", encoding="utf-8")


def curve(learners: int, seed: int) -> dict[str, Any]:
    """Trains once; returns the mean return of the last 100 episodes after every iteration."""
    settings = SETTINGS | {"learner.num_learners": learners, "run.seed": seed}
    with tempfile.TemporaryDirectory() as folder:
        directory = Path(folder) / "run"
        given = [argument for key, value in settings.items() for argument in ("--set", f"{key}={value}")]
        command = [sys.executable, "launch.py", "train", "--run-dir", str(directory), "--no-progress", *given]
        subprocess.run(command, cwd=ROOT, check=True, stdout=subprocess.DEVNULL)
        rows = [row for row in read_metrics(directory / "metrics.jsonl") if "time/total_timesteps" in row]
    found = {
        "learners": learners,
        "seed": seed,
        "returns": [row.get("rollout/ep_rew_mean", 0.0) for row in rows],
        "learner_seconds": [row["dist/learner_seconds"] for row in rows],
        "exchange_seconds": [row.get("dist/exchange_seconds", 0.0) for row in rows],
    }
    print(f"{learners} learners, seed {seed}: {found['returns'][0]:.1f} -> {found['returns'][-1]:.1f}", flush=True)
    return found


def compared(runs: Sequence[dict[str, Any]]) -> dict[str, float]:
    """Returns how far the curves of one and two learners are apart for the same seed, and those of one learner for different seeds."""
    curves = {(run["learners"], run["seed"]): np.array(run["returns"]) for run in runs}
    seeds = sorted({run["seed"] for run in runs})
    same = [float(np.abs(curves[1, seed] - curves[2, seed]).mean()) for seed in seeds]
    other = [float(np.abs(curves[1, a] - curves[1, b]).mean()) for a, b in combinations(seeds, 2)]
    result = {"between_learners": statistics.fmean(same), "between_seeds": statistics.fmean(other or [float("nan")])}
    distances = f"{result['between_learners']:.2f} between one and two learners, {result['between_seeds']:.2f} between seeds"
    print(f"mean distance of the curves: {distances}")
    return result


def speed(rounds: int) -> list[dict[str, Any]]:
    """Returns microseconds a gradient step of every job and layout, in every round."""
    results = []
    print("| job | minibatch | " + " | ".join(f"{count} learner{'s' * (count > 1)}, {step}" for step, count in LAYOUTS) + " |")
    print("|---" * (2 + len(LAYOUTS)) + "|")
    for name, (observation, action, network, minibatch) in JOBS.items():
        times: dict[str, list[float]] = {}
        for _ in range(rounds):
            for step, count in LAYOUTS:
                times.setdefault(f"{count} {step}", []).append(timed(observation, action, network, minibatch, step, count))
        medians = [statistics.median(each) for each in times.values()]
        print(f"| {name} | {minibatch} | " + " | ".join(f"{median:,.0f} us" for median in medians) + " |", flush=True)
        results.append({"job": name, "mini_batch_size": minibatch, "microseconds": times})
    return results


def timed(observation: int, action: int, network: dict[str, Any], minibatch: int, step: str, count: int) -> float:
    """Returns microseconds a gradient step, with every learner in a process of its own."""
    context = multiprocessing.get_context("spawn")
    pipes = [context.Pipe() for _ in range(count)]
    job = (observation, action, network, minibatch, step, count)
    processes = [context.Process(target=learn, args=(rank, pipes[rank][1], *job)) for rank in range(count)]
    for process in processes:
        process.start()
    place = pipes[0][0].recv()
    for mine, _ in pipes:
        mine.send(place)
    seconds = max(mine.recv() for mine, _ in pipes)
    for process in processes:
        process.join()
    return 1e6 * float(seconds) / STEPS


def learn(
    rank: int, pipe: Connection, observation: int, action: int, network: dict[str, Any], minibatch: int, step: str, count: int
) -> None:
    """Makes epochs on random samples; sends the seconds of the quickest."""
    import torch

    from distppo.algo.batch import Batch, OptimizerVectors
    from distppo.learner import Learner
    from distppo.learner.group import LearnerGroup, Meeting

    config = load_config(
        overrides={
            **{f"network.{key}": value for key, value in network.items()},
            **{"rollout.num_envs": 1, "rollout.num_steps": minibatch * STEPS, "ppo.mini_batch_size": minibatch, "rollout.num_workers": 1},
            **{"learner.step": step, "learner.num_learners": count, "learner.threads": 1},
        }
    )
    meeting = Meeting("127.0.0.1") if rank == 0 else None
    if meeting is not None:
        pipe.send(meeting.place)
    place = pipe.recv()
    group = None
    if count > 1:
        group = LearnerGroup(rank, count, place, meeting, host="127.0.0.1", seconds=60.0, device=torch.device("cpu"))
    env = EnvSpec("random", (observation,), (action,), (-1.0,) * action, (1.0,) * action, None)
    learner = Learner(config, env, group=group)
    size, rng = minibatch * STEPS, np.random.default_rng(0)
    column = rng.standard_normal(size).astype(np.float32)
    batch = Batch(
        rng.standard_normal((size, observation)).astype(np.float32),
        rng.standard_normal((size, action)).astype(np.float32),
        *[column] * 5,
    )
    parameters = learner.snapshot().parameters
    vectors = OptimizerVectors(parameters, np.zeros_like(parameters), np.zeros_like(parameters))
    seconds = []
    for _ in range(4):
        began = time.perf_counter()
        learner._step.epoch(vectors, batch, rng.permutation(size), minibatch, learner._coefficients())
        seconds.append(time.perf_counter() - began)
    pipe.send(min(seconds))


if __name__ == "__main__":
    sys.exit(main())
