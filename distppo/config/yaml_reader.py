"""Settings from YAML, each with its place, without building anything but text, lists and mappings.

Only PyYAML's composer is used: it makes a tree of nodes with line and column. No constructor runs, so no tag can create an object, and
aliases and tags are refused outright.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple, NoReturn

import yaml
from yaml.error import Mark, MarkedYAMLError
from yaml.reader import ReaderError

from distppo.config.coerce import PlainText, Steps
from distppo.config.fields import SECTIONS
from distppo.config.overrides import Assignment, Problem
from distppo.config.suggest import closest, shortened
from distppo.files import open_regular

LARGEST_FILE = 128 * 1024
_DEEPEST = 30
_SYNTAX = "not valid YAML: "


class _Reader(yaml.SafeLoader):
    """A composer that refuses what a configuration never needs and an attack does."""

    depth = 0

    def compose_node(self, parent: yaml.Node | None, index: int) -> yaml.Node | None:
        event = self.peek_event()  # type: ignore[no-untyped-call]
        if isinstance(event, yaml.AliasEvent):
            self._refuse("aliases (*name) are not supported: write the value out", event.start_mark)
        if getattr(event, "tag", None) is not None:
            self._refuse("tags (!name) are not supported: write a plain value, or put it in quotes", event.start_mark)
        if self.depth >= _DEEPEST:
            self._refuse(f"nested more than {_DEEPEST} deep", event.start_mark)
        self.depth += 1
        try:
            return super().compose_node(parent, index)
        finally:
            self.depth -= 1

    @staticmethod
    def _refuse(problem: str, mark: Any) -> NoReturn:
        raise MarkedYAMLError(problem=problem, problem_mark=mark)


class Placed(NamedTuple):
    """A value of a YAML file and where it stands.

    Attributes:
        value: of a mapping, its entries by their key, each a Placed; of anything else what `coerce` takes.
        place: file:line:column.
    """

    value: Any
    place: str


class _Wrong(Exception):
    """The text cannot be read at all; carries the Problem."""

    def __init__(self, place: str, message: str) -> None:
        super().__init__(message)
        self.problem = Problem(place, message, stops=True)


def read_files(paths: Sequence[str | Path]) -> tuple[list[Assignment], list[Problem]]:
    """Returns what the files set, in their order, and what is wrong with the files themselves."""
    assignments: list[Assignment] = []
    problems: list[Problem] = []
    for path in paths:
        tree = _Tree(str(path))
        try:
            root = _composed(_text_of(Path(path)), tree.path)
            if root is not None and not _is_empty(root):
                tree.read_sections(root)
        except _Wrong as wrong:
            tree.problems.append(wrong.problem)
        assignments += tree.assignments
        problems += tree.problems
    return assignments, problems


def read_value(text: str) -> Any:
    """Returns the raw value of YAML text from the command line, such as "[1, 2]", "{a: 1}" or "'quoted'".

    Raises:
        ValueError: the text is not YAML; the message continues "<key> ".
    """
    tree = _Tree("")
    try:
        root = _composed(text, "")
        value = PlainText("") if root is None else tree.raw(root)
    except _Wrong as wrong:
        tree.problems.append(wrong.problem)
    if tree.problems:
        raise ValueError(f"is not readable: {tree.problems[0].message.removeprefix(_SYNTAX)}")
    return value


def read_placed(path: str | Path) -> tuple[Placed, list[Problem]]:
    """Returns what a YAML file holds, an empty mapping if nothing, and what is wrong with it as YAML."""
    tree = _Tree(str(path))
    content = Placed({}, tree.path)
    try:
        root = _composed(_text_of(Path(path)), tree.path)
        if root is not None and not _is_empty(root):
            content = tree.placed(root, _place(tree.path, root.start_mark))
    except _Wrong as wrong:
        tree.problems.append(wrong.problem)
    return content, tree.problems


def _text_of(path: Path) -> str:
    try:
        with open_regular(path, follow_links=True) as file:
            data = file.read(LARGEST_FILE + 1)
    except FileNotFoundError:
        if path.is_symlink():
            raise _Wrong(str(path), f"is a link to {shortened(os.readlink(path))}, which is not there") from None
        neighbours = {found.name: found for pattern in ("*.yaml", "*.yml") for found in path.parent.glob(pattern) if os.path.exists(found)}
        near = neighbours.get(closest(path.name, neighbours) or "")
        raise _Wrong(str(path), f"no such file{f' - did you mean {near}?' if near else ''}") from None
    except IsADirectoryError:
        raise _Wrong(str(path), "is a directory; give a YAML file in it") from None
    except (OSError, ValueError) as error:  # ValueError: a NUL in the path
        raise _Wrong(str(path), f"cannot be read: {getattr(error, 'strerror', None) or error}") from None
    if len(data) > LARGEST_FILE:
        raise _Wrong(str(path), f"is larger than {LARGEST_FILE // 1024} KiB, which no configuration is")
    try:
        return data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = data.count(b"\n", 0, error.start) + 1
        raise _Wrong(f"{path}:{line}", f"is not UTF-8 text (byte 0x{data[error.start]:02x})") from None


def _composed(text: str, path: str) -> yaml.Node | None:
    try:
        return yaml.compose(text, Loader=_Reader)
    except MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        raise _Wrong(_place(path, mark) if mark else path, _syntax_message(error)) from None
    except ReaderError as error:
        before = text[: error.position]
        place = f"{path}:{before.count(chr(10)) + 1}:{error.position - before.rfind(chr(10))}"
        raise _Wrong(place, f"{_SYNTAX}holds the character 0x{ord(text[error.position]):02x}") from None
    except (yaml.YAMLError, ValueError, OverflowError) as error:  # PyYAML lets int() and chr() fail on absurd versions and escapes
        raise _Wrong(path, f"{_SYNTAX}{shortened(str(error))}") from None


def _syntax_message(error: MarkedYAMLError) -> str:
    if error.problem and "'\\t'" in error.problem:
        return f"{_SYNTAX}a tab; indent with spaces"
    start = error.context_mark
    began = f" ({error.context}, which starts in line {start.line + 1})" if error.context and start else ""
    return f"{_SYNTAX}{error.problem or error.context}{began}"


def _place(path: str, mark: Mark) -> str:
    return f"{path}:{mark.line + 1}:{mark.column + 1}"


class _Tree:
    """Goes through the nodes of one text and collects what it sets and what is wrong with it."""

    def __init__(self, path: str) -> None:
        self.path = path
        self.assignments: list[Assignment] = []
        self.problems: list[Problem] = []

    def read_sections(self, root: yaml.Node) -> None:
        if not isinstance(root, yaml.MappingNode):
            raise _Wrong(_place(self.path, root.start_mark), f"must hold sections ({', '.join(SECTIONS)}), each with its settings")
        for section, place, node in self._items(root, ""):
            if section in SECTIONS and isinstance(node, yaml.MappingNode):
                for name, setting_place, value in self._items(node, f"{section}."):
                    self._assign(f"{section}.{name}", value, setting_place, dotted="." in name)
            elif not (section in SECTIONS and _is_empty(node)):  # a section whose settings are all commented out
                self._assign(section, node, place, dotted="." in section)

    def raw(self, node: yaml.Node) -> Any:
        """Returns the node as text, lists and mappings; nothing is read into it."""
        if isinstance(node, yaml.MappingNode):
            return {key: self.raw(value) for key, _, value in self._items(node, "")}
        if isinstance(node, yaml.SequenceNode):
            return [self.raw(item) for item in node.value]
        return str(node.value) if _is_quoted(node) else PlainText(node.value)

    def placed(self, node: yaml.Node, place: str) -> Placed:
        """Returns the node with the places of everything in its mappings."""
        if isinstance(node, yaml.MappingNode):
            return Placed({key: self.placed(value, at) for key, at, value in self._items(node, "")}, place)
        return Placed(self.raw(node), place)

    def _assign(self, key: str, node: yaml.Node, place: str, *, dotted: bool) -> None:
        if dotted:
            self.problems.append(Problem(place, f"{shortened(key)} has a dot: in YAML its parts stand below each other", key))
        else:
            self.assignments.append(Assignment(key, self.raw(node), place, dict(self._places(node))))

    def _places(self, node: yaml.Node, path: Steps = ()) -> Iterator[tuple[Steps, str]]:
        """Yields the place of everything inside a node: of a mapping's entries that of the key."""
        entries: list[tuple[str | int, yaml.Node, yaml.Node]] = []
        if isinstance(node, yaml.MappingNode):
            entries = [(key.value, key, value) for key, value in node.value if isinstance(key, yaml.ScalarNode)]
        elif isinstance(node, yaml.SequenceNode):
            entries = [(index, item, item) for index, item in enumerate(node.value)]
        for step, start, value in entries:
            yield (*path, step), _place(self.path, start.start_mark)
            yield from self._places(value, (*path, step))

    def _items(self, mapping: yaml.MappingNode, prefix: str) -> Iterator[tuple[str, str, yaml.Node]]:
        """Yields key, place and value; keys that are not text or come twice go to the problems."""
        first: dict[str, int] = {}
        for key_node, value in mapping.value:
            place = _place(self.path, key_node.start_mark)
            key = key_node.value
            if not isinstance(key_node, yaml.ScalarNode):
                self.problems.append(Problem(place, "a key must be plain text", stops=True))
            elif key in first:
                self.problems.append(Problem(place, f"duplicate key {shortened(prefix + key)}, first set in line {first[key]}"))
            else:
                first[key] = key_node.start_mark.line + 1
                yield key, place, value


def _is_empty(node: yaml.Node) -> bool:
    return isinstance(node, yaml.ScalarNode) and not _is_quoted(node) and node.value.lower() in ("", "~", "null")


def _is_quoted(node: yaml.Node) -> bool:
    return isinstance(node, yaml.ScalarNode) and node.style is not None
