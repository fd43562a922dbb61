"""Turn vectors in the plane of the first two space dims, about the vertical axis."""

from __future__ import annotations

import numpy as np


def rotate(vectors: np.ndarray, angle: np.ndarray | float) -> np.ndarray:
    """Turn vectors about the vertical axis.

    Parameters
    ----------
    vectors : ndarray, (..., keypoint, space)
    angle : ndarray, (...), or float
        In rad, from the first axis towards the second.
    """
    cos, sin = np.cos(angle)[..., None], np.sin(angle)[..., None]
    turned = vectors.copy()
    turned[..., 0] = cos * vectors[..., 0] - sin * vectors[..., 1]
    turned[..., 1] = sin * vectors[..., 0] + cos * vectors[..., 1]
    return turned
