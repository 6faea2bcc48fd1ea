"""Joining a cluster, and asking for more than there is."""

from __future__ import annotations

import json
import os
import re
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from runtime.running import Run, environment, wait_until

from distppo.cli import main
from distppo.errors import ResourceError
from distppo.runtime import cluster as cluster_module
from distppo.runtime.address import Address, find_cluster


def free_port() -> int:
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return int(listener.getsockname()[1])


CLIENT_PORT = free_port()
CLIENT = "import ray; ray.init({!r}, log_to_driver=False, logging_level='ERROR'); print(ray.available_resources().get('CPU'))"


@pytest.fixture(scope="module")
def cluster() -> Iterator[str]:
    """The address of a cluster of two CPUs, started as its administrator would."""
    port = free_port()
    with tempfile.TemporaryDirectory(dir="/tmp", prefix="ray") as directory:  # short, since there will be sockets in it
        argv = ["start", "--head", "--num-cpus=2", f"--port={port}", "--include-dashboard=false", "--block", f"--temp-dir={directory}"]
        argv.append(f"--ray-client-server-port={CLIENT_PORT}")
        with open(Path(directory) / "output", "w") as output:
            head = subprocess.Popen([sys.executable, "-m", "ray.scripts.scripts", *argv], stdout=output, stderr=output, env=environment())
        wait_until(lambda: "Ray runtime started" in (Path(directory) / "output").read_text(), 60, "the cluster is up")
        yield f"127.0.0.1:{port}"
        head.send_signal(signal.SIGTERM)
        head.wait(30)


@pytest.mark.ray
def test_a_cluster_is_joined_and_left_as_it_was(
    cluster: str, launch: Callable[..., subprocess.CompletedProcess[str]], small_file: str, tmp_path: Path
) -> None:
    """It asks for a token, as Ray's do by default; it goes on without us, and none of our actors stays."""
    done = launch("train", "--config", small_file, "--num-workers", "1", "--address", cluster, "--run-dir", "run")
    assert (done.returncode, done.stderr) == (0, "")
    assert "on Ray, 1 worker and 1 learner, 1 node" in done.stdout
    assert json.loads((tmp_path / "run" / "summary.json").read_text())["env_steps"] == 384
    client, with_token = [sys.executable, "-c", CLIENT.format(cluster)], environment() | {"RAY_AUTH_MODE": "token"}
    left = subprocess.run(client, env=with_token, capture_output=True, text=True, check=True, timeout=60)
    assert left.stdout == "2.0\n"


@pytest.mark.slow
@pytest.mark.ray
def test_a_driver_outside_of_the_cluster_reaches_it_through_its_client_server(
    cluster: str, launch: Callable[..., subprocess.CompletedProcess[str]], small_file: str, tmp_path: Path
) -> None:
    """ray:// is the same run."""
    arguments = ("train", "--config", small_file, "--num-workers", "1", "--address", f"ray://127.0.0.1:{CLIENT_PORT}", "--run-dir", "run")
    done = launch(*arguments)
    assert (done.returncode, done.stderr) == (0, "")
    assert json.loads((tmp_path / "run" / "summary.json").read_text())["env_steps"] == 384


@pytest.mark.ray
def test_a_cluster_that_is_too_small_is_told(
    cluster: str, launch: Callable[..., subprocess.CompletedProcess[str]], small_file: str
) -> None:
    """Needed against available, exit code 2."""
    done = launch("train", "--config", small_file, "--num-workers", "2", "--address", cluster)
    assert done.returncode == 2
    assert done.stderr.startswith(
        "error: the cluster is too small for this run. CPU: needed 3, in the cluster 2, free 2. Lower rollout.num_w"
    )
    assert done.stderr.count("\n") == 1


