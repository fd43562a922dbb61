"""One tile of the AR stage: labels given the latent pose, and their statistics."""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from kpms_zarr.compute.kernels import rng
from kpms_zarr.compute.kernels.ar import feature_pairs, tile_moments
from kpms_zarr.compute.kernels.hmm import (
    HmmTables,
    filter_forward,
    holding,
    sample_backward,
    window,
)
from kpms_zarr.compute.kernels.pose import AnyArray
from kpms_zarr.compute.sampler.chain import Chain, Sized
from kpms_zarr.compute.sampler.segments import Task, Tile, TileShape
from kpms_zarr.compute.sampler.stream import gather_labels, gather_latent, neighbours, pad
from kpms_zarr.compute.sampler.tile_model import (
    Parameters,
    SweepAddress,
    SweepSums,
    TileDraw,
    tables_of,
)


class ArTables(NamedTuple):
    """Parameters as a tile takes them.

    Attributes
    ----------
    hmm : HmmTables
        Of the states that are drawn.
    weight_bias : (state, latent, lag * latent + 1)
    """

    hmm: HmmTables
    weight_bias: AnyArray


class ArInput(NamedTuple):
    """One tile as the host hands it over, segments first.

    Attributes
    ----------
    x : (segment, lag + frame, latent)
    z : (segment, frame) int32
        Labels as they are.
    left, right : (segment,) int32
        Labels around the segment; n_states = there is none.
    length : (segment,) int32
    words : (segment, 2) uint32
    first_frame : (segment,) int32
    """

    x: AnyArray
    z: AnyArray
    left: AnyArray
    right: AnyArray
    length: AnyArray
    words: AnyArray
    first_frame: AnyArray


@partial(jax.jit, static_argnames=("lags", "n_frames"))
def sample_tile(
    tables: HmmTables,
    weight_bias: jax.Array,
    x: jax.Array,
    z: jax.Array,
    left: jax.Array,
    right: jax.Array,
    length: jax.Array,
    words: jax.Array,
    first_frame: jax.Array,
    seed_words: jax.Array,
    sweep: jax.Array,
    *,
    lags: int,
    n_frames: int,
) -> tuple[jax.Array, jax.Array]:
    """Draw the labels of a tile and add up its moments.

    Parameters
    ----------
    x : (segment, lag + frame, latent)
    z : (segment, frame) int32
        Labels before.

    Returns
    -------
    z : (segment, frame) int16
    moments : (state, pair)
    """
    x = x.transpose(1, 2, 0)
    keys = rng.stream_keys(seed_words, sweep, rng.SYLLABLE, words)
    u = rng.frame_uniforms(keys, first_frame, n_frames, x.dtype)
    filtered = filter_forward(tables, window(x, lags), left)
    is_real = jnp.arange(n_frames)[:, None] < length
    z = holding(tables, z.T, sample_backward(tables, filtered, right, length, u), is_real)
    return z.astype(jnp.int16).T, tile_moments(x, z, is_real, weight_bias, lags)


@partial(jax.jit, static_argnames=("lags",))
def moments_of_tile(
    weight_bias: jax.Array, x: jax.Array, z: jax.Array, length: jax.Array, *, lags: int
) -> jax.Array:
    """Moments of a tile with given labels: x (segment, lag + frame, latent), z (segment, frame)."""
    is_real = jnp.arange(z.shape[1])[:, None] < length
    return tile_moments(x.transpose(1, 2, 0), z.T, is_real, weight_bias, lags)


def no_moments(chain: Sized, n_states: int) -> np.ndarray:
    """Moments of no frames: (state, pair)."""
    rows, _ = feature_pairs(chain.n_latent, chain.index.lags)
    return np.zeros((n_states, len(rows)))


@dataclass(frozen=True)
class ArModel:
    """Labels given the latent pose; see :class:`TileModel`."""

    states: np.ndarray | None = None
    terms: tuple[str, ...] = ()

    def tables(self, parameters: Parameters) -> ArTables:
        """See :class:`TileModel`."""
        return ArTables(tables_of(parameters, self.states), parameters.dynamics.weight_bias)

    def no_sums(self, chain: Sized, n_states: int) -> SweepSums:
        """See :class:`TileModel`."""
        return SweepSums(no_moments(chain, n_states))

    def read_ahead(self, chain: Chain, tile: Tile) -> None:
        """Do nothing: the latent pose is part of the state of the chain."""

    def gather(self, chain: Chain, tile: Tile, shape: TileShape, n_states: int) -> ArInput:
        """See :class:`TileModel`."""
        left, right = neighbours(chain, tile, n_states)
        return ArInput(
            gather_latent(chain, tile, shape),
            gather_labels(chain, tile, shape),
            pad(left, shape, n_states),
            pad(right, shape, n_states),
            pad(tile.length.astype(np.int32), shape, 0),
            pad(chain.index.words[tile.session], shape, 0),
            pad(tile.start.astype(np.int32), shape, 0),
        )

    def draw(
        self,
        chain: Chain,
        task: Task,
        inputs: ArInput,
        tables: Any,
        device_tables: ArTables,
        address: SweepAddress,
    ) -> TileDraw:
        """See :class:`TileModel`."""
        lags = chain.index.lags
        z, moments = jax.block_until_ready(
            sample_tile(
                *device_tables, *inputs, address.seed_words, np.int32(address.number),
                lags=lags, n_frames=inputs.x.shape[1] - lags,
            )
        )  # fmt: skip
        return TileDraw(z, None, SweepSums(np.asarray(moments, np.float64)))
