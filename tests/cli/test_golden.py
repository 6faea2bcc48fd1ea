"""Every help text and every user error, word for word, as files under tests/golden that a person can read and review.

    REGENERATE_GOLDEN=1 make test ARGS="tests/cli/test_golden.py"

writes them anew; `git diff tests/golden` shows what users will see from then on.
"""

from __future__ import annotations

import os
import shlex
import sys
from pathlib import Path

import pytest

from distppo.cli import config as config_command
from distppo.cli import env as env_command
from distppo.cli import main
from distppo.cli.commands import COMMANDS
from distppo.runtime.train import train

GOLDEN = Path(__file__).parents[1] / "golden"
REGENERATE = bool(os.environ.get("REGENERATE_GOLDEN"))
WIDTH = "100"
HELP = {
    "help": "--help",
    **{f"help-{command.name}": f"{command.name} --help" for command in COMMANDS},
    **{f"help-config-{command.name}": f"config {command.name} --help" for command in config_command.COMMANDS},
    **{f"help-env-{command.name}": f"env {command.name} --help" for command in env_command.COMMANDS},
}
ERRORS = {
    # what is typed
    "no-command": "",
    "unknown-command": "trian",
    "flag-before-command": "--env Hopper-v4",
    "unknown-flag": "train --num-env 8 --sed 3",
    "flag-without-value": "train --num-envs",
    "flag-of-a-setting": "train --epochs 3 --hidden-sizes '[64, 64]' --device",
    "flag-behind-dashes": "train --num-workers 0 -- --seed 1",
    "flag-with-negative-number": "train --learning-rate -1e-3",
    "extra-argument": "train HalfCheetah-v4",
    "two-ways-to-continue": "train --checkpoint runs/one --resume",
    "seeds": "train --seeds two",
    "seeds-twice": "train --seeds 1,1",
    "parallel-alone": "train --parallel 2",
    "autotune-seconds": "autotune --seconds 0",
    "tune-without-space": "tune --env Hopper-v4",
    "tune-trials": "tune --trials none",
    "tune-workers": "tune --space space.yaml --num-workers 4",
    # settings
    "unknown-key-in-file": "train --config my.yaml",
    "all-problems-together": "train --config my.yaml --num-envs 0 --set ppo.epochs=ten --learning-rate fast",
    "file-missing": "train --config nowhere.yaml",
    "file-not-yaml": "train --config broken.yaml",
    "file-with-tag": "train --config tagged.yaml",
    "config-check": "config check my.yaml broken.yaml",
    "key-of-another-section": "train --set gamma=0.9",
    "section-for-key": "train --set ppo=1",
    "batch-and-minibatch": "train --set ppo.mini_batch_size=100",
    "minibatch-larger-than-batch": "train --num-steps 4",
    "workers-and-envs": "train --num-workers 12",
    "choice": "train --mode snyc",
    "logger-entry": "train --set metrics.wandb.projekt=mine",
    "tune-space": "tune --space space.yaml",
    "tune-batch": "tune --space batch.yaml",
    # what the settings name
    "unknown-environment": "train --env HalfCheeta-v4 --num-workers 0",
    "environment-module-missing": "train --env nowhere_at_all:Env-v0 --num-workers 0",
    "environment-argument": "train --set env.kwargs.gravty=1 --num-workers 0",
    "callback-missing": "train --set run.callbacks=distppo.callbacks:StopAtRetrun --num-workers 0",
    "callback-argument": "train --set 'run.callbacks={class: distppo.callbacks:StopAtReturn, tarket: 3}' --num-workers 0",
    "network-class": "train --set network.class=nowhere_at_all:Net --num-workers 0",
    # runs and checkpoints
    "resume-nowhere": "train --resume tow",
    "resume-another-environment": "train --resume runs/one --env Hopper-v4",
    "resume-another-network": "train --resume runs/one --set network.hidden_sizes=8",
    "resume-unknown-steps": "train --resume runs/one@7",
    "run-directory-taken": "train --run-dir runs/one --num-workers 0",
    "evaluate-nowhere": "evaluate tow",
    "evaluate-untrusted": "evaluate runs/strange",
    "watch-nowhere": "watch tow",
    "config-diff-nowhere": "config diff tow my.yaml",
    "export-nowhere": "export tow --format numpy",
    "replay-nowhere": "replay tow",
    "tune-resume-nowhere": "tune --resume tow",
    "tune-resume-with-settings": "tune --resume --learning-rate 1e-3",
    # the cluster
    "cluster-unreachable": "train --address 127.0.0.1:1",
    "cluster-without-workers": "train --address 127.0.0.1:1 --num-workers 0",
    "submit-nothing": "submit --address 127.0.0.1:1",
    "submit-another-command": "submit -- evaluate latest",
    "submit-unreachable": "submit --address 127.0.0.1:1 -- train --env HalfCheetah-v4",
    "submit-wrong-address": "submit --address ray://head:10001 -- train --env HalfCheetah-v4",
    "submit-two-clusters": "submit --address 127.0.0.1:1 --cluster cluster.yaml -- train",
    "submit-wrong-setting": "submit --address 127.0.0.1:1 -- train --set ppo.clip_epsilom=0.2 --num-envs 0",
    "submit-unknown-flag": "submit --address 127.0.0.1:1 -- train --sed 3",
    "submit-unknown-environment": "submit --address 127.0.0.1:1 -- train --env HalfCheeta-v4",
    "submit-address-inside": "submit -- train --address auto",
    "submit-file-elsewhere": "submit -- train --config ../other.yaml",
    "submit-directory-relative": "submit -- train --run-dir runs/x --env HalfCheetah-v4",
    "submit-runs": "submit --runs runs -- train",
    "submit-no-file": "submit --cluster nowhere.yaml -- train --env HalfCheetah-v4",
    "submit-no-cluster-file": "submit --cluster my.yaml -- train --env HalfCheetah-v4",
    "or-start-alone": "train --or-start",
}
TINY = {
    "rollout.num_envs": 2,
    "rollout.num_steps": 16,
    "rollout.num_workers": 0,
    "ppo.mini_batch_size": 16,
    "ppo.epochs": 1,
    "network.hidden_sizes": [4],
    "evaluation.every": 0,
    "run.total_timesteps": 64,
}


