"""How settings are read: precedence, spellings, places of errors."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import pytest

from distppo.config import Config, Overrides, apply_overrides, config_from_dict, config_to_dict, load_config, load_layers
from distppo.config.coerce import PlainText
from distppo.config.fields import FIELDS
from distppo.config.load import flattened
from distppo.config.overrides import Assignment
from distppo.config.schema import Plugin, PPOConfig, WorkerRange
from distppo.errors import ConfigError


def write(path: Path, text: str) -> str:
    path.write_text(text)
    return str(path)


def problems(**arguments: Any) -> list[str]:
    """The lines of the error that loading these raises."""
    with pytest.raises(ConfigError) as caught:
        load_config(**arguments)
    return str(caught.value).splitlines()


def test_nothing_given_is_the_schema_defaults() -> None:
    assert load_config() == Config()


def test_later_files_count_over_earlier_ones_and_leave_the_rest(tmp_path: Path) -> None:
    first = write(tmp_path / "a.yaml", "ppo: {gamma: 0.9, epochs: 3}\n")
    second = write(tmp_path / "b.yaml", "ppo:\n  gamma: 0.8\n")
    config = load_config([first, second])
    assert (config.ppo.gamma, config.ppo.epochs) == (0.8, 3)


def test_keywords_count_over_files_and_overrides_over_keywords(tmp_path: Path) -> None:
    file = write(tmp_path / "a.yaml", "ppo: {gamma: 0.9, epochs: 3, gae_lambda: 0.5}\n")
    config = load_config(file, gamma=0.8, epochs=4, overrides={"ppo.gamma": 0.7})
    assert (config.ppo.gamma, config.ppo.epochs, config.ppo.gae_lambda) == (0.7, 4, 0.5)


def test_overrides_may_be_texts_and_the_later_counts() -> None:
    assert load_config(overrides=["ppo.gamma=0.9", "ppo.gamma = 0.8"]).ppo.gamma == 0.8


def test_a_base_takes_the_place_of_the_defaults() -> None:
    base = load_config(gamma=0.5, epochs=2)
    assert load_config(base=base, epochs=3).ppo == PPOConfig(gamma=0.5, epochs=3)


def test_env_and_run_dir_are_keywords_as_they_are_flags(tmp_path: Path) -> None:
    config = load_config(env="Walker2d-v4", run_dir=tmp_path)
    assert (config.env.id, config.run.directory) == ("Walker2d-v4", str(tmp_path))


SPELLINGS = [
    ("run.total_timesteps", "1e6", 1_000_000),
    ("run.total_timesteps", "1.0e6", 1_000_000),
    ("run.total_timesteps", "1_000_000", 1_000_000),
    ("run.total_timesteps", "2.5e3", 2_500),
    ("run.total_timesteps", "2M", 2_000_000),
    ("run.total_timesteps", "1.5M", 1_500_000),
    ("rollout.num_steps", "2k", 2_000),
    ("run.total_timesteps", "'300'", 300),
    ("run.seed", "007", 7),
    ("run.seed", "9223372036854775807", 2**63 - 1),
    ("ppo.learning_rate", "3e-4", 3e-4),
    ("ppo.learning_rate", "3E-4", 3e-4),
    ("ppo.learning_rate", "1", 1.0),
    ("ppo.target_kl", "off", None),
    ("ppo.target_kl", "OFF", None),
    ("ppo.target_kl", "none", None),
    ("ppo.target_kl", "null", None),
    ("ppo.target_kl", "~", None),
    ("ppo.target_kl", "", None),
    ("ppo.target_kl", "0.02", 0.02),
    ("ppo.advantage_normalization", "off", "off"),
    ("normalization.observations", "off", False),
    ("normalization.observations", "no", False),
    ("normalization.observations", "False", False),
    ("normalization.observations", "yes", True),
    ("rollout.num_workers", "auto", None),
    ("rollout.num_workers", "0", 0),
    ("rollout.num_workers", "2-8", WorkerRange(8, 2)),
    ("rollout.num_workers", " 1 - 0_4", WorkerRange(4, 1)),
    ("learner.threads", "auto", None),
    ("network.hidden_sizes", "[]", ()),
    ("network.hidden_sizes", "[256, 128]", (256, 128)),
    ("network.hidden_sizes", "256", (256,)),
    ("network.initial_log_std", "-5e-1", -0.5),
    ("env.id", "package.module:Env-v0", "package.module:Env-v0"),
    ("ppo.gamma", '"0.9"', 0.9),
    ("ppo.lr_schedule", "'linear'", "linear"),
    ("ppo.target_kl", "'off'", None),
    ("env.id", '"CartPole-v1"', "CartPole-v1"),
    ("env.id", "'it''s'", "it's"),
    ("run.directory", "'off'", "off"),
    ("run.directory", "off", None),
    ("run.directory", "runs/a", "runs/a"),
    ("env.max_episode_steps", "off", None),
    ("env.kwargs", "{a: 1e3, b: '1e3', c: [off, 2, x], d: {e: ~}}", {"a": 1000.0, "b": "1e3", "c": [False, 2, "x"], "d": {"e": None}}),
    ("env.kwargs", "", {}),
]


@pytest.mark.parametrize(("key", "text", "value"), SPELLINGS)
def test_yaml_and_set_mean_what_people_mean(key: str, text: str, value: Any, tmp_path: Path) -> None:
    section, name = key.split(".")
    file = write(tmp_path / "a.yaml", f"{section}:\n  {name}: {text}\n")
    from_file = flattened(load_config(file))[key]
    assert from_file == value and type(from_file) is type(value)
    from_text = flattened(load_config(overrides=[f"{key}={text}"]))[key]
    assert from_text == value and type(from_text) is type(value)


def test_a_list_needs_no_brackets_on_the_command_line() -> None:
    assert load_config(overrides=["network.hidden_sizes=64,32"]).network.hidden_sizes == (64, 32)


def test_python_values_are_taken_as_they_are() -> None:
    config = load_config(
        total_timesteps=1e6,
        target_kl=None,
        hidden_sizes=[8, 8],
        num_workers=0,
        kwargs={"a": "1e6", "b": (1, 2)},
        overrides={"run.directory": "off"},
    )
    assert config.run.total_timesteps == 1_000_000 and isinstance(config.run.total_timesteps, int)
    assert config.network.hidden_sizes == (8, 8)
    assert config.env.kwargs == {"a": "1e6", "b": [1, 2]}
    assert config.run.directory == "off"


def test_false_from_pyyaml_means_off() -> None:
    config = load_config(overrides={"ppo.max_grad_norm": False, "ppo.advantage_normalization": False})
    assert config.ppo.max_grad_norm is None and config.ppo.advantage_normalization == "off"


def test_a_mapping_replaces_and_an_entry_is_set_alone(tmp_path: Path) -> None:
    file = write(tmp_path / "a.yaml", "env: {kwargs: {a: 1, b: 2}}\n")
    assert load_config(file, overrides=["env.kwargs.b=3", "env.kwargs.c=[x, 'off']"]).env.kwargs == {"a": 1, "b": 3, "c": ["x", "off"]}
    assert load_config(file, overrides=["env.kwargs={c: 4}"]).env.kwargs == {"c": 4}


def test_two_configs_never_share_a_mapping() -> None:
    load_config().env.kwargs["x"] = 1
    assert load_config().env.kwargs == {}


WRONG_VALUES = [
    ("ppo.epochs", "ten", "ppo.epochs must be a whole number, got 'ten'"),
    ("ppo.epochs", "1.5", "ppo.epochs must be a whole number, got '1.5'"),
    ("ppo.epochs", "2m", "ppo.epochs must be a whole number, got '2m'"),
    ("ppo.epochs", "0.0005k", "ppo.epochs must be a whole number, got '0.0005k'"),
    ("ppo.learning_rate", "2M", "ppo.learning_rate must be a number, got '2M'"),
    ("ppo.epochs", "nan", "ppo.epochs must be a whole number, got 'nan'"),
    ("ppo.epochs", "true", "ppo.epochs must be a whole number, got 'true'"),
    ("ppo.epochs", "", "ppo.epochs must be a whole number, got ''"),
    ("ppo.epochs", "0", "ppo.epochs must be at least 1, got 0"),
    ("ppo.epochs", "1e999999999", "ppo.epochs must be a whole number of at most 2**63, got '1e999999999'"),
    ("ppo.learning_rate", "fast", "ppo.learning_rate must be a number, got 'fast'"),
    ("ppo.learning_rate", "0", "ppo.learning_rate must be above 0, got 0.0"),
    ("ppo.learning_rate", "nan", "ppo.learning_rate must be a finite number, got 'nan'"),
    ("ppo.learning_rate", "inf", "ppo.learning_rate must be a finite number, got 'inf'"),
    ("ppo.learning_rate", "1e999", "ppo.learning_rate must be a finite number, got '1e999'"),
    ("ppo.learning_rate", "off", "ppo.learning_rate must be a number, got 'off'"),
    ("ppo.clip_epsilon", "1", "ppo.clip_epsilon must be above 0 and below 1, got 1.0"),
    ("ppo.gamma", "1.01", "ppo.gamma must be at least 0 and at most 1, got 1.01"),
    ("ppo.target_kl", "never", "ppo.target_kl must be a number or off, got 'never'"),
    ("ppo.lr_schedule", "liner", "ppo.lr_schedule must be constant or linear or cosine or kl, got 'liner' - did you mean linear?"),
    ("rollout.mode", "off", "rollout.mode must be sync or overlap, got 'off'"),
    ("rollout.num_workers", "off", "rollout.num_workers must be a whole number, or a range as in 2-8 or auto, got 'off'"),
    ("rollout.num_workers", "8-2", "rollout.num_workers must be a range from 1 or more to as many or more, as in 2-8, got '8-2'"),
    ("rollout.num_workers", "0-2", "rollout.num_workers must be a range from 1 or more to as many or more, as in 2-8, got '0-2'"),
    ("normalization.observations", "maybe", "normalization.observations must be true or false, got 'maybe'"),
    ("network.hidden_sizes", "[64, wide]", "network.hidden_sizes must be whole numbers, as in [64, 64] or auto, got"),
    ("network.hidden_sizes", "[64, 0]", "network.hidden_sizes must be at least 1, got 0"),
    ("env.id", "''", "env.id must be text that is not empty, got ''"),
    ("env.kwargs", "[1]", "env.kwargs must be a mapping of names to plain values, got"),
    ("env.kwargs", "{a-b: 1}", "env.kwargs must be a mapping of Python keyword names to values, which 'a-b' is not"),
    ("run.seed", "9223372036854775808", "run.seed must be at least 0 and below 9223372036854775808"),
]


@pytest.mark.parametrize(("key", "text", "message"), WRONG_VALUES)
def test_a_wrong_value_is_told_with_its_place(key: str, text: str, message: str, tmp_path: Path) -> None:
    section, name = key.split(".")
    file = write(tmp_path / "a.yaml", f"# first line\n{section}:\n    {name}: {text}\n")
    (line,) = problems(files=file)
    assert line.startswith(f"{file}:3:5  {message}")
    (line,) = problems(overrides=[f"{key}={text}"])
    assert line.startswith(f"{key}={text}  {message}")


INSIDE = [
    ("env.kwargs", "{a: 1, b: [0.2, .inf]}", 16, "env.kwargs.b[1] must be a finite number, got '.inf'"),
    ("env.kwargs", "{a: .nan}", 1, "env.kwargs.a must be a finite number, got '.nan'"),
    ("env.kwargs", "{n: 99999999999999999999}", 1, "env.kwargs.n must be a whole number of at most 2**63, got '99999999999999999999'"),
    ("env.kwargs", "{a: {'b c': [[1__0.5]]}}", 14, "env.kwargs.a['b c'][0][0] must be a number, got '1__0.5'"),
    ("run.callbacks", "[m:A, {class: m:B, c: {d: .inf}}]", 23, "run.callbacks[1].c.d must be a finite number, got '.inf'"),
    ("run.callbacks", "{class: m:B, c: -.inf}", 13, "run.callbacks.c must be a finite number, got '-.inf'"),
]


@pytest.mark.parametrize(("key", "text", "offset", "message"), INSIDE)
def test_what_is_wrong_inside_a_value_is_named_and_placed(key: str, text: str, offset: int, message: str, tmp_path: Path) -> None:
    """The place in a file is that of the entry, for a named one its name's."""
    section, name = key.split(".")
    file = write(tmp_path / "a.yaml", f"{section}:\n  {name}:\n    {text}\n")
    assert problems(files=file) == [f"{file}:3:{5 + offset}  {message}"]
    assert problems(overrides=[f"{key}={text}"]) == [f"{key}={text}  {message}"]


