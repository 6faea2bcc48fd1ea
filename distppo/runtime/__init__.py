"""The distributed loop. Only `ray_backend` and `cluster` import ray."""

import os

# Before numpy and ray are imported, and inherited by every process of a local cluster. One compute thread a process: on small networks
# more than one is slower, and the learner shares large minibatches out by itself.
for _name, _value in {
    "OMP_NUM_THREADS": "1",
    "OPENBLAS_NUM_THREADS": "1",
    "RAY_ENABLE_UV_RUN_RUNTIME_ENV": "0",
    "RAY_USAGE_STATS_ENABLED": "0",
    "RAY_CHDIR_TO_TRIAL_DIR": "0",
    "RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO": "0",
}.items():
    os.environ.setdefault(_name, _value)
