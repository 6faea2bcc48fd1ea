"""How good the critic's predictions are: V(s_t) against what really followed. Pure functions of arrays; figures are elsewhere."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np

from distppo.algo.diagnostics import explained_variance
from distppo.evaluation.values import Trace

CALIBRATION_BINS = 10
TIME_BINS = 40
HISTOGRAM_BINS = 41
EXTREMES = 3
SETTLED_WEIGHT = 0.05
"""A step counts as settled where the bootstrap at the end weighs at most this much in its realised return."""


class Comparison(NamedTuple):
    """Predictions and outcomes of an episode's steps, all [T] float64 in raw reward.

    Attributes:
        trace: the episode.
        predicted: V(s_t).
        realised: G_t, see `realised_returns`.
        td_errors: delta_t, see `td_errors`.
        bootstrap_weight: gamma^(T-t), how much V(s_T) weighs in G_t; 0 where the episode terminated.
    """

    trace: Trace
    predicted: np.ndarray
    realised: np.ndarray
    td_errors: np.ndarray
    bootstrap_weight: np.ndarray


def realised_returns(rewards: np.ndarray, final_value: float, *, gamma: float) -> np.ndarray:
    """Returns what really followed each step, discounted, [T] float64.

    G_t = r_t + gamma G_{t+1},   G_T = final_value

    Args:
        rewards: [T] raw; r_t is the answer to the action chosen in s_t.
        final_value: V(s_T) of a truncated episode, which would have gone on; 0 of a terminated one.
        gamma: discount per env step.
    """
    returns = np.empty(len(rewards))
    following = float(final_value)
    for t in range(len(rewards) - 1, -1, -1):
        following = rewards[t] + gamma * following
        returns[t] = following
    return returns


def td_errors(rewards: np.ndarray, values: np.ndarray, *, terminated: bool, gamma: float) -> np.ndarray:
    """Returns delta_t = r_t + gamma V(s_{t+1}) - V(s_t), [T]; after a termination V is 0.

    Args:
        rewards: [T] raw.
        values: [T+1] V(s_0) ... V(s_T).
        terminated: whether the episode ended by termination.
        gamma: discount per env step.
    """
    following = values[1:].copy()
    if terminated:
        following[-1] = 0.0
    return np.asarray(rewards + gamma * following - values[:-1])


def compare(trace: Trace, *, gamma: float) -> Comparison:
    """Returns predictions and outcomes of one episode."""
    terminated, length = trace.result.terminated, len(trace.rewards)
    weight = np.zeros(length) if terminated else gamma ** np.arange(length, 0, -1.0)
    return Comparison(
        trace,
        trace.values[:-1],
        realised_returns(trace.rewards, 0.0 if terminated else trace.values[-1], gamma=gamma),
        td_errors(trace.rewards, trace.values, terminated=terminated, gamma=gamma),
        weight,
    )


def fit(predicted: np.ndarray, realised: np.ndarray) -> dict[str, Any]:
    """Returns how well predictions fit outcomes, all over the same steps [n].

    bias = mean(V - G);  rmse = sqrt(mean((V - G)^2));  r2 = 1 - sum((G - V)^2) / sum((G - mean G)^2);
    explained_variance = 1 - Var(G - V) / Var(G), which a constant bias does not lower;  correlation = Pearson's.

    Ratios are NaN where the outcomes (for the correlation also the predictions) do not vary.
    """
    if len(predicted) == 0:
        return {"steps": 0, **dict.fromkeys(("bias", "rmse", "r2", "explained_variance", "correlation"), math.nan)}
    error = predicted - realised
    spread, varies = float(np.var(realised)), bool(np.ptp(realised) > 0 and np.ptp(predicted) > 0)
    return {
        "steps": len(error),
        "bias": float(error.mean()),
        "rmse": float(np.sqrt(np.mean(error**2))),
        "r2": 1.0 - float(np.mean(error**2)) / spread if spread > 0 else math.nan,
        "explained_variance": explained_variance(predicted, realised),
        "correlation": float(np.corrcoef(predicted, realised)[0, 1]) if varies else math.nan,
    }


def calibration(predicted: np.ndarray, realised: np.ndarray, bins: int = CALIBRATION_BINS) -> list[dict[str, float]]:
    """Returns what followed where the critic predicted alike: the steps [n] in order of prediction, cut into bins of equal size."""
    order = np.array_split(np.argsort(predicted, kind="stable"), min(bins, len(predicted)))
    return [
        {
            "predicted": float(predicted[rows].mean()),
            "realised": float(realised[rows].mean()),
            "realised_std": float(realised[rows].std()),
            "steps": len(rows),
        }
        for rows in order
    ]


def along_the_episode(errors: Sequence[np.ndarray], bins: int = TIME_BINS) -> list[dict[str, float]]:
    """Returns the bias over the time in the episode.

    Args:
        errors: V - G of each episode, [T_i].
        bins: at most; each covers as many timesteps, and those that no episode reached are left out.
    """
    longest = max(map(len, errors))
    width = math.ceil(longest / bins)
    found = []
    for start in range(0, longest, width):
        inside = np.concatenate([error[start : start + width] for error in errors])
        span = {"first_step": start, "last_step": min(start + width, longest) - 1}
        found.append({**span, "bias": float(inside.mean()), "std": float(inside.std()), "steps": len(inside)})
    return found


def histogram(values: np.ndarray, bins: int = HISTOGRAM_BINS) -> dict[str, Any]:
    """Returns mean, std and counts of values [n]. The edges span the middle 99%; what lies outside is counted in the outermost bins."""
    low, high = np.quantile(values, [0.005, 0.995])
    if high <= low:
        low, high = low - 0.5, high + 0.5
    counts, edges = np.histogram(np.clip(values, low, high), bins=bins, range=(low, high))
    return {"mean": float(values.mean()), "std": float(values.std()), "edges": edges.tolist(), "counts": counts.tolist()}


def analyze(traces: Sequence[Trace], *, gamma: float) -> tuple[dict[str, Any], list[Comparison]]:
    """Returns the analysis as JSON values (NaN where a number is not defined), and the comparisons that it sums up.

    Args:
        traces: of at least one episode.
        gamma: discount per env step that the critic was trained with.
    """
    compared = [compare(trace, gamma=gamma) for trace in traces]
    predicted, realised, deltas, weight = (
        np.concatenate([getattr(one, name) for one in compared]) for name in ("predicted", "realised", "td_errors", "bootstrap_weight")
    )
    settled = weight <= SETTLED_WEIGHT
    biases = [float((one.predicted - one.realised).mean()) for one in compared]
    ranked = sorted(range(len(compared)), key=lambda index: biases[index])
    number_of = [one.trace.result.episode for one in compared]
    return {
        **fit(predicted, realised),
        "predicted_mean": float(predicted.mean()),
        "realised_mean": float(realised.mean()),
        "settled": {"bootstrap_weight_at_most": SETTLED_WEIGHT, **fit(predicted[settled], realised[settled])},
        "calibration": calibration(predicted, realised),
        "along_the_episode": along_the_episode([one.predicted - one.realised for one in compared]),
        "td_error": histogram(deltas),
        "per_episode": [_episode(one, bias) for one, bias in zip(compared, biases, strict=True)],
        "most_overestimated": [number_of[index] for index in reversed(ranked) if biases[index] > 0][:EXTREMES],
        "most_underestimated": [number_of[index] for index in ranked if biases[index] < 0][:EXTREMES],
    }, compared


def _episode(one: Comparison, bias: float) -> dict[str, Any]:
    result = one.trace.result
    return {
        "episode": result.episode,
        "seed": result.seed,
        "return": result.episode_return,
        "length": result.length,
        "terminated": result.terminated,
        "predicted_at_start": float(one.predicted[0]),
        "realised_at_start": float(one.realised[0]),
        "bias": bias,
        "rmse": float(np.sqrt(np.mean((one.predicted - one.realised) ** 2))),
    }
