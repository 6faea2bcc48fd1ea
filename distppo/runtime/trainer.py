"""The loop: collect, update, broadcast, evaluate, checkpoint. It moves handles and floats, never arrays of a rollout."""

from __future__ import annotations

import dataclasses
import json
import math
import time
from collections.abc import Iterator
from contextlib import suppress
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
from distppo.metrics.jsonl import decode_line, encode_row
from distppo.metrics.keys import STEPS
from distppo.runtime.backend import Backend, Handle, NodeLeaving, WorkerFailed
from distppo.runtime.boundary import Boundary, stored
from distppo.runtime.callbacks import CallbackFailed, Callbacks
from distppo.runtime.faults import FaultLog
from distppo.runtime.processes import UpdateReport
from distppo.runtime.signals import StopRequested
from distppo.runtime.uploads import Uploads
from distppo.types import EnvSpec, EnvStates, Receipt


@dataclass
class Progress:
    """Where a run stands; with the learner's state it is all that a checkpoint holds.

    Attributes:
        iteration: iterations learned from.
        env_steps: env steps learned from.
        episodes: the last 100 finished episodes.
        seconds: wall time spent training, over all processes that continued the run.
        first_return: mean return of the first iteration in which episodes ended: the untrained policy's.
        best_evaluation: highest mean return of an evaluation, and the env steps it was reached at; of those that a checkpoint holds.
        unevaluated: the newest row, where its evaluation was due and has not come to its end; None: no evaluation is pending.
    """

    iteration: int = 0
    env_steps: int = 0
    episodes: EpisodeWindow = field(default_factory=EpisodeWindow)
    seconds: float = 0.0
    first_return: float | None = None
    best_evaluation: dict[str, float] | None = None
    unevaluated: dict[str, Any] | None = None

    def state(self) -> dict[str, Any]:
        """Returns it as JSON-like values."""
        row = self.unevaluated
        return {**vars(self), "episodes": self.episodes.state(), "unevaluated": None if row is None else encode_row(row)}

    @classmethod
    def from_state(cls, state: dict[str, Any]) -> Progress:
        """Returns what `state` returned.

        Raises:
            CheckpointError: it did not come from there.
        """
        episodes = EpisodeWindow()
        try:
            episodes.load_state(state["episodes"])
            best = state["best_evaluation"]
            if best is not None and (type(best) is not dict or best.keys() != {"return_mean", "env_steps"}):
                raise ValueError("best_evaluation is not a mean return and its env steps")
            return cls(**{**state, "episodes": episodes, "unevaluated": _unevaluated(state)})
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
        self._better: dict[str, float] | None = None  # the newest policy's evaluation, where it is the best and no checkpoint says so
        self._unsaved: str | None = None
        self._failed_saves = self._failed_uploads = 0
        self._uploads = uploads

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
        self._find_best()
        self._call("on_start")
        snapshot = backend.snapshot()
        yield from self._make_up_evaluation(snapshot)
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
                results = self._evaluate(snapshot) if self._evaluation_due() else []
            except (StopRequested, WorkerFailed):
                progress.unevaluated = self._report(report, [])
                raise
            if not overlap and more:
                # Submitted before the checkpoint is written, so that the workers do not wait for the disk.
                pending = backend.collect(snapshot, progress.iteration)
            # The row comes before the checkpoint: one that a killed run has too many is taken back, one too few would be lost for good.
            row = self._report(report, results)
            self._heed(results, save=self._due(config.run.checkpoint_every))
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
        self._better = None
        progress.iteration += 1
        progress.env_steps += self._config.batch_size
        progress.seconds = self._seconds_before + time.perf_counter() - self._started
        for fault in report.faults:
            self._faults.add(fault)
        for episode in report.episodes:
            progress.episodes.add(episode.episode_return, episode.length)
        if progress.first_return is None and report.episodes:
            progress.first_return = progress.episodes.mean_return

    def _evaluation_due(self) -> bool:
        every = self._config.evaluation.every
        return self._due(every) or (every > 0 and self._has_its_total())

    def _evaluate(self, snapshot: Handle) -> list[EpisodeResult]:
        """Plays the episodes of an evaluation, and notes whether the newest policy is the best so far."""
        with self._timer.phase("evaluate"):
            results = self._backend.evaluate(snapshot, self._config.evaluation.episodes)
        mean = _evaluation_metrics(results)["eval/mean_reward"]
        self._writer.event("evaluated", env_steps=self.progress.env_steps, returns=[result.episode_return for result in results])
        best = self.progress.best_evaluation
        if best is None or mean > best["return_mean"]:
            self._better = {"return_mean": mean, "env_steps": self.progress.env_steps}
        return results

    def _make_up_evaluation(self, snapshot: Handle) -> Iterator[dict[str, Any]]:
        """Does the evaluation that the run ended in, and yields its iteration's row, which nobody but metrics.jsonl has had yet."""
        if self.progress.unevaluated is None:
            return
        if self._config.evaluation.every > 0:
            results = self._evaluate(snapshot)
            row = self.progress.unevaluated | _evaluation_metrics(results)
            self.progress.unevaluated, self._saved_at = None, None
            self._writer.replace(row)
            self._display.iteration(row)
            self._heed(results, save=True)
            self._call("on_iteration", row)
            yield row
        self.progress.unevaluated = None

    def _heed(self, results: list[EpisodeResult], *, save: bool) -> None:
        """Checkpoints the newest policy if it is the best, tells of its evaluation if there was one, and checkpoints it with `save`."""
        if self._better is not None:
            self.save()
        if results:
            self._call("on_evaluation", [result.episode_return for result in results])
        if save:
            self.save()

    def _find_best(self) -> None:
        """Points `best` to the best evaluation's checkpoint, as a run that was killed may not have; without one, the next is the best."""
        best = self.progress.best_evaluation
        if best is not None and not self._mark_best(best):
            self.progress.best_evaluation = None

    def _mark_best(self, best: dict[str, float]) -> bool:
        """Points `best` to the checkpoint of an evaluation, unless it does so; returns whether there is such a checkpoint."""
        found = [info for info in self._store.list() if info.env_steps == best["env_steps"]]
        if found and self._store.best() != found[-1]:
            with suppress(OSError):  # Tried again after the next save.
                self._store.mark_best(found[-1].path)
        return bool(found)

    def _save_if_possible(self) -> None:
        """Checkpoints the state after the last update, unless the learner has gone too."""
        try:
            self.save()
            self._finish_uploads()
        except CallbackFailed:
            raise
        except (UserError, StopRequested) as error:
            self._display.message(f"warning: what was learned since the last checkpoint is lost: {error}")

    def save(self) -> None:
        """Checkpoints the state after the last update; twice at the same point only if it has become the best."""
        progress, better = self.progress, self._better
        if progress.iteration == 0 or (self._saved_at == progress.iteration and better is None):
            return
        with self._timer.phase("checkpoint"):
            try:
                path = self._write(self._states)
            except OSError as error:
                latest = self._store.latest()
                if latest is not None and latest.env_steps == progress.env_steps:
                    self._keep_best()  # It is there; what the disk has refused came after it.
                self._not_saved(error)
                return
            self._keep_best()
        self._unsaved, self._failed_saves = None, 0
        self._saved_at = progress.iteration
        if self._uploads is not None:
            self._uploads.put(path)
            self._heed_uploads(self._uploads)
        self._writer.event("checkpoint", env_steps=progress.env_steps, path=str(path), best=better is not None)
        self._call("on_checkpoint", path, better is not None)

    def _write(self, states: EnvStates | None) -> Path:
        """Writes a checkpoint, without the environments' states where it could not be read again with them.

        Raises:
            OSError: the disk refuses, or the rest cannot be stored either.
        """
        progress, better = self.progress, self._better
        arrays, values = self._backend.learner_state()
        collecting = None if self._collecting is None else self._backend.fetch(self._collecting)
        groups, boundary = stored(Boundary(states, collecting, self._backend.num_workers))
        groups[LEARNER_ARRAYS] = dict(arrays)
        reached = dataclasses.replace(progress, best_evaluation=better or progress.best_evaluation)
        state = checkpoint_state(self._config, self._env, values, reached.state(), boundary)
        try:
            return self._store.save(
                iteration=progress.iteration, env_steps=progress.env_steps, arrays=groups, state=state, best=better is not None
            )
        except ValueError as error:
            if states is None:
                raise OSError(str(error)) from error
            why = str(error)
        self._display.message(f"warning: {why}; saved without the environments' states, so that a resumed run starts new episodes")
        return self._write(None)

    def _keep_best(self) -> None:
        """Takes the newest policy's evaluation for the best one, if it is, now that there is a checkpoint of it."""
        self.progress.best_evaluation, self._better = self._better or self.progress.best_evaluation, None
        if self.progress.best_evaluation is not None:
            self._mark_best(self.progress.best_evaluation)

    def _not_saved(self, error: OSError) -> None:
        """The checkpoint before is intact, and a full disk now is no reason to lose the run; one that stays full is."""
        limit, why = self._config.fault.max_checkpoint_failures, error.strerror or str(error)
        self._unsaved, self._failed_saves = why, self._failed_saves + 1
        if self._failed_saves > limit:
            raise UserError(f"{self._failed_saves} checkpoints in a row could not be saved (fault.max_checkpoint_failures {limit}): {why}")
        done = f"the one before is kept; failure {self._failed_saves} in a row, {limit} are put up with (fault.max_checkpoint_failures)"
        self._faults.record("checkpoint_failed", str(self._store.directory), why, done)

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

    def _report(self, report: UpdateReport, results: list[EpisodeResult]) -> dict[str, Any]:
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
            **(_evaluation_metrics(results) if results else {}),
        }
        if len(progress.episodes):
            row["rollout/ep_rew_mean"] = progress.episodes.mean_return
            row["rollout/ep_len_mean"] = progress.episodes.mean_length
        self._writer.row(row)
        self._display.iteration(row)
        self._backend.show(row)
        return row


def _unevaluated(state: dict[str, Any]) -> dict[str, Any] | None:
    """Returns the row of a stored progress whose evaluation is pending; checkpoints from before there was one have none.

    Raises:
        ValueError: it is not the row of its iteration.
    """
    if state.get("unevaluated") is None:
        return None
    row = decode_line(json.dumps(state["unevaluated"]).encode())
    if row is None or "event" in row or row[STEPS] != state["env_steps"]:
        raise ValueError("unevaluated is not the newest row")
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
