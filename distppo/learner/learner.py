"""The central learner: turns an iteration's rollouts into new weights, and owns the whole truth of a run."""

from __future__ import annotations

import hashlib
import math
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any, NamedTuple

import numpy as np
import torch

from distppo.algo.batch import EMPTY_STATS, Batch, Coefficients, EpochStats, OptimizerVectors
from distppo.algo.diagnostics import explained_variance, ratio_error
from distppo.algo.gae import gae
from distppo.algo.moments import empty_moments, merge, merge_all, moments_of, standard_deviation
from distppo.algo.schedules import kl_adapted_rate, scheduled_rate
from distppo.algo.seeding import Purpose, env_seed, stream
from distppo.config.schema import Config
from distppo.errors import UserError
from distppo.learner.fragments import Fragments, join_rollouts
from distppo.learner.group import LearnerGroup
from distppo.learner.steps import learner_device, make_step
from distppo.models.actor_critic import split_parameters
from distppo.models.architecture import moments_shape, policy_input, policy_spec, resolved_network
from distppo.models.layout import parameter_views
from distppo.models.torch_policy import make_network, starting_parameters
from distppo.types import EnvSpec, FaultEvent, Moments, PolicySnapshot, Rollout

RATIO_TOLERANCE = 1e-2
"""Largest |ratio - 1| before the first gradient step that float32 can explain; beyond it, learner and workers hold different policies."""
LEAST_LOG_STD = -9.0
"""Log standard deviation below which float32's rounding of an action may change its probability by more than that."""
RATIO_SAMPLE = 512
LOG_WEIGHT_BOUND = 1.0
"""Importance weights of stale data stay within [1/e, e]."""
DROPPED_IN_A_ROW = 5
"""Updates without effect, one after the other, that `fault.on_nonfinite: drop` puts up with: then the run stands still."""
SAMPLES_A_PASS = 1024
"""Of images through a network at once: a Nature CNN's activations of so many take about 100 MB."""
THREADED_WORK = 2**24
"""Parameters x minibatch size from which threads pay that share out samples: about a millisecond of arithmetic, against 0.1 ms for that."""
TOWERS_WORK = 2**17
"""The same for two threads with a tower each, actor and critic: about 10 us, against 3 us."""


class Targets(NamedTuple):
    """What the current critic says of an iteration, in units of scaled reward.

    Attributes:
        values: [T, N] V(s_t).
        advantages: [T, N].
        returns: [T, N] lambda-returns, A + V.
    """

    values: np.ndarray
    advantages: np.ndarray
    returns: np.ndarray


class Kept(NamedTuple):
    """What an update changes, as it was before."""

    vectors: OptimizerVectors
    value_moments: Moments
    learning_rate: float


