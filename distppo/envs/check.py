"""`env.check`: examines an environment as training would make it, and says everything that is wrong, each with its fix."""

from __future__ import annotations

import copy
import re
import warnings
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

import gymnasium as gym
import numpy as np
from gymnasium.utils.env_checker import check_env as gymnasium_check

from distppo.config.schema import EnvConfig
from distppo.envs.contract import Finding, reset_findings, step_findings
from distppo.envs.make import make_env
from distppo.errors import UserError, failure_text
from distppo.types import EnvSpec

EPISODES = 3
LONGEST = 1000
"""Env steps of an episode played for the check."""
SEED = 1
_HARMLESS = re.compile(
    r"is -?infinity|symmetric and normalized|symmetrical range|different from the unwrapped|is out of date|alternative render modes"
    r"|render_modes|precision lowered|unconventional shape|Casting input"
)
"""Advice of Gymnasium's checker that does not concern us: distppo normalizes observations, rescales actions and renders nothing here."""


class Part(NamedTuple):
    """One examined aspect: its name and what was found, nothing if all is well."""

    name: str
    findings: list[Finding]


class Report(NamedTuple):
    """What an examination found.

    Attributes:
        spec: of the environment.
        parts: in the order they were examined.
    """

    spec: EnvSpec
    parts: list[Part]

    @property
    def problems(self) -> int:
        """Findings that training cannot be right with."""
        return sum(finding.stops for part in self.parts for finding in part.findings)

    def lines(self) -> list[str]:
        """Returns the report for people."""
        lines = []
        for name, findings in self.parts:
            if not findings:
                lines.append(f"  ok       {name}")
            for finding in findings:
                lines += [f"  {'problem' if finding.stops else 'note   '}  {name}: {finding.what}", f"           fix: {finding.fix}"]
        return lines


def examine_env(config: EnvConfig) -> Report:
    """Makes the environment three times, plays a few episodes with random actions, and reports.

    Raises:
        UserError: it cannot be made, or its spaces are not supported; then there is nothing to examine.
    """
    env, spec = make_env(config)
    twin, _ = make_env(config)
    bare, _ = make_env(config)
    try:
        limit = spec.max_episode_steps
        parts = [
            Part("spaces", list(_space_findings(env))),
            Part("reset and step", _guarded(lambda: list(_episode_findings(env, limit)))),
            Part("seeding", _guarded(lambda: list(_seeding_findings(env, twin)))),
            Part("Gymnasium's checker", list(_gymnasium_findings(bare))),
        ]
    finally:
        for made in (env, twin, bare):
            made.close()
    return Report(spec, parts)


def require_sound(config: EnvConfig) -> list[str]:
    """Returns the report's lines; the check that `env.check` asks for.

    Raises:
        UserError: there is a problem; the message is the report.
    """
    report = examine_env(config)
    if report.problems:
        head = f"env.check found {report.problems} problem{'s' if report.problems > 1 else ''} with {config.id!r}:"
        raise UserError("\n".join([head, *report.lines()]))
    return report.lines()


def _guarded(examine: Callable[[], list[Finding]]) -> list[Finding]:
    """Returns what was found, or that the environment's own code raised meanwhile."""
    try:
        return examine()
    except (Exception, SystemExit) as error:
        return [Finding(f"the environment raised an error:\n{failure_text(error)}", "mend it where the last frame points")]


def _space_findings(env: gym.Env[Any, Any]) -> Iterator[Finding]:
    for name in ("action_space", "observation_space"):
        space = getattr(env, name)
        if not isinstance(space, gym.spaces.Box):
            continue
        if np.isnan(space.low).any() or np.isnan(space.high).any():
            yield Finding(f"{name} has a bound that is not a number", "use -numpy.inf and numpy.inf where there is no bound")
        elif (space.low >= space.high).any():
            index = tuple(int(i) for i in np.argwhere(space.low >= space.high)[0])
            stops = name == "action_space"
            what = f"{name} has low {space.low[index]:g} and high {space.high[index]:g} in element {index}: nothing lies between"
            yield Finding(what, "make low smaller than high, or leave the element out", stops)


