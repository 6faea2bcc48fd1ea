"""The records that cross module and process borders: data only.

Letters used everywhere: T steps of a fragment, N environments of a worker, W workers, B = T*N*W samples of a batch,
M samples of a minibatch, *S observation shape, A action size.
"""

from __future__ import annotations

import math
from typing import Any, NamedTuple

import numpy as np

from distppo.config.schema import NetworkConfig


class Moments(NamedTuple):
    """Count, mean and sum of squared deviations of samples with shape [*S], in float64.

    A leading axis (one entry per environment) is allowed as long as all three have it.

    Attributes:
        count: [...] number of samples.
        mean: [..., *S] their mean.
        m2: [..., *S] sum of squared deviations from the mean.
    """

    count: np.ndarray  # type: ignore[assignment]  # the field's word, at the price of tuple.count
    mean: np.ndarray
    m2: np.ndarray


class EnvSpec(NamedTuple):
    """What the networks and the collector need to know of an environment; plain values, so it also goes into checkpoints.

    Actions are either continuous (`action_choices` is empty) or each of the A numbers is one of so many choices.

    Attributes:
        id: Gymnasium id.
        observation_shape: *S.
        action_shape: shape of the action the environment takes; the networks see it flat, A numbers.
        action_low: A floats, bounds the environment accepts; -inf where it has none. Empty where actions are choices.
        action_high: A floats, likewise.
        max_episode_steps: env steps after which an episode is truncated; None: never by time.
        observation_dtype: numpy's name for the observations' type; uint8 ones may be images.
        action_choices: number of choices of each of the A actions; empty where actions are continuous.
        action_start: A whole numbers, what the environment calls the first choice of each; empty where actions are continuous.
        observation_parts: what is flattened to one observation, as `distppo.models.structured` reads it; empty where the environment's
            observations are arrays already, or are stacked.
    """

    id: str
    observation_shape: tuple[int, ...]
    action_shape: tuple[int, ...]
    action_low: tuple[float, ...]
    action_high: tuple[float, ...]
    max_episode_steps: int | None
    observation_dtype: str = "float64"
    action_choices: tuple[int, ...] = ()
    action_start: tuple[int, ...] = ()
    observation_parts: tuple[Any, ...] = ()

    @property
    def observation_size(self) -> int:
        """Numbers in one observation."""
        return math.prod(self.observation_shape)

    @property
    def action_size(self) -> int:
        """A, numbers in one action."""
        return math.prod(self.action_shape)

    @property
    def action_outputs(self) -> int:
        """K, numbers that a policy says of an action: A means, or a logit for every choice of every action."""
        return sum(self.action_choices) or self.action_size


class ParameterSlot(NamedTuple):
    """Where one named parameter lies in the flat vector: `vector[offset : offset + prod(shape)].reshape(shape)`."""

    name: str
    shape: tuple[int, ...]
    offset: int


class PolicySpec(NamedTuple):
    """Everything about a policy that does not change during a run.

    Attributes:
        env: the environment it acts in.
        network: settings without anything left to `auto`.
        layout: slots of the flat parameter vector, in order.
        observation_clip: normalized observations are clipped to +-this; None: observations are not normalized at all.
    """

    env: EnvSpec
    network: NetworkConfig
    layout: tuple[ParameterSlot, ...]
    observation_clip: float | None


class PolicySnapshot(NamedTuple):
    """All a worker needs to act, immutable, sent once an iteration.

    Attributes:
        version: number of updates behind these weights.
        parameters: [P] float32, every parameter of the networks, laid out by `spec.layout`.
        obs_moments: of all observations learned from so far; count 0 means "do not normalize yet".
        spec: the unchanging part.
    """

    version: int
    parameters: np.ndarray
    obs_moments: Moments
    spec: PolicySpec


class EnvCapture(NamedTuple):
    """One environment's own state between two steps: numbers and JSON values, nothing that could run.

    Attributes:
        arrays: its arrays by name.
        values: the rest, as JSON values that refer to the arrays by their names.
        obstacle: why it cannot be captured; None: `arrays` and `values` hold it exactly.
    """

    arrays: dict[str, np.ndarray]
    values: dict[str, Any]
    obstacle: str | None