@pytest.fixture(scope="module")
def project(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with two runs and files with mistakes."""
    folder = tmp_path_factory.mktemp("project")
    for name, env in (("one", "InvertedPendulum-v4"), ("strange", "probe_envs:Point-v0")):
        train(overrides=TINY | {"env.id": env, "run.directory": str(folder / "runs" / name)}, progress=False)
    (folder / "my.yaml").write_text("env:\n  id: Hopper-v4\nppo:\n  clip_epsilom: 0.3\n  gamma: 1.5\n")
    (folder / "broken.yaml").write_text("ppo:\n  gamma: [0.9\n")
    (folder / "tagged.yaml").write_text("ppo:\n  gamma: !!python/object:os.system 1\n")
    (folder / "space.yaml").write_text(
        "metric: rollout/ep_rew_meen\nspace:\n  ppo:\n    gama: {uniform: [0.9, 1]}\n    epochs: {int: [9, 3]}\n    clip_epsilon: 0.2\n"
    )
    (folder / "batch.yaml").write_text("space:\n  rollout:\n    num_steps: {choice: [256, 100]}\n")
    return folder


def compare(name: str, text: str) -> None:
    path = GOLDEN / f"{name}.txt"
    if REGENERATE:
        path.write_text(text)
    assert path.exists(), f"no {path.name}: REGENERATE_GOLDEN=1 writes it"
    assert text == path.read_text(), "REGENERATE_GOLDEN=1 writes what is right now; look at the difference with git diff"


def output_of(line: str, capsys: pytest.CaptureFixture[str]) -> str:
    """The command line, what it prints to stdout and stderr, and its exit code."""
    code = main(shlex.split(line))
    captured = capsys.readouterr()
    return f"$ distppo {line}".rstrip() + f"\n{captured.out}{captured.err}exit code {code}\n"


@pytest.fixture(autouse=True)
def terminal(monkeypatch: pytest.MonkeyPatch) -> None:
    """Argparse fits help to the terminal, and a Ray address or trust in the environment would change messages."""
    monkeypatch.setenv("COLUMNS", WIDTH)
    for name in ("RAY_ADDRESS", "RAY_API_SERVER_ADDRESS", "DISTPPO_TRUST"):
        monkeypatch.delenv(name, raising=False)


@pytest.mark.skipif(sys.version_info >= (3, 13), reason="argparse of Python 3.13 words and wraps some things differently")
@pytest.mark.parametrize("name", HELP)
def test_help(name: str, capsys: pytest.CaptureFixture[str]) -> None:
    compare(name, output_of(HELP[name], capsys))


@pytest.mark.parametrize("name", ERRORS)
def test_error(name: str, project: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    """Exit code 2, one message, no traceback of ours, and nothing on stdout that a script could take for a result."""
    monkeypatch.chdir(project)
    before = sorted(path.name for path in project.rglob("*"))
    text = output_of(ERRORS[name], capsys)
    assert text.endswith("exit code 2\n") and "Traceback" not in text and str(project) not in text
    assert sorted(path.name for path in project.rglob("*")) == before
    compare(f"error-{name}", text)


def test_every_file_belongs_to_a_case() -> None:
    assert {path.stem for path in GOLDEN.glob("*.txt")} == {*HELP, *(f"error-{name}" for name in ERRORS)}
