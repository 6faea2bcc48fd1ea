"""`doctor`: whether this machine can do a job, before it is tried. Nothing is left behind."""

from __future__ import annotations

import errno
import os
import platform
import shutil
import sys
import tempfile
import time
from collections.abc import Iterator
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

from distppo.config import Config
from distppo.envs import probe_env
from distppo.errors import UserError
from distppo.metrics import require_loggers
from distppo.models.acting import checked_network
from distppo.runtime.address import find_cluster
from distppo.runtime.cores import available_cores
from distppo.runtime.diagnosis import SECONDS, Check, Processes
from distppo.runtime.run_directory import RUNS_ROOT, RunDirectory, run_name
from distppo.runtime.seeds import SEEDS_FILE
from distppo.runtime.sizes import memory_bytes, parameter_count, store_bytes
from distppo.types import EnvSpec

PACKAGES = ("ray", "torch", "gymnasium", "mujoco", "numpy", "numba")
_SHARED_MEMORY = Path("/dev/shm")
_GIB = 2**30
_SMALLEST_DISK = _GIB
_CLOCK_SKEW = 2.0
_EARLIEST = 1.7e9
"""A clock before November 2023 is wrong: Ray 2.55 is younger."""


class RunPlace(RunDirectory):
    """A run's folder as `train` would find it: by the same rules, but nothing is made, locked or written.

    Args:
        path: of the folder; it need not exist.
        continued: whether the folder's own run goes on; else it must not hold one.

    Raises:
        UserError: `train` would refuse it.
    """

    def __init__(self, path: Path, *, continued: bool) -> None:
        self.path = path
        try:
            self._require_room()
            # A folder of seeds has rules of its own: what is written there are runs in folders below it.
            if path.is_dir() and not (path / SEEDS_FILE).is_file():
                if not continued:
                    self._require_no_foreign_config()
                self._require_own_files()
                if not continued:
                    self._require_free()
        except OSError as error:
            raise UserError(f"run directory {path}: {error.strerror or error}; choose another with --run-dir") from error

    def _require_room(self) -> None:
        """Raises OSError, or UserError, if the folder could not be made, or nothing be written into it."""
        nearest = next(path for path in (self.path, *self.path.parents) if os.path.lexists(path))
        if not nearest.is_dir():
            raise UserError(f"run directory {self.path}: a file is in the way; choose another with --run-dir")
        if not os.access(nearest, os.W_OK | os.X_OK):
            raise PermissionError(errno.EACCES, os.strerror(errno.EACCES))


def diagnose(config: Config, *, address: str | None) -> Iterator[Check]:
    """Yields what every check finds, the quick ones first; rendering and Ray are tried meanwhile.

    Args:
        config: of the job that the machine is for.
        address: of the cluster that it is to run on; None is this machine.
    """
    began = time.monotonic()
    yield _python()
    missing = [package for package in PACKAGES if _version(package) is None]
    yield _versions(missing)
    if missing:
        return
    try:
        find_cluster(address)
    except UserError as error:
        yield Check(f"cluster {address}", "failure", str(error), "start it, or correct the address")
        address = None
    processes = Processes(address)
    try:
        env = None
        try:
            env = probe_env(config.env)
            yield Check("environment", "ok", f"{env.id} can be made; {checked_network(env, config.network).removeprefix('network: ')}")
        except UserError as error:
            yield Check(
                "environment", "failure", " ".join(str(error).split())[:300], "env check says more, config check whether the file is right"
            )
        yield from _machine(config, env, address)
        yield processes.ray(SECONDS - (time.monotonic() - began))
        yield from processes.rendering(SECONDS - (time.monotonic() - began))
    finally:
        processes.close()


def _machine(config: Config, env: EnvSpec | None, address: str | None) -> Iterator[Check]:
    workers = _workers(config)
    if address is None:
        yield _cores(workers)
        if env is not None:
            yield _memory(config, env, workers)
            if workers:
                yield _shared_memory(config, env)
    directory = Path(config.run.directory).expanduser() if config.run.directory else RUNS_ROOT / run_name(config)
    yield _writing(directory)
    yield _disk(config, env, directory)
    yield _clock(directory)
    yield _loggers(config)
    yield _compiled_learner(config)
    yield _device(config)


def _workers(config: Config) -> int:
    return min(available_cores(), config.rollout.num_envs) if config.rollout.num_workers is None else config.rollout.num_workers


def _python() -> Check:
    return Check("python", "ok", f"{platform.python_version()}, {sys.executable}, {platform.platform()}")


def _versions(missing: list[str]) -> Check:
    if missing:
        return Check("packages", "failure", f"not installed: {', '.join(missing)}", "make setup, or pip install distppo, into this Python")
    return Check("packages", "ok", ", ".join(f"{package} {_version(package)}" for package in ("distppo", *PACKAGES)))


def _version(package: str) -> str | None:
    try:
        return version(package)
    except PackageNotFoundError:
        return None


def _cores(workers: int) -> Check:
    cores, quota = available_cores(), _cpu_quota()
    found = f"{cores} for {workers} worker{'s' * (workers != 1)}" if workers else f"{cores}, of which one process uses one"
    if quota is not None and quota < cores:
        fix = f"use --num-workers {max(1, int(quota))}, or allow the container more (docker: --cpus)"
        return Check("cores", "warning", f"{found}, but the container may use the time of {quota:g}", fix)
    if workers > cores:
        return Check("cores", "warning", f"{found}: they take time from each other", f"use --num-workers {cores}, or auto")
    return Check("cores", "ok", found)


