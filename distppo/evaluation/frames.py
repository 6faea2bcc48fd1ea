"""What stands under a recorded picture: return and step, and if it is known the critic's V(t) with what really followed."""

from __future__ import annotations

import functools
from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
from PIL import Image, ImageDraw, ImageFont

BACKGROUND, INK, FAINT, GRID = (17, 20, 26), (236, 239, 244), (139, 148, 162), (44, 50, 61)
PREDICTED, REALISED = (88, 166, 255), (240, 146, 62)
SMALLEST_TEXT = 11
WIDEST_NUMBERS = "step 0,000   return -00,000.0"


class Curves(NamedTuple):
    """What is drawn under an episode of T steps.

    Attributes:
        predicted: [T+1] V(s_t).
        realised: [T] discounted return from each step.
    """

    predicted: np.ndarray
    realised: np.ndarray


class FrameMaker:
    """Puts pictures of one episode together with what stands under them. Every frame has the same, even size.

    Args:
        width: of the picture, pixels.
        height: of the picture, pixels.
        titles: of the episode, the longest first; the first that there is room for is shown.
        curves: to draw under it, or None.
    """

    def __init__(self, width: int, height: int, titles: Sequence[str], curves: Curves | None = None) -> None:
        self._picture_size = (width, height)
        self._text = max(SMALLEST_TEXT, round(height / 30))
        self._line = 2 * self._text
        self._chart_height = round(height / 4) if curves is not None else 0
        below = self._line + self._chart_height
        self.size = (width + width % 2, height + below + (height + below) % 2)
        room = self.size[0] - 3 * self._text - _font(self._text).getlength(WIDEST_NUMBERS)
        self._title = next((title for title in titles if _font(self._text).getlength(title) <= room), "")
        self._chart = None if curves is None else _Chart(width, self._chart_height, self._text, curves)

    def frame(self, picture: np.ndarray, *, step: int, episode_return: float) -> np.ndarray:
        """Returns a frame [height, width, 3] uint8.

        Args:
            picture: [h, w, 3] uint8, of any size.
            step: env steps since the start.
            episode_return: so far.
        """
        frame = Image.new("RGB", self.size, BACKGROUND)
        frame.paste(_fitted(picture, self._picture_size), (0, 0))
        draw = ImageDraw.Draw(frame)
        middle, margin = self._picture_size[1] + self._line // 2, self._text
        numbers = f"step {step:,}   return {episode_return:,.1f}"
        draw.text((self.size[0] - margin, middle), numbers, INK, _font(self._text), anchor="rm")
        draw.text((margin, middle), self._title, FAINT, _font(self._text), anchor="lm")
        if self._chart is not None:
            frame.paste(self._chart.at(step), (0, self._picture_size[1] + self._line))
        return np.asarray(frame)


class _Chart:
    """V(t) and the realised return over the whole episode, with a mark where the picture is."""

    def __init__(self, width: int, height: int, text: int, curves: Curves) -> None:
        self._left, self._right, self._top, self._bottom = text, width - text, text // 2 + text, height - text // 2
        self._curves, self._drawn = curves, 0
        both = np.concatenate(curves)
        self._low, self._high = float(both.min()), float(both.max())
        self._text = text
        self._image = Image.new("RGB", (width, height), BACKGROUND)
        draw = ImageDraw.Draw(self._image)
        draw.line([(self._left, self._bottom), (self._right, self._bottom)], GRID)
        for values, colour in ((curves.realised, REALISED), (curves.predicted, PREDICTED)):
            if len(values) > 1:
                draw.line([self._place(step, value) for step, value in enumerate(values)], _dimmed(colour), 1)

    def at(self, step: int) -> Image.Image:
        """Returns the chart with everything up to a step drawn bright. Steps only go forward."""
        predicted, realised = self._curves
        draw = ImageDraw.Draw(self._image)
        for values, colour in ((realised, REALISED), (predicted, PREDICTED)):
            since = [self._place(index, values[index]) for index in range(self._drawn, min(step + 1, len(values)))]
            if len(since) > 1:
                draw.line(since, colour, 2)
        self._drawn = step
        image = self._image.copy()
        draw = ImageDraw.Draw(image)
        x, y = self._place(min(step, len(predicted) - 1), predicted[min(step, len(predicted) - 1)])
        draw.line([(x, self._top), (x, self._bottom)], GRID)
        draw.ellipse([x - 3, y - 3, x + 3, y + 3], PREDICTED)
        self._legend(draw, step)
        return image

    def _legend(self, draw: ImageDraw.ImageDraw, step: int) -> None:
        font, x = _font(max(SMALLEST_TEXT, self._text - 2)), float(self._left)
        for name, values, colour in (("V(s)", self._curves.predicted, PREDICTED), ("realised", self._curves.realised, REALISED)):
            label = f"{name} {values[min(step, len(values) - 1)]:,.1f}"
            draw.text((x, self._text * 0.7), label, colour, font, anchor="lm")
            x += draw.textlength("realised -00,000.0   " if name == "V(s)" else label, font)

    def _place(self, step: int, value: float) -> tuple[float, float]:
        x = self._left + (self._right - self._left) * step / max(1, len(self._curves.predicted) - 1)
        share = (value - self._low) / ((self._high - self._low) or 1.0)
        return x, self._bottom - share * (self._bottom - self._top)


def _fitted(picture: np.ndarray, size: tuple[int, int]) -> Image.Image:
    """Returns the picture in the given size with its proportions kept, on the background; small ones keep sharp pixels."""
    image = Image.fromarray(np.ascontiguousarray(picture))
    if image.size == size:
        return image
    scale = min(size[0] / image.width, size[1] / image.height)
    inner = (max(1, round(image.width * scale)), max(1, round(image.height * scale)))
    resized = image.resize(inner, Image.Resampling.NEAREST if scale >= 3 else Image.Resampling.LANCZOS)
    whole = Image.new("RGB", size, BACKGROUND)
    whole.paste(resized, ((size[0] - inner[0]) // 2, (size[1] - inner[1]) // 2))
    return whole


def _dimmed(colour: tuple[int, int, int]) -> tuple[int, int, int]:
    red, green, blue = ((3 * back + bright) // 4 for back, bright in zip(BACKGROUND, colour, strict=True))
    return red, green, blue


@functools.cache
def _font(size: int) -> Any:
    return ImageFont.load_default(size)
