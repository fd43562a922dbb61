"""Sums by state against a loop over frames, in both ways of adding them up."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from kpms_zarr.compute.kernels import ar
from kpms_zarr.compute.kernels.ar import feature_pairs, sum_by_product, sum_scattered, tile_moments

N_STATES, N_LATENT, LAGS, N_FRAMES, N_SEGMENTS = 5, 3, 2, 70, 4


@pytest.mark.parametrize("add", [sum_scattered, sum_by_product])
@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_sums__by_state(add, dtype):
    rng = np.random.default_rng(0)
    values, state = rng.normal(size=(500, 7)), rng.integers(0, N_STATES + 1, 500)
    expected = np.stack([values[state == i].sum(0) for i in range(N_STATES)])
    with jax.enable_x64(dtype == "float64"):
        found = np.asarray(add(jnp.asarray(values, dtype), jnp.asarray(state), n_states=N_STATES))
    assert found.dtype == dtype
    tolerance = 1e-12 if dtype == "float64" else 1e-5
    np.testing.assert_allclose(found, expected, rtol=tolerance, atol=20 * tolerance)
    # Wrong twin: rows of no state counted to the last one.
    wrong = expected.copy()
    wrong[-1] += values[state == N_STATES].sum(0)
    assert np.abs(found - wrong).max() > 0.1


@pytest.mark.parametrize("add", [sum_scattered, sum_by_product])
def test_moments__are_those_of_a_loop_over_frames(add, monkeypatch):
    """Whichever way the platform takes."""

    def chosen(*arguments, cpu, default):
        return {sum_scattered: cpu, sum_by_product: default}[add](*arguments)

    monkeypatch.setattr(ar.jax.lax, "platform_dependent", chosen)
    rng = np.random.default_rng(1)
    x = rng.normal(size=(N_FRAMES + LAGS, N_LATENT, N_SEGMENTS))
    z = rng.integers(0, N_STATES, (N_FRAMES, N_SEGMENTS)).astype(np.int32)
    is_real = rng.random(z.shape) < 0.8
    weight_bias = rng.normal(size=(N_STATES, N_LATENT, LAGS * N_LATENT + 1))
    rows, columns = feature_pairs(N_LATENT, LAGS)
    expected = np.zeros((N_STATES, len(rows)))
    for t in range(N_FRAMES):
        for s in range(N_SEGMENTS):
            if is_real[t, s]:
                past = np.concatenate([*x[t : t + LAGS, :, s], [1.0]])
                residual = x[t + LAGS, :, s] - weight_bias[z[t, s]] @ past
                feature = np.concatenate([past, residual])
                expected[z[t, s]] += feature[rows] * feature[columns]
    with jax.enable_x64(True):
        found = np.asarray(tile_moments(*map(jnp.asarray, (x, z, is_real, weight_bias)), LAGS))
    np.testing.assert_allclose(found, expected, rtol=1e-9, atol=1e-9)
