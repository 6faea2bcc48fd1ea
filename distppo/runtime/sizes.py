"""What a run takes of a machine. Nothing here imports ray."""

from __future__ import annotations

import math

from distppo.config import Config
from distppo.models.acting import policy_layout
from distppo.models.layout import layout_size
from distppo.types import EnvSpec

WORKER_CPUS = 1
LEARNER_CPUS = 1
STORE_BYTES = 256 * 2**20
ROLLOUTS_IN_STORE = 6
"""Iterations of data that the object store of a local cluster has room for (two are alive at a time; the rest is slack)."""

VECTORS_IN_STORE = 8
"""Copies of the parameters there: snapshots, and the learner's states with Adam's moments, two of each."""

DRIVER_BYTES, WORKER_BYTES, LEARNER_BYTES, RAY_BYTES = (size * 2**20 for size in (270, 110, 380, 380))
"""Memory of the processes besides their data, shared pages by halves, thirds ...: measured by benchmarks/startup.py (PSS, Ray 2.60)."""


def rollout_bytes(config: Config, env: EnvSpec) -> int:
    """Returns the size of one iteration's rollouts."""
    return math.ceil(4 * (env.observation_size + env.action_size + 4) * config.batch_size)


def parameter_count(config: Config, env: EnvSpec) -> int:
    """Returns how many numbers the network learns."""
    return layout_size(policy_layout(env, config.network))


def store_bytes(config: Config, env: EnvSpec) -> int:
    """Returns the size of the object store that a Ray on this machine gets for a run."""
    return STORE_BYTES + ROLLOUTS_IN_STORE * rollout_bytes(config, env) + VECTORS_IN_STORE * 4 * parameter_count(config, env)


def memory_bytes(config: Config, env: EnvSpec, num_workers: int) -> int:
    """Returns about how much memory all processes of a run take together, on one machine.

    The rollouts are there three times: in the workers' buffers, in the object store, and as the learner's batch with its values and
    advantages; Adam's moments and gradients go with the parameters. Every learner has the whole batch.
    """
    learners = config.learner.num_learners
    data = (2 + learners) * rollout_bytes(config, env) + (3 + 3 * learners) * 4 * parameter_count(config, env)
    processes = num_workers * WORKER_BYTES + learners * LEARNER_BYTES + RAY_BYTES if num_workers else LEARNER_BYTES
    return DRIVER_BYTES + processes + data
