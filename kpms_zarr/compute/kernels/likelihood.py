"""Log likelihood of the latent pose, labels summed out by the forward algorithm (model.md 3.10)."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np

from kpms_zarr.compute.kernels.dynamics import Dynamics
from kpms_zarr.compute.kernels.hmm import HmmTables, hmm_tables, log_likelihood_of_states

_HIGHEST = jax.lax.Precision.HIGHEST


def predictive_log_likelihood(
    tables: HmmTables, scored: HmmTables | None, windows: jax.Array, before: jax.Array
) -> tuple[jax.Array, jax.Array]:
    """Log p(x_t | all before it, parameters) of every frame, labels summed out (model.md 3.10).

    With l_t(i) the likelihood of frame t in state i and p_t = pi' f_{t-1} (p_0 = ``before``):
    p(x_t | x_0..x_{t-1}) = sum_i p_t(i) l_t(i), and f_t ~ p_t l_t. The product over the frames of a
    session is p(x | parameters).

    Parameters
    ----------
    scored : HmmTables or None
        Tables of the first latent dims alone (:func:`tables_of_first`): then theirs is the density,
        given the past of all dims. None = the density of all dims.
    windows : (frame, (lag + 1) latent, segment)
    before : (state, segment)
        Distribution of the state of the first frame given all before it.

    Returns
    -------
    gained : (frame, segment)
        In nat.
    predicted : (state, segment)
        Distribution of the state of the frame after the segment.
    """
    n_states = tables.log_norm.shape[0]
    step_forward = jnp.asarray(tables.into)[:, :n_states]

    def step(predicted: jax.Array, w: jax.Array) -> tuple[jax.Array, jax.Array]:
        of_states = log_likelihood_of_states(tables, w)
        most = jnp.max(of_states, axis=0)
        joint = predicted * jnp.exp(of_states - most)
        total = jnp.sum(joint, axis=0)
        gained = most + jnp.log(total)
        if scored is not None:
            of_some = log_likelihood_of_states(scored, w)
            most = jnp.max(of_some, axis=0)
            gained = most + jnp.log(jnp.sum(predicted * jnp.exp(of_some - most), axis=0))
        return jnp.matmul(step_forward, joint / total, precision=_HIGHEST), gained

    predicted, gained = jax.lax.scan(step, before, windows)
    return gained, predicted


def tables_of_first(dynamics: Dynamics, transition: np.ndarray, n_scored: int) -> HmmTables:
    """Tables of the density of the first latent dims given the past of all of them.

    The margin of a Gaussian: rows of A and b, and the corner of Q.

    Parameters
    ----------
    dynamics : Dynamics
        Of all dims.
    transition : (state, state)
    n_scored : int
        Latent dims whose density is asked for.
    """
    weight_bias, covariance = dynamics
    found = hmm_tables(
        weight_bias[:, :n_scored, :-1],
        weight_bias[:, :n_scored, -1],
        covariance[:, :n_scored, :n_scored],
        transition,
    )
    n_others = weight_bias.shape[1] - n_scored
    return found._replace(whiten=np.pad(np.asarray(found.whiten), ((0, 0), (0, n_others))))
