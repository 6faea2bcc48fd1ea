"""Finding what users name as `module:Name`: where modules are looked for, and what to say when something is not there or does not fit."""

from __future__ import annotations

import importlib
import inspect
import os
import shlex
import sys
from collections.abc import Callable, Iterable
from pathlib import Path
from types import ModuleType
from typing import Any

from distppo.config.schema import Plugin
from distppo.config.suggest import did_you_mean
from distppo.errors import UserError, failure_text

_added: list[str] = []
"""Folders that have been put on the search path beside the current one, such as that of a YAML file."""
_VARIADIC = (inspect.Parameter.VAR_POSITIONAL, inspect.Parameter.VAR_KEYWORD)


def search_path() -> tuple[str, ...]:
    """Returns the folders in which this process finds modules, for another process to look there too."""
    return tuple(os.path.abspath(folder) for folder in sys.path)


def extend_search_path(folders: Iterable[str | os.PathLike[str]]) -> None:
    """Has modules looked for in these folders too, after all others: what is installed is never hidden by them."""
    known = set(search_path())
    for folder in map(os.path.abspath, folders):
        if folder not in known and os.path.exists(folder):
            sys.path.append(folder)
            known.add(folder)
            _added.append(folder)


def path_prefix(names: Iterable[str]) -> str:
    """Returns what a command of the shell begins with so that these modules are found by it as they were here.

    Args:
        names: `module:Name`s in the settings.

    Returns:
        `PYTHONPATH=my_project ` where some of them lie beside the YAML file that named them, and not in the current directory.
    """
    tops = {name.partition(":")[0].strip().partition(".")[0] for name in names}
    here = os.getcwd()
    folders = [folder for folder in _added if folder != here and any(_holds(folder, top) and not _holds(here, top) for top in tops)]
    if not folders:
        return ""
    shown = [os.path.relpath(folder) if Path(folder).is_relative_to(here) else folder for folder in folders]
    known = ':"$PYTHONPATH"' if os.environ.get("PYTHONPATH") else ""
    return f"PYTHONPATH={shlex.quote(os.pathsep.join(shown))}{known} "


def _holds(folder: str, module: str) -> bool:
    return os.path.isfile(os.path.join(folder, f"{module}.py")) or os.path.isdir(os.path.join(folder, module))


def import_named(module: str, place: str) -> ModuleType:
    """Imports a user's module, which may also lie in the current directory.

    Args:
        module: dotted name.
        place: of the setting that names it, which begins the message.

    Raises:
        UserError: there is none, or its own code raised; the message has the end of the traceback.
    """
    if module.startswith("."):
        raise UserError(f"{place}: {module!r} is a relative name; write the module's full name")
    extend_search_path([os.getcwd()])
    try:
        return importlib.import_module(module)
    except ModuleNotFoundError as error:
        if error.name is None or not f"{module}.".startswith(f"{error.name}."):
            raise UserError(f"{place}: importing {module!r} failed:\n{failure_text(error)}") from error
        raise UserError(f"{place}: {error}; is it installed, or its folder the current one or on PYTHONPATH?") from error
    except (Exception, SystemExit) as error:
        raise UserError(f"{place}: importing {module!r} failed:\n{failure_text(error)}") from error


def load_plugin(plugin: Plugin, place: str, *, given: int) -> Callable[..., Any]:
    """Returns the class or function that a plug-in names, once it is certain that it can be called.

    Args:
        plugin: with the keyword arguments it will be called with.
        place: of its setting, such as "env.wrappers[0]"; it begins the message.
        given: positional arguments that distppo passes besides.

    Raises:
        UserError: the module or the name does not exist, or it does not take these arguments.
    """
    module_name, _, name = plugin.target.partition(":")
    target: Any = import_named(module_name, f"{place} {plugin.target!r}")
    for part in name.split("."):
        if not hasattr(target, part):
            hint = did_you_mean(part, [other for other in dir(target) if not other.startswith("_")])
            raise UserError(f"{place} {plugin.target!r}: {module_name} has no {name}{hint}")
        target = getattr(target, part)
    if not callable(target):
        raise UserError(f"{place} {plugin.target!r} is {type(target).__name__} {target!r}, neither a class nor a function")
    refused = refused_arguments(target, plugin.kwargs, given=given)
    if refused:
        raise UserError(f"{place} {plugin.target!r} {refused}")
    return target


def refused_arguments(target: Callable[..., Any], kwargs: Iterable[str], *, given: int) -> str | None:
    """Returns why a call with `given` positional arguments and these keywords would fail, or None."""
    try:
        signature = inspect.signature(target)
    except (TypeError, ValueError):  # built in: the call itself will tell
        return None
    try:
        signature.bind(*[None] * given, **dict.fromkeys(kwargs))
    except TypeError as error:
        parameters = list(signature.parameters.values())
        named = [parameter.name for parameter in parameters[given:] if parameter.kind not in _VARIADIC]
        unknown = [name for name in kwargs if name not in named]
        if unknown and not any(parameter.kind is inspect.Parameter.VAR_KEYWORD for parameter in parameters):
            hint = did_you_mean(unknown[0], named) or (f"; it takes {', '.join(named)}" if named else "; it takes none")
            return f"does not take {unknown[0]}{hint}"
        arguments = [f"{given} argument{'s' if given > 1 else ''}"] * (given > 0) + [f"{name}=..." for name in kwargs]
        return f"cannot be called with {', '.join(arguments) or 'no arguments'}: {error}"
    return None
