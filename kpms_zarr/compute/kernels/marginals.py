"""Posterior probability of given labels, frame by frame: forward filter, backward messages."""

from __future__ import annotations

from typing import NamedTuple

import jax
import jax.numpy as jnp

from kpms_zarr.compute.kernels.hmm import HmmTables, scaled_likelihood

_HIGHEST = jax.lax.Precision.HIGHEST


class Marginals(NamedTuple):
    """Posterior marginals of the segments of a tile.

    Attributes
    ----------
    certainty : (frame, segment)
        p(z_t = label | x of the whole session), when ``before`` and ``after`` are exact.
    label : (frame, segment) int32
        Those given, or the most probable ones.
    predicted : (state, segment)
        p(state of the frame after the segment | all up to its last frame): what the segment on the
        right has as ``before``. Depends on ``before`` and never on ``after``.
    message : (state, segment)
        p(x from the first frame of the segment on | state of that frame), the largest 1: what the
        segment on the left has as ``after``. Depends on ``after`` and never on ``before``.
    """

    certainty: jax.Array
    label: jax.Array
    predicted: jax.Array
    message: jax.Array


def label_marginals(
    tables: HmmTables,
    windows: jax.Array,
    z: jax.Array,
    before: jax.Array,
    after: jax.Array,
    length: jax.Array,
    *,
    finds_best: bool = False,
) -> Marginals:
    """Posterior probability of the label of every frame (model.md 3.1), labels summed out.

    With l_t(i) the likelihood of frame t in state i, p_t = pi' f_{t-1} (p_0 = ``before``) and
    f_t ~ p_t l_t going forward, r_t ~ l_t (pi r_{t+1}) going backward (r_T = ``after``),
    p(z_t = i | x) ~ f_t(i) (pi r_{t+1})(i). Probabilities of the forward pass are held for all
    frames; likelihoods are computed in both passes, so that those of a tile never exist.

    Parameters
    ----------
    windows : (frame, (lag + 1) latent, segment)
    z : (frame, segment) int32
        The labels.
    before : (state, segment)
        Distribution of the state of the first frame given all before it.
    after : (state, segment)
        Likelihood of all that follows given the state of the frame after the segment, up to a
        factor; 1 where nothing follows.
    length : (segment,) int32
        Real frames of the segment; only a segment that ends its session may be shorter than the
        tile, as what it has as ``predicted`` is not used.
    finds_best : bool
        Take the most probable label of every frame, the lowest of equals, in place of ``z``.
    """
    n_states = tables.log_norm.shape[0]
    step_forward = jnp.asarray(tables.into)[:, :n_states]
    step_backward = jnp.asarray(tables.out_of)[:, :n_states]
    states = jnp.arange(n_states, dtype=jnp.int32)[:, None]

    def forward(predicted: jax.Array, w: jax.Array) -> tuple[jax.Array, jax.Array]:
        joint = predicted * scaled_likelihood(tables, w)
        filtered = joint / jnp.sum(joint, axis=0)
        return jnp.matmul(step_forward, filtered, precision=_HIGHEST), predicted

    def backward(
        message: jax.Array, inputs: tuple[jax.Array, ...]
    ) -> tuple[jax.Array, tuple[jax.Array, jax.Array]]:
        predicted, w, label, t = inputs
        likelihood = scaled_likelihood(tables, w)
        following = jnp.matmul(step_backward, message, precision=_HIGHEST)
        filtered = predicted * likelihood
        # Normalised before the product: neither factor can then make all of it underflow.
        joint = filtered / jnp.sum(filtered, axis=0) * following
        if finds_best:
            label = jnp.argmax(joint, axis=0).astype(label.dtype)
        of_label = jnp.sum(jnp.where(states == label, joint, 0), axis=0)
        certainty = of_label / jnp.sum(joint, axis=0)
        product = likelihood * following
        message = jnp.where(t < length, product / jnp.max(product, axis=0), message)
        return message, (certainty, label)

    frames = jnp.arange(windows.shape[0], dtype=jnp.int32)
    predicted, held = jax.lax.scan(forward, before, windows)
    inputs = (held, windows, z, frames)
    message, (certainty, label) = jax.lax.scan(backward, after, inputs, reverse=True)
    return Marginals(certainty, label, predicted, message)
