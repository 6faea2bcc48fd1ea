"""Making environments, stepping several of them in one process, and capturing their state."""

from distppo.envs.capture import CaptureError, EnvCapturer
from distppo.envs.failure import failure_text
from distppo.envs.make import make_env, probe_env
from distppo.envs.states import joined, part_of
from distppo.envs.vector import VectorStepper

__all__ = ["CaptureError", "EnvCapturer", "VectorStepper", "failure_text", "joined", "make_env", "part_of", "probe_env"]
