"""A trained policy as people use it: raw observations in, environment actions out."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from distppo.models.numpy_policy import ActionScaler, NumpyActor, ObservationNormalizer
from distppo.types import PolicySnapshot


class Policy:
    """Normalizer, network, clipping and rescaling of one snapshot; nothing in it changes when it acts.

    Args:
        snapshot: what to act with.
    """

    def __init__(self, snapshot: PolicySnapshot) -> None:
        self.spec = snapshot.spec
        self._actor = NumpyActor(snapshot, rows=1)
        self._normalize = ObservationNormalizer(snapshot.obs_moments, snapshot.spec.observation_clip, rows=1)
        self._std = np.exp(self._actor.log_std)
        self._scale = ActionScaler(snapshot.spec.env.action_low, snapshot.spec.env.action_high, rows=1)

    def act(self, observation: np.ndarray, *, deterministic: bool = True, rng: np.random.Generator | None = None) -> np.ndarray:
        """Returns the action for one observation, or one each for a batch.

        Rows are computed one at a time, so an action never depends on what else is in the batch, to the last bit.

        Args:
            observation: [*S] or [n, *S], raw as the environment gives it.
            deterministic: take the mean; else sample around it.
            rng: where the noise comes from; needed when not deterministic.

        Returns:
            [*action shape] or [n, *action shape] float32, inside the environment's bounds.

        Raises:
            ValueError: the observation's shape does not fit, or `rng` is missing.
        """
        shape, action_shape = self.spec.env.observation_shape, self.spec.env.action_shape
        observation = np.asarray(observation, np.float64)
        if observation.shape == shape:
            return self._act_one(observation, deterministic, rng).reshape(action_shape)
        if observation.shape[1:] != shape or observation.ndim != len(shape) + 1:
            raise ValueError(f"observation has shape {observation.shape}; the policy was trained on {shape}, or a batch [n, *{shape}]")
        return np.stack([self._act_one(row, deterministic, rng).reshape(action_shape) for row in observation])

    def _act_one(self, observation: np.ndarray, deterministic: bool, rng: np.random.Generator | None) -> np.ndarray:
        normalized = np.empty((1, *observation.shape), np.float32)
        self._normalize(observation[None], normalized)
        action = np.empty((1, self.spec.env.action_size), np.float32)
        self._actor.mean(normalized.reshape(1, -1), action)
        if not deterministic:
            if rng is None:
                raise ValueError("act(deterministic=False) needs rng, for instance numpy.random.default_rng(0)")
            action += rng.standard_normal(action.shape, np.float32) * self._std
        return self._scale(action)


def load_policy(path: str | Path, *, trust: Sequence[str] = ()) -> Policy:
    """Returns the policy of a checkpoint, or of a run's best (else last) checkpoint. Needs neither torch nor Ray.

    Args:
        path: a checkpoint directory, a run directory, or `latest`.
        trust: `module:Name`s of a network that may be loaded although the checkpoint names them. The environment's code is never loaded.

    Raises:
        CheckpointError: there is no valid checkpoint.
        UntrustedCodeError: its network is code that `trust` does not name.

    Example:
        >>> action = load_policy("runs/my-run").act(observation)  # doctest: +SKIP
    """
    from distppo.checkpoint import load_resolved
    from distppo.config.trust import require_named
    from distppo.evaluation.restore import config_of, snapshot_of

    checkpoint = load_resolved(str(path), prefer="best")
    require_named(config_of(checkpoint), trust, source=checkpoint.path, sections=("network",))
    return Policy(snapshot_of(checkpoint))
