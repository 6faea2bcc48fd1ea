"""From a policy's outputs to actions without torch: sampling, log-probabilities, and what the environment takes."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any, cast

import numpy as np

from distppo.types import EnvSpec

LOG_SQRT_2PI = 0.5 * math.log(2.0 * math.pi)
Choose = Callable[[np.ndarray, np.ndarray, np.ndarray], Any]
ToEnvironment = Callable[[np.ndarray], np.ndarray]


class GaussianHead:
    """Independent normal distributions with a standard deviation that does not depend on the state; outputs are the means.

    Args:
        log_std: [A] float32.
    """

    choose = staticmethod(cast(Choose, np.add))
    """Writes mean + noise, [n, A] each: numpy's function itself, since it is called every env step."""

    def __init__(self, log_std: np.ndarray) -> None:
        self._log_std = log_std

    def scale_noise(self, noise: np.ndarray) -> None:
        """Multiplies standard normal noise [..., A] by the std, in place, so that an action is mean + noise."""
        noise *= np.exp(self._log_std)

    def mode(self, outputs: np.ndarray, actions: np.ndarray) -> None:
        """Writes the means [n, A]."""
        actions[...] = outputs

    def log_probs(self, actions: np.ndarray, outputs: np.ndarray) -> np.ndarray:
        """Returns [...] float32, nats, of actions [..., A] before clipping."""
        standardized = (actions - outputs) * np.exp(-self._log_std)
        constant = np.float32(self._log_std.sum() + LOG_SQRT_2PI * len(self._log_std))
        return np.asarray(np.float32(-0.5) * np.square(standardized).sum(axis=-1) - constant)


class CategoricalHead:
    """Independent choices; outputs are the logits [..., K] of all of them side by side.

    Args:
        choices: A numbers of choices that add up to K.
    """

    def __init__(self, choices: tuple[int, ...]) -> None:
        ends = np.cumsum(choices).tolist()
        self._parts = [slice(end - count, end) for end, count in zip(ends, choices, strict=True)]

    def scale_noise(self, noise: np.ndarray) -> None:
        """Leaves Gumbel noise [..., K] as it is."""

    def choose(self, outputs: np.ndarray, noise: np.ndarray, actions: np.ndarray) -> None:
        """Writes argmax(logits + noise) [n, A]: distributed as softmax(logits)."""
        self.mode(outputs + noise, actions)

    def mode(self, outputs: np.ndarray, actions: np.ndarray) -> None:
        """Writes the most likely choices [n, A]; the first of several."""
        for index, part in enumerate(self._parts):
            actions[:, index] = outputs[:, part].argmax(axis=1)

    def log_probs(self, actions: np.ndarray, outputs: np.ndarray) -> np.ndarray:
        """Returns sum_a log softmax(logits_a)[action_a], [...] float32, nats."""
        total = np.zeros(actions.shape[:-1], np.float32)
        for index, part in enumerate(self._parts):
            logits = outputs[..., part] - outputs[..., part].max(axis=-1, keepdims=True)
            chosen = np.take_along_axis(logits, actions[..., index : index + 1].astype(np.int64), axis=-1)[..., 0]
            total += chosen - np.log(np.exp(logits).sum(axis=-1))
        return total


def action_scaling(low: tuple[float, ...], high: tuple[float, ...]) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """Returns (minimum, maximum, scale, shift), [A] float32: the environment gets clip(action, minimum, maximum) * scale + shift.

    Args:
        low: [A] bounds, -inf where there is none.
        high: [A].
    """
    bounds = np.array([low, high], np.float64)
    bounded = np.isfinite(bounds).all(axis=0)
    with np.errstate(invalid="ignore"):
        scale, shift = (bounds[1] - bounds[0]) / 2, (bounds[1] + bounds[0]) / 2
    # A dimension with one bound only is clipped there by its own units.
    rows = (
        np.where(bounded, -1.0, bounds[0]),
        np.where(bounded, 1.0, bounds[1]),
        np.where(bounded, scale, 1.0),
        np.where(bounded, shift, 0.0),
    )
    minimum, maximum, scale, shift = (row.astype(np.float32) for row in rows)
    return minimum, maximum, scale, shift


def rounds_outside(low: tuple[float, ...], high: tuple[float, ...]) -> bool:
    """Says whether -1 or 1, rescaled in float32, is beyond a bound: 1.4 + 0.7 * (1 - 1) may be 1.3999999."""
    minimum, maximum, scale, shift = action_scaling(low, high)
    lowest, highest = minimum * scale + shift, maximum * scale + shift
    return bool((lowest < np.array(low, np.float32)).any() or (highest > np.array(high, np.float32)).any())


class ActionScaler:
    """Clips an action to [-1, 1] and rescales it to the environment's bounds; a dimension without bounds passes unchanged.

    Args:
        low: [A] bounds, -inf where there is none.
        high: [A].
        rows: n, actions of a call.
    """

    def __init__(self, low: tuple[float, ...], high: tuple[float, ...], rows: int) -> None:
        self._minimum, self._maximum, self._scale, self._shift = (repeated(row, rows) for row in action_scaling(low, high))
        self._identity = bool((self._scale == 1.0).all() and (self._shift == 0.0).all())
        bounds = (repeated(np.array(bound, np.float32), rows) for bound in (low, high))
        self._bounds = tuple(bounds) if rounds_outside(low, high) else None

    def __call__(self, actions: np.ndarray) -> np.ndarray:
        """Returns what the environment gets, [n, A] float32: an array of its own, since an environment may keep its last action."""
        scaled = np.maximum(actions, self._minimum)
        np.minimum(scaled, self._maximum, out=scaled)
        if not self._identity:
            np.multiply(scaled, self._scale, out=scaled)
            np.add(scaled, self._shift, out=scaled)
        if self._bounds is not None:
            np.clip(scaled, *self._bounds, out=scaled)
        return scaled


class ActionChoices:
    """Turns numbers of choices into what the environment calls them.

    Args:
        start: A whole numbers, the environment's first choices.
    """

    def __init__(self, start: tuple[int, ...]) -> None:
        self._start = np.array(start, np.int64)

    def __call__(self, actions: np.ndarray) -> np.ndarray:
        """Returns what the environment gets, [n, A] int64."""
        return actions.astype(np.int64) + self._start


def environment_actions(env: EnvSpec, rows: int) -> ToEnvironment:
    """Returns the function from a policy's actions [n, A] to the environment's."""
    return ActionChoices(env.action_start) if env.action_choices else ActionScaler(env.action_low, env.action_high, rows)


def action_noise(env: EnvSpec, random: np.random.Generator, steps: int) -> np.ndarray:
    """Returns the noise of so many actions, [steps, K] float32: standard normal for continuous actions, standard Gumbel for choices."""
    if not env.action_choices:
        return random.standard_normal((steps, env.action_size), np.float32)
    # Drawn in float64: in float32 one exponential in eight million is 0, whose logarithm is not finite.
    return (-np.log(random.standard_exponential((steps, env.action_outputs)))).astype(np.float32)


def repeated(row: np.ndarray, rows: int) -> np.ndarray:
    """Returns [rows, *shape] of copies of `row`, contiguous."""
    return np.ascontiguousarray(np.broadcast_to(row, (rows, *row.shape)))
