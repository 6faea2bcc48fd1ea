"""The flight recorder: what led to a fault, in a file that is safe to hand around, and the way back to it."""

from distppo.flight.recorder import FAULTS_DIRECTORY, FlightRecorder
from distppo.flight.replay import Replay, load_dump, replay

__all__ = ["FAULTS_DIRECTORY", "FlightRecorder", "Replay", "load_dump", "replay"]
