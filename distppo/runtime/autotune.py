"""`autotune`: measures how fast this machine trains with different layouts of the same job, by training with them for a moment each."""

from __future__ import annotations

import dataclasses
import math
import time
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

from distppo.config import Config
from distppo.errors import UserError
from distppo.runtime.backend import Backend, LocalBackend
from distppo.runtime.cores import available_cores
from distppo.runtime.faults import FaultLog
from distppo.runtime.signals import StopSignal
from distppo.types import EnvSpec

SECONDS = 60.0
"""For everything, by default."""
_SECONDS_EACH = 2.0
"""Of training in one layout, after its first iteration."""
_STEPS_IN_AN_ITERATION = 4096
"""Of a measurement, at most about: half a second to two seconds on a few cores, with MuJoCo's bodies."""
BETTER = 1.03
"""A layout is proposed in the place of the one that is configured if it is that many times as fast: less is noise."""


class Layout(NamedTuple):
    """How a job is laid out; what it computes stays the same size, num_envs x num_steps.

    Attributes:
        num_workers: processes that collect; 0 is one process without Ray.
        num_envs: environments of all together.
        mode: sync or overlap.
        threads: of the learner; None is auto.
    """

    num_workers: int
    num_envs: int
    mode: str
    threads: int | None


class Measurement(NamedTuple):
    """What a layout has reached.

    Attributes:
        layout: that was tried.
        fps: env steps a second, collection and updates together.
        step_name: of the learner's inner step.
    """

    layout: Layout
    fps: float
    step_name: str


def configured(config: Config) -> Layout:
    """Returns the layout of the settings as they are."""
    workers = config.rollout.num_workers
    workers = min(available_cores(), config.rollout.num_envs) if workers is None else workers
    return Layout(workers, config.rollout.num_envs, config.rollout.mode, config.learner.threads)


def with_layout(config: Config, layout: Layout) -> Config:
    """Returns the settings with a layout: as many steps an environment as keep the batch what it is."""
    rollout = dataclasses.replace(
        config.rollout,
        num_workers=layout.num_workers,
        num_envs=layout.num_envs,
        num_steps=config.batch_size // layout.num_envs,
        mode=layout.mode,
    )
    return dataclasses.replace(config, rollout=rollout, learner=dataclasses.replace(config.learner, threads=layout.threads))


def fits(config: Config, layout: Layout) -> bool:
    """Says whether the batch can be laid out so."""
    return config.batch_size % layout.num_envs == 0 and layout.num_workers <= layout.num_envs


