"""Random numbers addressed by (seed, sweep, conditional, session, frame)."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np

SYLLABLE = 0
"""Conditionals: each has its own stream; a number is never used for two of them."""
SEGMENT_OFFSET = 1
TRANSITION = 2
DYNAMICS = 3
KMEANS = 4


def session_words(name: str) -> tuple[int, int]:
    """Two 32-bit words that identify a session wherever it lies in a store (FNV-1a, 64 bit)."""
    value = 0xCBF29CE484222325
    for byte in name.encode():
        value = ((value ^ byte) * 0x100000001B3) % 2**64
    return value >> 32, value & 0xFFFFFFFF


def host_generator(seed: int, sweep: int, conditional: int) -> np.random.Generator:
    """Generator for a draw on the host (float64)."""
    return np.random.Generator(np.random.Philox(np.random.SeedSequence([seed, sweep, conditional])))


def frame_uniforms(
    seed_words: jax.Array,
    sweep: jax.Array,
    conditional: int,
    words: jax.Array,
    first_frame: jax.Array,
    n_frames: int,
    dtype: jnp.dtype,
) -> jax.Array:
    """One uniform number in (0, 1] for each frame of each segment.

    Parameters
    ----------
    seed_words : (2,) uint32
    sweep : () int
    conditional : int
    words : (segment, 2) uint32
        From :func:`session_words`.
    first_frame : (segment,) int32
        Frame of the session at which the segment begins.
    n_frames : int
    dtype : dtype

    Returns
    -------
    (n_frames, segment)
        The number of a frame depends on seed, sweep, conditional, session and frame only.
    """
    key = jax.random.wrap_key_data(seed_words, impl="threefry2x32")
    key = jax.random.fold_in(jax.random.fold_in(key, sweep), conditional)

    def one(word: jax.Array, frame: jax.Array) -> jax.Array:
        lane = jax.random.fold_in(jax.random.fold_in(key, word[0]), word[1])
        frames = frame + jnp.arange(n_frames, dtype=jnp.int32)
        keys = jax.vmap(lambda f: jax.random.fold_in(lane, f))(frames)
        return jax.vmap(lambda k: jax.random.bits(k, (), jnp.uint32))(keys)

    bits = jax.vmap(one, out_axes=1)(words, first_frame)
    # 24 bits: every value is exact in float32, and 0 cannot occur (it could pick a state of
    # probability 0 by inverse CDF).
    return ((bits >> 8) + 1).astype(dtype) * jnp.asarray(2.0**-24, dtype)
