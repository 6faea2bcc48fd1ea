"""Jobs on a cluster that was started as its administrator would: `ray start --head`, a second node, `launch.py submit`."""

from __future__ import annotations

import json
import os
import re
import secrets
import shlex
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

import pytest
from runtime.running import ROOT, SECONDS, SMALL, command, environment, processes_of, wait_until

from distppo.config import dump_config, load_config
from distppo.metrics import read_log

ENDLESS = SMALL | {"rollout.num_workers": 2, "run.total_timesteps": 1_000_000_000, "fault.startup_timeout": 300}
RAY = (sys.executable, "-m", "ray.scripts.scripts", "start", "--num-cpus=2", "--block", "--object-store-memory=100000000")


class Cluster(NamedTuple):
    """A head and a second node.

    Attributes:
        url: of the dashboard.
        project: folder that jobs are submitted from.
        runs: folder where they write.
        token: file that holds what it asks for.
    """

    url: str
    project: Path
    runs: Path
    token: Path


def free_ports(count: int) -> list[int]:
    """Ports that nobody has, each another one."""
    sockets = [socket.create_server(("127.0.0.1", 0)) for _ in range(count)]
    ports = [each.getsockname()[1] for each in sockets]
    for each in sockets:
        each.close()
    return ports


def started_node(directory: Path, token: Path, agents: Sequence[int], *flags: str) -> subprocess.Popen[bytes]:
    """Starts a node on loopback, in a session of its own, with nothing of ours to import but what jobs bring along."""
    inherited = {name: value for name, value in environment().items() if name not in ("PYTHONPATH", "DISTPPO_TRUST")}
    own = {
        "PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}",
        "RAY_AUTH_MODE": "token",
        "RAY_AUTH_TOKEN_PATH": str(token),
    }
    ports = [f"--dashboard-agent-listen-port={agents[0]}", f"--dashboard-agent-grpc-port={agents[1]}"]
    argv = [*RAY, "--node-ip-address=127.0.0.1", f"--temp-dir={directory}", *ports, *flags]
    output = directory / "output"
    with open(output, "w") as file:
        node = subprocess.Popen(argv, stdout=file, stderr=file, env=inherited | own, start_new_session=True)
    wait_until(lambda: "Ray runtime started" in output.read_text() or node.poll() is not None, SECONDS, output.read_text())
    assert node.poll() is None, output.read_text()
    return node


@pytest.fixture(scope="module")
def cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cluster]:
    """Two nodes of two CPUs each on loopback; afterwards nothing of them is left."""
    project, runs = tmp_path_factory.mktemp("project"), tmp_path_factory.mktemp("storage")
    (project / "endless.yaml").write_text(dump_config(load_config(overrides=ENDLESS)))
    shutil.copy(ROOT / "tests" / "probe_envs.py", project)
    token = tmp_path_factory.mktemp("token") / "token"
    token.write_text(secrets.token_hex(32))
    control, dashboard, *agents = free_ports(6)
    # A folder for each node, as on machines of their own: they unpack there what jobs bring along. Short, since sockets will be in it.
    with tempfile.TemporaryDirectory(dir="/tmp", prefix="ray") as first, tempfile.TemporaryDirectory(dir="/tmp", prefix="ray") as second:
        flags = ["--head", f"--port={control}", f"--dashboard-port={dashboard}"]
        nodes = [started_node(Path(first), token, agents[:2], *flags)]
        try:
            nodes.append(started_node(Path(second), token, agents[2:], f"--address=127.0.0.1:{control}"))
            yield Cluster(f"http://127.0.0.1:{dashboard}", project, runs, token)
        finally:
            for node in reversed(nodes):
                node.send_signal(signal.SIGTERM)
                node.wait(SECONDS)
        wait_until(lambda: not any(processes_of(node.pid) for node in nodes), SECONDS, "every process of the cluster has ended")


@pytest.fixture
def submit(cluster: Cluster) -> Callable[..., subprocess.CompletedProcess[str]]:
    """Runs `launch.py submit` to its end, from the project's folder."""

    def run(*argv: str, **variables: str) -> subprocess.CompletedProcess[str]:
        words = command("submit", "--address", cluster.url, "--runs", str(cluster.runs), *argv)
        env = environment() | {"RAY_AUTH_TOKEN_PATH": str(cluster.token)} | variables
        return subprocess.run(words, capture_output=True, text=True, cwd=cluster.project, env=env, timeout=SECONDS, check=False)

    return run


def begun(cluster: Cluster, output: Path, *argv: str) -> subprocess.Popen[str]:
    """Starts `launch.py submit`, and returns when the job has learned something."""
    with open(output, "w") as file:
        words = command("submit", "--address", cluster.url, "--runs", str(cluster.runs), *argv)
        process = subprocess.Popen(
            words, stdout=file, stderr=file, cwd=cluster.project, env=environment() | {"RAY_AUTH_TOKEN_PATH": str(cluster.token)}, text=True
        )
    wait_until(
        lambda: len(re.findall(r" steps/s ", output.read_text())) > 2 or process.poll() is not None, SECONDS, "rows in the job's output"
    )
    assert process.poll() is None, output.read_text()
    return process


