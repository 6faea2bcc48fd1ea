"""`submit --cluster`: Ray's cluster launcher through a real SSH server, on an address of this machine's loopback.

It needs root, openssh-server and rsync, port 8265 free, and writes what `ray up` writes into the home of root: so it runs only where
DISTPPO_TEST_SSH=1 says that it may (`DISTPPO_TEST_SSH=1 make test-long ARGS="-k launcher"`).
"""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest
from runtime.running import SECONDS, SMALL, command, environment, wait_until

from distppo.config import dump_config, load_config

HOST = "127.77.0.1"
SSHD = shutil.which("sshd", path=f"{os.environ.get('PATH', '')}:/usr/sbin")
HOME = Path("~").expanduser()
LEFT_AT_HOME = ("ray_bootstrap_config.yaml", "ray_bootstrap_key.pem")
SSHD_CONFIG = """
ListenAddress {host}:22
HostKey {folder}/host
AuthorizedKeysFile {folder}/key.pub
PidFile {folder}/pid
StrictModes no
UsePAM no
PermitRootLogin prohibit-password
"""
CLUSTER = """
cluster_name: {name}
provider: {{type: local, head_ip: {host}, worker_ips: []}}
auth: {{ssh_user: root, ssh_private_key: {folder}/key}}
file_mounts: {{{folder}/mounted: .}}
head_start_ray_commands:
  - PATH={bin}:$PATH RAY_AUTH_MODE=token ray start --head --num-cpus=3 --port=0 --dashboard-host=127.0.0.1 --temp-dir={folder}/ray
      --disable-usage-stats
worker_start_ray_commands: []
"""

pytestmark = [
    pytest.mark.ray,
    pytest.mark.long,
    pytest.mark.skipif(os.environ.get("DISTPPO_TEST_SSH") != "1", reason="DISTPPO_TEST_SSH=1 is not set: it writes into the home of root"),
    pytest.mark.skipif(os.geteuid() != 0 or SSHD is None or not shutil.which("rsync"), reason="needs root, openssh-server and rsync"),
]


def processes_with(text: str) -> list[int]:
    """Numbers of the processes whose command line has the text in it; this one's and zombies' not."""
    found = []
    for path in Path("/proc").glob("[0-9]*/cmdline"):
        with contextlib.suppress(OSError):
            if text in path.read_bytes().replace(b"\0", b" ").decode(errors="replace") and int(path.parent.name) != os.getpid():
                found.append(int(path.parent.name))
    return found


@pytest.fixture
def folder() -> Iterator[Path]:
    """A short path, with an SSH server that lets a key in; afterwards nothing of it or of the cluster runs."""
    before = {name for name in LEFT_AT_HOME if (HOME / name).exists()}
    with tempfile.TemporaryDirectory(dir="/tmp", prefix="ssh") as name:
        folder = Path(name)
        for key in ("host", "key"):
            subprocess.run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", str(folder / key)], check=True)
        (folder / "sshd_config").write_text(SSHD_CONFIG.format(host=HOST, folder=folder))
        Path("/run/sshd").mkdir(exist_ok=True)
        assert SSHD is not None
        server = subprocess.Popen([SSHD, "-D", "-e", "-f", str(folder / "sshd_config")], stderr=subprocess.DEVNULL)
        try:
            yield folder
        finally:
            server.terminate()
            server.wait(SECONDS)
            for process in processes_with(name):
                with contextlib.suppress(ProcessLookupError):
                    os.kill(process, signal.SIGKILL)
            wait_until(lambda: not processes_with(name), SECONDS, "nothing of the cluster runs")
            for left in set(LEFT_AT_HOME) - before:
                (HOME / left).unlink(missing_ok=True)
            (Path(tempfile.gettempdir()) / "ray" / f"cluster-{folder.name}.state").unlink(missing_ok=True)


def test_a_cluster_is_started_and_gets_a_job(folder: Path) -> None:
    """`ray up` through SSH, files sent, a tunnel to the dashboard, the job followed to its end; its log can be had again."""
    project = folder / "project"
    project.mkdir()
    shutil.copy(Path(__file__).parents[1] / "probe_envs.py", project)
    (project / "small.yaml").write_text(dump_config(load_config(overrides=SMALL | {"rollout.num_workers": 2})))
    binaries = Path(sys.executable).parent
    (project / "cluster.yaml").write_text(CLUSTER.format(name=folder.name, host=HOST, folder=folder, bin=binaries))

    def submit(*argv: str) -> subprocess.CompletedProcess[str]:
        words = command("submit", "--cluster", "cluster.yaml", "--runs", str(folder / "runs"), *argv)
        return subprocess.run(words, capture_output=True, text=True, cwd=project, env=environment(), timeout=2 * SECONDS, check=False)

    done = submit("--name", "first", "--python", sys.executable, "--", "train", "--config", "small.yaml")
    assert done.returncode == 0, done.stdout + done.stderr
    assert "on Ray, 2 workers and 1 learner" in done.stdout and "\nfinished: first\n" in done.stdout
    assert (folder / "mounted" / "small.yaml").is_file(), "ray up has sent the files that it was told to"
    assert json.loads((folder / "runs" / "first" / "summary.json").read_text())["env_steps"] == SMALL["run.total_timesteps"]
    again = submit("--logs", "first", "--no-wait")
    assert again.returncode == 0 and "finished: " in again.stdout
    wait_until(lambda: not processes_with("ray.scripts.scripts dashboard"), SECONDS, "the tunnel is closed")
