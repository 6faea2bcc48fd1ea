"""`watch` shows what a run's own display does, from what the run has written, however the run goes on."""

from __future__ import annotations

import io
import json
import signal
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from runtime.running import SECONDS, Run, command, environment, wait_until

from distppo.console import PlainDisplay
from distppo.metrics import MetricsFollower, RunWriter
from distppo.runtime.watch import Watcher


class Watched:
    """A run directory that a test writes, and what watching it shows."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        directory.mkdir()
        (directory / "config.yaml").write_text("env: {id: Hopper-v4}\nrun: {total_timesteps: 1000}\n")
        (directory / ".lock").write_text("process 1 on another machine")
        self.stream = io.StringIO()
        self.now = 0.0
        self.watcher = Watcher(directory, PlainDisplay(self.stream), clock=lambda: self.now)

    def look(self) -> tuple[list[str], str | None]:
        """The lines that one more look prints, and how the run ended."""
        self.stream.truncate(0)
        self.stream.seek(0)
        ended = self.watcher.look()
        return self.stream.getvalue().splitlines(), ended


@pytest.fixture
def watched(tmp_path: Path) -> Watched:
    return Watched(tmp_path / "run")


def row(steps: int) -> dict[str, float]:
    return {"time/total_timesteps": steps, "time/fps": 10.0, "rollout/ep_rew_mean": float(steps)}


def test_a_finished_run_is_shown_as_it_ended(small: Callable[..., Run], launch: Callable[..., Any]) -> None:
    run = small()
    done = launch("watch", str(run.directory))
    lines = done.stdout.splitlines()
    assert (done.returncode, done.stderr, lines[0], lines[-1]) == (0, "", f"probe_envs:Point-v0 -> {run.directory}", "finished")
    assert len(lines) == 3 and lines[1].startswith("384 / 384  100.0%") and "\x1b" not in done.stdout


def test_each_new_iteration_is_shown_once(watched: Watched) -> None:
    with RunWriter(watched.directory) as writer:
        writer.event("started", env_steps=0)
        writer.row(row(100))
        writer.row(row(200))
        first, ended = watched.look()
        assert [line.split()[0] for line in first] == ["Hopper-v4", "200"] and ended is None
        assert watched.look() == ([], None)
        writer.row(row(300))
        writer.row(row(400))
        assert [line.split()[0] for line in watched.look()[0]] == ["300", "400"]
        writer.event("fault", what="worker_died", where="worker 1", why="signal 9", done="replaced")
        assert watched.look()[0] == ["fault: worker died: worker 1: signal 9", "  replaced"]
        writer.event("finished", env_steps=400)
    assert watched.look() == (["finished"], "finished")


def test_a_run_that_goes_on_from_a_checkpoint_takes_back_what_came_after_it(watched: Watched) -> None:
    with RunWriter(watched.directory) as writer:
        writer.event("started", env_steps=0)
        for steps in (100, 200, 300):
            writer.row(row(steps))
        writer.event("interrupted", env_steps=300, signal=2, reason=None)
    assert watched.look()[1] == "interrupted"
    with RunWriter(watched.directory, resume_env_steps=200) as writer:
        writer.event("started", env_steps=200)
        lines, ended = watched.look()
        assert ended is None and lines[-1].split()[0] == "200"
        writer.row(row(300))
        assert watched.look()[0][-1].split()[0] == "300"


def test_the_end_by_an_error_says_which(watched: Watched) -> None:
    with RunWriter(watched.directory) as writer:
        writer.event("started", env_steps=0)
        writer.event("error", kind="UserError", message="the learner \x1b[2Jcould not go on")
    lines, ended = watched.look()
    assert ended == "ended by an error" and "error: the learner \\x1b[2Jcould not go on" in lines


def test_a_run_that_says_nothing_yet_is_waited_for(watched: Watched) -> None:
    assert watched.look()[1] is None
    with RunWriter(watched.directory) as writer:
        writer.row(row(100))
    assert watched.look()[0][-1].split()[0] == "100"


def test_half_a_line_is_read_when_it_is_whole(tmp_path: Path) -> None:
    path = tmp_path / "metrics.jsonl"
    follower = MetricsFollower(path)
    assert follower.poll() == []
    text = json.dumps(row(100)) + "\n"
    path.write_text(text + text[:20])
    assert follower.poll() == [row(100)]
    path.write_text(text + text)
    assert follower.poll() == [row(100)]
    path.write_text("{damaged\n")
    assert follower.poll() == [{"event": "resumed", "env_steps": 0}]  # shorter: another run's file


def test_a_killed_run_is_seen_to_be_gone(
    started: Callable[..., subprocess.Popen[bytes]], launch: Callable[..., Any], small_file: str, tmp_path: Path
) -> None:
    process = started("train", "--run-dir", "run", "--config", small_file, "--total-timesteps", "1e9")
    metrics = tmp_path / "run" / "metrics.jsonl"
    wait_until(lambda: metrics.exists() and "time/fps" in metrics.read_text(), SECONDS, "an iteration")
    process.send_signal(signal.SIGKILL)
    process.wait()
    done = launch("watch", "run")
    assert done.returncode == 1
    assert f"process {process.pid} is gone" in done.stdout and done.stdout.endswith("crashed\n")


def test_a_run_that_does_not_exist_is_told_with_those_that_do(
    small: Callable[..., Run], launch: Callable[..., Any], tmp_path: Path
) -> None:
    none = launch("watch")
    assert (none.returncode, none.stderr) == (2, "error: there is no run under runs/; `train` makes one\n")
    small({"run.directory": str(tmp_path / "runs" / "one")})
    wrong = launch("watch", "two")
    assert (wrong.returncode, wrong.stderr) == (2, "error: two is no run directory. The newest runs are:\n  runs/one\n")
    assert launch("watch", "one").returncode == 0


def test_interrupting_the_watching_ends_it_alone(started: Callable[..., subprocess.Popen[bytes]], watched: Watched, tmp_path: Path) -> None:
    process = started("watch", str(watched.directory))
    wait_until(lambda: "Hopper-v4" in (tmp_path / "stdout").read_text(), SECONDS, "the title")
    process.send_signal(signal.SIGINT)
    assert process.wait(SECONDS) == 0
    assert (tmp_path / "stderr").read_text() == ""


def test_watching_needs_no_ray_and_no_torch(small: Callable[..., Run]) -> None:
    code = (
        "import sys; from distppo.cli import main; code = main(['watch', sys.argv[1]])\n"
        "sys.exit(code or bool({'ray', 'torch', 'rich'} & set(sys.modules)))"
    )
    line = [command()[0], "-c", code, str(small().directory)]
    assert subprocess.run(line, env=environment(), stdout=subprocess.PIPE, timeout=SECONDS, check=False).returncode == 0


def test_a_run_that_failed_while_it_started_is_told_and_ends(launch: Callable[..., Any], tmp_path: Path) -> None:
    """Its command left the folder in order, with nothing in it: there is nobody to wait for."""
    failed = launch("train", "--num-workers", "0", "--env", "CartPole-v1", "--run-dir", "dead", "--set", "run.storage=nothing://x/y")
    assert failed.returncode == 2 and (tmp_path / "dead" / "config.yaml").is_file()
    done = launch("watch", "dead", "--no-progress")
    assert done.returncode == 1 and "its command ended before anything was trained" in done.stdout
