"""Each rule fires on metrics made for it, with the numbers in its sentence, and all stay quiet on runs that are well."""

from __future__ import annotations

import math
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from distppo.config import load_config
from distppo.config.load import flattened
from distppo.findings import RULES, RunRecord, Severity, find, find_between_seeds
from distppo.metrics import read_metrics

ROOT = Path(__file__).resolve().parents[2]
QUICKSTART = ROOT / "tests" / "data" / "quickstart"
"""A real run of configs/quickstart.yaml: HalfCheetah from -258 to 1,537 in 37 iterations."""

Row = dict[str, Any]
Change = Callable[[int, Row], Row]


def good_run(length: int = 37, change: Change | None = None, **settings: Any) -> RunRecord:
    """The real run, or its first rows, each changed by `change(index, row)`; settings by name with _ for the dot's place."""
    rows: list[Row] = list(read_metrics(QUICKSTART / "metrics.jsonl"))[:length]
    changed = [{**row, **change(index, row)} if change else row for index, row in enumerate(rows)]
    own = flattened(load_config([QUICKSTART / "config.yaml"]))
    return RunRecord(changed, {**own, **{name.replace("__", "."): value for name, value in settings.items()}})


def constant(**values: float) -> Change:
    """The same values in every row; `train__std` is train/std."""
    return lambda index, row: {name.replace("__", "/"): value for name, value in values.items()}


def late(**values: float) -> Change:
    """The same values in every row of the second half."""
    return lambda index, row: constant(**values)(index, row) if index >= 18 else {}


def phases(**seconds: float) -> Change:
    """An iteration of one second, of which these phases take their part and collecting the rest."""
    rest = {f"time/{name}": 0.0 for name in ("broadcast", "evaluate", "checkpoint", "other", "update")}
    parts = {f"time/{name}": value for name, value in seconds.items()}
    collect = 1.0 - sum(seconds.values())
    collected = dict.fromkeys(("time/collect", "dist/worker_seconds_mean", "dist/worker_seconds_max"), collect)
    return lambda index, row: {**rest, **collected, **parts}


def returns(shape: Callable[[int], float]) -> Change:
    """Episode returns by the index of the row."""
    return lambda index, row: {"rollout/ep_rew_mean": shape(index)}


def evaluations(trained: Callable[[int], float], evaluated: Callable[[int], float], std: float = 10.0) -> Change:
    """Returns of training, and of an evaluation in every fourth row."""

    def change(index: int, row: Row) -> Row:
        evaluation = {"eval/mean_reward": evaluated(index), "eval/std_reward": std, "eval/episodes": 5}
        return {"rollout/ep_rew_mean": trained(index), **(evaluation if index % 4 == 0 else {})}

    return change


