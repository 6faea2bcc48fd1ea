"""Settings: their declaration (`schema`), how they are read (`load`) and written (`dump`)."""

from distppo.config.dump import dump_config, explain_config
from distppo.config.load import apply_overrides, config_from_dict, config_to_dict, load_config, load_layers
from distppo.config.overrides import Overrides, Setting
from distppo.config.schema import (
    ClusterConfig,
    Config,
    EnvConfig,
    EvaluationConfig,
    FaultConfig,
    LearnerConfig,
    MetricsConfig,
    NetworkConfig,
    NormalizationConfig,
    Plugin,
    PPOConfig,
    RolloutConfig,
    RunConfig,
    WorkerRange,
)

__all__ = [
    "ClusterConfig",
    "Config",
    "EnvConfig",
    "EvaluationConfig",
    "FaultConfig",
    "LearnerConfig",
    "MetricsConfig",
    "NetworkConfig",
    "NormalizationConfig",
    "Overrides",
    "PPOConfig",
    "Plugin",
    "RolloutConfig",
    "RunConfig",
    "Setting",
    "WorkerRange",
    "apply_overrides",
    "config_from_dict",
    "config_to_dict",
    "dump_config",
    "explain_config",
    "load_config",
    "load_layers",
]
