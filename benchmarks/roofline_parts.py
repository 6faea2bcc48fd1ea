"""What `roofline.py` times: each part of an iteration, and beside it the least that the machine could do it in."""

from __future__ import annotations

import contextlib
import math
import multiprocessing
import statistics
import time
from collections.abc import Callable, Iterator
from functools import partial
from typing import Any, NamedTuple

import gymnasium as gym
import mujoco
import numpy as np
from mujoco import rollout
from numba import njit

from distppo.algo.batch import Batch, Coefficients, OptimizerVectors
from distppo.algo.seeding import Purpose, env_seed
from distppo.collector import RolloutCollector
from distppo.config import Config
from distppo.envs import VectorStepper, make_env
from distppo.learner import Learner
from distppo.learner.steps import make_step
from distppo.models.architecture import resolved_network
from distppo.models.heads import environment_actions
from distppo.types import EnvSpec, PolicySnapshot, Rollout

CORES = 2
"""That training is held against."""
MODES = ("sync", "overlap")
LARGE = 1024
"""Rows and columns of a matrix that BLAS is at its best with."""
SEGMENT = 10
"""Env steps of a recorded piece of a trajectory; short enough that falling robots leave whole ones."""


class Segments(NamedTuple):
    """Pieces of real rollouts, to be replayed by physics alone.

    Attributes:
        states: [K, nstate] full physics at the start of each.
        warmstarts: [K, nv] the constraint solver's starting point there.
        controls: [K, SEGMENT * frame_skip, nu].
        frame_skip: physics steps of an env step.
    """

    states: np.ndarray
    warmstarts: np.ndarray
    controls: np.ndarray
    frame_skip: int

    @property
    def env_steps(self) -> int:
        return len(self.states) * SEGMENT


def random_action(env: gym.Env[Any, Any], generator: np.random.Generator) -> np.ndarray:
    """Draws an action as an untrained policy does: normal noise of std exp(-0.5), clipped and rescaled to the bounds."""
    noise = np.clip(generator.normal(0.0, math.exp(-0.5), env.action_space.shape), -1, 1)
    low, high = env.action_space.low, env.action_space.high
    return (low + (noise + 1) / 2 * (high - low)).astype(np.float32)


def record_segments(config: Config, count: int) -> tuple[mujoco.MjModel, Segments]:
    """Returns the environment's model and `count` segments of its rollouts with random actions, warm-started as they were."""
    env = make_env(config.env)[0].unwrapped
    generator = np.random.default_rng(config.run.seed)
    model, data, skip = env.model, env.data, env.frame_skip
    segments: list[tuple[np.ndarray, np.ndarray, np.ndarray]] = []
    env.reset(seed=config.run.seed)
    while len(segments) < count:
        state = np.empty(mujoco.mj_stateSize(model, mujoco.mjtState.mjSTATE_FULLPHYSICS))
        mujoco.mj_getState(model, data, state, mujoco.mjtState.mjSTATE_FULLPHYSICS)
        warmstart, controls, terminated = data.qacc_warmstart.copy(), [], False
        while len(controls) < SEGMENT * skip and not terminated:
            action = random_action(env, generator)
            terminated = env.step(action)[2]
            controls += [action] * skip
        if terminated:
            env.reset()
        else:
            segments.append((state, warmstart, np.array(controls, np.float64)))
    env.close()
    return model, Segments(*(np.array(part) for part in zip(*segments, strict=True)), skip)


def physics_loop(model: mujoco.MjModel, segments: Segments) -> Callable[[], object]:
    """Replays the segments with one call of mj_step an env step."""
    data = mujoco.MjData(model)

    def run() -> None:
        for state, warmstart, controls in zip(segments.states, segments.warmstarts, segments.controls, strict=True):
            mujoco.mj_setState(model, data, state, mujoco.mjtState.mjSTATE_FULLPHYSICS)
            data.qacc_warmstart[:] = warmstart
            for control in controls[:: segments.frame_skip]:
                data.ctrl[:] = control
                mujoco.mj_step(model, data, nstep=segments.frame_skip)

    return run


def physics_rollout(model: mujoco.MjModel, segments: Segments) -> Callable[[], object]:
    """Replays the segments inside MuJoCo, without Python between the steps."""
    data = mujoco.MjData(model)
    return partial(rollout.rollout, model, data, segments.states, segments.controls, initial_warmstart=segments.warmstarts)


def collectors(config: Config, workers: int) -> list[RolloutCollector]:
    """Returns the collectors that as many workers would have."""
    share = config.rollout.num_envs // workers
    make = partial(make_env, config.env)
    return [RolloutCollector(config, make, VectorStepper, first_env=i * share, num_envs=share) for i in range(workers)]


