"""The policies that are shipped: `zoo:halfcheetah` wherever a trained policy is named.

They are exported policies (`distppo/zoo/<name>.npz`) and are read as strictly as anybody's. scores.json beside them says what each is
worth.
"""

from __future__ import annotations

import os
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

from distppo.config.suggest import did_you_mean, shortened
from distppo.errors import CheckpointError
from distppo.files import open_regular
from distppo.strict_json import parse_strictly

PREFIX = "zoo:"
FOLDER = Path(__file__).resolve().parents[1] / "zoo"
SCORES_FILE = "scores.json"
EVALUATIONS_ROOT = Path("runs") / "zoo" / "evaluations"
"""Where evaluations of these policies are written: beside the files would be inside the installed package."""
_LARGEST_SCORES = 1 << 20
_NAME = re.compile(r"[a-z0-9_]{1,60}")


class ZooPolicy(NamedTuple):
    """A policy that is shipped.

    Attributes:
        name: after `zoo:`.
        env: Gymnasium id it was trained in.
        env_steps: it was trained for.
        return_mean: over `episodes` episodes with the most likely action, of the evaluation seed `seed`.
        return_std: of these episodes (ddof 0).
        episodes: how many.
        seed: of the evaluation.
    """

    name: str
    env: str
    env_steps: int
    return_mean: float
    return_std: float
    episodes: int
    seed: int

    @property
    def path(self) -> Path:
        """The file."""
        return FOLDER / f"{self.name}.npz"


def list_zoo() -> list[ZooPolicy]:
    """Returns the policies there are, by name.

    Raises:
        CheckpointError: their list is damaged.
    """
    path = FOLDER / SCORES_FILE
    try:
        with open_regular(path, follow_links=True) as file:
            stored = parse_strictly(file.read(_LARGEST_SCORES))
        return sorted(_policy(name, fields) for name, fields in stored.items())
    except FileNotFoundError:
        return []
    except (OSError, ValueError, TypeError, AttributeError) as error:
        raise CheckpointError(f"{path}: the list of shipped policies is damaged ({error}). Install distppo again") from error


def _policy(name: str, fields: dict[str, Any]) -> ZooPolicy:
    if not _NAME.fullmatch(name):
        raise ValueError(f"{shortened(name)} is no name of a policy")
    kinds = {"env": str, "env_steps": int, "return_mean": float, "return_std": float, "episodes": int, "seed": int}
    return ZooPolicy(name, **{key: kind(fields.get(key)) for key, kind in kinds.items()})


def is_zoo(reference: str | os.PathLike[str]) -> bool:
    """Says whether a reference names a shipped policy."""
    return str(reference).startswith(PREFIX)


def is_shipped(path: Path) -> bool:
    """Says whether a file is one of the shipped policies."""
    return path.parent == FOLDER


def from_zoo(reference: str | os.PathLike[str]) -> str | os.PathLike[str]:
    """Returns the file of the policy that zoo:NAME names; any other reference as it is.

    Raises:
        CheckpointError: there is no such policy; the message lists those there are.
    """
    if not is_zoo(reference):
        return reference
    name, policies = str(reference).removeprefix(PREFIX), {policy.name: policy for policy in list_zoo()}
    if name in policies:
        return policies[name].path
    if not policies:
        raise CheckpointError(f"{shortened(str(reference))}: no policies are shipped with this version; `train` makes one")
    hint = did_you_mean(name, policies) if name else ""
    raise CheckpointError(
        "\n".join([f"{shortened(str(reference))}: no such policy is shipped{hint}. There are:", *describe(list(policies.values()))])
    )


def describe(policies: Sequence[ZooPolicy]) -> list[str]:
    """Returns a line for each policy, for people."""
    width = max((len(policy.name) for policy in policies), default=0)
    return [
        f"  {PREFIX}{policy.name:<{width}}  {policy.env}, {policy.env_steps:,} env steps, return {policy.return_mean:,.0f} +- "
        f"{policy.return_std:,.0f}"
        for policy in policies
    ]
