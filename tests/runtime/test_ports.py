"""What a local run listens on, and whom it lets in: real sockets of a real run."""

from __future__ import annotations

import os
import socket
import struct
import subprocess
from collections.abc import Callable
from pathlib import Path

import grpc
import pytest
from runtime.running import SECONDS, processes_of, wait_until

LISTENING = "0A"
ASKED = "/ray.rpc.NodeInfoGcsService/GetAllNodeInfo"
"""A call that any process which joins a cluster makes."""


def listening(pids: set[int]) -> dict[tuple[int, int], str]:
    """Returns (pid, port) -> address of every TCP socket that these processes listen on."""
    owners = {}
    for pid in pids:
        for descriptor in Path(f"/proc/{pid}/fd").iterdir():
            try:
                owners[os.readlink(descriptor)] = pid
            except OSError:
                continue
    found = {}
    for table, family in (("tcp", socket.AF_INET), ("tcp6", socket.AF_INET6)):
        for line in Path("/proc/net", table).read_text().splitlines()[1:]:
            local, state, inode = (line.split()[index] for index in (1, 3, 9))
            owner = owners.get(f"socket:[{inode}]")
            if state == LISTENING and owner is not None:
                number, port = local.split(":")
                words = struct.unpack(f">{len(number) // 8}I", bytes.fromhex(number))
                found[owner, int(port, 16)] = socket.inet_ntop(family, struct.pack(f"<{len(words)}I", *words))
    return found


@pytest.mark.slow
@pytest.mark.ray
def test_a_local_run_listens_on_loopback_alone_and_asks_for_its_token(
    started: Callable[..., subprocess.Popen[bytes]], small_file: str, tmp_path: Path
) -> None:
    """Nothing that Ray or learners open can be reached from another machine, and on this one nobody joins without the user's token."""
    run = tmp_path / "run"
    settings = ["--num-workers", "2", "--set", "learner.num_learners=2", "--total-timesteps", "1e9", "--run-dir", str(run)]
    process = started("train", "--config", small_file, *settings)
    metrics = run / "metrics.jsonl"
    wait_until(lambda: metrics.exists() and metrics.read_text().count("time/total_timesteps"), SECONDS, "a row of metrics")
    processes = processes_of(process.pid)
    sockets = listening(set(processes))
    assert len(sockets) > 5
    assert {address.removeprefix("::ffff:") for address in sockets.values()} == {"127.0.0.1"}, sockets
    (control,) = {port for pid, port in sockets if "gcs_server" in processes[pid]}
    with grpc.insecure_channel(f"127.0.0.1:{control}") as channel:
        ask = channel.unary_unary(ASKED, request_serializer=None, response_deserializer=None)
        for metadata in ([], [("authorization", "Bearer 0123456789abcdef")]):
            with pytest.raises(grpc.RpcError) as caught:
                ask(b"", timeout=SECONDS, metadata=metadata)
            assert caught.value.code() is grpc.StatusCode.UNAUTHENTICATED
        token = (Path.home() / ".ray" / "auth_token").read_text().strip()
        assert ask(b"", timeout=SECONDS, metadata=[("authorization", f"Bearer {token}")])
    assert process.poll() is None
