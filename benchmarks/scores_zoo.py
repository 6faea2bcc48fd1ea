"""The zoo: the best policy of each environment, exported into the package with what it is worth."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from scores_runs import ROOT
from scores_store import Store
from scores_tables import main_results, replaced

from distppo import evaluate, export_policy
from distppo.checkpoint import best_checkpoint, list_checkpoints
from distppo.evaluation import zoo
from distppo.evaluation.results import write_json
from distppo.evaluation.zoo import PREFIX, SCORES_FILE, ZooPolicy, list_zoo
from distppo.files import write_atomic

PAGE = ROOT / "docs" / "evaluating.md"
EPISODES, EVALUATION_SEED = 20, 20_000
"""Other episodes than those that chose the policy: the best of many scores is partly luck, which a new score has not."""


def write_zoo(store: Store, runs: Path, say: Callable[[str], None]) -> list[Path]:
    """Exports the best policy of each recipe whose runs are here, and returns the files that were written.

    Args:
        store: of the results, which say which run was best.
        runs: folder of the runs.
        say: takes a line for people.
    """
    listed = zoo.FOLDER / SCORES_FILE
    scores = json.loads(listed.read_text(encoding="utf-8")) if listed.is_file() else {}
    written = []
    for recipe, (result, entry, kind) in best_of_each(store).items():
        run = runs / entry["run"]
        checkpoint = best_checkpoint(run) if kind == "best" else next(iter(list_checkpoints(run)[-1:]), None)
        if checkpoint is None:
            say(f"{recipe}: the best run, {run}, is not here; what the zoo has of it stays")
            continue
        target = zoo.FOLDER / f"{recipe}.npz"
        exported = export_policy(checkpoint.path, format="numpy", output=target)
        scored = evaluate(target, episodes=EPISODES, seed=EVALUATION_SEED)
        scores[recipe] = {
            "env": scored.env_id,
            "env_steps": scored.env_steps,
            "return_mean": round(scored.return_mean, 2),
            "return_std": round(scored.return_std, 2),
            "episodes": EPISODES,
            "seed": EVALUATION_SEED,
            "training_seed": entry["seed"],
            "result": result["name"],
            "commits": entry["commits"],
        }
        written.append(exported.path)
        say(f"{PREFIX}{recipe}: seed {entry['seed']}, {scored.env_steps:,} env steps, return {scored.return_mean:,.0f}")
    write_json(listed, dict(sorted(scores.items())))
    return written


def best_of_each(store: Store) -> dict[str, tuple[Mapping[str, Any], Mapping[str, Any], str]]:
    """Returns for each recipe the result, the seed's entry and the checkpoint, best or last, with the highest return."""
    best: dict[str, tuple[Mapping[str, Any], Mapping[str, Any], str]] = {}
    found: dict[str, float] = {}
    for result in main_results(store):
        if result["peer"] or "--env" in result["command"].split():
            continue
        for entry in result["seeds"]:
            for kind, scores in (("last", entry), ("best", entry["best"])):
                if scores and scores["deterministic"]["mean"] > found.get(result["recipe"], float("-inf")):
                    found[result["recipe"]] = scores["deterministic"]["mean"]
                    best[result["recipe"]] = (result, entry, kind)
    return best


def page_text() -> str:
    """Returns docs/evaluating.md as it should be, with the policies of the zoo."""
    return replaced(PAGE, "zoo", zoo_table(list_zoo()))


def write_page() -> Path:
    """Puts the policies of the zoo into docs/evaluating.md; returns it."""
    write_atomic(PAGE, page_text().encode())
    return PAGE


def zoo_table(policies: list[ZooPolicy]) -> str:
    """Returns the table of the policies that are shipped."""
    if not policies:
        return "No policy is shipped yet."
    lines = ["| policy | environment | trained for | return, mean +- std of 20 episodes |", "|---|---|---|---|"]
    for each in policies:
        lines.append(
            f"| `{PREFIX}{each.name}` | {each.env} | {each.env_steps:,} env steps | {each.return_mean:,.0f} +- {each.return_std:,.0f} |"
        )
    return "\n".join(lines)
