"""Scoring a checkpoint: the run's own numbers, which checkpoint is meant, and what is refused."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from runtime.running import SMALL, Run, environment

from distppo.algo.seeding import Purpose, stream
from distppo.checkpoint import list_checkpoints, load_checkpoint
from distppo.cli import main
from distppo.config.schema import EnvConfig
from distppo.envs import make_env
from distppo.errors import CheckpointError, UserError
from distppo.evaluation.episodes import play_episodes
from distppo.evaluation.evaluate import evaluate
from distppo.evaluation.policy import load_policy
from distppo.evaluation.restore import snapshot_of
from distppo.runtime.train import train

EPISODES = 4
SEED = 3


@pytest.fixture(scope="module")
def scored(tmp_path_factory: pytest.TempPathFactory) -> Run:
    """A run that evaluated after every iteration, with episodes that terminate and episodes that are truncated."""
    directory = tmp_path_factory.mktemp("scored") / "run"
    settings = {"evaluation.every": 128, "evaluation.episodes": EPISODES, "run.seed": SEED, "run.directory": str(directory)}
    return Run(train(overrides=SMALL | settings, progress=False))


@pytest.fixture
def observations() -> np.ndarray:
    return np.random.default_rng(0).normal([0, -50, 0], [1, 20, 1e-3], (20, 3))


def in_a_new_process(code: str) -> Any:
    """Runs code that prints JSON."""
    done = subprocess.run([sys.executable, "-c", code], env=environment(), capture_output=True, text=True, timeout=60, check=True)
    return json.loads(done.stdout)


def test_a_new_process_acts_the_same_to_the_last_bit(scored: Run, observations: np.ndarray) -> None:
    """Saved, loaded elsewhere without torch or Ray, and the same float32 actions; alone or in a batch."""
    policy = load_policy(scored.directory)
    here = policy.act(observations)
    code = (
        "import json, sys, numpy as np; from distppo import load_policy;"
        f"policy = load_policy({str(scored.directory)!r});"
        "actions = policy.act(np.random.default_rng(0).normal([0, -50, 0], [1, 20, 1e-3], (20, 3)));"
        "print(json.dumps([actions.tobytes().hex(), sorted({'torch', 'ray'} & set(sys.modules))]))"
    )
    assert in_a_new_process(code) == [here.tobytes().hex(), []]
    np.testing.assert_array_equal(here, [policy.act(observation) for observation in observations])


def test_a_new_process_scores_the_best_checkpoint_as_the_run_did(scored: Run) -> None:
    """Same seed, same episodes: the very number in summary.json."""
    code = (
        "import json; from distppo import evaluate;"
        f"result = evaluate({str(scored.directory)!r}, episodes={EPISODES}, seed={SEED});"
        "print(json.dumps([result.return_mean, result.env_steps]))"
    )
    best = scored.summary["best_evaluation"]
    assert in_a_new_process(code) == [best["return_mean"], best["env_steps"]]


def test_a_run_stands_for_its_best_checkpoint_else_its_last(scored: Run, tmp_path: Path) -> None:
    """`evaluate RUN`; a run that was never evaluated has no best one."""
    assert evaluate(scored.directory, episodes=1).checkpoint == Path(scored.summary["best_checkpoint"])
    unscored = Run(train(overrides=SMALL | {"run.directory": str(tmp_path / "run")}, progress=False))
    assert unscored.summary["best_checkpoint"] is None
    assert evaluate(unscored.directory, episodes=1).checkpoint == list_checkpoints(unscored.directory)[-1].path


def test_episodes_depend_on_their_index_alone(scored: Run) -> None:
    """Played in any order, in parts, by anybody, deterministic or not."""
    env, spec = make_env(EnvConfig("probe_envs:Point-v0"))
    policy = load_policy(scored.directory)
    for deterministic in (True, False):
        whole = play_episodes(env, spec, policy, range(4), seed=0, deterministic=deterministic)
        parts = [play_episodes(env, spec, policy, [index], seed=0, deterministic=deterministic)[0] for index in (3, 1, 0, 2)]
        assert sorted(parts) == whole
        assert len({result.episode_return for result in whole}) == 4


def test_sampled_actions_are_the_mean_plus_noise_within_the_bounds(scored: Run, observations: np.ndarray) -> None:
    """Two draws differ, equal generators agree."""
    policy = load_policy(scored.directory)
    first, second, other = (
        policy.act(observations, deterministic=False, rng=stream(0, Purpose.EVALUATION_NOISE, key)) for key in (0, 0, 1)
    )
    np.testing.assert_array_equal(first, second)
    assert not np.array_equal(first, other)
    assert np.abs(first).max() <= 1
    with pytest.raises(ValueError, match="needs rng"):
        policy.act(observations, deterministic=False)


def test_an_observation_of_another_shape_is_refused(scored: Run) -> None:
    """With both shapes."""
    with pytest.raises(ValueError, match=r"observation has shape \(4,\); the policy was trained on \(3,\)"):
        load_policy(scored.directory).act(np.zeros(4))


def test_another_environment_with_the_same_spaces_is_played(scored: Run) -> None:
    """--env ID; here episodes of that environment's own length."""
    result = evaluate(scored.directory, env="probe_envs:Wrapped-v0", episodes=3)
    assert result.env_id == "probe_envs:Wrapped-v0" and result.length_mean <= 20


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"env": "Pendulum-v1"}, r"with action shape \(2,\); Pendulum-v1 has action shape \(1,\)"),
        ({"env": "Pendulumm-v1"}, "did you mean Pendulum-v1"),
        ({"episodes": 0}, "episodes must be at least 1, got 0"),
        ({"seed": -1}, "seed must be at least 0, got -1"),
    ],
)
def test_what_does_not_fit_is_refused(arguments: dict[str, Any], message: str, scored: Run) -> None:
    """A policy acts in its own spaces only."""
    with pytest.raises(UserError, match=message):
        evaluate(scored.directory, **arguments)


