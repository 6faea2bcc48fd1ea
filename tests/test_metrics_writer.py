"""metrics.jsonl survives anything, and the CSV and TensorBoard views agree with it."""

from __future__ import annotations

import csv
import errno
import json
import math
import os
import resource
import signal
import struct
import subprocess
import sys

import numpy as np
import pytest

from distppo.errors import UserError
from distppo.metrics import RunWriter, csv_table, read_metrics, write_summary
from distppo.metrics.lines import LineFile

STEPS = "time/total_timesteps"


def row(steps, **more):
    return {STEPS: steps, "train/loss": steps / 7} | {key.replace("__", "/"): value for key, value in more.items()}


def json_lines(directory):
    return [json.loads(line, parse_constant=pytest.fail) for line in (directory / "metrics.jsonl").read_text().splitlines()]


def csv_rows(directory):
    with open(directory / "progress.csv", newline="") as file:
        return list(csv.DictReader(file))


def tensorboard_events(directory):
    from tensorboardX.proto.event_pb2 import Event

    events = []
    for path in sorted((directory / "tensorboard").iterdir(), key=os.path.getmtime):
        data = path.read_bytes()
        while data:
            (size,) = struct.unpack("<Q", data[:8])
            events.append(Event.FromString(data[12 : 12 + size]))
            data = data[16 + size :]
    return events


def scalars(directory, key):
    values = ((event.step, value) for event in tensorboard_events(directory) for value in event.summary.value)
    return [(step, value.simple_value) for step, value in values if value.tag == key]


@pytest.fixture
def writer(tmp_path):
    with RunWriter(tmp_path) as writer:
        yield writer


def test_a_row_arrives_in_all_three_files_at_once(tmp_path, writer):
    writer.row(row(100))
    writer.row(row(200))
    assert read_metrics(tmp_path / "metrics.jsonl") == [row(100), row(200)]
    assert csv_rows(tmp_path) == [{STEPS: "100", "train/loss": repr(100 / 7)}, {STEPS: "200", "train/loss": repr(200 / 7)}]
    assert scalars(tmp_path, "train/loss") == [(100, pytest.approx(100 / 7)), (200, pytest.approx(200 / 7))]


def test_numbers_come_back_exactly(tmp_path, writer):
    values = {"a": 0.1 + 0.2, "b": 5e-324, "c": -0.0, "d": 2**60, "e": None, "f": math.inf, "g": -math.inf, "h": math.nan}
    writer.row({STEPS: 1, **values})
    (back,) = read_metrics(tmp_path / "metrics.jsonl")
    assert repr(back) == repr({STEPS: 1, **values})
    assert (json_lines(tmp_path)[0]["f"], json_lines(tmp_path)[0]["h"]) == ("Infinity", "NaN")
    assert (csv_rows(tmp_path)[0]["e"], csv_rows(tmp_path)[0]["g"], csv_rows(tmp_path)[0]["h"]) == ("", "-Infinity", "NaN")
    assert scalars(tmp_path, "h") == scalars(tmp_path, "e") == [] and len(scalars(tmp_path, "b")) == 1


def test_numpy_numbers_are_numbers(tmp_path, writer):
    writer.row({STEPS: np.int64(8), "a": np.float32(0.5), "b": np.float64(0.25), "c": np.float32("nan")})
    (back,) = read_metrics(tmp_path / "metrics.jsonl")
    assert repr(back) == repr({STEPS: 8, "a": 0.5, "b": 0.25, "c": math.nan})


@pytest.mark.parametrize("bad", [{"a": 1.0}, {STEPS: None}, {STEPS: 1.5}, {STEPS: 1, "a": "text"}, {STEPS: 1, "a": [1.0]}])
def test_what_is_not_a_row_of_numbers_is_refused_and_leaves_nothing(tmp_path, writer, bad):
    with pytest.raises(ValueError, match="metric"):
        writer.row(bad)
    assert json_lines(tmp_path) == []


def test_a_new_column_is_added_on_the_right_and_a_missing_value_is_an_empty_cell(tmp_path, writer):
    writer.row(row(1))
    writer.row(row(2, eval__mean_reward=5.0))
    writer.row(row(3))
    header, *lines = (tmp_path / "progress.csv").read_text().splitlines()
    assert header == f"{STEPS},train/loss,eval/mean_reward"
    assert [line.split(",")[2] for line in lines] == ["", "5.0", ""]


