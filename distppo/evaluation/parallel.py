"""Plays many episodes: in this process, or shared out over several. What comes of an episode does not depend on who plays it."""

from __future__ import annotations

import contextlib
import multiprocessing
import os
import signal
import sys
from collections.abc import Iterator, Sequence
from multiprocessing.connection import Connection
from typing import Any, NamedTuple

from distppo.envs import make_env
from distppo.errors import UserError
from distppo.evaluation.episodes import EpisodeResult, play_episodes
from distppo.evaluation.scene import WINDOW, prepare_scene
from distppo.evaluation.subject import Subject, require_same_spaces
from distppo.evaluation.values import Trace, ValueFunction, ValueUnits, play_traced

STEPS_A_PROCESS = 20_000
"""Env steps that are worth starting a process for, which takes about a second."""


class Job(NamedTuple):
    """Episodes to play.

    Attributes:
        subject: the policy and its environment.
        episodes: their indices.
        seed: of the evaluation.
        deterministic: take the most likely action.
        units: of the value function, for traces; None: results alone.
    """

    subject: Subject
    episodes: Sequence[int]
    seed: int
    deterministic: bool
    units: ValueUnits | None = None


def play(job: Job, workers: int = 1) -> tuple[list[EpisodeResult], list[Trace]]:
    """Returns the results of the episodes in order, and their traces where the job has units.

    Args:
        job: what to play.
        workers: processes that play, this one alone if 1. Several start a fresh interpreter each, so a script that calls this needs
            `if __name__ == "__main__":` around what it does.

    Raises:
        CheckpointError: the policy does not fit the environment.
        UserError: the environment cannot be made or breaks, or a process dies.
    """
    workers = min(workers, len(job.episodes))
    if workers <= 1:
        results, traces = _play_here(job)
    else:
        shares = [job._replace(episodes=job.episodes[index::workers]) for index in range(workers)]
        answers = _play_apart(shares)
        results, traces = ([item for answer in answers for item in answer[part]] for part in (0, 1))
    return sorted(results), sorted(traces, key=lambda trace: trace.result.episode)


def worthwhile_workers(subject: Subject, episodes: int) -> int:
    """Returns how many processes pay: one for every so many env steps, at most one a core."""
    longest = subject.config.env.max_episode_steps or subject.spec.max_episode_steps
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return 1 if longest is None else max(1, min(cores, episodes, episodes * longest // STEPS_A_PROCESS))


def _play_here(job: Job) -> tuple[list[EpisodeResult], list[Trace]]:
    subject = job.subject
    policy = subject.policy()
    env, spec = make_env(subject.config.env)
    with contextlib.closing(env):
        require_same_spaces(subject.spec, spec, subject.path)
        if env.render_mode == "human":
            prepare_scene(env, *WINDOW)
        if job.units is None:
            return play_episodes(env, spec, policy, job.episodes, seed=job.seed, deterministic=job.deterministic), []
        assert subject.snapshot is not None
        value = ValueFunction(subject.snapshot, job.units)
        traces = play_traced(env, spec, policy, value, job.episodes, seed=job.seed, deterministic=job.deterministic)
        return [trace.result for trace in traces], traces


def _play_apart(shares: Sequence[Job]) -> list[Any]:
    """Returns what each share comes to, played in a process each."""
    context = multiprocessing.get_context("spawn")  # a fork copies the threads' locks of whatever this process has loaded
    with contextlib.ExitStack() as stack:
        ends = [stack.enter_context(_process(context, share)) for share in shares]
        return [_answer(end) for end in ends]


@contextlib.contextmanager
def _process(context: Any, share: Job) -> Iterator[Connection]:
    ours, theirs = context.Pipe(duplex=False)
    process = context.Process(target=_serve, args=(theirs, share), daemon=True)
    process.start()
    theirs.close()
    try:
        yield ours
    finally:
        process.terminate()
        process.join()
        ours.close()


def _answer(end: Connection) -> Any:
    try:
        answer = end.recv()
    except EOFError:
        raise UserError(
            "a process that played episodes died; its memory or the environment's own code may be the reason. Try --workers 1. "
            "(A script that evaluates with several workers needs `if __name__ == '__main__':` around what it does)"
        ) from None
    if isinstance(answer, BaseException):
        raise answer
    return answer


def _serve(end: Connection, share: Job) -> None:
    """Plays a share and sends what comes of it. The terminal's Ctrl-C is for the process that started this one, and so is stdout."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    os.dup2(sys.stderr.fileno(), 1)
    try:
        end.send(_play_here(share))
    except UserError as error:
        end.send(UserError(str(error)))
