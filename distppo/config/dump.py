"""A Config as YAML: what `config.yaml` of a run holds and `config show` prints. It loads back to an equal Config."""

from __future__ import annotations

import re
from typing import Any

import yaml

from distppo.config.coerce import PlainText, coerce_entry
from distppo.config.fields import FIELDS, SECTIONS, Field
from distppo.config.load import flattened
from distppo.config.overrides import Overrides
from distppo.config.schema import Config, Plugin, WorkerRange
from distppo.config.suggest import printable

_SAFE_PLAIN = re.compile(r"[A-Za-z_][A-Za-z0-9_./-]*(:[A-Za-z0-9_./-]+)*")
_WORDS_FOR_NONE = {"off", "none", "null"}


def dump_config(config: Config) -> str:
    """Returns the whole configuration as YAML in the schema's order, in ASCII."""
    return "".join(f"{text}\n" for _, text in _lines(config))


def explain_config(config: Config, overrides: Overrides, *, base: str = "default") -> str:
    """Returns the same YAML with a comment on every line that says where the value comes from.

    Args:
        config: as resolved.
        overrides: everything that was set explicitly.
        base: what to call the origin of all the rest.
    """
    origins = overrides.origins()
    lines = _lines(config)
    width = max(len(text) for _, text in lines if len(text) <= 60)
    explained = []
    for key, text in lines:
        mapping = key.rpartition(".")[0]
        origin = origins.get(key) or origins.get(mapping if mapping in FIELDS else "", base)
        explained.append(f"{text:<{width}}  # {printable(origin)}\n" if key else f"{text}\n")
    return "".join(explained)


def format_value(field: Field, value: Any) -> str:
    """Returns the value as YAML on one line."""
    if value is None and field.optional:
        return field.none
    if field.kind is Plugin:
        return _flow([plugin.plain() for plugin in value])
    if isinstance(value, WorkerRange):
        return str(value)
    return _flow(list(value) if isinstance(value, tuple) else value)


def _lines(config: Config) -> list[tuple[str, str]]:
    """Returns (key, line) for every line; the key of a section's own line is empty."""
    values = flattened(config)
    lines = []
    for section in SECTIONS:
        lines.append(("", f"{section}:"))
        for field in (field for field in FIELDS.values() if field.section == section):
            value = values[field.key]
            if field.kind is dict and value:
                lines.append(("", f"  {field.name}:"))
                lines += [(f"{field.key}.{name}", f"    {_flow(name)}: {_flow(item)}") for name, item in value.items()]
            else:
                lines.append((field.key, f"  {field.name}: {format_value(field, value)}"))
    return lines


class _Dumper(yaml.SafeDumper):
    """One line whatever the value, and quotes around all text that some reader could take for something else."""

    def ignore_aliases(self, data: Any) -> bool:
        return True


def _represent_text(dumper: yaml.SafeDumper, text: str) -> yaml.ScalarNode:
    plain = _SAFE_PLAIN.fullmatch(text) and text.lower() not in _WORDS_FOR_NONE and coerce_entry(PlainText(text)) == text
    return dumper.represent_scalar("tag:yaml.org,2002:str", text, style=None if plain else '"')


_Dumper.add_representer(str, _represent_text)


def _flow(value: Any) -> str:
    text: str = yaml.dump(value, Dumper=_Dumper, default_flow_style=True, width=float("inf"), sort_keys=False)
    return text.removesuffix("...\n").strip()
