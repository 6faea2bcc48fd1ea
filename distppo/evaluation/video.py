"""Writes frames as an mp4 (the extra `video`) or a GIF, which is there as a whole or not at all."""

from __future__ import annotations

import importlib.util
import itertools
import os
import subprocess
import tempfile
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Protocol

import numpy as np
from PIL import Image

from distppo.errors import UserError

GIF_COLOURS = 128
"""Of the first frame; later frames add theirs, up to the 256 that a palette holds."""
MORE_COLOURS = 32
FAR_OFF = 32
"""A pixel whose red, green or blue is shown further off than this has lost its colour."""
MOST_LOST = 0.0003
"""Part of a frame's pixels that may lose their colour."""
CRF = "28"
"""x264's constant rate factor: 20 makes files of twice the size, of which a report holds one instead of three; the body looks the same."""


class VideoWriter(Protocol):
    """Takes frames of one size, [height, width, 3] uint8."""

    def add(self, frame: np.ndarray) -> None:
        """Takes the next frame."""

    def finish(self) -> None:
        """Writes what is left."""


def has_mp4() -> bool:
    """Says whether the extra `video` is installed."""
    return importlib.util.find_spec("imageio_ffmpeg") is not None


@contextmanager
def video_writer(path: Path, *, fps: float) -> Iterator[VideoWriter]:
    """Yields a writer of the video `path`, an .mp4 or a .gif by its suffix; the file appears when the block ends, and not if it raises.

    Raises:
        UserError: the disk refuses, or ffmpeg does not run.
    """
    temporary = path.with_name(f"{path.stem}.tmp-{uuid.uuid4().hex}{path.suffix}")
    writer: _Mp4 | _Gif | None = None
    try:
        writer = _Mp4(temporary, fps) if path.suffix == ".mp4" else _Gif(temporary, fps)
        yield writer
        writer.finish()
        os.replace(temporary, path)
    except OSError as error:
        reason = error.strerror or str(error).strip().splitlines()[-1]
        raise UserError(f"{path} cannot be written: {reason}; is there room on the disk? --output chooses another place") from error
    finally:
        if writer is not None:
            writer.abandon()
        temporary.unlink(missing_ok=True)


class _Mp4:
    """H.264, as every browser plays it. ffmpeg is started with the first frame, whose size it needs."""

    def __init__(self, path: Path, fps: float) -> None:
        self._path, self._fps = path, fps
        self._ffmpeg: subprocess.Popen[bytes] | None = None
        self._messages = tempfile.TemporaryFile()  # noqa: SIM115 - open for as long as ffmpeg is

    def add(self, frame: np.ndarray) -> None:
        if self._ffmpeg is None:
            self._ffmpeg = self._started(frame.shape[1], frame.shape[0])
        assert self._ffmpeg.stdin is not None
        try:
            self._ffmpeg.stdin.write(np.ascontiguousarray(frame).data)
        except BrokenPipeError:
            self.finish()  # ffmpeg has ended, and knows why

    def finish(self) -> None:
        assert self._ffmpeg is not None, "a video has a frame"
        self._ffmpeg.communicate()
        if self._ffmpeg.returncode != 0:
            self._messages.seek(0)
            lines = self._messages.read().decode(errors="replace").splitlines()
            raise OSError(lines[-1].rpartition(": ")[2] if lines else f"ffmpeg ended with code {self._ffmpeg.returncode}")

    def abandon(self) -> None:
        if self._ffmpeg is not None:
            self._ffmpeg.kill()
            self._ffmpeg.communicate()
        self._messages.close()

    def _started(self, width: int, height: int) -> subprocess.Popen[bytes]:
        import imageio_ffmpeg

        try:
            ffmpeg = imageio_ffmpeg.get_ffmpeg_exe()
        except RuntimeError as error:  # no executable for this machine in the package, and none installed
            raise UserError(f"mp4 needs ffmpeg: {error}; install it, or use --format gif") from error
        source = ["-f", "rawvideo", "-pix_fmt", "rgb24", "-s", f"{width}x{height}", "-r", f"{self._fps:g}", "-i", "-"]
        target = ["-c:v", "libx264", "-preset", "veryfast", "-crf", CRF, "-pix_fmt", "yuv420p", "-movflags", "+faststart", str(self._path)]
        command = [ffmpeg, "-y", "-loglevel", "error", *source, *target]
        # In a session of its own, for the terminal's Ctrl-C is for us: we end it.
        return subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.DEVNULL, stderr=self._messages, start_new_session=True)


class _Gif:
    """A GIF with the palette of its first frame, so that colours do not flicker, to which later frames add the colours that it lacks.

    Where it is full, the palette of that frame takes its place. An octree keeps the few pixels of a body apart from the many of a floor,
    where a median cut turns them grey.
    """

    def __init__(self, path: Path, fps: float) -> None:
        self._path, self._fps = path, fps
        self._frames: list[tuple[Image.Image, list[int]]] = []
        self._palette: list[int] = []
        self._paint = Image.new("P", (1, 1))  # holds the palette for Pillow

    def add(self, frame: np.ndarray) -> None:
        if not self._palette:
            self._take_colours(frame, GIF_COLOURS)
        shown = self._painted(frame)
        looked_at, seen = frame[::2, ::2], np.asarray(shown)[::2, ::2]  # a quarter takes a quarter of the time
        lost = np.abs(np.array(self._palette, np.int16).reshape(-1, 3)[seen] - looked_at).max(axis=2) > FAR_OFF
        if lost.mean() > MOST_LOST:
            if len(self._palette) + 3 * MORE_COLOURS <= 3 * 256:
                self._take_colours(looked_at[lost][None], MORE_COLOURS)
            else:
                self._palette = []
                self._take_colours(frame, GIF_COLOURS)
            shown = self._painted(frame)
        self._frames.append((shown, self._palette))

    def _take_colours(self, pixels: np.ndarray, most: int) -> None:
        """Adds at most so many colours of pixels [height, width, 3] to the palette, behind those that earlier frames use."""
        image = Image.fromarray(pixels).quantize(most, Image.Quantize.FASTOCTREE, dither=Image.Dither.NONE)
        self._palette += (image.getpalette() or [])[: 3 * most]
        self._paint = Image.new("P", (1, 1))
        self._paint.putpalette(self._palette)

    def _painted(self, frame: np.ndarray) -> Image.Image:
        return Image.fromarray(frame).quantize(palette=self._paint, dither=Image.Dither.NONE)

    def abandon(self) -> None:
        self._frames.clear()

    def finish(self) -> None:
        for image, palette in self._frames:
            image.putpalette(palette)
        (first, _), *others = self._frames
        ends = [round(100 * number / self._fps) for number in range(len(self._frames) + 1)]  # hundredths of a second: what a GIF can say
        durations = [10 * (end - start) for start, end in itertools.pairwise(ends)]
        images = [image for image, _ in others]
        first.save(self._path, save_all=True, append_images=images, duration=durations, loop=0, optimize=True)
