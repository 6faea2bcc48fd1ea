"""The report as a file: everything in it, nothing of a stranger's in its markup, and nothing written over."""

from __future__ import annotations

import base64
import contextlib
import hashlib
import json
import os
import re
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from report.conftest import MP4, add_evaluation
from report.page_reader import Page

from distppo.checkpoint import CheckpointStore
from distppo.cli import main
from distppo.errors import UserError
from distppo.report import write_report
from distppo.report.html import LONGEST_TEXT

SECTIONS = [
    "overview",
    "findings",
    "returns",
    "videos",
    "evaluations",
    "values",
    "diagnostics",
    "time",
    "faults",
    "settings",
    "checkpoints",
    "machine",
]
ATTACK = '"><script>window.pwned=1</script><img src=x onerror="window.pwned=1"><svg onload=alert(1)>\u202e\x1b[31m'
KINDS = {
    *("html", "head", "meta", "link", "title", "style", "body", "header", "nav", "main", "section", "footer", "script"),
    *("a", "button", "div", "span", "p", "h1", "h2", "h3", "ul", "li", "dl", "dt", "dd", "code", "strong", "details", "summary", "output"),
    *(
        "table",
        "caption",
        "thead",
        "tbody",
        "tr",
        "th",
        "td",
        "figure",
        "figcaption",
        "img",
        "video",
        "svg",
        "line",
        "path",
        "rect",
        "text",
    ),
}
MakeRun = Callable[..., Path]


def page_of(*runs: Path) -> Page:
    report = write_report([str(run) for run in runs], runs[0].parent / "out.html")
    return Page(report.path.read_text(encoding="utf-8"))


def assert_harmless(page: Page) -> None:
    """Two scripts, ours; no handler, no inline style, no address that leaves the page; every element of a kind that we make."""
    assert len(page.scripts) == 2
    kinds = {name for name, _ in page.elements}
    assert kinds <= KINDS
    for name, attributes in page.elements:
        assert not [key for key in attributes if key.startswith("on") or key == "style"], (name, attributes)
        assert attributes.get("src", "data:").startswith("data:")
        assert re.match(r"#|data:,$", attributes.get("href", "#"))


def test_every_section_is_there_and_says_something(quickstart: Path) -> None:
    """One run: all sections in their order, and what is not there is named with the command that makes it."""
    page = page_of(quickstart)
    assert sorted(page.sections) == sorted(SECTIONS) and list(page.sections)[:4] == ["overview", "findings", "returns", "diagnostics"]
    assert all(len(words.split()) > 3 for words in page.sections.values()), page.sections
    assert "1,537" in page.sections["overview"] and "2,879" in page.sections["overview"] and "finished" in page.sections["overview"]
    assert "nothing found" in page.sections["findings"]
    assert f"launch.py evaluate {quickstart} --record" in page.sections["videos"]
    assert f"launch.py evaluate {quickstart} --analyze-value" in page.sections["values"]
    assert "Nothing went wrong" in page.sections["faults"]
    assert "2.13.0+cpu" in page.sections["machine"] and "23.5 GiB" in page.sections["machine"]
    assert_harmless(page)


def test_the_figures_have_numbers_alternatives_and_tables(quickstart: Path) -> None:
    """Each figure: a description for those who do not see it, a table, and its numbers for the script."""
    page = page_of(quickstart)
    figures = {figure["key"]: figure for figure in json.loads(page.scripts[0])}
    assert len(figures) == len([name for name, _ in page.elements if name == "figure"]) >= 15
    returns = {series["name"]: series for series in figures["returns"]["series"]}
    assert returns["training"]["steps"][-1] == 606210 and returns["training"]["values"][-1] == 1537.0  # in five digits
    assert len(returns["evaluation"]["values"]) == 3 and returns["evaluation"]["low"][-1] < returns["evaluation"]["values"][-1]
    pictures = [attributes for name, attributes in page.elements if name == "svg" and attributes.get("role") == "img"]
    assert all(len(attributes["aria-label"]) > 10 for attributes in pictures)
    plots = [attributes for _, attributes in page.elements if attributes.get("class") == "plot"]
    assert {attributes["data-figure"] for attributes in plots} == set(figures)
    assert all(attributes["tabindex"] == "0" and attributes["aria-label"] for attributes in plots)


