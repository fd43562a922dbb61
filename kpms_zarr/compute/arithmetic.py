"""Whether the device adds: a look at the packages, not a part of the model."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np


@jax.jit
def _add_products(a: jax.Array, b: jax.Array) -> jax.Array:
    return jnp.sum(a[:, :, None] * b[:, None, :, :, None], axis=0)


def adds_right() -> bool:
    """Whether sums of products of broadcast arrays are right on the device.

    A part of XLA that jaxlib 0.10.2 uses on processors leaves terms out where arrays are large, and
    does not say so (https://github.com/jax-ml/jax/issues/39103).
    """
    rng = np.random.default_rng(0)
    a = rng.normal(size=(4, 4, 3, 4096)).astype(np.float32)
    b = rng.normal(size=(4, 2, 3)).astype(np.float32)
    right = np.sum(a[:, :, None] * b[:, None, :, :, None], axis=0)
    return bool(np.abs(np.asarray(_add_products(a, b)) - right).max() < 1e-3)
