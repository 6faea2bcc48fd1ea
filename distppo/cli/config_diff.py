"""`config diff`: in which settings two files, runs or checkpoints differ."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from distppo.cli.parser import Parser
from distppo.config import Config, load_layers
from distppo.config.dump import format_value
from distppo.config.fields import FIELDS
from distppo.config.load import flattened
from distppo.config.suggest import printable, shortened
from distppo.files import RUNS_ROOT

DIFFERENT = 1
RUN_CONFIG = "config.yaml"


def main(argv: Sequence[str], program: str) -> int:
    """Runs the command; returns 0 if all settings are the same, 1 if some differ.

    Raises:
        UserError: an argument is wrong, or a file, a run or a checkpoint cannot be read.
    """
    parser = Parser(
        program, "A B", "Prints the settings that differ between two files, runs or checkpoints, defaults filled in. Exits 1 if any do."
    )
    for name in "AB":
        parser.add_argument(name, metavar=name, help="YAML file, run directory, checkpoint, RUN@best, RUN@<env steps> or latest")
    arguments = parser.read(argv)
    names = [arguments.A, arguments.B]
    lines = differences(*(settings_of(name) for name in names), names=[shortened(name) for name in names])
    print("\n".join(lines) if lines else "the same settings")
    return DIFFERENT if lines else 0


def settings_of(reference: str) -> Config:
    """Returns the settings of a file, or those that a run or a checkpoint was made with.

    Raises:
        UserError: there is nothing of that name, or it cannot be read.
    """
    path = Path(reference)
    for file in (path, path / RUN_CONFIG, RUNS_ROOT / reference / RUN_CONFIG):
        if file.is_file() or (file == path and path.suffix in (".yaml", ".yml")):
            config, _ = load_layers([file], check=False)
            return config
    # Here and not above: a checkpoint needs numpy, files do not.
    from distppo.checkpoint.resolve import load_resolved
    from distppo.evaluation.restore import config_of

    return config_of(load_resolved(reference, prefer="last"))


def differences(first: Config, second: Config, *, names: Sequence[str]) -> list[str]:
    """Returns a table of the settings that differ, with its head; empty if none do."""
    values = flattened(first), flattened(second)
    rows = [(key, *(_shown(key, each[key]) for each in values)) for key in FIELDS if values[0][key] != values[1][key]]
    if not rows:
        return []
    table = [("", *names), *rows]
    widths = [max(len(row[column]) for row in table) for column in range(2)]
    return [f"{key:<{widths[0]}}  {left:<{widths[1]}}  {right}" for key, left, right in table]


def _shown(key: str, value: Any) -> str:
    return printable(format_value(FIELDS[key], value))
