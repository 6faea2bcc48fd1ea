"""When to try again, and how long to wait: arithmetic without processes."""

from __future__ import annotations

from distppo.runtime.attempts import LONGEST_PAUSE, Attempts
from distppo.runtime.deadline import PATIENCE, SHORTEST, UNMEASURED, Deadline


def after(failures: int, hangs: int = 0) -> Attempts:
    attempts = Attempts()
    for number in range(failures):
        attempts.failed(crashed=True, hung=number < hangs)
    return attempts


def test_the_second_attempt_is_made_at_once_and_later_ones_ever_later() -> None:
    """0, then the back-off, doubled each time, up to a minute."""
    assert [after(failures).pause(1.0) for failures in range(1, 9)] == [0, 1, 2, 4, 8, 16, 32, LONGEST_PAUSE]
    assert after(10_000).pause(1.0) == LONGEST_PAUSE and after(5).pause(0.0) == 0


def test_success_starts_a_new_count() -> None:
    """Failures count in a row only: a run that always gets on goes on for ever."""
    attempts = after(6, hangs=3)
    attempts.succeeded()
    assert attempts == Attempts()


def test_a_limit_of_k_allows_k_failures() -> None:
    """0 allows none."""
    assert [after(failures).exhausted(2) for failures in range(1, 4)] == [False, False, True]
    assert after(1).exhausted(0)


def test_new_episodes_start_from_the_second_hang_or_half_of_the_failures() -> None:
    """Until then what is collected is what would have been."""
    assert [after(failures).needs_new_episodes(6) for failures in range(1, 7)] == [False, False, False, True, True, True]
    assert [after(hangs, hangs).needs_new_episodes(6) for hangs in (1, 2)] == [False, True]


def test_what_the_network_did_is_not_held_against_the_work() -> None:
    """Calls without an answer and starts that failed count towards the limit alone."""
    attempts = Attempts()
    for _ in range(6):
        attempts.failed()
    assert not attempts.needs_new_episodes(6) and not attempts.contagious and attempts.exhausted(5)
    assert not after(1).contagious and after(2).contagious


def test_a_deadline_is_a_multiple_of_the_slowest_pace() -> None:
    """It scales with the env steps, and never falls below a minute."""
    deadline = Deadline(None)
    assert deadline.seconds(1000) == UNMEASURED
    deadline.measured(env_steps=1000, seconds=20.0)
    deadline.measured(env_steps=1000, seconds=10.0)
    assert deadline.seconds(1000) == PATIENCE * 20 and deadline.seconds(4000) == PATIENCE * 80
    assert deadline.seconds(10) == SHORTEST and deadline.seconds(None) == UNMEASURED


def test_a_deadline_that_was_set_holds_for_everything() -> None:
    """Measured or not."""
    deadline = Deadline(7.0)
    deadline.measured(env_steps=1, seconds=100.0)
    assert deadline.seconds(1000) == deadline.seconds(None) == 7.0
