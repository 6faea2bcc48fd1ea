"""Whether discrete actions are learned: CartPole, Acrobot and a MultiDiscrete example through Ray, three seeds each, scored afterwards.

    .venv/bin/python benchmarks/classic_control.py               all three; about three minutes on two cores
    .venv/bin/python benchmarks/classic_control.py cartpole      one of them
    .venv/bin/python benchmarks/classic_control.py --seeds 0-9   ten seeds

Every run is the recipe in configs/ as it stands. Its last checkpoint, not its best, is scored over 100 evaluation episodes that training
never saw, with the most likely action; beside it stands what the same seed's untrained network scores. The exit code is 1 unless every
seed reaches the score to beat. Curves and scores go to benchmarks/results.
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np

from distppo import evaluate, load_config, train
from distppo.checkpoint import list_checkpoints
from distppo.envs import make_env
from distppo.evaluation.episodes import play_episodes
from distppo.evaluation.policy import Policy
from distppo.learner import Learner
from distppo.metrics import METRICS_FILE, machine_info, read_metrics

ROOT = Path(__file__).resolve().parents[1]
TO_BEAT = {"cartpole": 475.0, "acrobot": -100.0, "docking": -0.1}
"""Mean return by recipe. CartPole-v1 counts as solved at 475, as Gymnasium registers it; Acrobot and Docking have no official bound."""
EVALUATION_SEED = 10_000
"""Added to a run's seed, so that no episode of training's own evaluations is played again."""


def main() -> int:
    arguments = parse_arguments(__doc__ or "", tuple(TO_BEAT), episodes=100)
    results = {recipe: score_recipe(recipe, arguments) for recipe in arguments.recipes or TO_BEAT}
    write_report("classic-control", results, arguments)
    return 0 if all(seed["return_mean"] >= TO_BEAT[recipe] for recipe, seeds in results.items() for seed in seeds) else 1


def parse_arguments(text: str, recipes: tuple[str, ...], *, episodes: int) -> argparse.Namespace:
    """Reads the command line of a script that trains recipes and scores them."""
    parser = argparse.ArgumentParser(description=text, formatter_class=argparse.RawDescriptionHelpFormatter)
    add = parser.add_argument
    add("recipes", nargs="*", choices=[*recipes, []], help="of configs/ (default: all)")
    add("--seeds", type=seeds_of, default="0-2", help="a range as in 0-2 (default: 0-2)")
    add("--episodes", type=int, default=episodes, help=f"of a score (default: {episodes})")
    add("--workers", default="auto", help="Ray workers (default: auto); 0 runs in one process without Ray")
    add("--out", type=Path, default=ROOT / "benchmarks" / "results", help="where the results go (default: benchmarks/results)")
    return parser.parse_args()


def seeds_of(text: str) -> list[int]:
    """Returns the seeds that "0-2" or "4" names."""
    first, _, last = text.partition("-")
    return list(range(int(first), int(last or first) + 1))


def score_recipe(recipe: str, arguments: argparse.Namespace) -> list[dict[str, Any]]:
    """Trains and scores every seed of a recipe; prints a line each."""
    results = []
    for seed in arguments.seeds:
        results.append(score(recipe, seed, arguments))
        shown = "{return_untrained:.1f} -> {return_mean:.1f} +- {return_std:.1f} in {env_steps:,} env steps, {seconds:.0f} s"
        print(f"{recipe} seed {seed}: {shown.format(**results[-1])}", flush=True)
    return results


def score(recipe: str, seed: int, arguments: argparse.Namespace) -> dict[str, Any]:
    """Trains one seed and returns its curve and scores."""
    config = load_config(ROOT / "configs" / f"{recipe}.yaml", seed=seed, num_workers=arguments.workers)
    episodes, evaluation_seed = arguments.episodes, EVALUATION_SEED + seed
    env, spec = make_env(config.env)
    untrained = play_episodes(
        env, spec, Policy(Learner(config, spec).snapshot()), range(episodes), seed=evaluation_seed, deterministic=True
    )
    env.close()
    with tempfile.TemporaryDirectory() as folder:
        result = train(config, directory=str(Path(folder) / "run"), progress=False)
        rows = read_metrics(result.run_directory / METRICS_FILE)
        last = list_checkpoints(result.run_directory)[-1].path
        scored = evaluate(last, episodes=episodes, seed=evaluation_seed)
    return {
        "seed": seed,
        "env": config.env.id,
        "return_untrained": float(np.mean([episode.episode_return for episode in untrained])),
        "return_mean": scored.return_mean,
        "return_std": scored.return_std,
        "episodes": scored.episodes,
        "env_steps": scored.env_steps,
        "seconds": result.summary["wall_seconds"],
        "env_steps_per_second": result.summary["env_steps_per_second"],
        "workers": result.summary["num_workers"],
        "curve": [(row["time/total_timesteps"], round(row["rollout/ep_rew_mean"], 3)) for row in rows if "rollout/ep_rew_mean" in row],
        "evaluations": [(row["time/total_timesteps"], row["eval/mean_reward"]) for row in rows if "eval/mean_reward" in row],
    }


def write_report(name: str, results: dict[str, list[dict[str, Any]]], arguments: argparse.Namespace) -> None:
    """Writes the results beside the other benchmarks' and prints a table."""
    date = time.strftime("%Y-%m-%d")
    report = {"date": time.strftime("%Y-%m-%d %H:%M:%S"), "machine": machine_info(), "results": results}
    path = arguments.out / f"{name}-{date}.json"
    arguments.out.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(report, indent=1, default=str) + "\n", encoding="utf-8")
    print(f"\n| recipe | env steps | untrained | mean return of each seed, {arguments.episodes} episodes |\n|---|---|---|---|")
    for recipe, seeds in results.items():
        untrained = np.mean([seed["return_untrained"] for seed in seeds])
        print(f"| {recipe} | {seeds[0]['env_steps']:,} | {untrained:.1f} | {', '.join(format(s['return_mean'], '.1f') for s in seeds)} |")
    print(f"\nraw results: {path}")


if __name__ == "__main__":
    sys.exit(main())
