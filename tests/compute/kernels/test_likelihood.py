"""Log likelihood of the latent pose: all paths of labels, added up one by one."""

from __future__ import annotations

import itertools

import jax
import numpy as np
import pytest
from scipy.special import logsumexp
from scipy.stats import multivariate_normal

from kpms_zarr.compute.kernels.dynamics import Dynamics
from kpms_zarr.compute.kernels.hmm import hmm_tables, window
from kpms_zarr.compute.kernels.likelihood import predictive_log_likelihood, tables_of_first

LAGS, M, N, T = 2, 3, 3, 5


def model_of(seed: int) -> tuple[Dynamics, np.ndarray, np.ndarray]:
    rng = np.random.default_rng(seed)
    weight_bias = rng.normal(size=(N, M, M * LAGS + 1)) * 0.4
    root = rng.normal(size=(N, M, M))
    covariance = root @ root.transpose(0, 2, 1) + 0.3 * np.eye(M)
    return Dynamics(weight_bias, covariance), rng.dirichlet(np.ones(N), N), rng.dirichlet([1] * N)


def by_paths(
    x: np.ndarray, dynamics: Dynamics, transition: np.ndarray, before: np.ndarray, n_scored: int
) -> np.ndarray:
    """Log p(first dims of x_t | x_0..x_{t-1}) by enumeration: (frame,)."""
    weight_bias, covariance = dynamics

    def density(n_dims: int) -> np.ndarray:
        found = np.empty((T, N))
        for t, state in itertools.product(range(T), range(N)):
            mean = (weight_bias[state] @ np.append(x[t : t + LAGS].ravel(), 1))[:n_dims]
            corner = covariance[state][:n_dims, :n_dims]
            found[t, state] = multivariate_normal(mean, corner).logpdf(x[t + LAGS][:n_dims])
        return found

    of_all, of_some = density(M), density(n_scored)
    found = []
    for t in range(T):
        of_past, of_both = [], []
        for path in itertools.product(range(N), repeat=t + 1):
            log = np.log(before[path[0]])
            log += sum(np.log(transition[a, b]) for a, b in itertools.pairwise(path))
            log += of_all[range(t), path[:-1]].sum() if t else 0
            of_past.append(log)
            of_both.append(log + of_some[t, path[-1]])
        found.append(logsumexp(of_both) - logsumexp(of_past))
    return np.array(found)


@pytest.mark.parametrize("n_scored", [M, 2, 1])
def test_likelihood__is_the_sum_over_all_paths(n_scored):
    with jax.enable_x64(True):
        for seed in range(3):
            dynamics, transition, before = model_of(seed)
            x = np.random.default_rng(seed + 10).normal(size=(LAGS + T, M))
            tables = hmm_tables(
                dynamics.weight_bias[..., :-1], dynamics.weight_bias[..., -1],
                dynamics.covariance, transition,
            )  # fmt: skip
            some = tables_of_first(dynamics, transition, n_scored) if n_scored < M else None
            windows = window(jax.numpy.asarray(x)[..., None], LAGS)
            gained, predicted = predictive_log_likelihood(tables, some, windows, before[:, None])
            expected = by_paths(x, dynamics, transition, before, n_scored)
            np.testing.assert_allclose(np.asarray(gained)[:, 0], expected, rtol=1e-9)
            assert float(predicted.sum()) == pytest.approx(1)
            # Wrong twin: transitions the other way round.
            other = by_paths(x, dynamics, transition.T, before, n_scored)
            with pytest.raises(AssertionError):
                np.testing.assert_allclose(np.asarray(gained)[:, 0], other, rtol=1e-9)
