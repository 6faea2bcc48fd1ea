"""A machine that can draw."""

from __future__ import annotations

import pytest

from distppo.envs.renderer import BACKENDS, probe_backend


@pytest.fixture
def drawing(monkeypatch: pytest.MonkeyPatch) -> None:
    """A machine that draws MuJoCo without a display, and has not chosen how."""
    for name in ("DISPLAY", "WAYLAND_DISPLAY", "MUJOCO_GL"):
        monkeypatch.setenv(name, "")
        monkeypatch.delenv(name)
    if all(probe_backend(name).problem for name in BACKENDS[1:]):
        pytest.skip("neither libEGL nor libOSMesa draws on this machine")
