"""The learner's way from core to core."""

from __future__ import annotations

import os

import pytest

from distppo.runtime.cores import CoreRotation, available_cores

pytestmark = pytest.mark.skipif(not hasattr(os, "sched_setaffinity"), reason="threads cannot be bound to cores here")


def test_every_core_gets_its_turn_and_afterwards_the_thread_is_free() -> None:
    """As many workers as cores: the learner visits all cores alike; an error inside changes nothing about the end."""
    everywhere = os.sched_getaffinity(0)
    rotation = CoreRotation(workers=available_cores())
    visited = []
    with pytest.raises(ZeroDivisionError), rotation.running():
        for _ in range(2 * len(everywhere)):
            rotation.next()
            visited.append(os.sched_getaffinity(0))
        raise ZeroDivisionError
    assert visited == [{core} for core in sorted(everywhere)] * 2
    assert os.sched_getaffinity(0) == everywhere


def test_a_learner_with_a_core_of_its_own_stays_where_the_system_puts_it() -> None:
    """Fewer workers than cores, or workers that wait meanwhile."""
    everywhere = os.sched_getaffinity(0)
    rotation = CoreRotation(workers=0)
    with rotation.running():
        rotation.next()
        assert os.sched_getaffinity(0) == everywhere
