"""Learning curves of sync and overlap side by side: the same settings and seeds, one run after the other.

    .venv/bin/python benchmarks/modes.py                                  the quickstart's settings, seeds 0, 1, 2
    .venv/bin/python benchmarks/modes.py --config configs/walker2d.yaml --seeds 0 1 2 3 4

Writes results/modes-<config>.csv (a row a mode, seed and iteration), results/modes-<config>.json (final scores, speed, machine) and, with
matplotlib (the plot extra), results/modes-<config>.png. Prints the table.
"""

from __future__ import annotations

import argparse
import csv
import json
import statistics
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

from distppo.metrics import machine_info, read_metrics

ROOT = Path(__file__).resolve().parent.parent
MODES = ("sync", "overlap")
COLUMNS = ("time/total_timesteps", "rollout/ep_rew_mean", "eval/mean_reward", "train/approx_kl", "dist/staleness", "time/fps")


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--config", type=Path, default=ROOT / "configs/quickstart.yaml", help="settings of every run")
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2], help="seeds of each mode")
    parser.add_argument("--total-timesteps", help="instead of the config's")
    parser.add_argument("--out", type=Path, default=ROOT / "benchmarks/results", help="folder of the results")
    arguments = parser.parse_args()
    runs = []
    for seed in arguments.seeds:
        for mode in MODES:
            runs.append(run(arguments.config, mode, seed, arguments.total_timesteps))
            print(describe(runs[-1]), flush=True)
    write(arguments.out, arguments.config.stem, runs)
    print("\n" + markdown(runs))
    return 0


def run(config: Path, mode: str, seed: int, total_timesteps: str | None) -> dict[str, Any]:
    """Trains once; returns its summary and its curve."""
    with tempfile.TemporaryDirectory() as folder:
        directory = Path(folder) / "run"
        command = [sys.executable, "launch.py", "train", "--config", str(config.resolve()), "--mode", mode, "--seed", str(seed)]
        command += ["--run-dir", str(directory), "--no-progress", "--set", "run.checkpoint_every=0"]
        command += ["--total-timesteps", total_timesteps] if total_timesteps else []
        subprocess.run(command, cwd=ROOT, check=True, stdout=subprocess.DEVNULL)
        rows = [row for row in read_metrics(directory / "metrics.jsonl") if "time/total_timesteps" in row]
        summary = json.loads((directory / "summary.json").read_text(encoding="utf-8"))
    return {"mode": mode, "seed": seed, "summary": summary, "curve": [[row.get(column) for column in COLUMNS] for row in rows]}


def describe(result: dict[str, Any]) -> str:
    """One line about a run."""
    summary = result["summary"]
    return (
        f"{result['mode']:8} seed {result['seed']}: return {summary['episode_return_mean']:8.1f}, best evaluation "
        f"{summary['best_evaluation']['return_mean']:8.1f}, {summary['env_steps_per_second']:7,.0f} env steps/s"
    )


def write(out: Path, name: str, runs: list[dict[str, Any]]) -> None:
    """Writes the curves as CSV, everything else as JSON, and the picture if it can be drawn."""
    out.mkdir(parents=True, exist_ok=True)
    with open(out / f"modes-{name}.csv", "w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file)
        writer.writerow(["mode", "seed", *COLUMNS])
        writer.writerows([result["mode"], result["seed"], *row] for result in runs for row in result["curve"])
    scores = [{key: result[key] for key in ("mode", "seed", "summary")} for result in runs]
    report = {"config": name, "machine": machine_info(), "runs": scores}
    (out / f"modes-{name}.json").write_text(json.dumps(report, indent=1) + "\n", encoding="utf-8")
    try:
        draw(out / f"modes-{name}.png", runs)
    except ImportError:
        print("no picture: matplotlib is not installed (pip install distppo[plot])", file=sys.stderr)


def draw(path: Path, runs: list[dict[str, Any]]) -> None:
    """Draws the training return over env steps, a line a run."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    figure, axes = pyplot.subplots(figsize=(7, 4), layout="constrained")
    colors = {"sync": "tab:blue", "overlap": "tab:orange"}
    for result in runs:
        steps, returns = zip(*[row[:2] for row in result["curve"] if row[1] is not None], strict=True)
        axes.plot(
            steps, returns, color=colors[result["mode"]], alpha=0.8, label=result["mode"] if result["seed"] == runs[0]["seed"] else None
        )
    axes.set_xlabel("env steps")
    axes.set_ylabel("episode return, mean of the last 100")
    axes.legend()
    axes.grid(alpha=0.3)
    figure.savefig(path, dpi=120)


def markdown(runs: list[dict[str, Any]]) -> str:
    """The table of final scores, all seeds."""
    lines = [
        "| mode | seeds | final training return, each seed | mean | best evaluation, mean | env steps/s, median |",
        "|---|---|---|---|---|---|",
    ]
    for mode in MODES:
        mine = [result["summary"] for result in runs if result["mode"] == mode]
        returns = [summary["episode_return_mean"] for summary in mine]
        best = statistics.fmean(summary["best_evaluation"]["return_mean"] for summary in mine)
        speed = statistics.median(summary["env_steps_per_second"] for summary in mine)
        each = ", ".join(f"{value:,.0f}" for value in returns)
        lines.append(f"| {mode} | {len(mine)} | {each} | {statistics.fmean(returns):,.0f} | {best:,.0f} | {speed:,.0f} |")
    return "\n".join(lines)


if __name__ == "__main__":
    sys.exit(main())
