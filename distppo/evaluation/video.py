"""Writes frames as an mp4 (the extra `video`) or a GIF, which is there as a whole or not at all."""

from __future__ import annotations

import importlib.util
import os
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Protocol

import numpy as np
from PIL import Image

from distppo.errors import UserError

GIF_COLOURS = 64
CRF = "20"
"""x264's constant rate factor: 18 looks like the original, 23 is its default."""


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
    writer: Any = None
    try:
        writer = _Mp4(temporary, fps) if path.suffix == ".mp4" else _Gif(temporary, fps)
        yield writer
        writer.finish()
        os.replace(temporary, path)
    except OSError as error:
        reason = error.strerror or str(error).strip().splitlines()[-1]
        raise UserError(f"{path} cannot be written: {reason}; is there room on the disk? --output chooses another place") from error
    finally:
        if isinstance(writer, _Mp4):
            writer.abandon()
        temporary.unlink(missing_ok=True)


class _Mp4:
    """H.264, as every browser plays it: started with the first frame, whose size it needs."""

    def __init__(self, path: Path, fps: float) -> None:
        self._path, self._fps = path, fps
        self._encoder: Any = None

    def add(self, frame: np.ndarray) -> None:
        if self._encoder is None:
            self._encoder = self._started(frame.shape[1], frame.shape[0])
        self._encoder.send(np.ascontiguousarray(frame))

    def finish(self) -> None:
        self.abandon()
        if not self._path.exists() or self._path.stat().st_size == 0:
            raise OSError("ffmpeg wrote nothing")

    def abandon(self) -> None:
        if self._encoder is not None:
            encoder, self._encoder = self._encoder, None
            encoder.close()

    def _started(self, width: int, height: int) -> Any:
        import imageio_ffmpeg

        try:
            encoder = imageio_ffmpeg.write_frames(
                str(self._path),
                (width, height),
                fps=self._fps,
                codec="libx264",
                pix_fmt_out="yuv420p",
                quality=None,
                macro_block_size=2,
                ffmpeg_log_level="error",
                output_params=["-crf", CRF, "-movflags", "+faststart"],
            )
            encoder.send(None)
        except RuntimeError as error:  # no executable for this machine in the package, and none installed
            raise UserError(f"mp4 needs ffmpeg: {error}; install it, or use --format gif") from error
        return encoder


class _Gif:
    """A GIF with one palette, that of its first frame, so that colours do not flicker."""

    def __init__(self, path: Path, fps: float) -> None:
        self._path = path
        self._frames: list[Image.Image] = []
        self._milliseconds = 10 * round(100 / fps)  # what a GIF can say
        self._palette: Image.Image | None = None

    def add(self, frame: np.ndarray) -> None:
        image = Image.fromarray(frame)
        if self._palette is None:
            self._palette = image.quantize(GIF_COLOURS, dither=Image.Dither.NONE)
        self._frames.append(image.quantize(palette=self._palette, dither=Image.Dither.NONE))

    def finish(self) -> None:
        first, *others = self._frames
        first.save(self._path, save_all=True, append_images=others, duration=self._milliseconds, loop=0, optimize=True)
