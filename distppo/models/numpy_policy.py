"""Acting with an MLP policy without torch: no import, no per-call overhead, no allocation."""

from __future__ import annotations

import math

import numpy as np

from distppo.algo.moments import standard_deviation
from distppo.models.layout import actor_layers, parameter_views
from distppo.types import Moments, PolicySnapshot

LOG_SQRT_2PI = 0.5 * math.log(2.0 * math.pi)


class ObservationNormalizer:
    """clip((o - mean) / std, +-clip) with moments that stay as they are.

    Args:
        moments: of raw observations, [*S]; with count 0 observations are only clipped.
        clip: bound in standard deviations; None: observations pass unchanged.
        rows: n, observations of a call.
    """

    def __init__(self, moments: Moments, clip: float | None, rows: int) -> None:
        self._normalizes = clip is not None
        # One row for each observation: numpy is twice as fast on equal shapes as on broadcast ones, and this runs every env step.
        self._mean = _rows(moments.mean, rows)
        self._inverse_std = _rows(1.0 / standard_deviation(moments), rows)
        self._high = np.full_like(self._mean, np.inf if clip is None else clip)
        self._low = -self._high
        self._buffer = np.empty_like(self._mean)

    def __call__(self, observations: np.ndarray, out: np.ndarray) -> None:
        """Writes the normalized observations.

        Args:
            observations: [n, *S] float64, raw.
            out: [n, *S] float32.
        """
        if not self._normalizes:
            out[...] = observations
            return
        buffer = self._buffer
        np.subtract(observations, self._mean, out=buffer)
        np.multiply(buffer, self._inverse_std, out=buffer)
        np.maximum(buffer, self._low, out=buffer)
        np.minimum(buffer, self._high, out=out, casting="same_kind")


class ActionScaler:
    """Clips an action to [-1, 1] and rescales it to the environment's bounds; a dimension without bounds passes unchanged.

    Args:
        low: [A] bounds, -inf where there is none.
        high: [A].
        rows: n, actions of a call.
    """

    def __init__(self, low: tuple[float, ...], high: tuple[float, ...], rows: int) -> None:
        bounds = np.array([low, high], np.float64)
        bounded = np.isfinite(bounds).all(axis=0)
        # A dimension with one bound only is clipped there by its own units.
        with np.errstate(invalid="ignore"):
            scale, shift = (bounds[1] - bounds[0]) / 2, (bounds[1] + bounds[0]) / 2
        self._minimum = _rows(np.where(bounded, -1.0, bounds[0]).astype(np.float32), rows)
        self._maximum = _rows(np.where(bounded, 1.0, bounds[1]).astype(np.float32), rows)
        self._scale = _rows(np.where(bounded, scale, 1.0).astype(np.float32), rows)
        self._shift = _rows(np.where(bounded, shift, 0.0).astype(np.float32), rows)
        self._identity = bool((self._scale == 1.0).all() and (self._shift == 0.0).all())

    def __call__(self, actions: np.ndarray) -> np.ndarray:
        """Returns what the environment gets, [n, A] float32: an array of its own, since an environment may keep its last action."""
        scaled = np.maximum(actions, self._minimum)
        np.minimum(scaled, self._maximum, out=scaled)
        if not self._identity:
            np.multiply(scaled, self._scale, out=scaled)
            np.add(scaled, self._shift, out=scaled)
        return scaled


class NumpyActor:
    """The mean of a Gaussian MLP policy for a fixed number of observations.

    Args:
        snapshot: weights, used without copying.
        rows: n, observations of a call.
    """

    def __init__(self, snapshot: PolicySnapshot, rows: int) -> None:
        parameters = parameter_views(snapshot.parameters, snapshot.spec.layout)
        self.log_std = parameters["log_std"]
        self._activate = ACTIVATIONS[snapshot.spec.activation]
        self._layers = [(weight.T, _rows(bias, rows), np.empty((rows, len(bias)), np.float32)) for weight, bias in actor_layers(parameters)]

    def mean(self, observations: np.ndarray, out: np.ndarray) -> None:
        """Writes the action means: observations [n, S] float32 contiguous -> out [n, A] float32."""
        for weight, bias, buffer in self._layers[:-1]:
            np.dot(observations, weight, out=buffer)
            np.add(buffer, bias, out=buffer)
            self._activate(buffer)
            observations = buffer
        weight, bias, buffer = self._layers[-1]
        np.dot(observations, weight, out=buffer)
        np.add(buffer, bias, out=out)


def gaussian_log_probs(actions: np.ndarray, means: np.ndarray, log_std: np.ndarray) -> np.ndarray:
    """Returns the log-probabilities of actions before clipping.

    Args:
        actions: [..., A] float32.
        means: [..., A] float32.
        log_std: [A] float32.

    Returns:
        [...] float32, nats.
    """
    standardized = (actions - means) * np.exp(-log_std)
    constant = np.float32(log_std.sum() + LOG_SQRT_2PI * len(log_std))
    return np.asarray(np.float32(-0.5) * np.square(standardized).sum(axis=-1) - constant)


def _rows(row: np.ndarray, rows: int) -> np.ndarray:
    """Returns [rows, *shape] of copies of `row`, contiguous."""
    return np.ascontiguousarray(np.broadcast_to(row, (rows, *row.shape)))


def _tanh(buffer: np.ndarray) -> None:
    np.tanh(buffer, out=buffer)


def _relu(buffer: np.ndarray) -> None:
    np.maximum(buffer, 0.0, out=buffer)


def _elu(buffer: np.ndarray) -> None:
    np.copyto(buffer, np.expm1(np.minimum(buffer, 0.0)), where=buffer < 0.0)


ACTIVATIONS = {"tanh": _tanh, "relu": _relu, "elu": _elu}
