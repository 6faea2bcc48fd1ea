"""A trained policy as people use it: raw observations in, environment actions out."""

from __future__ import annotations

import os
from collections.abc import Sequence
from typing import Any, Protocol

import numpy as np

from distppo.export.formats import Runner, is_exported, read_exported
from distppo.models.acting import actor_factory
from distppo.models.architecture import policy_input
from distppo.models.heads import action_noise, environment_actions
from distppo.models.numpy_policy import ObservationNormalizer
from distppo.models.structured import as_vectors
from distppo.types import PolicySnapshot


class ActingPolicy(Protocol):
    """What `load_policy` returns: a policy from a checkpoint, or from an exported file."""

    def act(self, observation: Any, *, deterministic: bool = True, rng: np.random.Generator | None = None) -> np.ndarray:
        """Returns the action for one raw observation, or one each for a batch."""


class Policy:
    """Normalizer, network, and the way to the environment's actions, of one snapshot; nothing in it changes when it acts.

    Args:
        snapshot: what to act with.

    Raises:
        UserError: the network is a class of the user's own that cannot be imported.
    """

    def __init__(self, snapshot: PolicySnapshot) -> None:
        self.spec = snapshot.spec
        env, network = snapshot.spec.env, snapshot.spec.network
        self._actor = actor_factory(env, network)(snapshot, 1)
        self._normalize = ObservationNormalizer(snapshot.obs_moments, snapshot.spec.observation_clip, rows=1)
        self._to_environment = environment_actions(env, rows=1)
        self._input_shape, self._input_dtype = policy_input(env, network)
        self._raw_dtype = np.uint8 if self._input_dtype == "uint8" else np.float64

    def act(self, observation: Any, *, deterministic: bool = True, rng: np.random.Generator | None = None) -> np.ndarray:
        """Returns the action for one observation, or one each for a batch.

        Rows are computed one at a time, so an action never depends on what else is in the batch, to the last bit.

        Args:
            observation: [*S] or [n, *S], raw as the environment gives it; a dict, a tuple or a whole number where its space says so,
                or a list of those. With env.frame_stack the last observations, [frames, *S].
            deterministic: take the most likely action (the mean of a Gaussian); else sample.
            rng: where the noise comes from; needed when not deterministic.

        Returns:
            [*action shape] or [n, *action shape] as the environment takes it: float32 inside its bounds, or int64 choices.

        Raises:
            ValueError: the observation's shape does not fit, or `rng` is missing.
        """
        shape = self.spec.env.observation_shape
        if self.spec.env.observation_parts:
            observation = as_vectors(self.spec.env.observation_parts, observation)
        observation = np.asarray(observation, self._raw_dtype)
        if observation.shape == shape:
            return self._act_one(observation, deterministic, rng)
        if observation.shape[1:] != shape or observation.ndim != len(shape) + 1:
            raise ValueError(f"observation has shape {observation.shape}; the policy was trained on {shape}, or a batch [n, *{shape}]")
        return np.stack([self._act_one(row, deterministic, rng) for row in observation])

    def _act_one(self, observation: np.ndarray, deterministic: bool, rng: np.random.Generator | None) -> np.ndarray:
        env = self.spec.env
        seen = np.empty((1, *observation.shape), self._input_dtype)
        self._normalize(observation[None], seen)
        inputs, action = seen.reshape(1, *self._input_shape), np.empty((1, env.action_size), np.float32)
        if deterministic:
            self._actor.mode(inputs, action)
        elif rng is None:
            raise ValueError("act(deterministic=False) needs rng, for instance numpy.random.default_rng(0)")
        else:
            noise = action_noise(env, rng, 1)
            self._actor.scale_noise(noise)
            self._actor.act(inputs, noise, np.empty_like(noise), action)
        # A single number comes as numpy's scalar, which environments with a Discrete space index lists with.
        chosen: np.ndarray = self._to_environment(action).reshape(env.action_shape)[()]
        return chosen


class ExportedPolicy:
    """A policy from an exported file: deterministic.

    Args:
        runner: what runs the file.

    Attributes:
        origin: where the policy comes from: env (its settings), env_spec, env_steps, checkpoint.
    """

    def __init__(self, runner: Runner) -> None:
        self._runner = runner
        self.origin: dict[str, Any] = runner.origin
        from distppo.evaluation.restore import env_spec_from

        self._parts = env_spec_from(runner.origin["env_spec"], "the exported policy").observation_parts

    def act(self, observation: Any, *, deterministic: bool = True, rng: np.random.Generator | None = None) -> np.ndarray:
        """Returns the action for one observation, or one each for a batch.

        Args:
            observation: [*S] or [n, *S], raw as the environment gives it; a dict, a tuple or a whole number where its space says so,
                or a list of those. With env.frame_stack the last observations, [frames, *S].
            deterministic: must be True.
            rng: not used.

        Raises:
            ValueError: the observation's shape does not fit, or a sampled action is asked for.
        """
        if not deterministic:
            raise ValueError("an exported policy is deterministic; to sample actions load the checkpoint it was exported from")
        return self._runner.act(as_vectors(self._parts, observation) if self._parts else observation)


def load_policy(path: str | os.PathLike[str], *, trust: Sequence[str] = ()) -> Policy | ExportedPolicy:
    """Returns the policy of a checkpoint, of a run's best (else last) checkpoint, or of an exported file.

    It needs no Ray, and torch only for a CNN, a network of the user's own and a .pt2 file. `policy.act(observation)` takes a raw
    observation [*S] or a batch [n, *S] (a dict, a tuple or a whole number where the space says so) and returns the environment's
    action(s), [*action shape] or [n, *action shape].

    Args:
        path: a checkpoint directory, a run directory, `latest`, a file that `export` has written (.npz, .onnx, .pt2), or a policy that is
            shipped, such as `zoo:halfcheetah`.
        trust: `module:Name`s of a network that may be loaded although the checkpoint names them. The environment's code is never loaded.

    Raises:
        CheckpointError: there is no valid checkpoint, or the file is damaged.
        ExportError: the package that runs an ONNX file is not installed.
        UntrustedCodeError: its network is code that `trust` does not name.

    Example:
        >>> action = load_policy("runs/my-run").act(observation)  # doctest: +SKIP
    """
    from distppo.checkpoint import load_resolved
    from distppo.config.trust import require_named
    from distppo.evaluation.restore import config_of, snapshot_of
    from distppo.evaluation.zoo import from_zoo

    path = from_zoo(path)
    if is_exported(path):
        return ExportedPolicy(read_exported(path))
    checkpoint = load_resolved(str(path), prefer="best")
    require_named(config_of(checkpoint), trust, source=checkpoint.path, sections=("network",))
    return Policy(snapshot_of(checkpoint))
