"""Pictures of a grid movie: many bouts of one syllable side by side, their onsets together."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from fractions import Fraction

import numpy as np
from PIL import Image, ImageDraw

from kpms_zarr.viz.shared.drawing import PAPER, Camera, Skeleton, dot, fitted, round_length, write
from kpms_zarr.viz.shared.style import INK, MUTED

_GAP, _HEAD, _FOOT = 4, 40, 28
_EDGE = "#d5dbe1"


@dataclass(frozen=True)
class MovieClock:
    """Times of the frames of a movie.

    Attributes
    ----------
    seconds : ndarray, (frame,)
        After the onset; negative: before it. The onset is one of them.
    fps : Fraction
        Of the movie.
    """

    seconds: np.ndarray
    fps: Fraction

    @classmethod
    def around_onset(
        cls, rate: float, *, before: float, after: float, speed: float, max_rate: float
    ) -> MovieClock:
        """All frames from ``before`` to ``after`` the onset, in s, or every second, third, ...

        Parameters
        ----------
        rate : float
            Frames of the sessions per second.
        speed : float
            1 = as fast as it was, 0.5 = half as fast.
        max_rate : float
            Most frames per second that the movie may have.
        """
        step = max(1, int(np.ceil(rate * speed / max_rate - 1e-9)))
        first = -int(before * rate / step + 1e-9)
        last = int(after * rate / step + 1e-9)
        seconds = np.arange(first, last + 1) * step / rate
        return cls(seconds, Fraction(rate * speed / step).limit_denominator(1001))

    def frames(self, onset: int, rate: float) -> np.ndarray:
        """The nearest frames of a session with ``rate`` frames per second."""
        return onset + np.floor(self.seconds * rate + 0.5).astype(np.int64)


@dataclass(frozen=True)
class Cell:
    """One bout.

    Attributes
    ----------
    picture : callable
        Gives the picture of a frame of the movie, of the size of all cells.
    is_inside : ndarray, (frame,) bool
        Whether the frame of the movie belongs to the bout.
    """

    picture: Callable[[int], Image.Image]
    is_inside: np.ndarray


@dataclass(frozen=True)
class Caption:
    """Words of a grid movie.

    Attributes
    ----------
    color : str
        Of the syllable.
    units : str
        Of positions; "" = not known: no scale bar then.
    keypoints : tuple of (str, str)
        Name and colour of each; shown where they fit.
    """

    title: str
    detail: str
    color: str
    units: str = ""
    keypoints: tuple[tuple[str, str], ...] = ()


class GridMovie:
    """The frames of a grid movie.

    Parameters
    ----------
    size : (int, int)
        Width and height of a cell, in px.
    scale : float
        px per unit of position, for the scale bar.
    """

    def __init__(
        self,
        cells: Sequence[Cell],
        *,
        size: tuple[int, int],
        columns: int,
        clock: MovieClock,
        caption: Caption,
        scale: float,
    ) -> None:
        self._cells, self._clock, self._caption = cells, clock, caption
        self._size = size
        columns = min(columns, len(cells))
        rows = -(-len(cells) // columns)
        self._places = [
            (_GAP + (n % columns) * (size[0] + _GAP), _HEAD + (n // columns) * (size[1] + _GAP))
            for n in range(len(cells))
        ]
        width = _GAP + columns * (size[0] + _GAP)
        height = _HEAD + rows * (size[1] + _GAP)
        self._base = self._empty(width, height, scale)

    def frame(self, number: int) -> np.ndarray:
        """One frame of the movie, (row, column, rgb) uint8."""
        image = self._base.copy()
        draw = ImageDraw.Draw(image)
        time = f"{self._clock.seconds[number]:+.2f} s"
        write(image, (image.width - 2 * _GAP, _HEAD / 2), time, size=15, color=INK, anchor="rm")
        for cell, (x, y) in zip(self._cells, self._places, strict=True):
            image.paste(cell.picture(number), (x, y))
            is_inside = bool(cell.is_inside[number])
            box = (x - 2, y - 2, x + self._size[0] + 1, y + self._size[1] + 1)
            draw.rectangle(box, outline=self._caption.color if is_inside else _EDGE, width=2)
            if is_inside:
                dot(image, (x + self._size[0] - 12, y + 12), 6, self._caption.color)
        return np.asarray(image)

    def _empty(self, width: int, height: int, scale: float) -> Image.Image:
        """Draw the background, the same in all frames."""
        foot = _foot(self._caption, width, scale)
        image = Image.new("RGB", _even(width, height + (foot.height if foot else 0)), PAPER)
        middle = _HEAD / 2
        ImageDraw.Draw(image).rectangle(
            (_GAP, middle - 9, _GAP + 18, middle + 9), fill=self._caption.color
        )
        left, room = _GAP + 28, width - _GAP - 28 - 80
        title = fitted(self._caption.title, 18, room)
        used = write(image, (left, middle), title, size=18, color=INK) + 20
        if used + 60 < room:
            detail = fitted(self._caption.detail, 14, room - used)
            write(image, (left + used, middle + 1), detail, size=14, color=MUTED)
        if foot:
            image.paste(foot, (0, height))
        return image


def _even(width: int, height: int) -> tuple[int, int]:
    """Round up to an even size: encoders take no odd ones."""
    return width + width % 2, height + height % 2


def _foot(caption: Caption, width: int, scale: float) -> Image.Image | None:
    """A scale bar where units are known, and the names of the keypoints where they fit."""
    image = Image.new("RGB", (width, _FOOT), PAPER)
    left, middle, is_empty = 2.0 * _GAP, _FOOT / 2, True
    if caption.units:
        length = round_length(min(120, width / 3) / scale)
        end = left + length * scale
        ImageDraw.Draw(image).rectangle((left, middle - 2, end, middle + 1), fill=INK)
        text = f"{length:g} {caption.units}"
        left = end + 8 + write(image, (end + 8, middle), text, size=13, color=INK) + 28
        is_empty = False
    entries = [(fitted(name, 13, 200), color) for name, color in caption.keypoints]
    trial = Image.new("RGB", (1, 1))
    needed = sum(write(trial, (9, 9), name, size=13, color=INK) + 32 for name, _ in entries)
    if entries and left + needed < width:
        for name, color in entries:
            dot(image, (left + 4, middle), 4, color)
            left += 14 + write(image, (left + 12, middle), name, size=13, color=INK) + 18
        is_empty = False
    return None if is_empty else image


def pose_cell(
    aligned: np.ndarray, view: Camera, skeleton: Skeleton
) -> Callable[[int], Image.Image]:
    """Pictures of the keypoints alone, from above and, in 3-D, from the side.

    Parameters
    ----------
    aligned : ndarray, (frame, keypoint, space)
        Centred, the heading at the onset along the first axis. In 2-D the second axis points down,
        as it does in videos; in 3-D the third one points up.
    """
    is_flat = aligned.shape[2] == 2
    top = view.place(aligned[..., :2] * (1, 1 if is_flat else -1))
    if is_flat:

        def from_above(number: int) -> Image.Image:
            image = Image.new("RGB", (view.size, view.size), PAPER)
            skeleton.draw(image, top[number])
            return image

        return from_above
    height = side_height(view.size)
    side = view.place(aligned[..., [0, 2]] * (1, -1)) - (0, (view.size - height) / 2)

    def from_two_sides(number: int) -> Image.Image:
        image = Image.new("RGB", (view.size, view.size + height), PAPER)
        skeleton.draw(image, top[number])
        lower = Image.new("RGB", (view.size, height), PAPER)
        skeleton.draw(lower, side[number])
        image.paste(lower, (0, view.size))
        ImageDraw.Draw(image).line((0, view.size, view.size, view.size), fill=_EDGE)
        return image

    return from_two_sides


def side_height(size: int) -> int:
    """Height of the view from the side, in px, beneath a square one from above."""
    return size * 5 // 8
