"""Drawings of lines, discs and words on paper, as SVG, PDF (both of lines, for print) or PNG."""

from __future__ import annotations

import html
import zlib
from collections.abc import Sequence
from dataclasses import dataclass, field
from itertools import pairwise

import numpy as np
from PIL import Image, ImageDraw

from kpms_zarr.viz.shared.drawing import PAPER, write
from kpms_zarr.viz.shared.style import FONT, INK

_FINER = 3
"""A picture is drawn so many times larger, and then made smaller: its edges are smooth."""
_ANCHORS = {"l": ("start", 0.0), "m": ("middle", 0.5), "r": ("end", 1.0)}
_ROUND = 0.5522847498
"""Length of the handles of a cubic curve that is a quarter of a circle, by its radius."""


@dataclass(frozen=True)
class _Line:
    points: np.ndarray
    color: str
    width: float
    is_dashed: bool


@dataclass(frozen=True)
class _Area:
    points: np.ndarray
    color: str


@dataclass(frozen=True)
class _Disc:
    center: tuple[float, float]
    radius: float
    color: str
    rim: str


@dataclass(frozen=True)
class _Words:
    place: tuple[float, float]
    text: str
    size: float
    color: str
    anchor: str


@dataclass
class PaperSheet:
    """A sheet of paper; what is drawn later lies above.

    Attributes
    ----------
    width, height : float
        In points (1/72 inch), from the left and from the top.
    """

    width: float
    height: float
    items: list[_Line | _Area | _Disc | _Words] = field(default_factory=list)

    def line(
        self, points: np.ndarray, color: str = INK, width: float = 1.0, *, is_dashed: bool = False
    ) -> None:
        """Draw a line through points (point, 2); it is interrupted where one is NaN."""
        points = np.asarray(points, np.float64)
        there = np.isfinite(points).all(1)
        cuts = np.flatnonzero(np.diff(there)) + 1
        for part, is_there in zip(np.split(points, cuts), np.split(there, cuts), strict=True):
            if len(part) > 1 and is_there[0]:
                self.items.append(_Line(part, color, width, is_dashed))

    def area(self, points: np.ndarray, color: str) -> None:
        """Fill an area with corners (point, 2); those that are NaN are left out."""
        points = np.asarray(points, np.float64)
        points = points[np.isfinite(points).all(1)]
        if len(points) > 2:
            self.items.append(_Area(points, color))

    def disc(self, center: np.ndarray, radius: float, color: str, rim: str = "") -> None:
        """Draw a disc, unless its middle is NaN."""
        if np.isfinite(center).all():
            place = (float(center[0]), float(center[1]))
            self.items.append(_Disc(place, radius, color, rim))

    def words(
        self, place: tuple[float, float], text: str, size: float = 9, color: str = INK,
        anchor: str = "l",
    ) -> None:  # fmt: skip
        """Write a line; ``place`` is at its left, middle or right (``"l"``, ``"m"``, ``"r"``)."""
        if text:
            self.items.append(_Words(place, text, size, color, anchor))


def svg(sheet: PaperSheet) -> str:
    """A sheet as SVG."""
    parts = []
    for item in sheet.items:
        match item:
            case _Line(points, color, width, is_dashed):
                dashes = ' stroke-dasharray="3 2"' if is_dashed else ""
                parts.append(
                    f'<path d="M{_svg_points(points)}" fill="none" stroke="{color}" '
                    f'stroke-width="{width:g}" stroke-linecap="round" '
                    f'stroke-linejoin="round"{dashes}/>'
                )
            case _Area(points, color):
                parts.append(f'<path d="M{_svg_points(points)}Z" fill="{color}"/>')
            case _Disc((x, y), radius, color, rim):
                stroke = f' stroke="{rim}" stroke-width="0.6"' if rim else ""
                parts.append(
                    f'<circle cx="{x:.2f}" cy="{y:.2f}" r="{radius:g}" fill="{color}"{stroke}/>'
                )
            case _Words((x, y), text, size, color, anchor):
                parts.append(
                    f'<text x="{x:.2f}" y="{y + 0.35 * size:.2f}" font-size="{size:g}" '
                    f'fill="{color}" text-anchor="{_ANCHORS[anchor][0]}">{html.escape(text)}</text>'
                )
    box = f"{sheet.width:g} {sheet.height:g}"
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" width="{sheet.width:g}pt" '
        f'height="{sheet.height:g}pt" viewBox="0 0 {box}" font-family="{html.escape(FONT)}">'
        f'<rect width="100%" height="100%" fill="{PAPER}"/>{"".join(parts)}</svg>\n'
    )


