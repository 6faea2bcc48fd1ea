"""Did-you-mean, and how a user's own text is shown back in a message."""

from __future__ import annotations

import difflib
import numbers
from collections.abc import Iterable, Mapping

_LONGEST = 60


def closest(word: str, candidates: Iterable[str], cutoff: float = 0.6) -> str | None:
    """Returns the candidate that the word most likely misspells; None if nothing is near: difflib's ratio is below the cutoff."""
    if len(word) > _LONGEST:  # difflib's time grows with the square of it
        return None
    by_form = {_form(candidate): candidate for candidate in candidates}
    matches = difflib.get_close_matches(_form(word), by_form, n=1, cutoff=cutoff)
    return by_form[matches[0]] if matches else None


def did_you_mean(word: str, candidates: Iterable[str], cutoff: float = 0.6) -> str:
    """Returns " - did you mean X?", or nothing."""
    found = closest(word, candidates, cutoff)
    return f" - did you mean {found}?" if found else ""


def quoted(value: object) -> str:
    """Returns the value as a message shows it: numbers bare, text in quotes, cut where it gets long, nothing unprintable."""
    if isinstance(value, list | tuple):
        return shortened(f"[{', '.join(_scalar(item) for item in value[:_LONGEST])}]")
    return shortened(_scalar(value))


def printable(text: str) -> str:
    """Returns the text on one line, with escapes for what a terminal would obey."""
    return "".join(c if c.isprintable() else ascii(c)[1:-1] for c in text)


def shortened(text: str) -> str:
    """Returns the text as `printable` does, cut in the middle where it is too long for a message."""
    text = printable(text)
    return text if len(text) <= _LONGEST else f"{text[: _LONGEST - 23]}...{text[-20:]}"


def _form(word: str) -> str:
    return word.lower().lstrip("-").replace("-", "_")  # dashes that all flags begin with make none alike


def _scalar(value: object) -> str:
    if value is None or isinstance(value, bool):
        return {True: "true", False: "false", None: "null"}[value]
    if isinstance(value, str):
        return ascii(str(value))
    if isinstance(value, int) and value.bit_length() > 1000:  # Python refuses to print integers of thousands of digits
        return "a huge number"
    if isinstance(value, numbers.Number):
        return str(value)
    if isinstance(value, list | tuple):
        return "a list"
    return "a mapping" if isinstance(value, Mapping) else f"a value of type {type(value).__name__}"
