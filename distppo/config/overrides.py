"""What was set explicitly, by whom, and whether it may be: the records between the sources of settings and a Config."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from types import MappingProxyType
from typing import Any, NamedTuple

from distppo.config.coerce import Steps, WrongValue, coerce, coerce_entry
from distppo.config.fields import find_field, unknown_key
from distppo.errors import ConfigError

_MOST_SHOWN = 50
_NO_PLACES: Mapping[Steps, str] = MappingProxyType({})


class Assignment(NamedTuple):
    """A key and what was written for it, not yet looked at.

    Attributes:
        key: as written, such as "ppo.gamma" or "env.kwargs.x".
        raw: text, a number, a bool, None, or lists and mappings of those.
        origin: where, such as "configs/my.yaml:12:3" or "--num-envs 8".
        places: of what stands inside the value, as far as it has places of its own.
    """

    key: str
    raw: Any
    origin: str
    places: Mapping[Steps, str] = _NO_PLACES


class Setting(NamedTuple):
    """An assignment that was found right: the key exists and the value has its type and is within its limits."""

    key: str
    value: Any
    origin: str


class Overrides(NamedTuple):
    """Everything that was set explicitly, in rising precedence. Plain values: it compares, copies and crosses processes.

    Attributes:
        settings: the later of two with the same key counts.
    """

    settings: tuple[Setting, ...] = ()

    def origins(self) -> dict[str, str]:
        """Returns where each key that was set got its final value. A mapping replaces the entries that were set before it."""
        found: dict[str, str] = {}
        for key, _, origin in reversed(self.settings):
            if key.rpartition(".")[0] not in found:
                found.setdefault(key, origin)
        return dict(reversed(found.items()))


class Problem(NamedTuple):
    """One thing that is wrong, for one line of a ConfigError.

    Attributes:
        place: file:line:column, flag or the like; empty if there is none.
        message: what is wrong and what would be right.
        key: the setting that therefore has no reliable value.
        stops: nothing can be said about settings in relation to each other.
    """

    place: str
    message: str
    key: str | None = None
    stops: bool = False


def resolve(assignments: Iterable[Assignment]) -> tuple[Overrides, list[Problem]]:
    """Looks every key up and reads every value; returns those that are right, and what is wrong with the others."""
    settings: list[Setting] = []
    problems: list[Problem] = []
    for key, raw, origin, places in assignments:
        found = find_field(key)
        if found is None:
            message, meant = unknown_key(key)
            problems.append(Problem(origin, message, meant))
            continue
        field, entry = found
        try:
            if entry is not None and not entry.isidentifier():
                raise WrongValue("does not name a keyword argument: letters, digits and _ only")
            settings.append(Setting(key, coerce(field, raw) if entry is None else coerce_entry(raw), origin))
        except WrongValue as error:
            problems.append(Problem(places.get(error.path, origin), f"{key}{error.inside} {error}", field.key))
    return Overrides(tuple(settings)), problems


def raise_problems(problems: Sequence[Problem]) -> None:
    """Raises one ConfigError with a line for each problem, up to a limit; does nothing if there are none."""
    lines = list(dict.fromkeys(f"{problem.place}  {problem.message}" if problem.place else problem.message for problem in problems))
    count = len(lines)
    if count > _MOST_SHOWN:
        lines[_MOST_SHOWN:] = [f"and {count - _MOST_SHOWN:,} more of this kind"]
    if lines:
        raise ConfigError("\n".join(lines), count)
