"""A dumped configuration loads back equal, is plain YAML to others, and tells where its values come from."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import pytest
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st

from distppo.config import Config, Plugin, config_from_dict, config_to_dict, dump_config, explain_config, load_config, load_layers
from distppo.config.fields import FIELDS, Field
from distppo.config.load import flattened
from distppo.config.schema import WorkerRange
from distppo.config.sources import from_texts

TRICKY = [
    "off",
    "null",
    "~",
    "1e6",
    "3e-4",
    "1_000",
    ".inf",
    "yes",
    "012",
    "1:30",
    "a: b",
    "# no",
    "- x",
    "{}",
    "*a",
    "!b",
    "'",
    '"',
    "\\",
    "",
]
PLAIN = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(2**62), 2**62)
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(max_size=12)
    | st.sampled_from(TRICKY),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=6,
)
NAMES = st.from_regex(r"[a-z_][a-z0-9_]{0,5}", fullmatch=True) | st.sampled_from(["null", "off", "yes", "n"])


def values_of(field: Field) -> st.SearchStrategy[Any]:
    """All values that a setting may have by itself."""
    low = field.limits.get("at_least", field.limits.get("above", -1e6))
    high = field.limits.get("at_most", field.limits.get("below", 1e9))
    number = st.floats(low, high, exclude_min="above" in field.limits, exclude_max="below" in field.limits)
    whole = st.integers(math.ceil(low), min(math.ceil(high) - ("below" in field.limits), 2**62))
    text = st.text(min_size=1, max_size=12).filter(lambda t: t.isprintable() and bool(t.strip())) | st.sampled_from(
        ["off", "null", "1e6", "x: y"]
    )
    kwargs = st.dictionaries(NAMES.filter(lambda name: name != "kwargs"), PLAIN, max_size=3)
    by_kind = {
        bool: st.booleans(),
        int: whole,
        WorkerRange: whole,
        float: number,
        str: st.sampled_from(field.choices) if field.choices else text,
        tuple: st.lists(whole, max_size=4).map(tuple),
        Plugin: st.lists(st.builds(Plugin, st.sampled_from(["m:A", "a.b:C.d"]), kwargs), max_size=3).map(tuple),
        dict: st.dictionaries(NAMES.filter(lambda name: name not in ("id", "max_episode_steps")), PLAIN, max_size=4),
    }
    return st.none() | by_kind[field.kind] if field.optional else by_kind[field.kind]


@st.composite
def configs(draw: st.DrawFn) -> Config:
    """Configurations whose settings fit together."""
    values = {key: draw(values_of(field)) for key, field in FIELDS.items()}
    learners = draw(st.sampled_from([1, 2, 4]))
    workers = st.none() | st.integers(int(learners > 1), 8) | st.builds(WorkerRange, st.integers(4, 8), st.integers(1, 4))
    size, steps = learners * draw(st.integers(2, 250)), draw(st.integers(1, 50))
    values |= {"ppo.mini_batch_size": size, "rollout.num_steps": size * steps, "learner.step": draw(st.sampled_from(["auto", "torch"]))}
    values |= {
        "rollout.num_envs": draw(st.integers(8, 100)),
        "learner.num_learners": learners,
        "rollout.num_workers": draw(workers),
    }
    convolutions = draw(st.integers(1, 4))
    values |= {f"network.{name}": draw(st.tuples(*[st.integers(1, 64)] * convolutions)) for name in ("channels", "kernels", "strides")}
    own = draw(st.sampled_from([None, "my_networks:Net", "a.b:C"]))
    values |= {"network.class": own, "network.options": values["network.options"] if own else {}}
    words = st.text("abc 1", min_size=1, max_size=5) | st.integers(0, 9)
    known = {"project": words, "name": words, "tags": words | st.lists(words, max_size=3)}
    values |= {f"metrics.{name}": draw(st.fixed_dictionaries({}, optional=known)) for name in ("wandb", "mlflow")}
    return load_config(overrides=values)


@settings(max_examples=30, deadline=None)
@given(config=configs())
def test_dump_then_load_is_the_identity(config: Config, tmp_path_factory: pytest.TempPathFactory) -> None:
    path = tmp_path_factory.getbasetemp() / "config.yaml"
    text = dump_config(config)
    assert text.isascii()
    path.write_text(text)
    assert load_config(path) == config
    path.write_text(explain_config(config, load_layers()[1]))
    assert load_config(path) == config
    assert config_from_dict(config_to_dict(config)) == config


def test_the_dump_is_in_the_schemas_order_and_readable() -> None:
    text = dump_config(
        load_config(learning_rate=3e-4, hidden_sizes=[64, 64], num_workers=None, target_kl=None, advantage_normalization="off")
    )
    lines = [line.strip() for line in text.splitlines()]
    assert [line for line in lines if line in ("env:", "rollout:", "ppo:", "network:", "fault:")] == [
        "env:",
        "rollout:",
        "ppo:",
        "network:",
        "fault:",
    ]
    for line in (
        "learning_rate: 0.0003",
        "num_workers: auto",
        "target_kl: off",
        'advantage_normalization: "off"',
        "hidden_sizes: [64, 64]",
    ):
        assert line in lines
    assert "adam_epsilon: 1.0e-05" in lines  # 1e-05 would be text to PyYAML


def test_other_readers_of_yaml_see_the_same_numbers() -> None:
    config = load_config(kwargs={"a": "off", "b": 1e-7})
    read = yaml.safe_load(dump_config(config))
    for key, value in flattened(config).items():
        section, name = key.split(".")
        if isinstance(value, int | float | str | dict):
            assert read[section][name] == value


def test_explain_names_the_origin_of_every_value(tmp_path: Path) -> None:
    path = tmp_path / "a.yaml"
    path.write_text("ppo:\n  gamma: 0.9\n  epochs: 3\nenv:\n  kwargs: {x: 1, y: 2}\n")
    assignments, _ = from_texts(["ppo.epochs=4", "env.kwargs.y=3"], prefix="--set ")
    lines = explain_config(*load_layers([path], assignments)).splitlines()
    origins = {line.split("#")[0].strip(): line.split("# ")[1] for line in lines if "#" in line}
    assert origins["gamma: 0.9"] == f"{path}:2:3"
    assert origins["epochs: 4"] == "--set ppo.epochs=4"
    assert origins["x: 1"] == f"{path}:5:3"
    assert origins["y: 3"] == "--set env.kwargs.y=3"
    assert origins["gae_lambda: 0.95"] == "default"
    assert all("#" in line for line in lines if not line.endswith(":"))


def test_explain_takes_the_later_of_a_mapping_and_its_entry() -> None:
    for texts in (["env.kwargs.a=1", "env.kwargs={a: 2}"], ["env.kwargs={a: 1}", "env.kwargs.a=2"]):
        lines = explain_config(*load_layers((), from_texts(texts)[0])).splitlines()
        (line,) = [line for line in lines if line.strip().startswith("a: 2 ")]
        assert line.endswith(f"  # {texts[1]}")
