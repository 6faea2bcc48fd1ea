"""What handing out a policy and handing in the fragments costs, as a formula fitted to measurements."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from scipy.optimize import nnls

TERMS = ("fixed", "per_worker", "per_weight_byte", "per_worker_and_weight_byte")
ROUND_TRIPS = 2
"""Of an iteration between driver and workers: the call to collect and its answer, the fetch of the weights and its answer."""


class Sample(NamedTuple):
    """One measured combination.

    Attributes:
        workers: W.
        weight_bytes: of the policy sent in every iteration.
        milliseconds: of orchestration an iteration.
    """

    workers: int
    weight_bytes: int
    milliseconds: float


class Network(NamedTuple):
    """What lies between nodes. None of it is measured here.

    Attributes:
        bytes_per_second: of the learner's node, in and out, each.
        round_trip_seconds: of a small message.
        workers_per_node: how many share one copy of the weights.
    """

    bytes_per_second: float
    round_trip_seconds: float
    workers_per_node: int


@dataclass(frozen=True)
class Model:
    """milliseconds = fixed + per_worker W + per_weight_byte P + per_worker_and_weight_byte W P, on one node.

    Attributes:
        coefficients: of TERMS, none negative.
    """

    coefficients: tuple[float, float, float, float]

    def on_one_node(self, workers: int, weight_bytes: int) -> float:
        """Returns milliseconds an iteration."""
        return float(np.dot(_terms(workers, weight_bytes), self.coefficients))

    def on_cluster(self, workers: int, weight_bytes: int, fragment_bytes: int, network: Network) -> float:
        """Returns milliseconds an iteration: those of one node, and upper bounds of what the network adds.

        The weights leave the learner's node once for every other node (nodes that have them also pass them on, which is not counted),
        and every fragment from another node enters it while nothing else happens.

        Args:
            workers: W.
            weight_bytes: of the policy.
            fragment_bytes: that one worker sends.
            network: assumed.
        """
        nodes = -(-workers // network.workers_per_node)
        remote_workers = workers - min(workers, network.workers_per_node)
        sent = ((nodes - 1) * weight_bytes + remote_workers * fragment_bytes) / network.bytes_per_second
        waited = ROUND_TRIPS * network.round_trip_seconds if nodes > 1 else 0.0
        return self.on_one_node(workers, weight_bytes) + 1e3 * (sent + waited)


def fit(samples: Sequence[Sample]) -> Model:
    """Returns the model with the smallest sum of squared relative errors and no negative coefficient.

    Raises:
        ValueError: fewer samples than coefficients, or a sample that is not positive.
    """
    if len(samples) < len(TERMS):
        raise ValueError(f"{len(samples)} samples cannot determine {len(TERMS)} coefficients")
    if any(sample.milliseconds <= 0 for sample in samples):
        raise ValueError("a sample is not positive, and relative errors need it to be")
    matrix = np.array([np.array(_terms(sample.workers, sample.weight_bytes)) / sample.milliseconds for sample in samples])
    # Columns of equal length: bytes and workers differ by ten orders of magnitude.
    scale = np.linalg.norm(matrix, axis=0)
    solution, _ = nnls(matrix / scale, np.ones(len(samples)))
    fixed, per_worker, per_byte, per_both = (float(x) for x in solution / scale)
    return Model((fixed, per_worker, per_byte, per_both))


def _terms(workers: int, weight_bytes: int) -> tuple[float, float, float, float]:
    return 1.0, float(workers), float(weight_bytes), float(workers) * weight_bytes
