"""Plays chosen episodes again and records them. An episode depends on its index alone, so it is the one that was scored."""

from __future__ import annotations

import contextlib
import dataclasses
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import gymnasium as gym

from distppo.envs import make_env
from distppo.errors import UserError, failure_text
from distppo.evaluation.episodes import EpisodeResult, play_episodes
from distppo.evaluation.frames import Curves, FrameMaker
from distppo.evaluation.scene import pace, prepare_scene
from distppo.evaluation.subject import Subject
from distppo.evaluation.video import VideoWriter, video_writer


class VideoSettings(NamedTuple):
    """How episodes are recorded.

    Attributes:
        suffix: .mp4 or .gif.
        width: of the picture, pixels.
        height: of the picture, pixels.
        seconds: of each video at most.
        first: record the first so many episodes; None: the best, the median and the worst.
    """

    suffix: str
    width: int
    height: int
    seconds: float
    first: int | None = None


class Choice(NamedTuple):
    """An episode to record, and what it is called."""

    name: str
    result: EpisodeResult


def choose(results: Sequence[EpisodeResult], first: int | None) -> list[Choice]:
    """Returns the first so many episodes, or the best, the median and the worst by return (fewer where there are fewer)."""
    if first is not None or len(results) == 1:
        return [Choice(f"episode-{result.episode}", result) for result in results[: first or 1]]
    ranked = sorted(results, key=lambda result: (-result.episode_return, result.episode))
    chosen = [Choice("best", ranked[0]), Choice("worst", ranked[-1])]
    if len(ranked) > 2:
        chosen.insert(1, Choice("median", ranked[len(ranked) // 2]))
    return chosen


def drawn(subject: Subject, mode: str) -> Subject:
    """Returns the same subject in the same environment with a render mode."""
    config = subject.config
    env = dataclasses.replace(config.env, kwargs={**config.env.kwargs, "render_mode": mode})
    return subject._replace(config=dataclasses.replace(config, env=env))


def record(
    subject: Subject,
    chosen: Sequence[Choice],
    folder: Path,
    settings: VideoSettings,
    *,
    seed: int,
    deterministic: bool,
    curves: Mapping[int, Curves],
    say: Callable[[str], None],
) -> list[dict[str, Any]]:
    """Writes a video of each chosen episode and returns what is told of them in evaluation.json.

    Args:
        subject: what plays.
        chosen: the episodes.
        folder: of the evaluation.
        settings: of the videos.
        seed: of the evaluation.
        deterministic: as the episodes were played.
        curves: by episode, drawn under it.
        say: takes a line for the user.

    Raises:
        UserError: the environment cannot be drawn, or a file not written.
    """
    env, spec = make_env(drawn(subject, "rgb_array").config.env)
    policy, told = subject.policy(), []
    with contextlib.closing(env):
        prepare_scene(env, settings.width, settings.height)
        for name, result in chosen:
            path = folder / f"{name}{settings.suffix}"
            say(f"recording {path.name}: episode {result.episode}, {result.length:,} steps, return {result.episode_return:,.1f}")
            episode = f"episode {result.episode}" + ("" if name == f"episode-{result.episode}" else f" ({name})")
            titles = (f"{spec.id}, {episode}", episode)
            maker = FrameMaker(settings.width, settings.height, titles, curves.get(result.episode))
            fps, stride = pace(env, settings.suffix)
            with video_writer(path, fps=fps) as writer:
                watcher = _Recorder(env, maker, writer, stride=stride, length=result.length, most=max(1, round(settings.seconds * fps)))
                (again,) = play_episodes(env, spec, policy, [result.episode], seed=seed, deterministic=deterministic, watcher=watcher)
            shown = {"file": path.name, "shows": name, "episode": result.episode, "return": again.episode_return}
            told.append({**shown, "frames": watcher.frames, "fps": fps})
            if again != result:
                say(
                    f"episode {result.episode} did not repeat itself: return {again.episode_return:,.1f} in the video. "
                    "Does the environment use other randomness than its np_random?"
                )
    return told


class _Recorder:
    """Draws the environment as it is played."""

    def __init__(self, env: gym.Env[Any, Any], maker: FrameMaker, writer: VideoWriter, *, stride: int, length: int, most: int) -> None:
        self._env, self._maker, self._writer = env, maker, writer
        self._stride, self._length, self._most = stride, length, most
        self._step, self._return = 0, 0.0
        self.frames = 0

    def begin(self, observation: Any) -> None:
        self._draw()

    def step(self, observation: Any, reward: float) -> None:
        self._step += 1
        self._return += reward
        if self._step % self._stride == 0 or self._step == self._length:
            self._draw()

    def _draw(self) -> None:
        if self.frames >= self._most:
            return
        try:
            picture: Any = self._env.render()
        except Exception as error:
            raise UserError(f"the environment could not be drawn at step {self._step}:\n{failure_text(error)}") from error
        if getattr(picture, "ndim", 0) != 3 or picture.shape[2] != 3 or picture.dtype != "uint8":
            raise UserError(
                f"render() gave {type(picture).__name__}, which is no picture [height, width, 3] of uint8; is its render_mode rgb_array?"
            )
        self._writer.add(self._maker.frame(picture, step=self._step, episode_return=self._return))
        self.frames += 1


def _described(value: Any) -> str:
    shape = getattr(value, "shape", None)
    return type(value).__name__ if shape is None else f"an array {list(shape)} of {value.dtype}"
