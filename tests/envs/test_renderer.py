"""Drawing without a display: what works is found by drawing, what does not is explained, and the user's own choice stays."""

from __future__ import annotations

import json
import os
import subprocess
import sys

import pytest
from runtime.running import environment

from distppo.envs import renderer
from distppo.envs.renderer import BACKENDS, choose_renderer, has_display, probe_backend, require_renderer
from distppo.errors import UserError

pytestmark = pytest.mark.skipif(not sys.platform.startswith("linux"), reason="macOS and Windows have one way to draw")
NO_DRIVERS = {"__EGL_VENDOR_LIBRARY_FILENAMES": "/dev/null", "LD_LIBRARY_PATH": "", "DISPLAY": "", "WAYLAND_DISPLAY": ""}
"""Variables under which EGL finds no driver, as in a container without one."""


@pytest.fixture(autouse=True)
def untouched(monkeypatch: pytest.MonkeyPatch) -> None:
    """Nothing chosen, nothing remembered, no display; the process is as before afterwards."""
    for name in ("MUJOCO_GL", "DISPLAY", "WAYLAND_DISPLAY"):
        monkeypatch.setenv(name, "")  # so that what is chosen in the test is undone
        monkeypatch.delenv(name)
    probe_backend.cache_clear()


def working() -> list[str]:
    return [name for name in BACKENDS[1:] if probe_backend(name).problem is None]


def test_the_first_that_draws_is_chosen() -> None:
    """EGL before OSMesa, no window's library without a display, and nothing where neither draws."""
    choose_renderer()
    assert os.environ.get("MUJOCO_GL") == next(iter(working()), None)
    assert not has_display()


def test_what_the_user_has_set_stays(monkeypatch: pytest.MonkeyPatch) -> None:
    """Whether it works or not."""
    monkeypatch.setenv("MUJOCO_GL", "osmesa")
    choose_renderer()
    assert os.environ["MUJOCO_GL"] == "osmesa"


def test_a_new_process_draws_a_moving_body_with_what_was_chosen() -> None:
    """Chosen after mujoco was imported, as where a notebook has imported it: still early enough."""
    if not working():
        pytest.skip("neither libEGL nor libOSMesa draws on this machine")
    code = (
        "import json, mujoco, os; from distppo.config.schema import EnvConfig; from distppo.envs import make_env;"
        "env, _ = make_env(EnvConfig('HalfCheetah-v4', {'render_mode': 'rgb_array', 'width': 64, 'height': 64}));"
        "env.reset(seed=0); first = env.render();"
        "[env.step(env.action_space.high) for _ in range(5)];"
        "print(json.dumps([os.environ['MUJOCO_GL'], first.shape, int((first != env.render()).sum())]))"
    )
    done = subprocess.run([sys.executable, "-c", code], env=environment(), capture_output=True, text=True, check=True, timeout=120)
    name, shape, different = json.loads(done.stdout)
    assert name == working()[0] and shape == [64, 64, 3] and different > 50


def test_where_nothing_draws_three_lines_say_so(monkeypatch: pytest.MonkeyPatch) -> None:
    """What was tried and why it failed, what to install, what to set; training goes on without."""
    for name, value in NO_DRIVERS.items():
        monkeypatch.setenv(name, value)
    if probe_backend("osmesa").problem is None:
        pytest.skip("libOSMesa is installed, which draws without any driver")
    choose_renderer()
    assert "MUJOCO_GL" not in os.environ
    with pytest.raises(UserError) as failure:
        require_renderer()
    first, second, third = str(failure.value).splitlines()
    assert first.startswith("MuJoCo cannot draw a frame on this machine (egl: ") and "osmesa: its library is not installed" in first
    assert "apt-get install" in second and "MUJOCO_GL" in third


@pytest.mark.parametrize("value", ["vulkan", "glfw"])
def test_a_choice_of_the_user_s_that_does_not_draw_is_told(value: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """By its value, with the way back to what works."""
    monkeypatch.setenv("MUJOCO_GL", value)
    with pytest.raises(UserError, match=f"(?s)with MUJOCO_GL={value} .*\nunset MUJOCO_GL") as failure:
        require_renderer()
    assert len(str(failure.value).splitlines()) == 3


def test_a_driver_that_ends_its_process_takes_nothing_else_down(monkeypatch: pytest.MonkeyPatch) -> None:
    """The frame is drawn in another process: here one that kills itself, as a broken driver does."""
    monkeypatch.setattr(renderer, "_DRAW_A_FRAME", "import os; os.kill(os.getpid(), 11)")
    assert probe_backend("egl").problem == "its driver ended the process with signal 11"


def test_an_environment_that_draws_nothing_costs_no_probe() -> None:
    """Training on positions and velocities neither waits for a driver nor can fail for one."""
    code = (
        "import os; from distppo.config import Config; from distppo.envs import make_env; make_env(Config().env)[0].reset();"
        "print(os.environ.get('MUJOCO_GL'))"
    )
    done = subprocess.run([sys.executable, "-c", code], env=environment(), capture_output=True, text=True, check=True, timeout=120)
    assert done.stdout.strip() == "None"
