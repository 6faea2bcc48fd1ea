"""Callbacks: when each method is called, how one stops a run, and what happens to one that does not work."""

from __future__ import annotations

import importlib
import json
import sys
from collections.abc import Callable
from typing import Any

import pytest
from runtime.running import Run

from distppo import Callback
from distppo.callbacks import EVENTS, StopAtReturn, TrainingRun
from distppo.checkpoint import list_checkpoints
from distppo.cli.train import closing_lines
from distppo.config import load_config
from distppo.errors import UserError
from distppo.runtime.callbacks import ARGUMENTS, CallbackFailed

CALLS: list[tuple[Any, ...]] = []
EVALUATED = {"evaluation.every": 128, "evaluation.episodes": 2, "run.checkpoint_every": 256}


class Recorder(Callback):
    """Notes every call."""

    def on_start(self, run):
        CALLS.append(("start", run.env_steps, run.config.env.id))

    def on_iteration(self, run, metrics):
        CALLS.append(("iteration", run.env_steps, run.iteration, metrics["time/total_timesteps"]))

    def on_evaluation(self, run, returns):
        CALLS.append(("evaluation", run.env_steps, len(returns)))

    def on_checkpoint(self, run, path, best):
        assert (path / "MANIFEST.json").exists()
        CALLS.append(("checkpoint", run.env_steps, best))

    def on_end(self, run, summary):
        assert (run.directory / "summary.json").exists()
        CALLS.append(("end", run.env_steps, summary["env_steps"]))


class Stopping:
    """Asks to stop in one of its methods; derives from nothing."""

    def __init__(self, event: str) -> None:
        self._event = event

    def on_start(self, run):
        self._stop(run, "on_start")

    def on_iteration(self, run, metrics):
        self._stop(run, "on_iteration")

    def on_evaluation(self, run, returns):
        self._stop(run, "on_evaluation")

    def on_checkpoint(self, run, path, best):
        self._stop(run, "on_checkpoint")

    def _stop(self, run, event):
        if event == self._event:
            run.stop(f"{event} had enough")


class Raising(Callback):
    """Raises in one of its methods."""

    def __init__(self, event: str) -> None:
        def fail(*_: Any) -> None:
            raise KeyError("the dashboard is down")

        setattr(self, event, fail)


class Leaving(Callback):
    """Exits, as a script would."""

    def on_iteration(self, run, metrics):
        sys.exit(0)


class Typo(Callback):
    def on_iterations(self, run, metrics):
        """Never called."""


class Short(Callback):
    def on_iteration(self, run):
        """Takes too few arguments."""


class Nothing:
    """Has none of the methods."""


def named(name: str, **kwargs: Any) -> list[dict[str, Any]]:
    return [{"class": f"runtime.test_callbacks:{name}", **kwargs}]


@pytest.fixture
def calls() -> list[tuple[Any, ...]]:
    imported = importlib.import_module("runtime.test_callbacks")  # as the plug-ins import it; pytest has another copy
    imported.CALLS.clear()
    return imported.CALLS


def test_every_event_is_reported_once_and_in_order(small: Callable[..., Run], calls: list[tuple[Any, ...]]) -> None:
    """Evaluation before its iteration's row; a periodic checkpoint at 256 besides those of the best; the end after the summary."""
    run = small(EVALUATED | {"run.callbacks": named("Recorder")})
    assert calls[0] == ("start", 0, "probe_envs:Point-v0") and calls[-1] == ("end", 384, 384)
    assert [call[1:] for call in calls if call[0] == "iteration"] == [(128, 1, 128), (256, 2, 256), (384, 3, 384)]
    assert [call[1:] for call in calls if call[0] == "evaluation"] == [(128, 2), (256, 2), (384, 2)]
    assert {call[1] for call in calls if call[0] == "checkpoint"} == {info.env_steps for info in list_checkpoints(run.directory)}
    assert [call[0] for call in calls if call[1] == 128][-2:] == ["evaluation", "iteration"]


def test_callbacks_change_no_number(small: Callable[..., Run], calls: list[tuple[Any, ...]]) -> None:
    """The same bits with and without."""
    assert small(EVALUATED | {"run.callbacks": named("Recorder")}).same_bits(small(EVALUATED))


