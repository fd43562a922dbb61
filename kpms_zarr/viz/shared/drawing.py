"""Poses, text and parts of pictures as pixels, for movies."""

from __future__ import annotations

import unicodedata
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
from PIL import Image, ImageDraw, ImageFont

_FINER = 3
"""Lines are drawn so many times larger, and then made smaller: their edges are smooth."""
_FAR = 1e4  # px; further away nothing is seen

PAPER, OUTSIDE = "#ffffff", "#2b3138"
"""Behind a skeleton, and around the picture of a camera."""


@dataclass(frozen=True)
class Camera:
    """Camera above an animal at an onset: how positions become places in a square cell.

    Attributes
    ----------
    size : int
        Width and height of the cell, in px.
    scale : float
        px per unit of position.
    """

    size: int
    scale: float

    def place(self, aligned: np.ndarray) -> np.ndarray:
        """Places in px of aligned positions (..., 2), the second axis downwards."""
        return self.size / 2 + self.scale * aligned

    def crop(self, picture: np.ndarray, center: np.ndarray, heading: float) -> Image.Image:
        """The part of a picture that the cell shows, the heading turned to the right.

        Only that part is copied and turned.

        Parameters
        ----------
        picture : ndarray, (row, column, rgb) uint8
        center : ndarray, (2,)
            Position in the picture that becomes the middle of the cell; whole numbers are the
            middle of pixels.
        heading : float
            In rad, from the first axis towards the second, which points down.

        Returns
        -------
        Image
            What lies outside the picture is dark grey.
        """
        turn = np.array([[np.cos(heading), -np.sin(heading)], [np.sin(heading), np.cos(heading)]])
        matrix = turn / self.scale
        start = np.asarray(center, dtype=np.float64) + 0.5 - matrix @ np.full(2, self.size / 2)
        reach = np.abs(matrix).sum(1) * self.size / 2 + 2
        middle = np.asarray(center, dtype=np.float64) + 0.5
        limit = np.array(picture.shape[1::-1])
        low = np.clip(np.floor(middle - reach), 0, limit).astype(int)
        high = np.clip(np.ceil(middle + reach), 0, limit).astype(int)
        if (high <= low).any():
            return Image.new("RGB", (self.size, self.size), OUTSIDE)
        part = Image.fromarray(np.ascontiguousarray(picture[low[1] : high[1], low[0] : high[0]]))
        factor = max(1, int(1 / self.scale))  # else single pixels would be picked
        part = part.reduce(factor) if factor > 1 else part
        matrix, start = matrix / factor, (start - low) / factor
        data = (matrix[0, 0], matrix[0, 1], start[0], matrix[1, 0], matrix[1, 1], start[1])
        return part.transform(
            (self.size, self.size),
            Image.Transform.AFFINE,
            data,
            Image.Resampling.BILINEAR,
            fillcolor=OUTSIDE,
        )


@dataclass(frozen=True)
class Skeleton:
    """Bones, colours and line widths of poses as pixels.

    Attributes
    ----------
    bones : tuple of (int, int)
        Keypoints that lines join.
    colors : tuple of str
        Of the keypoints.
    line : str
        Colour of the lines.
    halo : str
        Around the points; "" = none.
    radius : float
        Of the points, in px.
    """

    bones: tuple[tuple[int, int], ...]
    colors: tuple[str, ...]
    line: str = "#9aa5b1"
    halo: str = ""
    radius: float = 2.6

    def draw(self, image: Image.Image, points: np.ndarray) -> None:
        """Draw a pose onto an image.

        Parameters
        ----------
        points : ndarray, (keypoint, 2)
            In px; what is NaN is left out.
        """
        seen = np.isfinite(points).all(1)
        if not seen.any():
            return
        points = np.clip(np.where(seen[:, None], points, 0), -_FAR, _FAR)
        margin = self.radius + 3
        low = np.clip(np.floor(points[seen].min(0) - margin), 0, image.size).astype(int)
        high = np.clip(np.ceil(points[seen].max(0) + margin), 0, image.size).astype(int)
        if (high <= low).any():
            return
        box = (int(low[0]), int(low[1]), int(high[0]), int(high[1]))
        large = image.crop(box).resize(
            (_FINER * (box[2] - box[0]), _FINER * (box[3] - box[1])), Image.Resampling.NEAREST
        )
        self._draw_large(ImageDraw.Draw(large), _FINER * (points - low), seen)
        image.paste(large.reduce(_FINER), box[:2])

    def _draw_large(self, draw: ImageDraw.ImageDraw, points: np.ndarray, seen: np.ndarray) -> None:
        radius, width = _FINER * self.radius, max(1, round(_FINER * self.radius * 0.6))
        for a, b in self.bones:
            if seen[a] and seen[b]:
                draw.line([tuple(points[a]), tuple(points[b])], fill=self.line, width=width)
        for point, color, is_seen in zip(points, self.colors, seen, strict=True):
            if is_seen and self.halo:
                _disc(draw, point, radius + _FINER, self.halo)
            if is_seen:
                _disc(draw, point, radius, color)


