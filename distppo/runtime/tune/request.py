"""What a search is asked to do, and whether that can be done. Nothing here starts anything."""

from __future__ import annotations

import dataclasses
import importlib.util
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any, NamedTuple

from distppo.config import Config, Overrides, Setting, apply_overrides, load_layers
from distppo.config.overrides import Assignment, Problem, raise_problems
from distppo.config.trust import named_code
from distppo.errors import ConfigError, UserError
from distppo.runtime.cores import available_cores
from distppo.runtime.tune.space import Parameter
from distppo.runtime.tune.space_file import SearchSpace

SCHEDULERS = ("asha", "pbt", "none")
SEARCHES = ("random", "optuna")
DEFAULT_TRIALS = 8
DEFAULT_WORKERS = 1
MOST_TRIALS = 10_000
_MOST_CORNERS = 500
_ASHA_SHARE, _PBT_SHARE = 9, 10


class Request(NamedTuple):
    """A search.

    Attributes:
        config: of all trials; the space is laid over it.
        found: the search space.
        file: it was read from.
        trials: how many.
        scheduler: one of SCHEDULERS.
        search: one of SEARCHES.
        workers: rollout workers of a trial; 0: a trial is one process.
        max_concurrent: trials at a time; None: as many as there are CPUs for.
        address: of a running cluster; None starts Ray on this machine.
    """

    config: Config
    found: SearchSpace
    file: Path
    trials: int
    scheduler: str
    search: str
    workers: int
    max_concurrent: int | None
    address: str | None

    @property
    def base(self) -> Config:
        """Returns the config with the trials' number of workers, and no directory."""
        rollout = dataclasses.replace(self.config.rollout, num_workers=self.workers)
        return dataclasses.replace(self.config, rollout=rollout, run=dataclasses.replace(self.config.run, directory=None))

    @property
    def grace_period(self) -> int:
        """Env steps that ASHA gives every trial."""
        return int(self.found.asha["grace_period"] or max(1, self.config.run.total_timesteps // _ASHA_SHARE))

    @property
    def perturbation_interval(self) -> int:
        """Env steps between two perturbations of a trial."""
        return int(self.found.pbt["perturbation_interval"] or max(1, self.config.run.total_timesteps // _PBT_SHARE))

    @property
    def places(self) -> int:
        """How many trials this machine runs at a time: a core a worker, since in sync mode the learner works while its workers wait."""
        return max(1, min(self.trials, self.max_concurrent or available_cores() // max(1, self.workers)))


def trial_config(config: Config, settings: Mapping[str, Any], places: Mapping[str, str] | None = None) -> Config:
    """Returns a trial's config, checked as a whole.

    Args:
        config: of all trials.
        settings: of this one, by dotted key.
        places: where the file has the settings, for messages.

    Raises:
        ConfigError: the settings do not fit together.
    """
    given = tuple(Setting(key, value, (places or {}).get(key, "")) for key, value in settings.items())
    return apply_overrides(config, Overrides(given))


def code_in(request: Request, settings: Iterable[Mapping[str, Any]]) -> dict[str, str]:
    """Returns every `module:Name` that trials could load, and its key: of the config, the space's choices and the settings of trials."""
    found = named_code(request.config)
    chosen = [{parameter.key: value} for parameter in request.found.space.parameters for value in parameter.values]
    for each in (*chosen, *settings):
        assignments = [Assignment(key, value, "") for key, value in each.items()]
        found |= named_code(load_layers(assignments=assignments, base=request.config, check=False)[0])
    return found


def is_mutable(key: str) -> bool:
    """Whether a setting can change in the middle of a run: all of `ppo` can, a network's size for instance cannot."""
    return key.startswith("ppo.") and key != "ppo.optimizer"


def require_sound(request: Request) -> None:
    """Raises UserError for everything that would otherwise show when trials have started, or never."""
    config, found, total = request.config, request.found, request.config.run.total_timesteps
    file, problems = str(request.file), []
    for key in (found.metric, *(limit.key for limit in found.stop)):
        if key.startswith("eval/") and config.evaluation.every == 0:
            problems.append(Problem(file, f"{key} is taken by evaluations, and evaluation.every is 0: set it, or choose another metric"))
        elif key.startswith("eval/") and config.evaluation.every > total:
            every = config.evaluation.every
            problems.append(Problem(file, f"{key} is taken by evaluations, and evaluation.every {every:,} > run.total_timesteps {total:,}"))
    if request.scheduler == "asha" and request.grace_period >= total:
        problems.append(
            Problem(file, f"asha.grace_period {request.grace_period:,} >= run.total_timesteps {total:,}: nothing would be stopped")
        )
    if request.scheduler == "pbt":
        problems += _pbt_problems(request)
    if request.workers > config.rollout.num_envs and "rollout.num_envs" not in _keys(found):
        workers, envs = request.workers, config.rollout.num_envs
        problems.append(Problem(f"--workers-per-trial {workers}", f"is more than num_envs {envs}: use at most {envs}"))
        raise_problems(problems)
    raise_problems([*problems, *_corner_problems(request)])
    if request.search == "optuna" and importlib.util.find_spec("optuna") is None:
        raise UserError("--search optuna needs Optuna: pip install 'distppo[tune]' (or use --search random)")


def _pbt_problems(request: Request) -> list[Problem]:
    total, file, problems = request.config.run.total_timesteps, str(request.file), []
    if request.perturbation_interval >= total:
        interval = f"pbt.perturbation_interval {request.perturbation_interval:,}"
        problems.append(Problem(file, f"{interval} >= run.total_timesteps {total:,}: nothing would be perturbed"))
    if not any(map(is_mutable, _keys(request.found))):
        problems.append(Problem(file, "--scheduler pbt varies settings of ppo while trials train, and the space has none of them"))
    if request.search != "random":
        problems.append(
            Problem(f"--search {request.search}", "pbt draws its first population at random and evolves it: use --search random")
        )
    if request.trials < 2:
        problems.append(Problem(f"--trials {request.trials}", "pbt needs a population: at least 2"))
    if request.max_concurrent is not None and request.address is not None:
        problems.append(Problem("--max-concurrent", "a population on a cluster takes the CPUs there are; leave it out"))
    return problems


def _corner_problems(request: Request) -> list[Problem]:
    """Returns what is wrong between settings, wherever in the space."""
    places = {parameter.key: parameter.place for parameter in request.found.space.parameters}
    lines: dict[str, None] = {}
    for settings in request.found.space.corners(_MOST_CORNERS):
        try:
            trial_config(request.base, settings, places)
        except ConfigError as error:
            lines |= dict.fromkeys(str(error).splitlines())
    return [Problem("", line) for line in lines]


def _keys(found: SearchSpace) -> list[str]:
    parameters: tuple[Parameter, ...] = found.space.parameters
    return [parameter.key for parameter in parameters]
