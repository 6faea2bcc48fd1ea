"""The report as a person meets it: opened in a real browser, read, walked through by keys, in light and dark, on phones and on desks."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from headless_browser import Browser, find_chromium
from report.conftest import add_evaluation
from report.test_page import ATTACK, SECTIONS

from distppo.report import write_report

pytestmark = pytest.mark.browser

MakeRun = Callable[..., Path]
SHAPES = [(400, False), (1400, False), (400, True), (1400, True)]
EMPTY_SECTIONS = "[...document.querySelectorAll('section')].filter((s) => s.getBoundingClientRect().height < 60).map((s) => s.id)"
OVERFLOW = """
(() => {
  const width = document.documentElement.clientWidth;
  const scrolls = (e) => { for (; e; e = e.parentElement) if (/auto|scroll|hidden/.test(getComputedStyle(e).overflowX)) return true; };
  const wide = [...document.body.querySelectorAll("*")].filter(
    (e) => !e.closest("svg, .skip") && e.getBoundingClientRect().right > width + 1 && !scrolls(e.parentElement)
  );
  return [document.documentElement.scrollWidth - width, wide.map((e) => e.tagName + "." + e.className)];
})()
"""
CONTRAST = """
(() => {
  const parse = (text) => text.match(/[0-9.]+/g).map(Number);
  const light = ([r, g, b]) => [r, g, b].map((c) => c / 255).map((c) => (c <= 0.03928 ? c / 12.92 : ((c + 0.055) / 1.055) ** 2.4))
    .reduce((sum, c, i) => sum + c * [0.2126, 0.7152, 0.0722][i], 0);
  const behind = (e) => {
    for (; e; e = e.parentElement) { const c = parse(getComputedStyle(e).backgroundColor); if (c[3] !== 0) return c; }
  };
  const found = [];
  for (const e of document.body.querySelectorAll("*")) {
    if (![...e.childNodes].some((n) => n.nodeType === 3 && n.textContent.trim()) || !e.getClientRects().length) continue;
    if (["SCRIPT", "STYLE"].includes(e.tagName)) continue;
    const style = getComputedStyle(e);
    const [front, back] = [light(parse(e.tagName === "text" ? style.fill : style.color)), light(behind(e) || [255, 255, 255])];
    const ratio = (Math.max(front, back) + 0.05) / (Math.min(front, back) + 0.05);
    if (ratio < 4.5) found.push([e.tagName, e.className.baseVal ?? e.className, ratio.toFixed(2), e.textContent.slice(0, 30)]);
  }
  return found;
})()
"""
"""Texts whose contrast with what is behind them is below 4.5 : 1, by the formula of WCAG 2.1, which asks for that."""


@pytest.fixture(scope="module")
def browser(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Browser]:
    chromium = find_chromium()
    if chromium is None:
        pytest.skip("no Chromium here; .ci/run installs it (on Debian: apt install chromium)")
    with Browser(chromium, tmp_path_factory.mktemp("profile")) as browser:
        yield browser


@pytest.fixture
def report(quickstart: Path) -> str:
    """Address of the report of a real run with everything that `evaluate` adds."""
    add_evaluation(quickstart)
    return write_report([str(quickstart)]).path.as_uri()


@pytest.mark.parametrize(("width", "dark"), SHAPES)
def test_it_opens_without_a_complaint_and_asks_for_nothing(browser: Browser, report: str, width: int, dark: bool) -> None:
    """Nothing on the console, no request but for the file itself, all sections there, nothing wider than the window, texts readable."""
    browser.open(report, width=width, dark=dark)
    sections = browser.evaluate("[...document.querySelectorAll('main > section')].map((s) => s.id)")
    assert sections == SECTIONS
    assert browser.evaluate(EMPTY_SECTIONS) == []
    assert browser.evaluate(OVERFLOW) == [0, []]
    assert browser.evaluate(CONTRAST) == []
    background = browser.evaluate("getComputedStyle(document.body).backgroundColor")
    assert (background == "rgb(13, 17, 23)") is dark
    assert browser.requests() == [report]
    assert browser.complaints() == []


def test_several_groups_fit_as_well(browser: Browser, make_run: MakeRun) -> None:
    """Side by side, on a phone: what is too wide scrolls inside itself."""
    runs = [make_run(f"group{gamma}/seed{seed}", seed=seed, gamma=gamma) for gamma in (0.9, 0.95, 0.98) for seed in range(3)]
    address = write_report([str(run.parent) for run in runs[::3]], runs[0].parents[1] / "several.html").path.as_uri()
    for width in (400, 1400):
        browser.open(address, width=width)
        assert browser.evaluate(OVERFLOW) == [0, []]
        assert (browser.requests(), browser.complaints()) == ([address], [])


def test_a_thousand_iterations_open_within_two_seconds(browser: Browser, make_run: MakeRun) -> None:
    """A long run with a video of 5 MB: until everything is loaded and drawn."""
    run = make_run("long", length=1000)
    add_evaluation(run, video=b"\0\0\0\x18ftypisom" + bytes(5_000_000))
    address = write_report([str(run)]).path.as_uri()
    seconds = browser.open(address, width=1400)
    drawn = browser.evaluate("new Promise((done) => requestAnimationFrame(() => requestAnimationFrame(() => done(performance.now()))))")
    assert seconds < 2.0 and drawn < 2000.0, (seconds, drawn)


def test_values_are_read_by_pointer_and_by_keys(browser: Browser, report: str) -> None:
    """The pointer at the right edge, and End, read the last values; Home the first; leaving clears."""
    browser.open(report, width=1400)
    box = browser.evaluate(
        "(() => { const b = document.querySelector('.area').getBoundingClientRect(); return [b.left, b.top, b.right, b.bottom] })()"
    )
    browser.evaluate(f"window.scrollTo({{top: {box[1] - 200}, behavior: 'instant'}})")
    browser.move(box[2] - 2, 200 + (box[3] - box[1]) / 2)
    read = "document.querySelector('.chart .reading').textContent"
    assert browser.evaluate(read).startswith("606,210 env steps: training 1,537, evaluation 2,879 (")
    browser.move(2, 2)
    assert browser.evaluate(read) == ""
    browser.evaluate("document.querySelector('.plot').focus()")
    browser.press("Home")
    assert browser.evaluate(read).startswith("16,384 env steps: training -258.1")
    browser.press("ArrowRight")
    assert browser.evaluate(read).startswith("32,768 env steps: training")
    browser.press("End")
    assert browser.evaluate(read).startswith("606,210 env steps")
    browser.evaluate("document.activeElement.blur()")
    assert browser.evaluate(read) == ""


def test_everything_can_be_reached_by_keys_and_focus_is_seen(browser: Browser, report: str) -> None:
    """Tab goes from the skip link over the button and the contents to the figures; what has the focus has an outline."""
    browser.open(report, width=1400)
    seen = []
    for _ in range(24):
        browser.press("Tab")
        seen.append(
            browser.evaluate(
                "[document.activeElement.className || document.activeElement.id || document.activeElement.tagName, "
                "getComputedStyle(document.activeElement).outlineStyle]"
            )
        )
    names = [name for name, _ in seen]
    assert names[:2] == ["skip", "theme"] and names.count("A") == len(SECTIONS) and "plot" in names
    assert {style for _, style in seen} <= {"solid", "auto"}


def test_the_colors_can_be_switched(browser: Browser, report: str) -> None:
    """By the button, from what the system prefers to the other and back."""
    browser.open(report, width=1400, dark=True)
    button = "document.getElementById('theme')"
    assert browser.evaluate(f"{button}.textContent") == "Light colors"
    browser.evaluate(f"{button}.click()")
    assert browser.evaluate("getComputedStyle(document.body).backgroundColor") == "rgb(255, 255, 255)"
    assert browser.evaluate(CONTRAST) == []
    assert browser.evaluate(f"{button}.textContent") == "Dark colors"


def test_a_hostile_run_does_nothing_in_the_browser(browser: Browser, make_run: MakeRun) -> None:
    """Its text is text: no script of its runs, nothing is asked for, no policy has to step in."""
    run = make_run("hostile")
    fault = {"event": "fault", **dict.fromkeys(("time", "what", "where", "why", "done"), ATTACK), "env_steps": 5}
    with open(run / "metrics.jsonl", "a") as file:
        file.write(json.dumps(fault) + "\n" + json.dumps({"event": "error", "kind": ATTACK, "message": ATTACK}) + "\n")
    address = write_report([str(run)]).path.as_uri()
    browser.open(address, width=1400)
    assert browser.evaluate("window.pwned") is None
    assert browser.evaluate("document.scripts.length") == 2
    assert (browser.requests(), browser.complaints()) == ([address], [])


def test_it_can_be_read_without_its_script(browser: Browser, report: str) -> None:
    """Figures, tables and texts are there before any script runs."""
    browser.call("Emulation.setScriptExecutionDisabled", value=True)
    try:
        browser.open(report, width=1400)
        tree = browser.call("Accessibility.getFullAXTree")["nodes"]
    finally:
        browser.call("Emulation.setScriptExecutionDisabled", value=False)
    roles = [node["role"]["value"] for node in tree if not node.get("ignored")]
    assert {"banner", "navigation", "main", "contentinfo"} <= set(roles)
    assert roles.count("image") + roles.count("img") >= 15 and roles.count("heading") > 25
    unnamed = [
        node
        for node in tree
        if not node.get("ignored") and node["role"]["value"] in ("link", "button", "image", "region") and not node["name"]["value"]
    ]
    assert unnamed == []
