"""From what was written to a value of the declared type.

PyYAML reads 3e-4 and 1e6 as strings and off as False, whatever the setting is. Here the text itself is kept and read by the type of the
setting it is for, the same from YAML, the command line, Python and JSON.
"""

from __future__ import annotations

import math
import numbers
import os
import re
from collections.abc import Callable, Mapping
from decimal import Decimal, InvalidOperation
from typing import Any

from distppo.config.fields import Field, kind_in_words, limits_in_words
from distppo.config.schema import Plugin, WorkerRange
from distppo.config.suggest import did_you_mean, quoted, shortened

_TRUE = {"true", "yes", "on"}
_FALSE = {"false", "no", "off"}
_NONE = {"", "none", "null", "~"}
_THOUSANDS = re.compile(r"([0-9][0-9_]*\.?[0-9_]*)([kM])")
_INTEGER = re.compile(r"[-+]?[0-9][0-9_]*")
_RANGE = re.compile(r"([0-9][0-9_]*) *- *([0-9][0-9_]*)")
_REAL = re.compile(r"[-+]?([0-9][0-9_]*\.?[0-9_]*|\.[0-9][0-9_]*)(e[-+]?[0-9]+)?", re.IGNORECASE)
_TARGET = re.compile(r"[^\W\d]\w*(\.[^\W\d]\w*)*:[^\W\d]\w*(\.[^\W\d]\w*)*")
_DEEPEST = 20


class PlainText(str):
    """Text without quotes, from YAML or the command line: what it means depends on the setting. Any other str is text to the letter."""

    __slots__ = ()


Steps = tuple[str | int, ...]
"""The names and indices that lead from a value to something inside it, as in ("healthy_z_range", 1)."""


class WrongValue(ValueError):
    """A value does not fit. The message continues "<key><inside> ".

    Attributes:
        path: to what is wrong inside the value; empty if that is the value itself.
    """

    def __init__(self, message: str, path: Steps = ()) -> None:
        super().__init__(message)
        self.path = path

    @property
    def inside(self) -> str:
        """The path as it is written behind the key: ".healthy_z_range[1]"."""
        return shortened(
            "".join(f".{step}" if isinstance(step, str) and step.isidentifier() else f"[{quoted(step)}]" for step in self.path)
        )


def coerce(field: Field, raw: Any) -> Any:
    """Returns the value of a setting from what was written for it.

    Args:
        field: the setting.
        raw: text, a number, a bool, None, or lists and mappings of those.

    Raises:
        WrongValue: it does not fit; the message continues "<key> ", as in "must be a whole number, got 'ten'".
    """
    if field.optional and _means_none(field, raw):
        return None
    if field.choices:
        return _choice(field, raw)
    try:
        value = _READERS[field.kind](raw)
    except _Mismatch as mismatch:
        raise _refusal(raw, mismatch, kind_in_words(field)) from None
    for number in value if field.kind is tuple else (value,):
        if field.limits and not _within(field, number):
            raise WrongValue(f"must be {limits_in_words(field)}, got {quoted(number)}")
    return value


def coerce_entry(raw: Any) -> Any:
    """Returns one entry of a mapping such as env.kwargs: text, numbers, bools, None, and lists and mappings of those.

    Raises:
        WrongValue: as `coerce`.
    """
    try:
        return _plain_value(raw, depth=0)
    except _Mismatch as mismatch:
        raise _refusal(raw, mismatch, "a number") from None


class _Mismatch(Exception):
    """Not of the wanted kind. Its text, if any, says better than the kind's own words what is wanted.

    Attributes:
        path: to what is wrong inside the value that was to be read.
    """

    def __init__(self, wanted: str = "", path: Steps = ()) -> None:
        super().__init__(wanted)
        self.path = path

    def below(self, step: str | int) -> _Mismatch:
        """Returns the same, for what has the value as its entry of this name or index."""
        return _Mismatch(str(self), (step, *self.path))


