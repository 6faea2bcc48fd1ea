"""How close training, and each part of it, comes to what this machine can do.

    .venv/bin/python benchmarks/roofline.py                                   HalfCheetah-v4, minibatch 64
    .venv/bin/python benchmarks/roofline.py --env Humanoid-v4 --recipe large  minibatch 2048

Collecting is held against physics alone (mujoco.rollout over pieces of real trajectories), the update against the matrix products of
its layers at the speed that BLAS reaches on these very shapes, and that against large matrices; all on one thread. The bare environments
do the collector's own resets and actions. The whole, `launch.py train` on both cores, is held against physics and large matrices alone,
perfectly shared out over the cores: as fast on each as on one alone, and as fast as both are when both are busy. In turn, several rounds.
Run it on an idle machine.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import sys
import time
from collections.abc import Callable
from pathlib import Path

# One core against one core: thread pools read this when they are imported.
os.environ.update(OMP_NUM_THREADS="1", OPENBLAS_NUM_THREADS="1", MKL_NUM_THREADS="1")

from contestants import RECIPES, ROOT, Recipe, Task, run_distppo
from roofline_parts import (
    CORES,
    LARGE,
    MODES,
    AllCores,
    Iteration,
    budget,
    epoch,
    large_matrices,
    layers,
    physics_loop,
    physics_rollout,
    products,
    record_segments,
    speed,
)

from distppo.config import Config, load_config
from distppo.metrics import machine_info

WORKERS = 2
Measurement = tuple[str, str, Callable[[], float]]
"""Name, unit, and a function that measures once."""


def main() -> int:
    arguments = parse_arguments()
    config = configuration(arguments.env, RECIPES[arguments.recipe])
    measurements = prepare(config, arguments.seconds)
    for _, _, measure in measurements:
        measure()
    rounds = []
    for number in range(arguments.rounds):
        rounds.append({name: measure() for name, _, measure in measurements} | whole(arguments))
        print(f"round {number + 1} of {arguments.rounds} done", file=sys.stderr, flush=True)
    units = {name: unit for name, unit, _ in measurements} | {f"training, {mode}": "env steps/s" for mode in MODES}
    report = {
        "env": arguments.env,
        "recipe": arguments.recipe,
        "date": time.strftime("%Y-%m-%d %H:%M:%S"),
        "machine": machine_info(),
        "units": units,
        "rounds": rounds,
    }
    path = arguments.out / f"roofline-{arguments.env}-{arguments.recipe}-{time.strftime('%Y-%m-%d')}.json"
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(report, indent=1, default=str) + "\n", encoding="utf-8")
    title = f"{arguments.env}, recipe {arguments.recipe}"
    print(f"{markdown(rounds, units, title)}\n\n{budget(rounds, config)}\n\nraw results: {path}")
    return 0


def parse_arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    add = parser.add_argument
    add("--env", default="HalfCheetah-v4", help="gymnasium id of a MuJoCo environment (default: HalfCheetah-v4)")
    add("--recipe", default="small", choices=sorted(RECIPES), help="sizes of batch and networks (default: small)")
    add("--rounds", type=int, default=5, help="times that everything is measured (default: 5)")
    add("--seconds", type=float, default=1.0, help="shortest measurement (default: 1)")
    add("--out", type=Path, default=ROOT / "benchmarks" / "results", help="where the raw results go (default: benchmarks/results)")
    return parser.parse_args()


def configuration(env: str, recipe: Recipe) -> Config:
    """Returns the settings that the throughput benchmark times, on one thread."""
    return load_config(
        overrides={
            "env.id": env,
            "rollout.num_envs": recipe.num_envs,
            "rollout.num_steps": recipe.num_steps,
            "ppo.epochs": recipe.epochs,
            "ppo.mini_batch_size": recipe.mini_batch_size,
            "network.hidden_sizes": [int(width) for width in recipe.hidden.split(",")],
            "network.activation": recipe.activation,
            "network.initial_log_std": -0.5,
            "learner.threads": 1,
        }
    )


def prepare(config: Config, seconds: float) -> list[Measurement]:
    """Returns what is measured, in the order in which it runs."""
    model, segments = record_segments(config, 200)
    iteration = Iteration(config, WORKERS)
    batch, size = config.batch_size, config.ppo.mini_batch_size
    network = list(layers(config, iteration.spec))
    minibatch = sum(layer.flop(size) for layer in network)
    large, flop = large_matrices(LARGE)
    cores = AllCores(config, seconds)

    def per_second(work: Callable[[], object], amount: float) -> Callable[[], float]:
        return lambda: amount * speed(work, seconds)

    def followed() -> float:
        """Returns the env steps a second of the bare environments, over all that the collector has just done."""
        follow, iterations = iteration.follower()
        return iterations * batch * once(follow)

    def own_shapes() -> float:
        """Returns the minibatches a second that the products of all layers would allow."""
        return 1.0 / sum(1.0 / (20 * speed(products(layer, size, 20), seconds / 10)) for layer in network)

    def large_shapes() -> float:
        """Returns the minibatches a second at the FLOP rate of large matrices."""
        return speed(large, seconds) * flop / minibatch

    return [
        ("physics in mujoco.rollout", "env steps/s", per_second(physics_rollout(model, segments), segments.env_steps)),
        ("physics by mj_step", "env steps/s", per_second(physics_loop(model, segments), segments.env_steps)),
        ("collector", "env steps/s", per_second(iteration.collect, batch)),
        ("the bare environment's step", "env steps/s", followed),
        ("large matrices", "minibatches/s", large_shapes),
        ("the layers' own products", "minibatches/s", own_shapes),
        ("gradient steps", "minibatches/s", per_second(epoch(config, iteration.spec, batch), batch // size)),
        ("whole update", "minibatches/s", lambda: config.ppo.epochs * (batch // size) * once(iteration.update)),
        ("physics, all cores busy", "env steps/s", lambda: cores.measure("physics")),
        ("large matrices, all cores busy", "minibatches/s", lambda: cores.measure("matrices") / minibatch),
    ]


def whole(arguments: argparse.Namespace) -> dict[str, float]:
    """Trains for about ten seconds in either mode; returns env steps a second."""
    recipe = RECIPES[arguments.recipe]
    task = Task(arguments.env, recipe, 12 * recipe.num_envs * recipe.num_steps)
    return {f"training, {mode}": run_distppo(task, mode)["env_steps_per_second"] for mode in MODES}


def once(work: Callable[[], object]) -> float:
    """Returns how often a second the work could be done, from doing it once."""
    began = time.perf_counter()
    work()
    return 1.0 / (time.perf_counter() - began)


LIMITS = {
    "physics by mj_step": "physics in mujoco.rollout",
    "the bare environment's step": "physics in mujoco.rollout",
    "collector": "physics in mujoco.rollout",
    "the layers' own products": "large matrices",
    "gradient steps": "large matrices",
    "whole update": "large matrices",
}
"""Part -> the limit it is held against."""
NEXT = {"collector": "the bare environment's step", "gradient steps": "the layers' own products", "whole update": "gradient steps"}
"""Part -> what it is built on."""


def markdown(rounds: list[dict[str, float]], units: dict[str, str], title: str) -> str:
    """Returns the table: medians, and fractions from round to round."""

    def fraction(name: str, of: str | None) -> str:
        return f"{statistics.median(one[name] / one[of] for one in rounds):.0%} of {of}" if of else "-"

    lines = [
        f"{title}; parts on one core, training on {CORES}",
        "",
        "| | median | of its limit | of what it is built on |",
        "|---|---|---|---|",
    ]
    for name, unit in units.items():
        median = statistics.median(one[name] for one in rounds)
        lines.append(f"| {name} | {median:,.0f} {unit} | {fraction(name, LIMITS.get(name))} | {fraction(name, NEXT.get(name))} |")
    return "\n".join(lines)


if __name__ == "__main__":
    sys.exit(main())
