"""Starting or joining a Ray cluster, and what it must have."""

from __future__ import annotations

import contextlib
import logging
import os
import signal
from collections.abc import Iterator, Mapping

import ray

from distppo.config import Config, WorkerRange
from distppo.config.suggest import printable
from distppo.errors import ResourceError
from distppo.runtime import nodes
from distppo.runtime.address import TOKEN_ADVICE, Address
from distppo.runtime.cores import available_cores
from distppo.runtime.signals import StopSignal
from distppo.runtime.sizes import LEARNER_CPUS, WORKER_CPUS, store_bytes
from distppo.types import EnvSpec

_LONGEST_REASON = 500


def connect(config: Config, env: EnvSpec, address: Address | None, stop: StopSignal, *, runs: int = 1) -> None:
    """Joins the cluster at `address`, else starts one on this machine that has room for so many runs at a time.

    Raises:
        ResourceError: the cluster cannot be joined, or Ray does not start.
        StopRequested: the user asked to stop meanwhile.
    """
    stop.check()
    try:
        if address is not None:
            _join(address)
        else:
            _start_local(config, env, runs)
    except SystemExit:
        # While ray.init runs, SIGTERM is handled by Ray: it exits the process, and its C++ part aborts it three seconds later.
        signal.alarm(0)
        stop.number = signal.SIGTERM
    finally:
        stop.catch()
    stop.check()
    # Ray prints what happens to nodes, with pages of their logs. We tell it with what was done about it; the logs stay where they are.
    ray._private.worker.print_to_stdstream = lambda *_, **__: None


def running_here(place: str) -> str:
    """Returns the address of the cluster that this machine is a node of.

    Raises:
        ResourceError: it is of none.
    """
    try:
        found: str = ray._private.services.get_ray_address_from_environment("auto", None)
        return found
    except ConnectionError:
        raise ResourceError(
            f"{place}: no Ray runs on this machine. `ray start --head` starts a cluster here, `ray start --address=HOST:6379` joins one; "
            "or name one that runs elsewhere: --address HOST:6379"
        ) from None


def choose_workers(config: Config) -> int:
    """Returns rollout.num_workers, or one a core: in sync mode the learner works while the workers wait, so locally it needs no core."""
    if config.rollout.num_workers is not None:
        return config.rollout.num_workers
    cores = int(ray.cluster_resources().get("CPU", 1)) - learner_cpus(config) if ray.is_initialized() else available_cores()
    return max(1, min(cores, config.rollout.num_envs))


def least_workers(config: Config, num_workers: int) -> int:
    """Returns how many of a run's workers it does not start without; only where rollout.num_workers is a range are that fewer than all."""
    given = config.rollout.num_workers
    return given.least if isinstance(given, WorkerRange) else num_workers


def needed_resources(config: Config, num_workers: int) -> dict[str, float]:
    """Returns what the learners and so many workers occupy together."""
    gpus = float(config.learner.num_learners) if config.learner.device == "cuda" else 0.0
    return {"CPU": float(num_workers * WORKER_CPUS + learner_cpus(config)), "GPU": gpus}


def learner_cpus(config: Config) -> int:
    """Returns what all learners occupy together."""
    return config.learner.num_learners * LEARNER_CPUS


def require(needed: Mapping[str, float], setting: str = "rollout.num_workers") -> None:
    """Raises ResourceError if the cluster has less than `needed` in total, also once it has grown as far as it may."""
    total, most = ray.cluster_resources(), nodes.most_resources()
    if any(max(total.get(name, 0.0), most.get(name, 0.0)) < amount for name, amount in needed.items()):
        raise ResourceError("the cluster is too small for this run. " + resources_text(needed, setting))


def resources_text(needed: Mapping[str, float], setting: str = "rollout.num_workers") -> str:
    """Returns needed against available, and the way out: lowering a setting."""
    total, free = ray.cluster_resources(), ray.available_resources()
    lines = [
        f"{name}: needed {amount:g}, in the cluster {total.get(name, 0.0):g}, free {free.get(name, 0.0):g}"
        for name, amount in needed.items()
        if amount
    ]
    return "; ".join(lines) + f". Lower {setting}, or end what else runs there (needed CPUs: 1 a worker and 1 a learner)"


def log_directory() -> str:
    """Returns where Ray writes its own logs and the actors' output."""
    node = ray.worker._global_node
    return os.path.join(node.get_session_dir_path(), "logs") if node else "/tmp/ray/session_latest/logs"


def _join(address: Address) -> None:
    try:
        ray.init(address=address.value, log_to_driver=False, logging_level=logging.ERROR)
    except (ConnectionError, ValueError, RuntimeError) as error:
        raise ResourceError(f"{address.place}: {_in_a_line(error)}. {TOKEN_ADVICE}") from error


def _in_a_line(error: Exception) -> str:
    """Returns what an error says; of one that brings a traceback along, as Ray's client does, what stands around it."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip(" .")] or [type(error).__name__]
    kept = [lines[0], lines[-1]] if len(lines) > 1 else lines
    return printable(" ".join(kept))[:_LONGEST_REASON].rstrip(". ")


def _start_local(config: Config, env: EnvSpec, runs: int) -> None:
    try:
        with on_loopback():
            ray.init(
                # Without the word Ray would join a cluster that happens to run on this machine.
                address="local",
                num_cpus=runs * (choose_workers(config) * WORKER_CPUS + learner_cpus(config)),
                include_dashboard=False,
                object_store_memory=runs * store_bytes(config, env),
                log_to_driver=False,
                logging_level=logging.ERROR,
                # Every process would tell every call to the GCS, for a dashboard that is not there: at 64 workers more than the calls cost.
                _system_config={"task_events_report_interval_ms": 0},
            )
    except Exception as error:
        raise ResourceError(f"Ray did not start on this machine: {error}. Its logs are in {log_directory()}") from error


@contextlib.contextmanager
def on_loopback() -> Iterator[None]:
    """Has a Ray started in the block listen on 127.0.0.1 alone.

    By default Ray 2.60 takes the machine's address on Linux and listens on all interfaces, which is for clusters; `_node_ip_address` of
    `ray.init` cannot say otherwise. It has a switch for systems without clusters (RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER), which it reads
    when it is imported.
    """
    constants = ray._private.ray_constants
    before, constants.ENABLE_RAY_CLUSTER = constants.ENABLE_RAY_CLUSTER, False
    try:
        yield
    finally:
        constants.ENABLE_RAY_CLUSTER = before
