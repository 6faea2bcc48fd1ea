"""The loop: collect, update, broadcast, evaluate, checkpoint. It moves handles and floats, never arrays of a rollout."""

from __future__ import annotations

import math
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from distppo.checkpoint import CheckpointStore
from distppo.config import Config
from distppo.console import Display
from distppo.envs import joined
from distppo.errors import CheckpointError, UserError
from distppo.evaluation.episodes import EpisodeResult
from distppo.evaluation.restore import LEARNER_ARRAYS, checkpoint_state
from distppo.metrics import EpisodeWindow, PhaseTimer, RunWriter
from distppo.runtime.backend import Backend, Handle, NodeLeaving, WorkerFailed
from distppo.runtime.boundary import Boundary, stored
from distppo.runtime.callbacks import CallbackFailed, Callbacks
from distppo.runtime.faults import FaultLog
from distppo.runtime.processes import UpdateReport
from distppo.runtime.signals import StopRequested
from distppo.runtime.uploads import Uploads
from distppo.types import EnvSpec, Receipt


@dataclass
class Progress:
    """Where a run stands; with the learner's state it is all that a checkpoint holds.

    Attributes:
        iteration: iterations learned from.
        env_steps: env steps learned from.
        episodes: the last 100 finished episodes.
        seconds: wall time spent training, over all processes that continued the run.
        first_return: mean return of the first iteration in which episodes ended: the untrained policy's.
        best_evaluation: highest mean return of an evaluation, and the env steps it was reached at.
    """

    iteration: int = 0
    env_steps: int = 0
    episodes: EpisodeWindow = field(default_factory=EpisodeWindow)
    seconds: float = 0.0
    first_return: float | None = None
    best_evaluation: dict[str, float] | None = None

    def state(self) -> dict[str, Any]:
        """Returns it as JSON-like values."""
        return {**vars(self), "episodes": self.episodes.state()}

    @classmethod
    def from_state(cls, state: dict[str, Any]) -> Progress:
        """Returns what `state` returned.

        Raises:
            CheckpointError: it did not come from there.
        """
        episodes = EpisodeWindow()
        try:
            episodes.load_state(state["episodes"])
            return cls(**{**state, "episodes": episodes})
        except (KeyError, TypeError, ValueError) as error:
            raise CheckpointError(f"the checkpoint's progress is not as distppo writes it ({error})") from error


