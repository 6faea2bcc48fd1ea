"""Chooses how MuJoCo draws: in a window's library where there is a display, else by EGL or OSMesa, whichever really works."""

from __future__ import annotations

import functools
import os
import subprocess
import sys
from typing import NamedTuple

from distppo.errors import UserError

BACKENDS = ("glfw", "egl", "osmesa")
"""What MUJOCO_GL may say on Linux. glfw needs a display; egl is fast where there is a GPU; osmesa draws on the CPU."""
VARIABLE = "MUJOCO_GL"
SECONDS = 60
"""A driver that hangs longer than this counts as broken; a busy machine takes seconds."""

_DRAW_A_FRAME = """
import sys
from importlib import import_module
import mujoco
context = import_module("mujoco." + sys.argv[1]).GLContext(16, 16)
context.make_current()
model = mujoco.MjModel.from_xml_string("<mujoco><worldbody><light pos='0 0 3'/><geom type='sphere' size='9'/></worldbody></mujoco>")
data = mujoco.MjData(model)
mujoco.mj_forward(model, data)
import numpy
target = mujoco.MjrContext(model, mujoco.mjtFontScale.mjFONTSCALE_100)
mujoco.mjr_setBuffer(mujoco.mjtFramebuffer.mjFB_OFFSCREEN, target)
scene, camera, view = mujoco.MjvScene(model, 10), mujoco.MjvCamera(), mujoco.MjrRect(0, 0, 16, 16)
camera.distance = 20
mujoco.mjv_updateScene(model, data, mujoco.MjvOption(), None, camera, mujoco.mjtCatBit.mjCAT_ALL, scene)
mujoco.mjr_render(view, scene, target)
pixels = numpy.zeros((16, 16, 3), numpy.uint8)
mujoco.mjr_readPixels(pixels, None, view, target)
sys.exit(0 if pixels.any() else "the frame it draws is black")
"""


class Probe(NamedTuple):
    """What came of drawing a frame.

    Attributes:
        backend: a name of BACKENDS, or what MUJOCO_GL says.
        problem: why it does not work, in a line; None: it does.
    """

    backend: str
    problem: str | None


def has_display() -> bool:
    """Says whether a window could be opened here."""
    return not sys.platform.startswith("linux") or bool(os.environ.get("DISPLAY") or os.environ.get("WAYLAND_DISPLAY"))


def choose_renderer() -> None:
    """Sets MUJOCO_GL to the first backend that draws, on Linux; a value that is set already stays, and where none draws nothing is set.

    It costs a process of half a second for each backend that is tried, once in a process and the ones it starts.
    """
    if not sys.platform.startswith("linux") or VARIABLE in os.environ:
        return
    working = next((probe for probe in _probes() if probe.problem is None), None)
    if working is not None:
        os.environ[VARIABLE] = working.backend


def require_renderer() -> None:
    """Makes sure that frames can be drawn: `choose_renderer`, and a try of the user's own choice.

    Raises:
        UserError: nothing draws here. Three lines: what was tried, what to install, what else can be set.
    """
    choose_renderer()
    if not sys.platform.startswith("linux"):
        return
    chosen = os.environ.get(VARIABLE)
    if chosen is None:
        tried = "; ".join(f"{probe.backend}: {probe.problem}" for probe in _probes())
        raise UserError(
            f"MuJoCo cannot draw a frame on this machine ({tried})\n"
            "install a software renderer, as on Debian and Ubuntu: apt-get install libegl1 libgl1-mesa-dri (or libosmesa6)\n"
            f"with a GPU its driver's EGL does the same; {VARIABLE}=egl or osmesa chooses one, and evaluating without --record needs none"
        )
    problem = probe_backend(chosen).problem
    if problem is not None:
        raise UserError(
            f"MuJoCo cannot draw a frame with {VARIABLE}={chosen} ({problem})\n"
            f"unset {VARIABLE}: then the first that works of {', '.join(BACKENDS)} is chosen\n"
            "or install what it needs: libegl1 and libgl1-mesa-dri for egl, libosmesa6 for osmesa, a display for glfw"
        )


def _probes() -> list[Probe]:
    """Returns what came of the backends in order, up to the first that works."""
    probes: list[Probe] = []
    for name in BACKENDS:
        if name == "glfw" and not has_display():
            continue
        probes.append(probe_backend(name))
        if probes[-1].problem is None:
            break
    return probes


@functools.cache
def probe_backend(name: str) -> Probe:
    """Draws a frame with a backend, in a process of its own: a broken driver takes down the process that loads it.

    Args:
        name: of BACKENDS.
    """
    if name not in BACKENDS:
        return Probe(name, f"it must be {', '.join(BACKENDS)}")
    environment = {**os.environ, VARIABLE: name, "OMP_NUM_THREADS": "1"}
    environment.pop("PYOPENGL_PLATFORM", None)  # what an import of another backend in this process has set
    command = [sys.executable, "-c", _DRAW_A_FRAME, name]
    try:
        done = subprocess.run(command, env=environment, capture_output=True, text=True, errors="replace", timeout=SECONDS, check=False)
    except subprocess.TimeoutExpired:
        return Probe(name, f"no frame within {SECONDS} s")
    except OSError as error:
        return Probe(name, str(error.strerror))
    return Probe(name, None if done.returncode == 0 else _reason(done.returncode, done.stderr))


def _reason(code: int, output: str) -> str:
    """Returns the reason in a few words: the missing library where that is it, else the last line of the traceback."""
    lines = [line.strip() for line in output.splitlines() if line.strip()]
    if code < 0:
        return f"its driver ended the process with signal {-code}"
    if "NoneType" in output and "glGetError" in output:
        return "its library is not installed"
    return lines[-1].split(": ", 1)[-1][:120] if lines else f"exit code {code}"
