"""Noise scales and variances against scipy's laws."""

import jax
import numpy as np
import pytest
from scipy import stats

from kpms_zarr.compute.kernels import noise, rng
from kpms_zarr.compute.kernels.noise import (
    draw_noise_variance,
    log_density_noise_scale,
    n_words,
    prior_scale,
)

SLOPE, INTERCEPT, PSEUDOCOUNT = -0.5, 0.25, 1e-3

chi_squared = jax.jit(noise.chi_squared, static_argnums=(1, 2))
draw_noise_scale = jax.jit(noise.draw_noise_scale, static_argnames=("dof", "n_space"))


def scale_of(confidence: list[float]) -> np.ndarray:
    return prior_scale(
        np.array(confidence), slope=SLOPE, intercept=INTERCEPT, pseudocount=PSEUDOCOUNT
    )


def test_prior_scale__is_the_formula_and_1_without_a_confidence():
    # slope -1/2: 10^(2 * 0.25) / (confidence + 0.001).
    wanted = [10**0.5 / 1.001, 10**0.5 / 0.5, 10**0.5 / 0.001, 1.0]
    np.testing.assert_allclose(scale_of([1.0, 0.499, 0.0, np.nan]), wanted, rtol=1e-12)
    steeper = prior_scale(np.array([0.09]), slope=-1.0, intercept=0.5, pseudocount=0.01)
    np.testing.assert_allclose(steeper, 10 ** (2 * (1 + 0.5)), rtol=1e-12)


def test_prior_scale__is_finite_and_positive_for_confidences_a_little_out_of_range():
    found = scale_of([-1e-9, -0.5, 1.0 + 1e-6, 30.0, 1e-300])
    assert np.isfinite(found).all()
    assert (found > 0).all()
    np.testing.assert_allclose(found[:2], scale_of([0.0])[0], rtol=1e-12)
    assert found[2] == pytest.approx(scale_of([1.0])[0], rel=1e-5)
    assert found[3] < found[2]


def random_bits(n: int, size: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).integers(2**32, size=(n, size), dtype=np.uint32)


@pytest.mark.parametrize("dof", range(1, 13))
def test_chi_squared__follows_its_law(dof):
    dtype = np.float32 if dof % 2 else np.float64
    with jax.enable_x64(dtype is np.float64):
        found = chi_squared(random_bits(n_words(dof), 30_000, dof), dof, dtype)
    assert found.dtype == dtype
    values = np.asarray(found, np.float64)
    assert (values > 0).all()
    assert stats.kstest(values, stats.chi2(dof).cdf).pvalue > 1e-3
    # Wrong twin: one degree of freedom more.
    assert stats.kstest(values, stats.chi2(dof + 1).cdf).pvalue < 1e-3


@pytest.mark.parametrize(
    ("dof", "other"), [(7, 5), (5, 7), (6, 4), (7, 4), (8, 5), (5, 4), (4, 5), (12, 1), (3, 3)]
)
def test_chi_squared__of_two_degrees_of_freedom_follows_both_laws(dof, other):
    bits = random_bits(n_words(max(dof, other)), 20_000, 20 * dof + other)
    is_other = np.random.default_rng(1).random(20_000) < 0.5
    values = np.asarray(
        jax.jit(
            lambda bits, is_other: noise.chi_squared(bits, dof, np.float32, other=(other, is_other))
        )(bits, is_other),
        np.float64,
    )
    for d, chosen in ((dof, ~is_other), (other, is_other)):
        assert stats.kstest(values[chosen], stats.chi2(d).cdf).pvalue > 1e-3
    if dof != other:
        assert stats.kstest(values[is_other], stats.chi2(dof).cdf).pvalue < 1e-3
        assert stats.kstest(values[~is_other], stats.chi2(other).cdf).pvalue < 1e-3


def test_chi_squared__is_finite_and_right_at_the_smallest_uniforms():
    """Products of uniforms do not underflow in float32."""
    for dof in (2, 6, 7, 12):
        found = chi_squared(np.zeros((n_words(dof), 1), np.uint32), dof, np.float32)
        log = 2 * 31 * np.log(2)
        wanted = dof // 2 * log + dof % 2 * log
        np.testing.assert_allclose(found, wanted, rtol=1e-5)


K, T, S = 3, 700, 10


def scales(n_space: int, dof: int) -> tuple[np.ndarray, ...]:
    """Draws, prior scales, squared errors over variance, missing: (keypoint, frame * segment)."""
    rng_ = np.random.default_rng(10 * n_space + dof)
    variance = np.array([0.5, 1.0, 4.0], np.float32)
    prior = rng_.gamma(2.0, size=(K, T, S)).astype(np.float32)
    square = rng_.gamma(1.0, 4.0, size=(K, T, S)).astype(np.float32)
    missing = rng_.random((K, T, S)) < 0.4
    square[missing] = 1e8
    words = np.array([rng.session_words(f"s{i}") for i in range(S)], np.uint32)
    keys = jax.jit(rng.stream_keys)(np.uint32([1, 2]), 3, rng.NOISE_SCALE, words)
    found = draw_noise_scale(
        square, prior, missing, variance, keys, np.arange(S, dtype=np.int32),
        dof=dof, n_space=n_space,
    )  # fmt: skip
    parts = (found, prior, square / variance[:, None, None], missing)
    return tuple(np.asarray(part).reshape(K, -1).astype(np.float64) for part in parts)