def test_events_are_in_the_jsonl_alone(tmp_path, writer):
    writer.event("started", machine={"cores": 2}, value=math.nan, path=tmp_path, kind="x")
    writer.row(row(1))
    event, _ = json_lines(tmp_path)
    assert event.pop("time")[10] == "T"
    assert event == {"event": "started", "machine": {"cores": 2}, "value": "NaN", "path": str(tmp_path), "kind": "x"}
    assert len(csv_rows(tmp_path)) == 1 and len(read_metrics(tmp_path / "metrics.jsonl")) == 1


def test_a_resumed_run_takes_back_the_rows_above_its_checkpoint(tmp_path):
    with RunWriter(tmp_path) as writer:
        for steps in (100, 200, 300):
            writer.row(row(steps))
    with RunWriter(tmp_path, resume_env_steps=200) as writer:
        assert [line[STEPS] for line in csv_rows(tmp_path)] == ["100", "200"]
        writer.row(row(300, eval__mean_reward=1.0))
    with RunWriter(tmp_path, resume_env_steps=100) as writer:
        writer.row(row(200, train__loss=0.5))
    assert read_metrics(tmp_path / "metrics.jsonl") == [row(100), row(200, train__loss=0.5)]
    assert [line[STEPS] for line in csv_rows(tmp_path)] == ["100", "200"]
    assert len([line for line in json_lines(tmp_path) if "event" not in line]) == 5
    assert [(line["event"], line["env_steps"]) for line in json_lines(tmp_path) if "event" in line] == [("resumed", 200), ("resumed", 100)]


def test_tensorboard_is_told_from_where_a_resumed_run_counts(tmp_path):
    from tensorboardX.proto.event_pb2 import SessionLog

    with RunWriter(tmp_path) as writer:
        writer.row(row(100))
    with RunWriter(tmp_path, resume_env_steps=100) as writer:
        writer.row(row(200))
    assert len(list((tmp_path / "tensorboard").iterdir())) == 2
    starts = [event.step for event in tensorboard_events(tmp_path) if event.session_log.status == SessionLog.START]
    assert starts == [101]  # TensorBoard hides earlier events from this step on, and 100 itself still counts.


@pytest.mark.parametrize("torn", [b'{"time/total_timest', b'{"a"', b"\x00\x00\x00", b"\xff"])
def test_half_a_last_line_is_ignored_and_cut_off_when_the_run_goes_on(tmp_path, torn):
    with RunWriter(tmp_path) as writer:
        writer.row(row(1))
    with open(tmp_path / "metrics.jsonl", "ab") as file:
        file.write(torn)
    assert read_metrics(tmp_path / "metrics.jsonl") == [row(1)]
    with RunWriter(tmp_path) as writer:
        writer.row(row(2))
    assert read_metrics(tmp_path / "metrics.jsonl") == json_lines(tmp_path) == [row(1), row(2)]


def test_a_whole_last_line_that_lacks_only_its_end_is_kept(tmp_path):
    (tmp_path / "metrics.jsonl").write_text(json.dumps(row(1)))
    assert read_metrics(tmp_path / "metrics.jsonl") == [row(1)]
    with RunWriter(tmp_path) as writer:
        writer.row(row(2))
    assert json_lines(tmp_path) == [row(1), row(2)]


@pytest.mark.parametrize("damaged", [b"{", b"[]", b"1", b"\xff", b'{"a": NaN}', b"", b'{"event": "resumed"}', b'{"a": 1}', b"[" * 100_000])
def test_any_other_damaged_line_is_an_error_with_its_number(tmp_path, damaged):
    path = tmp_path / "metrics.jsonl"
    good = json.dumps(row(1)).encode()
    path.write_bytes(b"\n".join([good, damaged, good, b""]))
    for read in (read_metrics, lambda path: RunWriter(path.parent)):
        with pytest.raises(UserError, match=r"metrics\.jsonl:2: this line is damaged"):
            read(path)


def test_a_missing_file_is_an_error_with_its_name(tmp_path):
    with pytest.raises(UserError, match=r"metrics\.jsonl: cannot be read"):
        read_metrics(tmp_path / "metrics.jsonl")


def test_rows_survive_a_killed_process(tmp_path):
    code = (
        "import os, signal, sys; from distppo.metrics import RunWriter; writer = RunWriter(sys.argv[1])\n"
        f"for steps in (1, 2): writer.row({{{STEPS!r}: steps}})\n"
        "os.kill(os.getpid(), signal.SIGKILL)"
    )
    assert subprocess.run([sys.executable, "-c", code, str(tmp_path)], check=False).returncode == -signal.SIGKILL
    assert [line[STEPS] for line in read_metrics(tmp_path / "metrics.jsonl")] == [1, 2]
    assert [line[STEPS] for line in csv_rows(tmp_path)] == ["1", "2"]
    assert [event.step for event in tensorboard_events(tmp_path)][1:] == [1, 2]


