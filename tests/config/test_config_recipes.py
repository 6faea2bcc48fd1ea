"""Who trains with the default settings hears of the recipe that is there."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from distppo.config import load_config
from distppo.config.recipes import recipe_for, recipe_hint

ROOT = Path(__file__).resolve().parents[2]


@pytest.mark.parametrize(
    ("settings", "hint"),
    [
        ({}, "HalfCheetah-v4: --config configs/halfcheetah.yaml"),
        ({"env.id": "Walker2d-v4", "rollout.num_envs": 16}, "Walker2d-v4: --config configs/walker2d.yaml"),
        ({"env.id": "Walker2d-v5"}, "Walker2d-v4: --config configs/walker2d.yaml"),
        ({"env.id": "Walker2d-v4", "ppo.gamma": 0.98}, None),
        ({"env.id": "Walker2d-v4", "network.hidden_sizes": [8]}, None),
        ({"env.id": "Pusher-v4"}, None),
        ({"env.id": "mine:Walker2d-v4"}, None),
    ],
)
def test_a_recipe_is_named_where_nothing_was_chosen(settings: dict[str, Any], hint: str | None, monkeypatch: pytest.MonkeyPatch) -> None:
    """Of any version of the environment."""
    monkeypatch.chdir(ROOT)
    said = recipe_hint(load_config(overrides=settings))
    assert said == ([] if hint is None else [f"these are the default settings; those tuned for {hint}"])


@pytest.mark.parametrize("path", sorted((ROOT / "configs").glob("*.yaml")), ids=lambda path: path.stem)
def test_no_recipe_names_another(path: Path) -> None:
    """Whoever trains with one has chosen."""
    assert recipe_hint(load_config(path)) == []


def test_a_file_named_after_the_environment_counts_first(tmp_path: Path) -> None:
    """Else the first of the alphabet; files that say nothing of it count for nothing."""
    for name, env in (("a", "Big_Hill-v0"), ("big_hill", "Big_Hill-v1"), ("c", "Small-v0"), ("d", "Small-v1"), ("e", "")):
        (tmp_path / f"{name}.yaml").write_text(f"env:\n  id: {env}\n")
    assert recipe_for("Big_Hill-v3", tmp_path) == tmp_path / "big_hill.yaml"
    assert recipe_for("Small-v1", tmp_path) == tmp_path / "c.yaml"
    assert recipe_for("Hill-v0", tmp_path) is None and recipe_for("Hill-v0", tmp_path / "nowhere") is None
