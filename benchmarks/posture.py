"""Whether HalfCheetah policies run on their feet or on their backs, which is how a seed of it is trapped.

    .venv/bin/python benchmarks/posture.py                          every scored run of HalfCheetah below runs/scores, a minute
    .venv/bin/python benchmarks/posture.py --runs DIR --episodes 5

Plays the last checkpoint of each with the most likely actions and counts the steps, from the hundredth on, at which the torso's pitch
has cos < 0. Writes results/posture-<date>.json and prints a line for each setting.
"""

from __future__ import annotations

import argparse
import json
import logging
import math
import sys
import time
import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import gymnasium as gym
import numpy as np
from scores_runs import EVALUATION_SEED, RUNS
from scores_store import RESULTS, Store

from distppo import load_policy
from distppo.metrics import machine_info

PITCH = 2
"""Of qpos: x, z, pitch of the torso, then the joints."""
SETTLED = 100
"""Env steps at the beginning of an episode that are not counted."""


def main(argv: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--runs", type=Path, default=RUNS, help="where scores.py keeps the runs (default: runs/scores)")
    parser.add_argument("--results", type=Path, default=RESULTS, help="of the scores, and for the output (default: benchmarks/results)")
    parser.add_argument("--episodes", type=int, default=2, help="of each run (default: 2)")
    arguments = parser.parse_args(argv)
    logging.getLogger("gymnasium").setLevel(logging.ERROR)
    warnings.simplefilter("ignore", DeprecationWarning)
    rows = []
    for result in Store(arguments.results).all():
        if result["env"].startswith("HalfCheetah") and result["peer"] is None:
            rows += [row for entry in result["seeds"] if (row := posture_of(result, entry, arguments.runs, arguments.episodes))]
    if not rows:
        print(f"error: none of the runs that {arguments.results} has scores of is below {arguments.runs}", file=sys.stderr)
        return 2
    report = {"date": time.strftime("%Y-%m-%d %H:%M:%S"), "machine": machine_info(), "runs": rows}
    path = arguments.results / f"posture-{time.strftime('%Y-%m-%d')}.json"
    path.write_text(json.dumps(report, indent=1) + "\n", encoding="utf-8")
    print(f"{table(rows)}\n\nraw results: {path}")
    return 0


def posture_of(result: dict[str, Any], entry: dict[str, Any], runs: Path, episodes: int) -> dict[str, Any] | None:
    """Returns how a run's policy stands, or None where the run is not kept any more."""
    run = runs / entry["run"]
    if not run.is_dir():
        return None
    policy, env = load_policy(f"{run}@last"), gym.make(result["env"])
    shares, returns = [], []
    for episode in range(episodes):
        observation, _ = env.reset(seed=EVALUATION_SEED + entry["seed"] + episode)
        cosines, total, over = [], 0.0, False
        while not over:
            observation, reward, terminated, truncated, _ = env.step(policy.act(observation))
            cosines.append(math.cos(env.unwrapped.data.qpos[PITCH]))  # type: ignore[attr-defined]
            total, over = total + float(reward), terminated or truncated
        shares.append(float(np.mean(np.array(cosines[SETTLED:]) < 0)))
        returns.append(total)
    env.close()
    variant = result["label"] or "the recipe"
    return {"env": result["env"], "variant": variant, "seed": entry["seed"], "upside_down": shares, "returns": returns}


def table(rows: Sequence[dict[str, Any]]) -> str:
    """Returns a Markdown line for each environment and variant: how many seeds spend most of their steps upside down."""
    lines = ["| | variant | on their backs | return on the feet | return on the back |", "|---|---|---|---|---|"]
    for env, variant in dict.fromkeys((row["env"], row["variant"]) for row in rows):
        mine = [row for row in rows if (row["env"], row["variant"]) == (env, variant)]
        on_back = [row for row in mine if np.mean(row["upside_down"]) > 0.5]
        on_feet = [row for row in mine if row not in on_back]
        lines.append(f"| {env} | {variant} | {len(on_back)} of {len(mine)} seeds | {mean_return(on_feet)} | {mean_return(on_back)} |")
    return "\n".join(lines)


def mean_return(rows: Sequence[dict[str, Any]]) -> str:
    return f"{np.mean([row['returns'] for row in rows]):,.0f}" if rows else "-"


if __name__ == "__main__":
    sys.exit(main())