class EnvStates(NamedTuple):
    """Consecutive environments of a run between two fragments: with the snapshot and the iteration, all that decides the next one.

    Attributes:
        first_env: global index of environment n = 0.
        observations: [N, *S] float64 (images uint8), raw: what the next action is chosen from.
        lengths: [N] int64, env steps of the running episodes.
        returns: [N] float64, sums of their raw rewards.
        discounted_returns: [N] float64, G_t of the running episodes.
        captures: N of them, the environments themselves.
    """

    first_env: int
    observations: np.ndarray
    lengths: np.ndarray
    returns: np.ndarray
    discounted_returns: np.ndarray
    captures: tuple[EnvCapture, ...]


class FlightRecord(NamedTuple):
    """What led to a fault of one environment: enough to make it happen again.

    Attributes:
        env: its global index.
        iteration: of the fragment.
        step: timestep t inside the fragment at which it happened.
        states: the environment alone, before the fragment; None if it could not be captured.
        reset_seed: what it was reset with where `states` is None; None: it was in the middle of an episode.
        observations: [K, *S] float64 (images uint8), raw, the last ones before the fault.
        actions: [t+1, *action shape] float32 or int64, all it was given in this fragment, as it takes them.
        traceback: of the exception; empty where there was none.
    """

    env: int
    iteration: int
    step: int
    states: EnvStates | None
    reset_seed: int | None
    observations: np.ndarray
    actions: np.ndarray
    traceback: str


class FaultEvent(NamedTuple):
    """Something that went wrong and what was done about it. One that is told this way did not end the run.

    Attributes:
        kind: what, a key of `FAULTS` in `distppo.metrics.keys`.
        where: environments or process, for people.
        why: the reason; may have several lines.
        done: what was done about it.
        times: how many it stands for, such as environments.
        record: for the flight recorder, or None.
    """

    kind: str
    where: str
    why: str
    done: str
    times: int = 1
    record: FlightRecord | None = None


class Receipt(NamedTuple):
    """What the driver hears of a fragment: small, since it goes there every iteration.

    Attributes:
        states: the worker's environments after the fragment, which are those before its next one.
        faults: met while it was collected, in order.
    """

    states: EnvStates
    faults: tuple[FaultEvent, ...]


class EpisodeStats(NamedTuple):
    """One finished episode.

    Attributes:
        env_index: global index of the environment.
        step: timestep t inside the fragment at which it ended.
        episode_return: sum of raw rewards, undiscounted.
        length: env steps.
        terminated: True if it ended by termination, False by truncation.
    """

    env_index: int
    step: int
    episode_return: float
    length: int
    terminated: bool


class FinalObservations(NamedTuple):
    """What the truncated episodes of a fragment really ended in, as the policy would have seen it.

    Attributes:
        steps: [K] int64, timestep t of the truncation.
        envs: [K] int64, environment n inside the fragment.
        observations: [K, *S] of the rollout's dtype.
    """

    steps: np.ndarray
    envs: np.ndarray
    observations: np.ndarray


class Rollout(NamedTuple):
    """One fragment: T steps of a worker's N environments. Arrays may be read-only (object store).

    Time indexing: `observations[t]` is what `actions[t]` was chosen from; `rewards[t]`, `terminations[t]` and
    `truncations[t]` are what the environment answered to it.

    Attributes:
        version: of the snapshot it was collected with.
        iteration: it was collected for.
        first_env: global index of environment n = 0; rollouts are sorted by it before learning.
        observations: [T+1, N, *S] float32, or uint8 for images, exactly as the policy saw them; the last row is the state after the
            fragment.
        actions: [T, N, A] float32, as sampled, before clipping and rescaling; the number of the choice where actions are choices.
        log_probs: [T, N] float32, of those actions under the snapshot's policy, nats.
        rewards: [T, N] float32, raw.
        terminations: [T, N] bool.
        truncations: [T, N] bool; never True where terminations is.
        final_observations: of the truncated episodes.
        obs_moments: [N] moments of this fragment's raw observations alone, t = 0..T-1; of images the count only, mean and m2 are [N].
        return_moments: [N] moments of the running discounted return, t = 0..T-1.
        episodes: that ended in this fragment, in the order (t, n).
        seconds: wall time of the collection.
    """

    version: int
    iteration: int
    first_env: int
    observations: np.ndarray
    actions: np.ndarray
    log_probs: np.ndarray
    rewards: np.ndarray
    terminations: np.ndarray
    truncations: np.ndarray
    final_observations: FinalObservations
    obs_moments: Moments
    return_moments: Moments
    episodes: tuple[EpisodeStats, ...]
    seconds: float