@pytest.mark.parametrize(("address", "reason"), [("127.0.0.1:{}", "refused"), ("no-such-host.invalid:6379", ""), ("127.0.0.1:99999", "")])
def test_an_address_that_does_not_answer_is_told_within_seconds(
    address: str, reason: str, small_file: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """One message and exit code 2, before a run directory is made; in RAY_ADDRESS as in --address."""
    monkeypatch.chdir(tmp_path)
    address = address.format(free_port())
    argv = ["train", "--config", small_file, "--num-workers", "1"]
    began = time.monotonic()
    assert main([*argv, "--address", address]) == 2
    message = capsys.readouterr().err
    assert message.startswith(f"error: --address {address}: nothing answers there (") and reason in message and message.count("\n") == 1
    monkeypatch.setenv("RAY_ADDRESS", address)
    assert main(argv) == 2
    assert capsys.readouterr().err.startswith("error: RAY_ADDRESS: nothing answers there (")
    assert time.monotonic() - began < 20
    assert list(tmp_path.iterdir()) == []


def test_without_an_address_a_cluster_is_started_here(monkeypatch: pytest.MonkeyPatch) -> None:
    """Also where the word for it is said; --address counts over RAY_ADDRESS."""
    monkeypatch.delenv("RAY_ADDRESS", raising=False)
    assert find_cluster(None) is find_cluster("local") is None
    monkeypatch.setenv("RAY_ADDRESS", "auto")
    assert find_cluster("local") is None


def test_auto_is_the_cluster_of_this_machine_or_told_that_there_is_none(monkeypatch: pytest.MonkeyPatch) -> None:
    """Other tests, or other people, may have a Ray here; one that is named for it and gone is not waited for."""
    monkeypatch.delenv("RAY_ADDRESS", raising=False)
    try:
        assert find_cluster("auto") == ("auto", "--address auto")
    except ResourceError as error:
        assert re.search(r"--address auto: (no Ray runs on this machine\. `ray start --head` starts|nothing answers there)", str(error))
    monkeypatch.setenv("RAY_ADDRESS", f"127.0.0.1:{free_port()}")
    with pytest.raises(ResourceError, match=r"--address auto: nothing answers there"):
        find_cluster("auto")
    with pytest.raises(ResourceError, match=r"--address head: a cluster is named as auto, HOST:PORT .* or ray://HOST:PORT"):
        find_cluster("head")


def test_a_traceback_from_the_other_side_is_a_line(monkeypatch: pytest.MonkeyPatch) -> None:
    """Ray's client raises with pages in it; what begins and what ends them is what happened."""
    text = 'Initialization failure from server:\nTraceback (most recent call last):\n  File "x.py", line 1\nZombieProcess: pid=3\n.'

    def fails(**_: Any) -> None:
        raise ConnectionError(text)

    monkeypatch.setattr("ray.init", fails)
    with pytest.raises(ResourceError) as caught:
        cluster_module._join(Address("ray://there:1", "--address ray://there:1"))
    said = "--address ray://there:1: Initialization failure from server: ZombieProcess: pid=3. If it wants a token, "
    assert str(caught.value).startswith(said) and "\n" not in str(caught.value)


def test_the_token_is_given_to_this_machine_only_and_never_against_a_setting(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Ray keeps it to itself where a cluster is named, since the name may be anybody's."""
    monkeypatch.setenv("HOME", str(tmp_path))
    for name in ("RAY_AUTH_MODE", "RAY_AUTH_TOKEN", "RAY_AUTH_TOKEN_PATH"):
        monkeypatch.delenv(name, raising=False)
    with socket.create_server(("127.0.0.1", 0)) as server:
        address = f"127.0.0.1:{server.getsockname()[1]}"
        find_cluster(address)
        assert "RAY_AUTH_MODE" not in os.environ
        (tmp_path / ".ray").mkdir()
        (tmp_path / ".ray" / "auth_token").touch()
        monkeypatch.setenv("RAY_AUTH_MODE", "disabled")
        find_cluster(address)
        assert os.environ["RAY_AUTH_MODE"] == "disabled"
        monkeypatch.delenv("RAY_AUTH_MODE")
        find_cluster(address)
        assert os.environ.pop("RAY_AUTH_MODE") == "token"
    # Linux answers on every 127.x address but calls from 127.0.0.1 alone, as if somebody else were called.
    with socket.create_server(("127.0.0.2", 0)) as server:
        find_cluster(f"127.0.0.2:{server.getsockname()[1]}")
        assert "RAY_AUTH_MODE" not in os.environ


@pytest.mark.ray
def test_more_cpus_than_there_are_is_told_at_once(small: Callable[..., Run], shared_ray: Any) -> None:
    """Without waiting for fault.startup_timeout, which is two minutes."""
    began = time.monotonic()
    with pytest.raises(ResourceError, match=r"the cluster is too small for this run\. CPU: needed 5, in the cluster 4, free 4\. Lower"):
        small({"rollout.num_workers": 4})
    assert time.monotonic() - began < 30


@pytest.mark.ray
def test_cpus_that_others_hold_are_told_after_the_timeout(small: Callable[..., Run], shared_ray: Any) -> None:
    """Actors that cannot be scheduled do not hang, and none of ours is left waiting."""

    class Holder:
        def ready(self) -> None:
            pass

    holder = shared_ray.remote(num_cpus=2)(Holder).remote()
    shared_ray.get(holder.ready.remote())
    try:
        message = r"4 actors of this run could not be placed within 3 s \(fault\.startup_timeout\)\. CPU: needed 4, .* free 2"
        with pytest.raises(ResourceError, match=message):
            small({"rollout.num_workers": 3, "fault.startup_timeout": 3})
    finally:
        shared_ray.kill(holder)
    wait_until(lambda: shared_ray.available_resources().get("CPU") == 4, 10, "every actor has ended")