def _refusal(raw: Any, mismatch: _Mismatch, kind: str) -> WrongValue:
    found = raw
    for step in mismatch.path:
        entries: Any = found.kwargs if isinstance(found, Plugin) else found
        found = entries[step]
    # All that is refused inside a mapping without a word of its own is text that looks like a number, such as 1__0.5.
    wanted = str(mismatch) or ("a number" if mismatch.path else kind)
    return WrongValue(f"must be {wanted}, got {quoted(found)}", mismatch.path)


def _means_none(field: Field, raw: Any) -> bool:
    if isinstance(raw, str):
        literal = field.kind is str and not isinstance(raw, PlainText)
        return not literal and raw.strip().lower() in _NONE | {field.none}
    # Whoever loads YAML with PyYAML and passes it on has False where the file says off.
    return raw is None or (raw is False and field.none == "off")


def _choice(field: Field, raw: Any) -> str:
    assert field.choices is not None
    text = "off" if raw is False else raw
    if isinstance(text, str) and text.strip() in field.choices:
        return str(text.strip())
    hint = did_you_mean(text.strip(), field.choices) if isinstance(text, str) else ""
    raise WrongValue(f"must be {kind_in_words(field)}, got {quoted(raw)}{hint}")


def _boolean(raw: Any) -> bool:
    if isinstance(raw, bool):
        return raw
    word = raw.strip().lower() if isinstance(raw, str) else None
    if word not in _TRUE | _FALSE:
        raise _Mismatch
    return word in _TRUE


def _whole(raw: Any) -> int:
    if isinstance(raw, bool) or not isinstance(raw, str | numbers.Real):
        raise _Mismatch
    if isinstance(raw, str) and (short := _THOUSANDS.fullmatch(raw.strip())):
        raw = f"{short[1]}e{3 if short[2] == 'k' else 6}"
    try:
        exact = Decimal(int(raw) if isinstance(raw, numbers.Integral) else raw if isinstance(raw, str) else float(raw))
    except (InvalidOperation, OverflowError):
        raise _Mismatch from None
    if not exact.is_finite():
        raise _Mismatch
    # Looked at before the conversion: 1e999999 is cheap as a Decimal, not as an int.
    if exact.adjusted() > 18 or abs(exact) > 2**63:
        raise _Mismatch("a whole number of at most 2**63")
    if exact != exact.to_integral_value():
        raise _Mismatch
    return int(exact)


def _workers(raw: Any) -> int:
    if isinstance(raw, WorkerRange):
        return raw
    if isinstance(raw, str) and (ends := _RANGE.fullmatch(raw.strip())):
        least, most = _whole(ends[1]), _whole(ends[2])
        if not 0 < least <= most:
            raise _Mismatch("a range from 1 or more to as many or more, as in 2-8")
        return WorkerRange(most, least)
    return _whole(raw)


def _real(raw: Any) -> float:
    if isinstance(raw, bool) or not isinstance(raw, str | numbers.Real):
        raise _Mismatch
    try:
        value = float(raw)
    except ValueError:
        raise _Mismatch from None
    except OverflowError:
        value = math.inf
    if not math.isfinite(value):
        raise _Mismatch("a finite number")
    return value


def _text(raw: Any) -> str:
    if not isinstance(raw, str | os.PathLike):
        raise _Mismatch
    text = os.fspath(raw)
    if not isinstance(text, str):
        raise _Mismatch
    if not text.strip():
        raise _Mismatch("text that is not empty")
    if not text.isprintable():
        raise _Mismatch("printable text")
    return str(text)


def _whole_numbers(raw: Any) -> tuple[int, ...]:
    if isinstance(raw, str):
        inner = raw.strip()
        if inner.startswith("[") != inner.endswith("]"):
            raise _Mismatch
        inner = inner.removeprefix("[").removesuffix("]").strip()
        raw = inner.rstrip(",").split(",") if inner else ()
    elif isinstance(raw, numbers.Integral):
        raw = (raw,)
    if not isinstance(raw, list | tuple):
        raise _Mismatch
    return tuple(_whole(item) for item in raw)


