"""Loggers get every row, in order, once; and whatever they do, the run is the run it would have been without them."""

from __future__ import annotations

import importlib.util
import json
import signal
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from runtime.running import SECONDS, Run, wait_until

from distppo.config import dump_config, load_config
from distppo.errors import UserError
from distppo.metrics import Forwarder, RunWriter
from distppo.metrics.loggers import LoggedRun, MetricLogger
from distppo.metrics.mlflow_logger import MlflowLogger
from distppo.metrics.wandb_logger import WandbLogger

Small = Callable[..., Run]
NUMBERS = {"time/total_timesteps": 128.0, "rollout/ep_rew_mean": -1.5, "train/approx_kl": 0.25}


def lines(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text().splitlines()] if path.exists() else []


def test_every_row_arrives_once_and_the_run_goes_on_under_the_same_name(
    small: Small, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    log = tmp_path / "log"
    run = small({"metrics.loggers": [{"class": "own_loggers:Lines", "path": str(log)}]})
    first, *rows, last = lines(log)
    assert first == {"call": "open", "directory": str(run.directory), "env": "probe_envs:Point-v0", "known_as": None}
    assert [row["env_steps"] for row in rows] == [128, 256, 384]
    assert rows[-1]["numbers"] == {key: value for key, value in run.rows[-1].items() if value is not None}
    assert last == {"call": "close", "ended": "finished"}
    small({"run.total_timesteps": 512}, resume=str(run.directory), trust=["own_loggers:Lines"])
    again = lines(log)[5:]
    assert again[0]["known_as"] == "the name here" and [row["env_steps"] for row in again[1:-1]] == [512]
    assert capfd.readouterr().err == ""


def test_a_logger_that_fails_is_told_once_and_changes_nothing(small: Small, trained: Run, tmp_path: Path) -> None:
    log = tmp_path / "log"
    run = small({"metrics.loggers": ["own_loggers:Failing", {"class": "own_loggers:Lines", "path": str(log)}]})
    assert run.same_bits(trained)
    (fault,) = [event for event in run.events if event["event"] == "fault"]
    assert (fault["what"], fault["where"]) == ("logger_failed", "own_loggers:Failing")
    assert fault["why"] == "ConnectionError: the server is down"
    assert "Traceback" in (run.directory / "loggers.log").read_text()
    assert [line["call"] for line in lines(log)] == ["open", "row", "row", "row", "close"]


def test_a_logger_that_hangs_holds_up_neither_a_row_nor_the_end(tmp_path: Path) -> None:
    failed: list[tuple[str, str]] = []
    said: list[str] = []
    config = load_config(overrides={"metrics.loggers": "own_loggers:Hanging"})
    (tmp_path / "config.yaml").write_text(dump_config(config))
    forwarder = Forwarder(config.metrics, tmp_path, failed=lambda *what: failed.append(what), say=said.append, seconds_at_the_end=2)
    with RunWriter(tmp_path, forwarder=forwarder) as writer:
        for steps in range(1, 1001):
            writer.row({"time/total_timesteps": steps})
        assert failed == []
    assert failed == [("own_loggers:Hanging", f"it had not taken everything 2 s after the end; see {tmp_path}/loggers.log")]
    assert said == ["waiting for own_loggers:Hanging to take the last metrics, 2 s at most"]


def test_a_logger_outlives_a_killed_run_by_a_moment_and_closes(
    started: Callable[..., subprocess.Popen[bytes]], small_file: str, tmp_path: Path
) -> None:
    log = tmp_path / "log"
    more = ("--total-timesteps", "1e9", "--run-dir", "run", "--set", f"metrics.loggers={{class: own_loggers:Lines, path: {log}}}")
    process = started("train", "--config", small_file, *more)
    wait_until(lambda: len(lines(log)) > 2, SECONDS, "rows arrive")
    process.send_signal(signal.SIGKILL)
    process.wait()
    wait_until(lambda: log.read_text().endswith('{"call": "close", "ended": "crashed"}\n'), SECONDS, "the logger closes")


@pytest.mark.parametrize("package", ["wandb", "mlflow"])
def test_a_missing_extra_is_one_line_before_anything_starts(package: str, launch: Callable[..., Any], tmp_path: Path) -> None:
    if importlib.util.find_spec(package):
        pytest.skip(f"{package} is installed")
    done = launch("train", "--set", f"metrics.{package}.project=mine", "--num-workers", "0")
    assert done.returncode == 2 and done.stderr.count("\n") == 1 and not list(tmp_path.iterdir())
    assert f"metrics.{package} needs the package {package}" in done.stderr and f"pip install 'distppo[{package}]'" in done.stderr


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"metrics.wandb": {"projekt": "x"}}, r"unknown key metrics.wandb.projekt - did you mean project\?"),
        ({"metrics.wandb": {"mode": "of"}}, "metrics.wandb.mode must be online or offline, got 'of'"),
        ({"metrics.mlflow": {"mode": "offline"}}, "unknown key metrics.mlflow.mode; it has project, name, tags, tracking_uri"),
        ({"metrics.mlflow": {"tags": {"a": 1}}}, "metrics.mlflow.tags must be text, or a list of texts, got a mapping"),
        ({"metrics.loggers": "own_loggers:NoLogger"}, "is no logger: it is not derived from"),
        ({"metrics.loggers": "own_loggers:Lines"}, "missing a required argument: 'path'"),
        ({"metrics.loggers": "own_loggers:Linse"}, r"did you mean Lines\?"),
        ({"metrics.loggers": "own_loggers:Rows"}, r"Rows has none of the methods open, row, close; did you mean row by rows\?"),
        ({"metrics.loggers": "own_loggers:ClosesAlone"}, r"close is called with \(ended\), but it cannot be called with 1 argument"),
    ],
)
def test_wrong_settings_are_told_before_anything_starts(settings: dict[str, Any], message: str, small: Small, tmp_path: Path) -> None:
    with pytest.raises(UserError, match=message):
        small(settings)
    assert not list(tmp_path.iterdir())


