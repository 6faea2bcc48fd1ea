"""Rules over episode returns and evaluations: a run that does not learn, forgets, is trapped, or is judged by too little."""

from __future__ import annotations

import statistics
from collections.abc import Callable, Iterator, Mapping, Sequence

from distppo.findings.finding import Hit, Point, Rule, RunRecord, Severity, number
from distppo.findings.series import between, jitter, smoothed, tail

RETURN, EVALUATION = "rollout/ep_rew_mean", "eval/mean_reward"
LEAST_ROWS = 16
"""Rows with a return before anything is said about where it goes."""
NOISE = 4.0
"""A change counts from so many times the usual one between two rows."""
LOST = 0.3
"""Part of what had been gained whose loss is a collapse."""
FAR_BELOW = 0.5
RISING = 0.5
"""A seed still rises that gains so much of its own average pace."""
ENDLESS = 10_000
"""Env steps of each environment without the end of an episode."""
OVERDUE = 1.5
"""Time limits without the end of an episode, where the limit is longer than that."""
ENDLESS_ROWS = 20
LEAST_SEEDS = 3
SEED_SPREAD = 0.3
LEAST_EVALUATIONS = 3


def returns_stuck(run: RunRecord) -> Iterator[Hit]:
    """The return is where it began."""
    points = run.series(RETURN)
    if len(points) < LEAST_ROWS:
        return
    windows = smoothed(points)
    best = max(windows[1:], key=lambda point: point.value)
    gain = best.value - windows[0].value
    if gain <= max(NOISE * jitter(points), 0.02 * abs(windows[0].value)):
        yield Hit(
            f"The episode return has not risen: {windows[0].value:,.1f} at the beginning, {windows[-1].value:,.1f} at {points[-1].step:,} "
            f"env steps, {best.value:,.1f} at best.",
            points[0].step,
            points[-1].step,
        )


def returns_collapsed(run: RunRecord) -> Iterator[Hit]:
    """The return had risen, and has lost a good part of it."""
    points = run.series(RETURN)
    if len(points) < LEAST_ROWS:
        return
    windows = smoothed(points)
    best = max(windows, key=lambda point: point.value)
    gained, lost = best.value - windows[0].value, best.value - windows[-1].value
    if lost > LOST * gained and lost > NOISE * jitter(points) and gained > NOISE * jitter(points):
        yield Hit(
            f"The episode return fell from {best.value:,.1f} at {best.step:,} env steps to {windows[-1].value:,.1f} at "
            f"{points[-1].step:,}: {lost / gained:.0%} of what had been gained.",
            best.step,
            points[-1].step,
        )


def trapped(run: RunRecord) -> Iterator[Hit]:
    """The return stands still far below what an evaluation of this run had reached, and newer evaluations do not reach it again."""
    points, evaluations = run.series(RETURN), run.series(EVALUATION)
    if len(points) < LEAST_ROWS or len(evaluations) < LEAST_EVALUATIONS:
        return
    windows = smoothed(points)
    recent = tail(windows, 0.3, least=3)
    start, end = windows[0].value, statistics.fmean(point.value for point in recent)
    best = max(evaluations, key=lambda point: point.value)
    newest = statistics.fmean(point.value for point in evaluations[-2:])
    flat = max(point.value for point in recent) - min(point.value for point in recent) <= 0.1 * (best.value - start)
    limit = start + FAR_BELOW * (best.value - start)
    if best.value > start and flat and end < limit and newest < limit:
        yield Hit(
            f"The episode return stands at {end:,.1f} {between(recent)}, and the last two evaluations at {newest:,.1f}, where the best had "
            f"reached {best.value:,.1f} at {best.step:,} env steps.",
            recent[0].step,
            recent[-1].step,
        )


