"""A search space in YAML: `metric`, `mode`, `space`, `stop` and numbers of the schedulers', held against the schema."""

from __future__ import annotations

import contextlib
from collections.abc import Collection, Iterator, Mapping
from pathlib import Path
from typing import Any, NamedTuple, NoReturn

from distppo.config.coerce import WrongValue, coerce, coerce_entry
from distppo.config.fields import Field, find_field, unknown_key
from distppo.config.overrides import Problem, raise_problems
from distppo.config.suggest import did_you_mean, quoted, shortened
from distppo.config.yaml_reader import Placed, read_placed
from distppo.metrics.keys import KEYS, STEPS
from distppo.runtime.tune.space import DISTRIBUTIONS, Parameter, Settings, Space

MODES = ("max", "min")
DEFAULT_METRIC = "rollout/ep_rew_mean"
PARTS = ("metric", "mode", "space", "stop", "asha", "pbt")
SECTIONS = ("env", "rollout", "ppo", "network", "normalization")
"""What can be searched; the others say how long and how trials are compared, or decide nothing about learning."""
SAME_FOR_ALL = ("env.id", "rollout.num_workers")
"""Settings of these sections that trials have in common as well."""


class Limit(NamedTuple):
    """A metric at which a trial has gone far enough.

    Attributes:
        key: of the metric.
        value: that ends a trial.
        at_least: whether it is reached from below; else from above.
    """

    key: str
    value: float
    at_least: bool

    def reached(self, result: Mapping[str, Any]) -> bool:
        """Whether a row of metrics is there."""
        value = result.get(self.key)
        return value is not None and (value >= self.value if self.at_least else value <= self.value)


class SearchSpace(NamedTuple):
    """What a file says of a search.

    Attributes:
        space: what is varied.
        metric: that trials are compared by.
        mode: max or min.
        stop: what ends a trial early, whatever the others do.
        asha: grace_period (env steps; None: a ninth of the total) and reduction_factor.
        pbt: perturbation_interval (env steps; None: a tenth of the total), quantile_fraction and resample_probability.
    """

    space: Space
    metric: str
    mode: str
    stop: tuple[Limit, ...]
    asha: Mapping[str, float | None]
    pbt: Mapping[str, float | None]


class Number(NamedTuple):
    """A number of a scheduler's: its default and its range."""

    default: float | None
    low: float
    high: float


SCHEDULERS = {
    "asha": {"grace_period": Number(None, 1, 2**63), "reduction_factor": Number(3, 1.5, 100)},
    "pbt": {
        "perturbation_interval": Number(None, 1, 2**63),
        "quantile_fraction": Number(0.25, 0.01, 0.5),
        "resample_probability": Number(0.25, 0, 1),
    },
}


def read_search_space(path: str | Path) -> SearchSpace:
    """Returns what the file says.

    Raises:
        ConfigError: with a line for each thing that is wrong, with its place.
    """
    content, problems = read_placed(path)
    reader = _Reader(str(path), problems)
    found = reader.search_space(content)
    raise_problems(reader.problems)
    return found


def restored_settings(plain: Mapping[str, Any]) -> Settings:
    """Returns searched settings from JSON as they are in a Config: lists become tuples and so on.

    Raises:
        ValueError: there is no such setting, or its value is not right.
    """
    found: Settings = {}
    for key, value in plain.items():
        field = find_field(key)
        if field is None:
            raise ValueError(f"no setting {shortened(key)}")
        found[key] = _value(field, value)
    return found


class _Refused(Exception):
    """A part of the file is wrong; carries the Problem."""

    def __init__(self, problem: Problem) -> None:
        super().__init__(problem.message)
        self.problem = problem


