"""Every stream gets the display it can show, and no display can end or slow a run."""

from __future__ import annotations

import io
import math
import os
import pty
import signal
import subprocess
import sys
import threading

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from distppo.console import Display, PlainDisplay, make_display
from distppo.console.live import LiveDisplay
from distppo.console.panel import panel
from distppo.console.view import RowHistory, RunView

ROW = {
    "time/total_timesteps": 163_840,
    "time/fps": 9812.4,
    "time/time_elapsed": 16.7,
    "time/collect": 3.0,
    "time/update": 1.0,
    "rollout/ep_rew_mean": 1234.5,
    "train/approx_kl": 0.0081,
    "train/clip_fraction": 0.12,
    "train/explained_variance": 0.87,
    "dist/workers": 2,
    "dist/worker_seconds_mean": 3.0,
    "dist/learner_seconds": 2.0,
}
EVALUATION = {"eval/mean_reward": 1500.2, "eval/std_reward": 30.1, "eval/episodes": 5}
KEYS = [*ROW, *EVALUATION, "time/broadcast", "time/other"]
ROWS = st.dictionaries(st.sampled_from(KEYS), st.none() | st.integers(0, 10**12) | st.floats()).map(lambda row: row | {KEYS[0]: 5})


class Terminal(io.StringIO):
    """A stream that says it is a terminal."""

    encoding = "utf-8"

    def isatty(self):
        return True


class Fragile(Terminal):
    """A terminal whose window is closed at some point."""

    broken = False

    def write(self, text):
        if self.broken:
            raise OSError(5, "Input/output error")
        return super().write(text)


@pytest.fixture(autouse=True)
def environment(monkeypatch):
    for name in ("NO_COLOR", "FORCE_COLOR", "TTY_COMPATIBLE", "TTY_INTERACTIVE"):
        monkeypatch.delenv(name, raising=False)
    for name, value in {"TERM": "xterm-256color", "COLUMNS": "80", "LINES": "24"}.items():
        monkeypatch.setenv(name, value)


def show(display, rows):
    with display:
        display.start("HalfCheetah-v4", total=1_000_000, initial=0)
        for row in rows:
            display.iteration(row)


def plain(rows):
    stream = io.StringIO()
    show(PlainDisplay(stream), rows)
    return stream.getvalue()


def lines_of(rows, *, width=80, height=24):
    view = RunView("HalfCheetah-v4 -> runs/one", total=1_000_000, initial=0)
    for row in rows:
        view.update(row)
    return [line.plain for line in panel(view, width=width, height=height)]


def test_a_plain_line_has_what_matters():
    expected = "  163,840 / 1,000,000   16.4%  return   1234.5   9,812 steps/s  kl 0.0081  ev  0.87  eta 1m25s"
    assert plain([ROW]) == f"HalfCheetah-v4\n{expected}\n"
    assert plain([ROW | EVALUATION]).endswith("  evaluation 1500.2\n")


def test_plain_lines_stay_aligned_when_values_are_missing():
    full, bare = plain([ROW, {"time/total_timesteps": 5, "rollout/ep_rew_mean": math.nan, "train/approx_kl": None}]).splitlines()[1:]
    assert bare == "        5 / 1,000,000    0.0%  return        -       - steps/s  kl      -  ev     -  eta -"
    assert full.index("eta") == bare.index("eta")


@given(st.lists(ROWS, max_size=3))
def test_whatever_the_metrics_a_plain_display_writes_one_plain_line_an_iteration(rows):
    text = plain(rows)
    assert text.count("\n") == 1 + len(rows) and text.isascii() and "\x1b" not in text


@settings(deadline=None)
@given(st.lists(ROWS, max_size=3), st.integers(2, 200), st.integers(1, 60))
def test_whatever_the_metrics_the_panel_fits_the_terminal(rows, width, height):
    view = RunView("HalfCheetah-v4 -> runs/one", total=1_000_000, initial=0)
    for row in rows:
        view.update(row)
    lines = panel(view, width=width, height=height)
    assert len(lines) <= max(height - 1, 1)
    assert all(line.cell_len < width for line in lines)


def test_a_small_terminal_shows_everything_that_matters():
    text = "\n".join(lines_of([ROW | EVALUATION], width=40, height=12))
    assert all(part in text for part in ("16.4%", "eta  1m25s", "163,840 / 1,000,000", "9,812/s", "1234.5", "1500.2 +- 30.1"))
    assert all(part in text for part in ("kl 0.0081", "clipped 12.0%", "collect 75%", "update 25%"))
    assert all(part in text for part in ("2 workers  no faults", "idle    workers 25%  learner 50%"))
    assert len(lines_of([ROW | EVALUATION], width=40, height=12)) == 9 <= 11


