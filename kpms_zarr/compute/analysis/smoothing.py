"""Best path through votes: labels that change where it pays, at one price for every change."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import jax
import jax.numpy as jnp
import numpy as np

BLOCK_FRAMES = 16_384
"""Frames of one call of what is compiled."""
FLOOR = 0.02
"""What a syllable without votes counts for, shared by all of them."""
_MOST_PRICE = 12.0
_STEPS = 9


def scores_of(share: np.ndarray) -> np.ndarray:
    """Score of each syllable in each frame, log of its share of votes: (frame, syllable)."""
    return np.log(np.maximum(share, FLOOR / max(1, share.shape[1]))).astype(np.float32)


def best_path(blocks: Iterator[np.ndarray], price: float) -> np.ndarray:
    """Labels of a session with the largest sum of scores, less a price for each change.

    Exact (Viterbi 1967). Because every change costs the same, a frame keeps one best syllable to
    come from and one bit for each syllable that rather stays: that is all that is held of what has
    been read.

    Parameters
    ----------
    blocks : iterator of ndarray, (frame, syllable) float32
        Scores, of :data:`BLOCK_FRAMES` frames each but the last.
    price : float

    Returns
    -------
    ndarray, (frame,) int16
    """
    value, kept = None, []
    for score in blocks:
        n = len(score)
        padded = np.zeros((BLOCK_FRAMES, score.shape[1]), np.float32)
        padded[:n] = score
        if value is None:
            value = jnp.zeros(score.shape[1], jnp.float32)
        value, top, stays = _forward(value, padded, np.float32(price), np.int32(n))
        kept.append((np.asarray(top, np.int16)[:n], np.packbits(np.asarray(stays)[:n], axis=1), n))
    if value is None:
        return np.zeros(0, np.int16)
    label, parts = jnp.argmax(value).astype(jnp.int32), []
    for top, packed, n in reversed(kept):
        came = np.zeros((BLOCK_FRAMES, len(value)), bool)
        came[:n] = np.unpackbits(packed, axis=1, count=len(value)).astype(bool)
        padded_top = np.zeros(BLOCK_FRAMES, np.int32)
        padded_top[:n] = top
        label, found = _backward(label, came, padded_top, np.int32(n))
        parts.append(np.asarray(found, np.int16)[:n])
    return np.concatenate(parts[::-1])


@jax.jit
def _forward(
    value: jax.Array, score: jax.Array, price: jax.Array, n: jax.Array
) -> tuple[jax.Array, jax.Array, jax.Array]:
    def step(
        value: jax.Array, inputs: tuple[jax.Array, jax.Array]
    ) -> tuple[jax.Array, tuple[jax.Array, jax.Array]]:
        row, t = inputs
        top = jnp.argmax(value)
        most = value[top] - price
        stays = value >= most
        new = jnp.maximum(value, most) + row
        new = new - jnp.max(new)  # so that float32 keeps the differences
        return jnp.where(t < n, new, value), (top, stays)

    value, (top, stays) = jax.lax.scan(step, value, (score, jnp.arange(len(score))))
    return value, top, stays


@jax.jit
def _backward(
    label: jax.Array, stays: jax.Array, top: jax.Array, n: jax.Array
) -> tuple[jax.Array, jax.Array]:
    """Labels of a block; returns also that of the frame before it."""

    def step(
        label: jax.Array, inputs: tuple[jax.Array, jax.Array, jax.Array]
    ) -> tuple[jax.Array, jax.Array]:
        stays, top, t = inputs
        before = jnp.where(stays[label], label, top.astype(label.dtype))
        return jnp.where(t < n, before, label), label

    inputs = (stays, top, jnp.arange(len(top)))
    label, found = jax.lax.scan(step, label, inputs, reverse=True)
    return label, found


def price_for(median_bout: Callable[[float], float], target: float) -> float:
    """Find the lowest price at which bouts are as long as asked for, by bisection.

    Parameters
    ----------
    median_bout : callable
        Price -> median bout.
    target : float
        In the same unit.
    """
    low, high = 0.0, _MOST_PRICE
    if median_bout(low) >= target:
        return low
    for _ in range(_STEPS):
        price = (low + high) / 2
        low, high = (price, high) if median_bout(price) < target else (low, price)
    return high