def search(
    config: Config, measure: Callable[[Layout], Measurement | None], *, cores: int, threads: bool = True
) -> Iterator[tuple[Layout, Measurement | None]]:
    """Yields layouts and what they reached, the configured one first, until there is nothing left to try.

    One thing is changed at a time, from the best layout so far: where it runs, then the environments, then the learner's threads.

    Args:
        config: of the job.
        measure: returns what a layout reaches, or None where there is no time left or it does not work.
        cores: of this machine.
        threads: whether the learner's threads are to be tried.
    """
    first = configured(config)
    best = None
    tried: set[Layout] = set()

    def attempt(layouts: list[Layout]) -> Iterator[tuple[Layout, Measurement | None]]:
        nonlocal best
        for layout in layouts:
            if layout in tried or not fits(config, layout):
                continue
            tried.add(layout)
            found = measure(layout)
            if found is not None and (best is None or found.fps > best.fps):
                best = found
            yield layout, found

    yield from attempt([first])
    workers = sorted({cores, max(1, cores - 1)}, reverse=True)
    places = [first._replace(num_workers=count, mode=mode) for count in workers for mode in ("sync", "overlap")]
    yield from attempt([*places, first._replace(num_workers=0, mode="sync")])
    layout = best.layout if best else first
    yield from attempt([layout._replace(num_envs=layout.num_envs * 2), layout._replace(num_envs=max(1, layout.num_envs // 2))])
    layout = best.layout if best else first
    if threads:
        yield from attempt([layout._replace(threads=count) for count in range(1, min(cores, 2) + 1)])


class Tuner:
    """Tries layouts until its time is up.

    Args:
        config: of the job.
        env: its environment's spec.
        stop: asked during every wait.
        seconds: for everything.
    """

    def __init__(self, config: Config, env: EnvSpec, stop: StopSignal, seconds: float = SECONDS) -> None:
        self._config, self._env, self._stop = config, env, stop
        self._deadline = time.monotonic() + seconds
        self._longest = 0.0
        self._ray: Any = None
        self.failures: dict[Layout, str] = {}

    def __enter__(self) -> Tuner:
        return self

    def __exit__(self, *_: object) -> None:
        if self._ray is not None:
            self._ray.shutdown()

    def measure(self, layout: Layout) -> Measurement | None:
        """Returns what a layout reaches; None if there is no time left to try it, or it does not work here."""
        began = time.monotonic()
        if began + self._longest > self._deadline:
            return None
        try:
            return self._measure(layout)
        except UserError as error:
            self.failures[layout] = str(error)
            return None
        finally:
            self._longest = max(self._longest, time.monotonic() - began)

    def _measure(self, layout: Layout) -> Measurement:
        config = shortened(with_layout(self._config, layout))
        backend = self._backend(config)
        try:
            backend.wait_until_ready()
            iterations = training(backend, config)
            next(iterations)  # caches are cold, and in overlap mode nothing is collected yet
            steps, seconds = 0, 0.0
            while seconds < _SECONDS_EACH:
                seconds += next(iterations)
                steps += config.batch_size
            return Measurement(layout, steps / seconds, backend.step_name)
        finally:
            backend.close()

    def _backend(self, config: Config) -> Backend:
        """Returns the processes of a layout. Ray is started once for all of them: it takes longer than a measurement."""
        if config.rollout.num_workers == 0:
            return LocalBackend(config, self._env, first_iteration=0, restored=None, states=None, stop=self._stop)
        from distppo.runtime import cluster
        from distppo.runtime.ray_backend import RayBackend

        if self._ray is None:
            most = max(available_cores(), configured(self._config).num_workers)
            large = dataclasses.replace(self._config.rollout, num_workers=most)
            cluster.connect(dataclasses.replace(self._config, rollout=large), self._env, None, self._stop)
            self._ray = cluster.ray
        faults = FaultLog()
        return RayBackend(
            config, self._env, first_iteration=0, restored=None, states=None, address=None, stop=self._stop, faults=faults, alone=True
        )


def shortened(config: Config) -> Config:
    """Returns the settings with fragments a few times shorter where an iteration would take long; still of whole minibatches."""
    envs, size = config.rollout.num_envs, config.ppo.mini_batch_size
    least = size // math.gcd(size, envs)  # steps that fill whole minibatches
    longest = max(least, _STEPS_IN_AN_ITERATION // envs // least * least)
    if config.rollout.num_steps <= longest or config.rollout.num_steps % least:
        return config
    return dataclasses.replace(config, rollout=dataclasses.replace(config.rollout, num_steps=longest))


def training(backend: Backend, config: Config) -> Iterator[float]:
    """Trains, and yields the seconds that each iteration took; in overlap mode the next fragments are collected meanwhile."""
    overlap = config.rollout.mode == "overlap"
    snapshot: Any = backend.snapshot()
    pending = backend.collect(snapshot, 0)
    iteration = 0
    while True:
        began = time.perf_counter()
        backend.wait(pending)
        arrived, pending = pending, []
        if overlap:
            pending = backend.collect(snapshot, iteration + 1)
        snapshot, _ = backend.update(arrived)
        iteration += 1
        if not overlap:
            pending = backend.collect(snapshot, iteration)
        yield time.perf_counter() - began


def proposed(measurements: list[Measurement]) -> Measurement:
    """Returns what to use: the fastest, or the first, as configured, where that is as fast."""
    best = max(measurements, key=lambda each: each.fps)
    return best if best.fps >= BETTER * measurements[0].fps else measurements[0]
