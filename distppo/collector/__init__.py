"""Collecting fragments: stepping environments with a snapshot, and mending what breaks on the way. No torch."""

from distppo.collector.collector import RolloutCollector

__all__ = ["RolloutCollector"]
