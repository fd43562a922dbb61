"""One tile of the full stage on the device: z, x, h, v and s in turn, and their statistics."""

from __future__ import annotations

from functools import partial
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from kpms_zarr.compute.kernels import rng
from kpms_zarr.compute.kernels.ar import tile_moments
from kpms_zarr.compute.kernels.centroid import centroid_evidence, draw_centroid
from kpms_zarr.compute.kernels.heading import draw_heading, heading_evidence
from kpms_zarr.compute.kernels.hmm import (
    HmmTables,
    filter_forward,
    holding,
    sample_backward,
    window,
)
from kpms_zarr.compute.kernels.latent import eliminate_forward, factor_table, substitute_backward
from kpms_zarr.compute.kernels.noise import draw_noise_scale, log_density_noise_scale
from kpms_zarr.compute.kernels.pose import AnyArray, PoseMap, latent_evidence, pose_of, rotate


class FullTables(NamedTuple):
    """Parameters as a tile takes them.

    Attributes
    ----------
    hmm : HmmTables
        Of all states.
    drawn : HmmTables
        Of the states that are drawn.
    weight_bias : (state, latent, lag * latent + 1)
    noise_variance : (keypoint,)
        sigma2.
    step_variance : ()
        sigma2_loc.
    """

    hmm: HmmTables
    drawn: HmmTables
    weight_bias: AnyArray
    pose: PoseMap
    noise_variance: AnyArray
    step_variance: AnyArray


class FixedSettings(NamedTuple):
    """Settings that are compiled into a tile.

    Attributes
    ----------
    noise_dof : int
        nu of the noise scales.
    latent_variance, centroid_variance : float
        Priors of the first frames of a session.
    fix_heading : bool
        Heading 0 in all frames.
    holds_labels : bool
        Labels stay as they are; all else is drawn given them.
    """

    noise_dof: int
    latent_variance: float
    centroid_variance: float
    fix_heading: bool
    holds_labels: bool = False


class TileInput(NamedTuple):
    """One tile as the host hands it over: (segment, frame, ...), segments first.

    Attributes
    ----------
    local : (segment, lag + frame + lag, feature)
        Latent, centroid, heading, noise scales.
    observed : (segment, lag + frame, keypoint * space + keypoint) float32
        Positions (NaN = missing) and prior scales.
    z : (segment, frame + lag) int32
        Labels of the segment and the ``lag`` frames after it; n_states = no frame.
    left : (segment,) int32
        Label before the segment; n_states = the segment begins its session.
    length, first_frame : (segment,) int32
    words : (segment, 2) uint32
    """

    local: AnyArray
    observed: AnyArray
    z: AnyArray
    left: AnyArray
    length: AnyArray
    first_frame: AnyArray
    words: AnyArray


class TileOutput(NamedTuple):
    """Results of a tile.

    Attributes
    ----------
    z : (segment, frame) int16
    local : (segment, lag + frame, feature)
    moments : (state, pair)
    position, noise_scale, centroid, latent : (segment,)
        Log probabilities; ``latent`` of the first frames of a session only.
    square, n_observed : (keypoint,)
        Sum of |e|^2 / s and number of frames in which the keypoint is observed.
    relative_pivot : (segment,)
        See :class:`kernels.latent.Elimination`.
    first_bad : (segment,) int32
        First row of ``local`` that is not finite; its number of rows when all are.
    """

    z: jax.Array
    local: jax.Array
    moments: jax.Array
    position: jax.Array
    noise_scale: jax.Array
    centroid: jax.Array
    latent: jax.Array
    square: jax.Array
    n_observed: jax.Array
    relative_pivot: jax.Array
    first_bad: jax.Array


class _Frames(NamedTuple):
    """Masks of the frames of a tile, (lag + frame, segment) bool, and the labels around."""

    is_drawn: jax.Array
    is_start: jax.Array
    has_next: jax.Array
    exists_after: jax.Array
    first: jax.Array


