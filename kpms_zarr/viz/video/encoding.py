"""Movies written frame by frame: mp4 and gif."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from kpms_zarr.viz.video.video import require_av

FORMATS = {"mp4": 60.0, "gif": 34.0}
"""Formats, and the most frames per second that players show of them."""

_ENCODERS = ("libx264", "libopenh264", "mpeg4")  # the first that is there
_OPTIONS = {
    "libx264": {"crf": "20", "preset": "fast", "threads": "1", "x264-params": "mbtree=0"},
    "mpeg4": {"qscale": "3"},
}
"""Those with which the same movie has the same bytes: several threads of x264 give others for
each number of cores, and its macroblock tree reads memory that nobody has set (with AVX-512)."""
_COLORS = 255
_PALETTE_FRAMES = 8


def write_movie(
    path: str | os.PathLike[str],
    frame: Callable[[int], np.ndarray],
    *,
    n_frames: int,
    fps: Fraction,
    format: str = "mp4",
    is_photo: bool = False,
    title: str = "",
) -> int:
    """Write a movie; it appears under its name when it is whole.

    Parameters
    ----------
    path : path
        An older file is replaced in one step.
    frame : callable
        Gives the picture (row, column, rgb) uint8 of a frame; all have the same even size. Called
        for 0, 1, ..., for a gif before that for a few others as well, from which its colours are
        taken.
    fps : Fraction
        Frames per second.
    format : str
        ``"mp4"`` (H.264 where the encoder is there, else MPEG-4) or ``"gif"``.
    is_photo : bool
        Whether the pictures are of a camera: a gif then mixes its colours by dots.
    title : str
        Written into the file.

    Returns
    -------
    int
        Bytes of the file.
    """
    path = Path(path)
    with _beside(path) as partial:
        if format == "gif":
            _write_gif(partial, frame, n_frames, fps, is_photo)
        else:
            _write_mp4(partial, frame, n_frames, fps, title)
    return path.stat().st_size


@contextmanager
def _beside(path: Path) -> Iterator[Path]:
    """Context with a name beside a file: what was written there replaces the file at the end."""
    partial = path.with_name(f".{path.name}.partial")
    try:
        yield partial
        os.replace(partial, path)
    finally:
        partial.unlink(missing_ok=True)


def _write_mp4(
    path: Path, frame: Callable[[int], np.ndarray], n_frames: int, fps: Fraction, title: str
) -> None:
    av = require_av()
    name = next(name for name in _ENCODERS if name in av.codecs_available)
    options = {"movflags": "+faststart"}
    with av.open(os.fspath(path), "w", format="mp4", options=options) as container:
        container.metadata["title"] = title
        stream = container.add_stream(name, rate=fps, options=_OPTIONS.get(name, {}))
        stream.pix_fmt = "yuv420p"
        for number in range(n_frames):
            picture = frame(number)
            if not number:
                stream.height, stream.width = picture.shape[:2]
            shown = av.VideoFrame.from_ndarray(np.ascontiguousarray(picture), format="rgb24")
            shown.pts, shown.time_base = number, 1 / fps
            container.mux(stream.encode(shown))
        container.mux(stream.encode(None))


def _write_gif(
    path: Path,
    frame: Callable[[int], np.ndarray],
    n_frames: int,
    fps: Fraction,
    is_photo: bool,
) -> None:
    av = require_av()
    palette = _palette(frame, n_frames)
    dither = Image.Dither.FLOYDSTEINBERG if is_photo else Image.Dither.NONE
    with av.open(os.fspath(path), "w", format="gif", options={"loop": "0"}) as container:
        stream = container.add_stream("gif", rate=fps)
        stream.pix_fmt = "pal8"
        for number in range(n_frames):
            picture = frame(number)
            if not number:
                stream.height, stream.width = picture.shape[:2]
            chosen = Image.fromarray(picture).quantize(palette=palette, dither=dither)
            shown = av.VideoFrame.from_ndarray((np.array(chosen), _argb(palette)), format="pal8")
            shown.pts, shown.time_base = number, 1 / fps
            container.mux(stream.encode(shown))
        container.mux(stream.encode(None))


def _palette(frame: Callable[[int], np.ndarray], n_frames: int) -> Image.Image:
    """Colours for all frames, from some of them."""
    chosen = np.unique(np.linspace(0, n_frames - 1, _PALETTE_FRAMES).round().astype(int))
    pictures = np.concatenate([frame(int(number)) for number in chosen])
    return Image.fromarray(pictures).quantize(_COLORS)


def _argb(palette: Image.Image) -> np.ndarray[Any, np.dtype[np.uint8]]:
    colors = np.zeros((256, 4), dtype=np.uint8)
    found = np.array(palette.getpalette(), dtype=np.uint8).reshape(-1, 3)
    colors[: len(found), 1:] = found
    colors[:, 0] = 255
    return colors
