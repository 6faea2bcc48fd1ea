"""The live display in a real terminal, of which tmux tells what it shows."""

from __future__ import annotations

import os
import shlex
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest
from runtime.running import SECONDS, command, environment, wait_until

pytestmark = pytest.mark.skipif(shutil.which("tmux") is None, reason="tmux is not installed")


class Terminal:
    """A terminal of its own for one command."""

    def __init__(self, folder: Path, width: int, height: int, *argv: str) -> None:
        self._server = str(folder / "tmux")
        line = f"trap : INT; {shlex.join(command(*argv))}; echo exit code $?; read line"
        variables = environment() | {"LANG": "C.UTF-8", "TERM": "screen-256color"}
        self._environment = {name: value for name, value in variables.items() if name not in ("NO_COLOR", "TMUX", "COLUMNS", "LINES")}
        self._tmux("-f", os.devnull, "new-session", "-d", "-x", str(width), "-y", str(height), "-c", str(folder), "sh", "-c", line)

    def _tmux(self, *arguments: str) -> str:
        call = ["tmux", "-u", "-S", self._server, *arguments]
        return subprocess.run(call, env=self._environment, capture_output=True, text=True, timeout=SECONDS, check=True).stdout

    @property
    def lines(self) -> list[str]:
        """What is on the screen, without the empty lines below it."""
        return self._tmux("capture-pane", "-p").rstrip("\n").split("\n")

    def wait_for(self, text: str) -> list[str]:
        """Returns the screen as soon as it shows the text."""
        return wait_until(lambda: lines if text in "\n".join(lines := self.lines) else None, SECONDS, f"{text!r} on the screen")

    def resize(self, width: int, height: int) -> None:
        self._tmux("resize-window", "-x", str(width), "-y", str(height))

    def press(self, key: str) -> None:
        self._tmux("send-keys", key)

    @property
    def has_cursor(self) -> bool:
        return self._tmux("display-message", "-p", "#{cursor_flag}").strip() == "1"

    def close(self) -> None:
        subprocess.run(["tmux", "-S", self._server, "kill-server"], capture_output=True, check=False)


@pytest.fixture
def endless(small_file: str) -> list[str]:
    """Arguments of a run that goes on until it is stopped."""
    return ["--config", small_file, "--total-timesteps", "1e9"]


@pytest.fixture
def terminals(tmp_path: Path) -> Iterator[list[Terminal]]:
    opened: list[Terminal] = []
    yield opened
    for terminal in opened:
        terminal.close()


@pytest.mark.parametrize(("width", "height"), [(80, 24), (40, 12)])
def test_a_run_fits_its_terminal_and_gives_it_back(
    terminals: list[Terminal], endless: list[str], tmp_path: Path, width: int, height: int
) -> None:
    """Every label once, on a line of its own; another size is taken up; Ctrl-C ends in order and the cursor is there again."""
    terminal = Terminal(tmp_path, width, height, "train", "--run-dir", "run", *endless)
    terminals.append(terminal)
    lines = terminal.wait_for("idle    workers")
    for label in ("steps ", "return ", "health ", "update ", "time ", "idle "):
        assert [line for line in lines if line.startswith(label)] != [], label
    assert not terminal.has_cursor
    terminal.resize(120 - width, 36 - height)
    terminal.wait_for("health ")
    steps = [line for line in terminal.lines if line.startswith("steps ")]
    wait_until(lambda: [line for line in terminal.lines if line.startswith("steps ")] not in ([], steps), SECONDS, "the next iteration")
    shown = wait_until(lambda: lines if (lines := terminal.lines)[-1].startswith("idle ") else None, SECONDS, "a whole frame")
    assert all(sum(line.startswith(label) for line in shown) == 1 for label in ("steps ", "health ", "update ", "idle "))
    terminal.press("C-c")
    terminal.wait_for("exit code 130")
    assert terminal.has_cursor


def test_two_terminals_show_the_same_run(terminals: list[Terminal], endless: list[str], tmp_path: Path) -> None:
    """A run and `watch` beside it, which says how the run has ended."""
    (tmp_path / "a").mkdir()
    (tmp_path / "b").mkdir()
    terminals.append(Terminal(tmp_path / "a", 80, 24, "train", "--run-dir", str(tmp_path / "run"), *endless))
    terminals[0].wait_for("idle    workers")
    terminals.append(Terminal(tmp_path / "b", 40, 12, "watch", str(tmp_path / "run")))
    watching = terminals[1].wait_for("idle    workers")
    assert any(line.startswith("health  one process") or line.startswith("health  ") for line in watching)
    terminals[0].press("C-c")
    shown = terminals[1].wait_for("exit code 0")
    assert "interrupted" in "\n".join(shown)
