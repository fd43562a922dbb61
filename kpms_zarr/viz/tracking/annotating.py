"""Pieces of video frames around a tracked animal, in which a person marks a keypoint."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from kpms_zarr.viz.video.video import VideoReader

VIEWS = {"the animal": 1.4, "closer": 0.7, "the whole picture": np.inf}
"""What is shown -> width of it, in lengths of the animal around the middle of its keypoints."""
_WIDEST = 1200
"""Of a picture in px; what is wider is scaled down."""
_LEAST = 64


@dataclass(frozen=True)
class CutOut:
    """A part of a frame of a video.

    Attributes
    ----------
    picture : ndarray, (row, column, rgb) uint8
        With even sides.
    corner : tuple of float
        Of its left and upper edge, in px of the video, where the middle of the first pixel is 0.
    scale : float
        Its px for one px of the video.
    """

    picture: np.ndarray
    corner: tuple[float, float]
    scale: float

    def to_piece(self, position: np.ndarray) -> np.ndarray:
        """Convert positions in the video, (..., 2), to px from the corner of the piece."""
        return (np.asarray(position, np.float64) - self.corner) * self.scale

    def to_video(self, x: float, y: float) -> tuple[float, float]:
        """Convert px from the corner of the piece to a position in the video."""
        return x / self.scale + self.corner[0], y / self.scale + self.corner[1]


def is_inside(reader: VideoReader, position: np.ndarray) -> bool:
    """Whether an animal, (keypoint, 2), lies in the picture: not where units are others than px."""
    middle = np.nanmedian(position, axis=0)
    return bool(
        (middle > -0.5).all() and (middle < (reader.width - 0.5, reader.height - 0.5)).all()
    )


def piece_of(
    reader: VideoReader, index: int, position: np.ndarray, keypoint: int, width: float
) -> CutOut:
    """Read a frame and cut out what lies around an animal.

    Parameters
    ----------
    index : int
        Frame of the video.
    position : ndarray, (keypoint, 2)
        In px of the video; NaN = missing.
    keypoint : int
        That has to be on it, however far it lies from the others.
    width : float
        Of the piece, in lengths of the animal; infinite = the whole frame.
    """
    if not np.isfinite(width):
        scale = min(1.0, _WIDEST / max(reader.width, reader.height))
        picture = reader.frame(index, None if scale == 1 else round(reader.width * scale))
        return CutOut(_even(picture), (-0.5, -0.5), picture.shape[1] / reader.width)
    low, high = _box(position, keypoint, width, np.array([reader.width, reader.height]))
    cut = reader.frame(index)[low[1] : high[1], low[0] : high[0]]
    step = -(-max(cut.shape[:2]) // _WIDEST)
    corner = (float(low[0]) - 0.5, float(low[1]) - 0.5)
    return CutOut(_even(_mean_of(cut, step)), corner, 1 / step)


def _box(
    position: np.ndarray, keypoint: int, width: float, size: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """Corners of the piece in whole px, within the frame."""
    there = position[np.isfinite(position).all(-1)].astype(np.float64)
    middle = np.median(there, axis=0)
    # Of a tracked animal, whatever keypoint is lost: twice the median distance from its middle.
    length = 4 * float(np.median(np.abs(there - middle).max(-1)))
    half = max(_LEAST, width * length) / 2
    point = position[keypoint].astype(np.float64)
    if width < 1:
        middle = point
    low = np.minimum(middle - half, point - half / 4)
    high = np.maximum(middle + half, point + half / 4)
    low = np.clip(np.floor(low), 0, size - 2).astype(np.int64)
    high = np.clip(np.ceil(high), low + 2, size).astype(np.int64)
    return low, high


def _mean_of(picture: np.ndarray, step: int) -> np.ndarray:
    """Scale down by a whole number: means of squares."""
    if step == 1:
        return picture
    rows, columns = (side // step * step for side in picture.shape[:2])
    cells = picture[:rows, :columns].reshape(rows // step, step, columns // step, step, 3)
    return np.rint(cells.mean((1, 3))).astype(np.uint8)


def _even(picture: np.ndarray) -> np.ndarray:
    rows, columns = picture.shape[:2]
    return picture[: rows - rows % 2, : columns - columns % 2]