def test_the_page_forbids_itself_every_request(quickstart: Path) -> None:
    """Nothing but the one style and the one script in it may run, by their hashes."""
    markup = write_report([str(quickstart)]).path.read_text(encoding="utf-8")
    page = Page(markup)
    (policy,) = [attributes["content"] for _, attributes in page.elements if attributes.get("http-equiv") == "Content-Security-Policy"]
    style = re.search(r"<style>(.*?)</style>", markup, re.DOTALL)
    assert style is not None
    hashes = [base64.b64encode(hashlib.sha256(source.encode()).digest()).decode() for source in (style[1], page.scripts[1])]
    assert policy == (
        f"default-src 'none'; style-src 'sha256-{hashes[0]}'; script-src 'sha256-{hashes[1]}'; img-src data:; media-src data:; "
        "base-uri 'none'; form-action 'none'"
    )
    assert not re.search(r"https?://", markup)


def test_the_settings_say_where_they_come_from(make_run: MakeRun) -> None:
    """The origin that the run wrote down; of what differs from the defaults without one, that it did not."""
    words = page_of(make_run("a")).sections["settings"]
    assert "configs/quickstart.yaml:27:3" in words and "set by the program" in words and "All settings" in words


def test_seeds_are_one_group_with_an_interval(make_run: MakeRun) -> None:
    """A folder of runs that differ in their seed: interquartile mean, interval, thin lines for the seeds, a table of them."""
    runs = [make_run(f"hc/seed{seed}", seed=seed, lift=100.0 * seed) for seed in range(5)]
    page = page_of(runs[0].parent)
    figures = {figure["key"]: figure for figure in json.loads(page.scripts[0])}
    (line,) = figures["rollout-ep_rew_mean"]["series"]
    # The last rows are 1,537.0 + (0, 100, ..., 400) x 36 / 37; the middle half of five is the inner three.
    assert line["name"] == "hc" and line["values"][-1] == pytest.approx(1537.0 + 200 * 36 / 37, abs=1)
    assert line["low"][-1] < line["values"][-1] < line["high"][-1]
    assert all(f"seed {seed}" in page.sections["overview"] for seed in range(5))
    assert len([1 for _, attributes in page.elements if "faint" in attributes.get("class", "")]) == 10  # 5 seeds in 2 figures
    assert "interquartile mean over seeds" in page.sections["returns"]


def test_groups_stand_side_by_side(make_run: MakeRun) -> None:
    """Runs with other settings are another group, even when they lie in one folder, and what differs is listed."""
    for seed in range(2):
        make_run(f"all/a-seed{seed}", seed=seed)
        make_run(f"all/b-seed{seed}", seed=seed, gamma=0.98)
    folder = make_run("all/c", seed=9, gamma=0.97).parent
    page = page_of(*sorted(folder.iterdir()))
    figures = {figure["key"]: figure for figure in json.loads(page.scripts[0])}
    assert [series["name"] for series in figures["train-approx_kl"]["series"]] == ["a", "b", "c"]
    assert "What differs" in page.sections["settings"] and "ppo.gamma" in page.sections["settings"]
    assert_harmless(page)


def test_the_same_seeds_in_two_folders_are_compared(make_run: MakeRun) -> None:
    """Two versions of the code with equal settings: two groups, told apart by their folders."""
    for name in ("old", "new"):
        for seed in range(2):
            folder = make_run(f"{name}/seed{seed}", seed=seed).parent
    page = page_of(folder.parent / "old", folder)
    figures = {figure["key"]: figure for figure in json.loads(page.scripts[0])}
    assert [series["name"] for series in figures["train-approx_kl"]["series"]] == ["old", "new"]


def test_findings_stand_in_words_with_what_to_try(make_run: MakeRun) -> None:
    page = page_of(make_run("bad", **{"train/clip_fraction": 0.7}))
    words = page.sections["findings"]
    assert "Clip fraction too high" in words and "70% of the samples" in words and "Try: Lower ppo.learning_rate" in words
    assert "docs/troubleshooting.md#clip-fraction-too-high" in words


