"""Autoregressive dynamics of each state: matrix-normal inverse-Wishart (model.md 3.3)."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from scipy.special import multigammaln

from kpms_zarr.compute.kernels.ar import unpack


class DynamicsPrior(NamedTuple):
    """Hyperparameters of A, b, Q.

    Attributes
    ----------
    mean : (latent, lag * latent + 1)
        M0: identity on the most recent lag.
    weight_scale : float
        K0 = weight_scale * I.
    innovation_scale : float
        S0 = innovation_scale * I.
    dof : float
        nu0 of the inverse-Wishart.
    """

    mean: np.ndarray
    weight_scale: float
    innovation_scale: float
    dof: float


class Dynamics(NamedTuple):
    """Dynamics of all states.

    Attributes
    ----------
    weight_bias : (state, latent, lag * latent + 1)
        [A b], oldest lag first.
    covariance : (state, latent, latent)
        Q.
    """

    weight_bias: np.ndarray
    covariance: np.ndarray


def prior_mean(n_latent: int, lags: int) -> np.ndarray:
    """Prior mean M0 of the weights: x_t = x_{t-1}."""
    mean = np.zeros((n_latent, n_latent * lags + 1))
    mean[:, n_latent * (lags - 1) : n_latent * lags] = np.eye(n_latent)
    return mean


def draw_dynamics(
    rng: np.random.Generator, moments: np.ndarray, current: np.ndarray, prior: DynamicsPrior
) -> Dynamics:
    """Draw the dynamics of all states given their moments.

    Parameters
    ----------
    moments : (state, pair)
        Of residuals under ``current`` (:func:`kernels.ar.tile_moments`).
    current : (state, latent, lag * latent + 1)
        P, the [A b] that the residuals were taken under.
    """
    posterior = posterior_of(moments, current, prior)
    covariance = draw_inverse_wishart(rng, posterior.scatter, posterior.dof)
    noise = rng.standard_normal(current.shape)
    root = np.linalg.cholesky(posterior.precision)
    # A = mean + chol(Q) noise chol(K)', with K = precision^-1 and chol(K)' = root^-1.
    spread = np.linalg.solve(root.transpose(0, 2, 1), noise.transpose(0, 2, 1)).transpose(0, 2, 1)
    weight_bias = current + posterior.mean + np.linalg.cholesky(covariance) @ spread
    return Dynamics(weight_bias, covariance)


class Posterior(NamedTuple):
    """Conjugate posterior of the dynamics, relative to the current [A b].

    Attributes
    ----------
    mean : (state, latent, lag * latent + 1)
        Mn - P.
    precision : (state, lag * latent + 1, lag * latent + 1)
        Kn^-1.
    scatter : (state, latent, latent)
        Sn.
    dof : (state,)
        nu_n.
    """

    mean: np.ndarray
    precision: np.ndarray
    scatter: np.ndarray
    dof: np.ndarray


def posterior_of(moments: np.ndarray, current: np.ndarray, prior: DynamicsPrior) -> Posterior:
    """Posterior of [A b] and Q by the formulas of model.md 3.3."""
    _, n_latent, d = current.shape
    count, s_dd, s_rd, s_rr = unpack(moments, n_latent, (d - 1) // n_latent)
    offset = prior.mean - current
    precision = _at_least(np.eye(d) / prior.weight_scale + s_dd, 1 / prior.weight_scale)
    right = offset / prior.weight_scale + s_rd
    mean = np.linalg.solve(precision, right.transpose(0, 2, 1)).transpose(0, 2, 1)
    scatter = (
        prior.innovation_scale * np.eye(n_latent)
        + s_rr
        + offset @ offset.transpose(0, 2, 1) / prior.weight_scale
        - mean @ right.transpose(0, 2, 1)
    )
    scatter = _at_least((scatter + scatter.transpose(0, 2, 1)) / 2, prior.innovation_scale)
    return Posterior(mean, precision, scatter, prior.dof + count)


def _at_least(matrix: np.ndarray, floor: float) -> np.ndarray:
    """Symmetric matrices with no eigenvalue below ``floor``.

    Precision and scatter are never smaller than their priors; where float32 sums with an extreme
    frame say so, it is rounding, and this removes it. Others pass unchanged to the bit.
    """
    value, vector = np.linalg.eigh(matrix)
    # Rounding of the largest eigenvalue must not push the smallest below the floor again.
    floors = np.maximum(floor, 1e-13 * value[:, -1:])
    low = value[:, 0] < floors[:, 0]
    if low.any():
        scaled = vector[low] * np.maximum(value[low], floors[low])[:, None, :]
        matrix = matrix.copy()
        matrix[low] = scaled @ vector[low].transpose(0, 2, 1)
    return matrix


def draw_prior_dynamics(rng: np.random.Generator, n_states: int, prior: DynamicsPrior) -> Dynamics:
    """Draw the dynamics of all states from the prior."""
    n_latent, d = prior.mean.shape
    n_features = d + n_latent
    empty = np.zeros((n_states, n_features * (n_features + 1) // 2))
    return draw_dynamics(rng, empty, np.broadcast_to(prior.mean, (n_states, n_latent, d)), prior)


def draw_inverse_wishart(
    rng: np.random.Generator, scale: np.ndarray, dof: np.ndarray
) -> np.ndarray:
    """Inverse-Wishart draws, batched, by Bartlett's decomposition.

    Parameters
    ----------
    scale : (state, latent, latent)
    dof : (state,)
        Larger than latent - 1.

    Returns
    -------
    (state, latent, latent)
    """
    n_states, m, _ = scale.shape
    bartlett = np.tril(rng.standard_normal((n_states, m, m)), -1)
    diagonal = np.sqrt(rng.chisquare(dof[:, None] - np.arange(m)))
    bartlett[:, np.arange(m), np.arange(m)] = diagonal
    # B B' ~ Wishart(dof, I), so chol(S) (B B')^-1 chol(S)' ~ IW(dof, S).
    root = np.linalg.solve(bartlett, np.linalg.cholesky(scale).transpose(0, 2, 1))
    return root.transpose(0, 2, 1) @ root


def log_density(moments: np.ndarray, dynamics: Dynamics) -> float:
    """Sum of log N(x_t; A xbar + b, Q), from moments of residuals under ``dynamics``."""
    n_latent, d = dynamics.weight_bias.shape[1:]
    count, _, _, s_rr = unpack(moments, n_latent, (d - 1) // n_latent)
    _, log_det = np.linalg.slogdet(dynamics.covariance)
    mahalanobis = np.trace(np.linalg.solve(dynamics.covariance, s_rr), axis1=1, axis2=2)
    constant = n_latent * np.log(2 * np.pi) + log_det
    return float(-0.5 * (count @ constant + mahalanobis.sum()))


def log_prior(dynamics: Dynamics, prior: DynamicsPrior) -> float:
    """Log density of all [A b] and Q under their matrix-normal inverse-Wishart prior."""
    _, m, d = dynamics.weight_bias.shape
    covariance, dof, scale = dynamics.covariance, prior.dof, prior.innovation_scale
    log_det = np.linalg.slogdet(covariance)[1]
    inverse = np.linalg.inv(covariance)
    of_covariance = (
        0.5 * dof * m * (np.log(scale) - np.log(2))
        - multigammaln(0.5 * dof, m)
        - 0.5 * (dof + m + 1) * log_det
        - 0.5 * scale * np.trace(inverse, axis1=1, axis2=2)
    )
    offset = dynamics.weight_bias - prior.mean
    square = np.einsum("nij,nik,njk->n", inverse, offset, offset) / prior.weight_scale
    constant = m * d * np.log(2 * np.pi * prior.weight_scale)
    of_weight = -0.5 * (constant + d * log_det + square)
    return float((of_covariance + of_weight).sum())
