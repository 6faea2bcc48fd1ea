"""metrics.jsonl, the source of truth: one JSON object a line, a row of metrics or an event.

JSON has no NaN or infinity, so those floats are the strings "NaN", "Infinity" and "-Infinity"; null is a metric that was not taken.
A process killed in the middle of a write leaves half a last line, which is ignored in reading and cut off when the run goes on.
A `resumed` event takes back the rows above its `env_steps`: they stay in the file, and `read_metrics` leaves them out.
"""

from __future__ import annotations

import json
import math
import os
from collections.abc import Iterator, Mapping
from numbers import Integral, Real
from pathlib import Path
from typing import Any

from distppo.errors import UserError
from distppo.metrics.keys import STEPS

METRICS_FILE = "metrics.jsonl"
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
    """Any nesting of dicts, lists and scalars with JSON values in it; what JSON has no word for becomes its text."""
    if isinstance(value, Mapping):
        return {str(key): encode_json(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [encode_json(item) for item in value]
    if value is None or isinstance(value, bool | str):
        return value
    return encode_number(value) if isinstance(value, Real) else str(value)


def read_metrics(path: str | os.PathLike[str]) -> list[dict[str, Value]]:
    """The rows of a `metrics.jsonl` that count, oldest first: those that a resume took back are left out.

    Raises:
        UserError: It cannot be read, or a line other than a half-written last one is damaged; the message has its number.
    """
    rows: list[dict[str, Value]] = []
    for line in _read_lines(Path(path)):
        if "event" not in line:
            rows.append({key: decode_number(value) for key, value in line.items()})
        elif line["event"] == "resumed":
            rows = [row for row in rows if row[STEPS] <= line["env_steps"]]
    return rows


def repair(path: Path) -> None:
    """Makes a `metrics.jsonl` end with a whole line, as a writer that was killed may not have left it.

    Raises:
        OSError: The file cannot be read or written.
    """
    data = path.read_bytes() if path.exists() else b""
    whole = data.rfind(b"\n") + 1
    if whole == len(data):
        return
    with open(path, "r+b") as file:
        if _parse(data[whole:]) is None:
            file.truncate(whole)
        else:
            file.seek(0, os.SEEK_END)
            file.write(b"\n")


def _read_lines(path: Path) -> Iterator[dict[str, Any]]:
    try:
        *lines, last = path.read_bytes().split(b"\n")
    except OSError as error:
        raise UserError(f"{path}: cannot be read ({error.strerror})") from error
    for number, text in enumerate(lines, start=1):
        line = _parse(text)
        if line is None:
            raise UserError(f"{path}:{number}: this line is damaged, not a row of metrics or an event. Delete it to go on without it.")
        yield line
    line = _parse(last)
    if line is not None:
        yield line


def _parse(text: bytes) -> dict[str, Any] | None:
    """The row or event on a line; None if it is neither."""
    try:
        line = json.loads(text.decode(), parse_constant=_refuse_constant)
    except (ValueError, RecursionError):
        return None
    if not isinstance(line, dict):
        return None
    if line.get("event") == "resumed":
        return line if isinstance(line.get("env_steps"), int) else None
    return line if "event" in line or isinstance(line.get(STEPS), int) else None


def _refuse_constant(name: str) -> float:
    raise ValueError(f"{name} is not JSON")