@partial(jax.jit, static_argnames=("settings", "lags"))
def sample_full_tile(
    tables: FullTables,
    tile: TileInput,
    seed_words: jax.Array,
    sweep: jax.Array,
    is_last_pass: jax.Array,
    *,
    settings: FixedSettings,
    lags: int,
) -> TileOutput:
    """Draw every local variable of a tile, each given all the others (model.md 3, 3.8).

    Sums that reach over the borders of segments (dynamics, steps of the centroid) are taken in
    the pass in which both sides have their new values: by the even segments of what lies inside
    them, by the odd ones also of what links them to their neighbours.

    Parameters
    ----------
    seed_words : (2,) uint32
    sweep : () int32
    is_last_pass : () bool
        Whether these are the odd segments.
    """
    n_keypoints, n_space, n_latent = tables.pose.loading.shape
    dtype = tables.pose.loading.dtype
    n_frames = tile.z.shape[1] - lags
    n_rows = lags + n_frames
    frames = _frames(tile, lags, tables.hmm.log_norm.shape[0])
    x = tile.local[..., :n_latent].transpose(1, 2, 0)
    z = tile.z.T
    if not settings.holds_labels:
        keys = _keys(seed_words, sweep, rng.SYLLABLE, tile)
        u = rng.frame_uniforms(keys, tile.first_frame, n_frames, dtype)
        z = _draw_states(tables.drawn, x[:n_rows], tile, u, lags)

    # The barriers keep the compiler from preparing one block while another needs the memory.
    z, seed_words, tile = jax.lax.optimization_barrier((z, seed_words, tile))
    v, h, s = jnp.split(tile.local[..., n_latent:].transpose(2, 1, 0), [n_space, n_space + 1])
    h, s = h[0, :n_rows], s[:, :n_rows]
    y, prior, is_missing = _observations(tile, frames, n_keypoints, dtype)
    variance = tables.noise_variance[:, None, None]
    weight = jnp.where(is_missing, 0, 1 / jnp.where(is_missing, 1, s * variance))
    keys = _keys(seed_words, sweep, rng.LATENT, tile)
    x, relative_pivot = _draw_latent(tables, x, z, (y, weight, v, h), frames, keys, settings)

    x, seed_words = jax.lax.optimization_barrier((x, seed_words))
    pose = pose_of(tables.pose, x[:n_rows].transpose(1, 0, 2))
    if not settings.fix_heading:
        keys = _keys(seed_words, sweep, rng.HEADING, tile)
        a, b = heading_evidence(weight, pose, y - v[:, :n_rows])
        drawn = draw_heading(a, b, keys, frames.first, frames.is_drawn)
        h = jnp.where(frames.is_drawn, drawn, h)
    placed = rotate(pose, h)

    h, seed_words = jax.lax.optimization_barrier((h, seed_words))
    keys = _keys(seed_words, sweep, rng.CENTROID, tile)
    v = _draw_centroid(tables, v, y - placed, weight, frames, keys, settings)

    v, seed_words = jax.lax.optimization_barrier((v, seed_words))
    square = jnp.sum(jnp.square(y - placed - v[:, :n_rows]), 1)
    keys = _keys(seed_words, sweep, rng.NOISE_SCALE, tile)
    s_new = draw_noise_scale(
        square, prior, is_missing, tables.noise_variance, keys, frames.first,
        dof=settings.noise_dof, n_space=n_space,
    )  # fmt: skip
    s = jnp.where(frames.is_drawn, s_new, s)
    new = jnp.concatenate([x[:n_rows].transpose(1, 0, 2), v[:, :n_rows], h[None], s])
    return TileOutput(
        z[:n_frames].astype(jnp.int16).T,
        new.transpose(2, 1, 0),
        _moments(tables, x, z, tile, frames, is_last_pass, lags),
        *_log_probabilities(tables, x, v, s, square, prior, is_missing, frames, is_last_pass,
                            settings),
        *_noise_sums(square, s, is_missing),
        jnp.min(jnp.where(frames.is_drawn, relative_pivot, 1), axis=0),
        _first_bad(new, frames.is_drawn),
    )  # fmt: skip


