"""Random numbers addressed by (seed, sweep, conditional, session, frame, number) (model.md 4)."""

from __future__ import annotations

import math

import jax
import jax.numpy as jnp
import numpy as np

SYLLABLE = 0
"""Conditionals: each has its own stream; a number is never used for two of them."""
SEGMENT_OFFSET = 1
TRANSITION = 2
DYNAMICS = 3
KMEANS = 4
LATENT = 5
HEADING = 6
CENTROID = 7
NOISE_SCALE = 8
NOISE_VARIANCE = 9

_ROTATIONS = ((13, 15, 26, 6), (17, 29, 16, 24))
_PARITY = np.uint32(0x1BD11BDA)


def session_words(name: str) -> tuple[int, int]:
    """Two 32-bit words that identify a session wherever it lies in a store (FNV-1a, 64 bit)."""
    value = 0xCBF29CE484222325
    for byte in name.encode():
        value = ((value ^ byte) * 0x100000001B3) % 2**64
    return value >> 32, value & 0xFFFFFFFF


def host_generator(seed: int, sweep: int, conditional: int) -> np.random.Generator:
    """Generator for a draw on the host (float64)."""
    return np.random.Generator(np.random.Philox(np.random.SeedSequence([seed, sweep, conditional])))


def threefry(
    key: tuple[jax.Array, jax.Array], counter: tuple[jax.Array, jax.Array]
) -> tuple[jax.Array, jax.Array]:
    """Threefry-2x32 with 20 rounds (Salmon et al., SC 2011), element by element.

    The same bits as JAX's own; unrolled, so that XLA fuses it with what uses the numbers, which
    on a CPU is six times as fast.

    Parameters
    ----------
    key, counter : pairs of uint32 arrays
        All broadcast against each other.
    """
    words = (key[0], key[1], key[0] ^ key[1] ^ _PARITY)
    a, b = counter[0] + words[0], counter[1] + words[1]
    for i in range(5):
        for r in _ROTATIONS[i % 2]:
            a = a + b
            b = ((b << np.uint32(r)) | (b >> np.uint32(32 - r))) ^ a
        a = a + words[(i + 1) % 3]
        b = b + words[(i + 2) % 3] + np.uint32(i + 1)
    return a, b


def stream_keys(
    seed_words: jax.Array, sweep: jax.Array, conditional: int, words: jax.Array
) -> tuple[jax.Array, jax.Array]:
    """Key of one conditional of one sweep for each segment.

    Parameters
    ----------
    seed_words : (2,) uint32
    sweep : () int
    words : (segment, 2) uint32
        From :func:`session_words`.

    Returns
    -------
    pair of (segment,) uint32
    """
    seed = (seed_words[0], seed_words[1])
    step = threefry(seed, (jnp.asarray(sweep, jnp.uint32), jnp.asarray(conditional, jnp.uint32)))
    return threefry(step, (words[:, 0], words[:, 1]))


def frame_bits(
    keys: tuple[jax.Array, jax.Array],
    first_frame: jax.Array,
    n_frames: int,
    n_numbers: int,
    *,
    first_number: int | jax.Array = 0,
) -> jax.Array:
    """Random words for each frame of each segment.

    Parameters
    ----------
    keys : pair of (segment,) uint32
        From :func:`stream_keys`.
    first_frame : (segment,) int32
        Frame of the session at which the segment begins.
    n_numbers : int
        Words per frame.
    first_number : int
        Even; further words of the same stream.

    Returns
    -------
    (n_numbers, n_frames, segment) uint32
        The numbers of a frame depend on the key, the frame and their position only.
    """
    return jnp.stack(frame_words(keys, first_frame, n_frames, n_numbers, first_number=first_number))