def evaluation_below_training(run: RunRecord) -> Iterator[Hit]:
    """Without its noise the policy does much worse than with it."""
    both = [row for row in run.rows if number(row.get(EVALUATION), None) is not None and number(row.get(RETURN), None) is not None]
    returns = run.series(RETURN)
    if len(both) < LEAST_EVALUATIONS or len(returns) < LEAST_EVALUATIONS:
        return
    recent = both[-LEAST_EVALUATIONS:]
    trained = statistics.fmean(row[RETURN] for row in recent)
    evaluated = statistics.fmean(row[EVALUATION] for row in recent)
    spread = statistics.fmean(number(row.get("eval/std_reward"), 0.0) for row in recent)
    span = max(point.value for point in returns) - min(point.value for point in returns)
    if trained - evaluated > max(0.3 * span, 2.0 * spread) and trained > returns[0].value:
        yield Hit(
            f"The last {len(recent)} evaluations returned {evaluated:,.1f} on average, training {trained:,.1f} at the same time.",
            int(recent[0]["time/total_timesteps"]),
            int(recent[-1]["time/total_timesteps"]),
        )


def evaluations_noisy(run: RunRecord) -> Iterator[Hit]:
    """Evaluations say little, because their episodes differ as much as the run has gained."""
    points, spreads = run.series(EVALUATION), run.series("eval/std_reward")
    returns = run.series(RETURN)
    if len(points) < LEAST_EVALUATIONS or not spreads or not returns:
        return
    gained = max(point.value for point in points) - returns[0].value
    recent = tail(spreads, 0.5, least=LEAST_EVALUATIONS)
    spread = statistics.median(point.value for point in recent)
    episodes = number(run.rows[-1].get("eval/episodes"), number(run.settings.get("evaluation.episodes"), None))
    if gained > 0 and spread > 0.5 * gained:
        count = "" if episodes is None else f" over {episodes:g} episodes"
        yield Hit(
            f"The returns of an evaluation{count} have a standard deviation of {spread:,.1f}, where the run has gained {gained:,.1f} "
            f"altogether, {between(recent)}.",
            recent[0].step,
            recent[-1].step,
        )


def episodes_endless(run: RunRecord) -> Iterator[Hit]:
    """No episode has ended for long: there are no returns to look at, and returns are bootstrapped all the time."""
    rows = [row for row in run.rows if "rollout/episodes" in row]
    ended = max((index for index, row in enumerate(rows) if number(row.get("rollout/episodes"), 0) > 0), default=-1)
    silent = rows[ended + 1 :]
    if not silent:
        return
    before = rows[ended]["time/total_timesteps"] if ended >= 0 else 0
    waited = silent[-1]["time/total_timesteps"] - before
    num_envs = number(run.settings.get("rollout.num_envs"), None)
    patience = max(ENDLESS, OVERDUE * number(run.settings.get("env.max_episode_steps"), 0))
    if len(silent) >= ENDLESS_ROWS if num_envs is None else waited >= patience * num_envs:
        each = "" if num_envs is None else f" ({waited / num_envs:,.0f} of each environment)"
        since = "No episode has ended" if ended < 0 else f"No episode has ended since {before:,} env steps"
        yield Hit(f"{since}: {waited:,} env steps{each}.", int(before), run.steps)


SEEDS_DIFFER = Rule(
    "Seeds differ widely",
    Severity.WARNING,
    "Compare interquartile means over 5 seeds or more, never single runs. Larger batches (rollout.num_envs, rollout.num_steps), a lower or "
    "falling ppo.learning_rate and more env steps bring seeds together.",
)
SEED_TRAPPED = Rule(
    "A policy is trapped",
    Severity.WARNING,
    "Evaluate RUN@best, which is kept, and train other seeds. Begin with less noise (network.initial_log_std -0.5): much of it throws "
    "HalfCheetah onto its back, where it learns to run. Where the noise has died out early instead (train/std), raise ppo.entropy_coef.",
    trapped,
)


