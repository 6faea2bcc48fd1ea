"""`config schema`: the settings as a JSON schema."""

from __future__ import annotations

import json
from collections.abc import Sequence

from distppo.cli.parser import Parser
from distppo.config.json_schema import json_schema


def main(argv: Sequence[str], program: str) -> int:
    """Runs the command.

    Raises:
        UserError: it was given an argument.
    """
    Parser(program, "", "Prints a JSON schema of the settings, with which an editor completes and checks YAML files.").read(argv)
    print(json.dumps(json_schema(), indent=2))
    return 0
