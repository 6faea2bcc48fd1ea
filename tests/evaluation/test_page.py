"""docs/evaluating.md: its commands run, and its tables list what there is."""

from __future__ import annotations

import contextlib
import re
import shlex
from collections.abc import Iterator
from pathlib import Path

import pytest
from runtime.running import ROOT, SMALL, Run

from distppo.cli import main
from distppo.runtime.train import train
from distppo.strict_json import parse_strictly

PAGE = (ROOT / "docs" / "evaluating.md").read_text(encoding="utf-8")
COMMANDS = re.findall(r"^python launch\.py (evaluate .*)$", PAGE, re.MULTILINE)
SHORT = ["--env", "probe_envs:Painted-v0", "--episodes", "3", "--seconds", "0.2"]


@pytest.fixture(scope="module")
def project(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Run]:
    """A folder with a run, which is the current one while its tests run."""
    folder = tmp_path_factory.mktemp("project")
    with contextlib.chdir(folder):
        yield Run(train(overrides=SMALL | {"run.directory": "runs/mine"}, progress=False))


@pytest.mark.parametrize("command", COMMANDS)
def test_a_command_of_the_page_runs(command: str, project: Run) -> None:
    """With another environment, quick to draw, and a fifth of a second of it."""
    recorded = "--record" in command
    assert main([*shlex.split(command), *(SHORT if recorded else SHORT[:4])]) == 0


def test_every_flag_is_in_the_table(capsys: pytest.CaptureFixture[str]) -> None:
    """And the table has no other."""
    assert main(["evaluate", "--help"]) == 0
    table = PAGE.partition("## Flags")[2].partition("##")[0]
    flags = set(re.findall(r"--[a-z-]+", capsys.readouterr().out)) - {"--help"}
    listed = {flag for line in table.splitlines() if line.startswith("| `--") for flag in re.findall(r"--[a-z-]+", line.split("|")[1])}
    assert listed == flags


def test_every_key_of_the_files_is_described(project: Run) -> None:
    """Those of the objects inside, too."""
    assert main(["evaluate", "runs/mine", "--analyze-value", "--record", *SHORT]) == 0
    folder = max((project.directory / "evaluations").iterdir(), key=lambda path: path.stat().st_mtime_ns)
    described = set(re.findall(r"`(\w+)`", PAGE.partition("## What is written")[2]))
    for name in ("evaluation.json", "values.json"):
        content = parse_strictly((folder / name).read_bytes())
        keys = set(content)
        for value in content.values():
            inner = value[0] if isinstance(value, list) and value else value
            keys |= set(inner) if isinstance(inner, dict) and value is not content.get("versions") else set()
        assert keys <= described | {"env"}, keys - described


def test_every_link_leads_somewhere() -> None:
    links = re.findall(r"\]\(([^)#:]+)\)", PAGE)
    assert links and all((ROOT / "docs" / Path(link)).exists() for link in links)