class _Reader:
    """Goes through one file and collects what is wrong with it."""

    def __init__(self, path: str, problems: list[Problem]) -> None:
        self.path, self.problems = path, problems
        self._parameters: dict[str, Parameter] = {}

    def search_space(self, content: Placed) -> SearchSpace:
        parts: dict[str, Placed] = {}
        with self._collected():
            parts = self._entries(content, f"must hold {', '.join(PARTS)}")
            self._require_known(parts, PARTS, "")
        with self._collected():
            for section, node in self._entries(parts.get("space"), "space must hold sections, as a configuration does").items():
                with self._collected():
                    for name, setting in self._entries(node, f"{section} is a section; its settings stand below it").items():
                        self._setting(f"{section}.{name}", setting)
        if not self._parameters and not self.problems:
            self.problems.append(Problem(parts.get("space", content).place, "space is empty: there is nothing to search"))
        metric, mode, limits = DEFAULT_METRIC, MODES[0], []
        with self._collected():
            metric = self._metric(parts["metric"], "metric") if "metric" in parts else metric
        with self._collected():
            mode = self._mode(parts["mode"]) if "mode" in parts else mode
        with self._collected():
            for name, node in self._entries(parts.get("stop"), "stop must hold metrics").items():
                with self._collected():
                    limits.append(self._limit(name, node))
        asha, pbt = (self._numbers(scheduler, parts.get(scheduler)) for scheduler in SCHEDULERS)
        return SearchSpace(Space(tuple(self._parameters.values())), metric, mode, tuple(limits), asha, pbt)

    def _setting(self, key: str, node: Placed) -> None:
        with self._collected():
            found = find_field(key)
            if found is None:
                _refuse(node, unknown_key(key).message)
            if key in SAME_FOR_ALL or found[0].section not in SECTIONS:
                instead = "--workers-per-trial sets it" if key == "rollout.num_workers" else "set it with --config or --set"
                _refuse(node, f"{key} is the same for all trials; {instead}")
            if found[0].kind is dict and found[1] is None and isinstance(node.value, dict) and not _is_distribution(node.value):
                for name, entry in node.value.items():
                    self._setting(f"{key}.{name}", entry)
            else:
                self._parameters[key] = self._parameter(key, found, node)

    def _parameter(self, key: str, field: tuple[Field, str | None], node: Placed) -> Parameter:
        if not isinstance(node.value, dict):
            fixed = f"; for a fixed value use --set {key}={shortened(node.value)}" if isinstance(node.value, str) else ""
            _refuse(node, f"{key} must have a distribution, as in {{choice: [...]}} or {{uniform: [low, high]}}{fixed}")
        self._require_known(node.value, (*DISTRIBUTIONS, "when"), f"{key}: ")
        named = [name for name in node.value if name != "when"]
        if len(named) != 1:
            _refuse(node, f"{key} must have one distribution of {', '.join(DISTRIBUTIONS)}, got {len(named)}")
        values = _values(key, field, named[0], node.value[named[0]])
        return Parameter(key, named[0], values, self._when(key, node.value.get("when")), node.place)

    def _when(self, key: str, node: Placed | None) -> dict[str, tuple[Any, ...]]:
        found: dict[str, tuple[Any, ...]] = {}
        for other, wanted in self._entries(node, f"{key}: when takes settings of this space and their values").items():
            before, field = self._parameters.get(other), find_field(other)
            if before is None or field is None:
                hint = did_you_mean(other, self._parameters) or "; it must stand in this space, before what depends on it"
                _refuse(wanted, f"{key} depends on {shortened(other)}, which is not searched{hint}")
            if before.distribution != "choice":
                _refuse(wanted, f"{key} depends on {other}, which is drawn by {before.distribution}: use choice there")
            raws = wanted.value if isinstance(wanted.value, list) else [wanted.value]
            values = []
            for raw in raws:
                with contextlib.suppress(ValueError):
                    values.append(_value(field, raw))
            if len(values) < len(raws) or any(value not in before.values for value in values):
                _refuse(wanted, f"{key} depends on {other} being {quoted(wanted.value)}, which is none of its choices")
            found[other] = tuple(values)
        return found

    def _limit(self, name: str, node: Placed) -> Limit:
        key = self._metric(Placed(name, node.place), "stop")
        value, at_least = node, True
        if isinstance(node.value, dict):
            if len(node.value) != 1 or not set(node.value) <= {"at_least", "at_most"}:
                _refuse(node, f"stop: {name} takes a number, {{at_least: number}} or {{at_most: number}}")
            ((word, value),) = node.value.items()
            at_least = word == "at_least"
        return Limit(key, _number(f"stop: {name}", value, Number(None, -1e300, 1e300)), at_least)

    def _numbers(self, scheduler: str, node: Placed | None) -> dict[str, float | None]:
        known = SCHEDULERS[scheduler]
        found: dict[str, float | None] = {name: number.default for name, number in known.items()}
        with self._collected():
            entries = self._entries(node, f"{scheduler} must hold {', '.join(known)}")
            self._require_known(entries, known, f"{scheduler}: ")
            for name in set(known) & set(entries):
                with self._collected():
                    found[name] = _number(f"{scheduler}.{name}", entries[name], known[name])
        return found

    def _metric(self, node: Placed, name: str) -> str:
        if node.value not in KEYS:
            hint = did_you_mean(str(node.value), KEYS) or "; docs/metrics.md lists all"
            _refuse(node, f"{name}: unknown metric {shortened(str(node.value))}{hint}")
        if name == "metric" and node.value == STEPS:
            _refuse(node, f"metric: {STEPS} is the same for all trials")
        return str(node.value)

    def _mode(self, node: Placed) -> str:
        if node.value not in MODES:
            _refuse(node, f"mode must be {' or '.join(MODES)}, got {quoted(node.value)}")
        return str(node.value)

    def _require_known(self, entries: Mapping[str, Placed], known: Collection[str], place: str) -> None:
        for name, node in entries.items():
            if name not in known:
                hint = did_you_mean(name, known) or f"; there are {', '.join(known)}"
                self.problems.append(Problem(node.place, f"{place}unknown key {shortened(name)}{hint}"))

    def _entries(self, node: Placed | None, wanted: str) -> dict[str, Placed]:
        if node is None:
            return {}
        if not isinstance(node.value, dict):
            _refuse(node, wanted)
        return node.value

    @contextlib.contextmanager
    def _collected(self) -> Iterator[None]:
        """Notes what is wrong in the block, and goes on behind it."""
        try:
            yield
        except _Refused as refused:
            self.problems.append(refused.problem)


