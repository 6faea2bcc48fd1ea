"""One evaluation as a whole: what lies in its folder, and what is refused before anything is played."""

from __future__ import annotations

import builtins
import json
import shutil
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from runtime.running import SMALL, Run

from distppo.algo.scores import iqm_interval
from distppo.checkpoint import list_checkpoints, load_checkpoint
from distppo.cli import main
from distppo.errors import CheckpointError, UserError
from distppo.evaluation.evaluate import evaluate
from distppo.evaluation.export import export_policy
from distppo.evaluation.session import Options, Session
from distppo.evaluation.values import value_units
from distppo.runtime.train import train
from distppo.strict_json import parse_strictly


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Run:
    settings = {"run.directory": str(tmp_path_factory.mktemp("session") / "run"), "run.checkpoint_every": 128, "evaluation.every": 256}
    return Run(train(overrides=SMALL | settings, progress=False))


def evaluated(run: Run, *flags: str) -> dict[str, Any]:
    """Runs the command and returns evaluation.json of the folder that it adds to the run."""
    before = set(run.directory.glob("evaluations/*"))
    assert main(["evaluate", str(run.directory), *flags]) == 0
    (folder,) = set(run.directory.glob("evaluations/*")) - before
    content = parse_strictly((folder / "evaluation.json").read_bytes())
    assert isinstance(content, dict)
    return content | {"folder": folder}


def test_the_scores_are_kept_in_the_run(run: Run) -> None:
    """Every episode, the statistics of them, the checkpoint, the settings and the versions; as the Python API has them."""
    content = evaluated(run, "--episodes", "6", "--stochastic", "--seed", "2")
    result = evaluate(run.directory, episodes=6, deterministic=False, seed=2)
    assert content["per_episode"] == [
        {
            "episode": episode.episode,
            "return": episode.episode_return,
            "length": episode.length,
            "seed": episode.seed,
            "terminated": episode.terminated,
            "truncated": not episode.terminated,
        }
        for episode in result.results
    ]
    assert {"terminated": True, "truncated": False}.items() <= content["per_episode"][0].items() or not result.results[0].terminated
    names = ("return_mean", "return_std", "return_median", "return_iqm", "length_mean")
    assert [content[name] for name in names] == [getattr(result, name) for name in names]
    assert content["return_iqm_interval"] == list(iqm_interval([result.returns]) or ())
    assert content["checkpoint"] == str(result.checkpoint) and content["settings"]["env"]["id"] == "probe_envs:Point-v0"
    assert {"distppo", "python", "gymnasium", "numpy", "torch"} <= content["versions"].keys()
    assert content["folder"].name.endswith(Path(content["checkpoint"]).name)


def test_one_object_on_stdout_is_the_file_with_its_folder(run: Run, capsys: pytest.CaptureFixture[str]) -> None:
    """--json, with everything else on stderr."""
    content = evaluated(run, "--episodes", "1", "--json")
    captured = capsys.readouterr()
    shown = json.loads(captured.out)
    assert shown.pop("folder") == str(content.pop("folder")) and shown == content and captured.err == ""
    assert shown["return_iqm_interval"] is None


def test_the_value_analysis_is_kept_beside_the_scores(run: Run, capsys: pytest.CaptureFixture[str]) -> None:
    """values.json and, where matplotlib is installed, four figures that are pictures."""
    content = evaluated(run, "--episodes", "3", "--analyze-value")
    values = parse_strictly((content["folder"] / content["values"]).read_bytes())
    assert values["episodes"] == 3 and values["deterministic"] is False and len(values["per_episode"]) == 3
    assert sum(row["steps"] for row in values["calibration"]) == values["steps"] == sum(values["td_error"]["counts"])
    shown = capsys.readouterr()
    assert "value function over 3 episodes of sampled actions" in shown.out
    pytest.importorskip("matplotlib", reason="the extra plot is not installed")
    from PIL import Image

    assert len(content["figures"]) == 4
    for name in content["figures"]:
        with Image.open(content["folder"] / name) as image:
            colours = image.convert("RGB").getcolors(2**24)
            assert image.size == (1037, 634) or image.size == (1036, 633)
            assert colours is not None and len(colours) > 50, "something is drawn"


