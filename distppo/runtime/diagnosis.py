"""What the checks of `doctor` say, and those that need a process of their own: rendering and Ray."""

from __future__ import annotations

import json
import os
import platform
import subprocess
import sys
from typing import Any, Literal, NamedTuple

State = Literal["ok", "warning", "failure"]
SECONDS = 18.0
"""For what runs in processes of its own, all at once; doctor is to end within 20."""
BACKENDS = {"egl": "apt-get install libegl1 libgl1", "osmesa": "apt-get install libosmesa6", "glfw": "needs a display (DISPLAY is unset)"}
"""MUJOCO_GL on Linux -> how it comes to work, on Debian and Ubuntu."""
_NO_ANSWER = f"within the {SECONDS:g} s there are for everything"
_DRAW = """
import mujoco
model = mujoco.MjModel.from_xml_string("<mujoco><worldbody><light pos='0 0 3'/><geom size='1' rgba='1 0 0 1'/></worldbody></mujoco>")
data = mujoco.MjData(model)
mujoco.mj_forward(model, data)
with mujoco.Renderer(model, 64, 64) as renderer:
    renderer.update_scene(data)
    raise SystemExit(0 if renderer.render().max() > 50 else "the frame is black")
"""
_RAY = """
import json, logging, sys, time
from distppo.runtime import cluster
import ray
began = time.perf_counter()
quiet = {"log_to_driver": False, "logging_level": logging.ERROR}
if sys.argv[1:]:
    ray.init(address=sys.argv[1], **quiet)
else:
    with cluster.on_loopback():
        ray.init(address="local", num_cpus=1, include_dashboard=False, object_store_memory=10**8, **quiet)
started = time.perf_counter() - began
@ray.remote(num_cpus=0)
def versions():
    import platform
    return platform.python_version(), ray.__version__
facts = {"seconds": started, "worker": ray.get(versions.remote()), "resources": ray.cluster_resources()}
print("FACTS" + json.dumps(facts), flush=True)
ray.shutdown()
"""


class Check(NamedTuple):
    """What one check has found.

    Attributes:
        name: of what was looked at.
        state: warning: training works, something else does not or could be better; failure: training would not work.
        found: in one line.
        fix: what to do about it, in one line; empty where nothing is to be done.
    """

    name: str
    state: State
    found: str
    fix: str = ""


class Processes:
    """What runs meanwhile in processes of its own: a frame from each rendering backend, and Ray.

    Args:
        address: of a cluster, else Ray is started on this machine.
    """

    def __init__(self, address: str | None) -> None:
        self._address = address
        linux = sys.platform.startswith("linux")
        self._drawing = {name: _python(_DRAW, MUJOCO_GL=name) for name in BACKENDS} if linux else {"default": _python(_DRAW)}
        self._ray = _python(_RAY, *([address] if address else []))

    def rendering(self, seconds: float) -> list[Check]:
        """Returns what the backends have drawn; one that works is enough, and no training needs any."""
        failed = {name: _failure(process, seconds) for name, process in self._drawing.items()}
        works = [name for name, why in failed.items() if why is None]
        checks = []
        for name, why in failed.items():
            if why is None:
                checks.append(Check(f"render {name}", "ok", "draws a frame"))
            else:
                state: State = "ok" if works else "warning"
                found = f"does not work, but {works[0]} does" if works else f"does not work: {why}"
                checks.append(
                    Check(f"render {name}", state, found, "" if works else BACKENDS.get(name, "see MuJoCo's documentation of MUJOCO_GL"))
                )
        return checks

    def ray(self, seconds: float) -> Check:
        """Returns whether Ray starts, or takes this process in, and runs the same versions everywhere."""
        why = _failure(self._ray, seconds)
        output = self._ray.stdout.read() if self._ray.stdout and why is None else ""
        if self._address:
            return _cluster(self._address, why, output)
        if why == _NO_ANSWER:
            return Check(
                "ray", "warning", f"did not start {why}", "try again when the machine is less busy; --num-workers 0 does without Ray"
            )
        if why is not None:
            return Check("ray", "failure", f"does not start: {why}", "see /tmp/ray/session_latest/logs; --num-workers 0 trains without Ray")
        return Check("ray", "ok", f"{_version('ray')}, starts in {_facts(output)['seconds']:.1f} s")

    def close(self) -> None:
        """Ends what still runs."""
        for process in (*self._drawing.values(), self._ray):
            if process.poll() is None:
                process.kill()
            process.wait()
            for stream in (process.stdout, process.stderr):
                if stream is not None:
                    stream.close()


def _cluster(address: str, why: str | None, output: str) -> Check:
    name = f"cluster {address}"
    if why is not None:
        mismatch = "ersion mismatch" in why
        fix = (
            "run the driver inside the cluster (ray job submit), or install its versions here"
            if mismatch
            else "is it up? ray status there says"
        )
        return Check(name, "failure", why, fix)
    facts = _facts(output)
    python, version = facts["worker"]
    if (python, version) != (platform.python_version(), _version("ray")):
        here = f"here Python {platform.python_version()} and Ray {_version('ray')}"
        return Check(name, "failure", f"Python {python} and Ray {version}, {here}", "run the driver inside the cluster (ray job submit)")
    return Check(name, "ok", f"Python {python}, Ray {version}, {facts['resources'].get('CPU', 0):g} CPUs")


def _facts(output: str) -> dict[str, Any]:
    return dict(json.loads(output.rpartition("FACTS")[2].splitlines()[0]))


def _version(package: str) -> str:
    from importlib.metadata import version

    return version(package)


def _python(code: str, *arguments: str, **variables: str) -> subprocess.Popen[str]:
    environment = os.environ | {"PYTHONPATH": os.pathsep.join(path for path in sys.path if path), **variables}
    command = [sys.executable, "-c", code, *arguments]
    return subprocess.Popen(
        command, env=environment, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, errors="replace"
    )


def _failure(process: subprocess.Popen[str], seconds: float) -> str | None:
    """Returns why a process failed, the last line of what it said; None if it did not."""
    try:
        code = process.wait(max(0.0, seconds))
    except subprocess.TimeoutExpired:
        return _NO_ANSWER
    if code == 0:
        return None
    said = [line.strip() for line in (process.stderr.read() if process.stderr else "").splitlines() if line.strip()]
    return said[-1][:200] if said else f"ended with code {code}"