def test_evaluations_values_and_videos_are_taken_in(quickstart: Path) -> None:
    """What `evaluate --record --analyze-value` has left: scores, numbers and curves of the critic, figures, the video itself."""
    add_evaluation(quickstart)
    page = page_of(quickstart)
    assert "2,880" in page.sections["evaluations"] and "2,860 to 2,900" in page.sections["evaluations"]
    assert "0.91" in page.sections["values"] and "Calibration" in page.sections["values"]
    (video,) = [attributes for name, attributes in page.elements if name == "video"]
    assert base64.b64decode(video["src"].removeprefix("data:video/mp4;base64,")) == MP4
    assert "return 2,950" in video["aria-label"]
    keys = [figure["key"] for figure in json.loads(page.scripts[0])]
    assert {"value-0-calibration", "value-0-bias", "value-0-td"} <= set(keys)
    (picture,) = [attributes for name, attributes in page.elements if name == "img"]
    assert picture["alt"].startswith("Calibration")
    assert_harmless(page)


def test_a_video_is_named_by_its_episode(quickstart: Path) -> None:
    """The best, median or worst one as such, any other by its number."""
    shown = {"best.mp4": "best", "episode-0.mp4": "episode-0"}
    folder = add_evaluation(quickstart, videos=[{"file": file, "shows": shows, "return": 25.0} for file, shows in shown.items()])
    (folder / "episode-0.mp4").write_bytes(MP4)
    labels = [attributes["aria-label"] for name, attributes in page_of(quickstart).elements if name == "video"]
    assert [label.split(": ")[1].split(", ")[:2] for label in labels] == [["best episode", "return 25"], ["episode 0", "return 25"]]


def test_an_evaluation_that_is_not_due_yet_is_told_from_one_that_never_is(make_run: MakeRun) -> None:
    """The first of them needs no change of the settings."""
    for name, every, words in (
        ("due", "100000", "none yet: one every 100,000 env steps"),
        ("never", "0", "not made: set evaluation.every"),
    ):
        run = make_run(name, length=3, **{"eval/mean_reward": None})
        config = (run / "config.yaml").read_text()
        (run / "config.yaml").write_text(re.sub(r"(?m)^(evaluation:\n(?:  .*\n)*?  every: )\d+", rf"\g<1>{every}", config))
        assert words in page_of(run).sections["overview"]


def test_a_gif_can_be_stopped(quickstart: Path) -> None:
    """It cannot be paused, so it lies in something that can be closed."""
    folder = add_evaluation(quickstart, videos=[{"file": "best.gif", "shows": "best", "return": 1.0}])
    (folder / "best.gif").write_bytes(b"GIF89a" + bytes(100))
    page = page_of(quickstart)
    (index,) = [index for index, (_, attributes) in enumerate(page.elements) if attributes.get("src", "").startswith("data:image/gif")]
    assert [name for name, _ in page.elements[index - 2 : index]] == ["details", "summary"] and "close to stop" in page.sections["videos"]
    assert_harmless(page)


def test_a_video_that_is_too_large_or_none_stays_outside(quickstart: Path) -> None:
    """A report stays small enough to be sent; where the video lies is said."""
    folder = add_evaluation(quickstart, video=MP4 + bytes(7_000_000))
    page = page_of(quickstart)
    assert (
        "video" not in {name for name, _ in page.elements} and f"{folder}/best.mp4 is not shown here (too large" in page.sections["videos"]
    )
    (folder / "best.mp4").write_bytes(b"<html><script>alert(1)</script>")
    assert "not a PNG, GIF or MP4 file" in page_of(quickstart).sections["videos"]
    (folder / "best.mp4").unlink()
    (folder / "best.mp4").symlink_to("/etc/passwd")
    assert "is not shown here" in page_of(quickstart).sections["videos"]


def test_checkpoints_are_listed_by_the_names_that_commands_take(quickstart: Path) -> None:
    store = CheckpointStore(quickstart, keep=3)
    store.save(iteration=37, env_steps=606208, arrays={"policy": {"weights": np.zeros(3, np.float32)}}, state={}, best=True)
    assert f"{quickstart}@606208" in page_of(quickstart).sections["checkpoints"]