def test_what_is_wrong_inside_a_python_value_is_named() -> None:
    (line,) = problems(overrides={"env.kwargs": {"a": (1, math.inf)}})
    assert line == "env.kwargs=a mapping  env.kwargs.a[1] must be a finite number, got inf"
    (line,) = problems(overrides={"run.callbacks": [Plugin("m:A", {"a": [math.inf]})]})
    assert line.endswith("  run.callbacks[0].a[0] must be a finite number, got inf")
    (line,) = problems(overrides=["env.kwargs.a={b: [.inf]}"])
    assert line.endswith("  env.kwargs.a.b[0] must be a finite number, got '.inf'")


UNKNOWN_KEYS = [
    ("ppo: {clip_epsilom: 0.2}", "1:7  unknown key ppo.clip_epsilom - did you mean ppo.clip_epsilon?"),
    ("clip_epsilon: 0.2", "1:1  unknown key clip_epsilon - it belongs under ppo: (ppo.clip_epsilon)"),
    ("rollout: {gamma: 0.9}", "1:11  unknown key rollout.gamma - it belongs under ppo: (ppo.gamma)"),
    ("clip_epsilom: 0.2", "1:1  unknown key clip_epsilom - did you mean ppo.clip_epsilon?"),
    ("pp0: {gamma: 0.9}", "1:1  unknown key pp0 - did you mean ppo?"),
    ("xyzzy: 1", "1:1  unknown key xyzzy; the sections are env, rollout, ppo,"),
    ("ppo: {xyzzy: 1}", "1:7  unknown key ppo.xyzzy; ppo has learning_rate, lr_schedule,"),
    ("ppo: 3", "1:1  ppo is a section; its settings stand below it, like ppo.learning_rate"),
    ("ppo.gamma: 0.9", "1:1  ppo.gamma has a dot: in YAML its parts stand below each other"),
    ("env: {kwargs.x: 1}", "1:7  env.kwargs.x has a dot: in YAML its parts stand below each other"),
]


