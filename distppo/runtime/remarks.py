"""What a display says about a run: the findings, a line each."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from distppo.config import Config
from distppo.config.load import flattened
from distppo.findings import RunRecord, find


def remarks(config: Config) -> Callable[[Sequence[Mapping[str, Any]]], list[str]]:
    """Returns what says in a line each what the rules find in the rows of a run with these settings, the worst first."""
    settings = flattened(config)
    return lambda rows: [f"{finding.title}: {finding.text}" for finding in find(RunRecord(rows, settings))]