def exercise(logger: MetricLogger, directory: Path, known_as: str | None = None) -> str | None:
    """What the process does with every logger: the contract of the interface."""
    config = {"env": {"id": "Hopper-v4"}, "ppo": {"gamma": 0.99, "target_kl": None}}
    name = logger.open(LoggedRun(directory, config, known_as))
    assert name is None or (name and isinstance(name, str))
    logger.row(128, NUMBERS)
    logger.row(256, NUMBERS | {"time/total_timesteps": 256.0, "eval/mean_reward": 1e9})
    logger.close("finished")
    return name


def test_the_base_class_keeps_the_contract(tmp_path: Path) -> None:
    assert exercise(MetricLogger(), tmp_path) is None


def test_weights_and_biases_offline(tmp_path: Path) -> None:
    pytest.importorskip("wandb", reason="the extra wandb is not installed")
    options: dict[str, Any] = {"project": "p", "name": "n", "tags": ["a", "b"], "mode": "offline"}
    name = exercise(WandbLogger(**options), tmp_path)
    (folder,) = (tmp_path / "wandb").glob("offline-run-*")
    assert folder.name.endswith(f"-{name}") and (folder / f"run-{name}.wandb").stat().st_size > 500
    assert exercise(WandbLogger(**options), tmp_path, name) == name


def test_mlflow_in_a_file(tmp_path: Path) -> None:
    mlflow = pytest.importorskip("mlflow", reason="the extra mlflow is not installed")
    uri = f"sqlite:///{tmp_path}/mlflow.db" if importlib.util.find_spec("sqlalchemy") else f"file:{tmp_path}/mlruns"
    logger = {"project": "p", "name": "n", "tags": ["a", "team=walkers"], "tracking_uri": uri}
    name = exercise(MlflowLogger(**logger), tmp_path)
    client = mlflow.MlflowClient(tracking_uri=uri)
    run = client.get_run(name)
    assert (run.info.run_name, run.info.status, run.data.params["ppo.gamma"]) == ("n", "FINISHED", "0.99")
    assert run.data.tags["a"] == "true" and run.data.tags["team"] == "walkers"
    history = [(metric.step, metric.value) for metric in client.get_metric_history(name, "rollout/ep_rew_mean")]
    assert history == [(128, -1.5), (256, -1.5)]
    assert exercise(MlflowLogger(**logger), tmp_path, name) == name
