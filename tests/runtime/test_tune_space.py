"""Search spaces: what is drawn, what is varied, and what is refused before anything starts."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from runtime.running import ROOT

from distppo.config import Config, load_config
from distppo.errors import ConfigError, UserError
from distppo.runtime.tune.request import Request, is_mutable, require_sound, trial_config
from distppo.runtime.tune.space import Space
from distppo.runtime.tune.space_file import SearchSpace, read_search_space, restored_settings

SPACE = """
space:
  ppo:
    lr_schedule: {choice: [constant, kl]}
    lr_schedule_kl: {loguniform: [1e-3, 1e-1], when: {ppo.lr_schedule: kl}}
    learning_rate: {loguniform: [1e-5, 1e-2]}
    gamma: {uniform: [0.9, 0.999]}
    epochs: {int: [1, 3]}
    target_kl: {choice: [off, 0.02]}
  network:
    hidden_sizes: {choice: [[16], [32, 32]]}
  env:
    kwargs:
      length: {int: [5, 10]}
"""


@pytest.fixture
def read(tmp_path: Path) -> Callable[[str], SearchSpace]:
    """Reads a text as a file called space.yaml."""

    def reader(text: str) -> SearchSpace:
        path = tmp_path / "space.yaml"
        path.write_text(text)
        return read_search_space(path)

    return reader


@pytest.fixture
def space(read: Callable[[str], SearchSpace]) -> Space:
    return read(SPACE).space


def request(found: SearchSpace, config: Config | None = None, **fields: Any) -> Request:
    given = {"trials": 4, "scheduler": "asha", "search": "random", "workers": 0, "max_concurrent": None, "address": None} | fields
    return Request(config or load_config(), found, Path("space.yaml"), **given)


def test_settings_are_drawn_from_seed_and_number_alone(space: Space) -> None:
    """Whoever goes on with a search, in whatever order, has the same trials."""
    assert space.drawn(3, 7) == space.drawn(3, 7)
    assert len({repr(space.drawn(3, number)) for number in range(20)}) == 20
    assert space.drawn(3, 7) != space.drawn(4, 7)


def test_settings_are_within_the_space_and_fit_a_config(space: Space) -> None:
    """Ranges include their ends, choices have the schema's types, and a condition decides who is there."""
    drawn = [space.drawn(0, number) for number in range(400)]
    assert all(1e-5 <= settings["ppo.learning_rate"] <= 1e-2 for settings in drawn)
    assert {settings["ppo.epochs"] for settings in drawn} == {1, 2, 3}
    assert {settings["ppo.target_kl"] for settings in drawn} == {None, 0.02}
    assert {settings["network.hidden_sizes"] for settings in drawn} == {(16,), (32, 32)}
    assert all(("ppo.lr_schedule_kl" in settings) == (settings["ppo.lr_schedule"] == "kl") for settings in drawn)
    median = float(np.median([settings["ppo.learning_rate"] for settings in drawn]))
    assert 2e-4 < median < 5e-4, "log-uniform: half of them lie below the geometric mean of the ends"
    config = trial_config(load_config(), drawn[0])
    assert config.ppo.learning_rate == drawn[0]["ppo.learning_rate"] and config.env.kwargs["length"] == drawn[0]["env.kwargs.length"]


def test_perturbed_settings_stay_in_the_space_and_what_cannot_change_stays_as_it_is(space: Space) -> None:
    """gamma x 1.25 would not be a discount any more; a network cannot change its size while it trains."""
    rng = np.random.default_rng(0)
    settings = space.drawn(0, 0)
    seen = set()
    for _ in range(200):
        moved = space.perturbed(settings, is_mutable, rng, 0.25)
        assert moved["network.hidden_sizes"] == settings["network.hidden_sizes"]
        assert moved["env.kwargs.length"] == settings["env.kwargs.length"]
        assert 0.9 <= moved["ppo.gamma"] <= 0.999 and 1 <= moved["ppo.epochs"] <= 3
        assert ("ppo.lr_schedule_kl" in moved) == (moved["ppo.lr_schedule"] == "kl")
        trial_config(load_config(), moved)
        seen.add(moved["ppo.learning_rate"])
        settings = moved
    assert len(seen) > 20


