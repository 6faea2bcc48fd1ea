"""What a search varies: settings with their distributions, drawn, varied and conditioned on each other. Numbers alone, without Ray."""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np

from distppo.algo.seeding import Purpose, stream

DISTRIBUTIONS = ("uniform", "loguniform", "int", "choice")
DIGITS = 4
"""Significant digits of drawn numbers: more would say nothing, and best.yaml is for people."""
PERTURBATIONS = (0.8, 1.25)
"""Factors by which population-based training varies a number (Jaderberg et al. 2017 use 0.8 and 1.2)."""

Settings = dict[str, Any]
"""Values of searched settings by their dotted key."""


class Parameter(NamedTuple):
    """A setting that is searched.

    Attributes:
        key: dotted, as in ppo.learning_rate.
        distribution: one of DISTRIBUTIONS.
        values: lowest and highest of a range, both included; of `choice` all there are.
        when: other searched settings, and the values of theirs with which this one is searched; without them it is as configured.
        place: file:line:column.
    """

    key: str
    distribution: str
    values: tuple[Any, ...]
    when: Mapping[str, tuple[Any, ...]]
    place: str

    def is_active(self, settings: Mapping[str, Any]) -> bool:
        """Whether it is searched beside these values of those before it."""
        return all(key in settings and settings[key] in allowed for key, allowed in self.when.items())

    def at(self, position: float) -> Any:
        """Returns the value at a position in [0, 1) of the distribution."""
        if self.distribution == "choice":
            return self.values[int(position * len(self.values))]
        low, high = self.values
        if self.distribution == "int":
            return low + int(position * (high - low + 1))
        if self.distribution == "loguniform":
            return self.within(math.exp(math.log(low) + position * (math.log(high) - math.log(low))))
        return self.within(low + position * (high - low))

    def within(self, number: float) -> Any:
        """Returns a number brought into the range and to a few digits."""
        low, high = self.values
        value = round(number) if self.distribution == "int" else float(f"{number:.{DIGITS}g}")
        return min(max(value, low), high)

    def varied(self, value: Any, rng: np.random.Generator, resample_probability: float) -> Any:
        """Returns another value near this one: a neighbour of a choice, else 0.8 or 1.25 times it; or one drawn anew."""
        if self.distribution == "choice":
            place = self.values.index(value) if value in self.values else None
            if place is None or rng.random() < resample_probability:
                return self.at(rng.random())
            return self.values[min(max(place + int(rng.choice((-1, 1))), 0), len(self.values) - 1)]
        if rng.random() < resample_probability:
            return self.at(rng.random())
        moved = self.within(value * float(rng.choice(PERTURBATIONS)))
        if self.distribution == "int" and moved == value:  # a small one would otherwise never move
            moved = self.within(value + int(rng.choice((-1, 1))))
        return moved


class Space(NamedTuple):
    """All that a search varies; a parameter comes after those that it depends on."""

    parameters: tuple[Parameter, ...]

    def settings(self, pick: Callable[[Parameter], Any]) -> Settings:
        """Returns what `pick` says for each parameter that is active beside those before it."""
        chosen: Settings = {}
        for parameter in self.parameters:
            if parameter.is_active(chosen):
                chosen[parameter.key] = pick(parameter)
        return chosen

    def drawn(self, seed: int, number: int) -> Settings:
        """Returns the settings of a trial, which depend on (seed, number) alone."""
        positions = stream(seed, Purpose.TRIAL_SETTINGS, number).random(len(self.parameters))
        by_key = {parameter.key: float(position) for parameter, position in zip(self.parameters, positions, strict=True)}
        return self.settings(lambda parameter: parameter.at(by_key[parameter.key]))

    def perturbed(self, settings: Mapping[str, Any], mutable: Callable[[str], bool], rng: np.random.Generator, resample: float) -> Settings:
        """Returns the settings with those that are mutable varied, each by itself."""

        def pick(parameter: Parameter) -> Any:
            if parameter.key not in settings:
                return parameter.at(rng.random())
            value = settings[parameter.key]
            return parameter.varied(value, rng, resample) if mutable(parameter.key) else value

        return self.settings(pick)

    def corners(self, most: int) -> Iterator[Settings]:
        """Yields the combinations of choices and of the ends of whole-number ranges, a sample of `most` where there are more."""
        ends = [each.values if each.distribution in ("choice", "int") else each.values[:1] for each in self.parameters]
        combinations: Iterable[Sequence[Any]] = itertools.product(*ends)
        if math.prod(map(len, ends)) > most:
            rng = np.random.default_rng(0)
            combinations = ([values[rng.integers(len(values))] for values in ends] for _ in range(most))
        for combination in combinations:
            by_key = {parameter.key: value for parameter, value in zip(self.parameters, combination, strict=True)}
            yield self.settings(lambda parameter, by_key=by_key: by_key[parameter.key])  # type: ignore[misc]
