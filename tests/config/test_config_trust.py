"""Code that settings name is loaded only where the user has named it too."""

from __future__ import annotations

import pytest

from distppo.config import load_config
from distppo.config.trust import TRUST_VARIABLE, UntrustedCodeError, named_code, require_named, trust_flags


@pytest.fixture(autouse=True)
def _nothing_is_trusted(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv(TRUST_VARIABLE, raising=False)


def config_of(env="Pendulum-v1", **kwargs):
    return load_config(env=env, overrides={"env.kwargs": kwargs})


@pytest.mark.parametrize("env", ["mine:Env-v0", "a.b:Env-v0", "a:b:Env-v0", "mine:ns/Env-v0", "mine:", "x y:; z"])
def test_an_environment_with_a_module_is_code(env: str) -> None:
    assert named_code(config_of(env)) == {env: "env.id"}


@pytest.mark.parametrize("value", ["m:Class", ["x", {"deep": ["m:Class"]}], {"class": "m:Class"}, " m.n:Class ", "m:ns/Env-v0"])
def test_module_and_name_are_found_wherever_they_stand(value: object) -> None:
    """So a setting that takes plug-ins, today's or a later one, needs no code here; nor does an environment that makes another."""
    assert list(named_code(config_of(option=value)).values()) == ["env.kwargs"]


@pytest.mark.parametrize("value", ["text", "12:30", "a sentence: with words", "cuda:0", "C:\\dir", 3, None, "http://host/x", ":Class"])
def test_other_text_is_not_code(value: object) -> None:
    assert named_code(config_of(option=value)) == {}


def test_the_run_directory_is_a_path_whatever_it_looks_like() -> None:
    assert named_code(load_config(run_dir="host:Path")) == {}


def test_what_the_user_has_not_named_is_refused_with_what_to_type() -> None:
    config = config_of("mine:Env-v0", other="theirs:Thing")
    with pytest.raises(UntrustedCodeError) as caught:
        require_named(config, {"mine:Env-v0"}, source="runs/x")
    assert str(caught.value) == (
        "runs/x names code that would be imported, and so run, on this machine:\n"
        "  env.kwargs: theirs:Thing\n"
        "If you trust whoever made it, name it too: --trust theirs:Thing (in Python trust=['theirs:Thing'])"
    )


def test_what_is_named_exactly_is_let_through(monkeypatch: pytest.MonkeyPatch) -> None:
    """By flag or by variable; a module or another name in it is not enough, since any function of it could be called."""
    config = config_of("mine:Env-v0", other="theirs:Thing")
    require_named(config, ["mine:Env-v0", "theirs:Thing"], source="x")
    require_named(config, ["theirs:Thing"], source="x", sections=["network"])
    for wrong in ("mine", "mine:", "mine:Env-v1", "other:Env-v0"):
        with pytest.raises(UntrustedCodeError):
            require_named(config, [wrong, "theirs:Thing"], source="x")
    monkeypatch.setenv(TRUST_VARIABLE, "mine:Env-v0, theirs:Thing")
    require_named(config, [], source="x")


def test_what_is_to_be_typed_is_quoted_for_the_shell_and_no_more_than_needed(monkeypatch: pytest.MonkeyPatch) -> None:
    """A stranger's name is pasted into a shell."""
    assert trust_flags(["a:B", "x:y; rm -r ~"]) == " --trust a:B --trust 'x:y; rm -r ~'"
    monkeypatch.setenv(TRUST_VARIABLE, "a:B")
    assert trust_flags(["a:B"]) == ""


def test_a_network_is_code_and_the_package_s_own_examples_are_not() -> None:
    """What comes with the package is here already; what an example is told to make counts as always."""
    assert named_code(load_config(overrides={"network.class": "mine:Net"})) == {"mine:Net": "network.class"}
    example = "distppo.envs.examples.pixels:MujocoPixels-v0"
    assert named_code(config_of(example, task="InvertedPendulum-v5")) == {}
    assert named_code(config_of(example, task="theirs:Env-v0")) == {"theirs:Env-v0": "env.kwargs"}
    assert named_code(config_of("distppo.config:Env-v0")) == {"distppo.config:Env-v0": "env.id"}