def test_a_hostile_run_injects_nothing(make_run: MakeRun) -> None:
    """Markup in every place that a run can put text: it is shown, escaped, and becomes no element."""
    run = make_run("x" + ATTACK.replace("/", ""))
    lines = (run / "metrics.jsonl").read_text().splitlines()
    started = {
        "event": "started",
        "machine": {ATTACK: ATTACK, "cpu": ATTACK, "cores": [ATTACK]},
        "origins": {"ppo.gamma": ATTACK},
        "notes": [ATTACK],
    }
    fault = {
        "event": "fault",
        "time": ATTACK,
        "what": ATTACK,
        "where": ATTACK,
        "why": ATTACK,
        "done": ATTACK,
        "count": ATTACK,
        "env_steps": ATTACK,
    }
    ready = {"event": "ready", "description": ATTACK, "step": ATTACK}
    error = {"event": "error", "kind": ATTACK, "message": ATTACK, "env_steps": 5}
    (run / "metrics.jsonl").write_text(
        "\n".join([json.dumps(event) for event in (started, ready, fault)] + lines[1:] + [json.dumps(error)]) + "\n"
    )
    (run / "summary.json").write_text(json.dumps({"env": ATTACK}))
    (run / "config.yaml").write_text((run / "config.yaml").read_text().replace("HalfCheetah-v4", json.dumps(ATTACK)[1:-1].join('""')))
    hostile = {"file": ATTACK, "shows": ATTACK, "return": ATTACK}
    add_evaluation(
        run, videos=[hostile, {"file": "../../../etc/passwd"}, 3], figures=[ATTACK, "..", None], episodes=ATTACK, env_steps=ATTACK
    )
    page = page_of(run)
    assert_harmless(page)
    assert "pwned" not in page.scripts[1] and "<" not in page.scripts[0]
    assert page.words.count("<script>window.pwned=1</script>") > 5, "what a run says is shown as it is"
    assert "\u202e" not in page.words and "\x1b" not in page.words


def test_settings_that_cannot_be_read_are_said_to_be_so(quickstart: Path) -> None:
    """Curves and findings need no config.yaml; the section says what is wrong with it."""
    (quickstart / "config.yaml").write_text("ppo: {gama: 0.9}\n")
    (quickstart / "summary.json").write_text("{")
    page = page_of(quickstart)
    assert "unknown key ppo.gama" in page.sections["settings"] and "summary.json cannot be read" in page.sections["settings"]


def test_links_in_a_run_lead_nowhere(quickstart: Path, tmp_path: Path) -> None:
    """A run that shows another file as its settings, its summary or its metrics does not get it into the report."""
    secret = tmp_path / "secret"
    secret.write_text("secret: {word: swordfish}\n")
    for name in ("config.yaml", "summary.json"):
        (quickstart / name).unlink()
        (quickstart / name).symlink_to(secret)
    assert "swordfish" not in write_report([str(quickstart)]).path.read_text()
    (quickstart / "metrics.jsonl").rename(tmp_path / "metrics.jsonl")
    (quickstart / "metrics.jsonl").symlink_to(tmp_path / "metrics.jsonl")
    with pytest.raises(UserError, match="neither a run"):
        write_report([str(quickstart)])


def test_absurd_numbers_are_left_out(make_run: MakeRun) -> None:
    """NaN, infinities and numbers whose sums overflow, in every metric: a report comes out, with what is left."""
    for index, absurd in enumerate((1.7e308, -1.7e308, "NaN", "Infinity", None, 1e-320, 10**18)):
        keys = ("rollout/ep_rew_mean", "eval/mean_reward", "eval/std_reward", "train/approx_kl", "time/collect", "time/fps", "train/std")
        assert_harmless(page_of(make_run(f"absurd/{index}/seed0", **dict.fromkeys(keys, absurd))))


