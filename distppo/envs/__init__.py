"""Making environments, stepping several of them in one process, and capturing their state."""

from distppo.envs.capture import CaptureError, EnvCapturer
from distppo.envs.make import make_env, probe_env
from distppo.envs.states import joined, obstructed, packed, part_of, unpacked
from distppo.envs.vector import VectorStepper

__all__ = [
    "CaptureError",
    "EnvCapturer",
    "VectorStepper",
    "joined",
    "make_env",
    "obstructed",
    "packed",
    "part_of",
    "probe_env",
    "unpacked",
]
