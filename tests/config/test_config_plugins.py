"""Plug-ins in the configuration: how they are written, and what is refused."""

from __future__ import annotations

from pathlib import Path

import pytest

from distppo.config import Plugin, dump_config, load_config
from distppo.errors import ConfigError

BOTH = (Plugin("m:A"), Plugin("a.b:B.c", {"scale": 2, "name": "x"}))


def test_both_forms_mean_the_same_from_everywhere(tmp_path: Path) -> None:
    """YAML in blocks or on a line, --set, Python; and a dumped configuration loads back equal."""
    (tmp_path / "block.yaml").write_text("env:\n  wrappers:\n    - m:A\n    - class: a.b:B.c\n      scale: 2\n      name: x\n")
    written = load_config(tmp_path / "block.yaml")
    assert written.env.wrappers == BOTH
    assert load_config(overrides=["env.wrappers=[m:A, {class: a.b:B.c, scale: 2, name: x}]"]).env.wrappers == BOTH
    assert load_config(wrappers=["m:A", {"class": "a.b:B.c", "scale": 2, "name": "x"}]).env.wrappers == BOTH
    (tmp_path / "dumped.yaml").write_text(dump_config(written))
    assert load_config(tmp_path / "dumped.yaml") == written


@pytest.mark.parametrize("text", ["m:A", "[m:A]", "{class: m:A}", "[{class: 'm:A'}]"])
def test_one_alone_needs_no_list(text: str) -> None:
    assert load_config(overrides=[f"run.callbacks={text}"]).run.callbacks == (Plugin("m:A"),)


@pytest.mark.parametrize("text", ["[]", "off", "", "null"])
def test_none_at_all_can_be_written(text: str) -> None:
    assert load_config(overrides=[f"env.wrappers={text}"]).env.wrappers == ()


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("[Wrapper]", "must be entries whose class is module:Class, which 'Wrapper' is not"),
        ("['m:']", "which 'm:' is not"),
        ("['../m:A']", "which '../m:A' is not"),
        ("[{clas: m:A}]", "must be entries with a class, as in {class: module:Class} - is clas meant to be class?"),
        ("[{scale: 2}]", "must be entries with a class, as in {class: module:Class}, got"),
        ("[{class: m:A, kwargs: {scale: 2}}]", "with their arguments beside the class, as in {class: m:A, name: value}, not under kwargs"),
        ("[{class: m:A, a-b: 2}]", "a mapping of Python keyword names to values, which 'a-b' is not"),
        ("[[m:A]]", "must be a list of module:Class, or {class: module:Class} with its arguments"),
    ],
)
def test_what_is_no_plugin_is_told(text: str, message: str) -> None:
    with pytest.raises(ConfigError) as caught:
        load_config(overrides=[f"env.wrappers={text}"])
    assert message in str(caught.value) and str(caught.value).startswith("env.wrappers=")
