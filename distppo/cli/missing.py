"""What to say when a package that distppo needs is not installed."""

from __future__ import annotations

import sys
from pathlib import Path

_PACKAGES = {
    "gymnasium": "gymnasium[mujoco]",
    "mujoco": "gymnasium[mujoco]",
    "numba": "numba",
    "numpy": "numpy",
    "onnx": "onnx",
    "onnxruntime": "onnxruntime",
    "ray": "ray[default,tune]",
    "rich": "rich",
    "safetensors": "safetensors",
    "scipy": "scipy",
    "tensorboardX": "tensorboardX",
    "torch": "torch",
    "yaml": "pyyaml",
}


def explain_missing(module: str) -> str | None:
    """Returns one line with the way out, or None if the module is none of distppo's dependencies."""
    package = _PACKAGES.get(module.partition(".")[0])
    if package is None:
        return None
    here = Path(__file__).resolve().parents[2]
    prepared = here / ".venv" / "bin" / "python"
    if prepared.exists() and Path(sys.prefix).resolve() != (here / ".venv").resolve():
        way_out = f"this is {sys.executable}; use {prepared} instead, which was set up for it"
    elif (here / "Makefile").exists():
        way_out = f"run `make setup` in {here} and use .venv/bin/python, or `{sys.executable} -m pip install '{package}'`"
    else:
        way_out = f"run `{sys.executable} -m pip install '{package}'`"
    return f"the Python package {package} is not installed: {way_out}"
