"""A SHA-256 inside the file that it is of: taken over all bytes with the digest's own place zeroed."""

from __future__ import annotations

import hashlib
import re

ZEROS = b"0" * 64


def seal(data: bytes, recorded: re.Pattern[bytes]) -> bytes:
    """Returns the data with its digest in place of the zeros.

    Args:
        data: with 64 zeros where the digest belongs.
        recorded: finds that place, its first group being the digest's 64 hexadecimal digits.
    """
    start, digest = _place_and_digest(data, recorded)
    return data[:start] + digest + data[start + len(ZEROS) :]


def open_sealed(data: bytes, recorded: re.Pattern[bytes]) -> None:
    """Raises ValueError unless the data has the digest that it states."""
    start, digest = _place_and_digest(data, recorded)
    if data[start : start + len(ZEROS)] != digest:
        raise ValueError("damaged or changed: its contents do not have the SHA-256 that it states")


def _place_and_digest(data: bytes, recorded: re.Pattern[bytes]) -> tuple[int, bytes]:
    found = list(recorded.finditer(data))
    if len(found) != 1:
        raise ValueError("it holds no distppo policy")
    start = found[0].start(1)
    blank = data[:start] + ZEROS + data[start + len(ZEROS) :]
    return start, hashlib.sha256(blank).hexdigest().encode()
