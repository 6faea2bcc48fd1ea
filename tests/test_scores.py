"""benchmarks/scores.py: it trains by the real command, loses nothing, counts right, and what the pages show is what is stored."""

from __future__ import annotations

import argparse
import copy
import csv
import json
import os
import shutil
import signal
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, NamedTuple

import pytest
import scores
import scores_sb3
from runtime.running import ROOT, SECONDS
from scores_recipe import plan
from scores_runs import EVALUATION_SEED, CurvePoint, experiment_name
from scores_store import CURVE_POINTS, RESULTS, Store, reached, summary_of, thinned, trapped_seeds
from scores_tables import _measured, ablation_table, details, header_texts, main_results, overview, readme_texts, replaced, variant_table
from scores_zoo import page_text, write_zoo

from distppo import UserError, evaluate
from distppo.evaluation import zoo

RECIPE = """# A recipe.
#
#     python launch.py train --config configs/tiny.yaml

env: {id: InvertedPendulum-v4}
rollout: {num_envs: 4, num_steps: 64, num_workers: 0}
ppo: {mini_batch_size: 64, epochs: 2}
evaluation: {every: 4096, episodes: 2}
run: {total_timesteps: 20480, checkpoint_every: 2048}
"""
NAME = "InvertedPendulum-v4-20480"


class Scored(NamedTuple):
    """Two seeds that were trained and scored.

    Attributes:
        recipe: the YAML file.
        flags: of the command, but for the seeds.
        store: of the results.
        runs: folder of the runs.
    """

    recipe: Path
    flags: list[str]
    store: Store
    runs: Path

    @property
    def result(self) -> dict[str, Any]:
        found = self.store.get(NAME)
        assert found is not None
        return found


def flags_of(folder: Path) -> list[str]:
    return ["--episodes", "3", "--results", str(folder / "results"), "--runs", str(folder / "runs")]


@pytest.fixture(scope="module")
def scored(tmp_path_factory: pytest.TempPathFactory) -> Scored:
    folder = tmp_path_factory.mktemp("scores")
    recipe = folder / "tiny.yaml"
    recipe.write_text(RECIPE)
    flags = flags_of(folder)
    assert scores.main([str(recipe), "--seeds", "0", *flags]) == 0
    assert scores.main([str(recipe), "--seeds", "0,1", "--single-process", *flags]) == 0
    return Scored(recipe, flags, Store(folder / "results"), folder / "runs")


def test_a_seed_s_score_is_that_of_its_last_checkpoint_on_fresh_episodes(scored: Scored) -> None:
    """evaluate RUN@last with the stated seed gives the stored returns; RUN@best those of the best one."""
    for entry in scored.result["seeds"]:
        run = scored.runs / entry["run"]
        for which, stored in (("last", entry), ("best", entry["best"])):
            for kind in ("deterministic", "stochastic"):
                again = evaluate(f"{run}@{which}", episodes=3, seed=EVALUATION_SEED + entry["seed"], deterministic=kind == "deterministic")
                assert again.returns.tolist() == stored[kind]["returns"]
                assert again.return_mean == stored[kind]["mean"] and again.env_steps == stored["env_steps"]


def test_a_result_says_what_ran(scored: Scored) -> None:
    """Command, all settings, versions, times and the commit are in it."""
    result = scored.result
    assert result["command"] == "python launch.py train --config tiny.yaml"
    assert result["settings"]["ppo"]["epochs"] == 2 and "seed" not in result["settings"]["run"]
    assert [(entry["seed"], entry["timed"]) for entry in result["seeds"]] == [(0, True), (1, False)]
    assert result["machines"][0]["mujoco"] and result["machines"][0]["cores"] >= 1
    for entry in result["seeds"]:
        assert entry["env_steps"] == 20480 and entry["interruptions"] == 0
        assert entry["wall_seconds"] == pytest.approx(entry["training_seconds"] + entry["start_seconds"])
        assert entry["start_seconds"] > 0 and len(entry["commits"]) == 1


