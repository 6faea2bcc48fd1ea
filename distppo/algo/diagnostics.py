"""What tells whether learning is healthy, from arrays the update has anyway."""

from __future__ import annotations

import numpy as np


def explained_variance(predictions: np.ndarray, targets: np.ndarray) -> float:
    """Returns 1 - Var(targets - predictions) / Var(targets): 1 perfect, 0 no better than a constant, below 0 worse.

    Args:
        predictions: [...] float.
        targets: same shape.

    Returns:
        NaN where the targets do not vary.
    """
    variance = float(np.var(targets, dtype=np.float64))
    if variance == 0.0:
        return float("nan")
    return 1.0 - float(np.var(targets - predictions, dtype=np.float64)) / variance


def ratio_error(learner_log_probs: np.ndarray, worker_log_probs: np.ndarray) -> float:
    """Returns the largest |ratio - 1| between two evaluations of the same policy on the same samples: 0 but for rounding.

    Args:
        learner_log_probs: [K] float32, nats.
        worker_log_probs: [K] float32, nats.
    """
    return float(np.max(np.abs(np.expm1(learner_log_probs.astype(np.float64) - worker_log_probs)), initial=0.0))