@pytest.mark.parametrize(("text", "message"), UNKNOWN_KEYS)
def test_an_unknown_key_in_yaml_says_what_was_meant(text: str, message: str, tmp_path: Path) -> None:
    file = write(tmp_path / "a.yaml", text)
    (line,) = problems(files=file)
    assert line.startswith(f"{file}:{message}")


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"overrides": ["ppo.clip_epsilom=0.2"]}, "ppo.clip_epsilom=0.2  unknown key ppo.clip_epsilom - did you mean ppo.clip_epsilon?"),
        ({"overrides": ["env.kwarg.x=1"]}, "env.kwarg.x=1  unknown key env.kwarg.x - did you mean env.kwargs?"),
        ({"overrides": ["=1"]}, "=1  unknown key ; the sections are env, rollout,"),
        ({"overrides": {"gamma": 0.9}}, "gamma=0.9  unknown key gamma - it belongs under ppo: (ppo.gamma)"),
        ({"overrides": ["ppo.gamma"]}, "ppo.gamma  must be key=value, as in ppo.gamma=0.98"),
        ({"overrides": ["env.kwargs.a=[1"]}, "env.kwargs.a=[1  env.kwargs.a is not readable: expected ',' or ']'"),
        (
            {"overrides": ["network.hidden_sizes=[64,64"]},
            "network.hidden_sizes must be whole numbers, as in [64, 64] or auto, got '[64,64'",
        ),
        (
            {"overrides": ["network.hidden_sizes=64,64]"]},
            "network.hidden_sizes must be whole numbers, as in [64, 64] or auto, got '64,64]'",
        ),
        ({"overrides": ["env.id='a'b'"]}, "env.id='a'b'  env.id is not readable: "),
        ({"overrides": ["xyzzy='a'b'"]}, "xyzzy='a'b'  unknown key xyzzy; the sections are env, rollout,"),
        ({"overrides": ["env.kwargs.a=!!python/name:os.system"]}, "env.kwargs.a is not readable: tags (!name) are not supported"),
        ({"overrides": ["env.kwargs.a-b=1"]}, "env.kwargs.a-b=1  env.kwargs.a-b does not name a keyword argument"),
        (
            {"overrides": {"env.kwargs.a": object()}},
            "env.kwargs.a must be text, a number, true, false, null, or lists and mappings of those",
        ),
        ({"num_env": 3}, "num_env=3  unknown setting num_env - did you mean num_envs?"),
        ({"epochs": 10**5000}, "epochs=a huge number  ppo.epochs must be a whole number of at most 2**63"),
    ],
)
def test_a_wrong_override_is_told_with_its_text(arguments: dict[str, Any], message: str) -> None:
    (line,) = problems(**arguments)
    assert message in line