CASES: dict[str, tuple[RunRecord, str]] = {
    "explained-variance-below-0": (
        good_run(change=late(train__explained_variance=-0.5)),
        "19 updates in a row, between 311,296 and 606,208",
    ),
    "clip-fraction-too-high": (good_run(change=late(train__clip_fraction=0.65)), "65% of the samples .* 19 updates"),
    "kl-too-high": (good_run(change=late(train__approx_kl=0.09)), "KL of 0.090 nats"),
    "kl-stops-every-update": (
        good_run(change=constant(train__epochs=1.0), ppo__target_kl=0.01),
        "100% of the updates .* after 1 of 10 epochs",
    ),
    "updates-change-next-to-nothing": (
        good_run(change=constant(train__approx_kl=1e-6, train__clip_fraction=0.0, train__learning_rate=3e-4)),
        "32 of 32 updates",
    ),
    "entropy-collapsed": (
        good_run(change=lambda index, row: {"train/std": None, "train/entropy_loss": -1.0 if index < 9 else -0.01}),
        "from 1 to 0.01 nats by 163,840 env steps, 27%",
    ),
    "action-noise-collapsed": (good_run(change=lambda index, row: {"train/std": 0.6 if index < 5 else 0.01}), "0.010 at 98,304 env steps"),
    "action-noise-grows": (good_run(change=lambda index, row: {"train/std": 0.6 + 0.1 * index}), "grew from 0.60 to 4.15"),
    "value-loss-explodes": (good_run(change=late(train__value_loss=50.0)), "to 50, between 311,296 and 606,208"),
    "gradients-far-above-their-limit": (good_run(change=constant(train__grad_norm=60.0)), "120 times ppo.max_grad_norm"),
    "returns-too-large-for-the-critic": (
        good_run(change=constant(value__return_std=5000.0), normalization__rewards=False),
        "standard deviation of 5,000",
    ),
    "workers-and-learner-disagree": (good_run(change=late(dist__ratio_error=0.2)), "up to 0.2, first at 311,296"),
    "nan-in-the-update": (
        good_run(change=lambda index, row: {"train/skipped_steps": float(index == 20)}),
        "first at 344,064 .* 1 gradient step skipped",
    ),
    "returns-do-not-rise": (good_run(change=returns(lambda index: 3.0 + (-1) ** index)), "has not risen: 4.0 at the beginning"),
    "returns-collapsed-late": (
        good_run(change=returns(lambda index: 100.0 * index if index < 25 else 500.0)),
        "from 2,400.0 at 409,600 env steps to 500.0 .* 79%",
    ),
    "a-policy-is-trapped": (
        good_run(change=evaluations(lambda index: min(100.0 * index, 1500.0), lambda index: 5000.0 if index == 16 else 1600.0)),
        "stands at 1,500.0 .* had reached 5,000.0 at 278,528",
    ),
    "evaluation-far-below-training": (
        good_run(change=evaluations(lambda index: 100.0 * index, lambda index: 10.0 * index)),
        "last 3 evaluations returned 320.0 on average, training 3,200.0",
    ),
    "evaluations-are-noisy": (
        good_run(change=evaluations(lambda index: 100.0 * index, lambda index: 110.0 * index, std=3000.0)),
        "over 5 episodes have a standard deviation of 3,000.0",
    ),
    "episodes-never-end": (
        good_run(change=lambda index, row: {"rollout/episodes": 16 if index < 20 else 0}),
        "since 327,680 env steps: 278,528 env steps .34,816 of each",
    ),
    "workers-are-idle": (good_run(change=phases(update=0.8)), "update took 80% of the time"),
    "one-worker-is-slow": (good_run(change=constant(dist__worker_seconds_mean=1.0, dist__worker_seconds_max=2.5)), "2.5 times as long"),
    "fragments-arrive-late": (
        good_run(change=constant(time__collect=4.0, dist__worker_seconds_mean=0.9, dist__worker_seconds_max=1.0)),
        "4.00 s .* 1.00 s",
    ),
    "evaluation-takes-too-long": (good_run(change=phases(evaluate=0.6)), "Evaluation took 60%"),
    "the-disk-is-slow": (good_run(change=phases(checkpoint=0.3)), "Saving checkpoints took 30%"),
    "sending-weights-takes-too-long": (good_run(change=phases(broadcast=0.25)), "new weights took 25%"),
    "training-slowed-down": (good_run(change=late(time__fps_iteration=100.0)), "to 100 env steps/s"),
    "environments-broke": (good_run(change=late(faults__env_restarts=3)), "3 environments were made anew .* by 311,296"),
    "environments-gave-nan": (good_run(change=late(faults__nonfinite=1)), "1 environment gave a number"),
    "updates-were-dropped": (good_run(change=late(faults__skipped_updates=2)), "2 updates were dropped"),
    "workers-were-replaced": (good_run(change=late(faults__worker_restarts=2)), "2 workers died or hung"),
    "the-learner-was-rebuilt": (good_run(change=late(faults__learner_restarts=1)), "1 time the learner"),
    "nodes-or-connections-were-lost": (good_run(change=late(faults__takeovers=2, faults__unreachable=1)), "3 calls, fragments or nodes"),
    "episodes-were-restarted": (good_run(change=late(faults__episodes_restarted=8)), "8 environments had to start"),
    "checkpoints-could-not-be-saved": (good_run(change=late(faults__checkpoint_failures=1)), "1 checkpoint or batch"),
}


@pytest.mark.parametrize("expected", CASES)
def test_a_rule_fires_on_metrics_made_for_it_and_no_other_does(expected: str) -> None:
    """One thing is changed in a good run; that and nothing else is found, with its numbers."""
    run, words = CASES[expected]
    found = {finding.id: finding for finding in find(run)}
    assert set(found) == {expected}
    assert re.search(words, found[expected].text), found[expected].text
    assert 0 <= found[expected].first_step <= found[expected].last_step <= run.steps


def test_a_good_run_has_no_findings() -> None:
    """A real run of the quickstart, whose return rises to the end."""
    assert find(good_run()) == []


