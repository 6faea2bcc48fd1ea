"""The schema of the settings in the words of JSON Schema, for editors that complete and check YAML files.

`config check` stays the judge. An editor reads YAML by rules of its own (`off` is text in YAML 1.2 and false in 1.1, `1_000_000` is a
number in 1.1 alone), so whatever some reader may make of a right file is allowed here.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from distppo.config.fields import FIELDS, SECTIONS, Field
from distppo.config.load import config_to_dict
from distppo.config.schema import Config, Plugin, WorkerRange

DIALECT = "https://json-schema.org/draft/2020-12/schema"
_RANGE = r"^[0-9][0-9_]* *- *[0-9][0-9_]*$"
_WHOLE = r"^([-+]?[0-9][0-9_]*(\.0*)?([eE]\+?[0-9]+)?|[0-9][0-9_]*(\.[0-9_]*)?[kM])$"
_REAL = r"^[-+]?([0-9][0-9_]*\.?[0-9_]*|\.[0-9][0-9_]*)([eE][-+]?[0-9]+)?$"
_TARGET = r"^[A-Za-z_][\w.]*:[A-Za-z_][\w.]*$"
_LIMITS = {"at_least": "minimum", "above": "exclusiveMinimum", "at_most": "maximum", "below": "exclusiveMaximum"}
Schema = dict[str, Any]


def json_schema() -> Schema:
    """Returns the schema of a configuration file."""
    defaults = config_to_dict(Config())
    return {
        "$schema": DIALECT,
        "title": "distppo configuration",
        "type": "object",
        "additionalProperties": False,
        "properties": {section: _section(section, defaults[section]) for section in SECTIONS},
    }


def _section(section: str, defaults: dict[str, Any]) -> Schema:
    fields = [field for field in FIELDS.values() if field.section == section]
    return {
        "description": (SECTIONS[section].__doc__ or "").strip(),
        "type": ["object", "null"],
        "additionalProperties": False,
        "properties": {field.name: _setting(field, defaults[field.name]) for field in fields},
    }


def _setting(field: Field, default: Any) -> Schema:
    allowed = _choices(field) if field.choices else _KINDS[field.kind](field)
    if field.optional:
        allowed.append({"enum": [field.none, "none", None, *([False] if field.none == "off" else [])]})
    description = " ".join(text for text in (field.doc, field.extremes) if text)
    shown = field.none if default is None else default
    return {"description": description, "default": shown, **(allowed[0] if len(allowed) == 1 else {"anyOf": allowed})}


def _choices(field: Field) -> list[Schema]:
    assert field.choices is not None
    return [{"enum": [*field.choices, *([False] if "off" in field.choices else [])]}]


def _whole(field: Field) -> list[Schema]:
    return [{"type": "integer", **_limits(field)}, {"type": "string", "pattern": _WHOLE}]


def _workers(field: Field) -> list[Schema]:
    return [*_whole(field), {"type": "string", "pattern": _RANGE}]


def _number(field: Field) -> list[Schema]:
    return [{"type": "number", **_limits(field)}, {"type": "string", "pattern": _REAL}]


def _limits(field: Field) -> Schema:
    return {_LIMITS[name]: limit for name, limit in field.limits.items()}


def _boolean(field: Field) -> list[Schema]:
    return [{"type": "boolean"}, {"enum": ["yes", "no", "on", "off"]}]


def _text(field: Field) -> list[Schema]:
    return [{"type": "string", "minLength": 1}]


def _whole_numbers(field: Field) -> list[Schema]:
    return [{"type": "array", "items": {"type": "integer", **_limits(field)}}, {"type": "integer", **_limits(field)}, {"type": "string"}]


def _mapping(field: Field) -> list[Schema]:
    return [{"type": ["object", "null"]}]


def _plugins(field: Field) -> list[Schema]:
    named = {"type": "string", "pattern": _TARGET}
    with_arguments = {"type": "object", "required": ["class"], "properties": {"class": named}}
    one = {"anyOf": [named, with_arguments]}
    return [one, {"type": "array", "items": one}, {"type": "null"}]


_KINDS: dict[type, Callable[[Field], list[Schema]]] = {
    int: _whole,
    WorkerRange: _workers,
    float: _number,
    bool: _boolean,
    str: _text,
    tuple: _whole_numbers,
    dict: _mapping,
    Plugin: _plugins,
}
