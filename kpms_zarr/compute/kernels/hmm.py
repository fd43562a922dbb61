"""Syllables of segments: forward filter, backward sample (model.md 3.1, 3.8)."""

from __future__ import annotations

from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

_HIGHEST = jax.lax.Precision.HIGHEST
TRANSITION_FLOOR = 1e-30
"""Smallest transition probability on the device: no filtered vector can sum to zero."""


_FUSED_FROM = 80
"""States from which on XLA keeps running sums by itself on a CPU; of 32 to 64 it is ten times as
slow without a barrier (`benchmarks/sweep_speed.py`)."""


class HmmTables(NamedTuple):
    """Parameters as the syllable kernel takes them: of all states, or of those that are drawn.

    Attributes
    ----------
    whiten : (latent * drawn, (lag + 1) * latent)
        F_i [-A_i, I], rows latent-major; F_i = inv(chol(Q_i)), so that F_i' F_i = inv(Q_i).
    shift : (latent * drawn, 1)
        F_i b_i.
    log_norm : (drawn, 1)
        log det F_i - M/2 log 2 pi.
    into : (drawn, state + 1)
        Column j = pi[j, :]; the last column is uniform: no left neighbour.
    out_of : (drawn, state + 1)
        Column j = pi[:, j]; the last column is 1: no right neighbour.
    state : (drawn,) int32
        Which states these are, increasing.
    """

    whiten: jax.Array | np.ndarray
    shift: jax.Array | np.ndarray
    log_norm: jax.Array | np.ndarray
    into: jax.Array | np.ndarray
    out_of: jax.Array | np.ndarray
    state: jax.Array | np.ndarray

    @property
    def are_all(self) -> bool:
        """Whether these are all states."""
        return len(self.into) == self.into.shape[1] - 1

    def of(self, states: np.ndarray) -> HmmTables:
        """Tables of some of the states, (drawn,) int increasing, from those of all, on the host."""
        n_states = len(self.state)

        def some(values: jax.Array | np.ndarray) -> np.ndarray:
            by_state = np.asarray(values).reshape(-1, n_states, values.shape[-1])[:, states]
            return by_state.reshape(-1, values.shape[-1])

        return HmmTables(
            some(self.whiten), some(self.shift), some(self.log_norm), some(self.into),
            some(self.out_of), np.asarray(states, np.int32),
        )  # fmt: skip


def hmm_tables(
    weight: np.ndarray, bias: np.ndarray, covariance: np.ndarray, transition: np.ndarray
) -> HmmTables:
    """Tables of the kernel, in float64 on the host.

    Parameters
    ----------
    weight : (state, latent, lag * latent)
        Oldest lag first.
    bias : (state, latent)
    covariance : (state, latent, latent)
    transition : (state, state)
    """
    n_states, m, _ = weight.shape
    factor = np.linalg.inv(np.linalg.cholesky(covariance))
    whiten = np.concatenate([-factor @ weight, factor], -1)
    shift = np.einsum("nij,nj->ni", factor, bias)
    log_norm = np.log(np.diagonal(factor, axis1=1, axis2=2)).sum(-1) - m / 2 * np.log(2 * np.pi)
    floored = np.maximum(transition, TRANSITION_FLOOR)
    floored = floored / floored.sum(-1, keepdims=True)
    return HmmTables(
        whiten.transpose(1, 0, 2).reshape(m * n_states, -1),
        shift.T.reshape(-1, 1),
        log_norm[:, None],
        np.concatenate([floored.T, np.full((n_states, 1), 1 / n_states)], 1),
        np.concatenate([floored, np.ones((n_states, 1))], 1),
        np.arange(n_states, dtype=np.int32),
    )


def window(x: jax.Array, lags: int) -> jax.Array:
    """Stack lags and present: (frame + lag, latent, segment) -> (frame, (lag + 1) latent, ...)."""
    n_frames = x.shape[0] - lags
    return jnp.concatenate([x[i : i + n_frames] for i in range(lags + 1)], axis=1)


def log_likelihood_of_states(tables: HmmTables, w: jax.Array) -> jax.Array:
    """Log likelihood of the states at one frame.

    Parameters
    ----------
    w : ((lag + 1) latent, segment)

    Returns
    -------
    (state, segment)
    """
    n_states = tables.log_norm.shape[0]
    n_latent = tables.shift.shape[0] // n_states
    r = jnp.matmul(tables.whiten, w, precision=_HIGHEST) - tables.shift
    square = jnp.sum((r * r).reshape(n_latent, n_states, -1), axis=0)
    return jnp.asarray(tables.log_norm) - 0.5 * square


def scaled_likelihood(tables: HmmTables, w: jax.Array) -> jax.Array:
    """Likelihood of the states at one frame, the largest 1.

    Parameters
    ----------
    w : ((lag + 1) latent, segment)

    Returns
    -------
    (state, segment)
    """
    log_likelihood = log_likelihood_of_states(tables, w)
    return jnp.exp(log_likelihood - jnp.max(log_likelihood, axis=0))


