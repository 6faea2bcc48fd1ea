"""What must hold between settings. Each check names the settings it compares and prints its arithmetic."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from typing import NamedTuple

from distppo.config.overrides import Problem
from distppo.config.schema import Config
from distppo.config.suggest import did_you_mean, quoted, shortened

_LARGEST_SEARCH = 10**12


class Check(NamedTuple):
    """A rule over several settings: returns what is wrong, or None."""

    keys: tuple[str, ...]
    find: Callable[[Config], str | None]


def cross_field_problems(config: Config, origins: Mapping[str, str], problems: Sequence[Problem] = ()) -> list[Problem]:
    """Returns what is wrong between the settings, leaving out those that already have a problem of their own.

    Args:
        config: whose settings are right one by one.
        origins: where each explicitly set key was set, for the place.
        problems: found so far.
    """
    if any(problem.stops for problem in problems):
        return []
    unreliable = {problem.key for problem in problems}
    found = []
    for check in CHECKS:
        if unreliable.isdisjoint(check.keys) and (message := check.find(config)):
            places = [origin for key, origin in origins.items() if any(key == k or key.startswith(f"{k}.") for k in check.keys)]
            found.append(Problem(", ".join(dict.fromkeys(places)), message))
    return found


def minibatches_fill_the_batch(config: Config) -> str | None:
    """mini_batch_size divides the batch, so that every sample is used once an epoch and every gradient step weighs the same."""
    size, batch = config.ppo.mini_batch_size, config.batch_size
    arithmetic = f"{batch} = {config.rollout.num_envs} envs x {config.rollout.num_steps} steps"
    if size > batch:
        return f"mini_batch_size {size} is larger than the batch {arithmetic}: use at most {batch}, or more envs or steps"
    if batch % size == 0:
        return None
    left = batch % size
    nearest = " or ".join(str(divisor) for divisor in divisors_around(batch, size))
    hint = f"; {nearest} {'divide' if ' or ' in nearest else 'divides'} it" if nearest else ""
    return (
        f"batch {arithmetic} is not a multiple of mini_batch_size {size}: "
        f"{left} sample{'s' if left > 1 else ''} of every epoch would be left over{hint}"
    )


def divisors_around(batch: int, size: int) -> list[int]:
    """Returns the largest divisor of batch below size and the smallest above; none for batches too large to search."""
    if batch > _LARGEST_SEARCH:
        return []
    small = [d for d in range(1, math.isqrt(batch) + 1) if batch % d == 0]
    divisors = sorted({*small, *(batch // d for d in small)})
    return [*[d for d in divisors if 1 < d < size][-1:], *[d for d in divisors if d > size][:1]]


def every_worker_has_an_env(config: Config) -> str | None:
    """No worker is without an environment."""
    workers, envs = config.rollout.num_workers, config.rollout.num_envs
    if workers is None or workers <= envs:
        return None
    return f"num_workers {workers} > num_envs {envs}: {workers - envs} workers would have no environment; use at most {envs}, or auto"


def advantages_have_a_spread(config: Config) -> str | None:
    """The std that advantages are divided by is over more than one sample."""
    over = config.ppo.advantage_normalization
    samples = {"minibatch": config.ppo.mini_batch_size, "batch": config.batch_size}.get(over)
    if samples != 1:
        return None
    return f"advantage_normalization {over} over 1 sample: its std is 0 and every advantage would become 0; use more samples, or off"


def fused_step_is_possible(config: Config) -> str | None:
    """The fused kernel runs on a CPU, and is compiled already."""
    learner = config.learner
    if learner.step == "fused" and learner.device == "cuda":
        return "learner.step fused runs on a CPU only, but learner.device is cuda; use learner.step torch or auto, or learner.device cpu"
    return None


def compile_has_a_torch_step(config: Config) -> str | None:
    """torch.compile has something to compile."""
    if config.learner.compile and config.learner.step == "fused":
        return "learner.compile compiles the torch step, but learner.step is fused; use learner.step torch, or learner.compile false"
    return None


def learners_share_minibatches(config: Config) -> str | None:
    """Every learner takes as many samples of each minibatch, with a step in which they can meet, in processes of their own."""
    learners, size = config.learner.num_learners, config.ppo.mini_batch_size
    if learners == 1:
        return None
    if config.rollout.num_workers == 0:
        return f"num_learners {learners} are Ray actors, but num_workers 0 does without Ray; use num_workers auto, or num_learners 1"
    if config.learner.step == "fused":
        return f"num_learners {learners} add up their gradients in every step, but step fused makes a whole epoch; use step auto or torch"
    if size % learners == 0:
        return None
    nearest = " or ".join(str(divisor) for divisor in divisors_around(size, learners) or [1])
    verb = "divide" if " or " in nearest else "divides"
    return f"mini_batch_size {size} is not a multiple of num_learners {learners}; {nearest} {verb} it"


def kwargs_hold_no_settings(config: Config) -> str | None:
    """What has a setting of its own is not set behind its back."""
    for name in ("id", "max_episode_steps"):
        if name in config.env.kwargs:
            return f"env.kwargs.{name} has a setting of its own: use env.{name}"
    return None


def convolutions_are_described_alike(config: Config) -> str | None:
    """Every convolution has its channels, kernel and stride."""
    network = config.network
    numbers = {name: len(getattr(network, name)) for name in ("channels", "kernels", "strides")}
    if len(set(numbers.values())) == 1 and network.channels:
        return None
    listed = ", ".join(f"{name} {list(getattr(network, name))}" for name in numbers)
    return f"network.channels, kernels and strides must hold one entry for each convolution, at least one: {listed}"


def own_network_is_named(config: Config) -> str | None:
    """network.class is a module and a class in it, and options are for it."""
    name, options = config.network.class_, config.network.options
    if name is None:
        return f"network.options {options} are for network.class, which is off" if options else None
    module, colon, attribute = name.partition(":")
    if colon and all(part.isidentifier() for part in [*module.split("."), attribute]):
        return None
    return f"network.class must be module:Class, as in my_networks:MyActorCritic, got {name!r}"


LOGGER_ENTRIES = {
    "metrics.wandb": ("project", "name", "tags", "group", "entity", "notes", "mode"),
    "metrics.mlflow": ("project", "name", "tags", "tracking_uri"),
}
"""What may be said to a logger that comes along."""


def logger_entries_are_known(config: Config) -> str | None:
    """No entry of a logger is misspelled."""
    for key, known in LOGGER_ENTRIES.items():
        for entry, value in getattr(config.metrics, key.partition(".")[2]).items():
            if entry not in known:
                return f"unknown key {key}.{shortened(entry)}" + (did_you_mean(entry, known) or f"; it has {', '.join(known)}")
            texts = value if entry == "tags" and isinstance(value, list) else [value]
            if not all(isinstance(text, str | int | float) and not isinstance(text, bool) for text in texts):
                return f"{key}.{entry} must be {'text, or a list of texts' if entry == 'tags' else 'text'}, got {quoted(value)}"
    mode = config.metrics.wandb.get("mode", "online")
    return None if mode in ("online", "offline") else f"metrics.wandb.mode must be online or offline, got {quoted(mode)}"


def run_directory_is_a_folder(config: Config) -> str | None:
    """Metrics are appended to and files locked, which object stores cannot do."""
    if "://" not in (config.run.directory or ""):
        return None
    return (
        f"run.directory must be a folder of this machine; copies of its checkpoints go to run.storage, got {quoted(config.run.directory)}"
    )


CHECKS = (
    Check(("rollout.num_envs", "rollout.num_steps", "ppo.mini_batch_size"), minibatches_fill_the_batch),
    Check(("rollout.num_workers", "rollout.num_envs"), every_worker_has_an_env),
    Check(
        ("ppo.advantage_normalization", "ppo.mini_batch_size", "rollout.num_envs", "rollout.num_steps"),
        advantages_have_a_spread,
    ),
    Check(("learner.step", "learner.device"), fused_step_is_possible),
    Check(("learner.step", "learner.compile"), compile_has_a_torch_step),
    Check(("learner.num_learners", "ppo.mini_batch_size", "rollout.num_workers", "learner.step"), learners_share_minibatches),
    Check(("metrics.wandb", "metrics.mlflow"), logger_entries_are_known),
    Check(("env.kwargs",), kwargs_hold_no_settings),
    Check(("network.channels", "network.kernels", "network.strides"), convolutions_are_described_alike),
    Check(("network.class", "network.options"), own_network_is_named),
    Check(("run.directory",), run_directory_is_a_folder),
)
