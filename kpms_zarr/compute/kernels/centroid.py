"""Centroid: a random walk observed with error, one variance for all space dims (model.md 3.6)."""

from __future__ import annotations

import jax
import jax.numpy as jnp


def centroid_evidence(weight: jax.Array, residual: jax.Array) -> tuple[jax.Array, jax.Array]:
    """Precision lam and weighted mean mu of the observations of the centroid.

    Parameters
    ----------
    weight : (keypoint, frame, segment)
    residual : (keypoint, space, frame, segment)
        Y - R(h) p(x); finite also where missing.

    Returns
    -------
    precision : (frame, segment)
    mean : (space, frame, segment)
        0 where nothing is observed.
    """
    precision = jnp.sum(weight, axis=0)
    total = jnp.sum(weight[:, None] * residual, axis=0)
    return precision, total / jnp.where(precision > 0, precision, 1)


def draw_centroid(
    precision: jax.Array,
    mean: jax.Array,
    v: jax.Array,
    is_drawn: jax.Array,
    has_next: jax.Array,
    noise: jax.Array,
    *,
    step_variance: jax.Array,
    initial_variance: float,
) -> jax.Array:
    """Draw the centroids of segments given the frame before and the frame after each.

    The precision matrix is tridiagonal; its factorisation is written as a filter in variances,
    in which nothing is subtracted, so that gaps of any length are safe in float32.

    Parameters
    ----------
    precision : (frame, segment)
    mean : (space, frame, segment)
    v : (frame + 1, space, segment)
        Current centroids; also of the frame after the last.
    is_drawn : (frame, segment) bool
        The others are known and stay.
    has_next : (frame, segment) bool
        Whether there is a frame after this one.
    noise : (space, frame, segment)
        Standard normal numbers.
    step_variance : ()
        sigma2_loc.
    initial_variance : float
        Prior variance of the first frame of a session.

    Returns
    -------
    (frame, space, segment)
        As ``v`` where not drawn.
    """
    mean, noise = mean.transpose(1, 0, 2), noise.transpose(1, 0, 2)

    def forward(
        carry: tuple[jax.Array, jax.Array], inputs: tuple[jax.Array, ...]
    ) -> tuple[tuple[jax.Array, jax.Array], tuple[jax.Array, jax.Array]]:
        variance, centre = carry
        lam, mu, known, drawn = inputs
        predicted = variance + step_variance
        filtered = predicted / (1 + predicted * lam)
        moved = centre + filtered * lam * (mu - centre)
        state = jnp.where(drawn, filtered, 0), jnp.where(drawn, moved, known)
        return state, state

    # One step before the session begins, so that its first frame has the prior variance.
    before = initial_variance - step_variance
    start = (jnp.full_like(v[0, 0], before), jnp.zeros_like(v[0]))
    _, (variance, centre) = jax.lax.scan(forward, start, (precision, mean, v[:-1], is_drawn))

    def backward(
        following: jax.Array, inputs: tuple[jax.Array, ...]
    ) -> tuple[jax.Array, jax.Array]:
        filtered, middle, eps, known, drawn, linked = inputs
        link = jnp.where(linked, filtered / (filtered + step_variance), 0)
        smoothed = jnp.where(linked, link * step_variance, filtered)
        value = middle + link * (following - middle) + jnp.sqrt(smoothed) * eps
        value = jnp.where(drawn, value, known)
        return value, value

    inputs = (variance, centre, noise, v[:-1], is_drawn, has_next)
    return jax.lax.scan(backward, v[-1], inputs, reverse=True)[1]