@pytest.mark.parametrize("recipe", ["halfcheetah", "walker2d"])
def test_the_recipes_have_no_findings_on_the_tasks_they_are_for(recipe: str) -> None:
    """Every eighth row of runs of two million env steps, with many gradient steps an update, to returns of 7,154 and 3,391."""
    rows = read_metrics(ROOT / "tests" / "data" / f"{recipe}.jsonl")
    config = load_config([ROOT / "configs" / f"{recipe}.yaml"])
    assert rows[-1]["time/total_timesteps"] == 2_000_896 and find(RunRecord(rows, flattened(config))) == []


@pytest.mark.parametrize("length", range(8))
def test_the_first_rows_of_a_run_are_not_judged(length: int) -> None:
    """The critic of a run that has just begun explains nothing, and no rule complains."""
    assert find(good_run(length)) == []


def test_a_solved_task_is_no_bad_one() -> None:
    """Where the returns hardly vary any more (CartPole at 500), a critic that explains none of it is not blamed."""
    flat = constant(train__explained_variance=-0.6, value__return_std=0.003)
    assert find(good_run(change=flat)) == []


def test_nothing_is_learned_at_the_end_of_a_schedule() -> None:
    """A learning rate that has fallen to nothing explains updates that change nothing."""
    assert find(good_run(change=late(train__approx_kl=1e-6, train__clip_fraction=0.0, train__learning_rate=1e-6))) == []


def test_idle_cores_are_found_by_the_machine_that_the_run_wrote_down() -> None:
    """Two workers on 16 cores with a learner that waits: more workers would help; on 2 cores they would not."""
    run = good_run(change=phases(update=0.05))
    started = {"event": "started", "machine": {"cores": 16}}
    assert [finding.id for finding in find(run._replace(events=[started]))] == ["the-learner-is-idle"]
    assert find(run._replace(events=[{"event": "started", "machine": {"cores": 2}}])) == []
    assert find(run._replace(events=[{"event": "started", "machine": "none of ours"}])) == []


def test_an_error_at_the_end_is_found_until_the_run_goes_on() -> None:
    """What was mended by a resume is history."""
    error = {"event": "error", "kind": "EnvFaultError", "message": "the cheetah\nfell", "env_steps": 606208}
    run = good_run()._replace(events=[{"event": "started"}, error])
    (finding,) = find(run)
    assert (finding.id, finding.severity) == ("the-run-ended-with-an-error", Severity.PROBLEM)
    assert finding.text == "The run ended with an error at 606,208 env steps. EnvFaultError: the cheetah fell"
    assert find(run._replace(events=[*run.events, {"event": "started"}])) == []


def test_faults_are_added_up_over_the_processes_of_a_run() -> None:
    """Counters begin at 0 when a run goes on: 2 before and 1 after are 3, told with the reason of the last."""
    run = good_run(change=lambda index, row: {"faults/worker_restarts": 2 if 5 <= index < 20 else 1 if index >= 30 else 0})
    fault = {"event": "fault", "what": "worker_died", "where": "worker 1", "why": "killed"}
    (finding,) = find(run._replace(events=[fault]))
    assert finding.text.startswith("3 workers died or hung") and finding.text.endswith("The last one: worker 1: killed")


def test_faults_are_added_up_where_a_process_has_as_many_at_once_as_the_one_before() -> None:
    """Rows at 16,384, 32,768, ...: 1 fault up to row 9, 1 from the first row after it, and 3 from row 20 on are 5.

    A process that began at 400,000 was taken back by the one that went on from 327,680, so no counter begins again there.
    """
    run = good_run(change=lambda index, row: {"faults/worker_restarts": 3 if index >= 20 else 1})
    begun = [0, 10 * 16384, 400_000, 20 * 16384]
    events = [{"event": kind, "env_steps": steps} for steps in begun for kind in ("resumed", "started")]
    (finding,) = find(run._replace(events=events))
    assert finding.text.startswith("5 workers died or hung and were replaced, the first by 16,384 env steps")


def test_an_episode_may_take_as_long_as_its_time_limit() -> None:
    """34,816 env steps of each environment without an end: nothing with a limit of 50,000, much with one of 20,000 or without."""
    endless = CASES["episodes-never-end"][0]
    for limit, expected in ((50_000, []), (20_000, ["episodes-never-end"]), (None, ["episodes-never-end"])):
        run = endless._replace(settings={**endless.settings, "env.max_episode_steps": limit})
        assert [finding.id for finding in find(run)] == expected


