"""distppo: distributed PPO for continuous control, on Ray.

Example:
    >>> import distppo
    >>> distppo.train("configs/halfcheetah.yaml", num_envs=8)  # doctest: +SKIP
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from distppo.callbacks import Callback, TrainingRun
    from distppo.config import Config, load_config
    from distppo.config.trust import UntrustedCodeError
    from distppo.errors import CheckpointError, ConfigError, ExportError, ResourceError, UserError
    from distppo.evaluation.evaluate import evaluate
    from distppo.evaluation.export import export_policy
    from distppo.evaluation.policy import load_policy
    from distppo.models.custom import ActorCriticModule
    from distppo.models.distributions import Categorical, DiagonalGaussian
    from distppo.runtime.train import train

__version__ = "0.1.0"
__all__ = [
    "ActorCriticModule",
    "Callback",
    "Categorical",
    "CheckpointError",
    "Config",
    "ConfigError",
    "DiagonalGaussian",
    "ExportError",
    "ResourceError",
    "TrainingRun",
    "UntrustedCodeError",
    "UserError",
    "__version__",
    "evaluate",
    "export_policy",
    "load_config",
    "load_policy",
    "train",
]

_HOMES = {
    "ActorCriticModule": "distppo.models.custom",
    "Callback": "distppo.callbacks",
    "Categorical": "distppo.models.distributions",
    "CheckpointError": "distppo.errors",
    "Config": "distppo.config",
    "ConfigError": "distppo.errors",
    "DiagonalGaussian": "distppo.models.distributions",
    "ExportError": "distppo.errors",
    "ResourceError": "distppo.errors",
    "TrainingRun": "distppo.callbacks",
    "UntrustedCodeError": "distppo.config.trust",
    "UserError": "distppo.errors",
    "evaluate": "distppo.evaluation.evaluate",
    "export_policy": "distppo.evaluation.export",
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
