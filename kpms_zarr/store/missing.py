"""Missing keypoints: one definition for all of the package."""

from __future__ import annotations

import numpy as np


def is_missing(position: np.ndarray, confidence: np.ndarray | None) -> np.ndarray:
    """Mask of the keypoints that were not tracked, by the one definition of the package.

    Trackers write NaN, or anything (0, -1, the corner of the picture) with a confidence of 0 or
    below, for a keypoint that they did not find.

    Parameters
    ----------
    position : ndarray, (..., keypoint, space)
    confidence : ndarray, (..., keypoint), optional
        NaN = not given, which says nothing, as none at all.

    Returns
    -------
    ndarray, (..., keypoint) bool
        True where a coordinate is not finite, or a confidence is given that is 0 or below.
    """
    missing = ~np.isfinite(position).all(-1)
    return missing if confidence is None else missing | (confidence <= 0)


def without_missing(position: np.ndarray, confidence: np.ndarray | None) -> np.ndarray:
    """Positions with NaN in place of the keypoints that :func:`is_missing` finds.

    Parameters
    ----------
    position : ndarray, (..., keypoint, space) float32
    confidence : ndarray, (..., keypoint), optional

    Returns
    -------
    ndarray, (..., keypoint, space) float32
        The array itself where nothing is missing.
    """
    missing = is_missing(position, confidence)
    if not missing.any():
        return position
    return np.where(missing[..., None], position.dtype.type(np.nan), position)
