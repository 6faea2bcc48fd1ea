"""Makes one environment, without the wrappers that cost time, and says what it looks like."""

from __future__ import annotations

import inspect
import re
import warnings
from collections.abc import Iterator, Sequence
from types import ModuleType
from typing import Any

import gymnasium as gym
from gymnasium.envs.registration import load_env_creator
from gymnasium.wrappers import FrameStackObservation, OrderEnforcing, PassiveEnvChecker, TimeLimit

from distppo.config.schema import EnvConfig, Plugin
from distppo.config.suggest import closest, did_you_mean
from distppo.envs.elsewhere import Elsewhere
from distppo.envs.renderer import choose_renderer
from distppo.envs.spaces import Flattened, parts_of, require_flat_leaves, spec_of
from distppo.errors import UserError, failure_text
from distppo.plugins import import_named, load_plugin
from distppo.types import EnvSpec

PEELED = (TimeLimit, OrderEnforcing, PassiveEnvChecker)
"""Wrappers of `gymnasium.make` that the collector replaces: it counts steps, resets in order and checks each fragment as a whole."""
SUGGESTED_VERSIONS = 2


def make_env(config: EnvConfig) -> tuple[gym.Env[Any, Any], EnvSpec]:
    """Makes the environment, with its wrappers, and its spec.

    The time limit is taken off and returned as `EnvSpec.max_episode_steps`: whoever steps the environment truncates. An environment that
    truncates by itself still may, and wrappers it is registered with stay. Under wrappers of `env.wrappers` a registered limit stays in
    place, as with Gymnasium: they see the truncation, and one that repeats actions does not stretch the episode. A limit set by
    `env.max_episode_steps` counts the policy's own steps. Observations other than a Box are then flattened, frames stacked.

    Raises:
        UserError: the id is unknown, a module cannot be imported, the environment or a wrapper cannot be made with these kwargs, or its
            spaces are not supported. The message names what would work.
    """
    if "render_mode" in config.kwargs or ":" in config.id or config.wrappers:  # code that may draw; Gymnasium's own does not by itself
        choose_renderer()
    _quiet_mujoco()
    env = _made(config)
    registered = min(_time_limits(env), default=None)
    while isinstance(env, PEELED):
        env = env.env
    if config.wrappers:
        if registered is not None and config.max_episode_steps is None:
            env = TimeLimit(env, registered)
        env = _wrapped(env, config.wrappers)
    parts: tuple[Any, ...] = ()
    if not isinstance(env.observation_space, gym.spaces.Box):
        require_flat_leaves(config.id, env.observation_space)
        if config.frame_stack == 1:
            parts = parts_of(env.observation_space)
        env = Flattened(env)
    if config.frame_stack > 1:
        env = FrameStackObservation(env, config.frame_stack)
    return env, spec_of(config.id, env, config.max_episode_steps or registered, parts)


def probe_env(config: EnvConfig) -> EnvSpec:
    """Returns what `make_env` would, without keeping the environment; raises the same errors."""
    with Elsewhere():
        env, spec = make_env(config)
        env.close()
    return spec


def _made(config: EnvConfig) -> gym.Env[Any, Any]:
    module_name, _, name = config.id.rpartition(":")
    module = import_named(module_name, f"env.id {config.id!r}") if module_name else None
    if name not in gym.registry:
        if module is not None and name.isidentifier() and hasattr(module, name):
            return _called(config)
        raise UserError(f"env.id {config.id!r}: no environment {name!r} is registered" + _suggestion(name, module))
    try:
        with warnings.catch_warnings():
            # v4 ids are the ones people compare scores on; that a v5 exists is in the docs, not in every worker's output.
            warnings.filterwarnings("ignore", message=r".*is out of date.*")
            return gym.make(name, config.max_episode_steps, disable_env_checker=True, **config.kwargs)
    except (gym.error.Error, ImportError) as error:
        raise UserError(f"env.id {config.id!r} could not be made: {error}") from error
    except (Exception, SystemExit) as error:
        refused = re.search(r"unexpected keyword argument '(\w+)'", str(error)) if isinstance(error, TypeError) else None
        if refused and refused[1] in config.kwargs:
            raise UserError(_refused_kwarg_message(config.id, name, refused[1])) from error
        raise UserError(f"env.id {config.id!r} could not be made{_with_kwargs(config)}:\n{failure_text(error)}") from error


def _called(config: EnvConfig) -> gym.Env[Any, Any]:
    """Makes the environment of a class or function that nobody has registered."""
    create = load_plugin(Plugin(config.id, config.kwargs), "env.id", given=0)
    try:
        env = create(**config.kwargs)
    except (Exception, SystemExit) as error:
        raise UserError(f"env.id {config.id!r} could not be made{_with_kwargs(config)}:\n{failure_text(error)}") from error
    if not isinstance(env, gym.Env):
        raise UserError(f"env.id {config.id!r} gave {type(env).__name__}, not a gymnasium.Env: derive the class from gymnasium.Env")
    return env


def _with_kwargs(config: EnvConfig) -> str:
    return f" with env.kwargs {config.kwargs}" if config.kwargs else ""


def _wrapped(env: gym.Env[Any, Any], wrappers: Sequence[Plugin]) -> gym.Env[Any, Any]:
    """Puts the wrappers around the environment, the first innermost."""
    for index, plugin in enumerate(wrappers):
        place = f"env.wrappers[{index}]"
        wrap = load_plugin(plugin, place, given=1)
        try:
            wrapped = wrap(env, **plugin.kwargs)
        except (Exception, SystemExit) as error:
            raise UserError(f"{place} {plugin.target!r} could not be made:\n{failure_text(error)}") from error
        if not isinstance(wrapped, gym.Wrapper):
            raise UserError(
                f"{place} {plugin.target!r} gave {type(wrapped).__name__}, which is not a gymnasium.Wrapper: derive it from one"
            )
        env = wrapped
    return env


def _suggestion(name: str, module: ModuleType | None) -> str:
    """Returns what was probably meant: something callable in the module, or the newest versions of an id; else how one becomes known."""
    callables = [known for known, value in vars(module).items() if callable(value) and not known.startswith("_")] if module else []
    near = closest(name, callables) if name.isidentifier() else None
    if near is not None:
        return f" - did you mean {near}?"
    by_base: dict[str, list[str]] = {}
    for known, spec in gym.registry.items():
        by_base.setdefault(spec.name, []).append(known)
    base = closest(re.sub(r"-v\d+$", "", name), by_base)
    if base is None:
        known = "registers it, and module:Name calls a class or function in it"
        return f"; module:Env-v0 imports the module that {known if module else 'registers it'}"
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
