"""Latent pose of segments: exact draw from a block-banded Gaussian (model.md 3.4, 3.8)."""

from __future__ import annotations

from typing import NamedTuple

import jax
import jax.numpy as jnp

from kpms_zarr.compute.kernels.hmm import HmmTables


class Elimination(NamedTuple):
    """Results of the forward pass that the backward pass takes, by frame.

    Attributes
    ----------
    columns : tuple of (frame, row, segment)
        Column i of the Cholesky factor below its diagonal, for each latent dimension i.
    inverse_root : (frame, latent, segment)
        1 / diagonal of the factor; 0 where the frame is known.
    solved : (frame, latent, segment)
        u = L11^-1 w1.
    relative_pivot : (frame, segment)
        Smallest share of a diagonal element that the subtractions left: below it, in units of
        the rounding error, an element is noise.
    """

    columns: tuple[jax.Array, ...]
    inverse_root: jax.Array
    solved: jax.Array
    relative_pivot: jax.Array


def factor_table(tables: HmmTables) -> jax.Array:
    """Table of F_i [-A_i, I] and F_i b_i, one column a state, the last column 0.

    Returns
    -------
    (latent * ((lag + 1) * latent + 1), state + 1)
    """
    n_states = tables.log_norm.shape[0]
    n_latent = tables.shift.shape[0] // n_states
    both = jnp.concatenate([tables.whiten, tables.shift], 1)
    by_state = both.reshape(n_latent, n_states, -1).transpose(0, 2, 1).reshape(-1, n_states)
    return jnp.pad(by_state, ((0, 0), (0, 1)))


