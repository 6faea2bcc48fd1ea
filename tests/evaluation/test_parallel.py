"""Episodes shared out over processes: the same results to the last bit, and every way such a process can fail."""

from __future__ import annotations

import dataclasses
import multiprocessing

import pytest
from runtime.running import SMALL, Run

from distppo.errors import UserError
from distppo.evaluation.parallel import Job, play, worthwhile_workers
from distppo.evaluation.subject import Subject, load_subject
from distppo.evaluation.values import ValueUnits
from distppo.runtime.train import train


@pytest.fixture(scope="module")
def subject(tmp_path_factory: pytest.TempPathFactory) -> Subject:
    run = Run(train(overrides=SMALL | {"run.directory": str(tmp_path_factory.mktemp("parallel") / "run")}, progress=False))
    return load_subject(run.directory)[0]


def failing(subject: Subject, how: str) -> Subject:
    env = dataclasses.replace(subject.config.env, id="probe_envs:Failing-v0", kwargs={"how": how})
    return subject._replace(config=dataclasses.replace(subject.config, env=env))


def test_who_plays_changes_nothing(subject: Subject) -> None:
    """Results and traces of two processes are those of one, in the order of the episodes."""
    job = Job(subject, range(5), 7, False, ValueUnits(1.0, 2.0, 3.0))
    results, traces = play(job)
    others, other_traces = play(job, workers=2)
    assert [result.episode for result in others] == [0, 1, 2, 3, 4] and others == results
    for mine, its in zip(traces, other_traces, strict=True):
        assert mine.values.tobytes() == its.values.tobytes() and mine.rewards.tobytes() == its.rewards.tobytes()


@pytest.mark.parametrize(
    ("how", "message"), [("raise", "(?s)evaluation episode 0 .*the wheel came off"), ("exit", r"a process .* died; .*--workers 1")]
)
def test_what_goes_wrong_in_a_process_is_told_here(subject: Subject, how: str, message: str) -> None:
    """An environment that raises keeps its traceback; one that ends its process is named as that. No process is left either way."""
    with pytest.raises(UserError, match=message):
        play(Job(failing(subject, how), range(4), 0, True), workers=2)
    assert multiprocessing.active_children() == []


def test_a_process_is_started_where_it_pays(subject: Subject, monkeypatch: pytest.MonkeyPatch) -> None:
    """Every 20,000 env steps deserve one, up to the cores; Point's episodes have 20 steps."""
    monkeypatch.setattr("os.sched_getaffinity", lambda _: set(range(4)), raising=False)
    assert [worthwhile_workers(subject, episodes) for episodes in (1, 1999, 2000, 10**6)] == [1, 1, 2, 4]