def test_a_normal_terminal_shows_all():
    text = "\n".join(lines_of([ROW | EVALUATION]))
    assert all(part in text for part in ("explained variance 0.87", "clipped 12.0%", "2 workers", "elapsed 17s", "5 episodes"))
    assert "\u2588" * 12 + "\u2593" * 4 + "  collect 75%" in text


def test_the_last_evaluation_stays_and_the_time_adds_up():
    text = "\n".join(lines_of([ROW | EVALUATION, ROW | {"time/update": 3.0}]))
    assert "1500.2 +- 30.1  at 163,840 steps" in text and "collect 60%" in text


def test_faults_take_the_place_of_no_faults():
    text = "\n".join(lines_of([ROW | {"faults/worker_restarts": 2, "faults/env_restarts": 0}]))
    assert "health  2 workers  worker restarts 2" in text and "env restarts" not in text


def test_the_worst_findings_are_shown_and_not_looked_for_at_every_drawing():
    seen, now = [], [0.0]

    def find(rows):
        seen.append(len(rows))
        return ["first", "second", "third"]

    view = RunView("", total=10, initial=0, findings=find, clock=lambda: now[0])
    assert panel(view, width=80, height=24) and seen == []
    for seconds in (0.0, 1.0, 4.9, 5.0):
        now[0] = seconds
        view.update(ROW)
        lines = [line.plain for line in panel(view, width=80, height=24)]
        assert lines.count("finding first") == 1 and lines.count("finding second") == 1 and "finding third" not in lines
    assert seen == [1, 4]


def test_findings_are_about_the_whole_run_however_long_it_is():
    history = RowHistory(capacity=8)
    rows = [{"time/total_timesteps": step, "rollout/episodes": step % 2, "eval/mean_reward": None} for step in range(1, 101)]
    for row in rows:
        history.add(row | ({"train/approx_kl": 0.5} if row["time/total_timesteps"] == 100 else {}))
    kept = history.rows()
    assert len(kept) <= 8 and [row["time/total_timesteps"] for row in kept] == [16, 32, 48, 64, 80, 96, 100]
    assert all(row["rollout/episodes"] == 0.5 and row["eval/mean_reward"] is None for row in kept)
    assert kept[-1]["train/approx_kl"] == 0.5 and "train/approx_kl" not in kept[0]


def test_a_long_title_loses_its_beginning_and_a_state_stands_beside_it():
    view = RunView("HalfCheetah-v4 -> runs/HalfCheetah-v4-seed0-20261123-033120", total=10, initial=0)
    view.state, view.running = "finished", False
    assert panel(view, width=40, height=12)[0].plain == "\u2026tah-v4-seed0-20261123-033120  finished"


def test_before_the_first_iteration_there_are_dashes():
    text = "\n".join(lines_of([]))
    assert "0.0%" in text and "eta      -" in text and "return  -" in text


def test_a_run_past_its_total_is_done():
    view = RunView("", total=100, initial=0)
    view.update({"time/total_timesteps": 120, "time/fps": 10.0})
    assert (view.progress, view.eta) == (1.0, 0.0)


@pytest.mark.parametrize(
    ("stream", "progress", "settings", "live"),
    [
        (Terminal, None, {}, True),
        (Terminal, True, {}, True),
        (Terminal, False, {}, False),
        (Terminal, None, {"NO_COLOR": "1"}, False),
        (Terminal, None, {"NO_COLOR": ""}, True),
        (Terminal, True, {"NO_COLOR": "1"}, True),
        (Terminal, None, {"TERM": "dumb"}, False),
        (Terminal, True, {"TERM": "dumb"}, False),
        (io.StringIO, None, {}, False),
        (io.StringIO, True, {}, False),
    ],
)
def test_a_stream_gets_the_display_that_it_can_show(monkeypatch, stream, progress, settings, live):
    for name, value in settings.items():
        monkeypatch.setenv(name, value)
    assert isinstance(make_display(progress=progress, stream=stream()), LiveDisplay if live else PlainDisplay)


def test_a_terminal_that_is_not_utf_8_gets_plain_lines():
    stream = Terminal()
    stream.encoding = "ascii"
    assert isinstance(make_display(stream=stream), PlainDisplay)


