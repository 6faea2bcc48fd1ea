"""What is fuzzed: each loader makes one changed input under a folder, and hands it to the shipped code."""

from __future__ import annotations

import hashlib
import itertools
import json
import os
import random
import shutil
import struct
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, ClassVar

from fuzzing.mutate import NASTY_TOKENS, dump, mutate_bytes, mutate_lines, mutate_tree

from distppo.checkpoint import CheckpointStore, list_checkpoints, load_checkpoint, load_for_resume, resolve_checkpoint
from distppo.config import config_from_dict, config_to_dict, load_config
from distppo.config.trust import named_code, require_named
from distppo.evaluation.restore import config_of, env_spec_of, learner_state_of, progress_of, snapshot_of
from distppo.metrics import METRICS_FILE, read_metrics
from distppo.metrics.jsonl import repair
from distppo.report.groups import Group, find_groups
from distppo.report.page import make_page
from distppo.report.run_files import read_run
from distppo.runtime.boundary import boundary_of, other_layout, restored_text
from distppo.runtime.run_directory import RunDirectory, find_begun_run
from distppo.runtime.trainer import Progress

MANIFEST, STATE = "MANIFEST.json", "state.json"
_LONG_AGO = datetime(2026, 1, 1, tzinfo=UTC)


class Loader:
    """Base of the loaders.

    Args:
        run: directory of a finished run, from which valid inputs are taken.
        root: empty folder to work in, better one in memory.
    """

    may_write: ClassVar[bool] = False

    def __init__(self, run: Path, root: Path) -> None:
        self.root = root
        self.checkpoint = list_checkpoints(run)[-1].path
        self.run = run

    def prepare(self, rng: random.Random) -> None:
        """Writes the input."""
        raise NotImplementedError

    def load(self) -> None:
        """Hands it to the shipped code, which loads it or raises UserError."""
        raise NotImplementedError