def test_everything_that_is_wrong_is_told_at_once(tmp_path: Path) -> None:
    first = write(tmp_path / "a.yaml", "ppo: {epochs: ten, gama: 0.9}\nenvv: {}\n")
    second = write(tmp_path / "b.yaml", "ppo: {epochs: 0}\n")
    lines = problems(files=[first, second, tmp_path / "c.yaml"], num_workers=12, seed=-1, overrides=["ppo=1", "learner.step=fast"])
    assert [line.split("  ")[0].removeprefix(f"{tmp_path}/") for line in lines] == [
        "c.yaml", "a.yaml:1:7", "a.yaml:1:20", "a.yaml:2:1", "b.yaml:1:7", "seed=-1", "ppo=1", "learner.step=fast",
    ]  # fmt: skip


def test_text_of_the_user_cannot_steer_the_terminal() -> None:
    (line,) = problems(overrides={"ppo.epochs": "\x1b[2J" + "x" * 1000})
    assert line.isprintable() and len(line) < 250


def test_overrides_are_laid_over_another_base() -> None:
    _, given = load_layers(assignments=[Assignment("ppo.epochs", PlainText("3"), "--set ppo.epochs=3")])
    saved = load_config(gamma=0.5, epochs=7)
    assert apply_overrides(saved, given) == load_config(gamma=0.5, epochs=3)
    assert apply_overrides(saved, Overrides()) == saved
    assert given.origins() == {"ppo.epochs": "--set ppo.epochs=3"}


