"""Clusters of Ray's cluster launcher: their file checked before anything is started, `ray up`, and a tunnel to their dashboard."""

from __future__ import annotations

import contextlib
import http.client
import importlib.util
import io
import os
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import IO, Any

import jsonschema
import yaml
from ray.autoscaler._private.util import prepare_config, validate_config

from distppo.config.suggest import printable
from distppo.errors import ResourceError, UserError
from distppo.runtime.address import ANSWER_SECONDS, Address, has_token
from distppo.runtime.jobs import DASHBOARD_PORT

EXAMPLE_HOSTS = "192.0.2."
"""RFC 5737 keeps these addresses for documentation; cluster.yaml has them where a user's hosts belong."""
TOOLS = ("ssh", "rsync")
SDKS = {"aws": ("boto3", "boto3"), "gcp": ("googleapiclient", "google-api-python-client")}
"""Module and package of what Ray needs for a cloud and does not bring along."""
_RAY = (sys.executable, "-m", "ray.scripts.scripts")
_TUNNEL_SECONDS = 60.0
_POLL_SECONDS = 0.2


def read_cluster_file(path: Path) -> dict[str, Any]:
    """Returns what is in a cluster launcher's file, with Ray's defaults filled in.

    Raises:
        UserError: it cannot be read, or Ray would refuse it.
    """
    output = io.StringIO()
    try:
        raw = yaml.safe_load(path.read_text(encoding="utf-8"))
        if not isinstance(raw, dict) or not isinstance(raw.get("provider"), dict):
            raise UserError(f"{path} is no cluster launcher's file: it has no provider")
        with contextlib.redirect_stdout(output), contextlib.redirect_stderr(output):  # Ray prints its reasons, and raises nothing in words
            prepared: dict[str, Any] = prepare_config(raw)
            validate_config(prepared)
        return prepared
    except UserError:
        raise
    except OSError as error:
        raise UserError(f"{path}: {error.strerror}") from error
    except jsonschema.ValidationError as error:
        place = "".join(f"{each}: " for each in error.absolute_path)
        raise UserError(f"{path}: {place}{printable(error.message)}") from error
    except Exception as error:
        reason = " ".join((str(error) or output.getvalue()).split())
        raise UserError(f"{path}: {printable(reason)}") from error


def require_launchable(path: Path, config: dict[str, Any]) -> None:
    """Raises UserError if the cluster cannot be started from here, or its file is not filled in."""
    provider = config["provider"]
    hosts = [provider.get("head_ip"), *provider.get("worker_ips", [])]
    examples = [host for host in hosts if str(host).startswith(EXAMPLE_HOSTS)]
    if examples:
        raise UserError(f"{path}: provider: {', '.join(examples)} stand for your hosts; put their names or addresses in")
    missing = [tool for tool in TOOLS if shutil.which(tool) is None]
    if missing:
        raise UserError(f"--cluster {path} needs {' and '.join(missing)} on this machine, with which Ray reaches the nodes")
    module, package = SDKS.get(provider["type"], ("ray", "ray"))
    if importlib.util.find_spec(module) is None:
        raise UserError(f"{path}: provider {provider['type']} needs the Python package {package}: pip install {package}")


def bring_up(path: Path) -> None:
    """Starts the cluster, or brings the one that is up to the state of its file; what runs there goes on.

    Raises:
        ResourceError: it does not start. What Ray says of it has been printed.
    """
    if not has_token():  # cluster.yaml brings it to every node
        subprocess.run([*_RAY, "get-auth-token", "--generate"], stdout=subprocess.DEVNULL, check=False)
    # Paths in the file are relative to where it is.
    command = [*_RAY, "up", "--yes", "--no-restart", "--disable-usage-stats", path.name]
    code = subprocess.run(command, cwd=path.parent, stdin=subprocess.DEVNULL, check=False).returncode
    if code != 0:
        raise ResourceError(f"--cluster {path}: ray up has failed (exit code {code}); the reason is above")


@contextlib.contextmanager
def tunnel(path: Path) -> Iterator[Address]:
    """Forwards a port of this machine's loopback to the dashboard of the cluster while the block runs.

    Yields:
        The dashboard's address here.

    Raises:
        ResourceError: there is no way to the head node, or no dashboard on it.
    """
    port = _free_port()
    command = [*_RAY, "dashboard", "--port", str(port), "--remote-port", str(DASHBOARD_PORT), path.name]
    with tempfile.TemporaryFile("w+") as output:
        process = subprocess.Popen(command, cwd=path.parent, stdin=subprocess.DEVNULL, stdout=output, stderr=output, start_new_session=True)
        try:
            _wait_for(port, process, path, output)
            os.environ.setdefault("RAY_AUTH_MODE", "token" if has_token() else "disabled")
            yield Address(f"http://127.0.0.1:{port}", f"--cluster {path}")
        finally:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGTERM)
            process.wait()


def _wait_for(port: int, process: subprocess.Popen[bytes], path: Path, output: IO[str]) -> None:
    deadline = time.monotonic() + _TUNNEL_SECONDS
    while not _answers(port):
        if process.poll() is None and time.monotonic() < deadline:
            time.sleep(_POLL_SECONDS)
            continue
        output.seek(0)
        said = [line.strip() for line in output.read().splitlines() if line.strip()]
        reason = printable(said[-1]) if said and process.poll() is not None else f"not within {_TUNNEL_SECONDS:.0f} s"
        raise ResourceError(f"--cluster {path}: its dashboard cannot be reached ({reason}). Is it up? `ray up {path}` starts it")


def _answers(port: int) -> bool:
    """Says whether something speaks HTTP there; the tunnel alone takes connections before there is a dashboard behind it."""
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=ANSWER_SECONDS)
    try:
        connection.request("GET", "/api/version")
        connection.getresponse()
    except (OSError, http.client.HTTPException):
        return False
    finally:
        connection.close()
    return True


def _free_port() -> int:
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return int(listener.getsockname()[1])
