"""Files that are broken, hostile or not there end in one clear line with the place."""

from __future__ import annotations

import os
import time
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from distppo.config import Config, load_config
from distppo.config.yaml_reader import LARGEST_FILE
from distppo.errors import ConfigError


def problem(path: Path) -> str:
    """The one line that loading the file ends in."""
    with pytest.raises(ConfigError) as caught:
        load_config(path)
    (line,) = str(caught.value).splitlines()
    return line


BROKEN = [
    (b"ppo:\n\tgamma: 1\n", ":2:1  not valid YAML: a tab; indent with spaces"),
    (
        b"ppo: {gamma: 1\n",
        "  not valid YAML: expected ',' or '}', but got '<stream end>' (while parsing a flow mapping, which starts in line 1)",
    ),
    (b"ppo:\n  gamma: 1\n epochs: 2\n", ":3:2  not valid YAML: expected <block end>"),
    (b"a: b: c\n", ":1:5  not valid YAML: mapping values are not allowed here"),
    (b"ppo: {gamma: 1}\n---\nppo: {gamma: 2}\n", ":2:1  not valid YAML: but found another document"),
    (b"- ppo\n", ":1:1  must hold sections (env, rollout, ppo,"),
    (b"just text\n", ":1:1  must hold sections"),
    (b"? [a]\n: 1\n", ":1:3  a key must be plain text"),
    (b"ppo:\n  gamma: 0.9\n  gamma: 0.8\n", ":3:3  duplicate key ppo.gamma, first set in line 2"),
    (b"ppo: {gamma: 0.9}\nppo: {epochs: 3}\n", ":2:1  duplicate key ppo, first set in line 1"),
    (b"env:\n  kwargs: {a: 1, a: 2}\n", ":2:18  duplicate key a, first set in line 2"),
    (b"ppo:\n  gamma: \xff\n", ":2  is not UTF-8 text (byte 0xff)"),
    (b"ppo:\n  gamma: \x01\n", ":2:10  not valid YAML: holds the character 0x01"),
    (b"ppo: !!python/object/apply:os.system ['touch pwned']\n", ":1:6  not valid YAML: tags (!name) are not supported"),
    (b"!!python/object:os.system {}\n", ":1:1  not valid YAML: tags (!name) are not supported"),
    (b"env: {kwargs: {a: &a [x], b: *a}}\n", ":1:30  not valid YAML: aliases (*name) are not supported"),
    (b"env: {kwargs: {a: " + b"[" * 40, ":1:46  not valid YAML: nested more than 30 deep"),
    (b"x: '\\UFFFFFFFF'\ny: \"\\UFFFFFFFF\"\n", "  not valid YAML: "),
    (b"%YAML 1." + b"9" * 5000 + b"\n--- a\n", "  not valid YAML: "),
    (b"#" * (LARGEST_FILE + 1), "  is larger than 128 KiB"),
]


@pytest.mark.parametrize(("data", "message"), BROKEN)
def test_a_broken_file_is_told_with_its_place(data: bytes, message: str, tmp_path: Path) -> None:
    path = tmp_path / "a.yaml"
    path.write_bytes(data)
    line = problem(path)
    assert line.startswith(str(path)) and message in line
    assert not (tmp_path / "pwned").exists()


def test_an_alias_bomb_costs_nothing(tmp_path: Path) -> None:
    levels = "\n".join(f"    k{i}: &k{i} [{', '.join([f'*k{i - 1}'] * 9)}]" for i in range(1, 12))
    path = tmp_path / "bomb.yaml"
    path.write_text(f"env:\n  kwargs:\n    k0: &k0 [lol]\n{levels}\n")
    start = time.perf_counter()
    assert ":4:14  not valid YAML: aliases (*name) are not supported" in problem(path)
    assert time.perf_counter() - start < 1


def test_a_missing_file_names_its_neighbour(tmp_path: Path) -> None:
    (tmp_path / "halfcheetah.yaml").touch()
    assert problem(tmp_path / "halfcheeta.yaml") == f"{tmp_path}/halfcheeta.yaml  no such file - did you mean {tmp_path}/halfcheetah.yaml?"


def test_a_link_to_nowhere_is_told_and_never_proposed(tmp_path: Path) -> None:
    (tmp_path / "broken.yaml").symlink_to("../away.yaml")
    assert problem(tmp_path / "broken.yaml") == f"{tmp_path}/broken.yaml  is a link to ../away.yaml, which is not there"
    assert problem(tmp_path / "brokn.yaml") == f"{tmp_path}/brokn.yaml  no such file"


def test_a_directory_and_a_path_through_a_file_are_told(tmp_path: Path) -> None:
    assert problem(tmp_path) == f"{tmp_path}  is a directory; give a YAML file in it"
    (tmp_path / "a.yaml").touch()
    assert "cannot be read: Not a directory" in problem(tmp_path / "a.yaml" / "b.yaml")


@pytest.mark.skipif(os.geteuid() == 0, reason="root may read everything")
def test_a_file_without_permission_is_told(tmp_path: Path) -> None:
    path = tmp_path / "a.yaml"
    path.touch(mode=0o000)
    assert "cannot be read: Permission denied" in problem(path)


@pytest.mark.parametrize(
    "text", ["", "# nothing\n", "---\n", "ppo:\n", "ppo:\n  # all commented out\nenv: ~\n", "\ufeff# with a byte order mark\n"]
)
def test_a_file_that_sets_nothing_is_fine(text: str, tmp_path: Path) -> None:
    path = tmp_path / "a.yaml"
    path.write_text(text, encoding="utf-8")
    assert load_config(path) == Config()


YAML_LIKE = st.lists(
    st.sampled_from(
        [
            "ppo:",
            "env:",
            " ",
            "  ",
            "\n",
            "gamma",
            ": ",
            "- ",
            "[",
            "]",
            "{",
            "}",
            "'",
            '"',
            "&a ",
            "*a",
            "!x ",
            "? ",
            "| ",
            "1e6",
            "\t",
            "\x85",
            ",",
        ]
    )
).map("".join)


@settings(max_examples=200, deadline=None)
@given(data=st.binary(max_size=200) | YAML_LIKE.map(str.encode))
def test_no_file_whatever_ends_in_anything_but_a_config_or_a_config_error(data: bytes, tmp_path_factory: pytest.TempPathFactory) -> None:
    path = tmp_path_factory.getbasetemp() / "fuzz.yaml"
    path.write_bytes(data)
    try:
        assert isinstance(load_config(path), Config)
    except ConfigError as error:
        assert all(line.startswith(str(path)) for line in str(error).splitlines())


def test_a_pipe_or_a_device_is_refused_and_not_waited_for(tmp_path):
    os.mkfifo(tmp_path / "pipe")
    for path in (tmp_path / "pipe", "/dev/zero"):
        with pytest.raises(ConfigError, match="cannot be read: not a regular file"):
            load_config(path)
