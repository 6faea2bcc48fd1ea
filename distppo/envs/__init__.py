"""Making environments and stepping several of them in one process."""

from distppo.envs.make import make_env, probe_env
from distppo.envs.vector import VectorStepper

__all__ = ["VectorStepper", "make_env", "probe_env"]
