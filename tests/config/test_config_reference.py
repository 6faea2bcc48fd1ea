"""docs/configuration.md is what the schema says."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from distppo.cli import main
from distppo.config.fields import FIELDS
from distppo.config.reference import reference

DOCUMENT = Path(__file__).parents[2] / "docs" / "configuration.md"


def test_the_document_is_up_to_date() -> None:
    assert DOCUMENT.read_text() == reference(), "run: python -m distppo.config.reference > docs/configuration.md"


def test_every_setting_has_its_row() -> None:
    assert re.findall(r"^\| `([a-z_]+\.[a-z_]+)` \|", reference(), re.MULTILINE) == list(FIELDS)


def test_the_errors_it_shows_are_the_real_ones(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.chdir(tmp_path)
    Path("my.yaml").write_text("env:\n  id: Walker2d-v4\nppo:\n  clip_epsilom: 0.3\n")
    examples = re.findall(r"^\$ python launch.py (.*)\n((?:(?!```).*\n)+)", reference(), re.MULTILINE)
    assert len(examples) == 2
    for command, output in examples:
        assert main(command.split()) == 2
        assert capsys.readouterr().err == output
