"""Holds an exported policy against the one it was made from."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np

from distppo.algo.moments import standard_deviation
from distppo.export.numpy_loader import OPERATIONS
from distppo.export.program import Operation, Program
from distppo.types import Moments

OBSERVATIONS = 1000
TOLERANCE = 1e-5
_EXTREME_DECADES = {True: 4.0, False: 1.0}
"""Up to how many powers of ten of the usual size extreme observations have: without a normalizer nothing clips them, and float32 ends."""


def sample_observations(program: Program, moments: Moments, *, normalized: bool) -> np.ndarray:
    """Returns [1000, *S] raw observations: half as seen in training, 400 far outside of it, zeros, the mean and large equal numbers.

    Of images, which have no mean: uniform noise of every brightness, black and white.

    Args:
        program: says what it takes.
        moments: of the observations in training.
        normalized: whether the policy normalizes.
    """
    rng = np.random.default_rng(0)
    shape, dtype = program.observation_shape, np.dtype(program.observation_dtype)
    if dtype == np.uint8:
        brightness = rng.integers(1, 257, (OBSERVATIONS, *[1] * len(shape)))
        images = rng.integers(0, brightness, (OBSERVATIONS, *shape)).astype(np.uint8)
        images[900:940], images[960:] = 0, 255
        return images
    std = standard_deviation(moments)
    noise = rng.standard_normal((OBSERVATIONS, *shape))
    factor = np.ones(OBSERVATIONS)
    factor[500:900] = 10.0 ** rng.uniform(0, _EXTREME_DECADES[normalized], 400)
    observations = moments.mean + std * noise * factor.reshape(-1, *[1] * len(shape))
    observations[900:940] = 0.0
    observations[940:960] = moments.mean
    observations[960:] = 10.0 ** _EXTREME_DECADES[normalized] * np.sign(noise[960:])
    return observations


def clear_cases(program: Program, inputs: np.ndarray) -> np.ndarray:
    """Returns the inputs for which a policy that chooses has a clear best: of a tie, rounding would decide. Of others it returns all."""
    choosing = [operation for operation in program.operations if operation.name == "choose"]
    if not choosing:
        return inputs
    names = [operation.name for operation in program.operations]
    scores = _run(program.operations[: names.index("choose")], inputs, np.float64)
    clear = np.ones(len(inputs), bool)
    for group in np.split(scores, np.cumsum(choosing[0].values["choices"])[:-1], axis=1):
        best = np.sort(group, axis=1)[:, -2:]
        clear &= best[:, -1] - best[:, 0] > TOLERANCE * np.maximum(1.0, np.abs(best[:, -1])) if best.shape[1] > 1 else True
    return inputs[clear]


def allowed_difference(program: Program, inputs: np.ndarray) -> float:
    """Returns 1e-5, or four times what rounding makes of this program where that is more: float32 sums in another order differ by it.

    Args:
        program: run here in float32 and in float64.
        inputs: [n, *S].
    """
    rounding = largest_difference(
        lambda x: _run(program.operations, x, np.float64), lambda x: _run(program.operations, x, np.float32), inputs
    )
    return max(TOLERANCE, 4 * rounding) if program.action_dtype == "float32" else TOLERANCE


def _run(operations: Sequence[Operation], x: np.ndarray, dtype: type[np.floating]) -> np.ndarray:
    """Returns what the operations make of a batch, in arithmetic of at least this precision."""
    for operation in operations:
        arrays = {role: array.astype(np.result_type(array, dtype)) for role, array in operation.arrays.items()}
        result: np.ndarray = OPERATIONS[operation.name](x, **arrays, **operation.values)
        x = result.astype(np.result_type(result, dtype)) if np.issubdtype(result.dtype, np.floating) else result
    return x


def largest_difference(
    reference: Callable[[np.ndarray], np.ndarray], exported: Callable[[np.ndarray], np.ndarray], inputs: np.ndarray
) -> float:
    """Returns the largest difference of an action's element, as a share of its size where that is above 1; NaN counts as infinite."""
    expected = np.asarray(reference(inputs), np.float64)
    given = np.asarray(exported(inputs), np.float64)
    if expected.shape != given.shape:
        return float("inf")
    difference = np.abs(given - expected) / np.maximum(1.0, np.abs(expected))
    return float(np.max(np.where(np.isfinite(difference), difference, np.inf), initial=0.0))
