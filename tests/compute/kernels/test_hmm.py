"""Syllables against enumeration of all paths, and the guarantees of the inverse CDF."""

import itertools

import jax
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import multivariate_normal

from helpers.amount import examples
from kpms_zarr.compute.kernels.hmm import (
    TRANSITION_FLOOR,
    filter_forward,
    hmm_tables,
    holding,
    inverse_cdf,
    sample_backward,
    window,
)

N_STATES, M, LAGS, T = 3, 2, 2, 5


def small_model(seed: int = 0) -> tuple[np.ndarray, ...]:
    rng = np.random.default_rng(seed)
    weight = rng.normal(size=(N_STATES, M, M * LAGS)) * 0.5
    bias = rng.normal(size=(N_STATES, M))
    root = rng.normal(size=(N_STATES, M, M))
    covariance = root @ root.transpose(0, 2, 1) + 0.5 * np.eye(M)
    transition = rng.dirichlet(np.ones(N_STATES), N_STATES)
    x = rng.normal(size=(T + LAGS, M))
    return weight, bias, covariance, transition, x


def log_likelihoods(weight, bias, covariance, x) -> np.ndarray:
    """(frame, state), the slow way."""
    out = np.empty((T, N_STATES))
    for t in range(T):
        past = x[t : t + LAGS].ravel()
        for i in range(N_STATES):
            mean = weight[i] @ past + bias[i]
            out[t, i] = multivariate_normal(mean, covariance[i]).logpdf(x[t + LAGS])
    return out


def path_probabilities(model, left: int, right: int) -> np.ndarray:
    """Posterior of every path by enumeration; left or right = N_STATES: no neighbour."""
    weight, bias, covariance, transition, x = model
    likelihood = log_likelihoods(weight, bias, covariance, x)
    log_pi = np.log(transition)
    scores = []
    for path in itertools.product(range(N_STATES), repeat=T):
        score = log_pi[left, path[0]] if left < N_STATES else -np.log(N_STATES)
        score += sum(likelihood[t, z] for t, z in enumerate(path))
        score += sum(log_pi[a, b] for a, b in itertools.pairwise(path))
        score += log_pi[path[-1], right] if right < N_STATES else 0.0
        scores.append(score)
    scores = np.array(scores)
    weights = np.exp(scores - scores.max())
    return weights / weights.sum()


def draw_paths(
    model, left: int, right: int, n: int, *, length: int = T, states: list[int] | None = None
) -> np.ndarray:
    """(n, T) draws of the kernel."""
    weight, bias, covariance, transition, x = model
    tables = hmm_tables(weight, bias, covariance, transition)
    if states is not None:
        tables = tables.of(np.array(states))
    with jax.enable_x64(True):
        tiled = np.repeat(x[:, :, None], n, -1)
        filtered = filter_forward(tables, window(tiled, LAGS), np.full(n, left, np.int32))
        u = 1 - np.random.default_rng(1).random((T, n))
        z = sample_backward(
            tables, filtered, np.full(n, right, np.int32), np.full(n, length, np.int32), u
        )
        return np.asarray(z).T


def chi_square_excess(draws: np.ndarray, probability: np.ndarray) -> float:
    """Pearson's statistic minus its mean, in standard deviations, over the likely paths."""
    code = draws @ (N_STATES ** np.arange(T - 1, -1, -1))
    expected = probability * len(draws)
    likely = expected >= 5
    observed = np.bincount(code, minlength=len(probability))
    bins = np.append(expected[likely], expected[~likely].sum())
    found = np.append(observed[likely], observed[~likely].sum())
    statistic = ((found - bins) ** 2 / np.maximum(bins, 1e-9)).sum()
    dof = likely.sum()
    return (statistic - dof) / np.sqrt(2 * dof)


@pytest.mark.parametrize(("left", "right"), [(3, 3), (0, 3), (3, 1), (2, 0)])
def test_syllables__draws_follow_the_enumeration_of_all_paths(left, right):
    model = small_model()
    exact = path_probabilities(model, left, right)
    draws = draw_paths(model, left, right, 60_000)
    assert chi_square_excess(draws, exact) < 5
    # Wrong twin: the same draws against the posterior without the neighbour on the right or left.
    wrong = path_probabilities(model, left, (right + 1) % (N_STATES + 1))
    assert chi_square_excess(draws, wrong) > 20


