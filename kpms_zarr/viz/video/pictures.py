"""Frames of a video as pictures that a browser can show."""

from __future__ import annotations

import base64
from collections.abc import Iterable, Iterator
from fractions import Fraction
from typing import Any

import numpy as np

from kpms_zarr.viz.video.video import VideoReader, require_av

_QUALITY = 3  # Of 1 (best) to 31.
_LAMBDA = 118  # FFmpeg's unit of quality.


def picture_size(reader: VideoReader, width: int) -> tuple[int, int]:
    """Width and height of the pictures in px: even numbers, never larger than the video."""
    width = min(width, reader.width)
    height = round(reader.height * width / reader.width)
    return max(2, width - width % 2), max(2, height - height % 2)


def pictures(reader: VideoReader, frames: Iterable[int], width: int) -> Iterator[str]:
    """Frames of a video as JPEG in data URLs, scaled down.

    Parameters
    ----------
    frames : iterable of int
        Rising numbers are the fastest. It ends at the first one that the video does not have.
    width : int
        In px.

    Yields
    ------
    str
        One a frame.

    Raises
    ------
    InputError
        For a frame that cannot be decoded.
    """
    size = picture_size(reader, width)
    codec = _codec(*size)
    for frame in frames:
        if not 0 <= frame < reader.n_frames:
            return
        yield _url(codec, reader.frame(int(frame), size[0]))


def picture_url(picture: np.ndarray) -> str:
    """A picture, (row, column, rgb) uint8 with even sides, as a JPEG in a data URL."""
    height, width = picture.shape[:2]
    return _url(_codec(width, height), picture)


def _url(codec: Any, picture: np.ndarray) -> str:
    return "data:image/jpeg;base64," + base64.b64encode(_jpeg(codec, picture)).decode()


def _codec(width: int, height: int) -> Any:
    codec = require_av().CodecContext.create("mjpeg", "w")
    codec.width, codec.height, codec.pix_fmt = width, height, "yuvj420p"
    codec.time_base = Fraction(1, 30)
    codec.thread_count = 1  # Else pictures come out some frames later.
    codec.options = {"flags": "+qscale", "global_quality": str(_LAMBDA * _QUALITY)}
    return codec


def _jpeg(codec: Any, picture: np.ndarray) -> bytes:
    picture = np.ascontiguousarray(picture[: codec.height, : codec.width])
    frame = require_av().VideoFrame.from_ndarray(picture, format="rgb24")
    return b"".join(bytes(packet) for packet in codec.encode(frame.reformat(format="yuvj420p")))