def test_overrides_that_fit_only_the_run_they_continue_are_not_held_against_the_defaults() -> None:
    twelve = [Assignment("rollout.num_workers", PlainText("12"), "--num-workers 12")]
    with pytest.raises(ConfigError, match="--num-workers 12  num_workers 12 > num_envs 8"):
        load_layers(assignments=twelve)
    _, given = load_layers(assignments=twelve, check=False)
    assert apply_overrides(load_config(num_envs=16), given).rollout.num_workers == 12


def test_a_config_filled_by_hand_is_checked_like_any_other() -> None:
    with pytest.raises(ConfigError, match=r"^ppo.epochs must be at least 1, got 0$"):
        apply_overrides(Config(ppo=PPOConfig(epochs=0)), Overrides())


def test_a_config_survives_json() -> None:
    config = load_config(hidden_sizes=[32], target_kl=0.01, learning_rate=1e-5, kwargs={"a": "off", "b": [1, 2.5, None]})
    assert config_from_dict(json.loads(json.dumps(config_to_dict(config)))) == config


def test_what_json_lacks_has_its_default_and_what_is_wrong_in_it_is_told() -> None:
    assert config_from_dict({"ppo": {"gamma": 0.5}}) == load_config(gamma=0.5)
    for data, message in [
        ({"ppo": {"gama": 0.5}}, "state.json  unknown key ppo.gama"),
        ({"ppo": {"gamma": [1]}}, r"state.json  ppo.gamma must be a number, got \[1\]"),
        ({"ppo": 3}, "state.json  ppo is a section"),
        ([1], "state.json  must be a mapping of sections"),
    ]:
        with pytest.raises(ConfigError, match=message):
            config_from_dict(data, origin="state.json")  # type: ignore[arg-type]


def test_every_default_is_within_its_own_limits() -> None:
    assert apply_overrides(Config(), Overrides()) == Config()
    assert all(field.doc.endswith(".") for field in FIELDS.values())


def test_of_thousands_of_mistakes_the_first_are_shown(tmp_path):
    path = tmp_path / "many.yaml"
    path.write_text("".join(f"k{number}: 1\n" for number in range(3000)))
    with pytest.raises(ConfigError) as caught:
        load_config(path)
    lines = str(caught.value).splitlines()
    assert len(lines) == 51 and lines[0].startswith(f"{path}:1:1") and lines[-1] == "and 2,950 more of this kind"