def test_numbers_that_are_none_are_found_and_break_no_rule() -> None:
    """NaN, infinity, None and missing values anywhere: rules look at what is there."""
    (finding,) = find(good_run(change=late(train__loss=math.nan, train__value_loss=math.inf)))
    assert finding.id == "nan-in-the-update" and "19 updates" in finding.text
    for nothing in (math.nan, math.inf, -1.7e308, None):
        run = good_run(change=lambda index, row, nothing=nothing: {key: nothing for key in row if not key.startswith("time/t")})
        assert {found.id for found in find(run)} <= {"nan-in-the-update", "episodes-never-end"}
    assert find(RunRecord([{"time/total_timesteps": 8 * step} for step in range(40)])) == []


def test_seeds_that_end_far_apart_are_found() -> None:
    """Final returns of 1,000, 3,000 and 5,000; of 2,900, 3,000 and 3,100 nothing is said."""

    def seeds(*ends: float) -> dict[str, RunRecord]:
        rise = [returns(lambda index, end=end: end * index / 36) for end in ends]
        return {f"seed{number}": good_run(change=change) for number, change in enumerate(rise)}

    (finding,) = find_between_seeds(seeds(1000.0, 3000.0, 5000.0))
    assert finding.id == "seeds-differ-widely" and "3 seeds range from 9" in finding.text
    assert find_between_seeds(seeds(2900.0, 3000.0, 3100.0)) == []
    assert find_between_seeds(seeds(1000.0, 5000.0)) == []


def test_a_trapped_seed_is_named() -> None:
    """HalfCheetah on its back: one seed stands at 1,000 where the others rise to 4,000."""
    runs = {f"seed{number}": good_run(change=returns(lambda index: 4000.0 * index / 36)) for number in range(4)}
    runs["seed4"] = good_run(change=returns(lambda index: min(200.0 * index, 1000.0)))
    found = find_between_seeds(runs)
    assert [finding.id for finding in found] == ["seeds-differ-widely", "a-policy-is-trapped"]
    assert found[1].text.startswith("seed4 stands at 1,000.0")


@pytest.mark.parametrize("length", [8, 12, 16, 17, 20, 36])
def test_a_seed_that_rises_slowly_is_not_trapped(length: int) -> None:
    """Straight lines to 2,000, 2,200 and 900 in few rows, whose neighbours differ by the rise; one that stands at 600 is trapped."""

    def trapped(last: Callable[[float], float]) -> list[str]:
        changes = [returns(lambda index: 2000.0 * index / (length - 1)), returns(lambda index: 2200.0 * index / (length - 1))]
        changes.append(returns(lambda index: last(index / (length - 1))))
        found = find_between_seeds({f"seed{number}": good_run(length, change) for number, change in enumerate(changes)})
        return [finding.text[:15] for finding in found if finding.id == "a-policy-is-trapped"]

    assert trapped(lambda part: 900.0 * part) == []
    assert trapped(lambda part: min(2200.0 * part, 600.0)) == ["seed2 stands at"]


def test_findings_come_worst_first() -> None:
    """What must be looked at stands first."""
    run = good_run(
        change=lambda index, row: {**phases(update=0.8)(index, row), **returns(lambda _: 1.0)(index, row), "faults/worker_restarts": 1}
    )
    assert [finding.severity for finding in find(run)] == [Severity.PROBLEM, Severity.WARNING, Severity.NOTE]


def test_every_rule_has_a_case() -> None:
    """A new rule is shown to fire."""
    elsewhere = {"seeds-differ-widely", "the-learner-is-idle", "the-run-ended-with-an-error"}
    assert {rule.id for rule in RULES} == set(CASES) | elsewhere


def test_every_rule_is_explained_in_the_documentation() -> None:
    """docs/troubleshooting.md has a section under each rule's title, with the rule's advice in its own words."""
    page = (ROOT / "docs" / "troubleshooting.md").read_text(encoding="utf-8")
    sections = {part.partition("\n")[0]: " ".join(part.split()) for part in re.split(r"^### ", page, flags=re.MULTILINE)[1:]}
    assert list(sections) == list(dict.fromkeys(sections))
    for rule in RULES:
        assert rule.title in sections, f"docs/troubleshooting.md lacks ### {rule.title}"
        assert rule.advice in sections[rule.title], f"docs/troubleshooting.md: {rule.title} lacks the advice: {rule.advice}"
    assert set(sections) <= {rule.title for rule in RULES}