class Trainer:
    """Runs iterations until total_timesteps.

    Args:
        config: of the run.
        env: spec of its environment.
        backend: the processes.
        progress: where to start; changed.
        writer: of metrics and events.
        display: for people.
        store: of checkpoints.
        faults: where those that the trainer notices, and that workers and learner tell of, are counted.
        callbacks: of the user's.
        boundary: where the first iteration begins.
        uploads: to shared storage, if there is any.
        saved: whether the store holds `progress` already.
    """

    def __init__(
        self,
        config: Config,
        env: EnvSpec,
        backend: Backend,
        progress: Progress,
        *,
        writer: RunWriter,
        display: Display,
        store: CheckpointStore,
        faults: FaultLog,
        callbacks: Callbacks,
        boundary: Boundary,
        uploads: Uploads | None,
        saved: bool,
    ) -> None:
        self.progress = progress
        self._config, self._env, self._backend = config, env, backend
        self._writer, self._display, self._store, self._faults = writer, display, store, faults
        self._callbacks = callbacks
        self._states = boundary.states
        self._collecting: Handle | None = None if boundary.collecting is None else backend.share(boundary.collecting)
        self._timer = PhaseTimer()
        self._started = self._reported = time.perf_counter()
        self._seconds_before, self._steps_before = progress.seconds, progress.env_steps
        self._saved_at = progress.iteration if saved else None
        self._unsaved: str | None = None
        self._failed_saves = self._failed_uploads = 0
        self._uploads = uploads
        self._to_upload: Path | None = None
        self._told_of = progress.iteration

    def run(self) -> Iterator[dict[str, Any]]:
        """Trains to total_timesteps, or until asked to stop. Either way the last finished iteration is checkpointed.

        Yields:
            Every iteration's row, when all of it is done but what has been ordered of the next; `save` may be called meanwhile.

        Raises:
            CallbackFailed: a callback raised; the last finished iteration is checkpointed.
            WorkerFailed: a worker could not go on; the last finished iteration is checkpointed.
            UserError: the learner could not go on, or checkpoints cannot be saved; the older ones are as they were.
        """
        try:
            yield from self._loop()
        except StopRequested:
            self._save_if_possible()
        except (WorkerFailed, CallbackFailed):
            self._save_if_possible()
            raise
        else:
            self.save()
            if self._unsaved is not None:
                raise UserError(f"training has reached its end, but: {self._unsaved}")
            self._finish_uploads()
            if self._failed_uploads:
                assert self._uploads is not None
                raise UserError(f"training has reached its end, but its last checkpoint could not be copied to {self._uploads.url}")

    def _loop(self) -> Iterator[dict[str, Any]]:
        config, backend, progress, timer = self._config, self._backend, self.progress, self._timer
        overlap = config.rollout.mode == "overlap"
        self._call("on_start")
        snapshot = backend.snapshot()
        collecting = snapshot if self._collecting is None else self._collecting
        pending = backend.collect(collecting, progress.iteration) if self._unfinished() else []
        while self._unfinished():
            receipts = self._wait(pending)
            arrived, pending = pending, []
            more = progress.env_steps + config.batch_size < config.run.total_timesteps
            if overlap and more:
                pending = backend.collect(snapshot, progress.iteration + 1)
            before = snapshot
            with timer.phase("update"):
                snapshot, report = backend.update(arrived)
            self._account(report)
            # From here on a checkpoint is of the state after this update, and these are what the next fragments depend on.
            self._states, self._collecting = joined([receipt.states for receipt in receipts]), before if overlap else None
            try:
                evaluation = self._evaluate_if_due(snapshot)
            except (StopRequested, WorkerFailed, CallbackFailed):
                self._report(report, {})
                raise
            if not overlap and more:
                # Submitted before the checkpoint is written, so that the workers do not wait for the disk.
                pending = backend.collect(snapshot, progress.iteration)
            if self._due(config.run.checkpoint_every):
                self.save()
            row = self._report(report, evaluation)
            self._call("on_iteration", row)
            yield row

    def _wait(self, pending: list[Handle]) -> list[Receipt]:
        while True:
            try:
                with self._timer.phase("collect"):
                    receipts = self._backend.wait(pending)
                break
            except NodeLeaving:
                self.save()
        for fault in (fault for receipt in receipts for fault in receipt.faults):
            self._faults.add(fault)
        return receipts

    def _unfinished(self) -> bool:
        return not self._has_its_total() and self._callbacks.stop_reason is None

    def _has_its_total(self) -> bool:
        return self.progress.env_steps >= self._config.run.total_timesteps

    def _call(self, event: str, *arguments: Any) -> None:
        """Tells the callbacks."""
        self._callbacks.call(event, *arguments, iteration=self.progress.iteration, env_steps=self.progress.env_steps)

    def _due(self, every: int) -> bool:
        """Whether a multiple of `every` env steps was passed in the iteration just learned from."""
        steps = self.progress.env_steps
        return every > 0 and steps // every > (steps - self._config.batch_size) // every

    def _account(self, report: UpdateReport) -> None:
        progress = self.progress
        progress.iteration += 1
        progress.env_steps += self._config.batch_size
        progress.seconds = self._seconds_before + time.perf_counter() - self._started
        for fault in report.faults:
            self._faults.add(fault)
        for episode in report.episodes:
            progress.episodes.add(episode.episode_return, episode.length)
        if progress.first_return is None and report.episodes:
            progress.first_return = progress.episodes.mean_return

    def _evaluate_if_due(self, snapshot: Handle) -> dict[str, float]:
        """Evaluates when it is time to, keeps the best policy, and returns the metrics (empty when it was not time)."""
        evaluation = self._config.evaluation
        if not (self._due(evaluation.every) or (evaluation.every > 0 and self._has_its_total())):
            return {}
        with self._timer.phase("evaluate"):
            results = self._backend.evaluate(snapshot, evaluation.episodes)
        metrics = _evaluation_metrics(results)
        mean = metrics["eval/mean_reward"]
        self._writer.event("evaluated", env_steps=self.progress.env_steps, returns=[result.episode_return for result in results])
        best = self.progress.best_evaluation
        if best is None or mean > best["return_mean"]:
            self.progress.best_evaluation = {"return_mean": mean, "env_steps": self.progress.env_steps}
            self.save(best=True)
        self._call("on_evaluation", [result.episode_return for result in results])
        return metrics

    def _save_if_possible(self) -> None:
        """Checkpoints the state after the last update, unless the learner has gone too."""
        try:
            self.save()
            self._finish_uploads()
        except CallbackFailed:
            raise
        except (UserError, StopRequested) as error:
            self._display.message(f"warning: what was learned since the last checkpoint is lost: {error}")

    def save(self, *, best: bool = False) -> None:
        """Checkpoints the state after the last update; twice at the same point only if it has become the best."""
        progress = self.progress
        if progress.iteration == 0 or (self._saved_at == progress.iteration and not best):
            return
        with self._timer.phase("checkpoint"):
            arrays, values = self._backend.learner_state()
            collecting = None if self._collecting is None else self._backend.fetch(self._collecting)
            groups, boundary = stored(Boundary(self._states, collecting, self._backend.num_workers))
            groups[LEARNER_ARRAYS] = dict(arrays)
            state = checkpoint_state(self._config, self._env, values, progress.state(), boundary)
            try:
                path = self._store.save(iteration=progress.iteration, env_steps=progress.env_steps, arrays=groups, state=state, best=best)
            except OSError as error:
                self._not_saved(error)
                return
        self._unsaved, self._failed_saves = None, 0
        self._saved_at = progress.iteration
        self._to_upload = path
        self._upload()
        self._writer.event("checkpoint", env_steps=progress.env_steps, path=str(path), best=best)
        self._call("on_checkpoint", path, best)

    def _not_saved(self, error: OSError) -> None:
        """The checkpoint before is intact, and a full disk now is no reason to lose the run; one that stays full is."""
        limit, why = self._config.fault.max_checkpoint_failures, error.strerror or str(error)
        self._unsaved, self._failed_saves = why, self._failed_saves + 1
        if self._failed_saves > limit:
            raise UserError(f"{self._failed_saves} checkpoints in a row could not be saved (fault.max_checkpoint_failures {limit}): {why}")
        done = f"the one before is kept; failure {self._failed_saves} in a row, {limit} are put up with (fault.max_checkpoint_failures)"
        self._faults.record("checkpoint_failed", str(self._store.directory), why, done)

    def _upload(self) -> None:
        """Has the newest checkpoint copied as soon as its iteration's row is written, since the rows go with it."""
        if self._uploads is not None and self._to_upload is not None and self._told_of == self.progress.iteration:
            self._uploads.put(self._to_upload)
            self._to_upload = None
            self._heed_uploads(self._uploads)

    def _heed_uploads(self, uploads: Uploads) -> None:
        """The run directory has everything; that it cannot be copied for long is a reason to stop, as a full disk is."""
        limit = self._config.fault.max_checkpoint_failures
        for why in uploads.results():
            self._failed_uploads = 0 if why is None else self._failed_uploads + 1
            if why is None:
                continue
            if self._failed_uploads > limit:
                raise UserError(
                    f"{self._failed_uploads} checkpoints in a row could not be copied to {uploads.url} (fault.max_checkpoint_failures "
                    f"{limit}): {why}"
                )
            done = f"it is in {self._store.directory}; failure {self._failed_uploads} in a row, {limit} are put up with"
            self._faults.record("checkpoint_failed", uploads.url, why, f"{done} (fault.max_checkpoint_failures)")

    def _finish_uploads(self) -> None:
        """Waits for the last checkpoint to reach the shared storage."""
        if self._uploads is None:
            return
        finished = self._uploads.finish()
        self._heed_uploads(self._uploads)
        if not finished:
            self._display.message(f"warning: the last checkpoint has not reached {self._uploads.url}; it is in {self._store.directory}")

    def _report(self, report: UpdateReport, evaluation: dict[str, float]) -> dict[str, Any]:
        """Writes and shows the iteration's row, and returns it."""
        progress, workers, batch_size = self.progress, report.worker_seconds, self._config.batch_size
        phases, now = self._timer.take(), time.perf_counter()
        seconds, self._reported = now - self._reported, now
        if self._config.rollout.mode == "sync":
            # What the slowest worker did not spend collecting went into handing out the snapshot and handing in the fragments.
            waited = phases["collect"]
            phases["collect"] = min(waited, max(workers))
            phases["broadcast"] += waited - phases["collect"]
        row: dict[str, Any] = {
            "time/total_timesteps": progress.env_steps,
            "time/iterations": progress.iteration,
            "time/time_elapsed": progress.seconds,
            "time/fps": (progress.env_steps - self._steps_before) / (now - self._started),
            "time/fps_iteration": batch_size / seconds,
            **{f"time/{name}": spent for name, spent in phases.items()},
            "time/other": max(0.0, seconds - math.fsum(phases.values())),
            "rollout/episodes": len(report.episodes),
            **report.metrics,
            "dist/workers": self._backend.present,
            "dist/learners": self._config.learner.num_learners,
            "dist/worker_seconds_min": min(workers),
            "dist/worker_seconds_mean": math.fsum(workers) / len(workers),
            "dist/worker_seconds_max": max(workers),
            "dist/worker_fps": batch_size / math.fsum(workers),
            "dist/rollout_bytes": report.rollout_bytes,
            **self._faults.counts,
            **evaluation,
        }
        if len(progress.episodes):
            row["rollout/ep_rew_mean"] = progress.episodes.mean_return
            row["rollout/ep_len_mean"] = progress.episodes.mean_length
        self._writer.row(row)
        self._display.iteration(row)
        self._backend.show(row)
        self._told_of = progress.iteration
        self._upload()
        return row


def _evaluation_metrics(results: list[EpisodeResult]) -> dict[str, float]:
    returns = [result.episode_return for result in results]
    mean = math.fsum(returns) / len(returns)
    return {
        "eval/mean_reward": mean,
        "eval/std_reward": math.sqrt(math.fsum((x - mean) ** 2 for x in returns) / len(returns)),
        "eval/mean_ep_length": math.fsum(result.length for result in results) / len(results),
        "eval/episodes": len(results),
    }
