"""Noise scales of keypoints: scaled inverse chi-squared (model.md 2, 3.7)."""

from __future__ import annotations

import math
from collections.abc import Sequence

import jax
import jax.numpy as jnp
import numpy as np

from kpms_zarr.compute.kernels import rng

_UNIFORMS_PER_LOG = 3
"""Product of so many numbers above 2^-32 is a normal float32."""


def prior_scale(
    confidence: np.ndarray, *, slope: float, intercept: float, pseudocount: float
) -> np.ndarray:
    """Prior scale s0 = 10^(2 (slope log10(confidence + pseudocount) + intercept)), 1 if unknown.

    Parameters
    ----------
    confidence : ndarray, any shape
        NaN = not given.

    Returns
    -------
    ndarray
        In the precision of ``confidence``.
    """
    is_lacking = np.isnan(confidence)
    number = confidence.dtype.type
    given = np.where(is_lacking, number(1), np.maximum(confidence, number(0)))
    scale = number(10 ** (2 * intercept)) * np.power(given + number(pseudocount), number(2 * slope))
    return np.where(is_lacking, number(1), scale)


def chi_squared(
    bits: Sequence[jax.Array] | jax.Array,
    dof: int,
    dtype: jnp.dtype,
    *,
    other: tuple[int, jax.Array] | None = None,
) -> jax.Array:
    """Chi-squared numbers with a whole number of degrees of freedom, without rejection.

    -2 log of a product of uniform numbers has an even number of degrees of freedom; the square of
    a normal number adds one.

    Parameters
    ----------
    bits : (n_words(dof), ...) uint32
        As many as the larger number of degrees of freedom takes.
    other : (int, (...) bool), optional
        Another number of degrees of freedom and where it applies.

    Returns
    -------
    (...)
    """
    dofs = (dof, dof) if other is None else (dof, other[0])
    shape = bits[0].shape
    is_other = jnp.zeros(shape, bool) if other is None else other[1]
    low, high = sorted(dof // 2 for dof in dofs)
    is_high = is_other if dofs[1] // 2 == high else ~is_other
    u = [rng.fine_uniform(bits[i], dtype) for i in range(high)]
    u = u[:low] + [jnp.where(is_high, number, 1) for number in u[low:]]
    total = jnp.zeros(shape, dtype)
    for i in range(0, high, _UNIFORMS_PER_LOG):
        total = total - 2 * jnp.log(math.prod(u[i + 1 : i + _UNIFORMS_PER_LOG], start=u[i]))
    if dofs[0] % 2 or dofs[1] % 2:
        square = jnp.square(rng.one_normal(bits[high], bits[high + 1], dtype))
        total = total + square * jnp.where(is_other, dofs[1] % 2, dofs[0] % 2)
    return total


def n_words(dof: int) -> int:
    """Random words that :func:`chi_squared` takes."""
    return dof // 2 + 2


def draw_noise_scale(
    square: jax.Array,
    prior: jax.Array,
    is_missing: jax.Array,
    noise_variance: jax.Array,
    keys: tuple[jax.Array, jax.Array],
    first_frame: jax.Array,
    *,
    dof: int,
    n_space: int,
) -> jax.Array:
    """Draw s ~ (nu s0 + |e|^2 / sigma2) / chi2(nu + D), from the prior where missing.

    Parameters
    ----------
    square : (keypoint, frame, segment)
        |e|^2, squared distance of the observed keypoint from where the model has it.
    prior : (keypoint, frame, segment)
        s0.
    is_missing : (keypoint, frame, segment) bool
    noise_variance : (keypoint,)
        sigma2.
    keys : pair of (segment,) uint32
    first_frame : (segment,) int32
    dof : int
        nu.
    n_space : int
        D.
    """
    words = rng.even(n_words(dof + n_space))

    def one_keypoint(given: tuple[jax.Array, ...]) -> jax.Array:
        k, error, scale, missing, variance = given
        bits = rng.frame_words(keys, first_frame, square.shape[1], words, first_number=words * k)
        drawn = chi_squared(bits, dof + n_space, square.dtype, other=(dof, missing))
        return (dof * scale + jnp.where(missing, 0, error / variance)) / drawn

    # One keypoint after the other: the random words of all would be the largest array of a tile.
    k = jnp.arange(len(square), dtype=jnp.uint32)
    return jax.lax.map(one_keypoint, (k, square, prior, is_missing, noise_variance))


def log_density_noise_scale(scale: jax.Array, prior: jax.Array, dof: int) -> jax.Array:
    """Log density of the scaled inverse chi-squared prior, element by element."""
    half = dof / 2
    constant = half * math.log(half) - math.lgamma(half)
    return constant + half * jnp.log(prior) - (1 + half) * jnp.log(scale) - half * prior / scale


def draw_noise_variance(
    generator: np.random.Generator,
    square: np.ndarray,
    count: np.ndarray,
    *,
    scale: float,
    dof: float,
    n_space: int,
) -> np.ndarray:
    """Global noise variance of each keypoint.

    sigma2 ~ (dof scale + sum |e|^2 / s) / chi2(dof + D n), from a scaled inverse chi-squared prior.

    Parameters
    ----------
    square : ndarray, (keypoint,) float64
        Sum of |e|^2 / s over the frames in which the keypoint is observed.
    count : ndarray, (keypoint,)
        Number of these frames.
    scale, dof : float
        Of the prior.
    """
    return (dof * scale + square) / generator.chisquare(dof + n_space * count)


def log_prior(noise_variance: np.ndarray, *, scale: float, dof: float) -> float:
    """Log density of global noise variances under their scaled inverse chi-squared prior."""
    half = dof / 2
    constant = half * np.log(half * scale) - math.lgamma(half)
    terms = constant - (1 + half) * np.log(noise_variance) - half * scale / noise_variance
    return float(terms.sum())