def _keys(
    seed_words: jax.Array, sweep: jax.Array, conditional: int, tile: TileInput
) -> tuple[jax.Array, jax.Array]:
    return rng.stream_keys(seed_words, sweep, conditional, tile.words)


def _observations(
    tile: TileInput, frames: _Frames, n_keypoints: int, dtype: jnp.dtype
) -> tuple[jax.Array, jax.Array, jax.Array]:
    """Positions (0 where missing), prior scales, and a mask of what is missing or outside."""
    observed = tile.observed.transpose(2, 1, 0).astype(dtype)
    y, prior = observed[:-n_keypoints], observed[-n_keypoints:]
    y = y.reshape(n_keypoints, -1, *y.shape[1:])
    is_missing = jnp.isnan(y).any(1) | ~frames.is_drawn
    y = jnp.where(is_missing[:, None], 0, y)
    return y, jnp.where(frames.is_drawn, prior, 1), is_missing


def _frames(tile: TileInput, lags: int, n_states: int) -> _Frames:
    n_rows = tile.observed.shape[1]
    row = jnp.arange(n_rows)[:, None]
    is_start = tile.left == n_states
    end = lags + tile.length
    is_drawn = ((row >= lags) | is_start) & (row < end) & (tile.length > 0)
    # z holds the labels of the frames after the segment right behind those of the segment.
    has_right = jnp.take_along_axis(tile.z.T, tile.length[None], axis=0)[0] < n_states
    has_next = (row + 1 < end) | has_right
    around = tile.z.T
    after = jnp.arange(len(around))[:, None] >= tile.length
    return _Frames(
        is_drawn, is_start, has_next, after & (around < n_states), tile.first_frame - lags
    )


def _draw_states(
    hmm: HmmTables, x: jax.Array, tile: TileInput, u: jax.Array, lags: int
) -> jax.Array:
    """Labels of the segment and of the frames after it: (frame + lag, segment)."""
    n_frames = u.shape[0]
    around = tile.z.T
    right = jnp.take_along_axis(around, tile.length[None], axis=0)[0]
    filtered = filter_forward(hmm, window(x, lags), tile.left)
    z = sample_backward(hmm, filtered, right, tile.length, u)
    own = jnp.arange(n_frames)[:, None] < tile.length
    z = jnp.where(own, holding(hmm, around[:n_frames], z, own), around[:n_frames])
    return jnp.concatenate([z, around[n_frames:]])


def _draw_latent(
    tables: FullTables,
    x: jax.Array,
    z: jax.Array,
    conditions: tuple[jax.Array, jax.Array, jax.Array, jax.Array],
    frames: _Frames,
    keys: tuple[jax.Array, jax.Array],
    settings: FixedSettings,
) -> tuple[jax.Array, jax.Array]:
    y, weight, v, h = conditions
    n_rows = y.shape[2]
    j, g = latent_evidence(tables.pose, weight, y - v[:, :n_rows], h)
    noise = rng.frame_normals(keys, frames.first, n_rows, x.shape[1], x.dtype)
    elimination = eliminate_forward(
        factor_table(tables.hmm), z, j, g, x, frames.is_drawn, settings.latent_variance
    )
    drawn = substitute_backward(elimination, x, frames.is_drawn, noise)
    return jnp.concatenate([drawn, x[n_rows:]]), elimination.relative_pivot


