"""What reads files answers anything with a valid load or an error for the user: a deterministic share of benchmarks/fuzz.py."""

from __future__ import annotations

import json
import os
import random
import subprocess
import sys
from pathlib import Path

import fuzz
import pytest
from fuzzing.loaders import LOADERS
from fuzzing.mutate import Pairs, Raw, dump, mutate_bytes, mutate_tree

ROOT = Path(__file__).resolve().parents[1]
INPUTS = {"config": 700, "manifest": 1500, "content": 1000, "metrics": 1500, "run": 400, "report": 160}
REFUSED = dict.fromkeys(INPUTS, 200) | {"report": 40}
"""At least so many have to be: a report takes longer than the others, so it has fewer inputs."""
ESCAPES = {
    "opens a file elsewhere": "open('/etc/hostname')",
    "writes": "open('inside', 'w')",
    "writes by descriptor": "os.open('inside', os.O_WRONLY | os.O_CREAT)",
    "follows a link out": "open('link')",
    "lists a folder elsewhere": "os.listdir('/')",
    "imports": "import wave",
    "executes": "exec('1')",
    "starts a process": "os.system('true')",
    "connects": "__import__('socket').socket()",
    "removes": "os.remove('inside')",
    "hides it": "\ntry:\n  os.system('true')\nexcept BaseException:\n  pass",
    "hangs": "\nwhile True: pass",
    "takes memory": "bytearray(10**9)",
}
GUARDED = """
import os, socket, sys
from pathlib import Path
from fuzzing.guard import Guard
os.symlink("/etc/hostname", "link")
guard = Guard(Path.cwd(), seconds=1, mebibytes=64)
with guard.armed():
    CODE
"""


def run_fuzz(*arguments: str, cwd: Path) -> subprocess.CompletedProcess[str]:
    environment = os.environ | {"PYTHONPATH": str(ROOT)}
    command = [sys.executable, str(ROOT / "benchmarks" / "fuzz.py"), *arguments]
    return subprocess.run(command, capture_output=True, text=True, cwd=cwd, env=environment, timeout=120, check=False)


def run_guarded(code: str, cwd: Path) -> subprocess.CompletedProcess[str]:
    environment = os.environ | {"PYTHONPATH": str(ROOT / "benchmarks")}
    return subprocess.run([sys.executable, "-c", code], cwd=cwd, env=environment, capture_output=True, text=True, timeout=60, check=False)


@pytest.fixture(scope="module")
def seed_run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A finished run, from whose files all inputs are made."""
    from distppo.runtime.train import train

    directory = tmp_path_factory.mktemp("seed") / "run"
    train(overrides=fuzz.SEED_RUN | {"run.directory": str(directory)}, progress=False)
    return directory


@pytest.mark.parametrize("name", LOADERS)
def test_a_share_of_the_inputs_is_loaded_or_refused(name: str, seed_run: Path, tmp_path: Path) -> None:
    """Never another exception, a hang, code, or a file elsewhere; and both outcomes occur, or it would show nothing."""
    output = tmp_path / "found.json"
    done = run_fuzz(name, "--run", str(seed_run), "--inputs", str(INPUTS[name]), "--output", str(output), cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    (piece,) = json.loads(output.read_text())["pieces"]
    assert piece["inputs"] == INPUTS[name] and piece["loaded"] > 10 and piece["refused"] > REFUSED[name] and piece["failures"] == []


@pytest.mark.parametrize("code", ESCAPES.values(), ids=ESCAPES)
def test_the_guard_sees_what_it_is_there_for(code: str, tmp_path: Path) -> None:
    """An audit hook cannot be taken off, so each escape is tried in a process of its own."""
    (tmp_path / "inside").touch()
    text = GUARDED.replace("CODE", code.replace("\n", "\n    "))
    environment = os.environ | {"PYTHONPATH": str(ROOT / "benchmarks")}
    done = subprocess.run(
        [sys.executable, "-c", text], cwd=tmp_path, env=environment, capture_output=True, text=True, timeout=60, check=False
    )
    assert done.returncode == 1
    assert done.stderr.splitlines()[-1].split(":")[0] in ("fuzzing.guard.Escaped", "fuzzing.guard.Hang", "MemoryError")


def test_the_guard_lets_a_loader_read(tmp_path: Path) -> None:
    (tmp_path / "inside").touch()
    code = "open('inside'), os.listdir('.'), os.stat('/etc')"
    assert run_guarded(GUARDED.replace("CODE", code), tmp_path).returncode == 0


def test_an_input_depends_on_its_number_alone(seed_run: Path, tmp_path: Path) -> None:
    """So a failure is reproduced by its number."""
    contents = []
    for attempt in ("first", "second"):
        (tmp_path / attempt).mkdir()
        loader = LOADERS["content"](seed_run, tmp_path / attempt)
        if attempt == "second":
            loader.prepare(random.Random("other"))
        loader.prepare(random.Random("content 0 17"))
        contents.append({path.name: path.read_bytes() for path in loader.path.iterdir()})  # type: ignore[attr-defined]
    assert contents[0] == contents[1]


def test_what_is_changed_stays_near_what_is_valid() -> None:
    """Most of the structure stands; doubled keys and text that is no JSON can be written."""
    value = {"a": [1, 2, {"b": "c"}], "d": 1.5}
    assert json.loads(dump(value)) == value
    assert dump(Pairs([("a", 1), ("a", Raw("NaN"))])) == b'{"a":1,"a":NaN}'
    trees = {dump(mutate_tree(random.Random(number), value)) for number in range(200)}
    assert len(trees) > 60 and sum(b'"d":1.5' in tree for tree in trees) > 60
    texts = {mutate_bytes(random.Random(number), b"abcdefghij" * 5) for number in range(200)}
    assert len(texts) > 150 and sum(b"abcdefghij" in text for text in texts) > 100
