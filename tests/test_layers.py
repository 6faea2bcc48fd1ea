"""The architecture, read from the sources: who may import whom, what stays light, and what is never called."""

from __future__ import annotations

import ast
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import pytest

ROOT = Path(__file__).resolve().parent.parent
PACKAGE = ROOT / "distppo"
SOURCES = sorted(PACKAGE.rglob("*.py"))

BASE = frozenset({"types", "errors", "files", "strict_json", "config", "plugins", "callbacks"})
LAYERS = (
    BASE,
    frozenset({"algo", "findings"}),
    frozenset({"models"}),
    frozenset({"envs", "collector", "learner", "checkpoint", "metrics", "console", "export"}),
    frozenset({"evaluation", "report"}),
    frozenset({"flight"}),
    frozenset({"runtime"}),
    frozenset({"cli"}),
    frozenset({"__main__"}),
)
"""Units of the package, lowest first. A unit imports from layers below its own and from itself; those of the base import each other."""

ALLOWED_IN = {
    "ray": {"runtime"},
    "gymnasium": {"envs", "collector", "evaluation"},
    "tensorboardX": {"metrics"},
}
"""Third-party packages that only these units may touch."""

WORKER_PATH = ("distppo.collector", "distppo.models.numpy_policy", "distppo.envs")
UNSAFE_MODULES = {"pickle", "cloudpickle", "dill", "marshal", "shelve", "joblib"}
UNSAFE_CALLS = {
    *("torch.load", "torch.save", "builtins.eval", "builtins.exec"),
    *(f"yaml.{name}" for name in ("load", "load_all", "full_load", "full_load_all", "unsafe_load", "unsafe_load_all")),
}


class Import(NamedTuple):
    """One imported module name and where it stands."""

    module: str
    line: int


def imports_of(tree: ast.AST) -> Iterator[Import]:
    """Yields every import of a source: at the top, inside functions, under TYPE_CHECKING and by import_module of a literal."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from (Import(alias.name, node.lineno) for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            yield Import("." * node.level + (node.module or ""), node.lineno)
            if node.module == "distppo":
                yield from (Import(f"distppo.{alias.name}", node.lineno) for alias in node.names)
        elif isinstance(node, ast.Call) and node.args and called_name(node.func).endswith(("import_module", "__import__")):
            argument = node.args[0]
            if isinstance(argument, ast.Constant) and isinstance(argument.value, str):
                yield Import(argument.value, node.lineno)


def called_name(function: ast.expr) -> str:
    """Returns the dotted name of what is called; bare names that python brings along get `builtins.` before them."""
    if isinstance(function, ast.Attribute):
        return f"{called_name(function.value).removeprefix('builtins.')}.{function.attr}"
    return f"builtins.{function.id}" if isinstance(function, ast.Name) else ""


def unit_of(path: Path) -> str:
    """Returns the module or sub-package directly under distppo that a source belongs to."""
    return path.relative_to(PACKAGE).parts[0].removesuffix(".py")


def layer_of(unit: str) -> int:
    return next(number for number, units in enumerate(LAYERS) if unit in units)


def parsed(path: Path) -> ast.Module:
    return ast.parse(path.read_text(encoding="utf-8"), filename=str(path))


def place(path: Path, line: int) -> str:
    return f"{path.relative_to(ROOT)}:{line}"


def test_every_unit_has_a_layer() -> None:
    """A new module or sub-package is given its place in the architecture."""
    known = frozenset.union(*LAYERS) | {"__init__"}
    assert {unit_of(path) for path in SOURCES} <= known


@pytest.mark.parametrize("path", SOURCES, ids=lambda path: str(path.relative_to(ROOT)))
def test_imports_point_downwards(path: Path) -> None:
    """A module imports only from the layers below its own; neighbours in a layer get each other's objects passed in."""
    unit = unit_of(path)
    units = frozenset.union(*LAYERS)
    wrong = []
    for imported in imports_of(parsed(path)):
        assert not imported.module.startswith("."), f"{place(path, imported.line)}: relative import"
        names = imported.module.split(".")
        if names[0] != "distppo" or len(names) == 1 or names[1] not in units or unit in ("__init__", names[1]):
            continue
        if layer_of(names[1]) >= layer_of(unit) and not {unit, names[1]} <= BASE:
            wrong.append(f"{place(path, imported.line)}: {unit} imports {imported.module}")
    assert not wrong


