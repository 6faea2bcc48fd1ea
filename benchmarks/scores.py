"""Returns of the recipes: environments x seeds, one run after the other at full speed, scored on episodes that training never saw.

    .venv/bin/python benchmarks/scores.py                                        the six recipes, five seeds each: hours
    .venv/bin/python benchmarks/scores.py halfcheetah walker2d --seeds 0-9       some of them, ten seeds
    .venv/bin/python benchmarks/scores.py humanoid --total-timesteps 2M          fewer env steps than the recipe's
    .venv/bin/python benchmarks/scores.py hopper --env Hopper-v5                 the recipe in another environment
    .venv/bin/python benchmarks/scores.py halfcheetah --label gamma98 --set ppo.gamma=0.98      a variant, for docs/ablations.md
    .venv/bin/python benchmarks/scores.py halfcheetah walker2d --peer sb3 --seeds 0-2           Stable-Baselines3 in the same places
    .venv/bin/python benchmarks/scores.py --table                                the stored results, nothing is trained
    .venv/bin/python benchmarks/scores.py --write-readme --write-headers         into the READMEs, docs/ablations.md and configs/
    .venv/bin/python benchmarks/scores.py --write-zoo                            the best policies into distppo/zoo

Every run is `launch.py train` as a user types it, in a folder below --runs. Repeating a command loses nothing: a seed that has a
score is skipped, one that was cut off goes on from its checkpoint. The last checkpoint is scored, with the most likely action and
with sampled ones, 20 episodes each; so is the best one, which training's own evaluations have chosen. Results go to
benchmarks/results/scores-<env>-<env steps>[-<label>].json, curves beside them as .csv. benchmarks/README.md explains every number.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

from scores_recipe import plan
from scores_runs import ROOT, RUNS, Experiment, Interrupted, RunFailed, Trainer
from scores_store import RESULTS, Store, is_timed
from scores_tables import all_tables, write_headers, write_readmes

from distppo.errors import UserError

RECIPES = ("halfcheetah", "walker2d", "hopper", "ant", "swimmer", "humanoid")
MULTIPLES = {"k": 1_000, "M": 1_000_000}


def main(argv: Sequence[str] | None = None) -> int:
    parser = make_parser()
    arguments = parser.parse_args(argv)
    try:
        written = write(arguments)
        if arguments.recipes or not written:
            return train_all(arguments)
    except UserError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    return 0


def make_parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    add = parser.add_argument
    names = f"{', '.join(RECIPES)} (of configs/, default: all of them), or a YAML file"
    add("recipes", nargs="*", metavar="RECIPE", help=names)
    group = parser.add_argument_group("training")
    add = group.add_argument
    add("--seeds", type=seeds_of, default="0-4", help="as in 0-4, or 0,3,7 (default: 0-4)")
    add("--total-timesteps", type=steps_of, metavar="N", help="env steps of a run, as in 2000000 or 2M (default: the recipe's)")
    add("--env", metavar="ID", help="instead of the recipe's, as in HalfCheetah-v5")
    add("--set", action="extend", nargs="+", default=[], metavar="KEY=VALUE", help="settings of every run, as of launch.py train")
    add("--label", type=label_of, default="", help="name of a variant: its results stand by themselves; lower case, digits and -")
    add("--peer", choices=("sb3",), help="train Stable-Baselines3 with rl-zoo3's tuned settings instead (HalfCheetah-v4, Walker2d-v4)")
    add("--untimed", action="store_true", help="the machine does other work meanwhile: keep no minutes of these seeds")
    add("--single-process", action="store_true", help="the same bits by one process, so that two commands fit; implies --untimed")
    add("--replace", action="store_true", help="where results of other settings are stored under this name: begin anew, and drop them")
    add("--episodes", type=int, default=20, help="of a score (default: 20)")
    add("--runs", type=Path, default=RUNS, help="where the runs are kept (default: runs/scores)")
    add("--cache", type=Path, default=ROOT / ".bench", help="where a peer is installed (default: .bench)")
    group = parser.add_argument_group("results", "These train nothing, unless recipes are named too.")
    add = group.add_argument
    add("--results", type=Path, default=RESULTS, help="where they are kept (default: benchmarks/results)")
    add("--table", action="store_true", help="print all tables")
    add("--write-readme", action="store_true", help="put the tables into README.md, benchmarks/README.md and docs/ablations.md")
    add("--write-headers", action="store_true", help="put command, seeds, return, time, machine and commit into the head of each recipe")
    add("--write-zoo", action="store_true", help="export the best policy of each recipe into distppo/zoo, with its score")
    return parser


def seeds_of(text: str) -> list[int]:
    """Returns the seeds that "0-4", "3" or "0,3,7" names."""
    seeds = []
    for part in text.split(","):
        first, dash, last = part.strip().partition("-")
        if not first.isdecimal() or (dash and not last.isdecimal()):
            raise argparse.ArgumentTypeError(f"must be seeds as in 0-4 or 0,3,7, got {text!r}")
        seeds += range(int(first), int(last or first) + 1)
    if not seeds or len(set(seeds)) < len(seeds):
        raise argparse.ArgumentTypeError(f"names no seed, or one twice: {text!r}")
    return seeds


def steps_of(text: str) -> int:
    """Returns the env steps that "2M", "500k" or "2_000_000" names."""
    factor = MULTIPLES.get(text[-1:], 1)
    digits = text[:-1] if text[-1:] in MULTIPLES else text
    try:
        steps = float(digits.replace(",", "").replace("_", "")) * factor
    except ValueError:
        steps = 0.0
    if steps < 1 or steps != int(steps):
        raise argparse.ArgumentTypeError(f"must be a number of env steps, as in 2000000 or 2M, got {text!r}")
    return int(steps)


def label_of(text: str) -> str:
    """Returns a label, which becomes part of a file's name."""
    if text and not all(part.isalnum() and part.isascii() and part == part.lower() for part in text.split("-")):
        raise argparse.ArgumentTypeError(f"must be lower-case letters, digits and -, got {text!r}")
    return text


