"""The flags that set settings, shared by the commands that take a configuration. Type, limits, default and help are the schema's."""

from __future__ import annotations

import argparse
from collections.abc import Iterable
from pathlib import Path
from typing import NamedTuple

from distppo.config.coerce import PlainText
from distppo.config.dump import format_value
from distppo.config.fields import FIELDS, Field
from distppo.config.load import load_layers
from distppo.config.overrides import Assignment, Overrides
from distppo.config.schema import Config, WorkerRange
from distppo.config.sources import from_texts
from distppo.config.suggest import shortened
from distppo.config.trust import TRUST_VARIABLE
from distppo.plugins import extend_search_path


class Flag(NamedTuple):
    """A short way to write one setting."""

    name: str
    key: str

    @property
    def destination(self) -> str:
        """Its attribute of the parsed arguments."""
        return self.name.removeprefix("--").replace("-", "_")


FLAGS: dict[str, tuple[Flag, ...]] = {
    "experience": (
        Flag("--env", "env.id"),
        Flag("--num-envs", "rollout.num_envs"),
        Flag("--num-workers", "rollout.num_workers"),
        Flag("--num-steps", "rollout.num_steps"),
        Flag("--mode", "rollout.mode"),
    ),
    "learning": (
        Flag("--total-timesteps", "run.total_timesteps"),
        Flag("--learning-rate", "ppo.learning_rate"),
        Flag("--lr-schedule", "ppo.lr_schedule"),
    ),
    "run": (
        Flag("--seed", "run.seed"),
        Flag("--run-dir", "run.directory"),
    ),
}
"""By the heading under which `--help` shows them."""


def add_file_flags(parser: argparse.ArgumentParser) -> None:
    """Adds --config and --set."""
    group = parser.add_argument_group(
        "settings", "Defaults < --config, left to right < named flags < --set. docs/configuration.md lists all."
    )
    group.add_argument("--config", action="extend", nargs="+", default=[], metavar="FILE", help="YAML files; the later counts")
    group.add_argument(
        "--set", action="extend", nargs="+", default=[], metavar="KEY=VALUE", help="any setting by its key, as in ppo.clip_epsilon=0.1"
    )


def add_setting_flags(parser: argparse.ArgumentParser) -> None:
    """Adds --config, --set and the named flags. Everything is taken as text and read later, so that all mistakes show together."""
    add_file_flags(parser)
    for title, flags in FLAGS.items():
        group = parser.add_argument_group(title)
        for flag in flags:
            field = FIELDS[flag.key]
            group.add_argument(flag.name, metavar=_placeholder(field), help=_help(field))


def add_trust_flag(parser: argparse._ActionsContainer) -> None:
    """Adds --trust, for commands that read settings out of checkpoints."""
    parser.add_argument(
        "--trust",
        action="append",
        default=[],
        metavar="MODULE:NAME",
        help=f"code that the file may have imported, which it does not by its own word; may be repeated (always: {TRUST_VARIABLE})",
    )


def read_setting_flags(arguments: argparse.Namespace, *, check: bool = True) -> tuple[Config, Overrides]:
    """Returns the Config that the flags describe, and what they set explicitly. Modules they name are looked for beside the files, too.

    Args:
        arguments: parsed with `add_setting_flags`.
        check: whether settings are also held against each other.

    Raises:
        ConfigError: with a line for each thing that is wrong, files included.
    """
    named = []
    for flag in (flag for flags in FLAGS.values() for flag in flags):
        text = getattr(arguments, flag.destination)
        if text is not None:
            named.append(Assignment(flag.key, PlainText(text), f"{flag.name} {shortened(text)}"))
    extend_path_to_files(arguments.config)
    last, problems = from_texts(arguments.set, prefix="--set ")
    return load_layers(arguments.config, [*named, *last], problems=problems, check=check)


def extend_path_to_files(files: Iterable[str]) -> None:
    """Has modules that the settings name looked for beside the files that name them."""
    extend_search_path(Path(file).parent for file in files)


def _placeholder(field: Field) -> str:
    if field.choices:
        return "{" + ",".join(field.choices) + "}"
    return {int: "N", WorkerRange: "N", float: "X", str: field.name.upper()}[field.kind]


def _help(field: Field) -> str:
    return f"{field.doc} (default: {format_value(field, field.default)})".replace("%", "%%")
