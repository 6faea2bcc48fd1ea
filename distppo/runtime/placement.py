"""Where the actors of a run may be: one placement group of known bundles, or the one that this process is in already."""

from __future__ import annotations

import contextlib
import secrets
import time
from collections import Counter
from collections.abc import Callable, Mapping
from typing import Any

import ray
from ray.util.placement_group import PlacementGroup, get_current_placement_group, placement_group, remove_placement_group
from ray.util.scheduling_strategies import PlacementGroupSchedulingStrategy

from distppo.config import Config
from distppo.errors import ResourceError
from distppo.runtime import cluster

LEARNER_BUNDLE = 0
NAMESPACE = "distppo"
STRATEGIES = {"pack": "PACK", "spread": "SPREAD"}
PREFER_SECONDS = 10.0
"""For which a node with the learner's labels is waited for, before any other will do."""
POLL_SECONDS = 0.2


class Placement:
    """The bundles that a run has for itself: the learner's, one a worker, and then those of more learners.

    In a Tune trial, or any actor whose placement group takes in what it starts, that group is used as it is: whoever made it has given it
    the bundles.

    Args:
        config: of the run.
        workers: with a bundle of their own.
        name: of the run, for people; what is named after it is unique all the same.
        check: called while it waits; raises where the user has asked to stop.

    Attributes:
        own: whether the group is this run's.
        name: of the group, and the first part of the actors' names.
        learner_bundles: of each learner.

    Raises:
        ResourceError: the cluster has no room for them within `fault.startup_timeout` seconds.
    """

    def __init__(self, config: Config, workers: int, *, name: str, check: Callable[[], None]) -> None:
        self._strategy = STRATEGIES[config.cluster.placement]
        self.learner_bundles = [LEARNER_BUNDLE, *range(workers + 1, workers + config.learner.num_learners)]
        self._leaving: frozenset[str] = frozenset()
        # Runs of the same name may share a cluster, and a process that is replaced keeps its name for a moment.
        self.name = f"{name}-{secrets.token_hex(4)}"
        self._started: Counter[str] = Counter()
        given = get_current_placement_group()
        self.own = given is None
        self._group = self._reserve(config, workers, check) if given is None else given

    def leave(self, nodes: frozenset[str]) -> None:
        """From now on nothing new is placed on these nodes."""
        self._leaving = nodes

    def usable(self, bundle: int | None) -> bool:
        """Whether a bundle is where something new may start, or will be: one of a lost node moves to another as soon as there is room."""
        if not self.own or not self._leaving or bundle is None:
            return True
        where: Mapping[int, str] = ray.util.placement_group_table(self._group)["bundles_to_node_id"]
        return where.get(bundle) not in self._leaving

    def options(self, role: str, bundle: int | None) -> dict[str, Any]:
        """Returns the options of an actor.

        Args:
            role: learner, learner-<rank> or worker-<number>, which its name ends with, and how many had it before.
            bundle: in which it is to start; None: wherever there is room.
        """
        again = f".{self._started[role]}" if self._started[role] else ""
        self._started[role] += 1
        strategy: Any = "SPREAD" if self._strategy == "SPREAD" else "DEFAULT"
        if not self.own:
            strategy = PlacementGroupSchedulingStrategy(self._group, -1)
        elif bundle is not None:
            strategy = PlacementGroupSchedulingStrategy(self._group, bundle)
        return {
            "name": f"{self.name}/{role}{again}",
            "namespace": NAMESPACE,
            "scheduling_strategy": strategy,
            "max_restarts": 0,
            "max_task_retries": 0,
        }

    def close(self) -> None:
        """Gives the bundles back; a group that was there before stays."""
        if self.own:
            _remove(self._group)

    def _reserve(self, config: Config, workers: int, check: Callable[[], None]) -> PlacementGroup:
        needed = cluster.needed_resources(config, workers)
        more = config.learner.num_learners - 1
        learner = {"CPU": float(cluster.LEARNER_CPUS)} | ({"GPU": 1.0} if needed["GPU"] else {})
        bundles = [learner, *[{"CPU": float(cluster.WORKER_CPUS)}] * workers, *[learner] * more]
        timeout = config.fault.startup_timeout
        deadline = time.monotonic() + timeout
        label, _, value = (config.cluster.learner_label or "").partition("=")
        if label and _exists(label, value):
            group = self._create(bundles, [{label: value}, *[{}] * workers, *[{label: value}] * more])
            if _ready(group, min(PREFER_SECONDS, timeout / 2), check):
                return group
            _remove(group)
        group = self._create(bundles, None)
        if _ready(group, deadline - time.monotonic(), check):
            return group
        _remove(group)
        lacking = f"the {len(bundles)} actors of this run could not be placed within {timeout:g} s (fault.startup_timeout). "
        raise ResourceError(lacking + cluster.resources_text(needed))

    def _create(self, bundles: list[dict[str, float]], labels: list[dict[str, str]] | None) -> PlacementGroup:
        return placement_group(bundles, strategy=self._strategy, name=self.name, bundle_label_selector=labels)


def _ready(group: PlacementGroup, seconds: float, check: Callable[[], None]) -> bool:
    """Waits until every bundle has its node; the group goes if the user asks to stop meanwhile."""
    reference, until = group.ready(), time.monotonic() + seconds
    try:
        while not ray.wait([reference], timeout=POLL_SECONDS)[0]:
            check()
            if time.monotonic() > until:
                return False
    except BaseException:
        _remove(group)
        raise
    return True


def _exists(label: str, value: str) -> bool:
    """Whether a living node has the label with this value."""
    return any(node["Alive"] and (node.get("Labels") or {}).get(label) == value for node in ray.nodes())


def _remove(group: PlacementGroup) -> None:
    with contextlib.suppress(Exception):  # a cluster that has gone took its groups with it
        remove_placement_group(group)