def _svg_points(points: np.ndarray) -> str:
    return "L".join(f"{x:.2f},{y:.2f}" for x, y in points)


def png(sheet: PaperSheet, scale: float = 2.0) -> Image.Image:
    """A sheet as a picture, ``scale`` px to a point."""
    size = (round(sheet.width * scale), round(sheet.height * scale))
    large = Image.new("RGB", (_FINER * size[0], _FINER * size[1]), PAPER)
    draw, by = ImageDraw.Draw(large), scale * _FINER
    for item in sheet.items:
        match item:
            case _Line(points, color, width, is_dashed):
                for part in _dashes(points) if is_dashed else [points]:
                    corners = [tuple(by * one) for one in part]
                    draw.line(corners, fill=color, width=max(1, round(by * width)), joint="curve")
                    for x, y in (corners[0], corners[-1]):  # round ends
                        r = by * width / 2
                        draw.ellipse((x - r, y - r, x + r, y + r), fill=color)
            case _Area(points, color):
                draw.polygon([tuple(by * one) for one in points], fill=color)
            case _Disc((x, y), radius, color, rim):
                box = tuple(by * one for one in (x - radius, y - radius, x + radius, y + radius))
                draw.ellipse(box, fill=color, outline=rim or None, width=max(1, round(0.6 * by)))
            case _Words():
                pass
    image = large.resize(size, Image.Resampling.BOX)
    for item in sheet.items:
        if isinstance(item, _Words):
            write(
                image,
                (item.place[0] * scale, item.place[1] * scale),
                item.text,
                size=max(1, round(item.size * scale)),
                color=item.color,
                anchor=f"{item.anchor}m",
            )
    return image


def _dashes(points: np.ndarray, on: float = 3.0, off: float = 2.0) -> list[np.ndarray]:
    """Cut a line into dashes, lengths in points."""
    step = np.hypot(*np.diff(points, axis=0).T)
    along = np.append(0, step.cumsum())
    if along[-1] <= 0:
        return [points]
    found = []
    for start in np.arange(0, along[-1], on + off):
        stop = min(start + on, along[-1])
        inner = points[(along > start) & (along < stop)]
        ends = [[np.interp(at, along, points[:, axis]) for axis in (0, 1)] for at in (start, stop)]
        found.append(np.concatenate([ends[:1], inner, ends[1:]]))
    return found


# ------------------------------------------------------------------ PDF


def pdf(sheets: Sequence[PaperSheet], title: str = "") -> bytes:
    """Sheets as pages of a PDF (ISO 32000-1), all of it lines, areas and words.

    Words are in Helvetica, which every reader has; what it lacks is written as ``?``.
    """
    objects = [
        b"<< /Type /Catalog /Pages 2 0 R >>",
        b"",
        b"<< /Type /Font /Subtype /Type1 /BaseFont /Helvetica /Encoding /WinAnsiEncoding >>",
        b"<< /Producer (kpms_zarr) /Title " + _pdf_text(title) + b" >>",
    ]
    pages = []
    for sheet in sheets:
        content = zlib.compress(_pdf_content(sheet))
        pages.append(len(objects) + 1)
        objects += [
            b"<< /Type /Page /Parent 2 0 R /MediaBox [0 0 %.2f %.2f] /Resources << /Font << /F1 "
            b"3 0 R >> >> /Contents %d 0 R >>" % (sheet.width, sheet.height, len(objects) + 2),
            b"<< /Length %d /Filter /FlateDecode >>\nstream\n" % len(content)
            + content
            + b"\nendstream",
        ]
    kids = b" ".join(b"%d 0 R" % number for number in pages)
    objects[1] = b"<< /Type /Pages /Kids [%s] /Count %d >>" % (kids, len(pages))
    found, places = b"%PDF-1.4\n%\xe2\xe3\xcf\xd3\n", []
    for number, body in enumerate(objects, 1):
        places.append(len(found))
        found += b"%d 0 obj\n%s\nendobj\n" % (number, body)
    table = b"".join(b"%010d 00000 n \n" % place for place in places)
    n = len(objects) + 1
    return (
        found
        + b"xref\n0 %d\n0000000000 65535 f \n%s" % (n, table)
        + b"trailer\n<< /Size %d /Root 1 0 R /Info 4 0 R >>\nstartxref\n%d\n%%%%EOF\n"
        % (n, len(found))
    )