@pytest.mark.parametrize("dof", [5, 4])
@pytest.mark.parametrize("n_space", [2, 3])
def test_noise_scale__follows_its_posterior_or_where_missing_its_prior(n_space, dof):
    s, prior, error, missing = scales(n_space, dof)
    for k in range(K):
        unseen = missing[k] > 0
        law = stats.invgamma(dof / 2, scale=dof * prior[k][unseen] / 2)
        assert stats.kstest(law.cdf(s[k][unseen]), "uniform").pvalue > 1e-3
        total = dof * prior[k] + error[k]

        def p_value(added: int, *, k=k, seen=~unseen, total=total) -> float:
            law = stats.invgamma((dof + added) / 2, scale=total[seen] / 2)
            return stats.kstest(law.cdf(s[k][seen]), "uniform").pvalue

        assert p_value(n_space) > 1e-3
        # Wrong twin: three degrees of freedom in 2-D, two in 3-D.
        assert p_value(5 - n_space) < 1e-3


def test_noise_scale__posterior_is_prior_times_likelihood():
    """The law that the test above compares with, from the model."""
    s = np.array([0.3, 1.0, 2.5, 9.0])
    for n_space in (2, 3):
        e, prior, dof, variance = np.linspace(-1, 2, n_space), 1.7, 5, 0.6
        log = stats.invgamma(dof / 2, scale=dof * prior / 2).logpdf(s)
        log += stats.norm(0, np.sqrt(s * variance)[:, None]).logpdf(e).sum(1)
        law = stats.invgamma((dof + n_space) / 2, scale=(dof * prior + e @ e / variance) / 2)
        np.testing.assert_allclose(np.diff(law.logpdf(s)), np.diff(log), rtol=1e-9)


def test_noise_scale__draws_of_keypoints_frames_and_segments_are_independent():
    s, prior, error, missing = scales(2, 5)
    dof = np.where(missing > 0, 5, 7)
    total = 5 * prior + np.where(missing > 0, 0, error)
    u = stats.invgamma(dof / 2, scale=total / 2).cdf(s)
    rank = stats.norm.ppf(u).reshape(K, T, S)
    pairs = {
        "frames": (rank[:, 1:], rank[:, :-1]),
        "segments": (rank[..., 1:], rank[..., :-1]),
        "keypoints": (rank[1:], rank[:-1]),
        "outer keypoints": (rank[0], rank[2]),
    }
    for name, (a, b) in pairs.items():
        assert abs((a * b).mean()) * np.sqrt(a.size) < 4, name
        assert abs(((a**2 - 1) * (b**2 - 1)).mean() / 2) * np.sqrt(a.size) < 4, name


def test_noise_scale__depends_on_the_frame_of_the_session_only():
    rng_ = np.random.default_rng(3)
    square, prior = rng_.gamma(1.0, size=(2, K, 30, 1)).astype(np.float32)
    missing = rng_.random((K, 30, 1)) < 0.4
    words = np.array([rng.session_words("s")], np.uint32)
    keys = jax.jit(rng.stream_keys)(np.uint32([1, 2]), 3, rng.NOISE_SCALE, words)
    found = [
        np.asarray(
            draw_noise_scale(
                *(a[:, begin : begin + 20] for a in (square, prior, missing)),
                np.ones(K, np.float32), keys, np.int32([begin]), dof=5, n_space=2,
            )
        )
        for begin in (0, 10)
    ]  # fmt: skip
    np.testing.assert_allclose(found[0][:, 10:], found[1][:, :10], rtol=1e-6)


def test_log_density__equals_scipy():
    rng_ = np.random.default_rng(2)
    s, s0 = rng_.gamma(1.0, 3.0, size=(2, 50))
    for dof in (1, 4, 5, 30):
        with jax.enable_x64(True):
            args = jax.numpy.asarray(s), jax.numpy.asarray(s0)
            found = np.asarray(log_density_noise_scale(*args, dof))
        law = stats.invgamma(dof / 2, scale=dof * s0 / 2)
        np.testing.assert_allclose(found, law.logpdf(s), rtol=1e-9)
        # Wrong twin: the density of 1 / s, without the Jacobian.
        twin = stats.gamma(dof / 2, scale=2 / (dof * s0)).logpdf(1 / s)
        assert np.abs(twin - found).max() > 0.5


@pytest.mark.parametrize("n_space", [2, 3])
def test_noise_variance__has_the_closed_form_moments(n_space):
    square, count = np.array([30.0, 400.0, 0.0]), np.array([10, 100, 0])
    scale, dof, n = 1.5, 10.0, 20_000
    draws = np.array(
        [
            draw_noise_variance(generator, square, count, scale=scale, dof=dof, n_space=n_space)
            for generator in [np.random.default_rng(n_space)]
            for _ in range(n)
        ]
    )
    total, nu = dof * scale + square, dof + n_space * count
    mean = total / (nu - 2)
    variance = 2 * total**2 / ((nu - 2) ** 2 * (nu - 4))
    error = np.sqrt(variance / n)
    assert np.abs((draws.mean(0) - mean) / error).max() < 4
    for k in range(3):
        law = stats.invgamma(nu[k] / 2, scale=total[k] / 2)
        assert stats.kstest(draws[:, k], law.cdf).pvalue > 1e-3
        assert draws[:, k].var() == pytest.approx(variance[k], rel=0.15)
        twin = dof + (5 - n_space) * count[k]
        if count[k]:
            wrong = stats.invgamma(twin / 2, scale=total[k] / 2)
            assert stats.kstest(draws[:, k], wrong.cdf).pvalue < 1e-3
