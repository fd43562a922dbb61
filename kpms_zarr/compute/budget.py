"""Predicted device memory of a plan, before anything runs."""

from __future__ import annotations

import math

from kpms_zarr.compute.kernels.ar import feature_pairs
from kpms_zarr.compute.segments import TileShape

_MARGIN = 1.2
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
    noise_dof: int = 5,
) -> int:
    """Bytes of one tile on the device: input, filtered probabilities, products of features.

    Parameters
    ----------
    shape : TileShape
    n_states, n_latent, lags : int
    itemsize : int
        4 for float32, 8 for float64.
    """
    n_pairs = len(feature_pairs(n_latent, lags)[0])
    n_features = n_latent * (lags + 1) + 1
    # The filtered probabilities are dead by the time the products of features are formed.
    per_frame = max(n_states, n_pairs) + 2 * n_features + 12
    tables = n_states * (n_latent**2 * (2 * lags + 1) + 4 * n_latent + 2 * n_states)
    frames = shape.n_segments * (shape.n_frames + lags)
    return math.ceil(_MARGIN * itemsize * (frames * per_frame + tables))
