"""What every test gets: one compute thread, a quiet Ray, and trust in the tests' own environments."""

from __future__ import annotations

import os

# Before numpy, torch or ray is imported, and inherited by every process a test starts.
SETTINGS = {
    "OMP_NUM_THREADS": "1",
    "OPENBLAS_NUM_THREADS": "1",
    "RAY_ENABLE_UV_RUN_RUNTIME_ENV": "0",
    "RAY_USAGE_STATS_ENABLED": "0",
    "RAY_CHDIR_TO_TRIAL_DIR": "0",
    "DISTPPO_TRUST": " ".join(f"probe_envs:{name}-v0" for name in ("Endless", "Failing", "Logged", "Point", "Shaped", "Slow", "Wrapped")),
}
os.environ.update(SETTINGS)