def _mapping(raw: Any) -> dict[str, Any]:
    if raw is None or (isinstance(raw, PlainText) and raw.strip().lower() in _NONE):
        return {}
    if not isinstance(raw, Mapping):
        raise _Mismatch
    for name in raw:
        if not (isinstance(name, str) and name.isidentifier()):
            raise _Mismatch(f"a mapping of Python keyword names to values, which {quoted(name)} is not")
    return {str(name): _entry(name, value, depth=1) for name, value in raw.items()}


def _plugins(raw: Any) -> tuple[Plugin, ...]:
    if raw is None or raw is False or (isinstance(raw, PlainText) and raw.strip().lower() in _NONE | {"off"}):
        return ()
    if isinstance(raw, str | Mapping | Plugin):
        return (_plugin(raw),)
    if not isinstance(raw, list | tuple):
        raise _Mismatch
    found = []
    for index, item in enumerate(raw):
        try:
            found.append(_plugin(item))
        except _Mismatch as mismatch:
            raise mismatch.below(index) if mismatch.path else mismatch from None
    return tuple(found)


def _plugin(raw: Any) -> Plugin:
    entry = raw.plain() if isinstance(raw, Plugin) else raw
    if isinstance(entry, str):
        entry = {"class": entry}
    if not isinstance(entry, Mapping):
        raise _Mismatch
    if "class" not in entry:
        names = [name for name in entry if isinstance(name, str)]
        near = next((name for name in names if did_you_mean(name, ["class"])), None)
        raise _Mismatch(f"entries with a class, as in {{class: module:Class}}{f' - is {near} meant to be class?' if near else ''}")
    target = entry["class"]
    if not (isinstance(target, str) and _TARGET.fullmatch(target.strip())):
        raise _Mismatch(f"entries whose class is module:Class, which {quoted(target)} is not")
    if isinstance(entry.get("kwargs"), Mapping):
        raise _Mismatch(f"entries with their arguments beside the class, as in {{class: {target}, name: value}}, not under kwargs")
    return Plugin(str(target.strip()), _mapping({name: value for name, value in entry.items() if name != "class"}))


def _plain_value(raw: Any, *, depth: int) -> Any:
    if depth > _DEEPEST:
        raise _Mismatch(f"nested at most {_DEEPEST} deep")
    if isinstance(raw, PlainText):
        return _from_plain_text(str(raw))
    if isinstance(raw, str):
        return str(raw)
    if raw is None or isinstance(raw, bool):
        return raw
    if isinstance(raw, numbers.Integral):
        return _whole(raw)
    if isinstance(raw, numbers.Real):
        return _real(raw)
    if isinstance(raw, list | tuple):
        return [_entry(index, item, depth=depth + 1) for index, item in enumerate(raw)]
    if isinstance(raw, Mapping) and all(isinstance(name, str) for name in raw):
        return {str(name): _entry(name, value, depth=depth + 1) for name, value in raw.items()}
    raise _Mismatch("text, a number, true, false, null, or lists and mappings of those")


def _entry(step: str | int, raw: Any, *, depth: int) -> Any:
    try:
        return _plain_value(raw, depth=depth)
    except _Mismatch as mismatch:
        raise mismatch.below(step) from None


def _from_plain_text(text: str) -> Any:
    word = text.lower()
    if word in ("", "~", "null"):
        return None
    if word in _TRUE | _FALSE:
        return word in _TRUE
    if _INTEGER.fullmatch(text):
        return _whole(text)
    if _REAL.fullmatch(text):
        return _real(text)
    if word.lstrip("+-") in (".inf", ".nan"):
        raise _Mismatch("a finite number")
    return text


_READERS: dict[type, Callable[[Any], Any]] = {
    bool: _boolean,
    int: _whole,
    float: _real,
    str: _text,
    tuple: _whole_numbers,
    dict: _mapping,
    WorkerRange: _workers,
    Plugin: _plugins,
}


def _within(field: Field, number: float) -> bool:
    limits = field.limits
    return (
        number >= limits.get("at_least", -math.inf)
        and number > limits.get("above", -math.inf)
        and number <= limits.get("at_most", math.inf)
        and number < limits.get("below", math.inf)
    )
