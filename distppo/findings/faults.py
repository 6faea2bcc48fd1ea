"""Rules over faults: what went wrong and was put up with, and what ended the run."""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Callable, Iterator

from distppo.findings.finding import STEPS, Hit, Rule, RunRecord, Severity, number

MOST_TEXT = 300
"""Characters of a message that are repeated."""


def counted(run: RunRecord, key: str) -> tuple[int, int]:
    """How often something happened in the whole run, and the env steps of the first time.

    The counters begin at 0 in every process that goes on with a run, so what is added up are their rises. What a process did after the
    checkpoint that the next one went on from is taken back with its rows.
    """
    total, first, before, process = 0, 0, 0, 0
    begun = _beginnings(run)
    for row in run.rows:
        steps = int(row[STEPS])
        if (newer := bisect_left(begun, steps)) != process:
            process, before = newer, 0
        now = int(number(row.get(key), before))
        rise = now - before if now >= before else now
        if rise > 0:
            first = first if total else steps
            total += rise
        before = now
    return total, first


def _beginnings(run: RunRecord) -> list[int]:
    """The env steps from which each process went on, rising; those at or above where a later one went on have no rows left."""
    begun: list[int] = []
    for event in run.events:
        at = number(event.get("env_steps"), None)
        if event.get("event") in ("started", "resumed") and at is not None:
            while begun and begun[-1] >= at:
                begun.pop()
            begun.append(int(at))
    return begun


def _reason(run: RunRecord, kinds: tuple[str, ...]) -> str:
    """The newest event of these kinds, in its own words."""
    for event in reversed(run.events):
        if event.get("event") == "fault" and event.get("what") in kinds:
            words = " ".join(f"{event.get('where')}: {event.get('why')}".split())
            return f" The last one: {words[:MOST_TEXT]}"
    return ""


def _check(keys: tuple[str, ...], one: str, several: str, kinds: tuple[str, ...]) -> Callable[[RunRecord], Iterator[Hit]]:
    """A rule over counters of one kind; `one` and `several` name what they count."""

    def check(run: RunRecord) -> Iterator[Hit]:
        found = [(total, first) for total, first in (counted(run, key) for key in keys) if total]
        if found:
            total, first = sum(total for total, _ in found), min(first for _, first in found)
            yield Hit(f"{total} {one if total == 1 else several}, the first by {first:,} env steps.{_reason(run, kinds)}", first, run.steps)

    return check


def ended_by_error(run: RunRecord) -> Iterator[Hit]:
    """The last thing that is known of the run is an error."""
    ends = [event for event in run.events if event.get("event") in ("error", "started", "finished", "interrupted", "stopped")]
    if ends and ends[-1]["event"] == "error":
        at = int(number(ends[-1].get("env_steps"), run.steps))
        message = " ".join(f"{ends[-1].get('kind')}: {ends[-1].get('message')}".split())
        yield Hit(f"The run ended with an error at {at:,} env steps. {message[:MOST_TEXT]}", at, at)


RULES = (
    Rule(
        "The run ended with an error",
        Severity.PROBLEM,
        "Its last checkpoint is whole: train --resume RUN goes on from it when the cause is mended.",
        ended_by_error,
    ),
    Rule(
        "Environments broke",
        Severity.WARNING,
        "Read the fault events, and step to the fault with the command replay RUN; then mend the environment.",
        _check(
            ("faults/env_restarts",),
            "environment was made anew because its code raised",
            "environments were made anew because their code raised",
            ("env_error",),
        ),
    ),
    Rule(
        "Environments gave NaN",
        Severity.WARNING,
        "Look at the record with the command replay RUN. Always at the same kind of state: a division in the reward, or a simulation step "
        "that is too long.",
        _check(
            ("faults/nonfinite",),
            "environment gave a number that is not finite and was made anew",
            "environments gave a number that is not finite and were made anew",
            ("env_nonfinite",),
        ),
    ),
    Rule(
        "Updates were dropped",
        Severity.PROBLEM,
        "Lower ppo.learning_rate and turn on normalization.rewards; the weights stood still in these updates.",
        _check(
            ("faults/skipped_updates",),
            "update was dropped because a loss or gradient was not finite",
            "updates were dropped because a loss or gradient was not finite",
            ("update_skipped",),
        ),
    ),
    Rule(
        "Workers were replaced",
        Severity.WARNING,
        "Out of memory is the usual reason for a death, a simulator that does not return for a hang (fault.collect_timeout). "
        "The results are those of an undisturbed run.",
        _check(
            ("faults/worker_restarts",),
            "worker died or hung and was replaced",
            "workers died or hung and were replaced",
            ("worker_died", "worker_hung"),
        ),
    ),
    Rule(
        "The learner was rebuilt",
        Severity.WARNING,
        "Out of memory is the usual reason. The results are those of an undisturbed run.",
        _check(
            ("faults/learner_restarts",),
            "time the learner died and was rebuilt from its last state",
            "times the learner died and was rebuilt from its last state",
            ("learner_died",),
        ),
    ),
    Rule(
        "Nodes or connections were lost",
        Severity.NOTE,
        "Results are the same, time is lost. Ask for nodes that stay, or use fewer workers than the cluster has CPUs.",
        _check(
            ("faults/unreachable", "faults/takeovers", "faults/fragments_lost", "faults/nodes_draining"),
            "call, fragment or node was lost and made good",
            "calls, fragments or nodes were lost and made good",
            ("worker_unreachable", "learner_unreachable", "worker_away", "fragment_lost", "node_draining"),
        ),
    ),
    Rule(
        "Episodes were restarted",
        Severity.NOTE,
        "The environment's state could not be carried over; it can define capture_state and restore_state (docs/reliability.md).",
        _check(
            ("faults/episodes_restarted",),
            "environment had to start a new episode",
            "environments had to start a new episode",
            ("episode_restarted",),
        ),
    ),
    Rule(
        "Checkpoints could not be saved",
        Severity.PROBLEM,
        "Free space on the disk of the run, or lower run.keep_checkpoints; the run ends when fault.max_checkpoint_failures is passed.",
        _check(
            ("faults/checkpoint_failures", "faults/metrics_failures"),
            "checkpoint or batch of metrics was refused by the disk",
            "checkpoints or batches of metrics were refused by the disk",
            ("checkpoint_failed", "metrics_failed"),
        ),
    ),
)
