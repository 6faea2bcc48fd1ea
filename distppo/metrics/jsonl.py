"""metrics.jsonl, the source of truth: one JSON object a line, a row of metrics or an event.

JSON has no NaN or infinity, so those floats are the strings "NaN", "Infinity" and "-Infinity"; null is a metric that was not taken.
A process killed in the middle of a write leaves half a last line, which is ignored in reading and cut off when the run goes on.
A `resumed` event takes back the rows above its `env_steps`: they stay in the file, and `read_metrics` leaves them out.
"""

from __future__ import annotations

import itertools
import math
import os
from collections.abc import Iterator, Mapping
from numbers import Integral, Real
from pathlib import Path
from typing import Any, BinaryIO, NamedTuple

from distppo.errors import UserError
from distppo.files import open_regular, without_links
from distppo.metrics.keys import STEPS
from distppo.strict_json import parse_strictly

METRICS_FILE = "metrics.jsonl"
LONGEST_LINE = 1 << 20
LONGEST_TEXT = 1 << 16
LARGEST_FILE = 4 << 30
MOST_NAMES = 4096
"""Different keys in a whole file; progress.csv has a column for each in every row."""
Value = float | int | None

_NON_FINITE = {"NaN": math.nan, "Infinity": math.inf, "-Infinity": -math.inf}


def encode_number(value: Any) -> float | int | str:
    """A number as a JSON value: Python's own int or float, or a string if it is not finite."""
    if isinstance(value, Integral):
        return int(value)
    number = float(value)
    if math.isfinite(number):
        return number
    return "NaN" if math.isnan(number) else "Infinity" if number > 0 else "-Infinity"


def decode_number(value: Any) -> Any:
    """What `encode_number` was given; any other JSON value as it is."""
    return _NON_FINITE.get(value, value) if isinstance(value, str) else value


def encode_row(row: Mapping[str, Any]) -> dict[str, float | int | str | None]:
    """The row with JSON values.

    Raises:
        ValueError: It lacks time/total_timesteps, or a value is not a number.
    """
    if not isinstance(row.get(STEPS), Integral):
        raise ValueError(f"a row of metrics needs {STEPS} (env steps, an integer); it has {row.get(STEPS)!r}")
    for key, value in row.items():
        if value is not None and not isinstance(value, Real):
            raise ValueError(f"metric {key} is {value!r}, which is not a number")
    return {key: None if value is None else encode_number(value) for key, value in row.items()}


def encode_json(value: Any) -> Any:
    """Any nesting of dicts, lists and scalars with JSON values in it; what JSON has no word for becomes its text, long text is cut."""
    if isinstance(value, Mapping):
        return {_readable(str(key)): encode_json(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [encode_json(item) for item in value]
    if value is None or isinstance(value, bool):
        return value
    return encode_number(value) if isinstance(value, Real) else _readable(str(value))


def _readable(text: str) -> str:
    """Text that can be read again: cut, and without what is not Unicode, as the path of a file can hold."""
    return text[:LONGEST_TEXT].encode(errors="replace").decode()


class RunLog(NamedTuple):
    """What a `metrics.jsonl` holds.

    Attributes:
        rows: those that count, oldest first: what a resume took back is left out.
        events: all of them, oldest first.
    """

    rows: list[dict[str, Value]]
    events: list[dict[str, Any]]


def read_metrics(path: str | os.PathLike[str]) -> list[dict[str, Value]]:
    """The rows of a `metrics.jsonl` that count, oldest first: those that a resume took back are left out.

    Raises:
        UserError: It cannot be read, or a line other than a half-written last one is damaged; the message has its number.
    """
    return read_log(path).rows


def read_log(path: str | os.PathLike[str]) -> RunLog:
    """The rows that count and the events of a `metrics.jsonl`.

    Raises:
        UserError: As `read_metrics`.
    """
    log = RunLog([], [])
    for line in _read_lines(Path(path)):
        if "event" not in line:
            log.rows.append({key: decode_number(value) for key, value in line.items()})
            continue
        log.events.append(line)
        if line["event"] == "resumed":
            while log.rows and log.rows[-1][STEPS] > line["env_steps"]:
                log.rows.pop()
    return log


def decode_line(text: bytes) -> dict[str, Any] | None:
    """The row of metrics or the event on a line; None if it is neither."""
    line = _parse(text)
    return line if line is None or "event" in line else {key: decode_number(value) for key, value in line.items()}


def repair(path: Path) -> None:
    """Makes a `metrics.jsonl` end with a whole line, as a writer that was killed may not have left it.

    Raises:
        OSError: The file cannot be read or written, or is a link.
    """
    try:
        file = os.fdopen(without_links(path, os.O_RDWR), "r+b")
    except FileNotFoundError:
        return
    with file:
        size = file.seek(0, os.SEEK_END)
        whole = _end_of_last_line(file, size)
        if whole == size:
            return
        file.seek(whole)
        if size - whole > LONGEST_LINE or _parse(file.read()) is None:
            file.truncate(whole)
        else:
            file.write(b"\n")


def _end_of_last_line(file: BinaryIO, size: int) -> int:
    """Position after the last newline, 0 if there is none; reads backwards from `size`, a block at a time."""
    while size > 0:
        start = max(0, size - LONGEST_LINE)
        file.seek(start)
        found = file.read(size - start).rfind(b"\n")
        if found >= 0:
            return start + found + 1
        size = start
    return 0


def _read_lines(path: Path) -> Iterator[dict[str, Any]]:
    """Yields rows and events; holds one line at a time."""
    names: set[str] = set()
    try:
        with open_regular(path, follow_links=True) as file:
            if os.fstat(file.fileno()).st_size > LARGEST_FILE:
                raise UserError(f"{path}: larger than {LARGEST_FILE >> 30} GiB, which is not read")
            for number in itertools.count(1):
                text = file.readline(LONGEST_LINE + 1)
                line = _parse(text)
                if line is not None:
                    names.update(line)
                    if len(names) > MOST_NAMES:
                        raise UserError(f"{path}:{number}: more than {MOST_NAMES:,} different metrics, which no run writes")
                    yield line
                elif text.endswith(b"\n") or len(text) > LONGEST_LINE:
                    raise UserError(
                        f"{path}:{number}: this line is damaged, not a row of metrics or an event. Delete it to go on without it."
                    )
                if not text.endswith(b"\n"):
                    return
    except (OSError, ValueError) as error:
        if isinstance(error, UserError):
            raise
        raise UserError(f"{path}: cannot be read ({getattr(error, 'strerror', None) or error})") from error


def _parse(text: bytes) -> dict[str, Any] | None:
    """The row or event on a line; None if it is neither."""
    try:
        line = parse_strictly(text) if len(text) <= LONGEST_LINE else None
    except ValueError:
        return None
    if not isinstance(line, dict):
        return None
    if "event" in line:
        sound = isinstance(line["event"], str) and (line["event"] != "resumed" or _is_count(line.get("env_steps")))
    else:
        sound = _is_count(line.get(STEPS)) and all(map(_is_number, line.values()))
    return line if sound else None


def _is_count(value: Any) -> bool:
    return type(value) is int and 0 <= value < 2**63


def _is_number(value: Any) -> bool:
    """True for what `encode_number` gives, and null."""
    kind = type(value)
    return kind is float or value is None or (-(2**63) <= value < 2**63 if kind is int else kind is str and value in _NON_FINITE)
