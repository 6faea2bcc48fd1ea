"""Several learners minimize the loss of one: the same update, the same statistics, the same bits as each other, and no hang."""

from __future__ import annotations

import multiprocessing
import os
import signal
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from multiprocessing.connection import Connection
from typing import Any

import numpy as np
import pytest
import torch
from learner.test_learner import RAW, Run, too_large
from runtime.test_ports import listening

from distppo.errors import PeerLostError, UserError
from distppo.learner import Learner, learner
from distppo.learner.group import LearnerGroup, Meeting, Place
from distppo.types import Rollout

HOST, CPU, SECONDS = "127.0.0.1", torch.device("cpu"), 60.0
ONE = {"learner.step": "torch"}
KL = {"ppo.lr_schedule": "kl", "ppo.lr_schedule_kl": 1e-3}
SETTINGS: list[dict[str, Any]] = [
    {},
    {"ppo.advantage_normalization": "batch"},
    {"ppo.advantage_normalization": "off", "normalization.values": True, "ppo.max_grad_norm": 0.05},
    {"ppo.recompute_advantages": True, "ppo.value_clip": 0.2, "network.shared": True},
    {**KL, "rollout.mode": "overlap"},
    {"ppo.learning_rate": 0.02, "ppo.target_kl": 1e-4},
    {"network.class": "own_networks:Gaussian"},
]


@contextmanager
def connections(size: int) -> Iterator[list[LearnerGroup]]:
    """Those of so many learners, each in a thread of this process."""
    meeting = Meeting(HOST)

    def join(rank: int) -> LearnerGroup:
        return LearnerGroup(rank, size, meeting.place, None if rank else meeting, host=HOST, seconds=SECONDS, device=CPU)

    with ThreadPoolExecutor(size) as threads:
        yield list(threads.map(join, range(size)))


def beside(run: Run, groups: list[LearnerGroup]) -> list[Learner]:
    """As many learners as connections, with the settings of a run and its learner's state."""
    learners = [Learner(run.config, run.collectors[0].spec, group=group) for group in groups]
    for each in learners:
        each.load_state(*run.learner.state())
    return learners


def updated(learners: list[Learner], rollouts: list[Rollout]) -> list[dict[str, float]]:
    """Has all learn at the same time, and returns what they report."""
    with ThreadPoolExecutor(len(learners)) as threads:
        return [metrics for _, metrics in threads.map(lambda each: each.update(*rollouts), learners)]


def learned(metrics: dict[str, float]) -> dict[str, float]:
    """The metrics without times."""
    return {name: value for name, value in metrics.items() if not name.endswith("seconds")}


@pytest.mark.parametrize("settings", SETTINGS, ids=lambda settings: ", ".join(settings) or "default")
@pytest.mark.parametrize("size", [2, 4])
def test_several_learners_make_the_update_of_one(size: int, settings: dict[str, Any], monkeypatch: pytest.MonkeyPatch) -> None:
    """Parameters within 1e-6 and every metric; among each other they have the same bits, after further updates too."""
    monkeypatch.setattr(learner, "SAMPLES_A_PASS", 10)
    one, run = Run(**ONE, **settings), Run(**{"learner.num_learners": size}, **settings)
    with connections(size) as groups:
        learners = beside(run, groups)
        several = updated(learners, run.collect(0))
        _, alone = one.learner.update(*one.collect(0))
        mine, its = learners[0].state()[0], one.learner.state()[0]
        np.testing.assert_allclose(mine["parameters"], its["parameters"], rtol=0, atol=1e-6)
        assert learned(several[0]) == pytest.approx(learned(alone), rel=1e-3, abs=1e-6, nan_ok=True)
        assert all(learned(metrics) == learned(several[0]) for metrics in several)
        run.snapshot = learners[0].snapshot()
        updated(learners, run.collect(1))
        assert len({each.digest() for each in learners}) == 1


def test_a_repetition_has_the_same_bits_and_the_digest_tells_other_ones() -> None:
    """So a group that is rebuilt repeats an update exactly."""
    digests = []
    for _ in range(2):
        run = Run(**{"learner.num_learners": 2})
        with connections(2) as groups:
            learners = beside(run, groups)
            updated(learners, run.collect(0))
            digests.append(learners[1].digest())
    assert digests[0] == digests[1]
    learners[1]._vectors.parameters[0] = np.nextafter(learners[1]._vectors.parameters[0], np.float32(9))
    assert learners[1].digest() != digests[1]


def test_a_gradient_that_is_not_finite_in_one_share_is_skipped_by_all() -> None:
    """All end alike."""
    run = Run(**RAW, **{"learner.num_learners": 2})
    with connections(2) as groups, ThreadPoolExecutor(2) as threads:
        rollouts = too_large(run, 0)
        for future in [threads.submit(each.update, *rollouts) for each in beside(run, groups)]:
            with pytest.raises(UserError, match=r"update 1 diverged: \d+ of \d+ gradients were not finite"):
                future.result()


@pytest.mark.long
def test_the_compiled_step_of_several_learners_is_the_eager_one() -> None:
    """In two graphs, with the sum between them."""
    ends = []
    for compiled in (False, True):
        run = Run(**{"learner.num_learners": 2, "learner.compile": compiled})
        with connections(2) as groups:
            learners = beside(run, groups)
            updated(learners, run.collect(0))
            assert len({each.digest() for each in learners}) == 1
            ends.append(learners[0].state()[0]["parameters"])
    np.testing.assert_allclose(ends[1], ends[0], rtol=0, atol=1e-6)


def _stay(place: Place, joined: Connection) -> None:
    """A learner that joins and then waits for what may come."""
    LearnerGroup(1, 2, place, None, host=HOST, seconds=SECONDS, device=CPU)
    joined.send(True)
    signal.pause()


@pytest.mark.parametrize(("number", "patience", "within"), [(signal.SIGKILL, SECONDS, 10.0), (signal.SIGSTOP, 1.0, 20.0)])
def test_nobody_waits_for_a_learner_that_is_gone(number: signal.Signals, patience: float, within: float) -> None:
    """Of a process that has died the others hear at once; one that is stopped is waited for as long as is said."""
    meeting, (mine, its) = Meeting(HOST), multiprocessing.Pipe()
    process = multiprocessing.get_context("spawn").Process(target=_stay, args=(meeting.place, its))
    process.start()
    try:
        group = LearnerGroup(0, 2, meeting.place, meeting, host=HOST, seconds=SECONDS, device=CPU)
        group.patience(patience)
        assert mine.recv()
        assert process.pid is not None
        os.kill(process.pid, number)
        began = time.monotonic()
        with pytest.raises(PeerLostError, match="learner 0 of 2 waited for another that is gone or hangs"):
            group.add(torch.zeros(1000))
        assert time.monotonic() - began < within
    finally:
        process.kill()
        process.join()


def test_learners_listen_on_the_address_they_are_given_alone() -> None:
    """As the store and torch's own connections would not, if they were left to themselves."""
    mine = {os.getpid()}
    before = listening(mine)
    with connections(2) as groups:
        opened = {port: address for port, address in listening(mine).items() if port not in before}
        assert len(groups) == 2 and opened and set(opened.values()) == {HOST}


def test_a_group_that_does_not_come_together_says_so() -> None:
    """And does not wait for ever."""
    meeting = Meeting(HOST)
    with pytest.raises(PeerLostError, match=rf"learner 0 of 2 did not find the others at {HOST}:{meeting.place.port}"):
        LearnerGroup(0, 2, meeting.place, meeting, host=HOST, seconds=1.0, device=CPU)