def write(arguments: argparse.Namespace) -> bool:
    """Writes and prints what is made from the stored results; says whether anything was asked for.

    Raises:
        UserError: a result cannot be read, or a file lacks the place for it.
    """
    store = Store(arguments.results)
    if arguments.write_readme:
        print("\n".join(f"wrote {path.relative_to(ROOT)}" for path in write_readmes(ROOT, store)))
    if arguments.write_headers:
        print("\n".join(f"wrote {path.relative_to(ROOT)}" for path in write_headers(ROOT, store)) or "no recipe has a result")
    if arguments.write_zoo:
        from scores_zoo import write_page, write_zoo

        written = [*write_zoo(store, arguments.runs, say), write_page()]
        print("\n".join(f"wrote {path.relative_to(ROOT)}" for path in written))
        print("the list in `evaluate --help` has changed: REGENERATE_GOLDEN=1 make test ARGS=tests/cli/test_golden.py")
    if arguments.table:
        print(all_tables(store))
    return bool(arguments.table or arguments.write_readme or arguments.write_headers or arguments.write_zoo)


def train_all(arguments: argparse.Namespace) -> int:
    """Trains and scores what has no score yet, and prints the tables; returns the exit code.

    Raises:
        UserError: a recipe or a setting is wrong, or results of other settings are in the way.
    """
    timed = not (arguments.untimed or arguments.single_process)
    store, trainer = Store(arguments.results), Trainer(arguments.runs, arguments.episodes, say, timed=timed)
    experiments = [experiment_of(recipe, arguments) for recipe in arguments.recipes or RECIPES]
    for experiment in experiments:
        store.require_same_settings(experiment.header(), replace=arguments.replace)
    failures = []
    for experiment in experiments:
        for seed in arguments.seeds:
            if store.has(experiment.name, seed):
                say(f"{experiment.name} seed {seed}: has a score already")
                continue
            try:
                entry, curve = trainer.score(experiment, seed)
            except Interrupted as stop:
                say(f"interrupted in {experiment.name} seed {seed}; the same command goes on from there")
                return 128 + stop.signal
            except RunFailed as error:
                failures.append(f"{experiment.name} seed {seed}: {error}")
                say(f"failed: {failures[-1]}")
                continue
            path = store.add(experiment.header(), entry, curve)
            say(f"{experiment.name} seed {seed}: {describe(entry)}; kept in {path.name}")
    print(f"\n{all_tables(store, [experiment.name for experiment in experiments])}")
    for failure in failures:
        print(f"failed: {failure}", file=sys.stderr)
    return 1 if failures else 0


def experiment_of(recipe: str, arguments: argparse.Namespace) -> Experiment:
    """Returns what a recipe's name and the flags mean.

    Raises:
        UserError: there is no such recipe, or a setting is wrong.
    """
    settings = [*arguments.set]
    settings += [f"env.id={arguments.env}"] if arguments.env else []
    settings += [f"run.total_timesteps={arguments.total_timesteps}"] if arguments.total_timesteps else []
    if arguments.set and arguments.peer:
        raise UserError("--set changes distppo's settings; a peer runs with its own")
    if arguments.set and not arguments.label:
        raise UserError("--set makes a variant of the recipe: give it a name with --label")
    if arguments.single_process and arguments.peer:
        raise UserError("--single-process is for distppo; a peer is one process anyway (--untimed where two run at a time)")
    ours = plan(recipe, RECIPES, settings, label=arguments.label, single_process=arguments.single_process)
    if not arguments.peer:
        return ours
    from scores_sb3 import plan_sb3

    return plan_sb3(ours.path.stem, config=ours.config, label=arguments.label, episodes=arguments.episodes, cache=arguments.cache)


def describe(entry: dict) -> str:
    """Returns a line about a seed's scores."""
    best = entry.get("best")
    beside = f", best checkpoint {best['deterministic']['mean']:,.0f}" if best else ""
    minutes = f", {entry['wall_seconds'] / 60:.1f} min" if is_timed(entry) else ""
    return (
        f"return {entry['deterministic']['mean']:,.0f} +- {entry['deterministic']['std']:,.0f} "
        f"(sampled actions {entry['stochastic']['mean']:,.0f}{beside}) after {entry['env_steps']:,} env steps{minutes}"
    )


def say(line: str) -> None:
    print(line, flush=True)


if __name__ == "__main__":
    sys.exit(main())