@pytest.mark.parametrize(("left", "right"), [(3, 3), (1, 1), (0, 2)])
def test_syllables__draws_of_some_states_follow_the_enumeration_of_their_paths(left, right):
    """Also where the labels around have a state that is not drawn."""
    model = small_model()
    among = np.array([1 not in path for path in itertools.product(range(N_STATES), repeat=T)])
    exact = np.where(among, path_probabilities(model, left, right), 0)
    draws = draw_paths(model, left, right, 60_000, states=[0, 2])
    assert chi_square_excess(draws, exact / exact.sum()) < 5
    # Wrong twin: as if another state were on the right.
    wrong = np.where(among, path_probabilities(model, left, (right + 1) % (N_STATES + 1)), 0)
    assert chi_square_excess(draws, wrong / wrong.sum()) > 20


def test_holding__keeps_segments_with_labels_that_are_not_drawn():
    weight, bias, covariance, transition, _ = small_model()
    of_all = hmm_tables(weight, bias, covariance, transition)
    before = np.array([[0, 2, 2], [0, 1, 2], [2, 0, 1]])  # (frame, segment)
    drawn = np.full((3, 3), 2)
    is_own = np.array([[True, True, True], [True, True, True], [True, True, False]])
    found = np.asarray(holding(of_all.of(np.array([0, 2])), before, drawn, is_own))
    np.testing.assert_array_equal(found, [[2, 2, 2], [2, 1, 2], [2, 0, 2]])
    np.testing.assert_array_equal(holding(of_all, before, drawn, is_own), drawn)


def test_filter__equals_the_exact_marginals_at_float64():
    model = small_model(3)
    weight, bias, covariance, transition, x = model
    likelihood = log_likelihoods(weight, bias, covariance, x)
    tables = hmm_tables(weight, bias, covariance, transition)
    with jax.enable_x64(True):
        filtered = np.asarray(
            filter_forward(tables, window(x[:, :, None], LAGS), np.array([1], np.int32))
        )[..., 0]
    predicted = transition[1]
    for t in range(T):
        joint = predicted * np.exp(likelihood[t])
        np.testing.assert_allclose(filtered[t], joint / joint.sum(), rtol=1e-9)
        predicted = transition.T @ (joint / joint.sum())


def test_sample__frames_beyond_the_length_repeat_the_neighbour_and_do_not_count():
    model = small_model()
    draws = draw_paths(model, 0, 2, 4000, length=3)
    assert (draws[:, 3:] == 2).all()
    weight, bias, covariance, transition, x = model
    likelihood = log_likelihoods(weight, bias, covariance, x)
    score = np.empty((N_STATES,) * 3)
    for path in itertools.product(range(N_STATES), repeat=3):
        chain = (0, *path, 2)
        score[path] = sum(np.log(transition[a, b]) for a, b in itertools.pairwise(chain))
        score[path] += sum(likelihood[t, z] for t, z in enumerate(path))
    p = np.exp(score - score.max())
    p /= p.sum()
    found = np.zeros_like(p)
    np.add.at(found, tuple(draws[:, :3].T), 1 / len(draws))
    assert np.abs(found - p).max() < 5 * np.sqrt(0.25 / len(draws))


def test_filter__never_sums_to_zero_with_contradicting_evidence():
    """States that the transitions forbid, in float32, with likelihoods e^-10000 apart."""
    n = 4
    weight = np.zeros((n, 1, 1))
    bias = np.array([[-100.0], [0.0], [100.0], [200.0]])
    covariance = np.full((n, 1, 1), 1.0)
    transition = np.eye(n)
    tables = hmm_tables(weight, bias, covariance, transition)
    tables = jax.tree.map(lambda a: np.asarray(a, np.float32), tables)
    x = np.float32([0, -100, 200, 0, 100, -100, 200, 0])[:, None, None]
    filtered = np.asarray(filter_forward(tables, window(x, 1), np.array([0], np.int32)))
    assert np.isfinite(filtered).all()
    np.testing.assert_allclose(filtered.sum(1), 1, rtol=1e-5)
    np.testing.assert_array_equal(filtered[..., 0].argmax(1), [0, 3, 1, 2, 0, 3, 1])
    floor = tables.into[:, :n]
    assert floor.min() >= 0.9 * TRANSITION_FLOOR


@settings(deadline=None, max_examples=examples(60))
@given(
    st.lists(st.floats(0, 1e6, width=32), min_size=1, max_size=40).filter(lambda w: sum(w) > 1e-20),
    st.floats(2**-24, 1, width=32),
)
def test_inverse_cdf__picks_a_state_of_positive_weight_at_the_quantile(weights, u):
    weight = np.array(weights, np.float32)
    drawn = int(inverse_cdf(weight[:, None], np.float32([u]))[0])
    assert 0 <= drawn < len(weight)
    assert weight[drawn] > 0
    total = weight.astype(np.float64).sum()
    below = weight[:drawn].astype(np.float64).sum()
    slack = 1e-5 * total
    assert below - slack <= u * total <= below + weight[drawn] + slack