def eliminate_forward(
    table: jax.Array,
    z: jax.Array,
    precision: jax.Array,
    information: jax.Array,
    x: jax.Array,
    is_drawn: jax.Array,
    initial_variance: float,
) -> Elimination:
    """Eliminate one frame after the other from the joint density of the latent poses.

    The window of a step holds L + 1 frames. Its oldest frame is eliminated by M steps of a
    Cholesky factorisation, or, where it is known, conditioned on.

    Parameters
    ----------
    table : (latent * ((lag + 1) * latent + 1), state + 1)
        From :func:`factor_table`.
    z : (frame + lag, segment) int32
        State of the frames from the first of the segment to ``lag`` after the last; ``state`` =
        there is no such frame.
    precision : (latent, latent, frame + lag, segment)
        J of the frames from ``lag`` before the segment to its last; 0 where not drawn.
    information : (latent, frame + lag, segment)
        g of the same frames.
    x : (frame + 2 lag, latent, segment)
        Current latent pose, with ``lag`` frames on either side; 0 where there is no frame.
    is_drawn : (frame + lag, segment) bool
        Which frames are drawn: those of the segment, and the ``lag`` before it where they begin
        a session.
    initial_variance : float
        Prior variance of the first ``lag`` frames of a session.
    """
    n_latent, _, n_steps, n_segments = precision.shape
    lags = x.shape[0] - n_steps
    size = lags * n_latent
    eye = jnp.eye(n_latent, dtype=x.dtype)[..., None]
    carried = jnp.zeros((size, size, n_segments), x.dtype)
    for i in range(lags):
        rows = slice(i * n_latent, (i + 1) * n_latent)
        carried = carried.at[rows, rows].set(precision[:, :, i] + eye / initial_variance)
    carried_information = information[:, :lags].transpose(1, 0, 2).reshape(size, n_segments)
    # Frames after the segment are known or do not exist; their own precision does not matter.
    beyond = jnp.zeros((lags, n_segments), bool)
    entering = jnp.concatenate([is_drawn[lags:], beyond])

    def step(
        carry: tuple[jax.Array, jax.Array], inputs: tuple[jax.Array, ...]
    ) -> tuple[tuple[jax.Array, jax.Array], tuple[jax.Array, ...]]:
        state, j, g, x_old, is_old_drawn, is_new_drawn = inputs
        factor = table[:, state].reshape(n_latent, size + n_latent + 1, n_segments)
        weight, shift = factor[:, :-1], factor[:, -1]
        b = jnp.sum(weight * shift[:, None], axis=0) + jnp.concatenate([carry[1], g])
        columns: list[jax.Array] = []
        roots, solved, shares = [], [], []
        for i in range(n_latent):
            c = jnp.sum(weight * weight[:, i, None], axis=0).at[:size].add(carry[0][:, i])
            before = c[i]
            for earlier in columns:
                c = c - earlier * earlier[i]
            shares.append(jnp.where(is_old_drawn, c[i] / before, 1))
            root = jnp.where(is_old_drawn, jax.lax.rsqrt(c[i]), 0)
            u = b[i] * root
            b = b - c * jnp.where(is_old_drawn, u * root, x_old[i])
            column, b = jax.lax.optimization_barrier((c * root, b))
            columns.append(column)
            roots.append(root)
            solved.append(u)
        rest = weight[:, n_latent:]
        w = jnp.sum(rest[:, :, None] * rest[:, None], axis=0)
        for column in columns:
            w = w - column[n_latent:, None] * column[None, n_latent:]
        middle = size - n_latent
        w = w.at[:middle, :middle].add(carry[0][n_latent:, n_latent:])
        w = w.at[middle:, middle:].add(j + jnp.where(is_new_drawn, 0, eye))
        rows = jnp.arange(size)
        left = w[rows, rows]
        lost = sum(jnp.square(column[n_latent:]) for column in columns)
        relative_pivot = jnp.min(jnp.concatenate([left / (left + lost), jnp.stack(shares)]), axis=0)
        below = [column[i + 1 :] for i, column in enumerate(columns)]
        return (w, b[n_latent:]), (*below, jnp.stack(roots), jnp.stack(solved), relative_pivot)

    padded_j = jnp.pad(precision[:, :, lags:], [(0, 0), (0, 0), (0, lags), (0, 0)])
    padded_g = jnp.pad(information[:, lags:], [(0, 0), (0, lags), (0, 0)])
    inputs = (
        z,
        padded_j.transpose(2, 0, 1, 3),
        padded_g.transpose(1, 0, 2),
        x[:n_steps],
        is_drawn,
        entering,
    )
    _, (*columns, roots, solved, relative_pivot) = jax.lax.scan(
        step, (carried, carried_information), inputs
    )
    return Elimination(tuple(columns), roots, solved, relative_pivot)


def substitute_backward(
    elimination: Elimination, x: jax.Array, is_drawn: jax.Array, noise: jax.Array
) -> jax.Array:
    """Draw the latent poses, last frame first.

    Parameters
    ----------
    x : (frame + 2 lag, latent, segment)
    is_drawn : (frame + lag, segment) bool
    noise : (latent, frame + lag, segment)
        Standard normal numbers.

    Returns
    -------
    (frame + lag, latent, segment)
        As ``x`` where not drawn.
    """
    n_latent, n_steps, n_segments = noise.shape
    lags = x.shape[0] - n_steps
    following = x[n_steps:].reshape(lags * n_latent, n_segments)

    def step(following: jax.Array, inputs: tuple[jax.Array, ...]) -> tuple[jax.Array, jax.Array]:
        roots, solved, eps, x_old, is_old_drawn, *columns = inputs
        after = following
        for i in reversed(range(n_latent)):
            value = (solved[i] + eps[i] - jnp.sum(columns[i] * after, axis=0)) * roots[i]
            after = jnp.concatenate([jnp.where(is_old_drawn, value, x_old[i])[None], after])
        return after[: lags * n_latent], after[:n_latent]

    inputs = (
        elimination.inverse_root,
        elimination.solved,
        noise.transpose(1, 0, 2),
        x[:n_steps],
        is_drawn,
        *elimination.columns,
    )
    return jax.lax.scan(step, following, inputs, reverse=True)[1]