def filter_forward(tables: HmmTables, windows: jax.Array, left: jax.Array) -> jax.Array:
    """Filtered state probabilities p(z_t | x_0..x_t, z_left, every z one of those drawn).

    The likelihood of a frame is one matrix product inside the scan, so the (frame, state)
    likelihoods of a tile never exist.

    Parameters
    ----------
    windows : (frame, (lag + 1) latent, segment)
    left : (segment,) int32
        State of the frame before the segment; n_states = none (uniform).

    Returns
    -------
    (frame, drawn, segment)
    """
    into = jnp.asarray(tables.into)
    step_matrix = into[:, :-1] if tables.are_all else into[:, tables.state]

    def step(predicted: jax.Array, w: jax.Array) -> tuple[jax.Array, jax.Array]:
        joint = predicted * scaled_likelihood(tables, w)
        filtered = joint / jnp.sum(joint, axis=0)
        return jnp.matmul(step_matrix, filtered, precision=_HIGHEST), filtered

    return jax.lax.scan(step, into[:, left], windows)[1]


def sample_backward(
    tables: HmmTables, filtered: jax.Array, right: jax.Array, length: jax.Array, u: jax.Array
) -> jax.Array:
    """One draw of the states of each segment given its filtered probabilities.

    Parameters
    ----------
    filtered : (frame, drawn, segment)
    right : (segment,) int32
        State of the frame after the segment; n_states = none.
    length : (segment,) int32
        Real frames of the segment; beyond it the result repeats ``right``.
    u : (frame, segment)
        Uniform numbers in (0, 1].

    Returns
    -------
    (frame, segment) int32
    """

    n_segments = len(right)
    out_of = jnp.asarray(tables.out_of)
    # Columns: the states that are drawn, then what is on the right of each segment.
    before = jnp.concatenate([out_of[:, tables.state], out_of[:, right]], axis=1)
    none = out_of.shape[0] + jnp.arange(n_segments, dtype=jnp.int32)

    def step(
        following: jax.Array, inputs: tuple[jax.Array, jax.Array, jax.Array]
    ) -> tuple[jax.Array, jax.Array]:
        probability, number, t = inputs
        weight = probability * before[:, following]
        drawn = jnp.where(t < length, inverse_cdf(weight, number), following)
        return drawn, drawn

    frames = jnp.arange(filtered.shape[0], dtype=jnp.int32)
    drawn = jax.lax.scan(step, none, (filtered, u, frames), reverse=True)[1]
    return jnp.where(frames[:, None] < length, jnp.asarray(tables.state)[drawn], right)


def holding(tables: HmmTables, before: jax.Array, drawn: jax.Array, is_own: jax.Array) -> jax.Array:
    """Labels drawn, but as they were in the segments that have others than those drawn (3.12).

    Parameters
    ----------
    before, drawn : (frame, segment) int32
        Labels before and after.
    is_own : (frame, segment) bool
        Frames of the segment.

    Returns
    -------
    (frame, segment) int32
    """
    if tables.are_all:
        return drawn
    rests = jnp.ones(tables.into.shape[1] - 1, bool).at[tables.state].set(False)
    is_held = jnp.any(rests[before] & is_own, axis=0)
    return jnp.where(is_held & is_own, before, drawn)


def inverse_cdf(weight: jax.Array, u: jax.Array) -> jax.Array:
    """First state whose cumulative weight reaches ``u`` times the total.

    The running sum is unrolled in two levels of about sqrt(state) steps: on a CPU four times
    as fast as a library cumulative sum inside a scan, and non-decreasing in floating point.

    Parameters
    ----------
    weight : (state, segment)
        Not negative; at least one positive.
    u : (segment,)
        In (0, 1].

    Returns
    -------
    (segment,) int32
        A state of positive weight.
    """
    n_states, n_segments = weight.shape
    size = max(1, round(n_states**0.5))
    n_groups = -(-n_states // size)
    grid = jnp.pad(weight, ((0, n_groups * size - n_states), (0, 0)))
    grid = grid.reshape(n_groups, size, n_segments)
    within = [grid[:, 0]]
    for i in range(1, size):
        within.append(within[-1] + grid[:, i])
    sums = _kept(jnp.stack(within, 1), n_states)
    before = [jnp.zeros_like(u)]
    for i in range(n_groups):
        before.append(before[-1] + sums[i, -1])
    starts = _kept(jnp.stack(before), n_states)
    below = (sums + starts[:-1, None]) < u * starts[-1]
    return jnp.sum(below.reshape(n_groups * size, n_segments), axis=0, dtype=jnp.int32)


def _kept(sums: jax.Array, n_states: int) -> jax.Array:
    """Running sums that the compiler keeps: of few, it computes each anew for all behind it."""
    return jax.lax.optimization_barrier(sums) if n_states < _FUSED_FROM else sums
