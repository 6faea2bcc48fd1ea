"""Makes one environment, without the wrappers that cost time, and says what it looks like."""

from __future__ import annotations

import difflib
import warnings
from typing import Any

import gymnasium as gym
import numpy as np
from gymnasium.wrappers import OrderEnforcing, PassiveEnvChecker, TimeLimit

from distppo.config.schema import EnvConfig
from distppo.errors import UserError
from distppo.types import EnvSpec

PEELED = (TimeLimit, OrderEnforcing, PassiveEnvChecker)
"""Wrappers of `gymnasium.make` that the collector replaces: it counts steps, resets in order and checks each fragment as a whole."""


def make_env(config: EnvConfig) -> tuple[gym.Env[Any, Any], EnvSpec]:
    """Makes the environment and its spec.

    The time limit is taken off and returned as `EnvSpec.max_episode_steps`: whoever steps the environment truncates. An environment that
    truncates by itself still may.

    Raises:
        UserError: the id is unknown, its module cannot be imported, the environment cannot be made with these kwargs, or its spaces are
            not supported. The message names what would work.
    """
    _quiet_mujoco()
    env = _made(config)
    max_episode_steps = config.max_episode_steps
    while isinstance(env, PEELED):
        if isinstance(env, TimeLimit) and max_episode_steps is None:
            max_episode_steps = env._max_episode_steps
        env = env.env
    return env, _spec(config.id, env, max_episode_steps)


def probe_env(config: EnvConfig) -> EnvSpec:
    """Returns what `make_env` would, without keeping the environment; raises the same errors."""
    env, spec = make_env(config)
    env.close()
    return spec


def _made(config: EnvConfig) -> gym.Env[Any, Any]:
    with warnings.catch_warnings():
        # v4 ids are the ones people compare scores on; that a v5 exists is in the docs, not in every worker's output.
        warnings.filterwarnings("ignore", message=r".*is out of date.*")
        try:
            return gym.make(config.id, disable_env_checker=True, **config.kwargs)
        except gym.error.Error as error:
            raise UserError(_unknown_id_message(config.id, error)) from error
        except ImportError as error:
            raise UserError(f"env.id {config.id!r}: {error}; is the package that defines it installed and on PYTHONPATH?") from error
        except TypeError as error:
            raise UserError(f"env.id {config.id!r} could not be made with env.kwargs {config.kwargs}: {error}") from error


def _unknown_id_message(env_id: str, error: Exception) -> str:
    candidates = difflib.get_close_matches(env_id, [str(name) for name in gym.registry], n=3)
    if not candidates and ":" not in env_id:
        base = env_id.rsplit("-v", 1)[0].lower()
        candidates = [str(name) for name in gym.registry if str(name).rsplit("-v", 1)[0].lower() == base][:3]
    hint = f" - did you mean {' or '.join(candidates)}?" if candidates else " - module:Env-v0 imports the module that registers it."
    return f"env.id {env_id!r}: {str(error).rstrip('.')}{hint}"


def _spec(env_id: str, env: gym.Env[Any, Any], max_episode_steps: int | None) -> EnvSpec:
    observations, actions = env.observation_space, env.action_space
    if not isinstance(observations, gym.spaces.Box):
        raise UserError(
            f"env.id {env_id!r} has observations {observations}; distppo takes Box observations: "
            "wrap the environment in gymnasium.wrappers.FlattenObservation when it is registered"
        )
    if not isinstance(actions, gym.spaces.Box) or not np.issubdtype(actions.dtype, np.floating):
        raise UserError(f"env.id {env_id!r} has actions {actions}; distppo takes continuous actions (a Box of floats)")
    return EnvSpec(
        id=env_id,
        observation_shape=tuple(observations.shape),
        action_shape=tuple(actions.shape),
        action_low=tuple(float(x) for x in actions.low.reshape(-1)),
        action_high=tuple(float(x) for x in actions.high.reshape(-1)),
        max_episode_steps=max_episode_steps,
    )


def _quiet_mujoco() -> None:
    """Keeps MuJoCo from writing MUJOCO_LOG.TXT into the working directory for deprecations in Gymnasium's models."""
    try:
        import mujoco
    except ImportError:
        return
    mujoco.set_mju_user_warning(_mujoco_warning)


def _mujoco_warning(message: str) -> None:
    if "deprecated" not in message:
        warnings.warn(f"MuJoCo: {message}", RuntimeWarning, stacklevel=2)