def test_without_matplotlib_the_numbers_are_there_and_a_line_says_what_is_missing(
    run: Run, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """The extra that draws is named; nothing fails."""
    original = builtins.__import__

    def without(name: str, *arguments: Any, **others: Any) -> Any:
        if name.partition(".")[0] == "matplotlib":
            raise ModuleNotFoundError("No module named 'matplotlib'", name="matplotlib")
        return original(name, *arguments, **others)

    monkeypatch.setattr(builtins, "__import__", without)
    content = evaluated(run, "--episodes", "2", "--analyze-value")
    assert content["figures"] == [] and (content["folder"] / "values.json").exists()
    assert "pip install 'distppo[plot]'" in capsys.readouterr().err


def test_an_exported_policy_is_scored_but_has_no_value_function(run: Run, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Its folder lies beside the file; what does not apply says so, and what does instead."""
    exported = export_policy(run.directory, output=tmp_path / "policy.npz").path
    trusted = ["--trust", "probe_envs:Point-v0"]
    assert main(["evaluate", str(exported), "--episodes", "2", *trusted]) == 0
    (folder,) = (tmp_path / "evaluations").iterdir()
    mine = json.loads((folder / "evaluation.json").read_text())["return_mean"]
    assert mine == pytest.approx(evaluate(run.directory, episodes=2).return_mean)
    capsys.readouterr()
    for flag, message in (("--analyze-value", "has no value function"), ("--stochastic", "which is deterministic")):
        assert main(["evaluate", str(exported), flag, *trusted]) == 2
        error = capsys.readouterr().err
        assert message in error and "checkpoint" in error
    assert len(list((tmp_path / "evaluations").iterdir())) == 1


@pytest.mark.parametrize("which", ["@best", "@last", "@128", "@256"])
def test_a_run_and_a_word_name_a_checkpoint(run: Run, which: str) -> None:
    """RUN@best, RUN@last and RUN@<env steps>, as the command takes them."""
    session = Session(Options(f"{run.directory}{which}", episodes=1), print)
    steps = {"@128": 128, "@256": 256, "@last": 384, "@best": run.summary["best_evaluation"]["env_steps"]}
    assert session.play().env_steps == steps[which]


def test_latest_is_the_newest_run_and_a_missing_one_lists_what_is_there(
    run: Run, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """From the folder in which `runs/` lies."""
    (tmp_path / "runs").mkdir()
    (tmp_path / "runs" / "mine").symlink_to(run.directory)
    monkeypatch.chdir(tmp_path)
    assert main(["evaluate", "latest", "--episodes", "1"]) == 0
    assert "runs/mine/checkpoints/ckpt_" in capsys.readouterr().out
    assert main(["evaluate", "latest@999"]) == 2
    assert "no checkpoint at exactly this many env steps" in (error := capsys.readouterr().err) and "runs/mine@384" in error
    assert main(["evaluate", "ours"]) == 2
    assert "runs/mine  (last at 384 env steps)" in capsys.readouterr().err


def test_a_folder_that_cannot_be_made_costs_scores_nothing(run: Run, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """A warning where only scores are wanted; an error, before anything is played, where files are."""
    copy = tmp_path / "whole"
    shutil.copytree(run.directory / "checkpoints", copy / "checkpoints")
    (copy / "evaluations").write_text("in the way")
    assert main(["evaluate", str(copy), "--episodes", "1"]) == 0
    captured = capsys.readouterr()
    assert "mean" in captured.out and captured.err.startswith("warning: ") and "--output" in captured.err
    assert main(["evaluate", str(copy), "--episodes", "1", "--analyze-value"]) == 2
    assert "evaluations: File exists, so nothing can be written there" in capsys.readouterr().err
    (copy / "evaluations").unlink()
    (copy / "evaluations").symlink_to(tmp_path)
    with pytest.raises(UserError, match="evaluations is a link"):
        Session(Options(str(copy)), print)
    assert main(["evaluate", str(copy), "--episodes", "1", "--output", str(tmp_path / "other")]) == 0
    assert len(list((tmp_path / "other").iterdir())) == 1


def test_without_the_extra_video_gifs_are_written_and_mp4_is_refused(
    run: Run, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """The way out is named both times."""
    monkeypatch.setitem(sys.modules, "imageio_ffmpeg", None)
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    assert main(["evaluate", str(run.directory), "--record", "--format", "mp4"]) == 2
    assert "pip install 'distppo[video]', or use --format gif" in capsys.readouterr().err
    flags = ["--record", "--episodes", "1", "--env", "probe_envs:Painted-v0", "--size", "64x48", "--seconds", "0.4"]
    content = evaluated(run, *flags)
    assert [video["file"] for video in content["videos"]] == ["episode-0.gif"] and content["videos"][0]["frames"] == 10
    assert "writing GIFs" in capsys.readouterr().err


def test_an_environment_that_breaks_leaves_no_folder(run: Run, tmp_path: Path) -> None:
    """Nothing was found out, so nothing is kept."""
    session = Session(Options(str(run.directory), env="probe_envs:Failing-v0", output=tmp_path), print)
    with pytest.raises(UserError, match="probe_envs:Failing-v0"):
        session.play()
    assert list(tmp_path.iterdir()) == []


def test_scores_are_told_where_they_cannot_be_written(run: Run, tmp_path: Path) -> None:
    """The folder has gone meanwhile, as with a disk that is taken away."""
    told: list[str] = []
    session = Session(Options(str(run.directory), episodes=1, output=tmp_path), told.append)
    assert session.folder is not None
    session.folder.rmdir()
    assert session.play().episodes == 1
    assert len(told) == 1 and told[0].startswith("warning: ") and "No such file or directory; --output" in told[0]


def test_moments_that_no_learner_has_are_refused(run: Run) -> None:
    """The scale of values comes from arrays that a stranger may have written."""
    checkpoint = load_checkpoint(list_checkpoints(run.directory)[-1].path)
    arrays = checkpoint.arrays["learner"]
    for broken in (np.array(np.nan), np.zeros(3), np.array(-1.0), np.array(1)):
        arrays["return_moments/m2"] = broken
        with pytest.raises(CheckpointError, match="its return_moments are no moments of numbers"):
            value_units(checkpoint)
    del arrays["return_moments/m2"]
    with pytest.raises(CheckpointError, match="no array 'return_moments/m2' in it"):
        value_units(checkpoint)
