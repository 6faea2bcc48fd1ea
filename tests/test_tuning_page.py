"""docs/tuning.md shows commands with flags they have, a space that is read, and the schedulers and distributions that there are."""

from __future__ import annotations

import re
import shlex
from pathlib import Path

import pytest

from distppo.cli import main
from distppo.runtime.tune.request import SCHEDULERS
from distppo.runtime.tune.space import DISTRIBUTIONS
from distppo.runtime.tune.space_file import PARTS, SAME_FOR_ALL, SECTIONS, read_search_space

ROOT = Path(__file__).parents[1]
PAGE = (ROOT / "docs" / "tuning.md").read_text()
COMMANDS = re.findall(r"^python launch\.py (.*?)(?:  #.*)?$", PAGE, flags=re.MULTILINE)


@pytest.mark.parametrize("command", COMMANDS)
def test_a_command_has_the_flags_and_files_it_is_shown_with(command: str, capsys: pytest.CaptureFixture[str]) -> None:
    words = shlex.split(command)
    assert main([words[0], "--help"]) == 0
    shown = capsys.readouterr().out
    assert all(re.search(rf"(?<![\w-]){word}(?![\w-])", shown) for word in words if word.startswith("--"))
    assert all((ROOT / word).exists() for word in words if word.startswith("configs/"))


def test_the_space_it_shows_is_one(tmp_path: Path) -> None:
    (example,) = re.findall(r"```yaml\n(.*?)```", PAGE, flags=re.DOTALL)
    path = tmp_path / "space.yaml"
    path.write_text(example)
    found = read_search_space(path)
    assert all(re.search(rf"^{part}:", example, re.MULTILINE) for part in PARTS)
    assert {parameter.distribution for parameter in found.space.parameters} == set(DISTRIBUTIONS)


def test_what_there_is_is_described() -> None:
    rows = set(re.findall(r"^\| `(\w+)", PAGE, flags=re.MULTILINE))
    assert set(SCHEDULERS) | set(DISTRIBUTIONS) <= rows
    assert all(f"`{name}`" in PAGE for name in (*SECTIONS, *SAME_FOR_ALL))
