"""Chooses how MuJoCo renders where there is no screen, which has to happen before mujoco is imported."""

from __future__ import annotations

import ctypes
import os
import sys

LIBRARIES = {"egl": "libEGL.so.1", "osmesa": "libOSMesa.so.8"}
"""What MUJOCO_GL may say for rendering without a screen, the faster first, and the system library that it takes."""


def choose_renderer() -> None:
    """Sets MUJOCO_GL to egl, else osmesa, on Linux without a display; a value that is set already stays."""
    if not sys.platform.startswith("linux") or os.environ.get("DISPLAY") or "MUJOCO_GL" in os.environ:
        return
    for name, library in LIBRARIES.items():
        try:
            ctypes.CDLL(library)
        except OSError:
            continue
        os.environ["MUJOCO_GL"] = name
        return
