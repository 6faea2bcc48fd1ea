"""Points at the recipe that is there for an environment, for whoever trains it without one."""

from __future__ import annotations

import os
import re
import shlex
from pathlib import Path

from distppo.config.schema import Config

SHIPPED = Path(__file__).resolve().parents[2] / "configs"
"""Where recipes are in a checkout; an installed package has none."""
_ENV_ID = re.compile(r"^  id: (\S+)$", re.MULTILINE)
_VERSION = re.compile(r"-v[0-9]+$")


def recipe_for(env_id: str, folder: Path = SHIPPED) -> Path | None:
    """Returns the recipe of an environment, of any version of it; None where there is none.

    Args:
        env_id: as in `env.id`.
        folder: of YAML files; one that is named after the environment counts first.
    """
    name = _VERSION.sub("", env_id)
    found = [path for path in sorted(folder.glob("*.yaml")) if _VERSION.sub("", _env_id(path)) == name]
    named = [path for path in found if path.stem.replace("_", "") == name.lower().replace("_", "")]
    return next(iter(named or found), None)


def recipe_hint(config: Config) -> list[str]:
    """Returns a line that names the recipe for the environment, where nobody has chosen what decides about learning; else nothing."""
    default = Config()
    chosen = any(getattr(config, section) != getattr(default, section) for section in ("ppo", "network", "normalization"))
    path = None if chosen else recipe_for(config.env.id)
    if path is None:
        return []
    relative = os.path.relpath(path)
    shown = str(path) if relative.startswith(os.pardir) else relative
    return [f"these are the default settings; those tuned for {_env_id(path)}: --config {shlex.quote(shown)}"]


def _env_id(path: Path) -> str:
    found = _ENV_ID.search(path.read_text(encoding="utf-8", errors="replace"))
    return found[1] if found else ""
