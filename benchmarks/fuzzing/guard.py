"""Proves of a piece of code what it did not do: run code, write, reach another file, open a connection, hang, fill the memory."""

from __future__ import annotations

import faulthandler
import os
import resource
import signal
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

MEBIBYTE = 2**20
_WRITES = os.O_WRONLY | os.O_RDWR | os.O_CREAT | os.O_TRUNC | os.O_APPEND
_REFUSED = ("exec", "compile", "import", "marshal.", "pickle.", "code.", "function.", "ctypes.", "cpython.", "mmap.", "builtins.")
_REFUSED_PROCESS = ("subprocess.", "pty.", "socket.", "shutil.", "tempfile.", "urllib.", "http.", "ftplib.", "smtplib.", "fcntl.ioctl")
_LISTS = {"os.listdir", "os.scandir", "glob.glob", "glob.glob/2"}
_CHANGES = {"os.mkdir", "os.rename", "os.remove", "os.rmdir", "os.truncate", "shutil.rmtree"}


class Escaped(BaseException):
    """The guarded code did what it must not. Not an Exception, so that no handler in it hides this."""


class Hang(BaseException):
    """The guarded code took longer than it may."""


class Guard:
    """Watches what happens inside `armed()` through the interpreter's audit events. One a process; it cannot be taken off again.

    Args:
        root: the only folder that may be read.
        seconds: that a guarded block may take.
        mebibytes: by which the process may grow, from now on.
    """

    def __init__(self, root: Path, *, seconds: float, mebibytes: int) -> None:
        self.root = os.path.realpath(root)
        self._seconds = seconds
        self._armed = False
        self._may_write = False
        self._seen: list[str] = []
        sys.addaudithook(self._watch)
        signal.signal(signal.SIGALRM, _raise_hang)
        _, hard = resource.getrlimit(resource.RLIMIT_AS)
        resource.setrlimit(resource.RLIMIT_AS, (_address_space() + mebibytes * MEBIBYTE, hard))

    @contextmanager
    def armed(self, *, may_write: bool = False) -> Iterator[None]:
        """Guards the block.

        Args:
            may_write: inside the root.

        Raises:
            Escaped: it did what it must not, even if it caught that itself.
            Hang: it took too long.
        """
        self._seen.clear()
        self._may_write = may_write
        # For a loop in C, which no Python signal handler interrupts: ends the process with a traceback.
        faulthandler.dump_traceback_later(5 * self._seconds, exit=True)
        signal.setitimer(signal.ITIMER_REAL, self._seconds)
        self._armed = True
        try:
            yield
        finally:
            self._armed = False
            signal.setitimer(signal.ITIMER_REAL, 0)
            faulthandler.cancel_dump_traceback_later()
        if self._seen:
            raise Escaped(self._seen[0])

    def _watch(self, event: str, args: tuple[Any, ...]) -> None:
        if not self._armed:
            return
        self._armed = False  # what is asked here raises events itself
        try:
            problem = self._problem(event, args)
        finally:
            self._armed = True
        if problem:
            self._seen.append(problem)
            raise Escaped(problem)

    def _problem(self, event: str, args: tuple[Any, ...]) -> str | None:
        if event == "open":
            path, _, flags = args
            if isinstance(path, int):  # a descriptor, whose opening was an event of its own
                return None
            if flags & _WRITES and not self._may_write:
                return f"opened for writing: {path!r}"
            return None if self._is_inside(path, follow=not flags & os.O_NOFOLLOW) else f"opened: {path!r}"
        if event in _LISTS:
            return None if isinstance(args[0], int) or self._is_inside(args[0], follow=True) else f"{event}: {args[0]!r}"
        if event in _CHANGES and self._may_write:
            paths = [path for path in args if isinstance(path, str | bytes | os.PathLike)]
            return None if all(self._is_inside(path, follow=False) for path in paths) else f"{event}: {args!r}"
        if event.startswith(("os.", *_REFUSED, *_REFUSED_PROCESS)):
            return f"{event}: {args!r:.200}"
        return None

    def _is_inside(self, path: Any, *, follow: bool) -> bool:
        text = os.path.abspath(os.fsdecode(path or "."))
        real = os.path.realpath(text) if follow else os.path.join(os.path.realpath(os.path.dirname(text)), os.path.basename(text))
        return real == self.root or real.startswith(self.root + os.sep)


def _raise_hang(number: int, frame: Any) -> None:
    raise Hang("took too long")


def _address_space() -> int:
    pages = int(Path("/proc/self/statm").read_text().split()[0])
    return pages * os.sysconf("SC_PAGE_SIZE")