@pytest.mark.parametrize("package", ALLOWED_IN)
def test_a_third_party_package_stays_in_its_place(package: str) -> None:
    """Ray, gymnasium and tensorboardX are each imported in the units that wrap them and nowhere else."""
    wrong = [
        f"{place(path, imported.line)}: {imported.module}"
        for path in SOURCES
        for imported in imports_of(parsed(path))
        if imported.module.split(".")[0] == package and unit_of(path) not in ALLOWED_IN[package]
    ]
    assert not wrong


def loaded_by(modules: tuple[str, ...]) -> set[str]:
    """Returns the top-level packages in memory after a fresh interpreter has imported the modules."""
    code = f"import sys, {', '.join(modules)}; print(*{{name.split('.')[0] for name in sys.modules}})"
    result = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True, timeout=60)
    return set(result.stdout.split())


@pytest.mark.parametrize("module", WORKER_PATH)
def test_a_worker_does_not_load_torch(module: str) -> None:
    """Acting with an MLP costs a worker neither torch's memory nor its start-up time."""
    assert not loaded_by((module,)) & {"torch", "ray"}


def test_the_package_and_its_command_line_start_with_the_standard_library_alone() -> None:
    """`--help` is quick, and where nothing is installed yet the commands can still say what is missing."""
    brought_along = loaded_by(("distppo", "distppo.cli")) - loaded_by(("os",))
    assert brought_along <= set(sys.stdlib_module_names) | {"distppo"}


def test_launch_imports_nothing_but_the_command_line() -> None:
    """launch.py is the console script under another name."""
    top_level = {imported.module.split(".")[0] for imported in imports_of(parsed(ROOT / "launch.py"))}
    assert top_level <= set(sys.stdlib_module_names) | {"distppo"}


@pytest.mark.parametrize("path", SOURCES, ids=lambda path: str(path.relative_to(ROOT)))
def test_nothing_that_could_execute_data(path: Path) -> None:
    """No pickle, torch.load or torch.save, unsafe yaml, eval or exec anywhere in the package."""
    tree = parsed(path)
    wrong = [place(path, imported.line) for imported in imports_of(tree) if imported.module.split(".")[0] in UNSAFE_MODULES]
    for node in ast.walk(tree):
        if isinstance(node, ast.ImportFrom) and any(f"{node.module}.{alias.name}" in UNSAFE_CALLS for alias in node.names):
            wrong.append(place(path, node.lineno))
        if isinstance(node, ast.Call):
            pickled_arrays = any(keyword.arg == "allow_pickle" for keyword in node.keywords)
            if called_name(node.func) in UNSAFE_CALLS or pickled_arrays:
                wrong.append(place(path, node.lineno))
    assert not wrong


def test_the_reader_of_imports_sees_every_kind() -> None:
    """The laws above are only as good as this: imports in functions, under TYPE_CHECKING and by name are all found."""
    source = """
from __future__ import annotations
if TYPE_CHECKING:
    import ray.actor
def later():
    from distppo import runtime
    importlib.import_module("distppo.cli")
"""
    found = {imported.module for imported in imports_of(ast.parse(source))}
    assert {"ray.actor", "distppo.runtime", "distppo.cli"} <= found
    assert called_name(ast.parse("torch.load(x)", mode="eval").body.func) in UNSAFE_CALLS  # type: ignore[attr-defined]
    assert called_name(ast.parse("model.eval()", mode="eval").body.func) not in UNSAFE_CALLS  # type: ignore[attr-defined]
