"""Rules over what is minimized: the critic, the gradients, and numbers that are none.

The limits are those of docs/metrics.md, wide enough that the recipes under configs/ stay inside them.
"""

from __future__ import annotations

from collections.abc import Iterator

from distppo.findings.finding import Hit, Rule, RunRecord, Severity, is_finite, number
from distppo.findings.series import PERSISTENT, WARM_UP, between, longest_stretch, median

FLAT_RETURNS = 0.05
"""Standard deviation of the scaled returns below which there is nothing for a critic to explain."""
LARGE_RETURNS = 100.0
NORM_OVER_LIMIT = 100.0
VALUE_LOSS_GROWTH = 10.0
RATIO_ERROR = 1e-2


def explained_variance_below_zero(run: RunRecord) -> Iterator[Hit]:
    """The critic predicts worse than the mean of the returns would, where these do vary."""
    flat = {row_steps for row_steps, spread in run.series("value/return_std") if spread < FLAT_RETURNS}
    points = [point for point in run.series("train/explained_variance")[WARM_UP:] if point.step not in flat]
    stretch = longest_stretch(points, lambda value: value < 0)
    if len(stretch) >= PERSISTENT:
        lowest = min(point.value for point in stretch)
        now = stretch[-1].step == points[-1].step
        yield Hit(
            f"Explained variance was below 0 in {len(stretch)} updates in a row, {between(stretch)} (lowest {lowest:.2f}): the critic "
            "predicted worse than one constant number would.",
            stretch[0].step,
            stretch[-1].step,
            Severity.PROBLEM if now else Severity.WARNING,
        )


def value_loss_grows(run: RunRecord) -> Iterator[Hit]:
    """The critic's error is many times what it was, over a good part of the run."""
    points = run.series("train/value_loss")[WARM_UP:]
    if len(points) < 2 * PERSISTENT:
        return
    quarter, half = points[: len(points) // 4], points[: len(points) // 2]
    usual = max(median(quarter), median(half))
    stretch = longest_stretch(points[len(quarter) :], lambda value: value > VALUE_LOSS_GROWTH * usual)
    if usual > 0 and len(stretch) >= WARM_UP:
        highest = max(point.value for point in stretch)
        yield Hit(
            f"The value loss grew from {usual:.3g} (median up to {half[-1].step:,} env steps) to {highest:.3g}, {between(stretch)}.",
            stretch[0].step,
            stretch[-1].step,
        )


def gradients_clipped(run: RunRecord) -> Iterator[Hit]:
    """The gradient is so far above its limit that only its direction is left."""
    limit = number(run.settings.get("ppo.max_grad_norm"), None)
    points = run.series("train/grad_norm")[WARM_UP:]
    if limit is not None and limit > 0 and len(points) >= PERSISTENT and median(points) > NORM_OVER_LIMIT * limit:
        yield Hit(
            f"The gradient's norm was {median(points):.3g}, {median(points) / limit:.0f} times ppo.max_grad_norm ({limit:g}), "
            f"{between(points)}: every step was cut to the same length.",
            points[0].step,
            points[-1].step,
        )


def returns_large(run: RunRecord) -> Iterator[Hit]:
    """The critic regresses on numbers far from 1."""
    points = run.series("value/return_std")[WARM_UP:]
    off = run.settings.get("normalization.rewards") is False and run.settings.get("normalization.values") is not True
    if off and len(points) >= PERSISTENT and median(points) > LARGE_RETURNS:
        yield Hit(
            f"The returns that the critic learns have a standard deviation of {median(points):,.0f}, and normalization.rewards is off.",
            points[0].step,
            points[-1].step,
        )


def ratio_error(run: RunRecord) -> Iterator[Hit]:
    """Workers and learner do not compute the same policy, which the sync mode promises."""
    points = run.series("dist/ratio_error")
    wrong = [point for point in points if point.value > RATIO_ERROR]
    if wrong and run.settings.get("rollout.mode") == "sync":
        yield Hit(
            f"Action probabilities of workers and learner differed by up to {max(point.value for point in wrong):.2g}, first at "
            f"{wrong[0].step:,} env steps.",
            wrong[0].step,
            wrong[-1].step,
        )


def nonfinite_losses(run: RunRecord) -> Iterator[Hit]:
    """NaN or infinity in losses or gradients."""
    steps = [point for point in run.series("train/skipped_steps") if point.value > 0]
    broken = [
        int(row["time/total_timesteps"])
        for row in run.rows
        if any(isinstance(row.get(key), float) and not is_finite(row[key]) for key in ("train/loss", "train/value_loss", "train/grad_norm"))
    ]
    where = sorted({*broken, *(point.step for point in steps)})
    if where:
        skipped = sum(point.value for point in steps)
        counted = f"{skipped:,.0f} gradient step{'s' * (skipped != 1)} skipped" if skipped else "losses that are not finite"
        updates = f"{len(where)} update{'s' * (len(where) != 1)}"
        yield Hit(f"NaN or infinity in {updates}, first at {where[0]:,} env steps: {counted}.", where[0], where[-1])


RULES = (
    Rule(
        "Explained variance below 0",
        Severity.WARNING,
        "Raise ppo.epochs or the critic's width (network.hidden_sizes), check that normalization.rewards is on and that ppo.gamma fits "
        "the episode's length; lower ppo.learning_rate if it fell below 0 after a good start.",
        explained_variance_below_zero,
    ),
    Rule(
        "Value loss explodes",
        Severity.PROBLEM,
        "Turn on normalization.rewards, lower ppo.learning_rate, and look for outliers in the environment's rewards.",
        value_loss_grows,
    ),
    Rule(
        "Gradients far above their limit",
        Severity.WARNING,
        "Turn on normalization.rewards, lower ppo.value_loss_coef, or look for outliers in observations and rewards.",
        gradients_clipped,
    ),
    Rule(
        "Returns too large for the critic",
        Severity.WARNING,
        "Turn on normalization.rewards (or normalization.values).",
        returns_large,
    ),
    Rule(
        "Workers and learner disagree",
        Severity.PROBLEM,
        "This is a defect, of a network of your own that is not deterministic (dropout, batch statistics) or of distppo: report it.",
        ratio_error,
    ),
    Rule(
        "NaN in the update",
        Severity.PROBLEM,
        "Look for huge rewards or observations in the environment, turn on normalization.rewards, lower ppo.learning_rate. "
        "fault.on_nonfinite says whether such an update ends the run or is dropped.",
        nonfinite_losses,
    ),
)
