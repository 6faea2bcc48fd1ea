"""The JSON schema accepts every right file and finds what is wrong with the others."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import yaml

from distppo.cli import main
from distppo.config import Config, dump_config, load_config
from distppo.config.fields import FIELDS
from distppo.config.json_schema import json_schema

jsonschema = pytest.importorskip("jsonschema")  # Ray brings it along
CONFIGS = sorted((Path(__file__).parents[2] / "configs").glob("*.yaml"))
VALIDATOR = jsonschema.Draft202012Validator(json_schema())


def problems(data: Any) -> list[str]:
    return [error.message for error in VALIDATOR.iter_errors(data)]


def test_the_schema_is_one_and_has_every_setting(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["config", "schema"]) == 0
    schema = json.loads(capsys.readouterr().out)
    jsonschema.Draft202012Validator.check_schema(schema)
    found = {f"{section}.{name}" for section, body in schema["properties"].items() for name in body["properties"]}
    assert found == set(FIELDS)
    assert schema["properties"]["ppo"]["properties"]["gamma"]["description"].startswith(FIELDS["ppo.gamma"].doc)


@pytest.mark.parametrize("path", CONFIGS, ids=lambda path: path.name)
def test_every_recipe_is_right(path: Path) -> None:
    assert len(CONFIGS) >= 10
    assert problems(yaml.safe_load(path.read_text())) == []


@pytest.mark.parametrize(
    "config",
    [
        Config(),
        load_config(
            env="mine:Hill-v0",
            num_workers=0,
            target_kl=0.1,
            overrides={
                "env.wrappers": [{"class": "mine:Wrapper", "scale": 2}],
                "env.kwargs": {"level": 3},
                "network.hidden_sizes": [],
                "run.callbacks": "mine:Stop",
                "run.directory": "runs/a",
            },
        ),
    ],
)
def test_what_config_show_prints_is_right(config: Config) -> None:
    assert problems(yaml.safe_load(dump_config(config))) == []


@pytest.mark.parametrize(
    "text",
    [
        "ppo: {learning_rate: 3e-4, target_kl: off, value_clip: none}",
        "ppo: {target_kl: 'off', advantage_normalization: off}",
        "run: {total_timesteps: 1e6, callbacks: [{class: mine:A, x: 1}, mine:B]}",
        "run: {total_timesteps: '1_000_000'}",
        "network: {hidden_sizes: [64, 64], shared: on, layer_norm: 'yes'}",
        "rollout: {num_workers: auto}",
        "ppo:",
    ],
)
def test_every_way_to_write_a_value_is_right(text: str) -> None:
    data = yaml.safe_load(text)
    load_config(overrides={f"{section}.{name}": value for section, values in data.items() for name, value in (values or {}).items()})
    assert problems(data) == []


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("pop: {gamma: 0.9}", "'pop' was unexpected"),
        ("ppo: {gama: 0.9}", "'gama' was unexpected"),
        ("ppo: {gamma: 1.5}", "1.5"),
        ("ppo: {epochs: ten}", "ten"),
        ("ppo: {epochs: 0}", "0"),
        ("ppo: {epochs: 1.5}", "1.5"),
        ("rollout: {mode: snyc}", "snyc"),
        ("rollout: {num_envs: off}", "False"),
        ("network: {hidden_sizes: [a]}", "a"),
        ("run: {callbacks: [nonsense]}", "nonsense"),
        ("run: {callbacks: [{clas: mine:A}]}", "clas"),
        ("learner: {compile: maybe}", "maybe"),
    ],
)
def test_a_mistake_is_found(text: str, said: str) -> None:
    found = problems(yaml.safe_load(text))
    assert len(found) == 1 and said in found[0]