def _draw_centroid(
    tables: FullTables,
    v: jax.Array,
    residual: jax.Array,
    weight: jax.Array,
    frames: _Frames,
    keys: tuple[jax.Array, jax.Array],
    settings: FixedSettings,
) -> jax.Array:
    n_rows = residual.shape[2]
    n_space = v.shape[0]
    lam, mu = centroid_evidence(weight, residual)
    noise = rng.frame_normals(keys, frames.first, n_rows, n_space, v.dtype)
    drawn = draw_centroid(
        lam, mu, v[:, : n_rows + 1].transpose(1, 0, 2), frames.is_drawn, frames.has_next, noise,
        step_variance=tables.step_variance, initial_variance=settings.centroid_variance,
    )  # fmt: skip
    return jnp.concatenate([drawn.transpose(1, 0, 2), v[:, n_rows:]], 1)


def _moments(
    tables: FullTables,
    x: jax.Array,
    z: jax.Array,
    tile: TileInput,
    frames: _Frames,
    is_last_pass: jax.Array,
    lags: int,
) -> jax.Array:
    row = jnp.arange(z.shape[0])[:, None]
    own = row < tile.length
    inside = own & ((row >= lags) | frames.is_start)
    is_counted = jnp.where(is_last_pass, own | frames.exists_after, inside)
    return tile_moments(x, z, is_counted, tables.weight_bias, lags)


def _log_probabilities(
    tables: FullTables,
    x: jax.Array,
    v: jax.Array,
    s: jax.Array,
    square: jax.Array,
    prior: jax.Array,
    is_missing: jax.Array,
    frames: _Frames,
    is_last_pass: jax.Array,
    settings: FixedSettings,
) -> tuple[jax.Array, jax.Array, jax.Array, jax.Array]:
    """Log probabilities of positions, noise scales, centroids and first latents, by segment."""
    n_space, n_latent = v.shape[0], x.shape[1]
    n_rows = square.shape[1]
    lags = x.shape[0] - n_rows
    variance = s * tables.noise_variance[:, None, None]
    of_position = -0.5 * (n_space * jnp.log(2 * np.pi * variance) + square / variance)
    of_scale = log_density_noise_scale(s, prior, settings.noise_dof)
    step = jnp.sum(jnp.square(jnp.diff(v[:, : n_rows + 1], axis=1)), 0)
    of_step = -0.5 * (
        n_space * jnp.log(2 * np.pi * tables.step_variance) + step / tables.step_variance
    )
    drawn = jnp.concatenate([frames.is_drawn, jnp.zeros_like(frames.is_drawn[:1])])
    both = drawn[1:] & drawn[:-1]
    border = (drawn[1:] & ~drawn[:-1]) | (drawn[:-1] & ~drawn[1:] & frames.has_next)
    is_counted = both | (border & is_last_pass)
    begins = frames.is_start & drawn[0]
    of_first = -0.5 * (
        n_space * np.log(2 * np.pi * settings.centroid_variance)
        + jnp.sum(jnp.square(v[:, 0]), 0) / settings.centroid_variance
    )
    first_x = jnp.sum(jnp.square(x[:lags]), (0, 1))
    of_first_x = -0.5 * (
        lags * n_latent * np.log(2 * np.pi * settings.latent_variance)
        + first_x / settings.latent_variance
    )
    return (
        jnp.sum(jnp.where(is_missing, 0, of_position), (0, 1)),
        jnp.sum(jnp.where(is_missing, 0, of_scale), (0, 1)),
        jnp.sum(jnp.where(is_counted, of_step, 0), 0) + jnp.where(begins, of_first, 0),
        jnp.where(begins, of_first_x, 0),
    )


def _noise_sums(
    square: jax.Array, s: jax.Array, is_missing: jax.Array
) -> tuple[jax.Array, jax.Array]:
    ratio = jnp.sum(jnp.where(is_missing, 0, square / s), (1, 2))
    return ratio, jnp.sum(~is_missing, (1, 2), dtype=jnp.int32)


def _first_bad(new: jax.Array, is_drawn: jax.Array) -> jax.Array:
    is_bad = ~jnp.isfinite(new).all(0) & is_drawn
    return jnp.where(is_bad.any(0), is_bad.argmax(0), is_drawn.shape[0]).astype(jnp.int32)