@pytest.mark.parametrize(("event", "steps"), [("on_start", 0), ("on_evaluation", 128), ("on_iteration", 128), ("on_checkpoint", 128)])
@pytest.mark.parametrize("mode", ["sync", "overlap"])
def test_a_callback_stops_the_run_in_order(event: str, steps: int, mode: str, small: Callable[..., Run]) -> None:
    """With a checkpoint, a summary that says why, no signal, and a run that can be continued."""
    run = small(EVALUATED | {"run.callbacks": named("Stopping", event=event), "rollout.mode": mode})
    assert run.summary["env_steps"] == steps and run.summary["stop_reason"] == f"{event} had enough" and run.result.signal is None
    assert [info.env_steps for info in list_checkpoints(run.directory)][-1:] == [steps] * (steps > 0)
    assert [json.loads(line)["event"] for line in (run.directory / "metrics.jsonl").read_text().splitlines()[-1:]] == ["stopped"]
    assert closing_lines(run.result, "x")[1] == f"because {event} had enough"
    assert small({"run.callbacks": []}, resume=str(run.directory)).summary["env_steps"] == 384


@pytest.mark.parametrize(("event", "kept"), [("on_start", []), ("on_iteration", [128]), ("on_evaluation", [128]), ("on_checkpoint", [128])])
def test_a_callback_that_raises_ends_the_run_with_its_name_and_the_state_saved(
    event: str, kept: list[int], small: Callable[..., Run], tmp_path: Any
) -> None:
    """Also where it raises in the very saving."""
    with pytest.raises(CallbackFailed) as caught:
        small(EVALUATED | {"run.callbacks": named("Raising", event=event), "run.directory": str(tmp_path / "run")})
    first, *_, last = str(caught.value).splitlines()
    assert first == f"run.callbacks[0] 'runtime.test_callbacks:Raising' raised an error in {event}:"
    assert last == "  KeyError: 'the dashboard is down'"
    assert [info.env_steps for info in list_checkpoints(tmp_path / "run")] == kept


def test_one_that_exits_is_no_success(small: Callable[..., Run], tmp_path: Any) -> None:
    """The state is saved, and the run ends with an error."""
    with pytest.raises(CallbackFailed, match=r"(?s)raised an error in on_iteration:.*SystemExit: 0"):
        small({"run.callbacks": named("Leaving"), "run.directory": str(tmp_path / "run")})
    assert [info.env_steps for info in list_checkpoints(tmp_path / "run")] == [128]


def test_one_that_raises_at_the_end_spoils_nothing(small: Callable[..., Run], tmp_path: Any) -> None:
    """The run is finished and everything written."""
    with pytest.raises(CallbackFailed, match="raised an error in on_end"):
        small({"run.callbacks": named("Raising", event="on_end"), "run.directory": str(tmp_path / "run")})
    assert json.loads((tmp_path / "run" / "summary.json").read_text())["env_steps"] == 384


@pytest.mark.parametrize(
    ("entry", "message"),
    [
        ("runtime.test_callbacks:Typo", "has a method on_iterations, which is never called - did you mean on_iteration?"),
        ("runtime.test_callbacks:Short", "on_iteration is called with (run, metrics), but it cannot be called with 2 arguments"),
        ("runtime.test_callbacks:Nothing", "is no callback: Nothing has none of the methods on_start, on_iteration"),
        ("runtime.test_callbacks:Recoder", "has no Recoder - did you mean Recorder?"),
        ("distppo.callbacks:StopAtReturn", "cannot be called with no arguments: missing a required argument: 'target'"),
        ({"class": "distppo.callbacks:StopAtReturn", "traget": 1}, "does not take traget - did you mean target?"),
        ({"class": "distppo.callbacks:StopAtReturn", "target": 1, "evaluations": 0}, "ValueError: evaluations must be at least 1, got 0"),
    ],
)
def test_what_is_no_callback_is_told_before_anything_starts(entry: Any, message: str, small: Callable[..., Run], tmp_path: Any) -> None:
    """With the name of the setting; no run directory is made."""
    with pytest.raises(UserError, match=r"^run\.callbacks\[0\] ") as caught:
        small({"run.callbacks": [entry], "run.directory": str(tmp_path / "run")})
    assert message in str(caught.value) and not (tmp_path / "run").exists()


def test_stop_at_return_counts_evaluations_in_a_row(small: Callable[..., Run], tmp_path: Any) -> None:
    """Two in a row that reach the target end the run at the second."""
    entry = {"class": "distppo.callbacks:StopAtReturn", "target": -1e9, "evaluations": 2}
    run = small(EVALUATED | {"run.callbacks": [entry]})
    assert run.summary["env_steps"] == 256 and "has reached -1,000,000,000.0" in run.summary["stop_reason"]
    callback, view = StopAtReturn(1.0, evaluations=2), TrainingRun(load_config(), tmp_path)
    for returns in ([2.0], [0.0], [1.0]):
        callback.on_evaluation(view, returns)
        assert view.stop_reason is None


def test_the_arguments_are_those_of_the_base_class() -> None:
    """What is checked and what is documented is the same."""
    for event in EVENTS:
        names = getattr(Callback, event).__code__.co_varnames[1 : getattr(Callback, event).__code__.co_argcount]
        assert names == ARGUMENTS[event]
