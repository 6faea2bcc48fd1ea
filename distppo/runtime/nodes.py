"""Nodes that are about to go, and what a cluster may grow to: what Ray says through private interfaces, used here alone."""

from __future__ import annotations

import time
from collections.abc import Mapping

import ray
from ray._private.state import state as cluster_state

LOOK_SECONDS = 2.0
"""Between two questions to the cluster."""


class NodeWatch:
    """Says which nodes are being drained, as a cloud announces before it takes a spot machine back.

    Args:
        enabled: False for a cluster that this process has started for itself: nobody drains it.
    """

    def __init__(self, *, enabled: bool) -> None:
        # Ray's client, for drivers outside of the cluster, does not have it.
        self._enabled = enabled and not ray.util.client.ray.is_connected()
        self._looked = 0.0
        self._known: set[str] = set()

    @property
    def draining(self) -> frozenset[str]:
        """Ids of the nodes found draining so far."""
        return frozenset(self._known)

    def look(self) -> dict[str, float | None]:
        """Returns the nodes that have begun to drain since the last look: id -> seconds left, None where nobody said how many."""
        now = time.monotonic()
        if not self._enabled or now - self._looked < LOOK_SECONDS:
            return {}
        self._looked = now
        found = cluster_state.get_draining_nodes()
        new = {node: _seconds_left(deadline) for node, deadline in found.items() if node not in self._known}
        self._known.update(new)
        return new


def living() -> frozenset[str]:
    """Returns the ids of the cluster's nodes that are alive."""
    return frozenset(node["NodeID"] for node in ray.nodes() if node["Alive"])


def most_resources() -> Mapping[str, float]:
    """Returns what a cluster that grows by demand may have at most; nothing where it does not grow, or nobody says how far."""
    if ray.util.client.ray.is_connected():
        return {}
    return cluster_state.get_max_resources_from_cluster_config() or {}


def _seconds_left(deadline_ms: int) -> float | None:
    return max(0.0, deadline_ms / 1000 - time.time()) if deadline_ms else None