def dot(image: Image.Image, center: tuple[float, float], radius: float, color: str) -> None:
    """Draw a dot with a white rim."""
    Skeleton((), (color,), halo=PAPER, radius=radius).draw(image, np.array([center], float))


def _disc(draw: ImageDraw.ImageDraw, center: np.ndarray, radius: float, color: str) -> None:
    (x, y), r = center - 0.5, radius
    draw.ellipse([x - r, y - r, x + r, y + r], fill=color)


def write(
    image: Image.Image,
    place: tuple[float, float],
    text: str,
    *,
    size: int,
    color: str,
    anchor: str = "lm",
) -> float:
    """Write a line of text; ``anchor`` as in Pillow.

    Returns
    -------
    float
        Width of the text, in px.
    """
    font, text = _font(size), legible(text)
    ImageDraw.Draw(image).text(place, text, fill=color, font=font, anchor=anchor)
    return float(font.getlength(text))


def legible(text: str) -> str:
    """Replace letters that the typeface lacks by the nearest that it has: ``ü`` by ``u``.

    It has hardly more than those of ASCII, and draws all others as the same empty box. What has no
    neighbour becomes ``?``.
    """
    return "".join(map(_nearest, text))


@lru_cache(maxsize=4096)
def _nearest(letter: str) -> str:
    if _has(letter):
        return letter
    base = _LIKE.get(letter) or "".join(
        part for part in unicodedata.normalize("NFKD", letter) if not unicodedata.combining(part)
    )
    return base if base and all(map(_has, base)) else "?"


def _has(letter: str) -> bool:
    """Whether the typeface has a letter."""
    return letter == " " or bytes(_font(20).getmask(letter)) != _missing()


@lru_cache(maxsize=1)
def _missing() -> bytes:
    """What is drawn for letters that the typeface lacks."""
    return bytes(_font(20).getmask(_NO_LETTER))


_NO_LETTER = "\ufffe"
_LIKE = {
    **dict.fromkeys("\u2010\u2011\u2012\u2013\u2014\u2212", "-"),
    "\u00df": "ss", "\u00e6": "ae", "\u00f8": "o", "\u00d8": "O", "\u0142": "l",
    "\u00b5": "u", "\u03bc": "u", "\u00d7": "x", "\u2192": "->", "\u2265": ">=",
       "\u2264": "<=",
}  # fmt: skip


def fitted(text: str, size: int, width: float) -> str:
    """Cut a text so that it is not wider than ``width`` px; see :func:`legible`."""
    font, text = _font(size), legible(text)
    if font.getlength(text) <= width:
        return text
    while text and font.getlength(f"{text}…") > width:
        text = text[:-1]
    return f"{text.rstrip()}…" if text else ""


def round_length(max_length: float) -> float:
    """Longest of 1, 2, 5, 10, 20, ... that is not longer than ``max_length``."""
    power = 10.0 ** np.floor(np.log10(max_length))
    return float(max(step * power for step in (1, 2, 5) if step * power <= max_length * (1 + 1e-9)))


@lru_cache(maxsize=8)
def _font(size: int) -> ImageFont.FreeTypeFont:
    """The typeface that comes with Pillow, so that movies look the same everywhere."""
    return ImageFont.load_default(size)  # type: ignore[return-value]
