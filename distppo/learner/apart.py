"""Compiling the fused step in a process of its own, so that every process that learns runs the same machine code.

A process that compiles a kernel runs the functions the kernel calls as they were compiled one by one; a process that loads the kernel from
numba's cache runs them as they were compiled together with it. Sums are taken in another order there, and the last bits differ: a learner
that is rebuilt, or a run that is resumed, would not equal what it goes on from. So nobody learns in the process that compiles.

    python -m distppo.learner.apart THREADS
"""

from __future__ import annotations

import hashlib
import os
import subprocess
import sys
from pathlib import Path

from distppo.config import Config, load_config
from distppo.learner.learner import Learner
from distppo.types import EnvSpec

SMALLEST = {"rollout.num_envs": 1, "rollout.num_steps": 12, "ppo.mini_batch_size": 12, "network.hidden_sizes": [4], "learner.step": "fused"}
POINT = EnvSpec("compiled", (1,), (1,), (-1.0,), (1.0,), None)


def compile_apart(threads: int) -> None:
    """Fills numba's cache by another process, if it lacks the kernels for so many threads. Where it cannot be filled, nothing happens.

    Args:
        threads: of the fused step.
    """
    done = _mark(threads)
    if done is None or done.exists():
        return
    environment = os.environ | {"PYTHONPATH": os.pathsep.join(path for path in sys.path if path)}
    command = [sys.executable, "-m", "distppo.learner.apart", str(threads)]
    finished = subprocess.run(command, env=environment, stdin=subprocess.DEVNULL, capture_output=True, check=False)
    if finished.returncode == 0:
        done.touch()


def is_compiled(threads: int) -> bool | None:
    """Says whether that has been done; None where numba's cache cannot be written, so that it never can be."""
    done = _mark(threads)
    return None if done is None else done.exists()


def _mark(threads: int) -> Path | None:
    """Returns the file that says that it has been done: one for what numba's cache depends on. None where there is no such cache."""
    import numba
    from llvmlite import binding

    from distppo.algo import fused

    folder = Path(fused.cache_folder())
    source = Path(fused.__file__).stat()
    depends_on = (
        source.st_mtime_ns,
        source.st_size,
        numba.__version__,
        sys.version,
        binding.get_host_cpu_name(),
        binding.get_host_cpu_features().flatten(),
        min(threads, 3),
    )
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError:
        return None
    if not os.access(folder, os.W_OK):
        return None
    return folder / f"fused-{hashlib.sha256(repr(depends_on).encode()).hexdigest()[:16]}.compiled"


def main() -> None:
    """Compiles what a learner with so many threads needs."""
    config: Config = load_config(overrides=SMALLEST | {"learner.threads": int(sys.argv[1])})
    Learner(config, POINT).warm_up()


if __name__ == "__main__":
    main()
