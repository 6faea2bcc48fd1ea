"""The schema as one flat table: every setting by its dotted key, with its type and limits, and in words."""

from __future__ import annotations

import dataclasses
import keyword
import typing
from collections.abc import Mapping
from types import MappingProxyType
from typing import Any, NamedTuple

from distppo.config.schema import Config, Plugin, WorkerRange
from distppo.config.suggest import closest, shortened

_KIND_WORDS = {
    int: "a whole number",
    float: "a number",
    bool: "true or false",
    str: "text",
    tuple: "whole numbers, as in [64, 64]",
    dict: "a mapping of names to plain values",
    WorkerRange: "a whole number, or a range as in 2-8",
    Plugin: "a list of module:Class, or {class: module:Class} with its arguments",
}

SHORT_NAMES: Mapping[str, str] = MappingProxyType({"env": "env.id", "run_dir": "run.directory"})
"""Names other than the fields' own by which flags and keyword arguments set a field."""


class Field(NamedTuple):
    """One setting, as declared in the schema.

    Attributes:
        key: section.name.
        kind: int, float, bool, str, tuple (of whole numbers), dict (of plain values), WorkerRange (or int) or Plugin (a tuple of them).
        optional: None is allowed, and written as `none`.
        default: value when nothing sets it.
        doc: meaning and unit.
        extremes: what very small and very large values do.
        choices: the allowed strings, or None.
        none: the word for None, "off" or "auto".
        limits: at_least, above, at_most, below, as far as declared.
    """

    key: str
    kind: type
    optional: bool
    default: Any
    doc: str
    extremes: str
    choices: tuple[str, ...] | None
    none: str
    limits: Mapping[str, float]

    @property
    def section(self) -> str:
        """The part of the key before the dot."""
        return self.key.partition(".")[0]

    @property
    def name(self) -> str:
        """The part of the key after the dot."""
        return self.key.partition(".")[2]

    @property
    def attribute(self) -> str:
        """The dataclass field's name: that of the key, but `class_` where the key is a keyword of Python."""
        return f"{self.name}_" if keyword.iskeyword(self.name) else self.name


SECTIONS: Mapping[str, type] = MappingProxyType(typing.get_type_hints(Config))
"""Section names and their dataclasses, in the schema's order."""


def _declared_fields() -> dict[str, Field]:
    found = {}
    for section, declaration in SECTIONS.items():
        hints = typing.get_type_hints(declaration)
        for declared in dataclasses.fields(declaration):
            members = typing.get_args(hints[declared.name])
            optional = type(None) in members
            hint = members[0] if optional else hints[declared.name]
            default = getattr(declaration(), declared.name)
            key = f"{section}.{declared.name.removesuffix('_')}"
            kind = Plugin if hint == tuple[Plugin, ...] else typing.get_origin(hint) or hint
            found[key] = Field(key, kind, optional, default, **declared.metadata)
    return found


FIELDS: Mapping[str, Field] = MappingProxyType(_declared_fields())
"""Every setting by its key, in the schema's order."""


def find_field(key: str) -> tuple[Field, str | None] | None:
    """Returns the setting that a key names, and the entry if it names one of a mapping (env.kwargs.x); None if there is no such key."""
    if key in FIELDS:
        return FIELDS[key], None
    section, _, rest = key.partition(".")
    name, dot, entry = rest.partition(".")
    field = FIELDS.get(f"{section}.{name}")
    return (field, entry) if field and field.kind is dict and dot else None


def keys_named(name: str) -> list[str]:
    """Returns the keys of all settings with this name, whatever their section."""
    return [key for key, field in FIELDS.items() if field.name == name]


class UnknownKey(NamedTuple):
    """What to say about a key that does not exist, and the key that was probably meant."""

    message: str
    meant: str | None


def unknown_key(key: str) -> UnknownKey:
    """Returns the message for a key that `find_field` does not know."""
    if key in SECTIONS:
        first = next(field for field in FIELDS.values() if field.section == key)
        return UnknownKey(f"{key} is a section; its settings stand below it, like {first.key}", None)
    section, dot, rest = key.partition(".")
    section, name = (section, rest) if dot else ("", key)
    unknown = f"unknown key {shortened(key)}"
    homes = keys_named(name)
    if homes:
        places = " or ".join(f"{FIELDS[home].section}: ({home})" for home in homes)
        return UnknownKey(f"{unknown} - it belongs under {places}", homes[0] if len(homes) == 1 else None)
    siblings = {field.name: field.key for field in FIELDS.values() if field.section == section}
    everywhere = {field.name: field.key for field in FIELDS.values()}
    sections = {} if section else {name: name for name in SECTIONS}
    for candidates in (siblings, sections | everywhere):
        if near := closest(name, candidates):
            return UnknownKey(f"{unknown} - did you mean {candidates[near]}?", candidates[near])
    known = f"{section} has {', '.join(siblings)}" if siblings else f"the sections are {', '.join(SECTIONS)}"
    return UnknownKey(f"{unknown}; {known}", None)


def kind_in_words(field: Field) -> str:
    """Returns what a setting takes, to follow "must be": "a number or off"."""
    words = " or ".join(field.choices) if field.choices else _KIND_WORDS[field.kind]
    return f"{words} or {field.none}" if field.optional else words


def limits_in_words(field: Field) -> str:
    """Returns "above 0 and below 1", or nothing."""
    return " and ".join(f"{name.replace('_', ' ')} {limit}" for name, limit in field.limits.items())