def test_a_full_disk_leaves_no_half_line_and_writing_goes_on_when_there_is_space(tmp_path, writer):
    writer.row(row(1))
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    whole = (tmp_path / "metrics.jsonl").stat().st_size
    for room in (0, 1, 5, 30, 60, 100, 10_000):
        resource.setrlimit(resource.RLIMIT_FSIZE, (whole + room, hard))
        try:
            writer.row(row(2, eval__mean_reward=2.0, value__mean=3.0))
        except OSError:
            pass
        finally:
            resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    writer.row(row(3))
    rows = read_metrics(tmp_path / "metrics.jsonl")
    assert rows == json_lines(tmp_path)
    assert [line[STEPS] for line in csv_rows(tmp_path)] == [str(line[STEPS]) for line in rows]
    assert rows[0] == row(1) and rows[-1] == row(3) and len(rows) > 2
    assert scalars(tmp_path, STEPS)[-1] == (3, 3.0)


def test_a_disk_that_is_full_when_a_run_goes_on_is_told_and_waited_for(tmp_path, monkeypatch):
    with RunWriter(tmp_path) as first:
        first.row(row(1))
    refused = []

    def refuse(path, data):
        raise OSError(errno.ENOSPC, "full")

    with monkeypatch.context() as patch:
        patch.setattr(csv_table, "write_atomic", refuse)
        with pytest.raises(OSError, match="full"):
            RunWriter(tmp_path, resume_env_steps=1)
        writer = RunWriter(tmp_path, resume_env_steps=1, refused=refused.append)
    assert [error.errno for error in refused] == [errno.ENOSPC]
    writer.row(row(2))
    writer.close()
    assert [line[STEPS] for line in csv_rows(tmp_path)] == ["1", "2"]


def test_a_row_is_replaced_in_all_three_files(tmp_path, writer):
    for each in (row(1), row(2), row(2, eval__mean_reward=5.0), row(3)):
        writer.replace(each)
    assert read_metrics(tmp_path / "metrics.jsonl") == [row(1), row(2, eval__mean_reward=5.0), row(3)]
    assert [(line[STEPS], line["eval/mean_reward"]) for line in csv_rows(tmp_path)] == [("1", ""), ("2", "5.0"), ("3", "")]
    assert [event.step for event in tensorboard_events(tmp_path) if event.HasField("session_log")] == [2]
    assert [line["env_steps"] for line in json_lines(tmp_path) if "event" in line] == [1]


def test_a_row_that_the_csv_missed_is_in_it_after_the_next(tmp_path, writer, monkeypatch):
    writer.row(row(1))
    append, calls = LineFile.append, []

    def refuse_second(self, line):
        calls.append(line)
        if len(calls) == 2:  # The first is metrics.jsonl.
            raise OSError("full")
        append(self, line)

    with monkeypatch.context() as patch:
        patch.setattr(LineFile, "append", refuse_second)
        with pytest.raises(OSError, match="full"):
            writer.row(row(2))
    writer.row(row(3))
    assert [line[STEPS] for line in csv_rows(tmp_path)] == ["1", "2", "3"]


def test_tensorboard_goes_on_in_a_new_file_after_an_error(tmp_path, writer, monkeypatch):
    from tensorboardX.event_file_writer import EventsWriter

    def refuse(self):
        raise OSError("full")

    writer.row(row(1))
    with monkeypatch.context() as patch:
        patch.setattr(EventsWriter, "flush", refuse)
        with pytest.raises(OSError, match="full"):
            writer.row(row(2))
    writer.row(row(3))
    assert len(list((tmp_path / "tensorboard").iterdir())) == 2
    assert scalars(tmp_path, STEPS)[-1] == (3, 3.0)


def test_leftovers_of_a_killed_writer_are_removed(tmp_path):
    leftover = tmp_path / f"progress.csv.tmp-{'a' * 32}"
    leftover.write_text("half")
    RunWriter(tmp_path).close()
    assert not leftover.exists()


def test_a_csv_without_a_jsonl_is_not_continued(tmp_path):
    (tmp_path / "progress.csv").write_text("old\n1\n")
    with RunWriter(tmp_path) as writer:
        writer.row(row(1))
    assert csv_rows(tmp_path) == [{STEPS: "1", "train/loss": repr(1 / 7)}]