@pytest.mark.ray
@pytest.mark.slow
def test_a_job_is_submitted_followed_left_stopped_and_resumed(
    cluster: Cluster, submit: Callable[..., subprocess.CompletedProcess[str]], tmp_path: Path
) -> None:
    """It needs both nodes, sees the files of the folder, survives its follower, saves when it is stopped and goes on where it was."""
    first = begun(cluster, tmp_path / "first", "--name", "job-1", "--", "train", "--config", "endless.yaml")
    first.send_signal(signal.SIGINT)
    assert first.wait(SECONDS) == 130
    said = (tmp_path / "first").read_text()
    assert "submitted: job-1\n" in said and "on Ray, 2 workers and 1 learner, 2 nodes" in said
    assert said.endswith("left: job-1 goes on. --logs job-1 shows it again, --stop job-1 stops it\n")

    taken = submit("--name", "job-1", "--", "train", "--config", "endless.yaml")
    assert taken.returncode == 2
    assert taken.stderr == "error: --name job-1: the cluster has a job of this name already (RUNNING); choose another\n"

    second = begun(cluster, tmp_path / "second", "--logs", "job-1")
    stopped = submit("--stop", "job-1")
    assert (stopped.returncode, stopped.stderr) == (0, "")
    assert stopped.stdout.startswith("stopping job-1: it saves a checkpoint first\nstopped: job-1\ncontinue with:   ")
    assert second.wait(SECONDS) == 143
    assert "interrupted: " in (tmp_path / "second").read_text()
    reached = json.loads((cluster.runs / "job-1" / "summary.json").read_text())["env_steps"]

    (again,) = re.findall(r"^continue with:   (.* submit .*)$", (tmp_path / "second").read_text(), flags=re.MULTILINE)
    words = shlex.split(again)[2:]
    env = environment() | {"RAY_AUTH_TOKEN_PATH": str(cluster.token)}
    total = str(reached + 256)
    resumed = subprocess.run(
        [*command(), *words, "--total-timesteps", total], capture_output=True, text=True, cwd=cluster.project, env=env, timeout=SECONDS
    )
    assert (resumed.returncode, resumed.stderr) == (0, ""), resumed.stdout
    assert f"resumed {cluster.runs}/job-1/checkpoints/" in resumed.stdout and "\nfinished: job-1-" in resumed.stdout
    assert json.loads((cluster.runs / "job-1" / "summary.json").read_text())["env_steps"] == reached + 256
    rows, events = read_log(cluster.runs / "job-1" / "metrics.jsonl")
    assert {row["dist/workers"] for row in rows} == {2}, "both nodes' workers were there all the time"
    assert [event for event in events if event["event"] == "fault"] == []
    assert [path.name for path in cluster.runs.iterdir()] == ["job-1"] and not (cluster.project / "runs").exists()


@pytest.mark.ray
@pytest.mark.long
def test_a_job_of_several_seeds_is_stopped_and_goes_on(
    cluster: Cluster, submit: Callable[..., subprocess.CompletedProcess[str]], tmp_path: Path
) -> None:
    """Stopping it has the seed that is at work save; the printed command goes on with that one and trains the other."""
    followed = begun(cluster, tmp_path / "output", "--name", "both", "--", "train", "--config", "endless.yaml", "--seeds", "2")
    stopped = submit("--stop", "both")
    assert (stopped.returncode, stopped.stderr) == (0, "") and "\nstopped: both\n" in stopped.stdout
    assert followed.wait(SECONDS) == 143
    reached = json.loads((cluster.runs / "both" / "seed0" / "summary.json").read_text())["env_steps"]
    assert reached > 0 and not (cluster.runs / "both" / "seed1" / "summary.json").exists()

    (again,) = set(re.findall(r"^continue with:   (.* submit .*)$", (tmp_path / "output").read_text(), flags=re.MULTILINE))
    env = environment() | {"RAY_AUTH_TOKEN_PATH": str(cluster.token)}
    words = [*command(), *shlex.split(again)[2:], "--total-timesteps", str(reached + 256)]
    resumed = subprocess.run(words, capture_output=True, text=True, cwd=cluster.project, env=env, timeout=SECONDS)
    assert (resumed.returncode, resumed.stderr) == (0, ""), resumed.stdout
    assert "finished: 2 of 2 seeds" in resumed.stdout
    for seed in ("seed0", "seed1"):
        assert json.loads((cluster.runs / "both" / seed / "summary.json").read_text())["env_steps"] == -(-(reached + 256) // 128) * 128


@pytest.mark.ray
@pytest.mark.slow
def test_a_job_s_failure_is_the_command_s(submit: Callable[..., subprocess.CompletedProcess[str]]) -> None:
    """Its message is in the log, its exit code is passed on, and the log can be had again."""
    failed = submit("--name", "lost", "--", "train", "--resume", "nowhere-to-be-found")
    assert failed.returncode == 2
    assert "'nowhere-to-be-found' is neither a path nor a run under" in failed.stdout
    assert "\nfailed: lost, exit code 2\n" in failed.stdout
    assert "'nowhere-to-be-found' is neither" in submit("--logs", "lost", "--no-wait").stdout
    unknown = submit("--stop", "lots")
    assert unknown.returncode == 2
    assert unknown.stderr.startswith("error: the cluster has no job lots - did you mean lost?. The newest are:\n  lost  FAILED\n")


@pytest.mark.ray
@pytest.mark.slow
def test_a_cluster_that_asks_for_a_token_does_not_take_jobs_without(
    submit: Callable[..., subprocess.CompletedProcess[str]], tmp_path: Path
) -> None:
    """The token is the user's, and where there is none a line says so."""
    refused = submit("--", "train", "--config", "endless.yaml", HOME=str(tmp_path), RAY_AUTH_TOKEN_PATH="")
    assert refused.returncode == 2
    assert refused.stderr.startswith("error: --address http://127.0.0.1:") and refused.stderr.count("\n") == 1
    assert "set RAY_AUTH_MODE=token and copy ~/.ray/auth_token from its head node" in refused.stderr