class BareEnvs:
    """The environments themselves, all wrappers taken off, doing what a collector's did: the same resets, the same actions.

    What a step costs depends on where a robot is; these are where the collector's were.
    """

    def __init__(self, config: Config, first_env: int, num_envs: int) -> None:
        made = [make_env(config.env) for _ in range(num_envs)]
        self._spec, self.envs, self._lengths = made[0][1], [env.unwrapped for env, _ in made], [0] * num_envs
        for index, env in enumerate(self.envs, first_env):
            env.reset(seed=env_seed(config.run.seed, Purpose.ENV_RESET, index, 0))

    def prepared(self, fragment: np.ndarray) -> Callable[[], None]:
        """Returns a function that steps through a fragment, given the policy's actions in it [T, N, A]; the one after the last."""
        steps, envs, _ = fragment.shape
        flat = environment_actions(self._spec, steps * envs)(fragment.reshape(steps * envs, -1))
        actions = flat.reshape(steps, envs, *self._spec.action_shape).copy()
        lengths, limit = self._lengths, self._spec.max_episode_steps

        def run() -> None:
            for row in actions:
                for n, env in enumerate(self.envs):
                    _, _, terminated, truncated, _ = env.step(row[n])
                    lengths[n] += 1
                    if terminated or truncated or lengths[n] == limit:
                        env.reset()
                        lengths[n] = 0

        return run


class Iteration:
    """One core's worth of training: collects with every collector in turn, then learns."""

    def __init__(self, config: Config, workers: int) -> None:
        self._collectors = collectors(config, workers)
        share = config.rollout.num_envs // workers
        self._bare = [BareEnvs(config, i * share, share) for i in range(workers)]
        self.spec: EnvSpec = self._collectors[0].spec
        self._learner = Learner(config, self.spec)
        self._learner.warm_up()
        self._snapshot: PolicySnapshot = self._learner.snapshot()
        self._rollouts: list[Rollout] = []
        self._played: list[list[np.ndarray]] = []
        self._number = 0

    def collect(self) -> None:
        self._rollouts = [collector.collect(self._snapshot, self._number) for collector in self._collectors]
        self._number += 1
        self._played.append([rollout.actions.copy() for rollout in self._rollouts])

    def follower(self) -> tuple[Callable[[], None], int]:
        """Returns what has the bare environments do all that was collected since the last time, and how many iterations that is."""
        played, self._played = self._played, []
        parts = [bare.prepared(fragment) for fragments in played for bare, fragment in zip(self._bare, fragments, strict=True)]

        def follow() -> None:
            for part in parts:
                part()

        return follow, len(played)

    def update(self) -> None:
        self._snapshot, _ = self._learner.update(*self._rollouts)


class Layer(NamedTuple):
    """A layer of the actor or the critic.

    Attributes:
        inputs: width below.
        outputs: width.
        first: nothing below it wants a gradient.
    """

    inputs: int
    outputs: int
    first: bool

    def flop(self, samples: int) -> float:
        """Returns the floating-point operations of its products, forward and backward."""
        return (2.0 if self.first else 3.0) * 2 * self.inputs * self.outputs * samples


def layers(config: Config, spec: EnvSpec) -> Iterator[Layer]:
    """Yields every layer of actor and critic; a shared trunk once."""
    trunk = [spec.observation_size, *(resolved_network(spec, config.network).hidden_sizes or ())]
    for head in (spec.action_outputs, 1):
        if not (config.network.shared and head == 1):
            yield from (Layer(trunk[i], trunk[i + 1], i == 0) for i in range(len(trunk) - 1))
        yield Layer(trunk[-1], head, len(trunk) == 1)


@njit
def _products(weights, inputs, deltas, outputs, weight_gradients, input_gradients, first, repeats):
    for _ in range(repeats):
        np.dot(weights, inputs, outputs)
        np.dot(deltas, inputs.T, weight_gradients)
        if not first:
            np.dot(weights.T, deltas, input_gradients)


def products(layer: Layer, samples: int, repeats: int) -> Callable[[], object]:
    """Does the matrix products of a layer, forward and backward, `repeats` times, as the fused kernel calls BLAS."""
    generator = np.random.default_rng(0)
    inputs, outputs = layer.inputs, layer.outputs
    shapes = [(outputs, inputs), (inputs, samples), (outputs, samples), (outputs, samples), (outputs, inputs), (inputs, samples)]
    return partial(_products, *(generator.standard_normal(shape, np.float32) for shape in shapes), layer.first, repeats)


