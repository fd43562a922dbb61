"""The pose that a latent implies, and what the keypoints say about the latent (model.md 1, 3.4)."""

from __future__ import annotations

from typing import Any, NamedTuple, TypeAlias

import jax
import jax.numpy as jnp

AnyArray: TypeAlias = Any
"""Of NumPy on the host, of JAX on the device."""

_HIGHEST = jax.lax.Precision.HIGHEST


class PoseMap(NamedTuple):
    """Linear map from latent to pose.

    Attributes
    ----------
    loading : (keypoint, space, latent)
        Ct.
    mean : (keypoint, space)
        dt.
    """

    loading: AnyArray
    mean: AnyArray


def pose_of(pose_map: PoseMap, x: jax.Array) -> jax.Array:
    """Pose in the frame of reference of the animal.

    Parameters
    ----------
    x : (latent, frame, segment)

    Returns
    -------
    (keypoint, space, frame, segment)
    """
    product = jnp.tensordot(pose_map.loading, x, 1, precision=_HIGHEST)
    return product + pose_map.mean[..., None, None]


def rotate(vectors: jax.Array, heading: jax.Array) -> jax.Array:
    """Turn the first two space dims by R(h); vectors (keypoint, space, frame, segment)."""
    cos, sin = jnp.cos(heading), jnp.sin(heading)
    a, b = vectors[:, 0], vectors[:, 1]
    turned = jnp.stack([cos * a - sin * b, sin * a + cos * b], 1)
    return jnp.concatenate([turned, vectors[:, 2:]], 1)


def latent_evidence(
    pose_map: PoseMap, weight: jax.Array, offset: jax.Array, heading: jax.Array
) -> tuple[jax.Array, jax.Array]:
    """Evidence of the keypoints of a frame on its latent pose.

    Parameters
    ----------
    weight : (keypoint, frame, segment)
        w = 1 / (s sigma2); 0 = missing.
    offset : (keypoint, space, frame, segment)
        Y - v; finite also where missing.
    heading : (frame, segment)

    Returns
    -------
    precision : (latent, latent, frame, segment)
        J = sum_k w_k Ct_k' Ct_k.
    information : (latent, frame, segment)
        g = sum_k w_k Ct_k' (R(h)' (Y_k - v) - dt_k).
    """
    loading, mean = pose_map
    square = jnp.einsum("kdi,kdj->ijk", loading, loading, precision=_HIGHEST)
    precision = jnp.tensordot(square, weight, 1, precision=_HIGHEST)
    residual = (rotate(offset, -heading) - mean[..., None, None]) * weight[:, None]
    information = jnp.tensordot(loading.transpose(2, 0, 1), residual, 2, precision=_HIGHEST)
    return precision, information
