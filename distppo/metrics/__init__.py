"""Metrics of a run: what they are called, how they are accumulated, where they are written.

`metrics.jsonl` is the source of truth; `progress.csv` and the TensorBoard events are views of it.
"""

from distppo.metrics.accumulate import PHASES, EpisodeWindow, Mean, PhaseTimer
from distppo.metrics.follow import MetricsFollower
from distppo.metrics.forward import Forwarder
from distppo.metrics.jsonl import METRICS_FILE, RunLog, read_log, read_metrics
from distppo.metrics.keys import EVENTS, FAULT_METRICS, FAULTS, KEYS
from distppo.metrics.loggers import require_loggers
from distppo.metrics.machine import machine_info
from distppo.metrics.writer import SUMMARY_FILE, RunWriter, write_summary

__all__ = [
    "EVENTS",
    "FAULTS",
    "FAULT_METRICS",
    "KEYS",
    "METRICS_FILE",
    "PHASES",
    "SUMMARY_FILE",
    "EpisodeWindow",
    "Forwarder",
    "Mean",
    "MetricsFollower",
    "PhaseTimer",
    "RunLog",
    "RunWriter",
    "machine_info",
    "read_log",
    "read_metrics",
    "require_loggers",
    "write_summary",
]