def _cpu_quota() -> float | None:
    """Returns how many cores' time a container allows; None where it says nothing."""
    try:
        limit, period = Path("/sys/fs/cgroup/cpu.max").read_text().split()
        return None if limit == "max" else int(limit) / int(period)
    except (OSError, ValueError):
        return None


def _memory(config: Config, env: EnvSpec, workers: int) -> Check:
    needed = memory_bytes(config, env, workers)
    free = _available_memory()
    found = f"{free / _GIB:.1f} GiB free, about {needed / _GIB:.1f} GiB needed"
    if free < needed:
        return Check(
            "memory", "failure", found, "fewer workers (--num-workers), shorter fragments (--num-steps), or end what else runs here"
        )
    return Check("memory", "ok", found)


def _available_memory() -> int:
    """Returns what processes can still take, in bytes: of the machine, and of the container's limit where there is one."""
    try:
        lines = Path("/proc/meminfo").read_text().splitlines()
        free = next(1024 * int(line.split()[1]) for line in lines if line.startswith("MemAvailable"))
    except (OSError, StopIteration):
        free = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    try:
        limit, used = (Path(f"/sys/fs/cgroup/memory.{name}").read_text().strip() for name in ("max", "current"))
        return free if limit == "max" else min(free, int(limit) - int(used))
    except (OSError, ValueError):
        return free


def _shared_memory(config: Config, env: EnvSpec) -> Check:
    if not _SHARED_MEMORY.is_dir():
        return Check("object store", "ok", "this system has no /dev/shm")
    needed, free = store_bytes(config, env), shutil.disk_usage(_SHARED_MEMORY).free
    found = f"/dev/shm has {free / _GIB:.2f} GiB free, {needed / _GIB:.2f} GiB needed"
    if free < needed:
        return Check("object store", "warning", f"{found}: Ray would use the disk instead", f"docker run --shm-size={needed // _GIB + 1}g")
    return Check("object store", "ok", found)


def _writing(directory: Path) -> Check:
    try:
        RunPlace(directory, continued=False)
    except UserError as error:
        found, _, fix = str(error).partition("; ")
        return Check("writing", "failure", found, fix)
    place = _nearest(directory)
    try:
        with tempfile.TemporaryFile(dir=place):
            return Check("writing", "ok", f"{place.resolve()} takes files")
    except OSError as error:
        return Check("writing", "failure", f"{place.resolve()}: {error.strerror}", "choose another run directory with --run-dir")


def _nearest(directory: Path) -> Path:
    """Returns the folder itself or the nearest above it that exists."""
    return next((path for path in (directory, *directory.parents) if os.path.isdir(path)), Path())


def _disk(config: Config, env: EnvSpec | None, directory: Path) -> Check:
    free = shutil.disk_usage(_nearest(directory)).free
    checkpoint = 3 * 4 * parameter_count(config, env) if env is not None else 0
    needed = (config.run.keep_checkpoints + 3) * checkpoint + 100 * 2**20
    found = f"{free / _GIB:.1f} GiB free, about {needed / _GIB:.1f} GiB needed for checkpoints and metrics"
    if free < needed:
        return Check("disk", "failure", found, "free space, choose another run directory (--run-dir), or lower run.keep_checkpoints")
    if free < _SMALLEST_DISK:
        return Check("disk", "warning", found, "free space: training goes on while the disk is full, but saves nothing")
    return Check("disk", "ok", found)


def _clock(directory: Path) -> Check:
    now = time.time()
    if now < _EARLIEST:
        return Check(
            "clock", "warning", f"it says {time.strftime('%Y-%m-%d')}", "set the clock: runs are named, and the newest found, by time"
        )
    try:
        with tempfile.TemporaryFile(dir=_nearest(directory)) as file:
            skew = os.fstat(file.fileno()).st_mtime - time.time()
    except OSError:
        skew = 0.0
    if abs(skew) > _CLOCK_SKEW:
        return Check(
            "clock",
            "warning",
            f"the file system's differs by {skew:+.0f} s",
            "synchronize the clocks (NTP) of this machine and its file server",
        )
    return Check("clock", "ok", time.strftime("%Y-%m-%d %H:%M:%S %Z"))


def _loggers(config: Config) -> Check:
    try:
        require_loggers(config.metrics)
    except UserError as error:
        found, _, fix = str(error).partition(": ")
        return Check("loggers", "failure", found, fix)
    names = [name for name in ("wandb", "mlflow") if getattr(config.metrics, name)] + [plugin.target for plugin in config.metrics.loggers]
    return Check("loggers", "ok", ", ".join(names) or "none besides the files of a run")


def _compiled_learner(config: Config) -> Check:
    if config.learner.compile and not any(map(shutil.which, ("c++", "g++", "clang++"))):
        return Check("compiler", "failure", "learner.compile needs a C++ compiler", "apt-get install g++, or learner.compile false")
    from distppo.learner.apart import is_compiled

    compiled = is_compiled(config.learner.threads or min(2, available_cores()))
    if compiled is None:
        fix = "set NUMBA_CACHE_DIR to a folder that can be written"
        return Check("compiled learner", "warning", "numba's cache cannot be written, so every run compiles anew (10 s or more)", fix)
    return Check("compiled learner", "ok", "in numba's cache" if compiled else "not compiled yet: the first run takes some seconds longer")


def _device(config: Config) -> Check:
    import torch

    if torch.cuda.is_available():
        return Check("device", "ok", f"{torch.cuda.get_device_name(0)}, torch {torch.__version__}")
    if config.learner.device == "cuda":
        return Check(
            "device",
            "failure",
            f"learner.device is cuda, torch {torch.__version__} finds none",
            "learner.device cpu, or torch's CUDA build",
        )
    return Check("device", "ok", f"cpu, torch {torch.__version__}")
