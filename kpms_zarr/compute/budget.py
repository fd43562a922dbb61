"""Predicted device memory of a plan, before anything runs."""

from __future__ import annotations

import math

from kpms_zarr.compute.kernels.ar import FRAMES_PER_CHUNK, feature_pairs
from kpms_zarr.compute.segments import TileShape

_MARGIN = 1.1
"""Above what XLA's memory analysis reports on a CPU, for other versions and backends."""


def tile_bytes(
    shape: TileShape,
    *,
    n_states: int,
    n_latent: int,
    lags: int,
    itemsize: int,
    n_keypoints: int = 0,
    n_space: int = 2,
) -> int:
    """Bytes of one tile on the device: what goes in, what comes out, and what is held meanwhile.

    Parameters
    ----------
    shape : TileShape
    n_states, n_latent, lags : int
    itemsize : int
        4 for float32, 8 for float64.
    n_keypoints, n_space : int
        0 keypoints: the AR stage, in which only labels are drawn.
    """
    n_pairs = len(feature_pairs(n_latent, lags)[0])
    n_features = n_latent * (lags + 1) + 1
    tables = n_states * (n_latent**2 * (2 * lags + 1) + 4 * n_latent + 2 * n_states)
    frames = shape.n_segments * (shape.n_frames + 2 * lags)
    products = shape.n_segments * min(FRAMES_PER_CHUNK, shape.n_frames) * n_pairs
    sums = 2 * n_states * n_pairs
    if n_keypoints:
        held = frames * _full_stage(n_states, n_latent, lags, n_keypoints, n_space)
    else:
        held = frames * (2 * n_features + 12)
        held += max(frames * n_states, products)
    return math.ceil(_MARGIN * itemsize * (held + tables + sums))


def _full_stage(n_states: int, n_latent: int, lags: int, n_keypoints: int, n_space: int) -> int:
    """Numbers per frame of the full stage.

    Filtered probabilities, evidence of the latent pose in three layouts, factor of the banded
    precision, vectors of the latent pose, keypoints with residuals; then what goes in and out.
    """
    m, k = n_latent, n_keypoints
    factor = lags * m**2 + m * (m - 1) // 2
    held = n_states + 3 * m**2 + factor + 11 * m + 3 * k * n_space + 3 * k + 20
    state = m + n_space + 1 + k
    return held + 2 * state + k * n_space + k + 2