def test_the_curves_of_a_long_run_go_to_its_end(make_run: MakeRun) -> None:
    """1,000 iterations: every line is drawn to the right edge, whatever length its markup has."""
    page = page_of(make_run("long", length=1000))
    lines = [attributes["d"] for name, attributes in page.elements if name == "path" and attributes["class"].startswith(("line", "band"))]
    assert max(map(len, lines)) > 2 * LONGEST_TEXT
    for line in lines:
        columns = [float(point.split()[0]) for point in line.removeprefix("M").removesuffix("Z").split("L")]
        assert max(columns) > 900


def test_a_long_run_with_a_video_stays_small(make_run: MakeRun) -> None:
    """1,000 iterations and a video of 5 MB: below 10 MB, made in a few seconds."""
    run = make_run("long", length=1000)
    add_evaluation(run, video=MP4 + bytes(5_000_000))
    start = time.perf_counter()
    report = write_report([str(run)])
    assert report.path == run / "report.html" and report.size < 10_000_000
    assert report.size - 5_000_000 * 4 // 3 < 1_500_000
    assert time.perf_counter() - start < 20


def test_the_command_names_the_file_and_the_findings(make_run: MakeRun, capsys: pytest.CaptureFixture[str]) -> None:
    run = make_run("bad", **{"train/clip_fraction": 0.7})
    assert main(["report", str(run)]) == 0
    out = capsys.readouterr().out.splitlines()
    assert re.fullmatch(rf"report:          {re.escape(str(run))}/report.html \(0\.\d MB; 1 warning\)", out[0])
    assert out[1] == "  warning: Clip fraction too high"
    assert main(["report", str(run)]) == 0, "a report is written over by its next version"


def test_runs_are_found_by_name_and_by_age(make_run: MakeRun, tmp_path: Path) -> None:
    """A name under runs/, `latest`, and a folder of runs as the newest."""
    older, newer = make_run("runs/older"), make_run("runs/group/seed0")
    os.utime(older / "metrics.jsonl", (1, 1))
    with contextlib.chdir(tmp_path):
        assert write_report(["older"]).path == Path("runs/older/report.html")
        assert write_report(["latest"]).path == Path("runs/group/seed0/report.html")
        assert write_report(["older", str(newer)]).findings == []


@pytest.mark.parametrize(
    ("reference", "words"),
    [
        ("nowhere", "'nowhere' is neither a folder nor a run under runs/"),
        ("quickstrt", "did you mean runs/quickstart?"),
        ("empty", "empty: neither a run (no metrics.jsonl in it) nor a folder of runs\nThe newest runs are:\n  runs/quickstart"),
        ("", "'' is neither a folder nor a run"),
        ("begun", "begun: no iteration has been written yet"),
        ("damaged", "damaged/metrics.jsonl:2: this line is damaged"),
    ],
)
def test_what_cannot_be_reported_on_is_a_users_error(quickstart: Path, tmp_path: Path, reference: str, words: str) -> None:
    (tmp_path / "empty").mkdir()
    for name, text in (("begun", '{"event": "started"}\n'), ("damaged", '{"event": "started"}\n{"time/total\n')):
        (tmp_path / name).mkdir()
        (tmp_path / name / "metrics.jsonl").write_text(text)
    with contextlib.chdir(tmp_path), pytest.raises(UserError, match=re.escape(words)):
        write_report([reference])


def test_nothing_but_a_report_is_written_over(quickstart: Path, tmp_path: Path) -> None:
    """A file of the user's, a link and a folder in the place of the report are left alone, and so is a place that cannot be written."""
    thesis = tmp_path / "thesis.html"
    thesis.write_text("<html>years of work</html>")
    (tmp_path / "link.html").symlink_to(thesis)
    for output, words in (
        (thesis, "exists and is not a report"),
        (tmp_path / "link.html", "in the way"),
        (tmp_path, "is a folder"),
        (tmp_path / "no" / "such" / "place.html", "cannot be written (No such file or directory)"),
    ):
        with pytest.raises(UserError, match=re.escape(words)):
            write_report([str(quickstart)], output)
    assert thesis.read_text() == "<html>years of work</html>"
    assert sorted(path.name for path in tmp_path.iterdir()) == ["link.html", "runs", "thesis.html"]