class Learner:
    """PPO on one iteration at a time.

    Args:
        config: of the run.
        env: spec of its environment.
        cores: that are free while it works; used where learner.threads is auto and the minibatches are large enough to share out.
        before_epoch: called before each pass over the batch.
        group: of learners that it shares every minibatch with, each with the same batch; None: it is alone.

    Attributes:
        threads: of the step's arithmetic.
    """

    def __init__(
        self,
        config: Config,
        env: EnvSpec,
        *,
        cores: int = 1,
        before_epoch: Callable[[], None] = lambda: None,
        group: LearnerGroup | None = None,
    ) -> None:
        self.config = config
        self._before_epoch, self._group = before_epoch, group
        self.version = 0
        self.env_steps = 0
        self._epochs_done = 0
        self._dropped_in_a_row = 0
        self._faults: list[FaultEvent] = []
        self._learning_rate = config.ppo.learning_rate
        network = resolved_network(env, config.network)
        self._network = make_network(env, network)
        self._spec = policy_spec(config, env, self._network.layout)
        self._input_shape, self._input_dtype = policy_input(env, network)
        self._is_mlp = network.class_ is None and network.torso == "mlp"
        # An MLP's passes are over before a GPU has the data.
        self._pass_device = torch.device("cpu") if self._is_mlp else learner_device(config.learner.device)
        parameters = starting_parameters(env, network, env_seed(config.run.seed, Purpose.NETWORK_INIT))
        self._vectors = OptimizerVectors(parameters, np.zeros_like(parameters), np.zeros_like(parameters))
        samples = config.ppo.mini_batch_size // config.learner.num_learners
        work = len(parameters) * samples if self._is_mlp else THREADED_WORK
        self.threads = threads = config.learner.threads or _worthwhile_threads(cores, work, separate=not config.network.shared)
        torch.set_num_threads(threads if config.learner.threads or work >= THREADED_WORK else 1)
        self._step = make_step(config.learner, config.network, env, threads, group)
        self._moments = {
            "obs_moments": empty_moments(moments_shape(env, network)),
            "return_moments": empty_moments(()),
            "value_moments": empty_moments(()),
        }

    @property
    def step_name(self) -> str:
        """Which implementation of the inner step runs: fused, torch or compiled."""
        return self._step.name

    def warm_up(self) -> None:
        """Compiles what an update needs, on zeros, so that the first one does not wait; changes nothing."""
        size, env = self.config.ppo.mini_batch_size, self._spec.env
        zeros, flags = np.zeros((2, 1), np.float32), np.zeros((2, 1), bool)
        gae(zeros, zeros, zeros, flags, flags, gamma=0.0, gae_lambda=0.0)
        column = np.zeros(size, np.float32)
        batch = Batch(
            observations=np.zeros((size, *self._input_shape), self._input_dtype),
            actions=np.zeros((size, env.action_size), np.float32),
            log_probs=column,
            advantages=column,
            returns=column,
            values=column,
            previous_log_probs=column.copy(),
        )
        parameters = self._vectors.parameters
        vectors = OptimizerVectors(parameters.copy(), np.zeros_like(parameters), np.zeros_like(parameters))
        with _flushed_denormals():  # the threads that the first epoch starts take it over
            self._step.epoch(vectors, batch, np.arange(size), size, self._coefficients())

    def snapshot(self) -> PolicySnapshot:
        """Returns the current policy as a value of its own."""
        return PolicySnapshot(self.version, self._vectors.parameters.copy(), self._moments["obs_moments"], self._spec)

    def update(self, *rollouts: Rollout) -> tuple[PolicySnapshot, dict[str, float]]:
        """Learns from one iteration.

        Args:
            rollouts: one per worker, in any order; together they hold every environment once.

        Returns:
            The next snapshot and this update's metrics, keyed as in docs/metrics.md.

        Raises:
            UserError: a loss, a gradient or a weight was not finite, and fault.on_nonfinite is raise, or it has been so for too long. The
                learner is then not to be used again.
        """
        with _flushed_denormals():
            return self._update(rollouts)

    def _update(self, rollouts: Sequence[Rollout]) -> tuple[PolicySnapshot, dict[str, float]]:
        started = time.perf_counter()
        waited = self._group.waited if self._group else 0.0
        staleness = self._staleness(rollouts)
        fragments = join_rollouts(rollouts, num_envs=self.config.rollout.num_envs, version=self.version - staleness)
        reward_scale = self._merge_returns(fragments)
        rewards = fragments.rewards / np.float32(reward_scale)
        targets = self._targets(fragments, rewards)
        batch, weights = self._batch(fragments), None
        if staleness == 0:
            error = self._ratio_error(batch)
        else:
            stale, (batch, weights) = batch, self._decoupled(batch)
            error = ratio_error(batch.log_probs, stale.log_probs)
        kept = self._kept()
        stats, epochs = self._run_epochs(batch, fragments, rewards, targets, weights)
        if self._diverged(stats):
            self._drop_update(stats, kept)
            epochs = 0
        else:
            self._dropped_in_a_row = 0
        self._moments["obs_moments"] = merge_all(self._moments["obs_moments"], fragments.obs_moments)
        self.version += 1
        self.env_steps += rewards.size
        self._epochs_done += epochs
        metrics = self._metrics(stats, targets, epochs) | {
            "dist/ratio_error": error,
            "dist/staleness": float(staleness),
            "dist/reward_scale": reward_scale,
            "dist/learner_seconds": time.perf_counter() - started,
        }
        if self._group is not None:
            metrics["dist/exchange_seconds"] = self._group.waited - waited
        return self.snapshot(), metrics

    def state(self) -> tuple[dict[str, np.ndarray], dict[str, Any]]:
        """Returns everything a run is, as (arrays, plain values): with it and the rollouts to come, training continues bit for bit."""
        arrays = {
            "parameters": self._vectors.parameters.copy(),
            "adam/first_moment": self._vectors.first_moment.copy(),
            "adam/second_moment": self._vectors.second_moment.copy(),
        }
        for name, moments in self._moments.items():
            arrays |= {f"{name}/{field}": np.asarray(value) for field, value in moments._asdict().items()}
        values = {
            "version": self.version,
            "env_steps": self.env_steps,
            "epochs_done": self._epochs_done,
            "gradient_steps": self._vectors.gradient_steps,
            "learning_rate": self._learning_rate,
            "dropped_in_a_row": self._dropped_in_a_row,
        }
        return arrays, values

    def digest(self) -> str:
        """Returns a fingerprint of the state: equal for learners whose states have the same bits."""
        arrays, values = self.state()
        fingerprint = hashlib.blake2b(repr(sorted(values.items())).encode(), digest_size=16)
        for name in sorted(arrays):
            fingerprint.update(arrays[name].tobytes())
        return fingerprint.hexdigest()

    def load_state(self, arrays: Mapping[str, np.ndarray], values: Mapping[str, Any]) -> None:
        """Takes over what `state` returned.

        Raises:
            UserError: an array is missing or its shape belongs to another network or environment.
        """
        for name, mine in self.state()[0].items():
            if name not in arrays:
                raise UserError(f"the checkpoint has no array {name!r}")
            if arrays[name].shape != mine.shape:
                raise UserError(
                    f"the checkpoint's {name} has shape {arrays[name].shape}, this run's network and environment need {mine.shape}"
                )
            if arrays[name].dtype != mine.dtype:
                raise UserError(f"the checkpoint's {name} is {arrays[name].dtype}, not {mine.dtype}")
        self._vectors.parameters[...] = arrays["parameters"]
        self._vectors.first_moment[...] = arrays["adam/first_moment"]
        self._vectors.second_moment[...] = arrays["adam/second_moment"]
        self._vectors.gradient_steps = values["gradient_steps"]
        for name in self._moments:
            self._moments[name] = Moments(*(np.array(arrays[f"{name}/{field}"]) for field in Moments._fields))
        self.version, self.env_steps = values["version"], values["env_steps"]
        self._epochs_done, self._learning_rate = values["epochs_done"], values["learning_rate"]
        self._dropped_in_a_row = values.get("dropped_in_a_row", 0)  # 0: of a checkpoint that is older than this

    def _staleness(self, rollouts: Sequence[Rollout]) -> int:
        """Returns by how many versions the data is older than the weights: 0 in sync mode, at most 1 in overlap mode."""
        staleness = self.version - rollouts[0].version
        allowed = (0, 1) if self.config.rollout.mode == "overlap" else (0,)
        assert staleness in allowed, f"data of policy version {rollouts[0].version} reached the learner at version {self.version}"
        return staleness

    def _merge_returns(self, fragments: Fragments) -> float:
        """Merges the discounted returns and returns the std that rewards are divided by (1 where they are not)."""
        self._moments["return_moments"] = merge_all(self._moments["return_moments"], fragments.return_moments)
        if not self.config.normalization.rewards:
            return 1.0
        return float(standard_deviation(self._moments["return_moments"]))

    def _targets(self, fragments: Fragments, rewards: np.ndarray) -> Targets:
        ppo, final = self.config.ppo, fragments.final_observations
        values = self._values(fragments.observations)
        next_values = values[1:].copy()
        next_values[final.steps, final.envs] = self._values(final.observations)
        advantages = gae(
            rewards,
            values[:-1],
            next_values,
            fragments.terminations,
            fragments.truncations,
            gamma=ppo.gamma,
            gae_lambda=ppo.gae_lambda,
        )
        return Targets(values[:-1], advantages, advantages + values[:-1])

    def _values(self, observations: np.ndarray) -> np.ndarray:
        """Returns V of observations [..., *S] in units of scaled reward, [...] float32."""
        leading = observations.shape[: observations.ndim - len(self._spec.env.observation_shape)]
        values = self._in_passes(self._network.value, observations.reshape(-1, *self._input_shape))
        shift, scale = self._value_units()
        return (values * scale + shift).reshape(leading)

    def _in_passes(self, function: Callable[..., torch.Tensor], *arrays: np.ndarray) -> np.ndarray:
        """Returns function(parameters, *arrays) [n] of arrays [n, ...]: an MLP's in one pass, others' in parts that fit into memory.

        Several learners take turns with the parts, and then all have all of them.
        """
        total, group = len(arrays[0]), self._group
        size = max(1, total if self._is_mlp else SAMPLES_A_PASS)
        with torch.inference_mode():
            parameters = split_parameters(torch.from_numpy(self._vectors.parameters).to(self._pass_device), self._spec.layout)
            parts = [
                function(parameters, *(torch.from_numpy(array[start : start + size]).to(self._pass_device) for array in arrays)).cpu()
                if group is None or turn % group.size == group.rank
                else torch.zeros(min(size, total - start))
                for turn, start in enumerate(range(0, max(total, 1), size))
            ]
            result = torch.cat(parts)
            if group is not None:
                group.add(result)
        return np.asarray(result)

    def _value_units(self) -> tuple[np.float32, np.float32]:
        """Returns (shift, scale) with value = shift + scale x critic output."""
        if not self.config.normalization.values:
            return np.float32(0), np.float32(1)
        moments = self._moments["value_moments"]
        return np.float32(moments.mean), np.float32(standard_deviation(moments))

    def _batch(self, fragments: Fragments) -> Batch:
        """Returns the samples; advantages and returns are filled in by `_with_targets`, values by `_run_epochs`."""
        log_probs = fragments.log_probs.reshape(-1)
        observations = fragments.observations[:-1]
        empty = np.empty(0, np.float32)
        return Batch(
            observations=observations.reshape(-1, *self._input_shape),
            actions=fragments.actions.reshape(len(log_probs), -1),
            log_probs=log_probs,
            advantages=empty,
            returns=empty,
            values=empty,
            previous_log_probs=log_probs.copy(),
        )

    def _with_targets(self, batch: Batch, targets: Targets, weights: np.ndarray | None) -> Batch:
        """Returns the batch with these (weighted) advantages, and returns in the critic's units."""
        advantages = targets.advantages.reshape(-1)
        if weights is not None:
            advantages = advantages * weights
        if self.config.ppo.advantage_normalization == "batch":
            advantages = (advantages - advantages.mean()) / (advantages.std(ddof=1) + np.float32(1e-8))
        shift, scale = self._value_units()
        return batch._replace(advantages=advantages, returns=(targets.returns.reshape(-1) - shift) / scale)

    def _log_probs(self, observations: np.ndarray, actions: np.ndarray) -> np.ndarray:
        """Returns log-probs [n] of actions [n, A] under the current policy."""
        return self._in_passes(lambda p, o, a: self._network.distribution(p, o).log_prob(a), observations, actions)

    def _decoupled(self, batch: Batch) -> tuple[Batch, np.ndarray]:
        """Returns stale data as the decoupled objective takes it: ratios to the current policy, and weights [B] for the advantages.

        Hilton, Cobbe, Schulman: "Batch size-invariance for policy optimization" (2021), https://arxiv.org/abs/2110.00641. The weight
        pi_current / pi_behaviour is positive and constant in the update, so it can be part of the advantages.
        """
        current = self._log_probs(batch.observations, batch.actions)
        weights = np.exp(np.clip(current - batch.log_probs, -LOG_WEIGHT_BOUND, LOG_WEIGHT_BOUND))
        return batch._replace(log_probs=current, previous_log_probs=current.copy()), weights

    def _ratio_error(self, batch: Batch) -> float:
        """Checks on a sample that learner and workers act alike: before the first gradient step every ratio is 1.

        Raises:
            UserError: the standard deviation is so small that float32 does not tell the actions apart.
        """
        sample = slice(None, None, max(1, len(batch.log_probs) // RATIO_SAMPLE))
        log_probs = self._log_probs(batch.observations[sample], batch.actions[sample])
        error = ratio_error(log_probs, batch.log_probs[sample])
        log_std = parameter_views(self._vectors.parameters, self._spec.layout).get("log_std")
        if error >= RATIO_TOLERANCE and log_std is not None and log_std.min() < LEAST_LOG_STD:
            least = float(log_std.min())
            raise UserError(
                f"the policy's standard deviation has come to {math.exp(least):.1e} (log {least:.1f}), where rounding alone changes "
                f"the probabilities of actions, by {error:.0%}, and nothing can be learned any more: raise "
                "network.initial_log_std or ppo.entropy_coef, or lower ppo.learning_rate"
            )
        assert error < RATIO_TOLERANCE, f"ratio {1 + error:.4f} before the first gradient step: the workers acted with another policy"
        return error

    def _run_epochs(
        self, batch: Batch, fragments: Fragments, rewards: np.ndarray, targets: Targets, weights: np.ndarray | None
    ) -> tuple[EpochStats, int]:
        """Makes the shuffled passes; returns their sums and how many were made."""
        ppo = self.config.ppo
        if ppo.lr_schedule != "kl":
            self._learning_rate = scheduled_rate(ppo.lr_schedule, ppo.learning_rate, self.env_steps / self.config.run.total_timesteps)
        # What value_clip holds on to: the critic's own outputs, whatever its units become, and however often targets are computed anew.
        shift, scale = self._value_units()
        batch = batch._replace(values=(targets.values.reshape(-1) - shift) / scale)
        if self.config.normalization.values:
            self._moments["value_moments"] = merge(self._moments["value_moments"], moments_of(targets.returns.reshape(-1)))
        batch = self._with_targets(batch, targets, weights)
        shuffle = stream(self.config.run.seed, Purpose.MINIBATCHES, self.version)
        total = EMPTY_STATS
        for epoch in range(ppo.epochs):
            self._before_epoch()
            if epoch > 0 and ppo.recompute_advantages:
                batch = self._with_targets(batch, self._targets(fragments, rewards), weights)
            permutation = shuffle.permutation(len(batch.log_probs))
            stats = self._step.epoch(self._vectors, batch, permutation, ppo.mini_batch_size, self._coefficients())
            total = total.merged(stats)
            if self._diverged(stats):
                break
            if ppo.lr_schedule == "kl":
                self._learning_rate = kl_adapted_rate(self._learning_rate, stats.mean("pass_kl"), ppo.lr_schedule_kl)
            if ppo.target_kl is not None and stats.mean("approx_kl") > ppo.target_kl:
                break
        return total, epoch + 1

    def _coefficients(self) -> Coefficients:
        ppo = self.config.ppo
        return Coefficients(
            learning_rate=self._learning_rate,
            clip_epsilon=ppo.clip_epsilon,
            penalized=float(ppo.objective == "spo"),
            entropy_coef=ppo.entropy_coef,
            value_loss_coef=ppo.value_loss_coef,
            value_clip=math.inf if ppo.value_clip is None else ppo.value_clip,
            max_grad_norm=math.inf if ppo.max_grad_norm is None else ppo.max_grad_norm,
            adam_epsilon=ppo.adam_epsilon,
            normalize_advantages=ppo.advantage_normalization == "minibatch",
        )

    def _diverged(self, stats: EpochStats) -> bool:
        """Says whether a gradient was not finite, or what came of them is not: every sum over a vector shows what is in it."""
        vectors = self._vectors
        sums = (vectors.parameters.sum(), vectors.first_moment.sum(), vectors.second_moment.sum())
        return stats.skipped > 0 or not np.isfinite(sums).all()

    def _kept(self) -> Kept | None:
        """Returns copies of what an update changes, where it may have to be undone."""
        if self.config.fault.on_nonfinite == "raise":
            return None
        vectors = self._vectors
        copies = OptimizerVectors(
            vectors.parameters.copy(), vectors.first_moment.copy(), vectors.second_moment.copy(), vectors.gradient_steps
        )
        return Kept(copies, self._moments["value_moments"], self._learning_rate)

    def _drop_update(self, stats: EpochStats, kept: Kept | None) -> None:
        """Undoes an update that diverged. Its samples stay counted: they were collected, and they are finite."""
        self._dropped_in_a_row += 1
        what = f"update {self.version + 1} diverged: {int(stats.skipped)} of {int(stats.tried)} gradients were not finite"
        if kept is None or self._dropped_in_a_row > DROPPED_IN_A_ROW:
            before = "" if kept is None else f", and so did the {DROPPED_IN_A_ROW} before it"
            raise UserError(
                f"{what}{before}. The last checkpoint is intact; lower ppo.learning_rate or ppo.max_grad_norm, or turn on "
                "normalization.rewards" + (" (fault.on_nonfinite drop leaves out single updates)" if kept is None else "")
            )
        for mine, copy in zip(vars(self._vectors).values(), vars(kept.vectors).values(), strict=True):
            if isinstance(mine, np.ndarray):
                mine[...] = copy
        self._vectors.gradient_steps = kept.vectors.gradient_steps
        self._moments["value_moments"], self._learning_rate = kept.value_moments, kept.learning_rate
        done = f"weights and optimizer are as before it; {self._dropped_in_a_row} in a row of {DROPPED_IN_A_ROW} that are put up with"
        self._faults.append(FaultEvent("update_skipped", "the learner", what, done))

    def take_faults(self) -> tuple[FaultEvent, ...]:
        """Returns the faults since the last call."""
        faults, self._faults = tuple(self._faults), []
        return faults

    def _metrics(self, stats: EpochStats, targets: Targets, epochs: int) -> dict[str, float]:
        ppo = self.config.ppo
        policy_loss, value_loss, entropy = (stats.mean(name) for name in ("policy_loss", "value_loss", "entropy"))
        log_std = parameter_views(self._vectors.parameters, self._spec.layout).get("log_std")
        std = {} if log_std is None else {"train/std": float(np.exp(log_std).mean())}
        return std | {
            "train/approx_kl": stats.mean("approx_kl"),
            "train/clip_fraction": stats.mean("clip_fraction"),
            "train/policy_gradient_loss": policy_loss,
            "train/value_loss": value_loss,
            "train/entropy_loss": -entropy,
            "train/loss": policy_loss + ppo.value_loss_coef * value_loss - ppo.entropy_coef * entropy,
            "train/grad_norm": stats.mean("grad_norm"),
            "train/grad_norm_max": stats.grad_norm_max,
            "train/explained_variance": explained_variance(targets.values, targets.returns),
            "train/learning_rate": self._learning_rate,
            "train/clip_range": ppo.clip_epsilon,
            "train/epochs": float(epochs),
            "train/n_updates": float(self._epochs_done),
            "train/gradient_steps": float(self._vectors.gradient_steps),
            "train/skipped_steps": stats.skipped,
            "value/mean": float(targets.values.mean()),
            "value/return_mean": float(targets.returns.mean()),
            "value/return_std": float(targets.returns.std()),
            "value/advantage_std": float(targets.advantages.std()),
            "dist/policy_version": float(self.version),
            "dist/obs_count": float(self._moments["obs_moments"].count),
        }


@contextmanager
def _flushed_denormals() -> Iterator[None]:
    """Computes with denormals as 0 inside, as they are a hundred times slower; the mode belongs to the thread, so it is put back."""
    torch.set_flush_denormal(True)
    try:
        yield
    finally:
        torch.set_flush_denormal(False)


def _worthwhile_threads(cores: int, work: int, *, separate: bool) -> int:
    """Returns how many of the cores pay for minibatches of this work (parameters x samples)."""
    if work >= THREADED_WORK:
        return cores
    return min(cores, 2) if separate and work >= TOWERS_WORK else 1
