"""From defaults, YAML files and overrides to one Config, or to one error that lists everything that is wrong.

Precedence: defaults (or a base) < YAML files, left to right < flags or keyword arguments < `--set` or `overrides`.
"""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from distppo.config.checks import cross_field_problems
from distppo.config.fields import FIELDS, SECTIONS
from distppo.config.overrides import Assignment, Overrides, Problem, raise_problems, resolve
from distppo.config.schema import Config, Plugin, WorkerRange
from distppo.config.sources import from_mapping, from_names, from_nested, from_texts
from distppo.config.yaml_reader import read_files

Paths = str | os.PathLike[str] | Sequence[str | os.PathLike[str]]


def load_config(
    files: Paths = (), *, base: Config | None = None, overrides: Mapping[str, Any] | Sequence[str] = (), **settings: Any
) -> Config:
    """Returns the Config that files and overrides describe.

    Args:
        files: one YAML file or several; the later counts.
        base: what they are laid over; None takes the defaults.
        overrides: dotted keys to values, or texts like "ppo.gamma=0.98"; they count over everything else.
        **settings: settings by the name of their field alone; `env` and `run_dir` as on the command line.

    Raises:
        ConfigError: with a line for each thing that is wrong.

    Example:
        >>> load_config(num_envs=4, num_workers=2, overrides={"ppo.gamma": 0.98}).ppo.gamma
        0.98
    """
    named, problems = from_names(settings)
    if isinstance(overrides, Mapping):
        last, more = from_mapping(overrides)
    else:
        last, more = from_texts([overrides] if isinstance(overrides, str) else overrides)
    paths = [files] if isinstance(files, str | os.PathLike) else files
    config, _ = load_layers(paths, [*named, *last], base=base, problems=[*problems, *more])
    return config


def load_layers(
    files: Sequence[str | os.PathLike[str]] = (),
    assignments: Sequence[Assignment] = (),
    *,
    base: Config | None = None,
    problems: Sequence[Problem] = (),
    check: bool = True,
) -> tuple[Config, Overrides]:
    """Returns the Config and what was set explicitly on the way to it.

    Args:
        files: YAML files, in rising precedence.
        assignments: what counts over the files, in rising precedence.
        base: what all is laid over; None takes the defaults.
        problems: found while the assignments were collected.
        check: whether settings are also held against each other. A resumed run does that later, over its own settings.

    Raises:
        ConfigError: with a line for each thing that is wrong.
    """
    from_files, wrong_files = read_files([Path(path) for path in files])
    overrides, wrong = resolve([*from_files, *assignments])
    found = [*wrong_files, *wrong, *problems]
    config, more = _laid_over(base or Config(), overrides)
    found += more
    if check:
        found += cross_field_problems(config, overrides.origins(), found)
    raise_problems(found)
    return config, overrides


def apply_overrides(base: Config, overrides: Overrides) -> Config:
    """Returns the base with everything that was set explicitly laid over it, checked as a whole.

    Raises:
        ConfigError: with a line for each thing that is wrong, in the base too.
    """
    config, problems = _laid_over(base, overrides)
    raise_problems([*problems, *cross_field_problems(config, overrides.origins(), problems)])
    return config


def config_to_dict(config: Config) -> dict[str, dict[str, Any]]:
    """Returns the settings as plain JSON values by section, in the schema's order; tuples become lists."""
    values = flattened(config)
    return {
        section: {field.name: _plain(values[field.key]) for field in FIELDS.values() if field.section == section} for section in SECTIONS
    }


def config_from_dict(data: Mapping[str, Any], *, origin: str = "config") -> Config:
    """Returns the Config that `config_to_dict` took apart; what is missing has its default.

    Every key must exist and every value be right by itself. That the settings fit together is for `apply_overrides` to say.

    Args:
        data: sections to mappings of settings.
        origin: where the data comes from, for the message.

    Raises:
        ConfigError: with a line for each thing that is wrong.
    """
    assignments, problems = from_nested(data, origin)
    config, _ = load_layers(assignments=assignments, problems=problems, check=False)
    return config


def flattened(config: Config) -> dict[str, Any]:
    """Returns every setting by its dotted key, in the schema's order."""
    return {key: getattr(getattr(config, field.section), field.attribute) for key, field in FIELDS.items()}


def _laid_over(base: Config, overrides: Overrides) -> tuple[Config, list[Problem]]:
    """Returns the Config and what is wrong with the base, whose dataclasses anyone can fill with anything."""
    read, problems = resolve(Assignment(key, value, "") for key, value in flattened(base).items())
    values = flattened(Config())
    for key, value, _ in (*read.settings, *overrides.settings):
        if key in FIELDS:
            values[key] = value
        else:
            mapping, _, entry = key.rpartition(".")
            values[mapping] = {**values[mapping], entry: value}
    sections = {
        section: declaration(**{field.attribute: values[field.key] for field in FIELDS.values() if field.section == section})
        for section, declaration in SECTIONS.items()
    }
    return Config(**sections), problems


def _plain(value: Any) -> Any:
    if isinstance(value, WorkerRange):
        return str(value)
    if isinstance(value, Plugin):
        return _plain(value.plain())
    if isinstance(value, Mapping):
        return {name: _plain(item) for name, item in value.items()}
    return [_plain(item) for item in value] if isinstance(value, list | tuple) else value
