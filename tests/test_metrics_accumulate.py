"""Means, the window of episodes, the timer, and what is known of the machine."""

from __future__ import annotations

import json
import math
import re
import subprocess
import sys
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from distppo.metrics import EVENTS, FAULT_METRICS, FAULTS, KEYS, PHASES, EpisodeWindow, Mean, PhaseTimer, machine_info

DOCUMENT = Path(__file__).parents[1] / "docs" / "metrics.md"


@given(st.lists(st.lists(st.integers(-1000, 1000), max_size=5)))
def test_means_of_parts_add_up_to_the_mean_of_the_whole(parts):
    mean = Mean()
    for part in parts:
        mean.add(sum(part), count=len(part))
    whole = [value for part in parts for value in part]
    assert mean.value == (sum(whole) / len(whole) if whole else None)


def test_the_window_holds_the_last_episodes_only():
    window = EpisodeWindow(3)
    assert (len(window), window.mean_return, window.mean_length) == (0, None, None)
    for number in range(1, 6):
        window.add(float(number), 10 * number)
    assert (len(window), window.mean_return, window.mean_length) == (3, 4.0, 40.0)


def test_a_window_goes_through_json_unchanged_non_finite_returns_included():
    window, restored = EpisodeWindow(), EpisodeWindow()
    for value in (0.1, math.inf, -math.inf, math.nan):
        window.add(value, 7)
    restored.add(1.0, 1)
    restored.load_state(json.loads(json.dumps(window.state(), allow_nan=False)))
    assert restored.state() == window.state() and len(restored) == 4


def test_phases_add_up_within_an_iteration_and_in_total():
    now = [0.0]
    timer = PhaseTimer(clock=lambda: now[0])

    def spend(phase, seconds):
        with timer.phase(phase):
            now[0] += seconds

    spend("collect", 2.0)
    now[0] += 10.0  # Outside any phase.
    spend("collect", 3.0)
    spend("update", 1.0)
    assert timer.take() == {"collect": 5.0, "update": 1.0, "broadcast": 0.0, "evaluate": 0.0, "checkpoint": 0.0}
    spend("update", 4.0)
    assert timer.take()["update"] == 4.0
    assert timer.totals == {"collect": 5.0, "update": 5.0, "broadcast": 0.0, "evaluate": 0.0, "checkpoint": 0.0}


def test_a_phase_that_raises_is_counted_and_ends():
    timer = PhaseTimer()
    with pytest.raises(KeyError), timer.phase("collect"):
        raise KeyError
    with timer.phase("update"):
        pass
    assert timer.take()["collect"] > 0


def test_a_phase_without_a_name_in_the_table_or_inside_another_is_refused():
    timer = PhaseTimer()
    with pytest.raises(ValueError, match="'sleep' is not a phase; these are: collect, "), timer.phase("sleep"):
        pass
    with pytest.raises(AssertionError), timer.phase("collect"), timer.phase("update"):
        pass


def test_every_phase_is_a_metric():
    assert {f"time/{phase}" for phase in (*PHASES, "other")} <= set(KEYS)


def test_machine_info_is_json_and_imports_nothing():
    code = (
        "import json, sys; from distppo.metrics import machine_info; info = machine_info(); print(json.dumps(info, allow_nan=False))\n"
        "sys.exit(bool({'torch', 'ray', 'gymnasium', 'mujoco', 'numpy', 'numba'} & set(sys.modules)))"
    )
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    info = json.loads(result.stdout)
    assert info["python"].split(".")[:2] == [str(part) for part in sys.version_info[:2]]
    assert info["cores"] >= 1 and info["memory_bytes"] > 2**28 and info["gpu"] is None
    assert {"distppo", "ray", "torch", "gymnasium", "mujoco", "numpy", "numba", "git_commit", "platform", "cpu"} <= info.keys()


def test_versions_are_those_of_the_installed_packages():
    import numpy

    assert machine_info()["numpy"] == numpy.__version__


def documented(first_header):
    """Key -> the cells after it, of the tables in docs/metrics.md whose first column has this header."""
    rows, inside = {}, False
    for line in DOCUMENT.read_text().splitlines():
        cells = [cell.strip().replace(r"\|", "|") for cell in re.split(r"(?<!\\)\|", line)[1:-1]]
        if not cells or set(cells[0]) == {"-"}:
            inside = inside and bool(cells)
        elif cells[0] == first_header:
            inside = True
        elif inside:
            rows[cells[0].strip("`")] = cells[1:]
    return rows


def test_the_document_has_every_metric_with_its_meaning_unit_range_and_advice():
    rows = documented("Key")
    assert list(rows) == list(KEYS)
    for key, (unit, meaning, healthy, otherwise) in rows.items():
        assert meaning == KEYS[key]
        assert unit and healthy and otherwise


def test_the_document_has_every_event():
    assert {kind: cells[0] for kind, cells in documented("Kind").items()} == EVENTS
    assert {"started", "finished", "interrupted", "stopped", "error"} <= set(EVENTS)


def test_the_document_gives_every_end_without_an_error_the_same_fields():
    """They are written by one call in runtime/train.py."""
    fields = {kind: re.findall(r"`(\w+)`", re.sub(r"\(.*?\)", "", cells[1])) for kind, cells in documented("Kind").items()}
    assert fields["finished"] == fields["interrupted"] == fields["stopped"] == ["env_steps", "signal", "reason"]


def test_the_document_has_every_fault_and_what_counts_it():
    documented_faults = documented("Fault")
    assert {kind: cells[0] for kind, cells in documented_faults.items()} == FAULTS
    assert {kind: cells[1].strip("`") for kind, cells in documented_faults.items()} == FAULT_METRICS
    assert set(FAULT_METRICS.values()) == {key for key in KEYS if key.startswith("faults/")}