def test_the_command_prints_one_json_object(scored: Run, capsys: pytest.CaptureFixture[str]) -> None:
    """With the contract's keys, on stdout alone."""
    assert main(["evaluate", str(scored.directory), "--episodes", "3", "--stochastic", "--json"]) == 0
    captured = capsys.readouterr()
    shown = json.loads(captured.out)
    assert {"return_mean", "return_std", "length_mean", "episodes", "seed", "deterministic"} <= shown.keys()
    assert shown["episodes"] == 3 and shown["deterministic"] is False and captured.err == ""


def test_a_foreign_or_missing_checkpoint_is_one_message(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Exit code 2."""
    (tmp_path / "policy.pt").write_bytes(b"\x80\x04.")
    for name in ("policy.pt", "nothing"):
        assert main(["evaluate", str(tmp_path / name)]) == 2
        captured = capsys.readouterr()
        assert captured.err.startswith("error: ") and "Traceback" not in captured.err and captured.out == ""


@pytest.mark.parametrize(
    ("how", "message"),
    [
        ("raise", r"(?s)evaluation episode 0 of 'probe_envs:Failing-v0' raised an error:.*the wheel came off"),
        ("inf_reward", "evaluation episode 0 of 'probe_envs:Failing-v0' has the return inf: a reward was not finite"),
        ("reset", "(?s)evaluation episode 0 .*the simulator has no licence"),
    ],
)
def test_an_environment_that_breaks_is_named(how: str, message: str, scored: Run) -> None:
    """With the end of its traceback, as in training."""
    env, spec = make_env(EnvConfig("probe_envs:Failing-v0", {"how": how}))
    with pytest.raises(UserError, match=message):
        play_episodes(env, spec, load_policy(scored.directory), [0], seed=0, deterministic=True)


def test_an_environment_that_never_ends_is_told(scored: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    """With the setting that ends it."""
    monkeypatch.setattr("distppo.evaluation.episodes.ENDLESS", 50)
    env, spec = make_env(EnvConfig("probe_envs:Endless-v0"))
    with pytest.raises(UserError, match=r"did not end in 50 steps and has no time limit; set env\.max_episode_steps"):
        play_episodes(env, spec, load_policy(scored.directory), [0], seed=0, deterministic=True)


def test_a_checkpoint_that_contradicts_itself_is_refused(scored: Run) -> None:
    """Arrays of another size than its own config says, as of a file put together by hand."""
    checkpoint = load_checkpoint(list_checkpoints(scored.directory)[-1].path)
    assert snapshot_of(checkpoint).version == 3
    checkpoint.arrays["learner"]["parameters"] = np.zeros(3, np.float32)
    with pytest.raises(CheckpointError, match=r"do not fit its own config"):
        snapshot_of(checkpoint)
    del checkpoint.arrays["learner"]["parameters"]
    with pytest.raises(CheckpointError, match="no array 'parameters' in it"):
        snapshot_of(checkpoint)
