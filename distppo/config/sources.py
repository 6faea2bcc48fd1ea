"""Settings from key=value texts, keyword arguments and mappings: what they set, and what in them sets nothing."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from distppo.config.coerce import PlainText
from distppo.config.fields import FIELDS, SHORT_NAMES, find_field, keys_named
from distppo.config.overrides import Assignment, Problem
from distppo.config.schema import Plugin
from distppo.config.suggest import did_you_mean, quoted, shortened
from distppo.config.yaml_reader import read_value

Found = tuple[list[Assignment], list[Problem]]


def from_texts(texts: Iterable[str], prefix: str = "") -> Found:
    """Returns what texts like "ppo.gamma=0.98" set.

    Args:
        texts: key=value each; the value is read like plain YAML.
        prefix: put before the text to name its place, such as "--set ".
    """
    assignments: list[Assignment] = []
    problems: list[Problem] = []
    for text in texts:
        place = prefix + shortened(text)
        key, equals, value = (part.strip() for part in text.partition("="))
        if not equals:
            problems.append(Problem(place, "must be key=value, as in ppo.gamma=0.98"))
            continue
        found = find_field(key)
        try:
            as_yaml = found and (found[0].kind in (dict, Plugin) or _is_quoted(value))
            assignments.append(Assignment(key, read_value(value) if as_yaml else PlainText(value), place))
        except ValueError as error:
            problems.append(Problem(place, f"{key} {error}", found[0].key if found else None))
    return assignments, problems


def _is_quoted(text: str) -> bool:
    return len(text) > 1 and text[0] == text[-1] and text[0] in "'\""


def from_mapping(values: Mapping[str, Any]) -> Found:
    """Returns what a mapping of dotted keys to values sets."""
    return [Assignment(str(key), raw, f"{shortened(str(key))}={quoted(raw)}") for key, raw in values.items()], []


def from_names(values: Mapping[str, Any]) -> Found:
    """Returns what keyword arguments set that are named by the fields alone (num_envs=8)."""
    assignments: list[Assignment] = []
    problems: list[Problem] = []
    for name, raw in values.items():
        place = f"{name}={quoted(raw)}"
        keys = [SHORT_NAMES[name]] if name in SHORT_NAMES else keys_named(name)
        if len(keys) == 1:
            assignments.append(Assignment(keys[0], raw, place))
        elif keys:
            problems.append(Problem(place, f"{name} is several settings: overrides={{{keys[0]!r}: ...}} sets one", stops=True))
        else:
            known = [field.name for field in FIELDS.values()] + list(SHORT_NAMES)
            problems.append(Problem(place, f"unknown setting {name}{did_you_mean(name, known)}", stops=True))
    return assignments, problems


def from_nested(data: Any, origin: str) -> Found:
    """Returns what a mapping of sections to mappings sets, as `config_to_dict` writes it."""
    if not isinstance(data, Mapping):
        return [], [Problem(origin, f"must be a mapping of sections, got {quoted(data)}", stops=True)]
    assignments: list[Assignment] = []
    for section, values in data.items():
        if isinstance(values, Mapping):
            assignments += [Assignment(f"{section}.{name}", raw, origin) for name, raw in values.items()]
        else:
            assignments.append(Assignment(str(section), values, origin))
    return assignments, []
