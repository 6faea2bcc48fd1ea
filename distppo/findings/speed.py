"""Rules over time: who waits for whom, and what takes time that should not."""

from __future__ import annotations

import statistics
from collections.abc import Iterator

from distppo.findings.finding import Hit, Rule, RunRecord, Severity, number
from distppo.findings.series import between, median, tail

PHASES = ("collect", "update", "broadcast", "evaluate", "checkpoint", "other")
LEAST_ROWS = 8
WORKERS_IDLE = 0.6
LEARNER_IDLE = 0.85
SLOW_WORKER = 1.5
MEASURABLE = 0.02
"""Seconds below which a fragment's time says more about the clock than about the worker."""
WAITING = 1.5
LIMITS = {"evaluate": 0.4, "checkpoint": 0.1, "broadcast": 0.1, "other": 0.15}
SLOWED = 0.5


def _shares(run: RunRecord) -> dict[str, float]:
    """Part of all time that each phase took; empty with too little to judge by."""
    if len(run.rows) < LEAST_ROWS:
        return {}
    seconds = {phase: sum(number(row.get(f"time/{phase}"), 0.0) for row in run.rows) for phase in PHASES}
    total = sum(seconds.values())
    return {phase: value / total for phase, value in seconds.items()} if total > 0 else {}


def workers_idle(run: RunRecord) -> Iterator[Hit]:
    """The workers wait for the learner most of the time."""
    part = _shares(run).get("update", 0.0)
    if part > WORKERS_IDLE:
        meanwhile = "" if run.settings.get("rollout.mode") == "overlap" else " while the workers waited"
        yield Hit(f"The learner's update took {part:.0%} of the time{meanwhile}.", 0, run.steps)


def learner_idle(run: RunRecord) -> Iterator[Hit]:
    """The learner waits for the workers most of the time, and the machine has cores that nobody uses."""
    part = _shares(run).get("collect", 0.0)
    workers = number(run.rows[-1].get("dist/workers"), None) if run.rows else None
    machine = next((event.get("machine") for event in reversed(run.events) if event.get("event") == "started"), None)
    cores = number(machine.get("cores"), None) if isinstance(machine, dict) else None
    if part > LEARNER_IDLE and workers is not None and cores is not None and workers < cores:
        yield Hit(
            f"Collecting took {part:.0%} of the time, with {workers:g} worker{'s' * (workers != 1)} on {cores:g} cores.", 0, run.steps
        )


def slow_worker(run: RunRecord) -> Iterator[Hit]:
    """One worker is much slower than the others, iteration after iteration; everybody waits for it."""
    rows = [
        (int(row["time/total_timesteps"]), row["dist/worker_seconds_max"] / row["dist/worker_seconds_mean"])
        for row in tail(run.rows, 0.5, least=LEAST_ROWS)
        if number(row.get("dist/worker_seconds_mean"), 0.0) > MEASURABLE and number(row.get("dist/worker_seconds_max"), None) is not None
    ]
    if len(rows) >= LEAST_ROWS and statistics.median(ratio for _, ratio in rows) > SLOW_WORKER:
        ratio = statistics.median(ratio for _, ratio in rows)
        yield Hit(
            f"The slowest worker took {ratio:.1f} times as long as the mean of all, between {rows[0][0]:,} and {rows[-1][0]:,} env steps.",
            rows[0][0],
            rows[-1][0],
        )


def fragments_late(run: RunRecord) -> Iterator[Hit]:
    """Waiting for fragments takes much longer than the slowest worker needs for one: they queue for cores or for the network."""
    if run.settings.get("rollout.mode") == "overlap" or _shares(run).get("collect", 0.0) < 0.2:
        return
    rows = [
        (row["time/collect"], row["dist/worker_seconds_max"])
        for row in tail(run.rows, 0.5, least=LEAST_ROWS)
        if number(row.get("dist/worker_seconds_max"), 0.0) > MEASURABLE and number(row.get("time/collect"), None) is not None
    ]
    if len(rows) >= LEAST_ROWS:
        waited, worked = (statistics.median(column) for column in zip(*rows, strict=True))
        if waited > WAITING * worked:
            yield Hit(
                f"An iteration waited {waited:.2f} s for its fragments, of which the slowest worker needed {worked:.2f} s to collect one.",
                0,
                run.steps,
            )


def evaluation_slow(run: RunRecord) -> Iterator[Hit]:
    """Evaluation takes a large part of the time."""
    yield from _over_limit(run, "evaluate", "Evaluation")


def disk_slow(run: RunRecord) -> Iterator[Hit]:
    """Saving, or what the driver does besides, takes a noticeable part of the time."""
    yield from _over_limit(run, "checkpoint", "Saving checkpoints")
    yield from _over_limit(run, "other", "Writing metrics and the rest of the driver's loop")


def broadcast_slow(run: RunRecord) -> Iterator[Hit]:
    """Sending the new weights takes a noticeable part of the time."""
    yield from _over_limit(run, "broadcast", "Sending the new weights")


def _over_limit(run: RunRecord, phase: str, what: str) -> Iterator[Hit]:
    part = _shares(run).get(phase, 0.0)
    mean = statistics.fmean(number(row.get(f"time/{phase}"), 0.0) for row in run.rows) if run.rows else 0.0
    if part > LIMITS[phase] and mean > MEASURABLE:
        yield Hit(f"{what} took {part:.0%} of the time.", 0, run.steps)


def slowed_down(run: RunRecord) -> Iterator[Hit]:
    """Iterations are much slower than they were."""
    points = run.series("time/fps_iteration")
    if len(points) < 4 * LEAST_ROWS:
        return
    quarter = len(points) // 4
    before, after = points[quarter // 2 : quarter + quarter // 2], points[-quarter:]
    if median(after) < SLOWED * median(before):
        yield Hit(
            f"Speed fell from {median(before):,.0f} to {median(after):,.0f} env steps/s, {between(after)}.", after[0].step, after[-1].step
        )


RULES = (
    Rule(
        "Workers are idle",
        Severity.NOTE,
        "Raise ppo.mini_batch_size, use the fused step (learner.step fused), lower ppo.epochs, or hide the update behind collecting with "
        "rollout.mode overlap.",
        workers_idle,
    ),
    Rule(
        "The learner is idle",
        Severity.NOTE,
        "Raise rollout.num_workers up to the number of cores, with rollout.num_envs a multiple of it.",
        learner_idle,
    ),
    Rule(
        "One worker is slow",
        Severity.WARNING,
        "Make rollout.num_envs a multiple of rollout.num_workers; see what else runs on the slow worker's core or node.",
        slow_worker,
    ),
    Rule(
        "Fragments arrive late",
        Severity.WARNING,
        "Use fewer workers if there are more of them than cores; on a cluster look at the network and at the size of /dev/shm.",
        fragments_late,
    ),
    Rule(
        "Evaluation takes too long",
        Severity.NOTE,
        "Raise evaluation.every or lower evaluation.episodes.",
        evaluation_slow,
    ),
    Rule(
        "The disk is slow",
        Severity.NOTE,
        "Raise run.checkpoint_every, or put the run on a local disk (--run-dir).",
        disk_slow,
    ),
    Rule(
        "Sending weights takes too long",
        Severity.NOTE,
        "Look at the network between the nodes, and at the size of /dev/shm, which the object store uses.",
        broadcast_slow,
    ),
    Rule(
        "Training slowed down",
        Severity.WARNING,
        "See which phase grew; look for other processes on the machine, throttling and swapping. Longer episodes can cost more physics.",
        slowed_down,
    ),
)