def _episode_findings(env: gym.Env[Any, Any], limit: int | None) -> Iterator[Finding]:
    """Yields what is wrong with the results of some episodes: the first of each kind."""
    seen: set[str] = set()
    longest = min(limit or LONGEST, LONGEST)
    ended = False
    for finding in _played(env, longest):
        if finding is None:
            ended = True
        elif finding.fix not in seen:
            seen.add(finding.fix)
            yield finding
    if not ended and limit is None:
        yield Finding(
            f"no episode ended within {LONGEST} steps of random actions, and there is no time limit",
            "set env.max_episode_steps, unless it is meant to go on for ever",
            stops=False,
        )


def _played(env: gym.Env[Any, Any], longest: int) -> Iterator[Finding | None]:
    """Yields the findings of every result, and None for each episode that the environment ends."""
    actions = np.random.default_rng(SEED)
    for episode in range(EPISODES):
        started: Any = env.reset(seed=SEED + episode)
        yield from reset_findings(started, env.observation_space)
        if not _has(started, 2):
            return
        observation = started[0]
        for step in range(longest):
            yield from _finite_findings("observation", observation, step)
            kept = np.array(observation)
            result: Any = env.step(_random_action(env.action_space, actions))
            yield from step_findings(result, env.observation_space)
            if not _has(result, 5):
                return
            if result[0] is observation and not np.array_equal(kept, observation):
                yield Finding("step() changes the array it has returned before and returns it again", "return a copy", stops=False)
            observation = result[0]
            yield from _finite_findings("reward", result[1], step)
            if result[2] or result[3]:
                yield None
                break


def _has(result: Any, values: int) -> bool:
    return isinstance(result, tuple) and len(result) == values


def _finite_findings(name: str, value: Any, step: int) -> Iterator[Finding]:
    try:
        finite = bool(np.isfinite(np.asarray(value, np.float64)).all())
    except (TypeError, ValueError):  # not numbers, which was found already
        return
    if not finite:
        yield Finding(
            f"the {name} at step {step} is not finite: {value}", f"keep the {name} finite; end the episode where the dynamics diverge"
        )


def _seeding_findings(env: gym.Env[Any, Any], twin: gym.Env[Any, Any]) -> Iterator[Finding]:
    """Yields how two environments with the same seed and actions come apart."""
    fix = "draw every random number from self.np_random, and call super().reset(seed=seed) first in reset()"
    first, second = env.reset(seed=SEED)[0], twin.reset(seed=SEED)[0]
    if not _equal(first, second):
        yield Finding(f"reset(seed={SEED}) gives another first observation each time", fix)
        return
    actions = np.random.default_rng(SEED)
    for step in range(LONGEST):
        action = _random_action(env.action_space, actions)
        one, other = env.step(copy.deepcopy(action)), twin.step(copy.deepcopy(action))
        if not (_equal(one[0], other[0]) and _equal(one[1:4], other[1:4])):
            yield Finding(f"the same seed and actions give something else at step {step}", fix)
            return
        if one[2] or one[3]:
            return


def _gymnasium_findings(env: gym.Env[Any, Any]) -> Iterator[Finding]:
    """Yields what Gymnasium's checker says: it stops at its first error, and warns of the rest."""
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        try:
            gymnasium_check(env, skip_render_check=True, skip_close_check=True)
        except (Exception, SystemExit) as error:
            yield Finding(
                _shortened(str(error) or type(error).__name__), "see gymnasium.farama.org, Create a Custom Environment", stops=False
            )
    messages = dict.fromkeys(_shortened(str(warning.message)) for warning in caught if not _HARMLESS.search(str(warning.message)))
    for message in messages:
        yield Finding(message, "see gymnasium.farama.org, Create a Custom Environment", stops=False)


def _shortened(message: str) -> str:
    """Returns Gymnasium's message on one line, without its colours and labels."""
    plain = re.sub(r"\x1b\[[0-9;]*m", "", message).removeprefix("WARN: ")
    return " ".join(plain.split())


def _random_action(space: gym.Space[Any], rng: np.random.Generator) -> Any:
    """Returns an action within the bounds, for every fourth one on them."""
    space.seed(int(rng.integers(2**31)))
    action = space.sample()
    if isinstance(space, gym.spaces.Box) and rng.random() < 0.25:
        bound = space.low if rng.random() < 0.5 else space.high
        action = np.where(np.isfinite(bound), bound, action).astype(space.dtype)
    return action


def _equal(one: Any, other: Any) -> bool:
    try:
        return bool(np.array_equal(np.asarray(one, np.float64), np.asarray(other, np.float64), equal_nan=True))
    except (TypeError, ValueError):
        return bool(one == other)
