"""Posterior probability of labels against enumeration of all paths; what segments tell others."""

import itertools
from typing import NamedTuple

import jax
import numpy as np
import pytest
from scipy.stats import multivariate_normal

from kpms_zarr.compute.kernels.hmm import TRANSITION_FLOOR, filter_forward, hmm_tables, window
from kpms_zarr.compute.kernels.marginals import Marginals, label_marginals

N, M, LAGS, T = 3, 2, 2, 7


class Model(NamedTuple):
    weight: np.ndarray
    bias: np.ndarray
    covariance: np.ndarray
    transition: np.ndarray

    @property
    def tables(self):
        return hmm_tables(*self)


def model_of(seed: int, n: int = N, *, stay: float = 0.0) -> Model:
    rng = np.random.default_rng(seed)
    root = rng.normal(size=(n, M, M))
    transition = (1 - stay) * rng.dirichlet(np.ones(n), n) + stay * np.eye(n)
    return Model(
        rng.normal(size=(n, M, M * LAGS)) * 0.3,
        rng.normal(size=(n, M)),
        root @ root.transpose(0, 2, 1) + 0.5 * np.eye(M),
        transition,
    )


def latent_of(seed: int, n_frames: int = T) -> np.ndarray:
    return np.random.default_rng(100 + seed).normal(size=(n_frames + LAGS, M))


def log_likelihoods(model: Model, x: np.ndarray) -> np.ndarray:
    """(frame, state), the slow way."""
    return np.array([
        [
            multivariate_normal(
                model.weight[i] @ x[t : t + LAGS].ravel() + model.bias[i], model.covariance[i]
            ).logpdf(x[t + LAGS])
            for i in range(len(model.bias))
        ]
        for t in range(len(x) - LAGS)
    ])  # fmt: skip


def by_enumeration(model: Model, x: np.ndarray) -> np.ndarray:
    """p(z_t = i | x), (frame, state), by the sum over all paths."""
    likelihood = log_likelihoods(model, x)
    n_frames, n = likelihood.shape
    total = np.zeros((n_frames, n))
    for path in itertools.product(range(n), repeat=n_frames):
        score = -np.log(n) + likelihood[np.arange(n_frames), path].sum()
        score += sum(np.log(model.transition[a, b]) for a, b in itertools.pairwise(path))
        total[np.arange(n_frames), path] += np.exp(score)
    return total / total.sum(1, keepdims=True)


def forward_backward(model: Model, x: np.ndarray) -> np.ndarray:
    """The same with logarithms, for any length."""
    likelihood = log_likelihoods(model, x)
    log_pi = np.log(model.transition)
    n = likelihood.shape[1]
    before, after = np.zeros_like(likelihood), np.zeros_like(likelihood)
    before[0] = likelihood[0] - np.log(n)
    for t in range(1, len(likelihood)):
        joint = before[t - 1][:, None] + log_pi
        before[t] = likelihood[t] + np.logaddexp.reduce(joint, axis=0)
    for t in range(len(likelihood) - 2, -1, -1):
        after[t] = np.logaddexp.reduce(log_pi + likelihood[t + 1] + after[t + 1], axis=1)
    log = before + after
    return np.exp(log - np.logaddexp.reduce(log, axis=1)[:, None])


def run(model, x, z, *, before=None, after=None, length=None, dtype="float64") -> Marginals:
    """One segment; z (frame,)."""
    n = len(model.bias)
    with jax.enable_x64(dtype == "float64"):
        found = label_marginals(
            jax.tree.map(lambda a: np.asarray(a, dtype), model.tables),
            window(np.asarray(x, dtype)[:, :, None], LAGS),
            np.asarray(z, np.int32)[:, None],
            np.full((n, 1), 1 / n, dtype) if before is None else np.asarray(before, dtype),
            np.ones((n, 1), dtype) if after is None else np.asarray(after, dtype),
            np.array([len(z) if length is None else length], np.int32),
        )
        return Marginals(*(np.asarray(part) for part in found))


def certainties(model: Model, x: np.ndarray, **given) -> np.ndarray:
    """(frame, state): certainty of every label, were it the label of all frames."""
    n_frames = len(x) - LAGS
    labels = range(len(model.bias))
    return np.stack(
        [run(model, x, np.full(n_frames, i), **given).certainty[:, 0] for i in labels], 1
    )


