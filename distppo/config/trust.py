"""Whose code is loaded: what a checkpoint names, its user has to name too.

Settings can name code, as `module:Env-v0` does: the module is imported, and importing runs it. That is wanted where the user wrote the
name. A checkpoint, or the folder of a run, may come from anybody; the names in it alone load nothing.
"""

from __future__ import annotations

import os
import re
import shlex
from collections.abc import Collection, Iterable, Iterator, Mapping
from typing import Any

from distppo.config.load import config_to_dict
from distppo.config.schema import Config
from distppo.config.suggest import shortened
from distppo.errors import UserError

TRUST_VARIABLE = "DISTPPO_TRUST"
"""Names that a user trusts always, separated by commas or spaces."""

_CODE = re.compile(r"\s*\w[\w.]*(:[\w./-]+)*:[^\W\d][\w./-]*\s*")
_NO_CODE = {"run.directory", "metrics.wandb", "metrics.mlflow"}
_OWN = "distppo.envs.examples."
"""Where the environments are that come with the package."""
_SHIPPED = frozenset({"distppo.callbacks:StopAtReturn", "distppo.envs.wrappers:ActionRatePenalty"})
"""What else comes with it to be named in settings."""


class UntrustedCodeError(UserError):
    """A checkpoint names code that its user has not named."""


def named_code(config: Config) -> dict[str, str]:
    """Returns every `module:Name` in the settings, inside lists and mappings too, and the key it stands under."""
    found: dict[str, str] = {}
    for section, settings in config_to_dict(config).items():
        for name, value in settings.items():
            key = f"{section}.{name}"
            for text in _texts(value):
                if key in _NO_CODE or text.strip().startswith(_OWN) or text.strip() in _SHIPPED:
                    continue
                if _CODE.fullmatch(text) or (key == "env.id" and ":" in text):
                    found.setdefault(text, key)
    return found


def require_named(config: Config, named: Iterable[str], *, source: object, sections: Collection[str] | None = None) -> None:
    """Refuses settings that would load code which a checkpoint alone names. Called before anything of them is used.

    Args:
        config: about to be used, with what the user gave laid over it.
        named: every `module:Name` that the user gave; what the variable DISTPPO_TRUST holds counts too.
        source: the checkpoint or file that the settings come from, for the message.
        sections: those whose code is going to be loaded; None means all.

    Raises:
        UntrustedCodeError: there is a name that the user has not given. The message says what to type.
    """
    code = {name: key for name, key in named_code(config).items() if sections is None or key.partition(".")[0] in sections}
    require_trusted(code, named, source=source)


def require_trusted(code: Mapping[str, str], named: Iterable[str], *, source: object) -> None:
    """Refuses code, by its key, that the user has not named; arguments and error as of `require_named`."""
    trusted = {*named, *_always_trusted()}
    missing = [name for name in code if name not in trusted]
    if missing:
        listed = "\n".join(f"  {code[name]}: {shortened(name)}" for name in missing)
        raise UntrustedCodeError(
            f"{source} names code that would be imported, and so run, on this machine:\n{listed}\n"
            f"If you trust whoever made it, name it too:{trust_flags(missing)} (in Python trust={missing!r})"
        )


def trust_flags(names: Iterable[str]) -> str:
    """Returns the flags that name this code on the command line, as far as DISTPPO_TRUST does not; each begins with a space.

    They are safe to paste into a shell, whatever a stranger's name holds.
    """
    trusted = _always_trusted()
    return "".join(f" --trust {shlex.quote(name)}" for name in names if name not in trusted)


def _always_trusted() -> set[str]:
    return set(re.split(r"[\s,]+", os.environ.get(TRUST_VARIABLE, "")))


def _texts(value: Any) -> Iterator[str]:
    if isinstance(value, str):
        yield value
    elif isinstance(value, Mapping | list):
        for item in value.values() if isinstance(value, Mapping) else value:
            yield from _texts(item)


def resume_flags(names: Iterable[str], storage: str | None) -> str:
    """Returns the flags that are to be given again when a run goes on, since its own files are not believed; each begins with a space.

    Args:
        names: code in its settings, as `module:Name`.
        storage: run.storage.
    """
    return trust_flags(names) + ("" if storage is None else f" --set run.storage={shlex.quote(storage)}")
