"""A policy takes what the environment gives: a dict, a tuple, a whole number, an array."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import gymnasium as gym
import numpy as np
import pytest
from gymnasium import spaces

from distppo import export_policy, load_policy, train

SETTINGS: dict[str, Any] = {"num_workers": 0, "num_envs": 2, "num_steps": 32, "mini_batch_size": 32, "total_timesteps": 64, "epochs": 1}


@pytest.mark.parametrize("env_id", ["FrozenLake-v1", "Blackjack-v1"])
def test_it_acts_on_them_as_it_was_trained(env_id: str, tmp_path: Path) -> None:
    """From the checkpoint and from an exported file, one or several, as on the flattened vector."""
    run = train(overrides={"env.id": env_id, "run.directory": str(tmp_path / "run")}, progress=False, **SETTINGS).run_directory
    exported = load_policy(export_policy(run, format="numpy", output=tmp_path / "policy.npz").path)
    space = gym.make(env_id).observation_space
    space.seed(0)
    samples = [space.sample() for _ in range(5)]
    for policy in (load_policy(run), exported):
        expected = [policy.act(spaces.flatten(space, sample)) for sample in samples]
        assert [policy.act(sample) for sample in samples] == expected
        np.testing.assert_array_equal(policy.act(samples), expected)
        with pytest.raises(ValueError, match=r"observation|flattened"):
            policy.act(-1 if env_id.startswith("Frozen") else (99, 1, 1))


def test_a_run_goes_on_from_a_path(tmp_path: Path) -> None:
    """As `run_directory` is one."""
    first = train(overrides={"env.id": "FrozenLake-v1", "run.directory": str(tmp_path / "run")}, progress=False, **SETTINGS)
    again = train(resume=first.run_directory, progress=False, total_timesteps=128)
    assert again.run_directory == first.run_directory and again.summary["env_steps"] == 128
