"""Evidence of labels against chain rules, and merging of states by it."""

import itertools
from typing import NamedTuple

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import integrate, stats

from helpers.amount import examples
from kpms_zarr.compute.kernels import evidence
from kpms_zarr.compute.kernels.ar import feature_pairs
from kpms_zarr.compute.kernels.dynamics import DynamicsPrior, posterior_of, prior_mean
from kpms_zarr.compute.kernels.evidence import (
    LogEvidence,
    dynamics_evidence,
    log_evidence,
    merge_gains,
    merge_states,
    pooled,
    recentred,
    transition_evidence,
)
from kpms_zarr.compute.kernels.transitions import TransitionPrior

N_STATES, M, LAGS = 5, 2, 2
D = M * LAGS + 1
DYNAMICS = DynamicsPrior(prior_mean(M, LAGS), 10.0, 0.01, M + 2)
TRANSITION = TransitionPrior(5.7, 1e3, 30.0)


class Data(NamedTuple):
    """One session: regressors (frame, D), targets (frame, M), labels (frame,)."""

    d: np.ndarray
    y: np.ndarray
    z: np.ndarray


def data(seed: int = 0, n_frames: int = 150) -> Data:
    rng = np.random.default_rng(seed)
    z = np.repeat(rng.integers(N_STATES, size=n_frames // 3), 3)
    x = np.cumsum(rng.normal(size=(n_frames + LAGS, M)), 0)
    past = np.concatenate([x[i : i + n_frames] for i in range(LAGS)], 1)
    return Data(np.c_[past, np.ones(n_frames)], x[LAGS:], z)


def weights(seed: int = 1) -> np.ndarray:
    return np.random.default_rng(seed).normal(size=(N_STATES, M, D)) * 0.4


def sums(known: Data, weight_bias: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Moments and transitions, the slow way."""
    rows, columns = feature_pairs(M, LAGS)
    moments = np.zeros((N_STATES, len(rows)))
    for d, y, z in zip(*known, strict=True):
        feature = np.r_[d, y - weight_bias[z] @ d]
        moments[z] += feature[rows] * feature[columns]
    counts = np.zeros((N_STATES, N_STATES), int)
    np.add.at(counts, (known.z[:-1], known.z[1:]), 1)
    return moments, counts


def evidence_of(known: Data) -> LogEvidence:
    weight_bias = weights()
    moments, counts = sums(known, weight_bias)
    return log_evidence(moments, weight_bias, counts, DYNAMICS, TRANSITION)


def gains_of(known: Data) -> np.ndarray:
    weight_bias = weights()
    moments, counts = sums(known, weight_bias)
    return merge_gains(moments, weight_bias, counts, DYNAMICS, TRANSITION)


def by_chain_rule(known: Data, state: int) -> float:
    """Log predictive densities of one frame of the state after the other: Student's t."""
    precision, right = np.eye(D) / DYNAMICS.weight_scale, DYNAMICS.mean / DYNAMICS.weight_scale
    square = DYNAMICS.innovation_scale * np.eye(M) + DYNAMICS.mean @ right.T
    dof, total = DYNAMICS.dof, 0.0
    for d, y in zip(known.d[known.z == state], known.y[known.z == state], strict=True):
        mean = np.linalg.solve(precision, right.T).T
        scatter = square - mean @ right.T
        free = dof - M + 1
        shape = scatter * (1 + d @ np.linalg.solve(precision, d)) / free
        total += stats.multivariate_t(mean @ d, shape, free).logpdf(y)
        precision = precision + np.outer(d, d)
        right = right + np.outer(y, d)
        square = square + np.outer(y, y)
        dof += 1
    return total


def by_urn(z: np.ndarray) -> float:
    """Log probability of one label after the other by Polya urns."""
    urns = np.full((N_STATES, N_STATES), TRANSITION.alpha / N_STATES)
    urns += TRANSITION.kappa * np.eye(N_STATES)
    total = 0.0
    for before, after in itertools.pairwise(z):
        total += np.log(urns[before, after] / urns[before].sum())
        urns[before, after] += 1
    return total


def test_dynamics_evidence__is_the_product_of_the_predictive_densities():
    known, weight_bias = data(), weights()
    found = dynamics_evidence(sums(known, weight_bias)[0], weight_bias, DYNAMICS)
    expected = [by_chain_rule(known, state) for state in range(N_STATES)]
    np.testing.assert_allclose(found, expected, rtol=1e-8)


def test_dynamics_evidence__is_the_integral_over_the_parameters():
    prior = DynamicsPrior(np.array([[1.0, 0.0]]), 10.0, 0.5, 3.0)
    rng = np.random.default_rng(4)
    d, y = np.c_[rng.normal(size=6), np.ones(6)], rng.normal(size=6)

    def joint(log_variance: float) -> float:
        """Density of targets and variance, A and b integrated out, which are normal."""
        variance = np.exp(log_variance)
        spread = variance * (np.eye(6) + prior.weight_scale * d @ d.T)
        of_targets = stats.multivariate_normal(d @ prior.mean[0], spread).pdf(y)
        scale = prior.innovation_scale / 2
        return of_targets * stats.invgamma(prior.dof / 2, scale=scale).pdf(variance) * variance

    expected = np.log(integrate.quad(joint, -12, 12, epsabs=0, epsrel=1e-9, limit=400)[0])
    features = np.c_[d, y]
    rows, columns = feature_pairs(1, 1)
    moments = (features[:, rows] * features[:, columns]).sum(0)[None]
    found = dynamics_evidence(moments, np.zeros((1, 1, 2)), prior)
    np.testing.assert_allclose(found, [expected], rtol=1e-8)


def test_transition_evidence__is_that_of_polya_urns():
    known = data()
    _, counts = sums(known, weights())
    np.testing.assert_allclose(transition_evidence(counts, TRANSITION).sum(), by_urn(known.z))


def test_evidence__is_zero_without_frames():
    nothing = np.zeros((2, len(feature_pairs(M, LAGS)[0])))
    assert not dynamics_evidence(nothing, weights()[:2], DYNAMICS).round(9).any()
    assert not transition_evidence(np.zeros((2, 2), int), TRANSITION).any()


def test_evidence__does_not_depend_on_the_reference_of_the_residuals():
    known = data()
    moments, counts = sums(known, weights())
    other = weights(7)
    moved = recentred(moments, weights(), other)
    np.testing.assert_allclose(moved, sums(known, other)[0], rtol=1e-8, atol=1e-8)
    one = log_evidence(moments, weights(), counts, DYNAMICS, TRANSITION)
    two = log_evidence(moved, other, counts, DYNAMICS, TRANSITION)
    np.testing.assert_allclose(one, two, rtol=1e-10)


@settings(deadline=None, max_examples=examples(20))
@given(st.integers(0, 2**32 - 1), st.permutations(range(N_STATES)))
def test_gains__are_differences_of_evidences_and_know_no_numbers(seed, order):
    known = data(seed, 60)
    whole, gains = sum(evidence_of(known)), gains_of(known)
    there = np.isin(np.arange(N_STATES), known.z)
    for i in range(N_STATES):
        for j in range(N_STATES):
            if i == j or not (there[i] and there[j]):
                assert gains[i, j] == -np.inf
            else:
                merged = known._replace(z=np.where(known.z == j, i, known.z))
                assert gains[i, j] == pytest.approx(sum(evidence_of(merged)) - whole, abs=1e-7)
    number = np.array(order)
    renumbered = known._replace(z=number[known.z])
    np.testing.assert_allclose(evidence_of(renumbered), evidence_of(known), rtol=1e-10)
    np.testing.assert_allclose(gains_of(renumbered)[np.ix_(number, number)], gains, atol=1e-7)


def not_recentred(moments, current, reference):
    """Wrong twin: adds residuals of different states as if they were of one."""
    return moments


def without_volume(moments, weight_bias, prior):
    """Wrong twin: the normalising constant of the weights is forgotten."""
    posterior = posterior_of(moments, weight_bias, prior)
    volume = D * np.log(prior.weight_scale) + np.linalg.slogdet(posterior.precision)[1]
    return dynamics_evidence(moments, weight_bias, prior) + 0.5 * M * volume


def test_chain_rule__rejects_wrong_twins(monkeypatch):
    known, weight_bias = data(), weights()
    moments, _ = sums(known, weight_bias)
    wrong = without_volume(moments, weight_bias, DYNAMICS)
    expected = np.array([by_chain_rule(known, state) for state in range(N_STATES)])
    assert (np.abs(wrong - expected) > 1).all()
    monkeypatch.setattr(evidence, "recentred", not_recentred)
    merged = known._replace(z=np.where(known.z == 1, 0, known.z))
    difference = sum(evidence_of(merged)) - sum(evidence_of(known))
    assert abs(gains_of(known)[0, 1] - difference) > 1


# ------------------------------------------------------------------ merging


def planted(seed: int, n_frames: int = 1500) -> Data:
    """States 0 and 1 are one process, cut in two at random, 3 and 4 another; 2 has no frames."""
    rng = np.random.default_rng(seed)
    process = np.repeat(rng.integers(2, size=n_frames // 30), 30)
    turn = 0.9 * np.array([[[0.0, -1], [1, 0]], [[0, 1], [-1, 0]]])
    x = np.zeros((n_frames + LAGS, M))
    for t in range(n_frames):
        x[t + LAGS] = turn[process[t]] @ x[t + LAGS - 1] + 0.3 * rng.normal(size=M)
    past = np.concatenate([x[i : i + n_frames] for i in range(LAGS)], 1)
    half = np.repeat(rng.integers(2, size=n_frames // 6), 6)
    return Data(np.c_[past, np.ones(n_frames)], x[LAGS:], np.where(process, 4 - half, half))


def test_merge__finds_planted_twins_and_leaves_the_rest():
    known, weight_bias = planted(0), weights()
    moments, counts = sums(known, weight_bias)
    target = merge_states(moments, weight_bias, counts, DYNAMICS, TRANSITION)
    assert target.tolist() == target[target].tolist()
    frequent = np.argmax(np.bincount(known.z, minlength=N_STATES)[[0, 1]])
    assert target[:3].tolist() == [frequent, frequent, 2]
    assert target[3] == target[4] in (3, 4)
    merged = known._replace(z=target[known.z])
    assert not (gains_of(merged) > 0).any()
    np.testing.assert_allclose(
        pooled(moments, weight_bias, target), sums(merged, weight_bias)[0], atol=1e-8
    )


def test_merge__stops_where_the_margin_is_not_exceeded():
    known, weight_bias = planted(0), weights()
    moments, counts = sums(known, weight_bias)
    largest = merge_gains(moments, weight_bias, counts, DYNAMICS, TRANSITION).max()
    arguments = (moments, weight_bias, counts, DYNAMICS, TRANSITION)
    kept = merge_states(*arguments, margin=largest + 1)
    assert kept.tolist() == list(range(N_STATES))
    assert merge_states(*arguments, margin=largest - 1).tolist() != kept.tolist()


@settings(deadline=None, max_examples=examples(10))
@given(st.integers(0, 2**32 - 1), st.permutations(range(N_STATES)))
def test_merge__gives_the_same_partition_whatever_the_numbers(seed, order):
    known, weight_bias = data(seed), weights()
    number = np.array(order)
    renumbered = known._replace(z=number[known.z])
    found = [
        merge_states(*sums_of, DYNAMICS, TRANSITION)
        for sums_of in (
            (sums(known, weight_bias)[0], weight_bias, sums(known, weight_bias)[1]),
            (sums(renumbered, weight_bias)[0], weight_bias, sums(renumbered, weight_bias)[1]),
        )
    ]
    one, two = found[0], found[1][number]
    np.testing.assert_array_equal(one[:, None] == one, two[:, None] == two)