def test_the_curves_are_stored_thinned(scored: Scored) -> None:
    """80 iterations are below the limit, so all are there; evaluations at every 4,096 env steps are."""
    with open(scored.store.path(NAME).with_suffix(".csv"), newline="", encoding="utf-8") as file:
        rows = [row for row in csv.DictReader(file) if row["seed"] == "1"]
    assert [int(row["env_steps"]) for row in rows] == list(range(256, 20481, 256))
    assert [int(row["env_steps"]) for row in rows if row["evaluation_return"]] == [4096, 8192, 12288, 16384, 20480]


def test_a_repeated_command_trains_nothing(scored: Scored, capsys: pytest.CaptureFixture[str]) -> None:
    """A seed with a score is skipped, though its run be gone."""
    before = scored.store.path(NAME).read_bytes()
    assert scores.main([str(scored.recipe), "--seeds", "0,1", *scored.flags, "--runs", str(scored.runs / "elsewhere")]) == 0
    assert capsys.readouterr().out.count("has a score already") == 2
    assert scored.store.path(NAME).read_bytes() == before and not (scored.runs / "elsewhere").exists()


def test_results_of_other_settings_are_never_put_together(scored: Scored, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """The same name with another discount is refused with the difference, before anything is trained."""
    other = tmp_path / "tiny.yaml"
    other.write_text(RECIPE.replace("epochs: 2", "epochs: 2, gamma: 0.5"))
    assert scores.main([str(other), "--seeds", "2", *scored.flags]) == 2
    assert "ppo.gamma: 0.5, stored 0.99" in capsys.readouterr().err
    copied = Store(tmp_path / "results")
    shutil.copytree(scored.store.folder, copied.folder)
    copied.require_same_settings(plan(str(other), (), [], label="").header(), replace=True)
    assert copied.get(NAME) is None and not copied.path(NAME).with_suffix(".csv").exists()


@pytest.mark.slow
def test_what_was_killed_goes_on_and_ends_with_the_same_scores(scored: Scored, tmp_path: Path) -> None:
    """SIGKILL for the script and its training; the same command then gives seed 0's very returns."""
    flags = flags_of(tmp_path)
    command = [sys.executable, str(ROOT / "benchmarks" / "scores.py"), str(scored.recipe), "--seeds", "0", *flags]
    environment = os.environ | {"PYTHONPATH": str(ROOT)}
    script = subprocess.Popen(command, env=environment, stdout=subprocess.DEVNULL)
    run = tmp_path / "runs" / next(entry["run"] for entry in scored.result["seeds"] if entry["seed"] == 0)
    until = time.monotonic() + SECONDS
    while not list((run / "checkpoints").glob("ckpt_*/MANIFEST.json")):
        assert script.poll() is None and time.monotonic() < until
        time.sleep(0.01)
    script.kill()
    os.kill(int((run / ".lock").read_text().split()[1]), signal.SIGKILL)
    script.wait()
    assert not (run / "summary.json").exists()
    assert scores.main([str(scored.recipe), "--seeds", "0", *flags]) == 0
    result = Store(tmp_path / "results").get(NAME)
    assert result is not None
    (entry,), undisturbed = result["seeds"], scored.result["seeds"][0]
    assert entry["interruptions"] == 1
    assert entry["deterministic"] == undisturbed["deterministic"] and entry["stochastic"] == undisturbed["stochastic"]


def test_a_run_that_fails_is_reported_and_the_others_go_on(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Exit code 1, the log's end, and no result."""
    recipe = tmp_path / "broken.yaml"
    recipe.write_text(RECIPE.replace("InvertedPendulum-v4", "NoSuchEnvironment-v4"))
    assert scores.main([str(recipe), "--seeds", "0,1", *flags_of(tmp_path)]) == 1
    assert capsys.readouterr().err.count("exit code 2: error:") == 2
    assert Store(tmp_path / "results").all() == []


def test_what_may_be_typed() -> None:
    """Seeds, env steps and labels, and what is refused."""
    assert scores.seeds_of("0-2,7") == [0, 1, 2, 7]
    assert [scores.steps_of(text) for text in ("2M", "500k", "2_000_000", "1.5M")] == [2_000_000, 500_000, 2_000_000, 1_500_000]
    for read, text in ((scores.seeds_of, "1,1"), (scores.seeds_of, "two"), (scores.steps_of, "2G"), (scores.label_of, "a/b")):
        with pytest.raises(argparse.ArgumentTypeError):
            read(text)
    assert experiment_name("HalfCheetah-v4", 2_000_000, "") == "HalfCheetah-v4-2M"
    assert experiment_name("mine:Hill-v0", 1_500_000, "spo") == "mine_Hill-v0-1500k-spo"


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["halfcheeta"], "did you mean halfcheetah?"),
        (["halfcheetah", "--set", "ppo.gamma=0.9"], "give it a name with --label"),
        (["halfcheetah", "--set", "ppo.gama=0.9", "--label", "x"], "did you mean ppo.gamma?"),
        (["halfcheetah", "--peer", "sb3", "--single-process"], "--single-process is for distppo"),
        (["ant", "--peer", "sb3"], "no tuned PPO for Ant-v4"),
        (["halfcheetah", "--peer", "sb3", "--set", "ppo.gamma=0.9", "--label", "x"], "a peer runs with its own"),
    ],
)
def test_a_mistake_is_a_line_and_exit_code_2(words: list[str], message: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """And nothing is trained."""
    assert scores.main([*words, *flags_of(tmp_path)]) == 2
    assert message in capsys.readouterr().err
    assert list(tmp_path.iterdir()) == []


def curve(returns: list[float]) -> list[CurvePoint]:
    """A curve with a point every 1,000 env steps and 2 seconds."""
    return [CurvePoint(1000 * (index + 1), 2.0 * (index + 1), value, None) for index, value in enumerate(returns)]


def test_the_first_time_at_a_return_counts_with_the_start() -> None:
    """5,000 is first reached at the third point: 6 s of training after 10 s of starting."""
    points = [CurvePoint(0, 0.0, None, None), *curve([1.0, 4999.0, 5000.0, 100.0, 9000.0])]
    assert reached(points, 5000, 10.0) == {"env_steps": 3000, "seconds": 16.0}
    assert reached(points, 10_000, 10.0) is None


def test_a_thinned_curve_keeps_its_last_point_and_its_evaluations() -> None:
    """1,000 points become 112 (every ninth), one evaluation between them, and the last."""
    points = curve([float(value) for value in range(1000)])
    points[500] = points[500]._replace(evaluation_return=7.0)
    kept = thinned(points)
    assert len(kept) == 113 <= CURVE_POINTS + 2
    assert kept[-1] == points[-1] and points[500] in kept and kept[0] == points[0]


def test_a_seed_that_stands_still_below_half_is_trapped() -> None:
    """Two learn to 6,000; one stands at 1,500; one is as low but rising. Of two seeds nothing is said."""
    learns = [60.0 * value for value in range(101)]
    stands = [min(value, 1500.0) for value in learns]
    rises = [15.0 * value for value in range(101)]
    curves = {0: curve(learns), 1: curve(stands), 2: curve(learns), 3: curve(rises)}
    assert trapped_seeds(curves) == [1]
    assert trapped_seeds({0: curves[0], 1: curves[1]}) is None


def entry_of(seed: int, score: float) -> dict[str, Any]:
    """A seed's entry with the given return."""
    kinds = {kind: {"mean": score - 10 * (kind == "stochastic")} for kind in ("deterministic", "stochastic")}
    at = {"env_steps": 1_000_000 + seed, "seconds": 60.0} if score >= 5000 else None
    rest = {"training_return": score, "best": {"env_steps": 9, **kinds}, "wall_seconds": 120.0 + seed, "reached": at, "commits": ["c" * 40]}
    return {"seed": seed, **kinds, **rest}


def test_seeds_together() -> None:
    """Returns 1, 2, 3, 4 and 10 thousand: mean 4,000; IQM, the mean of the middle three, 3,000; 1 reached 5,000."""
    summary = summary_of([entry_of(seed, 1000.0 * score) for seed, score in enumerate((1, 2, 3, 4, 10))], [0])
    assert (summary["mean"], summary["iqm"], summary["min"], summary["max"]) == (4000, 3000, 1000, 10_000)
    assert summary["std"] == pytest.approx((10e6) ** 0.5)  # (9 + 4 + 1 + 0 + 36) / 5 = 10 thousand squared
    low, high = summary["iqm_interval"]
    assert 1000 <= low < 3000 < high <= 10_000
    assert summary["stochastic_mean"] == 3990 and summary["wall_seconds_median"] == 122
    assert (summary["reached"], summary["reached_env_steps_median"]) == (1, 1_000_004)


def test_minutes_are_those_of_seeds_that_had_the_machine_to_themselves() -> None:
    """Of 120, 121 and 122 s the last two count; the untimed seed's return counts like the others. None timed: a dash, no minutes."""
    entries = [entry_of(seed, 5000.0) | {"timed": seed > 0} for seed in range(3)]
    summary = summary_of(entries, None)
    assert (summary["wall_seconds_median"], summary["reached_seconds_median"], summary["reached"]) == (121.5, 60.0, 3)
    untimed = result_of("Walker2d-v4", "walker2d", [5000.0, 6000.0])
    untimed["seeds"] = [entry | {"timed": False} for entry in untimed["seeds"]]
    untimed["summary"] = summary_of(untimed["seeds"], None)
    assert "| - | 5,000 in 2 h | 1.00M steps (2 of 2 seeds) |" in overview([untimed])
    assert "| -, - |" in details([untimed]) and variant_table([untimed]).endswith("| - |")
    assert "return 5,500 +- 500 (mean +- std over seeds), on 2 cores" in " ".join(_measured([untimed])).replace("#   ", "")


def store_seed(folder: Path, seed: int) -> None:
    """Stores a seed's score."""
    header = result_of("Walker2d-v4", "walker2d", [1.0])
    Store(folder).add(header, entry_of(seed, 5000.0) | {"machine": {}, "start_seconds": 1.0}, curve([5000.0]))


def test_two_commands_may_store_at_a_time(tmp_path: Path) -> None:
    """Of twelve seeds stored by twelve threads, each with a lock of its own as processes have, none is lost."""
    with ThreadPoolExecutor(12) as threads:
        list(threads.map(store_seed, [tmp_path] * 12, range(12)))
    stored = Store(tmp_path).get("Walker2d-v4-2M")
    assert stored is not None and [entry["seed"] for entry in stored["seeds"]] == list(range(12))
    assert sorted(Store(tmp_path).curves("Walker2d-v4-2M")) == list(range(12))


def result_of(env: str, recipe: str, scores_of: list[float]) -> dict[str, Any]:
    """A stored result."""
    entries = [entry_of(seed, score) for seed, score in enumerate(scores_of)]
    machine = {"cores": 2, "cpu": "a CPU", "python": "3.11.7", "mujoco": "4.0.0"}
    return {
        "format": 1,
        "name": f"{env}-2M",
        "env": env,
        "total_timesteps": 2_000_000,
        "label": "",
        "recipe": recipe,
        "peer": None,
        "command": f"python launch.py train --config configs/{recipe}.yaml",
        "date": "2026-11-23",
        "target": {"return": 5000, "hours": 2},
        "summary": summary_of(entries, []),
        "seeds": entries,
        "machines": [machine],
    }


def test_the_table_of_the_readme() -> None:
    """A line a result: mean and std, IQM, minutes, and when what was asked for was reached."""
    table = overview([result_of("HalfCheetah-v4", "halfcheetah", [6000.0, 7000.0, 8000.0])])
    line = "| HalfCheetah-v4 | 2M | 3 | 7,000 +- 816 | 7,000 (6,000 - 8,000) | 2.0 | 5,000 in 2 h | 1.0 min, 1.00M steps (3 of 3 seeds) |"
    assert line in table.splitlines()
    assert "Measured on 2 cores of a CPU, Python 3.11.7, mujoco 4.0.0." in table


def test_a_recipe_s_head_gets_what_was_measured_and_keeps_the_rest(tmp_path: Path) -> None:
    """Written twice it stands there once."""
    (tmp_path / "configs").mkdir()
    path = tmp_path / "configs" / "tiny.yaml"
    path.write_text(RECIPE)
    store = Store(tmp_path)
    store.path("X-v4-2M").write_text(json.dumps(result_of("X-v4", "tiny", [6000.0, 8000.0])))
    text = header_texts(tmp_path, store)[path]
    path.write_text(text)
    assert header_texts(tmp_path, store)[path] == text
    head, _, body = text.partition("\n\n")
    assert body == RECIPE.partition("\n\n")[2] and all(line.startswith("#") for line in head.splitlines())
    said = " ".join(line.lstrip("# ") for line in head.splitlines())
    for fact in ("--seeds 0,1", "2,000,000 env steps", "return 7,000 +- 1,000", "2.0 minutes", "a CPU", "commit ccccccccc", "2026-11-23"):
        assert fact in said


def test_the_pages_show_the_stored_results() -> None:
    """README.md, benchmarks/README.md and the recipes are what --write-readme and --write-headers would write."""
    store = Store(RESULTS)
    for path, text in (readme_texts(ROOT, store) | header_texts(ROOT, store)).items():
        assert path.read_text(encoding="utf-8") == text, f"{path.name}: benchmarks/scores.py --write-readme --write-headers"


def test_the_page_of_the_zoo_shows_what_is_shipped() -> None:
    """docs/evaluating.md is what --write-zoo would write, and every policy has its file."""
    assert (ROOT / "docs" / "evaluating.md").read_text(encoding="utf-8") == page_text()
    assert {path.stem for path in zoo.FOLDER.glob("*.npz")} == {policy.name for policy in zoo.list_zoo()}


def test_a_stored_summary_follows_from_its_seeds_and_curves(scored: Scored) -> None:
    """The numbers of the tables can be computed again from what is stored, trapped seeds included."""
    for store in (scored.store, Store(RESULTS)):
        for result in store.all():
            curves = store.curves(result["name"])
            assert sorted(curves) == [entry["seed"] for entry in result["seeds"]]
            assert json.loads(json.dumps(summary_of(result["seeds"], trapped_seeds(curves)))) == result["summary"]


def test_a_page_that_differs_is_noticed(scored: Scored, tmp_path: Path) -> None:
    """Another return in the results makes another README; one without the place for it is an error."""
    for name in ("benchmarks", "docs"):
        (tmp_path / name).mkdir()
    for name in ("README.md", "benchmarks/README.md", "docs/ablations.md"):
        shutil.copy(ROOT / name, tmp_path / name)
    store = Store(tmp_path)
    assert main_results(store) == []
    before = readme_texts(tmp_path, store)
    result = copy.deepcopy(scored.result)
    store.path(NAME).write_text(json.dumps(result))
    after = readme_texts(tmp_path, store)
    assert [path.name for path in before if before[path] != after[path]] == ["README.md", "README.md"]
    result["summary"]["mean"] += 1000
    store.path(NAME).write_text(json.dumps(result))
    assert readme_texts(tmp_path, store)[tmp_path / "README.md"] != after[tmp_path / "README.md"]
    (tmp_path / "README.md").write_text("no place\n")
    with pytest.raises(UserError, match="must have these two lines"):
        replaced(tmp_path / "README.md", "scores", "table")


def test_a_variant_stands_beside_the_recipe_with_the_same_seeds(scored: Scored, tmp_path: Path) -> None:
    """The difference counts the seeds that both have, and the command is the one that ran."""
    store = Store(tmp_path)
    assert ablation_table(store) == "No variant is stored yet."
    recipe, variant = copy.deepcopy(scored.result), copy.deepcopy(scored.result)
    variant |= {"label": "wide", "name": f"{NAME}-wide", "command": "python launch.py train --set network.hidden_sizes=[8]"}
    variant["seeds"][0]["deterministic"]["mean"], recipe["seeds"][0]["deterministic"]["mean"] = 107.0, 100.0
    del recipe["seeds"][1]
    for result in (recipe, variant):
        store.path(result["name"]).write_text(json.dumps(result))
    *_, row = ablation_table(store).splitlines()
    assert "| wide | 2 | 107, " in row and "| the recipe | 100 | +7 | `launch.py train --set network.hidden_sizes=[8]` |" in row


def test_a_change_on_top_of_another_stands_beside_that_one(scored: Scored, tmp_path: Path) -> None:
    """And one that only shares a setting with another variant stands beside the recipe."""
    store = Store(tmp_path)
    changes: dict[str, dict[str, Any]] = {
        "": {},
        "wide": {"hidden_sizes": [8]},
        "wide-relu": {"hidden_sizes": [8], "activation": "relu"},
        "wider": {"hidden_sizes": [16]},
        "wide-relu-norm": {"hidden_sizes": [8], "activation": "relu", "layer_norm": True},
    }
    for label, settings in changes.items():
        result = copy.deepcopy(scored.result) | {"label": label, "name": f"{NAME}-{label}".rstrip("-")}
        result["settings"]["network"] |= settings
        store.path(result["name"]).write_text(json.dumps(result))
    beside = {
        cells[2]: cells[6] for line in ablation_table(store).splitlines()[2:] if (cells := [cell.strip() for cell in line.split("|")])
    }
    assert beside == {"wide": "the recipe", "wide-relu": "wide", "wider": "the recipe", "wide-relu-norm": "wide-relu"}


def test_a_variant_in_a_single_process_is_another_command_with_the_same_settings(tmp_path: Path) -> None:
    """So that its seeds stand in the same place of the results."""
    alone, usual = (plan("walker2d", (), ["ppo.gamma=0.9"], label="x", single_process=single) for single in (True, False))
    assert alone.header() == usual.header() and alone.folder(3) == usual.folder(3)
    train, begun = alone.command(3, tmp_path), usual.command(3, tmp_path)
    assert train[train.index("--num-workers") + 1] == "0" and "--num-workers" not in begun


def test_the_best_policy_goes_into_the_zoo(scored: Scored, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The exported file of the seed with the highest return, listed with a score that evaluate gives again."""
    monkeypatch.setattr(zoo, "FOLDER", tmp_path)
    (path,) = write_zoo(scored.store, scored.runs, lambda line: None)
    (policy,) = zoo.list_zoo()
    assert path == policy.path == tmp_path / "tiny.npz"
    again = evaluate("zoo:tiny", episodes=policy.episodes, seed=policy.seed)
    assert (round(again.return_mean, 2), again.env_id) == (policy.return_mean, "InvertedPendulum-v4")
    best = max(max(entry["deterministic"]["mean"], entry["best"]["deterministic"]["mean"]) for entry in scored.result["seeds"])
    assert json.loads((tmp_path / "scores.json").read_text())["tiny"]["training_seed"] in [
        entry["seed"]
        for entry in scored.result["seeds"]
        if best in (entry["deterministic"]["mean"], entry["best"]["deterministic"]["mean"])
    ]
    assert write_zoo(scored.store, tmp_path / "no-runs", lambda line: None) == [] and zoo.list_zoo() == [policy]


def test_a_peer_s_curve_is_read_while_it_is_written(tmp_path: Path) -> None:
    """Half a last line is left out."""
    header = "env_steps,seconds,training_return,evaluation_return\n"
    (tmp_path / "curve.csv").write_text(header + "512,1.5,,\n1024,3.0,-20.5,7.0\n1536,4.")
    assert scores_sb3.read_curve(tmp_path) == [CurvePoint(512, 1.5, None, None), CurvePoint(1024, 3.0, -20.5, 7.0)]


def test_a_peer_s_result_names_its_settings_and_their_source(tmp_path: Path) -> None:
    """It stands beside ours under a name of its own."""
    ours = plan("walker2d", (), ["run.total_timesteps=2000000"], label="")
    peer = scores_sb3.plan_sb3("walker2d", config=ours.config, label="", episodes=20, cache=tmp_path)
    header = peer.header()
    assert (ours.name, header["name"]) == ("Walker2d-v4-2M", "Walker2d-v4-2M-sb3")
    assert "rl-baselines3-zoo" in header["source"] and header["settings"]["batch_size"] == 32
