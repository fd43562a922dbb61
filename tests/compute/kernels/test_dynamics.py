"""Moments of tiles and the matrix-normal inverse-Wishart draws."""

import jax
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

from helpers.amount import examples
from kpms_zarr.compute.kernels.ar import feature_pairs, tile_moments, unpack
from kpms_zarr.compute.kernels.dynamics import (
    DynamicsPrior,
    draw_dynamics,
    draw_inverse_wishart,
    draw_prior_dynamics,
    log_density,
    log_prior,
    posterior_of,
    prior_mean,
)

N_STATES, M, LAGS = 3, 2, 2
D = M * LAGS + 1


def data(seed: int = 0, n_frames: int = 40, n_segments: int = 4) -> tuple[np.ndarray, ...]:
    rng = np.random.default_rng(seed)
    x = np.cumsum(rng.normal(size=(n_frames + LAGS, M, n_segments)), 0)
    z = rng.integers(N_STATES, size=(n_frames, n_segments))
    weight_bias = rng.normal(size=(N_STATES, M, D)) * 0.3
    return x, z, weight_bias


def moments_in_float64(x, z, is_real, weight_bias) -> np.ndarray:
    with jax.enable_x64(True):
        return np.asarray(tile_moments(x, z, is_real, weight_bias, LAGS))


def regression(x, z, state, segments=None) -> tuple[np.ndarray, np.ndarray]:
    """Regressors (frame, D) and targets (frame, M) of a state, the slow way."""
    rows, targets = [], []
    for s in segments or range(x.shape[2]):
        for t in range(z.shape[0]):
            if z[t, s] == state:
                rows.append([*x[t : t + LAGS, :, s].ravel(), 1.0])
                targets.append(x[t + LAGS, :, s])
    return np.array(rows).reshape(-1, D), np.array(targets).reshape(-1, M)


def test_moments__equal_the_sums_over_frames():
    x, z, weight_bias = data()
    moments = moments_in_float64(x, z, np.ones(z.shape, bool), weight_bias)
    count, s_dd, s_rd, s_rr = unpack(moments, M, LAGS)
    for i in range(N_STATES):
        d, y = regression(x, z, i)
        r = y - d @ weight_bias[i].T
        assert count[i] == len(d)
        np.testing.assert_allclose(s_dd[i], d.T @ d, rtol=1e-9)
        np.testing.assert_allclose(s_rd[i], r.T @ d, rtol=1e-9, atol=1e-9)
        np.testing.assert_allclose(s_rr[i], r.T @ r, rtol=1e-9)


@settings(deadline=None, max_examples=examples(25))
@given(st.integers(0, 2**32 - 1), st.lists(st.booleans(), min_size=160, max_size=160))
def test_moments__of_any_split_add_up_to_the_whole(seed, chosen):
    x, z, weight_bias = data(seed)
    part = np.array(chosen).reshape(z.shape)
    whole = moments_in_float64(x, z, np.ones(z.shape, bool), weight_bias)
    split = moments_in_float64(x, z, part, weight_bias)
    split = split + moments_in_float64(x, z, ~part, weight_bias)
    np.testing.assert_allclose(split, whole, rtol=1e-9, atol=1e-9)


def prior() -> DynamicsPrior:
    return DynamicsPrior(prior_mean(M, LAGS), 10.0, 0.01, M + 2)


def closed_form(d: np.ndarray, y: np.ndarray) -> tuple[np.ndarray, ...]:
    """Conjugate posterior by regressing x itself, without residuals."""
    p = prior()
    k0_inv, s0 = np.eye(D) / p.weight_scale, np.eye(M) * p.innovation_scale
    precision = k0_inv + d.T @ d
    mean = (p.mean @ k0_inv + y.T @ d) @ np.linalg.inv(precision)
    scatter = s0 + y.T @ y + p.mean @ k0_inv @ p.mean.T - mean @ precision @ mean.T
    return mean, precision, scatter, p.dof + len(d)


def test_posterior__of_residuals_equals_that_of_the_data():
    x, z, weight_bias = data(4)
    moments = moments_in_float64(x, z, np.ones(z.shape, bool), weight_bias)
    found = posterior_of(moments, weight_bias, prior())
    for i in range(N_STATES):
        mean, precision, scatter, dof = closed_form(*regression(x, z, i))
        np.testing.assert_allclose(found.mean[i] + weight_bias[i], mean, rtol=1e-9, atol=1e-10)
        np.testing.assert_allclose(found.precision[i], precision, rtol=1e-9)
        np.testing.assert_allclose(found.scatter[i], scatter, rtol=1e-7)
        assert found.dof[i] == dof


