"""Files that are either whole or not there: synced writes, atomic replacement, removal that is never seen half done."""

from __future__ import annotations

import errno
import fcntl
import os
import re
import shutil
import stat
import uuid
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import BinaryIO

RUNS_VARIABLE = "DISTPPO_RUNS"
RUNS_ROOT = Path(os.environ.get(RUNS_VARIABLE) or "runs").expanduser()
"""The folder in which runs are made and looked for by name."""

_LEFTOVER = re.compile(r"\.tmp-[0-9a-f]{32}$")


def open_regular(path: Path, *, follow_links: bool = False) -> BinaryIO:
    """Opens a regular file for reading; never waits, as opening a pipe does, and never touches a device.

    Args:
        path: of the file.
        follow_links: whether it may be a link to one, as what a user names may be.

    Raises:
        OSError: it is missing, a link, not a regular file, or cannot be read.
        ValueError: there is a NUL in the path.
    """
    descriptor = (_open_at_once if follow_links else without_links)(path, os.O_RDONLY)
    try:
        mode = os.fstat(descriptor).st_mode
        if stat.S_ISDIR(mode):
            raise IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR), str(path))
        if not stat.S_ISREG(mode):
            raise OSError(errno.EINVAL, "not a regular file", str(path))
        return os.fdopen(descriptor, "rb")
    except BaseException:
        os.close(descriptor)
        raise


def without_links(path: str | Path, flags: int) -> int:
    """Opener for `open` that refuses a link in the last place, and does not wait for the other end of a pipe.

    Raises:
        OSError: the path is a link (ELOOP), or cannot be opened.
    """
    return _open_at_once(path, flags | os.O_NOFOLLOW)


def _open_at_once(path: str | Path, flags: int) -> int:
    return os.open(path, flags | os.O_NONBLOCK | os.O_CLOEXEC, 0o666)


def write_synced(path: Path, data: bytes) -> None:
    """Creates the file `path` with `data`, on the disk when this returns.

    Raises:
        OSError: It exists already, or the disk refused; what was written then stays for the caller to remove.
    """
    with open(path, "xb") as file:
        file.write(data)
        file.flush()
        os.fsync(file.fileno())


def sync_directory(path: Path) -> None:
    """Makes the names inside a directory durable: what was created, renamed or removed in it."""
    descriptor = os.open(path, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(descriptor)
    except OSError as error:
        # Some network and FUSE file systems cannot sync a directory; there is no other way to ask.
        if error.errno not in (errno.EINVAL, errno.ENOTSUP, errno.EBADF):
            raise
    finally:
        os.close(descriptor)


def write_atomic(path: Path, data: bytes) -> None:
    """Replaces (or creates) the file `path`: a reader, and a crash at any moment, sees the old content or the new.

    Raises:
        OSError: The disk refused; the old content is still there and nothing else is left behind.
    """
    temporary = _temporary_beside(path)
    try:
        write_synced(temporary, data)
        os.replace(temporary, path)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise
    sync_directory(path.parent)


@contextmanager
def staging_directory(target: Path) -> Iterator[Path]:
    """Yields a new directory beside `target`, to be filled and then renamed to it inside the block.

    It is removed if the block raises. It stays locked for the length of the block, so that `remove_leftovers` of another
    process knows that its writer lives.

    Raises:
        OSError: It cannot be created.
    """
    temporary = _temporary_beside(target)
    temporary.mkdir()
    try:
        with _locked(temporary):
            yield temporary
    except BaseException:
        shutil.rmtree(temporary, ignore_errors=True)
        raise


def discard(path: Path) -> None:
    """Removes a file or a directory. Its name is gone in one step, so a crash leaves a leftover, never half a directory.

    Raises:
        OSError: It could not be renamed; then it is untouched.
    """
    doomed = _temporary_beside(path)
    os.rename(path, doomed)
    _remove(doomed)


def is_leftover(path: Path) -> bool:
    """Says whether it has the name of what a writer has not finished, or not finished removing: nobody's file or directory."""
    return _LEFTOVER.search(path.name) is not None


def remove_leftovers(directory: Path) -> None:
    """Removes what writers that died have left in `directory`; that of a living one is kept."""
    for path in directory.iterdir():
        if is_leftover(path):
            _remove(path)


def _temporary_beside(path: Path) -> Path:
    return path.with_name(f"{path.name}.tmp-{uuid.uuid4().hex}")


def _remove(path: Path) -> None:
    """Removes `path` if it can: one that another process holds, or that resists, costs space and nothing else."""
    with suppress(OSError):
        if path.is_dir() and not path.is_symlink():
            with _locked(path):
                shutil.rmtree(path, ignore_errors=True)
        else:
            path.unlink()


@contextmanager
def _locked(directory: Path) -> Iterator[None]:
    """Holds the lock of `directory` for the length of the block; the kernel drops it when the process dies.

    Raises:
        BlockingIOError: Another process holds it.
    """
    descriptor = os.open(directory, os.O_RDONLY | os.O_DIRECTORY)
    try:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise
        except OSError:
            pass  # A file system without locks: there, one writer a run directory has to be enough.
        yield
    finally:
        os.close(descriptor)