def test_settings_come_back_from_json_as_they_were(space: Space) -> None:
    """Lists become tuples again, so that a continued trial has an equal config."""
    settings = space.drawn(0, 1)
    plain = {key: list(value) if isinstance(value, tuple) else value for key, value in settings.items()}
    assert restored_settings(plain) == settings
    with pytest.raises(ValueError, match=r"no setting ppo\.learning_rat"):
        restored_settings({"ppo.learning_rat": 1})


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("spac: {}", "1:1  unknown key spac - did you mean space?"),
        ("metric: rollout/ep_rew_meen", "1:1  metric: unknown metric rollout/ep_rew_meen - did you mean rollout/ep_rew_mean?"),
        ("metric: time/total_timesteps", "1:1  metric: time/total_timesteps is the same for all trials"),
        ("mode: highest", "1:1  mode must be max or min, got 'highest'"),
        ("stop: {rollout/ep_rew_meen: 3}", "1:8  stop: unknown metric rollout/ep_rew_meen - did you mean rollout/ep_rew_mean?"),
        ("stop: {rollout/ep_rew_mean: high}", "1:8  stop: rollout/ep_rew_mean must be a number, got 'high'"),
        ("space: {}", "1:1  space is empty: there is nothing to search"),
        ("space: {ppo: {clip_epsilom: {uniform: [0.1, 0.3]}}}", "1:15  unknown key ppo.clip_epsilom - did you mean ppo.clip_epsilon?"),
        ("space: {ppo: {gamma: 0.99}}", "1:15  ppo.gamma must have a distribution, as in {choice: [...]} or {uniform: [low, high]}; "),
        ("space: {ppo: {gamma: {unifrom: [0.9, 1]}}}", "1:23  ppo.gamma: unknown key unifrom - did you mean uniform?"),
        (
            "space: {ppo: {gamma: {uniform: [0.9, 1], choice: [1]}}}",
            "1:15  ppo.gamma must have one distribution of uniform, loguniform, int",
        ),
        ("space: {ppo: {gamma: {uniform: [0.9, 1.5]}}}", "1:23  ppo.gamma must be at least 0 and at most 1, got 1.5"),
        ("space: {ppo: {gamma: {uniform: [0.9, 0.8]}}}", "1:23  ppo.gamma: uniform [0.9, 0.8] is empty: the lower end comes first"),
        ("space: {ppo: {gamma: {uniform: [0.9]}}}", "1:23  ppo.gamma: uniform takes two numbers, [low, high]"),
        ("space: {ppo: {gamma: {int: [0, 1]}}}", "1:23  ppo.gamma cannot be drawn by int: use uniform or loguniform or choice"),
        ("space: {ppo: {epochs: {uniform: [1, 9]}}}", "1:24  ppo.epochs cannot be drawn by uniform: use int or choice"),
        ("space: {ppo: {entropy_coef: {loguniform: [0, 1]}}}", "1:30  ppo.entropy_coef: loguniform [0.0, 1.0] must begin above 0"),
        (
            "space: {ppo: {lr_schedule: {choice: [linaer]}}}",
            "1:29  ppo.lr_schedule must be constant or linear or cosine or kl, got 'linaer'",
        ),
        ("space: {ppo: {epochs: {choice: [3, 3]}}}", "1:24  ppo.epochs: choice has a value twice"),
        ("space: {env: {id: {choice: [Hopper-v4]}}}", "1:15  env.id is the same for all trials; set it with --config or --set"),
        ("space: {rollout: {num_workers: {int: [1, 2]}}}", "1:19  rollout.num_workers is the same for all trials; --workers-per-trial"),
        (
            "space: {ppo: {target_kl: {uniform: [0.01, 0.1], when: {ppo.epoch: 3}}, epochs: {choice: [3]}}}",
            "1:56  ppo.target_kl depends on ppo.epoch, which is not searched; it must stand in this space, before what depends on it",
        ),
        (
            "space: {ppo: {epochs: {choice: [3, 5]}, target_kl: {uniform: [0.01, 0.1], when: {ppo.epochs: 4}}}}",
            "1:82  ppo.target_kl depends on ppo.epochs being '4', which is none of its choices",
        ),
        ("asha: {grace: 5}\nspace: {ppo: {epochs: {int: [1, 2]}}}", "1:8  asha: unknown key grace"),
        (
            "pbt: {quantile_fraction: 0.9}\nspace: {ppo: {epochs: {int: [1, 2]}}}",
            "1:7  pbt.quantile_fraction must be from 0.01 to 0.5, got 0.9",
        ),
        ("space: !!python/object:os.system {}", "not valid YAML: tags (!name) are not supported"),
    ],
)
def test_a_mistake_in_the_file_is_told_with_its_place(text: str, message: str, read: Callable[[str], SearchSpace]) -> None:
    with pytest.raises(ConfigError) as error:
        read(text)
    assert f"space.yaml:{message}" in str(error.value) or message in str(error.value)


