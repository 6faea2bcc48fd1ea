"""Making environments and stepping several of them in one process."""

from distppo.envs.failure import failure_text
from distppo.envs.make import make_env, probe_env
from distppo.envs.vector import VectorStepper

__all__ = ["VectorStepper", "failure_text", "make_env", "probe_env"]
