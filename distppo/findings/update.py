"""Rules over the size of the updates, and over what is left to explore with.

The limits are those of docs/metrics.md, wide enough that the recipes under configs/ stay inside them.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator

from distppo.findings.finding import Hit, Point, Rule, RunRecord, Severity, number
from distppo.findings.series import PERSISTENT, WARM_UP, between, longest_stretch, median, share, smoothed, tail

HIGH_CLIP_FRACTION = 0.55
HIGH_KL = 0.05
KL_OVER_TARGET = 3.0
SMALL_KL = 5e-4
SMALL_CLIP_FRACTION = 5e-3
LOW_STD = 0.05
STD_GROWTH = 2.0
LOW_ENTROPY = 0.05


def _stretch(run: RunRecord, key: str, holds: Callable[[float], bool]) -> list[Point]:
    """The longest stretch for which something holds, if it is a persistent one, else nothing."""
    stretch = longest_stretch(run.series(key)[WARM_UP:], holds)
    return stretch if len(stretch) >= PERSISTENT else []


def clip_fraction_high(run: RunRecord) -> Iterator[Hit]:
    """Much of every batch has left the clip range."""
    if stretch := _stretch(run, "train/clip_fraction", lambda value: value > HIGH_CLIP_FRACTION):
        highest = max(point.value for point in stretch)
        yield Hit(
            f"{median(stretch):.0%} of the samples were outside the clip range, up to {highest:.0%}, in {len(stretch)} updates in a row, "
            f"{between(stretch)}.",
            stretch[0].step,
            stretch[-1].step,
        )


def kl_high(run: RunRecord) -> Iterator[Hit]:
    """The policy moves further in an update than the surrogate objective holds for, or than was asked for."""
    target = number(run.settings.get("ppo.target_kl"), None)
    limit = HIGH_KL if target is None else KL_OVER_TARGET * target
    if stretch := _stretch(run, "train/approx_kl", lambda value: value > limit):
        asked = f"{limit:g} is where trouble begins" if target is None else f"ppo.target_kl is {target:g}"
        yield Hit(
            f"The policy moved by a KL of {median(stretch):.3f} nats an update ({asked}), up to "
            f"{max(point.value for point in stretch):.3f}, in {len(stretch)} updates in a row, {between(stretch)}.",
            stretch[0].step,
            stretch[-1].step,
        )


def kl_stops_updates(run: RunRecord) -> Iterator[Hit]:
    """target_kl ends most updates after their first epochs."""
    points = run.series("train/epochs")[WARM_UP:]
    planned = number(run.settings.get("ppo.epochs"), max((point.value for point in points), default=0))
    if planned < 2 or len(points) < PERSISTENT or run.settings.get("ppo.target_kl", True) is None:
        return
    few = max(1.0, 0.3 * planned)
    recent = tail(points, 0.5, least=PERSISTENT)
    stopped = share(recent, lambda value: value <= few)
    if stopped >= 0.8:
        yield Hit(
            f"ppo.target_kl ended {stopped:.0%} of the updates {between(recent)} after {median(recent):g} of {planned:g} epochs.",
            recent[0].step,
            recent[-1].step,
        )


def updates_small(run: RunRecord) -> Iterator[Hit]:
    """Updates change next to nothing although the learning rate has not run out."""
    rates = {point.step: point.value for point in run.series("train/learning_rate")}
    full = max(rates.values(), default=0.0)
    clips = {point.step: point.value for point in run.series("train/clip_fraction")}
    points = run.series("train/approx_kl")[WARM_UP:]
    small = {
        point.step
        for point in points
        if point.value < SMALL_KL and clips.get(point.step, 0.0) < SMALL_CLIP_FRACTION and rates.get(point.step, full) >= 0.5 * full
    }
    if len(points) >= PERSISTENT and len(small) >= 0.5 * len(points):
        yield Hit(
            f"{len(small)} of {len(points)} updates {between(points)} moved the policy by a KL below {SMALL_KL:g} nats and clipped nearly "
            "nothing: hardly anything was learned.",
            points[0].step,
            points[-1].step,
        )


def entropy_collapsed(run: RunRecord) -> Iterator[Hit]:
    """A policy over choices has become certain early. The entropy of continuous actions has no zero; see `std_collapsed`."""
    points = [Point(step, -value) for step, value in run.series("train/entropy_loss")]
    if run.series("train/std") or len(points) < 2 * PERSISTENT or points[0].value <= 0:
        return
    early = [point for point in points if point.step <= 0.5 * run.planned_steps]
    fallen = [point for point in early if point.value < LOW_ENTROPY * points[0].value]
    if fallen and points[-1].value < LOW_ENTROPY * points[0].value:
        yield Hit(
            f"Entropy fell from {points[0].value:.3g} to {fallen[0].value:.2g} nats by {fallen[0].step:,} env steps, "
            f"{fallen[0].step / run.planned_steps:.0%} of the run: the policy no longer tries anything else.",
            fallen[0].step,
            points[-1].step,
        )


def std_collapsed(run: RunRecord) -> Iterator[Hit]:
    """The noise of continuous actions is gone early."""
    points = run.series("train/std")
    early = [point for point in points if point.step <= 0.5 * run.planned_steps and point.value < LOW_STD]
    if len(points) >= PERSISTENT and early and points[-1].value < LOW_STD:
        yield Hit(
            f"The standard deviation of the actions was {early[0].value:.3f} at {early[0].step:,} env steps, "
            f"{early[0].step / run.planned_steps:.0%} of the run (it began at {points[0].value:.2f}): exploration ended early.",
            early[0].step,
            points[-1].step,
        )


def std_grows(run: RunRecord) -> Iterator[Hit]:
    """The noise of continuous actions grows instead of falling."""
    points = smoothed(run.series("train/std"))
    if len(points) >= PERSISTENT and points[-1].value > STD_GROWTH * points[0].value:
        yield Hit(
            f"The standard deviation of the actions grew from {points[0].value:.2f} to {points[-1].value:.2f} {between(points)}: "
            "more and more of every action is noise, cut off at the bounds.",
            points[0].step,
            points[-1].step,
        )


RULES = (
    Rule(
        "Clip fraction too high",
        Severity.WARNING,
        "Lower ppo.learning_rate or ppo.epochs, raise ppo.mini_batch_size, or collect more steps an update (rollout.num_steps).",
        clip_fraction_high,
    ),
    Rule(
        "KL too high",
        Severity.WARNING,
        "Lower ppo.learning_rate, let it fall (ppo.lr_schedule linear, or kl, which holds the KL), do fewer epochs, or set ppo.target_kl "
        "to 0.02.",
        kl_high,
    ),
    Rule(
        "KL stops every update",
        Severity.WARNING,
        "Lower ppo.learning_rate until most epochs are done again, or raise ppo.target_kl; stopping is meant as an exception.",
        kl_stops_updates,
    ),
    Rule(
        "Updates change next to nothing",
        Severity.WARNING,
        "Raise ppo.learning_rate or ppo.epochs, or lower ppo.mini_batch_size; check that the reward says anything at all.",
        updates_small,
    ),
    Rule(
        "Entropy collapsed",
        Severity.WARNING,
        "Raise ppo.entropy_coef (0.01, then 0.02), lower ppo.learning_rate, and look whether the return was near its best by then.",
        entropy_collapsed,
    ),
    Rule(
        "Action noise collapsed",
        Severity.WARNING,
        "Raise ppo.entropy_coef or network.initial_log_std, or lower ppo.learning_rate.",
        std_collapsed,
    ),
    Rule(
        "Action noise grows",
        Severity.WARNING,
        "Lower ppo.entropy_coef (0 for most locomotion tasks): its bonus outweighs the reward. Check that the actions' bounds are the ones "
        "that the environment uses.",
        std_grows,
    ),
)
