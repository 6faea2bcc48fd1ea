"""Videos: decoded again and looked at; which episodes, at which speed, and what stops them."""

from __future__ import annotations

import dataclasses
import itertools
import os
import subprocess
import sys
from collections.abc import Iterator, Sequence
from colorsys import hsv_to_rgb
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image
from runtime.running import SMALL, Run

from distppo.envs import make_env
from distppo.errors import UserError
from distppo.evaluation.episodes import EpisodeResult
from distppo.evaluation.frames import Curves, FrameMaker
from distppo.evaluation.recording import VideoSettings, choose, record
from distppo.evaluation.session import Options, Session
from distppo.evaluation.subject import Subject, load_subject
from distppo.evaluation.video import video_writer
from distppo.runtime.train import train

PICTURE = (128, 96)


def frames_of(path: Path) -> np.ndarray:
    """Returns the frames of a video, [n, height, width, 3] uint8."""
    if path.suffix == ".gif":
        with Image.open(path) as image:
            return np.stack([_shown(image, index) for index in range(getattr(image, "n_frames", 1))])
    ffmpeg = pytest.importorskip("imageio_ffmpeg", reason="the extra video is not installed")
    reader = ffmpeg.read_frames(str(path))
    width, height = next(reader)["size"]
    return np.stack([np.frombuffer(frame, np.uint8).reshape(height, width, 3) for frame in reader])


def _shown(image: Image.Image, index: int) -> np.ndarray:
    image.seek(index)
    return np.asarray(image.convert("RGB"))


def trained_in(directory: Path, env: str, **kwargs: Any) -> Run:
    settings = {"env.id": env, "env.kwargs": kwargs, "run.directory": str(directory), "run.total_timesteps": 128}
    return Run(train(overrides=SMALL | settings, progress=False))