def _pdf_content(sheet: PaperSheet) -> bytes:
    """Operators of a page: from the bottom, where the sheet counts from the top."""
    parts = [b"1 J 1 j"]
    up = np.array([1.0, -1.0])
    for item in sheet.items:
        match item:
            case _Line(points, color, width, is_dashed):
                dash = b"[3 2] 0 d" if is_dashed else b"[] 0 d"
                path = _pdf_path(points * up + [0, sheet.height])
                parts.append(b"%s RG %.2f w %s %s S" % (_pdf_color(color), width, dash, path))
            case _Area(points, color):
                path = _pdf_path(points * up + [0, sheet.height])
                parts.append(b"%s rg %s h f" % (_pdf_color(color), path))
            case _Disc((x, y), radius, color, rim):
                circle = _pdf_circle(x, sheet.height - y, radius)
                edge = b"%s RG 0.6 w [] 0 d " % _pdf_color(rim) if rim else b""
                how = b"b" if rim else b"f"
                parts.append(b"%s%s rg %s %s" % (edge, _pdf_color(color), circle, how))
            case _Words((x, y), text, size, color, anchor):
                left = x - _ANCHORS[anchor][1] * _width(text, size)
                place = (left, sheet.height - y - 0.35 * size)
                parts.append(
                    b"BT %s rg /F1 %.2f Tf %.2f %.2f Td %s Tj ET"
                    % (_pdf_color(color), size, *place, _pdf_text(text))
                )
    return b"\n".join(parts) + b"\n"


def _width(text: str, size: float) -> float:
    """Width of words, about, in points."""
    trial = Image.new("RGB", (1, 1))
    return write(trial, (9, 9), text, size=100, color=INK) * size / 100


def _pdf_color(color: str) -> bytes:
    return b"%.3f %.3f %.3f" % tuple(int(color[i : i + 2], 16) / 255 for i in (1, 3, 5))


def _pdf_path(points: np.ndarray) -> bytes:
    words = [b"%.2f %.2f l" % (x, y) for x, y in points]
    return b" ".join([words[0][:-1] + b"m", *words[1:]])


def _pdf_circle(x: float, y: float, r: float) -> bytes:
    k = _ROUND * r
    corners = [(r, 0.0), (0.0, r), (-r, 0.0), (0.0, -r), (r, 0.0)]
    found = [b"%.2f %.2f m" % (x + r, y)]
    for (a, b), (c, d) in pairwise(corners):
        # The handles go round: at right angles to the radius of each end.
        found.append(
            b"%.2f %.2f %.2f %.2f %.2f %.2f c"
            % (x + a - k * b / r, y + b + k * a / r, x + c + k * d / r, y + d - k * c / r,
               x + c, y + d)
        )  # fmt: skip
    return b" ".join(found)


def _pdf_text(text: str) -> bytes:
    raw = text.encode("cp1252", "replace")
    for char in (b"\\", b"(", b")"):
        raw = raw.replace(char, b"\\" + char)
    return b"(" + raw.replace(b"\r", b" ").replace(b"\n", b" ") + b")"
