"""What every test gets: one compute thread, a quiet Ray, trust in the tests' own environments and networks, and Ctrl-C."""

from __future__ import annotations

import os
import signal

ENVIRONMENTS = ("Camera", "Drawn", "Endless", "Failing", "Logged", "Paid", "Painted", "Point", "Shaped", "Slow", "Talking", "Wrapped")
NETWORKS = ("Gaussian", "Small")
# Before numpy, torch or ray is imported, and inherited by every process a test starts.
SETTINGS = {
    "OMP_NUM_THREADS": "1",
    "OPENBLAS_NUM_THREADS": "1",
    "RAY_ENABLE_UV_RUN_RUNTIME_ENV": "0",
    "RAY_USAGE_STATS_ENABLED": "0",
    "RAY_CHDIR_TO_TRIAL_DIR": "0",
    "DISTPPO_TRUST": " ".join([*(f"probe_envs:{name}-v0" for name in ENVIRONMENTS), *(f"own_networks:{name}" for name in NETWORKS)]),
}
os.environ.update(SETTINGS)
# A shell script's background jobs ignore it, and would have the processes that tests start ignore it too.
if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)
