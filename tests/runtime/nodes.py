"""A Ray cluster of several nodes on this machine, driven from standard input: start, add CPUS [LABEL=VALUE], lose, drain S, actors."""

from __future__ import annotations

import json
import sys
import time

from ray._raylet import GcsClient
from ray.cluster_utils import Cluster
from ray.core.generated import autoscaler_pb2

SMALL_STORE = 100 * 2**20


def main() -> None:
    """Answers each request with a line; ends everything when there are no more."""
    cluster = Cluster()
    added = []
    for request in sys.stdin:
        action, *arguments = request.split()
        if action == "start":
            cluster.add_node(num_cpus=2, object_store_memory=SMALL_STORE, include_dashboard=False)
            print(cluster.address, flush=True)
        elif action == "add":
            labels = dict(label.split("=") for label in arguments[1:])
            added.append(cluster.add_node(num_cpus=int(arguments[0]), object_store_memory=SMALL_STORE, labels=labels))
            print(added[-1].node_id, flush=True)
        elif action == "lose":
            cluster.remove_node(added.pop(), allow_graceful=False)
            print("lost", flush=True)
        elif action == "drain":
            reason = autoscaler_pb2.DrainNodeReason.Value("DRAIN_NODE_REASON_PREEMPTION")
            deadline = int((time.time() + float(arguments[0])) * 1000)
            accepted, message = GcsClient(address=cluster.address).drain_node(added[-1].node_id, reason, "spot", deadline)
            print("draining" if accepted else message, flush=True)
        elif action == "actors":
            alive = [actor for actor in cluster.global_state.actor_table(None, None, None).values() if actor["State"] == "ALIVE"]
            print(json.dumps({actor["Name"]: actor["Address"]["NodeID"] for actor in alive}), flush=True)
    cluster.shutdown()


if __name__ == "__main__":
    main()
