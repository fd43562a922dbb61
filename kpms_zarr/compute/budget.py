"""Predicted device memory of a plan, before anything runs."""

from __future__ import annotations

from kpms_zarr.compute.kernels.ar import feature_pairs
from kpms_zarr.compute.segments import TileShape


def tile_bytes(shape: TileShape, *, n_states: int, n_latent: int, lags: int, itemsize: int) -> int:
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
    weights = n_latent * (n_latent * lags + 1)
    per_frame = n_states + 2 * n_pairs + 4 * n_features + 2 * weights + 16
    frames = shape.n_segments * (shape.n_frames + lags)
    return itemsize * frames * per_frame