def _values(key: str, field: tuple[Field, str | None], distribution: str, node: Placed) -> tuple[Any, ...]:
    if not isinstance(node.value, list) or not node.value:
        _refuse(node, f"{key}: {distribution} takes {'a list of values' if distribution == 'choice' else '[low, high]'}")
    try:
        values = [_value(field, raw) for raw in node.value]
    except WrongValue as error:
        _refuse(node, f"{key}{error.inside} {error}")
    if distribution != "choice":
        return _range(key, field, distribution, node, values)
    if len({repr(value) for value in values}) < len(values):
        _refuse(node, f"{key}: choice has a value twice")
    return tuple(values)


def _range(key: str, field: tuple[Field, str | None], distribution: str, node: Placed, values: list[Any]) -> tuple[Any, ...]:
    kinds = {int: ("int",), float: ("uniform", "loguniform")}
    suitable = DISTRIBUTIONS if field[1] is not None else (*kinds.get(field[0].kind, ()), "choice")
    if distribution not in suitable:
        _refuse(node, f"{key} cannot be drawn by {distribution}: use {' or '.join(suitable)}")
    numbers = all(isinstance(value, int | float) and not isinstance(value, bool) for value in values)
    if len(values) != 2 or not numbers or (distribution == "int" and not all(isinstance(value, int) for value in values)):
        _refuse(node, f"{key}: {distribution} takes two {'whole ' if distribution == 'int' else ''}numbers, [low, high]")
    low, high = values
    if low >= high:
        _refuse(node, f"{key}: {distribution} [{low}, {high}] is empty: the lower end comes first")
    if distribution == "loguniform" and low <= 0:
        _refuse(node, f"{key}: loguniform [{low}, {high}] must begin above 0")
    return low, high


def _value(field: tuple[Field, str | None], raw: Any) -> Any:
    return coerce(field[0], raw) if field[1] is None else coerce_entry(raw)


def _number(name: str, node: Placed, number: Number) -> float:
    try:
        value = coerce_entry(node.value)
    except ValueError:
        value = None
    if isinstance(value, bool) or not isinstance(value, int | float):
        _refuse(node, f"{name} must be a number, got {quoted(node.value)}")
    if not number.low <= value <= number.high:
        _refuse(node, f"{name} must be from {number.low:g} to {number.high:g}, got {quoted(value)}")
    return value


def _is_distribution(entries: Mapping[str, Placed]) -> bool:
    return any(name in DISTRIBUTIONS or name == "when" for name in entries)


def _refuse(node: Placed, message: str) -> NoReturn:
    raise _Refused(Problem(node.place, message))
