"""distppo: distributed PPO for continuous control, on Ray.

Example:
    >>> import distppo
    >>> distppo.train("configs/halfcheetah.yaml", num_envs=8)  # doctest: +SKIP
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from distppo.config import Config, load_config
    from distppo.evaluation.evaluate import evaluate
    from distppo.evaluation.policy import load_policy
    from distppo.models.custom import ActorCriticModule
    from distppo.models.distributions import Categorical, DiagonalGaussian
    from distppo.runtime.train import train

__version__ = "0.1.0"
__all__ = [
    "ActorCriticModule",
    "Categorical",
    "Config",
    "DiagonalGaussian",
    "__version__",
    "evaluate",
    "load_config",
    "load_policy",
    "train",
]

_HOMES = {
    "ActorCriticModule": "distppo.models.custom",
    "Categorical": "distppo.models.distributions",
    "Config": "distppo.config",
    "DiagonalGaussian": "distppo.models.distributions",
    "evaluate": "distppo.evaluation.evaluate",
    "load_config": "distppo.config",
    "load_policy": "distppo.evaluation.policy",
    "train": "distppo.runtime.train",
}


def __getattr__(name: str) -> Any:
    """Imports a public name when it is first used, so that `import distppo` costs nothing."""
    if name not in _HOMES:
        raise AttributeError(f"module 'distppo' has no attribute {name!r}")
    value = getattr(importlib.import_module(_HOMES[name]), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