def test_all_mistakes_are_told_together(read: Callable[[str], SearchSpace]) -> None:
    text = "mode: up\nmetric: reward\nspace:\n  ppo:\n    gama: {uniform: [0, 1]}\n    epochs: {int: [3, 1]}\nstop: {x: 1}\npbt: {y: 2}\n"
    with pytest.raises(ConfigError) as error:
        read(text)
    assert len(str(error.value).splitlines()) == 6


@pytest.mark.parametrize(
    ("text", "fields", "overrides", "message"),
    [
        ("metric: eval/mean_reward", {}, {"evaluation.every": 0}, "eval/mean_reward is taken by evaluations, and evaluation.every is 0"),
        ("stop: {eval/mean_reward: 1}", {}, {"evaluation.every": 2_000_000}, "evaluation.every 2,000,000 > run.total_timesteps 1,000,000"),
        ("asha: {grace_period: 1e6}", {}, {}, "asha.grace_period 1,000,000 >= run.total_timesteps 1,000,000: nothing would be stopped"),
        ("pbt: {perturbation_interval: 1e7}", {"scheduler": "pbt"}, {}, "pbt.perturbation_interval 10,000,000 >= run.total_timesteps"),
        ("", {"scheduler": "pbt", "search": "optuna"}, {}, "--search optuna  pbt draws its first population at random"),
        ("", {"scheduler": "pbt", "trials": 1}, {}, "--trials 1  pbt needs a population: at least 2"),
        ("", {"workers": 9}, {}, "--workers-per-trial 9  is more than num_envs 8: use at most 8"),
        ("", {}, {"rollout.num_steps": 100}, "batch 800 = 8 envs x 100 steps is not a multiple of mini_batch_size 64"),
    ],
)
def test_what_does_not_go_together_is_told_before_anything_starts(
    text: str, fields: dict[str, Any], overrides: dict[str, Any], message: str, read: Callable[[str], SearchSpace]
) -> None:
    """Metrics that are never taken, schedulers that would never act, and combinations of choices that are no configuration."""
    found = read(f"{text}\nspace: {{ppo: {{mini_batch_size: {{choice: [32, 64]}}}}}}")
    with pytest.raises(ConfigError) as error:
        require_sound(request(found, load_config(overrides={"rollout.num_steps": 2048} | overrides), **fields))
    assert message in str(error.value)


def test_optuna_where_it_is_missing_names_the_extra(read: Callable[[str], SearchSpace], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    with pytest.raises(UserError, match=r"--search optuna needs Optuna: pip install 'distppo\[tune\]' \(or use --search random\)"):
        require_sound(request(read(SPACE), search="optuna"))


@pytest.mark.parametrize(("name", "config"), [("quick", "cartpole"), ("halfcheetah", "halfcheetah"), ("walker2d", "walker2d")])
def test_a_shipped_space_fits_its_recipe(name: str, config: str) -> None:
    """With every scheduler, and the comment at its top says how to run it."""
    path = ROOT / "configs" / "tune" / f"{name}.yaml"
    found = read_search_space(path)
    for scheduler in ("asha", "pbt", "none"):
        require_sound(request(found, load_config(ROOT / "configs" / f"{config}.yaml"), scheduler=scheduler, trials=32))
    assert f"launch.py tune --config configs/{config}.yaml --space configs/tune/{name}.yaml" in path.read_text().split("\n\n")[0]