class ConfigLoader(Loader):
    """A configuration file of any content."""

    def __init__(self, run: Path, root: Path) -> None:
        super().__init__(run, root)
        lines = (run / "config.yaml").read_bytes().splitlines(keepends=True)
        starts = [index for index, line in enumerate(lines) if not line.startswith(b" ")] + [len(lines)]
        sections = [b"".join(lines[first:last]) for first, last in itertools.pairwise(starts)]
        handmade = [
            b"env:\n  id: Hopper-v4\n  kwargs: {a: [1, {b: x}], 'c': \"d\\n\"}\n  max_episode_steps: off\n",
            b"ppo: {learning_rate: 3e-4, epochs: 10, target_kl: off}\nnetwork:\n  hidden_sizes:\n  - 64\n  - 64\n",
            b"# comment\n---\nrun:\n  seed: 1\n  directory: >-\n    a folder\n    name\n  total_timesteps: 1_000_000\n...\n",
        ]
        self.texts = [*sections, *handmade]
        self.path = root / "config.yaml"

    def prepare(self, rng: random.Random) -> None:
        text = rng.choice(self.texts)
        if rng.random() < 0.2:
            text += rng.choice(self.texts)
        text = mutate_lines(rng, text) if rng.random() < 0.5 else mutate_bytes(rng, text, self.texts)
        if rng.random() < 0.001:
            piece = rng.choice(NASTY_TOKENS) or rng.choice(self.texts)
            piece = rng.choice((piece, piece + b"\n", b"k%d: 1\n", b"ppo.x%d: 1\n", b"- ", b"[,"))
            size = rng.choice((20_000, 131_072))
            text = (piece * (size // len(piece) + 1))[:size]
            text = b"\n".join(line.replace(b"%d", b"%d" % number) for number, line in enumerate(text.split(b"\n")))
        self.path.write_bytes(text)

    def load(self) -> None:
        config = load_config(self.path)
        assert config_from_dict(config_to_dict(config)) == config
        named_code(config)


class ManifestLoader(Loader):
    """A checkpoint whose manifest is anything, under a checksum that fits or does not."""

    def __init__(self, run: Path, root: Path) -> None:
        super().__init__(run, root)
        self.path = root / self.checkpoint.name
        shutil.copytree(self.checkpoint, self.path)
        self.text = (self.checkpoint / MANIFEST).read_bytes()

    def prepare(self, rng: random.Random) -> None:
        fields = json.loads(self.text)
        if rng.random() < 0.3:
            data = mutate_bytes(rng, self.text)
        else:
            for _ in range(rng.choice((1, 1, 2))):
                fields = mutate_tree(rng, fields) if isinstance(fields, dict) else fields
            data = sealed(fields) if rng.random() < 0.7 else dump(fields)
        (self.path / MANIFEST).write_bytes(data)

    def load(self) -> None:
        load_checkpoint(self.path)


class ContentLoader(ManifestLoader):
    """A checkpoint whose hashes fit, whatever its state and its arrays are; read up to the policy and the counters of a run."""

    def __init__(self, run: Path, root: Path) -> None:
        super().__init__(run, root)
        self.files = {path.name: path.read_bytes() for path in self.checkpoint.iterdir() if path.name != MANIFEST}
        self.tensors = [data for name, data in self.files.items() if name.endswith(".safetensors")]

    def prepare(self, rng: random.Random) -> None:
        changed = rng.choice(list(self.files))
        contents = dict(self.files)
        contents[changed] = self._changed(rng, changed)
        fields = json.loads(self.text)
        fields["files"] = {name: {"size": len(data), "sha256": hashlib.sha256(data).hexdigest()} for name, data in contents.items()}
        for name, data in contents.items():
            if name == changed or (self.path / name).stat().st_size != len(data) or name in self._dirty:
                (self.path / name).write_bytes(data)
        self._dirty = {changed}
        (self.path / MANIFEST).write_bytes(sealed(fields))

    _dirty: ClassVar[set[str]] = set()

    def _changed(self, rng: random.Random, name: str) -> bytes:
        data = self.files[name]
        if rng.random() < 0.2:
            return mutate_bytes(rng, data, self.tensors)
        if name == STATE:
            fields = json.loads(data)
            for _ in range(rng.choice((1, 1, 2, 3))):
                fields = mutate_tree(rng, fields) if isinstance(fields, dict) else fields
            return dump(fields)
        (length,) = struct.unpack("<Q", data[:8])
        header, body = data[8 : 8 + length], data[8 + length :]
        if rng.random() < 0.75:
            header = dump(mutate_tree(rng, json.loads(header)))
        else:
            body = mutate_bytes(rng, body, self.tensors)
        length = rng.choice((0, 1, length, 2**31, 2**63, 2**64 - 1)) if rng.random() < 0.1 else len(header)
        return struct.pack("<Q", length) + header + body

    def load(self) -> None:
        checkpoint = load_checkpoint(self.path)
        require_named(config_of(checkpoint), [], source=self.path)
        env_spec_of(checkpoint)
        learner_state_of(checkpoint)
        progress = Progress.from_state(progress_of(checkpoint))
        assert progress.episodes.mean_return is None or isinstance(progress.episodes.mean_return, float)
        snapshot_of(checkpoint)
        boundary = boundary_of(checkpoint, config_of(checkpoint))
        restored_text(boundary, 2)
        other_layout(boundary, 2)


class MetricsLoader(Loader):
    """A metrics.jsonl of any content, read, and taken up by a run that goes on."""

    may_write = True

    def __init__(self, run: Path, root: Path) -> None:
        super().__init__(run, root)
        self.lines = (run / METRICS_FILE).read_bytes().splitlines(keepends=True)
        self.lines += [b'{"event": "resumed", "time": "2026-11-23T03:00:00", "env_steps": %d}\n' % steps for steps in (0, 200, 10**18)]
        self.path = root / METRICS_FILE

    def prepare(self, rng: random.Random) -> None:
        lines = [rng.choice(self.lines) for _ in range(rng.randrange(1, 6))]
        index = rng.randrange(len(lines))
        if rng.random() < 0.6:
            lines[index] = dump(mutate_tree(rng, json.loads(lines[index]))) + rng.choice((b"\n", b"\n", b"\n", b"", b"\r\n", b"\n\n"))
        data = b"".join(lines)
        if rng.random() < 0.4:
            data = mutate_bytes(rng, data, self.lines)
        if rng.random() < 0.001:
            data += rng.choice((b"[", b"\n", b" ", b'{"event":"resumed","env_steps":0}\n', b'{"time/total_timesteps":1}\n')) * 200_000
        self.path.write_bytes(data)

    def load(self) -> None:
        try:
            read_metrics(self.path)
        finally:
            repair(self.path)
        before = self.path.read_bytes()
        assert before == b"" or before.endswith(b"\n")
        read_metrics(self.path)


class RunLoader(Loader):
    """A run's folder of any shape, and anything a user may type for it; looked through, and taken up by a run that goes on."""

    may_write = True

    def __init__(self, run: Path, root: Path) -> None:
        super().__init__(run, root)
        self.outside = root / "outside"
        shutil.copytree(run, self.outside)
        self.inside = root / "inside"
        self.files = os.listdir(self.checkpoint)
        self.work = self.inside / "deep" / "work"
        self.reference = ""

    def prepare(self, rng: random.Random) -> None:
        os.chdir(self.root)
        shutil.rmtree(self.inside, ignore_errors=True)
        run = self.work / "runs" / "a"
        run.mkdir(parents=True)
        os.chdir(self.work)
        for name in ("config.yaml", METRICS_FILE, ".lock"):
            shutil.copyfile(self.run / name, run / name)
        for number in range(rng.randrange(4)):
            checkpoint = run / "checkpoints" / f"ckpt_{number:08d}{rng.choice(('', '', '', '.old', '.tmp-' + '0' * 32, 'x', '9'))}"
            checkpoint.mkdir(parents=True)
            for name in self.files:
                shutil.copyfile(self.checkpoint / name, checkpoint / name)
        for pointer in ("best", "latest"):
            if (run / "checkpoints").exists() and rng.random() < 0.5:
                (run / "checkpoints" / pointer).write_bytes(rng.choice((b"ckpt_00000000\n", b"ckpt_00000001", *NASTY_TOKENS)))
        for _ in range(rng.choice((0, 1, 1, 2))):
            spoil(rng, rng.choice(list(run.rglob("*"))), self.outside)  # the run itself may be a link: it is the user who names it
        names = ["runs/a", "a", "latest", "runs", ".", "..", "runs/a/checkpoints", "runs/a/checkpoints/ckpt_00000000", "runs/a/config.yaml"]
        odd = ["", "@", "@best", "a@b@c", "a\0b", "x" * 5000, "./" * 2000, "\ud800", "\u202e", "a/../a", "latest@", "runs/a/metrics.jsonl"]
        which = ["", "", "@best", "@last", "@0", "@256", "@-1", "@" + "9" * 5000, "@1,0", "@\u0661"]
        name = rng.choice(names) if rng.random() < 0.8 else rng.choice(odd)
        # A link that the user names is followed: it is the user's word, not the folder's.
        self.reference = ("runs/a" if os.path.islink(name.replace("\0", "")) else name) + rng.choice(which)
        self.prefer: Any = rng.choice(("best", "last"))

    def load(self) -> None:
        refused = None
        for look in (self._resolve, self._load, self._begun, self._open):
            try:
                look()
            except ValueError as error:
                refused = refused or error
                if not is_refusal(error):
                    raise
        if refused:
            raise refused

    def _resolve(self) -> None:
        resolve_checkpoint(self.reference, prefer=self.prefer)

    def _load(self) -> None:
        load_for_resume(self.reference)

    def _begun(self) -> None:
        find_begun_run(self.reference)

    def _open(self) -> None:
        with RunDirectory(Path("runs/a"), continued=True):
            CheckpointStore("runs/a", 2)
            repair(Path("runs/a", METRICS_FILE))


class ReportLoader(Loader):
    """A run with evaluations, any of whose files is changed or something else, made into a report."""

    def __init__(self, run: Path, root: Path) -> None:
        super().__init__(run, root)
        self.path = root / "run"
        self.outside = root / "outside"
        shutil.copytree(run, self.outside)
        score = {"format": 1, "env_steps": 256, "episodes": 2, "deterministic": True, "return_mean": 1.5, "return_iqm_interval": [1, 2.5]}
        listed = {"values": "values.json", "figures": ["a.png"], "videos": [{"file": "best.mp4", "shows": "best", "return": 2.0}]}
        values = {
            "r2": 0.5, "bias": 1.0, "gamma": 0.99, "env_steps": 256, "td_error": {"edges": [0, 1.5, 3], "counts": [3, 4]},
            "calibration": [{"predicted": 1.0, "realised": 2.0, "realised_std": 0.5}] * 3,
            "along_the_episode": [{"first_step": 0, "last_step": 9, "bias": 0.5, "std": 1.0}] * 3,
        }  # fmt: skip
        files = {name: (run / name).read_bytes() for name in ("config.yaml", METRICS_FILE, "summary.json")}
        pictures = {"a.png": b"\x89PNG\r\n\x1a\n123", "best.mp4": b"\0\0\0\x18ftypisom123"}
        evaluation = {"evaluation.json": dump(score | listed), "values.json": dump(values)} | pictures
        self.files = files | {f"evaluations/e/{name}": data for name, data in evaluation.items()}
        self.prepare(random.Random(0))
        make_page(
            [Group("before", run, [read_run(run)])], made_at=_LONG_AGO
        )  # style and script are read, which the guard would not let pass

    def prepare(self, rng: random.Random) -> None:
        shutil.rmtree(self.path, ignore_errors=True)
        (self.path / "evaluations" / "e").mkdir(parents=True)
        for name, data in self.files.items():
            (self.path / name).write_bytes(data)
        changed = METRICS_FILE if rng.random() < 0.8 else rng.choice(list(self.files))
        data = self.files[changed]
        if changed == METRICS_FILE:
            lines = data.splitlines()
            index = rng.randrange(len(lines))
            lines[index] = dump(mutate_tree(rng, json.loads(lines[index])))
            data = b"\n".join(lines) + b"\n"
        elif changed.endswith(".json") and rng.random() < 0.8:
            data = dump(mutate_tree(rng, json.loads(data)))
        else:
            data = mutate_bytes(rng, data)
        (self.path / changed).write_bytes(data)
        if rng.random() < 0.1:
            inside = [path for path in self.path.rglob("*") if path.name != METRICS_FILE]
            spoil(rng, rng.choice(inside), self.outside)

    def load(self) -> None:
        page = make_page(find_groups([str(self.path)]), made_at=_LONG_AGO).html
        assert page.count("<script") == page.count("</script") == 2 and page.count("<style") == 1
        assert page.encode().decode() == page


def spoil(rng: random.Random, path: Path, outside: Path) -> None:
    """Puts something else in the place of a file or folder."""
    if path.is_symlink() or not path.is_dir():
        path.unlink(missing_ok=True)
    else:
        shutil.rmtree(path)
    match rng.randrange(7):
        case 0:
            path.symlink_to(
                rng.choice([outside, outside / "config.yaml", outside / "checkpoints", path, Path("/dev/zero"), Path("nowhere")])
            )
        case 1:
            os.mkfifo(path)
        case 2:
            path.mkdir()
        case 3:
            path.write_bytes(rng.choice(NASTY_TOKENS))
        case 4:
            with open(path, "wb") as file:
                file.truncate(rng.choice((1 << 20, 1 << 33)))
        case 5:
            path.write_bytes(b"")


def sealed(fields: Any) -> bytes:
    """The manifest with a checksum that fits, as somebody hostile would write it; without one where that cannot be."""
    text = dump(fields)
    try:
        body = json.loads(text)
        body.pop("checksum", None)
        body["checksum"] = hashlib.sha256(json.dumps(body, sort_keys=True).encode()).hexdigest()
        return json.dumps(body).encode()
    except (ValueError, AttributeError, TypeError, RecursionError):
        return text


def is_refusal(error: BaseException) -> bool:
    """True for what a loader may raise: an error for the user, or a disk that says that something is in the way."""
    from distppo.errors import UserError

    return isinstance(error, UserError) and bool(str(error)) and len(str(error)) < 100_000


LOADERS: dict[str, type[Loader]] = {
    "config": ConfigLoader,
    "manifest": ManifestLoader,
    "content": ContentLoader,
    "metrics": MetricsLoader,
    "run": RunLoader,
    "report": ReportLoader,
}