def test_residuals__keep_float32_sums_exact_where_plain_sums_fail():
    """Wrong twin: the same float32 sums with A_old = 0, so that the residual is x itself."""
    rng = np.random.default_rng(0)
    n = 4000
    x = np.cumsum(0.003 * rng.normal(size=(n + LAGS, M, 4)), 0) + 3.0
    z = np.zeros((n, 4), int)
    exact = closed_form(*regression(x, z, 0))[2] - 0.01 * np.eye(M)
    current = np.broadcast_to(prior_mean(M, LAGS), (N_STATES, M, D)).astype(np.float32)
    real = np.ones(z.shape, bool)
    errors = []
    for weight_bias in (current, np.zeros_like(current)):
        sums = np.asarray(tile_moments(x.astype(np.float32), z, real, weight_bias, LAGS), float)
        scatter = posterior_of(sums, weight_bias.astype(float), prior()).scatter[0]
        errors.append(np.abs(scatter - 0.01 * np.eye(M) - exact).max() / np.abs(exact).max())
    assert errors[0] < 0.02
    assert errors[1] > 10 * errors[0]


def test_dynamics__draws_have_the_closed_form_moments():
    x, z, weight_bias = data(7)
    moments = moments_in_float64(x, z, np.ones(z.shape, bool), weight_bias)
    rng = np.random.default_rng(0)
    n = 6000
    draws = [draw_dynamics(rng, moments, weight_bias, prior()) for _ in range(n)]
    for i in range(N_STATES):
        mean, precision, scatter, dof = closed_form(*regression(x, z, i))
        expected_q = scatter / (dof - M - 1)
        q = np.array([d.covariance[i] for d in draws])
        a = np.array([d.weight_bias[i] for d in draws])
        error = q.std(0) / np.sqrt(n)
        assert np.abs((q.mean(0) - expected_q) / error).max() < 5
        assert np.abs((a.mean(0) - mean) / (a.std(0) / np.sqrt(n))).max() < 5
        # Cov(vec A) = E[Q] (x) K: rows vary with Q, columns with the inverse precision.
        flat = (a - a.mean(0)).reshape(n, -1)
        found = flat.T @ flat / n
        wanted = np.kron(expected_q, np.linalg.inv(precision))
        scale = np.sqrt(np.outer(np.diag(wanted), np.diag(wanted)))
        assert np.abs((found - wanted) / scale).max() < 0.12
        twin = np.kron(expected_q, precision / np.trace(precision @ precision))
        assert np.abs((found - twin) / scale).max() > 0.5


def test_inverse_wishart__mean_and_wrong_degrees_of_freedom():
    rng = np.random.default_rng(0)
    scale = np.array([[2.0, 0.5], [0.5, 1.0]])
    n, dof = 30_000, 9.0
    draws = draw_inverse_wishart(rng, np.broadcast_to(scale, (n, 2, 2)), np.full(n, dof))
    error = draws.std(0) / np.sqrt(n)
    assert np.abs((draws.mean(0) - scale / (dof - 3)) / error).max() < 5
    assert np.abs((draws.mean(0) - scale / (dof - 2)) / error).max() > 20


def test_prior__draw_has_the_prior_mean():
    rng = np.random.default_rng(0)
    p = DynamicsPrior(prior_mean(M, LAGS), 10.0, 0.01, M + 6)
    drawn = draw_prior_dynamics(rng, 20_000, p)
    error = drawn.weight_bias.std(0) / np.sqrt(20_000)
    assert np.abs((drawn.weight_bias.mean(0) - p.mean) / error).max() < 5


def test_log_density__equals_the_sum_over_frames():
    from scipy.stats import multivariate_normal

    x, z, weight_bias = data(9)
    rng = np.random.default_rng(1)
    drawn = draw_prior_dynamics(rng, N_STATES, prior())._replace(weight_bias=weight_bias)
    moments = moments_in_float64(x, z, np.ones(z.shape, bool), weight_bias)
    total = 0.0
    for i in range(N_STATES):
        d, y = regression(x, z, i)
        total += (
            multivariate_normal(np.zeros(M), drawn.covariance[i])
            .logpdf(y - d @ weight_bias[i].T)
            .sum()
        )
    assert log_density(moments, drawn) == pytest.approx(total, rel=1e-9)


def test_pairs__cover_the_lower_triangle():
    rows, columns = feature_pairs(M, LAGS)
    assert len(rows) == (D + M) * (D + M + 1) // 2
    assert (rows >= columns).all()


def test_log_prior__equals_that_of_a_library():
    rng = np.random.default_rng(0)
    prior = DynamicsPrior(prior_mean(2, 2), 3.0, 0.7, 6.5)
    drawn = draw_prior_dynamics(rng, 4, prior)
    expected = sum(
        stats.invwishart(6.5, 0.7 * np.eye(2)).logpdf(q)
        + stats.matrix_normal(prior.mean, q, 3.0 * np.eye(5)).logpdf(a)
        for a, q in zip(drawn.weight_bias, drawn.covariance, strict=True)
    )
    assert log_prior(drawn, prior) == pytest.approx(expected, rel=1e-10)
    # Wrong twin: another scale.
    other = prior._replace(weight_scale=1.0)
    assert log_prior(drawn, other) != pytest.approx(expected, rel=1e-3)