def epoch(config: Config, spec: EnvSpec, samples: int) -> Callable[[], object]:
    """Returns one epoch of gradient steps, on one thread, over `samples` random samples."""
    generator = np.random.default_rng(0)
    ppo = config.ppo
    vectors = OptimizerVectors(*(Learner(config, spec).snapshot().parameters * factor for factor in (1.0, 0.0, 0.0)))
    columns = [generator.standard_normal(samples, np.float32) for _ in range(5)]
    observations = generator.standard_normal((samples, spec.observation_size), np.float32)
    actions = generator.standard_normal((samples, spec.action_size), np.float32)
    batch = Batch(observations, actions, *columns)
    coefficients = Coefficients(
        learning_rate=0.0,
        clip_epsilon=ppo.clip_epsilon,
        penalized=float(ppo.objective == "spo"),
        entropy_coef=ppo.entropy_coef,
        value_loss_coef=ppo.value_loss_coef,
        value_clip=math.inf,
        max_grad_norm=ppo.max_grad_norm or math.inf,
        adam_epsilon=ppo.adam_epsilon,
        normalize_advantages=ppo.advantage_normalization == "minibatch",
    )
    step = make_step(config.learner, config.network, spec)
    permutation = generator.permutation(samples)
    return lambda: step.epoch(vectors, batch, permutation, ppo.mini_batch_size, coefficients)


def large_matrices(size: int) -> tuple[Callable[[], object], float]:
    """Returns the products of a layer of `size` units with `size` samples, and the floating-point operations of one call."""
    large = Layer(size, size, first=False)
    return products(large, size, 1), large.flop(size)


class AllCores:
    """A process a core, all of which do the same work at the same time: what the machine can do when it is busy.

    Args:
        config: whose environment is simulated.
        seconds: of a measurement.
    """

    def __init__(self, config: Config, seconds: float) -> None:
        context = multiprocessing.get_context("spawn")
        self._pipes = []
        for _ in range(CORES):
            ours, theirs = context.Pipe()
            context.Process(target=_serve, args=(theirs, config, seconds), daemon=True).start()
            self._pipes.append(ours)
        for pipe in self._pipes:
            pipe.recv()

    def measure(self, work: str) -> float:
        """Returns what all cores do in a second: env steps of "physics", floating-point operations of "matrices"."""
        for pipe in self._pipes:
            pipe.send(work)
        return sum(pipe.recv() for pipe in self._pipes)


def _serve(pipe: Any, config: Config, seconds: float) -> None:
    model, segments = record_segments(config, 50)
    matrices, flop = large_matrices(LARGE)
    works = {"physics": (physics_rollout(model, segments), float(segments.env_steps)), "matrices": (matrices, flop)}
    for work, _ in works.values():
        work()
    pipe.send(None)
    with contextlib.suppress(EOFError):
        while True:
            work, amount = works[pipe.recv()]
            pipe.send(amount * speed(work, seconds))


def speed(work: Callable[[], object], seconds: float) -> float:
    """Returns how often a second the work is done, from doing it for at least so long."""
    began, times = time.perf_counter(), 0
    while True:
        work()
        times += 1
        passed = time.perf_counter() - began
        if passed >= seconds:
            return times / passed


def budget(rounds: list[dict[str, float]], config: Config) -> str:
    """Returns where the time of an iteration goes, in milliseconds of a core: what physics and matrices need, and all above that."""
    batch, gradient_steps = config.batch_size, config.ppo.epochs * config.batch_size // config.ppo.mini_batch_size

    def cost(one: dict[str, float]) -> dict[str, float]:
        physics, bare, collector = (batch / one[name] for name in ("physics in mujoco.rollout", "the bare environment's step", "collector"))
        large, products, kernel, update = (
            gradient_steps / one[name] for name in ("large matrices", "the layers' own products", "gradient steps", "whole update")
        )
        parts = {
            "physics": physics,
            "matrix products at the speed of large ones": large,
            "the environment's Python around its physics": bare - physics,
            "the policy, normalization and books of the collector": collector - bare,
            "small matrices being slower than large ones": products - large,
            "activations, losses and Adam": kernel - products,
            "values, GAE and the rest of the update": update - kernel,
        }
        for mode in MODES:
            spent = CORES * batch / one[f"training, {mode}"]
            parts[f"{mode}: waiting, Ray, and cores slowing each other down"] = spent - collector - update
            parts[f"{mode}: fraction of what {CORES} cores would do, each as fast as one alone"] = (physics + large) / spent
            busy = batch / one["physics, all cores busy"] + gradient_steps / one["large matrices, all cores busy"]
            parts[f"{mode}: fraction of what {CORES} busy cores do"] = CORES * busy / spent
        return parts

    costs = [cost(one) for one in rounds]
    lines = ["| core milliseconds of an iteration | median |", "|---|---|"]
    for name in costs[0]:
        median = statistics.median(one[name] for one in costs)
        lines.append(f"| {name} | {f'{median:.0%}' if 'fraction' in name else f'{1e3 * median:,.0f}'} |")
    return "\n".join(lines)