def test_the_summary_is_strict_json_and_replaced_in_one_step(tmp_path):
    write_summary(tmp_path, {"a": 1})
    path = write_summary(tmp_path, {"a": [math.nan, {"b": math.inf}], "c": np.float32(0.5), "d": None, "e": True, "f": tmp_path})
    loaded = json.loads(path.read_text(), parse_constant=pytest.fail)
    assert loaded == {"a": ["NaN", {"b": "Infinity"}], "c": 0.5, "d": None, "e": True, "f": str(tmp_path)}
    assert os.listdir(tmp_path) == ["summary.json"]


def test_importing_metrics_imports_neither_tensorboardx_nor_torch():
    code = "import sys, distppo.metrics; sys.exit(bool({'tensorboardX', 'torch', 'numpy'} & set(sys.modules)))"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


@pytest.mark.parametrize(
    "line",
    [
        b'{"time/total_timesteps": true}',
        b'{"time/total_timesteps": -1}',
        b'{"time/total_timesteps": 9223372036854775808}',
        b'{"time/total_timesteps": 1, "a": [1]}',
        b'{"time/total_timesteps": 1, "a": "text"}',
        b'{"time/total_timesteps": 1, "a": 1e999}',
        b'{"time/total_timesteps": 1, "a": 1, "a": 2}',
        b'{"event": 1}',
        b'{"event": "resumed", "env_steps": true}',
        b'{"event": "x", "text": "\\ud800"}',
        b'{"event": ' + b"[" * 5000 + b"]" * 5000 + b"}",
        b'{"event": "x", "text": "' + b"x" * (1 << 20) + b'"}',
    ],
    ids=lambda line: line[:40].decode(),
)
def test_a_line_that_no_writer_writes_is_damage_and_named(tmp_path, line):
    path = tmp_path / "metrics.jsonl"
    path.write_bytes(b'{"time/total_timesteps": 1}\n' + line + b"\n")
    with pytest.raises(UserError, match=r"metrics\.jsonl:2: this line is damaged"):
        read_metrics(path)


def test_many_resumes_cost_no_more_than_their_lines(tmp_path):
    path = tmp_path / "metrics.jsonl"
    rows = b"".join(b'{"time/total_timesteps": %d}\n' % steps for steps in range(20_000))
    path.write_bytes(rows + b'{"event": "resumed", "env_steps": 19999}\n' * 20_000)
    assert len(read_metrics(path)) == 20_000  # every resume over every row would be 400 million looks


def test_endlessly_many_different_metrics_are_refused(tmp_path):
    path = tmp_path / "metrics.jsonl"
    path.write_bytes(b"".join(b'{"time/total_timesteps": 1, "k%d": 1}\n' % number for number in range(5000)))
    with pytest.raises(UserError, match="more than 4,096 different metrics"):
        read_metrics(path)


def test_a_metrics_file_that_is_none_is_refused_and_not_waited_for(tmp_path):
    os.mkfifo(tmp_path / "pipe")
    (tmp_path / "zero").symlink_to("/dev/zero")
    (tmp_path / "folder").mkdir()
    with open(tmp_path / "huge", "wb") as sparse:
        sparse.truncate(1 << 40)
    for name in ("pipe", "zero", "folder", "huge", "missing"):
        with pytest.raises(UserError, match=name):
            read_metrics(tmp_path / name)


def test_a_writer_does_not_write_through_a_link(tmp_path):
    precious = tmp_path / "precious"
    precious.write_text("mine")
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / "metrics.jsonl").symlink_to(precious)
    with pytest.raises(OSError):
        RunWriter(tmp_path / "run")
    assert precious.read_text() == "mine"


def test_a_long_tail_without_an_end_is_cut_off_in_blocks(tmp_path):
    path = tmp_path / "metrics.jsonl"
    path.write_bytes(b'{"time/total_timesteps": 1}\n' + b"\0" * (3 << 20))
    with RunWriter(tmp_path) as writer:
        writer.row(row(2))
    assert [line[STEPS] for line in read_metrics(path)] == [1, 2]


def test_whatever_is_in_an_event_can_be_read_again(tmp_path):
    with RunWriter(tmp_path) as writer:
        writer.event("error", path="\udc80 undecodable", message="x" * (3 << 20), **{"\udc80": 1})
        writer.row(row(1))
    assert read_metrics(tmp_path / "metrics.jsonl") == [row(1)]
