"""Sums over frames that the dynamics of each state need (model.md 3.3)."""

from __future__ import annotations

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np

from kpms_zarr.compute.kernels.hmm import window

FRAMES_PER_CHUNK = 32
"""The products of so many frames exist at a time: they are the largest array of a tile."""


def feature_pairs(n_latent: int, lags: int) -> tuple[np.ndarray, np.ndarray]:
    """Rows and columns of the lower triangle over lags * latent + 1 + latent features."""
    return np.tril_indices(n_latent * lags + 1 + n_latent)


def tile_moments(
    x: jax.Array, z: jax.Array, is_real: jax.Array, weight_bias: jax.Array, lags: int
) -> jax.Array:
    """Second moments by state of one tile, with residuals under the given parameters.

    Regressing the residual instead of x removes the cancellation that makes float32 sums of
    products dangerous (model.md 3.3).

    Parameters
    ----------
    x : (frame + lag, latent, segment)
    z : (frame, segment) int32
    is_real : (frame, segment) bool
        False for padding.
    weight_bias : (state, latent, lag * latent + 1)
        Current [A b].

    Returns
    -------
    (state, pair)
        Sums of products of the features [lagged latent, 1, residual], lower triangle
        (:func:`feature_pairs`); they add up over tiles.
    """
    weight_bias = jnp.asarray(weight_bias)
    n_states, n_latent, _ = weight_bias.shape
    rows, _ = feature_pairs(n_latent, lags)

    def add(total: jax.Array, part: tuple[jax.Array, ...]) -> tuple[jax.Array, None]:
        windows, state, is_counted = part
        return total + _moments(windows, state, is_counted, weight_bias, lags), None

    windows = window(x, lags)
    parts = [_in_chunks(values) for values in (windows, z, is_real)]
    start = jnp.zeros((n_states, len(rows)), x.dtype)
    return jax.lax.scan(add, start, tuple(parts))[0]


def _in_chunks(values: jax.Array) -> jax.Array:
    """Cut (frame, ...) into (chunk, frame of the chunk, ...), padded with zeros."""
    n_chunks = -(-len(values) // FRAMES_PER_CHUNK)
    missing = n_chunks * FRAMES_PER_CHUNK - len(values)
    padded = jnp.pad(values, [(0, missing)] + [(0, 0)] * (values.ndim - 1))
    return padded.reshape(n_chunks, FRAMES_PER_CHUNK, *values.shape[1:])


def _moments(
    windows: jax.Array, z: jax.Array, is_real: jax.Array, weight_bias: jax.Array, lags: int
) -> jax.Array:
    n_states, n_latent, _ = weight_bias.shape
    n_frames, n_segments = z.shape
    one = jnp.ones((n_frames, 1, n_segments), windows.dtype)
    regressor = jnp.concatenate([windows[:, : lags * n_latent], one], axis=1)
    state = jnp.where(is_real, z, 0)
    predicted = jnp.sum(weight_bias[state] * regressor.transpose(0, 2, 1)[:, :, None, :], axis=-1)
    residual = windows[:, lags * n_latent :] - predicted.transpose(0, 2, 1)
    features = jnp.concatenate([regressor, residual], axis=1)
    rows, columns = feature_pairs(n_latent, lags)
    products = (features[:, rows] * features[:, columns]).transpose(0, 2, 1)
    # Padding goes to a state of its own that is cut off again.
    segment_ids = jnp.where(is_real, z, n_states).reshape(-1)
    products = products.reshape(-1, len(rows))
    # A scattered sum is the fastest on a CPU; on a GPU its order, and so its bits, may vary.
    return jax.lax.platform_dependent(
        products,
        segment_ids,
        cpu=partial(sum_scattered, n_states=n_states),
        default=partial(sum_by_product, n_states=n_states),
    )


def sum_scattered(values: jax.Array, state: jax.Array, *, n_states: int) -> jax.Array:
    """Sums of values (row, column) by state (row,), one row after the other: (state, column).

    Rows of other states than 0 to ``n_states`` - 1 are left out.
    """
    return jax.ops.segment_sum(values, state, num_segments=n_states + 1)[:n_states]


def sum_by_product(values: jax.Array, state: jax.Array, *, n_states: int) -> jax.Array:
    """Sums as in :func:`sum_scattered`, by one matrix product in a fixed order of summation."""
    is_state = (state == jnp.arange(n_states)[:, None]).astype(values.dtype)
    return jnp.matmul(is_state, values, precision=jax.lax.Precision.HIGHEST)


def unpack(
    moments: np.ndarray, n_latent: int, lags: int
) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """Count, S_dd, S_rd, S_rr of every state, from (state, pair) moments in float64.

    Returns
    -------
    count : (state,)
    s_dd : (state, lag * latent + 1, lag * latent + 1)
    s_rd : (state, latent, lag * latent + 1)
    s_rr : (state, latent, latent)
    """
    n_features = n_latent * lags + 1 + n_latent
    rows, columns = feature_pairs(n_latent, lags)
    full = np.zeros((len(moments), n_features, n_features))
    full[:, rows, columns] = moments
    full[:, columns, rows] = moments
    d = n_latent * lags + 1
    return full[:, d - 1, d - 1], full[:, :d, :d], full[:, d:, :d], full[:, d:, d:]
