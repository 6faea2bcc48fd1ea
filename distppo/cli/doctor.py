"""`doctor`: whether this machine can do a job, each failure with a fix."""

from __future__ import annotations

import json
from collections.abc import Sequence

from distppo.cli.parser import Parser
from distppo.cli.settings import add_setting_flags, read_setting_flags
from distppo.config.suggest import printable

UNFIT = 1


def main(argv: Sequence[str], program: str) -> int:
    """Runs the command; returns 0 if training can work here, 1 if a check has failed.

    Raises:
        UserError: an argument or a setting is wrong.
    """
    description = "Checks whether this machine can train with these settings, in less than 20 seconds, and says how to fix what is wrong."
    parser = Parser(program, "[FLAGS]", description)
    add_setting_flags(parser)
    group = parser.add_argument_group("where and how")
    group.add_argument("--address", metavar="HOST:PORT", help="running Ray cluster to compare with (default: Ray is tried on this machine)")
    group.add_argument("--json", action="store_true", help="print JSON")
    arguments = parser.read(argv)
    config, _ = read_setting_flags(arguments)

    from distppo.runtime.doctor import diagnose

    checks = []
    for check in diagnose(config, address=arguments.address):
        checks.append(check)
        if not arguments.json:
            print(printable(f"{check.state:<8} {check.name:<17} {check.found}"), flush=True)
            if check.fix:
                print(printable(f"{'':<26} fix: {check.fix}"), flush=True)
    failures, warnings = (sum(check.state == state for check in checks) for state in ("failure", "warning"))
    if arguments.json:
        print(json.dumps({"fit": failures == 0, "checks": [check._asdict() for check in checks]}, indent=2))
    else:
        print(f"{failures} failure{'s' * (failures != 1)}, {warnings} warning{'s' * (warnings != 1)}")
    return UNFIT if failures else 0
