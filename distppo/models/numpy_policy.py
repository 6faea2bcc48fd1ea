"""Acting with an MLP policy without torch: no import, no per-call overhead, no allocation."""

from __future__ import annotations

import numpy as np

from distppo.algo.moments import standard_deviation
from distppo.models.heads import CategoricalHead, GaussianHead, repeated
from distppo.models.layout import actor_layers, parameter_views
from distppo.types import Moments, PolicySnapshot

LAYER_NORM_EPSILON = np.float32(1e-5)


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
        self._mean = repeated(moments.mean, rows)
        self._inverse_std = repeated(1.0 / standard_deviation(moments), rows)
        self._high = np.full_like(self._mean, np.inf if clip is None else clip)
        self._low = -self._high
        self._buffer = np.empty_like(self._mean)

    def __call__(self, observations: np.ndarray, out: np.ndarray) -> None:
        """Writes the normalized observations.

        Args:
            observations: [n, *S] float64, raw (images uint8).
            out: [n, *S] float32 (images uint8).
        """
        if not self._normalizes:
            out[...] = observations
            return
        buffer = self._buffer
        np.subtract(observations, self._mean, out=buffer)
        np.multiply(buffer, self._inverse_std, out=buffer)
        np.maximum(buffer, self._low, out=buffer)
        np.minimum(buffer, self._high, out=out, casting="same_kind")


class NumpyActor:
    """An MLP policy for a fixed number of observations.

    Args:
        snapshot: weights, used without copying.
        rows: n, observations of a call.
    """

    def __init__(self, snapshot: PolicySnapshot, rows: int) -> None:
        parameters = parameter_views(snapshot.parameters, snapshot.spec.layout)
        env = snapshot.spec.env
        self._head = CategoricalHead(env.action_choices) if env.action_choices else GaussianHead(parameters["log_std"])
        self._choose = self._head.choose
        self._outputs = np.empty((rows, env.action_outputs), np.float32)
        self._activate = ACTIVATIONS[snapshot.spec.network.activation or "tanh"]
        *hidden, last = actor_layers(parameters)
        self._hidden = [
            (
                layer.weight.T,
                repeated(layer.bias, rows),
                np.empty((rows, len(layer.bias)), np.float32),
                None if layer.scale is None else _LayerNorm(layer.scale, layer.shift),
            )
            for layer in hidden
        ]
        self._last = (last.weight.T, repeated(last.bias, rows), np.empty((rows, len(last.bias)), np.float32))

    def act(self, observations: np.ndarray, noise: np.ndarray, outputs: np.ndarray, actions: np.ndarray) -> None:
        """Writes sampled actions, and what `log_probs` needs of them.

        Args:
            observations: [n, S] float32, contiguous.
            noise: [n, K] float32, as `scale_noise` left it.
            outputs: [n, K] float32, written: means or logits.
            actions: [n, A] float32, written.
        """
        self._forward(observations, outputs)
        self._choose(outputs, noise, actions)

    def mode(self, observations: np.ndarray, actions: np.ndarray) -> None:
        """Writes the most likely actions [n, A] for observations [n, S]."""
        self._forward(observations, self._outputs)
        self._head.mode(self._outputs, actions)

    def scale_noise(self, noise: np.ndarray) -> None:
        """Turns standard noise [..., K] into what `act` takes, in place."""
        self._head.scale_noise(noise)

    def log_probs(self, actions: np.ndarray, outputs: np.ndarray) -> np.ndarray:
        """Returns the log-probabilities [...] float32, nats, of actions [..., A] that `act` sampled with these outputs [..., K]."""
        return self._head.log_probs(actions, outputs)

    def _forward(self, observations: np.ndarray, out: np.ndarray) -> None:
        for weight, bias, buffer, norm in self._hidden:
            np.dot(observations, weight, out=buffer)
            np.add(buffer, bias, out=buffer)
            if norm is not None:
                norm(buffer)
            self._activate(buffer)
            observations = buffer
        weight, bias, buffer = self._last
        np.dot(observations, weight, out=buffer)
        np.add(buffer, bias, out=out)


class _LayerNorm:
    """Normalizes every row to mean 0, variance 1, then scales and shifts, in place."""

    def __init__(self, scale: np.ndarray, shift: np.ndarray | None) -> None:
        self._scale, self._shift = scale, shift

    def __call__(self, buffer: np.ndarray) -> None:
        buffer -= buffer.mean(axis=1, keepdims=True)
        buffer /= np.sqrt(np.square(buffer).mean(axis=1, keepdims=True) + LAYER_NORM_EPSILON)
        buffer *= self._scale
        buffer += self._shift


def _tanh(buffer: np.ndarray) -> None:
    np.tanh(buffer, out=buffer)


def _relu(buffer: np.ndarray) -> None:
    np.maximum(buffer, 0.0, out=buffer)


def _elu(buffer: np.ndarray) -> None:
    np.copyto(buffer, np.expm1(np.minimum(buffer, 0.0)), where=buffer < 0.0)


ACTIVATIONS = {"tanh": _tanh, "relu": _relu, "elu": _elu}
