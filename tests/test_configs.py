"""The recipes that are shipped."""

from __future__ import annotations

import importlib
from pathlib import Path

import gymnasium as gym
import pytest

import distppo

ROOT = Path(__file__).resolve().parent.parent
CONFIGS = sorted((ROOT / "configs").glob("*.yaml"))
ENVIRONMENTS = {"ant", "halfcheetah", "hopper", "humanoid", "swimmer", "walker2d"}


def test_every_environment_has_a_recipe() -> None:
    """The six environments of the scores' table and the quickstart are there."""
    assert ENVIRONMENTS | {"quickstart"} <= {path.stem for path in CONFIGS}


@pytest.mark.parametrize("path", CONFIGS, ids=lambda path: path.name)
def test_a_recipe_loads_and_names_an_environment_that_exists(path: Path) -> None:
    """Keys, types, limits and the arithmetic of batch and minibatch are right, and gymnasium knows the id."""
    config = distppo.load_config(path)
    module, _, name = config.env.id.rpartition(":")
    if module:
        importlib.import_module(module)
    gym.spec(name)
    assert config.batch_size % config.ppo.mini_batch_size == 0


@pytest.mark.parametrize("name", sorted(ENVIRONMENTS))
def test_a_recipe_is_named_after_its_environment(name: str) -> None:
    """configs/walker2d.yaml trains Walker2d-v4, the version the published scores are of."""
    assert distppo.load_config(ROOT / "configs" / f"{name}.yaml").env.id.lower() == f"{name}-v4"


@pytest.mark.parametrize("path", CONFIGS, ids=lambda path: path.name)
def test_a_recipe_says_how_to_run_it(path: Path) -> None:
    """The comment at the top of a file holds the command that trains with this file."""
    header = path.read_text(encoding="utf-8").split("\n\n")[0]
    assert f"launch.py train --config configs/{path.name}" in header