@pytest.fixture(scope="module")
def painted(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return trained_in(tmp_path_factory.mktemp("painted") / "run", "probe_envs:Painted-v0").directory


@pytest.fixture
def subject(painted: Path) -> Subject:
    return load_subject(painted)[0]


def session(run: Path, folder: Path, **options: Any) -> Session:
    settings = {"suffix": ".gif", "width": PICTURE[0], "height": PICTURE[1], "seconds": 60.0} | options.pop("video", {})
    return Session(Options(str(run), video=VideoSettings(**settings), output=folder, **options), lambda line: None)


@pytest.mark.parametrize("suffix", [".gif", ".mp4"])
def test_a_video_shows_every_step_of_the_episode_that_was_scored(suffix: str, painted: Path, tmp_path: Path) -> None:
    """A frame a step and one for the start; the square stands where the point was; the numbers under it change."""
    if suffix == ".mp4":
        pytest.importorskip("imageio_ffmpeg", reason="the extra video is not installed")
    recorded = session(painted, tmp_path, episodes=3, video={"suffix": suffix})
    result = recorded.play()
    recorded.record()
    assert recorded.folder is not None
    assert [video["shows"] for video in recorded.content["videos"]] == ["best", "median", "worst"]
    best = max(result.results, key=lambda episode: episode.episode_return)
    told = recorded.content["videos"][0]
    assert (told["episode"], told["return"], told["frames"]) == (best.episode, best.episode_return, best.length + 1)
    frames = frames_of(recorded.folder / told["file"])
    assert len(frames) == best.length + 1 and frames.shape[2] == PICTURE[0] and frames.shape[1] > PICTURE[1]
    pictures, captions = frames[:, : PICTURE[1]].astype(int), frames[:, PICTURE[1] :].astype(int)
    assert [_middle(picture) for picture in pictures] == pytest.approx(_path(painted, best), abs=3)
    assert all(np.abs(a - b).max() > 60 for a, b in itertools.pairwise(captions[:-1]))


def _middle(picture: np.ndarray) -> float:
    """Returns where the white square is, in the environment's own pixels."""
    columns = np.nonzero(picture.min(axis=2).max(axis=0) > 200)[0]
    return float(columns.mean()) * 64 / PICTURE[0]


def _path(run: Path, episode: EpisodeResult) -> list[float]:
    """Returns where it has to be, by playing the episode once more and reading the observations."""
    from distppo.evaluation.episodes import play_episodes

    subject, _ = load_subject(run)
    env, spec = make_env(subject.config.env)
    seen: list[float] = []

    class Eye:
        def begin(self, observation: Any) -> None:
            seen.append(observation[0])

        def step(self, observation: Any, reward: float) -> None:
            seen.append(observation[0])

    play_episodes(env, spec, subject.policy(), [episode.episode], seed=0, deterministic=True, watcher=Eye())
    return [int(np.clip(28 + 8 * position, 0, 56)) + 3.75 for position in seen]


def test_the_critic_s_curve_stands_under_the_picture(painted: Path, tmp_path: Path) -> None:
    """With --analyze-value: more height, and something blue that grows."""
    plain, curved = (session(painted, tmp_path, episodes=2, analyze_value=value) for value in (False, True))
    for one in (plain, curved):
        one.play()
        one.analyze()
        one.record()
    assert plain.folder is not None and curved.folder is not None
    before, after = (frames_of(folder / "best.gif") for folder in (plain.folder, curved.folder))
    assert after.shape[1] == before.shape[1] + PICTURE[1] // 4
    chart = after[:, before.shape[1] :].astype(int)
    blue = ((chart[..., 2] > 150) & (chart[..., 0] < 140)).sum(axis=(1, 2))
    assert blue[-1] > blue[1] + 10


def test_episodes_are_chosen_by_return_or_are_the_first() -> None:
    """Best, median and worst of five, two and one; ties go to the lower number."""
    results = [EpisodeResult(index, value, 5, 0, True) for index, value in enumerate([3.0, 9.0, 1.0, 9.0, 4.0])]
    assert [(name, result.episode) for name, result in choose(results, None)] == [("best", 1), ("median", 4), ("worst", 2)]
    assert [(name, result.episode) for name, result in choose(results[:2], None)] == [("best", 1), ("worst", 0)]
    assert [(name, result.episode) for name, result in choose(results[:1], None)] == [("episode-0", 0)]
    assert [(name, result.episode) for name, result in choose(results, 2)] == [("episode-0", 0), ("episode-1", 1)]
    assert len(choose(results, 99)) == 5


def test_a_frame_names_best_median_and_worst_and_no_episode_twice(
    subject: Subject, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """An only episode is no best one, whether the first one was asked for or not."""
    titles: list[str] = []

    def noted(width: int, height: int, given: Sequence[str], curves: Curves | None) -> FrameMaker:
        titles.append(given[-1])
        return FrameMaker(width, height, given, curves)

    monkeypatch.setattr("distppo.evaluation.recording.FrameMaker", noted)
    results = [EpisodeResult(index, float(index), 5, 0, True) for index in range(2)]
    for chosen in (choose(results, None), choose(results[:1], None), choose(results, 1)):
        record(subject, chosen, tmp_path, VideoSettings(".gif", 64, 48, 0.1), seed=0, deterministic=True, curves={}, say=print)
    assert titles == ["episode 1 (best)", "episode 0 (worst)", "episode 0", "episode 0"]


def test_a_video_ends_after_its_seconds(painted: Path, tmp_path: Path) -> None:
    """0.2 s at 25 frames a second; the episode's own return is told all the same."""
    short = session(painted, tmp_path, episodes=2, video={"seconds": 0.2, "first": 1})
    result = short.play()
    short.record()
    assert short.folder is not None
    (told,) = short.content["videos"]
    assert (told["frames"], told["return"]) == (5, result.results[0].episode_return)
    assert len(frames_of(short.folder / "episode-0.gif")) == 5


def test_frames_have_one_even_size_whatever_is_drawn() -> None:
    """As H.264 needs: odd sizes grow by a pixel, small pictures by whole pixels, others keep their proportions."""
    curves = Curves(np.arange(5.0), np.arange(4.0))
    for width, height in ((101, 77), (320, 240), (64, 64)):
        maker = FrameMaker(width, height, ["x" * 200], curves)
        for picture in (np.zeros((9, 30, 3), np.uint8), np.full((400, 300, 3), 255, np.uint8)):
            frame = maker.frame(picture, step=4, episode_return=-1234.5)
            assert frame.shape == (maker.size[1], maker.size[0], 3) and not any(side % 2 for side in maker.size)
    titles = [FrameMaker(320, height, ["x" * 80, "short"])._title for height in (240, 4000)]
    assert titles == ["short", ""], "the longest that leaves room for the numbers"
    wide = FrameMaker(100, 100, [], None).frame(np.full((10, 50, 3), 255, np.uint8), step=0, episode_return=0.0)[:100]
    assert np.nonzero(wide.min(axis=(1, 2)) == 255)[0].tolist() == list(range(40, 60))


def test_what_cannot_be_drawn_is_refused_before_an_episode_is_played(
    painted: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """No render mode, and no display for a window."""
    with pytest.raises(UserError, match=r"probe_envs:Point-v0 has no render mode rgb_array \(it names none in metadata"):
        session(painted, tmp_path, env="probe_envs:Point-v0")
    for name in ("DISPLAY", "WAYLAND_DISPLAY"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr("sys.platform", "linux")
    with pytest.raises(UserError, match=r"--render opens a window, and there is no display here .*; --record writes videos without one"):
        Session(Options(str(painted), render=True), print)
    assert list(tmp_path.iterdir()) == []


def test_a_package_that_is_missing_for_drawing_is_one_line_before_an_episode_is_played(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Gymnasium's classic control is drawn by pygame, which is no dependency."""
    monkeypatch.setitem(sys.modules, "pygame", None)
    monkeypatch.setitem(sys.modules, "pygame.gfxdraw", None)
    settings: dict[str, Any] = {"num_workers": 0, "num_envs": 2, "num_steps": 32, "mini_batch_size": 32, "total_timesteps": 64, "epochs": 1}
    run = train(overrides={"env.id": "CartPole-v1", "run.directory": str(tmp_path / "run")}, progress=False, **settings).run_directory
    with pytest.raises(UserError, match=r"^CartPole-v1 cannot be drawn: pygame is not installed, run `pip install .*`$"):
        session(run, tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_a_render_that_fails_is_told_and_leaves_no_half_video(subject: Subject, tmp_path: Path) -> None:
    """With the environment's own traceback and the step; not as a fault of the episode."""
    config = subject.config
    broken = subject._replace(config=dataclasses.replace(config, env=dataclasses.replace(config.env, kwargs={"broken": True})))
    chosen = choose([EpisodeResult(0, 0.0, 5, 0, True)], None)
    with pytest.raises(UserError, match=r"(?s)the environment could not be drawn at step 0:.*the lamp went out"):
        record(broken, chosen, tmp_path, VideoSettings(".gif", 64, 48, 9.0), seed=0, deterministic=True, curves={}, say=print)
    assert list(tmp_path.iterdir()) == []


def test_a_gif_has_the_colours_that_come_after_its_first_frame(tmp_path: Path) -> None:
    """Black, then a red, a green and a blue square, then 40 hues one after the other, more than a palette of 256 takes in."""
    hues = [hsv_to_rgb(index / 40, 1.0, 1.0) for index in range(40)]
    squares = [(0.0, 0.0, 0.0), (1.0, 0.0, 0.0), (0.0, 1.0, 0.0), (0.0, 0.0, 1.0), *hues]
    frames = np.zeros((len(squares), 96, 128, 3), np.uint8)
    for index, colour in enumerate(squares):
        frames[index, 20:40, 10 + index : 40 + index] = np.round(255 * np.array(colour))
    with video_writer(tmp_path / "late.gif", fps=20) as writer:
        for frame in frames:
            writer.add(frame)
    assert np.abs(frames_of(tmp_path / "late.gif").astype(int) - frames).max() <= 32
    assert (tmp_path / "late.gif").stat().st_size < 1500 * len(frames)


@pytest.mark.parametrize("fps", [7.0, 15.0, 25.0])
def test_a_gif_plays_at_the_speed_that_was_asked_for(fps: float, tmp_path: Path) -> None:
    """Frames last whole hundredths of a second: at 15 a second 60 or 70 ms, and 31 of them 31 / 15 s."""
    with video_writer(tmp_path / "paced.gif", fps=fps) as writer:
        for index in range(31):
            writer.add(np.full((8, 8, 3), 255 * (index % 2), np.uint8))
    with Image.open(tmp_path / "paced.gif") as image:
        lasts = []
        for index in range(31):
            image.seek(index)
            lasts.append(image.info["duration"])
    assert sum(lasts) == pytest.approx(31_000 / fps, abs=5)
    assert max(abs(last - 1000 / fps) for last in lasts) < 10


@pytest.fixture
def full_disk(tmp_path: Path) -> Iterator[Path]:
    """A file system with 32 KiB left."""
    path = tmp_path / "disk"
    path.mkdir()
    mounted = subprocess.run(["mount", "-t", "tmpfs", "-o", "size=32k", "tmpfs", str(path)], capture_output=True, check=False)
    if mounted.returncode != 0:
        pytest.skip("mounting a file system is not allowed here")
    yield path
    subprocess.run(["umount", "--lazy", str(path)], check=True)


@pytest.mark.parametrize("suffix", [".gif", ".mp4"])
def test_a_full_disk_is_told_and_keeps_what_was_there(suffix: str, full_disk: Path) -> None:
    """No part of the video stays, and a file of that name from before does."""
    if suffix == ".mp4":
        pytest.importorskip("imageio_ffmpeg", reason="the extra video is not installed")
    path = full_disk / f"best{suffix}"
    path.write_bytes(b"before")
    noise = np.random.default_rng(0)
    with pytest.raises(UserError, match=f"best{suffix} cannot be written"), video_writer(path, fps=20) as writer:
        for _ in range(60):
            writer.add(noise.integers(0, 255, (96, 128, 3), np.uint8))
    assert os.listdir(full_disk) == [path.name] and path.read_bytes() == b"before"


def test_an_interrupted_video_leaves_nothing(tmp_path: Path) -> None:
    """Ctrl-C in the middle of one."""
    for suffix in (".gif", ".mp4"):
        if suffix == ".mp4":
            pytest.importorskip("imageio_ffmpeg", reason="the extra video is not installed")
        with pytest.raises(KeyboardInterrupt), video_writer(tmp_path / f"best{suffix}", fps=20) as writer:
            writer.add(np.zeros((96, 128, 3), np.uint8))
            raise KeyboardInterrupt
    assert list(tmp_path.iterdir()) == []


@pytest.mark.usefixtures("drawing")
def test_halfcheetah_is_recorded_without_a_display_and_its_body_moves(tmp_path: Path) -> None:
    """The real renderer, in the size asked for: the body is in every frame, for the camera goes with it, and it does not stand still."""
    run = trained_in(tmp_path / "run", "HalfCheetah-v4")
    recorded = session(run.directory, tmp_path / "here", episodes=1, deterministic=False, video={"seconds": 2.0})
    recorded.play()
    recorded.record()
    assert recorded.folder is not None
    frames = frames_of(recorded.folder / "episode-0.gif")[:, : PICTURE[1]].astype(int)
    assert len(frames) == 40
    body = (frames[..., 0] - frames[..., 2] > 40) & (frames[..., 0] > 90)
    share = body.mean(axis=(1, 2))
    assert share.min() > 0.01 and share.max() < 0.3
    moved = [(one != other).mean() for one, other in itertools.pairwise(body)]
    assert np.mean(moved) > 0.002