def frame_words(
    keys: tuple[jax.Array, jax.Array],
    first_frame: jax.Array,
    n_frames: int,
    n_numbers: int,
    *,
    first_number: int | jax.Array = 0,
) -> list[jax.Array]:
    """The words of :func:`frame_bits`, each (n_frames, segment), to be used one by one.

    What is made of them is then one pass over the frames, without storing the words.
    """
    frames = first_frame.astype(jnp.uint32) + jnp.arange(n_frames, dtype=jnp.uint32)[:, None]
    first_pair = jnp.asarray(first_number, jnp.uint32) // 2
    words: list[jax.Array] = []
    for pair in range(-(-n_numbers // 2)):
        words += threefry(keys, (frames, first_pair + np.uint32(pair)))
    return words[:n_numbers]


def uniform(bits: jax.Array, dtype: jnp.dtype) -> jax.Array:
    """Numbers in (0, 1] from random words.

    24 bits: every value is exact in float32, and 0 cannot occur (its logarithm is infinite, and
    it could pick a state of probability 0 by inverse CDF).
    """
    # Signed: processors turn those into floating point several at a time.
    return ((bits >> 8) + 1).astype(jnp.int32).astype(dtype) * jnp.asarray(2.0**-24, dtype)


def fine_uniform(bits: jax.Array, dtype: jnp.dtype) -> jax.Array:
    """Numbers in (0, 1] from 31 bits: close to 0 they lie as dense as float32 does."""
    whole = jnp.maximum((bits >> 1).astype(jnp.int32), 1)
    return whole.astype(dtype) * jnp.asarray(2.0**-31, dtype)


def cos_of_turns(u: jax.Array) -> jax.Array:
    """Series of cos(2 pi u) for u in [0, 1], to rounding: a library would reduce ranges first."""
    square = jnp.square(jnp.asarray(np.pi, u.dtype) * (u - 0.5))
    half = _series(square, [(-1) ** k / math.factorial(2 * k) for k in range(_n_terms(u.dtype))])
    return 1 - 2 * jnp.square(half)


def sin_of_turns(u: jax.Array) -> jax.Array:
    """Series of sin(2 pi u) for u in [0, 1], likewise."""
    angle = jnp.asarray(np.pi, u.dtype) * (u - 0.5)
    square = jnp.square(angle)
    n = _n_terms(u.dtype)
    cos = _series(square, [(-1) ** k / math.factorial(2 * k) for k in range(n)])
    sin = angle * _series(square, [(-1) ** k / math.factorial(2 * k + 1) for k in range(n)])
    return -2 * sin * cos


def sin_of_right_angle(angle: jax.Array) -> jax.Array:
    """Series of sin for angles between -pi/2 and pi/2, likewise."""
    n = _n_terms(angle.dtype)
    terms = [(-1) ** k / math.factorial(2 * k + 1) for k in range(n)]
    return angle * _series(jnp.square(angle), terms)


def _n_terms(dtype: jnp.dtype) -> int:
    """Terms of a series about 0 that reach rounding at pi/2."""
    return 8 if dtype == jnp.float32 else 13


def _series(square: jax.Array, terms: list[float]) -> jax.Array:
    total = jnp.full_like(square, terms[-1])
    for term in reversed(terms[:-1]):
        total = total * square + term
    return total


def one_normal(first: jax.Array, second: jax.Array, dtype: jnp.dtype) -> jax.Array:
    """One standard normal number from two words: the first of the two of :func:`normal`."""
    radius = jnp.sqrt(-2 * jnp.log(fine_uniform(first, dtype)))
    return radius * cos_of_turns(uniform(second, dtype))


def normal(bits: jax.Array, dtype: jnp.dtype) -> jax.Array:
    """Standard normal numbers by Box and Muller's transform.

    Parameters
    ----------
    bits : (2 n, ...) uint32

    Returns
    -------
    (2 n, ...)
        At most 6.56 in size, as 31 bits allow.
    """
    n = bits.shape[0] // 2
    radius = jnp.sqrt(-2 * jnp.log(fine_uniform(bits[:n], dtype)))
    turns = uniform(bits[n:], dtype)
    return jnp.concatenate([radius * cos_of_turns(turns), radius * sin_of_turns(turns)])


def even(n: int) -> int:
    """The next even number: normal numbers come in pairs."""
    return n + n % 2


def frame_uniforms(
    keys: tuple[jax.Array, jax.Array], first_frame: jax.Array, n_frames: int, dtype: jnp.dtype
) -> jax.Array:
    """One uniform number in (0, 1] for each frame of each segment: (n_frames, segment)."""
    return uniform(frame_bits(keys, first_frame, n_frames, 1)[0], dtype)


def frame_normals(
    keys: tuple[jax.Array, jax.Array],
    first_frame: jax.Array,
    n_frames: int,
    n_numbers: int,
    dtype: jnp.dtype,
) -> jax.Array:
    """Standard normal numbers for each frame of each segment: (n_numbers, n_frames, segment)."""
    bits = frame_bits(keys, first_frame, n_frames, even(n_numbers))
    return normal(bits, dtype)[:n_numbers]
