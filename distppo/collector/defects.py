"""Finding what must not be learned from: numbers that are not finite, and where the first of them came from."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import NamedTuple

import numpy as np

LARGEST_FLOAT64 = 1e100
"""Observations beyond this would make the moments infinite: their squares are summed in float64."""
LARGEST_FLOAT32 = float(np.finfo(np.float32).max)


class Defect(NamedTuple):
    """Why an environment's part of a fragment cannot be used.

    Attributes:
        kind: env_error, env_nonfinite, or policy_nonfinite, which no other environment would mend.
        step: timestep t at which it happened; -1: in the reset before.
        text: one sentence or more for people, without the environment's name.
        traceback: of the exception; empty where there was none.
    """

    kind: str
    step: int
    text: str
    traceback: str = ""

    @property
    def order(self) -> int:
        """Smaller is earlier: at a timestep the policy acts, then the environment answers."""
        return 2 * self.step + (self.kind != "policy_nonfinite")


class Final(NamedTuple):
    """A truncated episode's end: timestep t, environment n, [*S] raw observation."""

    step: int
    env: int
    observation: np.ndarray


def find_defects(raw: np.ndarray, rewards: np.ndarray, actions: np.ndarray, final: Sequence[Final], *, largest: float) -> dict[int, Defect]:
    """Returns n -> the first number of environment n that is not finite, for those that have one.

    Args:
        raw: [T+1, N, *S] observations.
        rewards: [T, N].
        actions: [T, N, A] as sampled.
        final: of the truncated episodes.
        largest: magnitude from which an observation is as bad as an infinite one.
    """
    found: dict[int, Defect] = {}
    for n, defect in _all_defects(raw, rewards, actions, final, largest):
        if n not in found or defect.order < found[n].order:
            found[n] = defect
    return found


def _all_defects(
    raw: np.ndarray, rewards: np.ndarray, actions: np.ndarray, final: Sequence[Final], largest: float
) -> Iterator[tuple[int, Defect]]:
    """Yields each environment's first one of every sort."""
    if not _within(raw, largest):
        for n in _columns(raw, largest):
            row, element = _first(raw[:, n], largest)
            yield n, Defect("env_nonfinite", row - 1, f"gave observation{element_text(element)} = {raw[(row, n, *element)]}")
    if not _within(rewards, LARGEST_FLOAT32):
        for n in _columns(rewards, LARGEST_FLOAT32):
            row, _ = _first(rewards[:, n], LARGEST_FLOAT32)
            yield n, Defect("env_nonfinite", row, f"gave reward = {rewards[row, n]}")
    if not _within(actions, LARGEST_FLOAT32):
        for n in _columns(actions, LARGEST_FLOAT32):
            row, element = _first(actions[:, n], LARGEST_FLOAT32)
            yield n, Defect("policy_nonfinite", row, f"was given action{element_text(element)} = {actions[(row, n, *element)]}")
    for step, n, observation in final:
        if not _within(observation, largest):
            _, element = _first(observation[None], largest)
            yield n, Defect("env_nonfinite", step, f"ended in observation{element_text(element)} = {observation[element]}")


def element_text(element: tuple[int, ...]) -> str:
    """Returns " element 3" or " element (0, 3)"; nothing for a single number."""
    return f" element {element[0] if len(element) == 1 else element}" if element else ""


def _within(array: np.ndarray, largest: float) -> bool:
    """Says whether all numbers are finite and not beyond +-largest; a NaN makes both comparisons false. Two passes, no copy."""
    return array.size == 0 or array.dtype == np.uint8 or (float(array.max()) <= largest and float(array.min()) >= -largest)


def _columns(array: np.ndarray, largest: float) -> list[int]:
    return [n for n in range(array.shape[1]) if not _within(array[:, n], largest)]


def _first(rows: np.ndarray, largest: float) -> tuple[int, tuple[int, ...]]:
    """Returns (row, index in it) of the first bad number."""
    row, *element = (int(i) for i in np.argwhere(~(np.abs(rows.astype(np.float64)) <= largest))[0])
    return row, tuple(element)