@pytest.mark.parametrize("seed", range(4))
def test_certainty__is_that_of_the_sum_over_all_paths(seed):
    model, x = model_of(seed), latent_of(seed)
    exact = by_enumeration(model, x)
    np.testing.assert_allclose(forward_backward(model, x), exact, rtol=1e-10)  # the oracle below
    np.testing.assert_allclose(certainties(model, x), exact, rtol=1e-9)
    z = np.random.default_rng(seed).integers(0, N, T)
    np.testing.assert_allclose(run(model, x, z).certainty[:, 0], exact[np.arange(T), z], rtol=1e-9)
    # Wrong twins: what is known from the past alone, and what without the prior of transitions.
    with jax.enable_x64(True):
        filtered = filter_forward(model.tables, window(x[:, :, None], LAGS), np.array([N]))
    assert np.abs(np.asarray(filtered)[..., 0] - exact).max() > 0.02
    alone = np.exp(log_likelihoods(model, x))
    assert np.abs(alone / alone.sum(1, keepdims=True) - exact).max() > 0.02


@pytest.mark.parametrize("cut", range(1, T))
def test_segments__that_are_told_what_others_know_are_the_uncut_chain(cut):
    model, x = model_of(5), latent_of(5)
    exact = by_enumeration(model, x)
    z = np.argmin(exact, 1)  # any labels will do
    parts = (x[: cut + LAGS], z[:cut]), (x[cut:], z[cut:])
    left, right = (run(model, *part) for part in parts)
    told = (
        run(model, *parts[0], after=right.message),
        run(model, *parts[1], before=left.predicted),
    )
    found = np.concatenate([part.certainty[:, 0] for part in told])
    np.testing.assert_allclose(found, exact[np.arange(T), z], rtol=1e-9)
    # What is said to the one side never depends on what was heard from the other.
    np.testing.assert_array_equal(told[0].predicted, left.predicted)
    np.testing.assert_array_equal(told[1].message, right.message)
    np.testing.assert_allclose(left.predicted.sum(), 1)
    np.testing.assert_allclose(right.message.max(), 1)
    # Wrong twin: each for itself.
    alone = np.concatenate([left.certainty[:, 0], right.certainty[:, 0]])
    assert np.abs(alone - found).max() > 1e-3


def test_segments__frames_beyond_the_length_do_not_count():
    model, x = model_of(6), latent_of(6)
    short = run(model, x[: 4 + LAGS], np.zeros(4, int))
    padded = np.concatenate([x[: 4 + LAGS], 50 + 0 * x[4 + LAGS :]])
    found = run(model, padded, np.zeros(T, int), length=4)
    np.testing.assert_allclose(found.certainty[:4], short.certainty, rtol=1e-12)
    np.testing.assert_allclose(found.message, short.message, rtol=1e-12)


@pytest.mark.full
def test_float32__is_as_good_as_what_is_published_over_thousands_of_frames():
    model, x = model_of(7, n=12, stay=0.98), latent_of(7, 3000)
    exact = forward_backward(model, x)
    z = np.random.default_rng(0).integers(0, 12, 3000)
    z[::2] = exact[::2].argmax(1)
    found = run(model, x, z, dtype="float32")
    np.testing.assert_allclose(found.certainty[:, 0], exact[np.arange(3000), z], atol=2e-5)


def test_float32__is_finite_where_nearly_everything_underflows():
    """Outliers that only one state explains, and that no other can change to."""
    model = model_of(8)._replace(transition=np.eye(N))
    x = latent_of(8, 40)
    x[10::7] *= 40
    found = run(model, x, np.zeros(40, int), dtype="float32")
    assert all(np.isfinite(part).all() for part in found)
    assert (found.certainty >= 0).all()
    assert (found.certainty <= 1 + 1e-6).all()
    exact = forward_backward(model._replace(transition=np.maximum(np.eye(N), TRANSITION_FLOOR)), x)
    np.testing.assert_allclose(found.certainty[:, 0], exact[:, 0], atol=1e-5)
