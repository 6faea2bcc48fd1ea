"""Makes one environment, without the wrappers that cost time, and says what it looks like."""

from __future__ import annotations

import importlib
import inspect
import re
import warnings
from collections.abc import Iterator
from typing import Any

import gymnasium as gym
from gymnasium.envs.registration import load_env_creator
from gymnasium.wrappers import FlattenObservation, FrameStackObservation, OrderEnforcing, PassiveEnvChecker, TimeLimit

from distppo.config.schema import EnvConfig
from distppo.config.suggest import closest, did_you_mean
from distppo.envs.renderer import choose_renderer
from distppo.envs.spaces import require_flat_leaves, spec_of
from distppo.errors import UserError, failure_text
from distppo.types import EnvSpec

PEELED = (TimeLimit, OrderEnforcing, PassiveEnvChecker)
"""Wrappers of `gymnasium.make` that the collector replaces: it counts steps, resets in order and checks each fragment as a whole."""
SUGGESTED_VERSIONS = 2


def make_env(config: EnvConfig) -> tuple[gym.Env[Any, Any], EnvSpec]:
    """Makes the environment and its spec.

    The time limit is taken off and returned as `EnvSpec.max_episode_steps`: whoever steps the environment truncates. An environment that
    truncates by itself still may, and wrappers it is registered with stay. Observations other than a Box are flattened, frames stacked.

    Raises:
        UserError: the id is unknown, its module cannot be imported, the environment cannot be made with these kwargs, or its spaces are
            not supported. The message names what would work.
    """
    choose_renderer()
    _quiet_mujoco()
    env = _made(config)
    max_episode_steps = config.max_episode_steps or min(_time_limits(env), default=None)
    while isinstance(env, PEELED):
        env = env.env
    if not isinstance(env.observation_space, gym.spaces.Box):
        require_flat_leaves(config.id, env.observation_space)
        env = FlattenObservation(env)
    if config.frame_stack > 1:
        env = FrameStackObservation(env, config.frame_stack)
    return env, spec_of(config.id, env, max_episode_steps)


def probe_env(config: EnvConfig) -> EnvSpec:
    """Returns what `make_env` would, without keeping the environment; raises the same errors."""
    env, spec = make_env(config)
    env.close()
    return spec


def _made(config: EnvConfig) -> gym.Env[Any, Any]:
    module, _, name = config.id.rpartition(":")
    if module:
        _import(module, config.id)
    if name not in gym.registry:
        raise UserError(f"env.id {config.id!r}: no environment {name!r} is registered" + _suggestion(name))
    try:
        with warnings.catch_warnings():
            # v4 ids are the ones people compare scores on; that a v5 exists is in the docs, not in every worker's output.
            warnings.filterwarnings("ignore", message=r".*is out of date.*")
            return gym.make(name, config.max_episode_steps, disable_env_checker=True, **config.kwargs)
    except (gym.error.Error, ImportError) as error:
        raise UserError(f"env.id {config.id!r} could not be made: {error}") from error
    except Exception as error:
        refused = re.search(r"unexpected keyword argument '(\w+)'", str(error)) if isinstance(error, TypeError) else None
        if refused and refused[1] in config.kwargs:
            raise UserError(_refused_kwarg_message(config.id, name, refused[1])) from error
        settings = f" with env.kwargs {config.kwargs}" if config.kwargs else ""
        raise UserError(f"env.id {config.id!r} could not be made{settings}:\n{failure_text(error)}") from error


def _import(module: str, env_id: str) -> None:
    """Imports the module that registers an environment."""
    try:
        importlib.import_module(module)
    except ModuleNotFoundError as error:
        raise UserError(f"env.id {env_id!r}: {error}; is it installed, or its folder on PYTHONPATH?") from error
    except Exception as error:
        raise UserError(f"env.id {env_id!r}: importing {module!r} failed:\n{failure_text(error)}") from error


def _suggestion(name: str) -> str:
    """Returns the newest versions of what was probably meant, or how an environment becomes known."""
    by_base: dict[str, list[str]] = {}
    for known, spec in gym.registry.items():
        by_base.setdefault(spec.name, []).append(known)
    base = closest(re.sub(r"-v\d+$", "", name), by_base)
    if base is None:
        return "; module:Env-v0 imports the module that registers it"
    newest = sorted(by_base[base], key=lambda known: gym.registry[known].version or 0, reverse=True)
    return f" - did you mean {' or '.join(newest[:SUGGESTED_VERSIONS])}?"


def _refused_kwarg_message(env_id: str, name: str, refused: str) -> str:
    entry_point = gym.registry[name].entry_point
    creator = load_env_creator(entry_point) if isinstance(entry_point, str) else entry_point
    accepted = [parameter for parameter in inspect.signature(creator).parameters if parameter not in ("args", "kwargs")] if creator else []
    hint = did_you_mean(refused, accepted) or (f"; it takes {', '.join(accepted)}" if accepted else "; it takes none")
    return f"env.kwargs.{refused}: {env_id} does not take it{hint}"


def _time_limits(env: gym.Env[Any, Any]) -> Iterator[int]:
    """Yields the limit of every TimeLimit around the environment, at whatever depth."""
    while isinstance(env, gym.Wrapper):
        if isinstance(env, TimeLimit):
            yield env._max_episode_steps
        env = env.env


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