def seeds_differ(runs: Mapping[str, RunRecord]) -> Iterator[Hit]:
    """The seeds of one configuration end far apart, measured by what they have gained."""
    ends = _ends(runs)
    if len(ends) < LEAST_SEEDS:
        return
    firsts = [run.series(RETURN)[0].value for run in runs.values() if run.series(RETURN)]
    finals = [point.value for point in ends.values()]
    gained = statistics.median(finals) - statistics.median(firsts)
    spread = statistics.stdev(finals)
    if spread > SEED_SPREAD * abs(gained) and spread > 0.1 * abs(statistics.median(firsts)):
        yield Hit(
            f"The last returns of {len(finals)} seeds range from {min(finals):,.1f} to {max(finals):,.1f}: a standard deviation of "
            f"{spread:,.1f}, {spread / abs(gained) if gained else 0:.0%} of what the median seed has gained.",
            0,
            max(point.step for point in ends.values()),
        )


def seed_trapped(runs: Mapping[str, RunRecord]) -> Iterator[Hit]:
    """One seed stands still far below where the others are."""
    yield from trapped_among(runs).values()


def trapped_among(runs: Mapping[str, RunRecord]) -> dict[str, Hit]:
    """The seeds that stand still below half of what the median of the others has gained, and what was seen; of three seeds or more."""
    ends = _ends(runs)
    hits: dict[str, Hit] = {}
    if len(ends) < LEAST_SEEDS:
        return hits
    for name, end in ends.items():
        others = statistics.median(point.value for other, point in ends.items() if other != name)
        windows = smoothed(runs[name].series(RETURN))
        gained = others - windows[0].value
        recent = tail(windows, 0.3, least=3)
        moved = max(point.value for point in recent) - min(point.value for point in recent)
        own, noise = end.value - windows[0].value, NOISE * jitter(runs[name].series(RETURN))
        # Few rows of a steady rise move no more than noise would: their neighbours differ by the rise itself.
        pace = RISING * own * (len(recent) - 1) / (len(windows) - 1)
        rising = own > noise and recent[-1].value - recent[0].value >= pace
        if gained > 0 and moved <= max(0.1 * own, noise) and not rising and own < FAR_BELOW * gained:
            hits[name] = Hit(
                f"{name} stands at {end.value:,.1f} {between(recent)}, where the median of the other seeds is {others:,.1f}.",
                recent[0].step,
                recent[-1].step,
            )
    return hits


def _ends(runs: Mapping[str, RunRecord]) -> dict[str, Point]:
    """The last smoothed return of each run that has enough of them."""
    series = {name: run.series(RETURN) for name, run in runs.items()}
    return {name: smoothed(points)[-1] for name, points in series.items() if len(points) >= LEAST_ROWS // 2}


BETWEEN_SEEDS: Sequence[tuple[Rule, Callable[[Mapping[str, RunRecord]], Iterator[Hit]]]] = (
    (SEEDS_DIFFER, seeds_differ),
    (SEED_TRAPPED, seed_trapped),
)

RULES = (
    Rule(
        "Returns do not rise",
        Severity.PROBLEM,
        "Look at explained variance and KL first. Then check the environment (env check ID), start from the recipe of the nearest task "
        "under configs/, raise ppo.entropy_coef, and compare ppo.gamma with the episode's length.",
        returns_stuck,
    ),
    SEED_TRAPPED,
    Rule(
        "Episodes never end",
        Severity.WARNING,
        "Give the environment a time limit (env.max_episode_steps), or see why its episodes do not end.",
        episodes_endless,
    ),
    Rule(
        "Returns collapsed late",
        Severity.PROBLEM,
        "Let the learning rate fall (ppo.lr_schedule linear), lower ppo.learning_rate or ppo.epochs, set ppo.target_kl to 0.02. "
        "The best checkpoint is kept: RUN@best.",
        returns_collapsed,
    ),
    Rule(
        "Evaluation far below training",
        Severity.WARNING,
        "The policy relies on its noise: train longer, lower ppo.entropy_coef. Compare evaluate with and without --stochastic; "
        "if both are low, the normalizer or the environment of the evaluation differs from that of training.",
        evaluation_below_training,
    ),
    Rule(
        "Evaluations are noisy",
        Severity.NOTE,
        "Raise evaluation.episodes, and choose between checkpoints by evaluate --episodes 50.",
        evaluations_noisy,
    ),
    SEEDS_DIFFER,
)