def test_no_color_means_no_colors_even_when_the_live_display_is_wanted(monkeypatch):
    monkeypatch.setenv("NO_COLOR", "1")
    stream = Terminal()
    show(make_display(progress=True, stream=stream), [ROW])
    assert "1234.5" in stream.getvalue() and "\x1b[36m" not in stream.getvalue() and "\x1b[32m" not in stream.getvalue()


@pytest.mark.parametrize("make", [PlainDisplay, LiveDisplay])
def test_text_that_the_stream_cannot_encode_is_still_printed(make):
    raw = io.BytesIO()
    stream = io.TextIOWrapper(raw, encoding="ascii" if make is PlainDisplay else "utf-8")
    make(stream).message("caf\u00e9 \udcff [bold]end[/bold]")
    assert b"[bold]end[/bold]" in raw.getvalue() and b"?" in raw.getvalue()


def test_the_live_display_redraws_at_most_four_times_a_second_and_once_more_at_the_end():
    now, stream = [0.0], Terminal()
    display = LiveDisplay(stream, clock=lambda: now[0])
    display.start("title", total=1_000_000, initial=0)
    for step in range(1, 101):
        now[0] += 1 / 16
        display.iteration(ROW | {"time/total_timesteps": step})
    assert stream.getvalue().count("title") == 1 + 25  # The first frame, and 100 / 16 seconds.
    display.close()
    assert "100 / 1,000,000" in stream.getvalue()


def test_the_live_display_starts_no_thread():
    threads = threading.active_count()
    display = make_display(stream=Terminal())
    display.start("title", total=10, initial=0)
    assert threading.active_count() == threads
    display.close()


def test_closing_gives_cursor_and_standard_streams_back_and_may_be_done_twice(monkeypatch):
    stream = Terminal()
    monkeypatch.setattr(sys, "stdout", stream)
    display = make_display()
    with pytest.raises(KeyboardInterrupt), display:
        display.start("title", total=10, initial=0)
        print("from elsewhere")
        raise KeyboardInterrupt
    display.close()
    assert sys.stdout is stream
    assert "from elsewhere" in stream.getvalue()
    assert stream.getvalue().rindex("\x1b[?25h") > stream.getvalue().rindex("\x1b[?25l")


def test_a_message_is_printed_before_during_and_after():
    stream = Terminal()
    display: Display = make_display(stream=stream)
    display.message("before")
    display.start("title", total=10, initial=0)
    display.message("during")
    display.close()
    display.message("after")
    assert all(word in stream.getvalue() for word in ("before", "during", "after"))


@pytest.mark.parametrize("make", [PlainDisplay, LiveDisplay])
@pytest.mark.parametrize("lost_after", [0, 1, 2])
def test_a_stream_that_is_lost_takes_the_display_with_it_and_not_the_run(monkeypatch, make, lost_after):
    stream, now = Fragile(), iter(range(100))
    monkeypatch.setattr(sys, "stdout", stream)
    display = make(stream, clock=lambda: float(next(now))) if make is LiveDisplay else make(stream)
    with display:
        for action in range(4):
            stream.broken = action >= lost_after
            display.iteration(ROW) if action else display.start("title", total=10, initial=0)
        display.message("nobody hears this")
        assert sys.stdout is stream
    assert sys.stdout is stream


def test_a_closed_stream_is_no_error():
    stream = io.StringIO()
    stream.close()
    show(PlainDisplay(stream), [ROW])


def test_plain_output_imports_no_rich():
    code = "import sys; from distppo.console import make_display; make_display().message('x'); sys.exit('rich' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], stdout=subprocess.PIPE, check=False).returncode == 0


def test_interrupting_a_run_on_a_real_terminal_restores_its_cursor():
    code = (
        "import time; from distppo.console import make_display\n"
        "with make_display() as display:\n"
        "    display.start('title', total=10, initial=0)\n"
        "    time.sleep(60)\n"
    )
    controller, terminal = pty.openpty()
    process = subprocess.Popen([sys.executable, "-c", code], stdin=terminal, stdout=terminal, stderr=terminal)
    os.close(terminal)
    output = b""
    while b"return" not in output:
        output += os.read(controller, 4096)
    process.send_signal(signal.SIGINT)
    try:
        while chunk := os.read(controller, 4096):
            output += chunk
    except OSError:
        pass  # How a pseudo-terminal says that the other side has closed.
    os.close(controller)
    assert process.wait(timeout=20) == -signal.SIGINT
    assert b"\x1b[?25l" in output and output.rindex(b"\x1b[?25h") > output.rindex(b"\x1b[?25l")
    assert b"KeyboardInterrupt" in output
