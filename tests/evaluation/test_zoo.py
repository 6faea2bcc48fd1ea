"""zoo:NAME: a shipped policy wherever one is named, read as strictly as a stranger's."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from runtime.running import SMALL

from distppo import ExportError, UntrustedCodeError, evaluate, export_policy, load_policy
from distppo.cli import main
from distppo.errors import CheckpointError
from distppo.evaluation import zoo
from distppo.runtime.train import train

SCORE = {"env_steps": 64, "return_mean": 5.0, "return_std": 1.0, "episodes": 20, "seed": 20_000}
TINY = {"rollout.num_steps": 16, "ppo.mini_batch_size": 16, "run.total_timesteps": 64}


@pytest.fixture(scope="module")
def shipped(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A zoo of two policies, one of which names code of its maker's."""
    folder = tmp_path_factory.mktemp("zoo")
    for name, env in (("pendulum", "InvertedPendulum-v4"), ("foreign", "probe_envs:Point-v0")):
        run = train(overrides=SMALL | TINY | {"env.id": env, "run.directory": str(folder / f"run-{name}")}, progress=False).run_directory
        export_policy(run, output=folder / f"{name}.npz")
    listed: dict[str, Any] = {"pendulum": {"env": "InvertedPendulum-v4", **SCORE}, "foreign": {"env": "probe_envs:Point-v0", **SCORE}}
    (folder / zoo.SCORES_FILE).write_text(json.dumps(listed))
    return folder


@pytest.fixture
def policies(shipped: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    """That zoo in place of the package's, and an empty folder to be in."""
    monkeypatch.setattr(zoo, "FOLDER", shipped)
    monkeypatch.chdir(tmp_path)
    return shipped


def test_a_shipped_policy_is_evaluated_by_its_name(policies: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """As its file is; what is written goes below runs/, not into the package."""
    assert main(["evaluate", "zoo:pendulum", "--episodes", "2", "--json"]) == 0
    content = json.loads(capsys.readouterr().out)
    assert content["return_mean"] == evaluate(policies / "pendulum.npz", episodes=2).return_mean
    assert Path(content["folder"]).parent == zoo.EVALUATIONS_ROOT and not (policies / "evaluations").exists()


def test_a_shipped_policy_acts(policies: Path) -> None:
    """load_policy takes the name, too."""
    observation = np.array([0.1, -0.2, 0.3, -0.4])
    np.testing.assert_array_equal(load_policy("zoo:pendulum").act(observation), load_policy(policies / "run-pendulum").act(observation))


def test_help_lists_what_is_shipped_with_its_score(policies: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["evaluate", "--help"]) == 0
    assert "zoo:pendulum  InvertedPendulum-v4, 64 env steps, return 5 +- 1" in capsys.readouterr().out


@pytest.mark.parametrize("name", ["pendulm", "", "../zoo/pendulum", "pendulum.npz", "/etc/passwd"])
def test_an_unknown_name_lists_what_there_is(name: str, policies: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Exit code 2; a near miss is guessed, and no name leads out of the folder."""
    assert main(["evaluate", f"zoo:{name}"]) == 2
    message = capsys.readouterr().err
    assert "no such policy is shipped" in message and "  zoo:pendulum" in message
    assert ("did you mean pendulum?" in message) or name != "pendulm"


def test_an_empty_zoo_says_so(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setattr(zoo, "FOLDER", tmp_path)
    assert main(["evaluate", "zoo:halfcheetah"]) == 2
    assert "no policies are shipped with this version" in capsys.readouterr().err


def test_a_shipped_policy_s_code_is_not_trusted(policies: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """An environment's module that it names is imported only if the user names it, too."""
    monkeypatch.delenv("DISTPPO_TRUST")
    with pytest.raises(UntrustedCodeError, match="probe_envs:Point-v0"):
        evaluate("zoo:foreign", episodes=1)
    assert evaluate("zoo:foreign", episodes=1, trust=["probe_envs:Point-v0"]).episodes == 1


def test_a_changed_file_is_refused(policies: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """One bit in the middle of it."""
    data = bytearray((policies / "pendulum.npz").read_bytes())
    data[len(data) // 2] ^= 1
    (tmp_path / "pendulum.npz").write_bytes(data)
    (tmp_path / zoo.SCORES_FILE).write_text(json.dumps({"pendulum": {"env": "InvertedPendulum-v4", **SCORE}}))
    monkeypatch.setattr(zoo, "FOLDER", tmp_path)
    with pytest.raises(CheckpointError, match="not a policy that can be used"):
        load_policy("zoo:pendulum")


@pytest.mark.parametrize("listed", ["{", "[1]", '{"a": 1}', '{"../a": {}}', '{"a": {"env": "X-v0"}}'])
def test_a_damaged_list_is_an_error_and_no_obstacle(
    listed: str, policies: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """zoo:NAME fails with the file's name; anything else is evaluated."""
    (tmp_path / zoo.SCORES_FILE).write_text(listed)
    monkeypatch.setattr(zoo, "FOLDER", tmp_path)
    with pytest.raises(CheckpointError, match=r"scores\.json: the list of shipped policies is damaged"):
        load_policy("zoo:pendulum")
    assert main(["evaluate", str(policies / "pendulum.npz"), "--episodes", "1", "--output", str(tmp_path)]) == 0


def test_what_is_exported_already_is_not_exported_again(policies: Path) -> None:
    """The message names the file to copy."""
    with pytest.raises(ExportError, match=r"is an exported policy already: copy .*pendulum\.npz"):
        export_policy("zoo:pendulum")
