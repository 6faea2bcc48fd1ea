"""Following a metrics.jsonl that another process writes."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

from distppo.files import open_regular
from distppo.metrics.jsonl import LONGEST_LINE, decode_line

_MOST_AT_ONCE = 16 << 20


class MetricsFollower:
    """Reads the lines of a `metrics.jsonl` as they come, rows and events, each once. It only reads: the writer notices nothing.

    Args:
        path: of the file, which need not exist yet.
        position: byte to begin at, the start of a line.
    """

    def __init__(self, path: Path, position: int = 0) -> None:
        self._path = path
        self._position = position

    def poll(self) -> list[dict[str, Any]]:
        """Returns what has been written since the last call, oldest first; damaged lines, and the half of one, are left out.

        A file that has become shorter is another run's: a `resumed` event at 0 env steps comes first then, which takes everything back.
        """
        lines: list[dict[str, Any]] = []
        try:
            with open_regular(self._path, follow_links=True) as file:
                if os.fstat(file.fileno()).st_size < self._position:
                    self._position = 0
                    lines.append({"event": "resumed", "env_steps": 0})
                file.seek(self._position)
                while block := self._whole_lines(file.read(_MOST_AT_ONCE)):
                    lines += [line for line in map(decode_line, block.splitlines()) if line is not None]
                    self._position += len(block)
                    file.seek(self._position)
        except OSError:
            pass  # Not there yet, or on a network that has gone for a while: the next call tries again.
        return lines

    @staticmethod
    def _whole_lines(block: bytes) -> bytes:
        """Returns the block up to its last newline; all of it if that much without one cannot be a line."""
        end = block.rfind(b"\n") + 1
        return block[:end] if end or len(block) <= LONGEST_LINE else block
