"""Table counts, Dirichlet draws and the joint posterior of the sticky HDP."""

import numpy as np
import pytest
from scipy import stats

from kpms_zarr.compute.kernels.transitions import (
    TransitionPrior,
    draw_dirichlet,
    draw_prior_transitions,
    draw_tables,
    draw_transitions,
    log_prior,
)

N = np.array([1, 2, 7, 40, 300, 5000])
A = np.array([0.05, 0.9, 0.5, 2.0, 5.7, 1.0])


def exact_pmf(n: int, a: float, c: float) -> np.ndarray:
    """Distribution of a sum of Bernoulli(a / (c + j)), by convolution."""
    pmf = np.ones(1)
    for j in range(n):
        p = a / (c + j)
        pmf = np.convolve(pmf, [1 - p, p])[:80]
    return pmf


def excess(draws: np.ndarray, pmf: np.ndarray) -> float:
    """Pearson's statistic minus its mean, in standard deviations."""
    expected = pmf * len(draws)
    observed = np.bincount(draws, minlength=len(pmf))[: len(pmf)]
    likely = expected >= 5
    bins = np.append(expected[likely], max(expected[~likely].sum(), 1e-9))
    found = np.append(observed[likely], observed[~likely].sum())
    dof = max(1, likely.sum() - 1)
    return (((found - bins) ** 2 / bins)[bins > 1e-6].sum() - dof) / np.sqrt(2 * dof)


@pytest.mark.parametrize("kappa", [pytest.param(0.0, marks=pytest.mark.full), 3.0, 1e4])
def test_tables__follow_the_exact_distribution(kappa):
    rng = np.random.default_rng(0)
    draws = np.array([draw_tables(rng, N, A, A + kappa) for _ in range(8000)])
    for i, (n, a) in enumerate(zip(N, A, strict=True)):
        assert excess(draws[:, i], exact_pmf(n, a, a + kappa)) < 5
    # Wrong twins: one count more, and a numerator a tenth too large.
    if kappa < 100:  # beyond, a count is nearly always 0 and tells nothing of the numerator
        assert excess(draws[:, 3], exact_pmf(N[3], 1.1 * A[3], 1.1 * A[3] + kappa)) > 5
    assert excess(draws[:, 2] + 1, exact_pmf(N[2], A[2], A[2] + kappa)) > 20


def test_tables__cost_does_not_grow_with_counts():
    """Proposals, not time: random numbers drawn for 1e3 and 1e12 transitions."""

    class Counting:
        def __init__(self):
            self.n = 0
            self._rng = np.random.default_rng(0)

        def geometric(self, p):
            self.n += len(p)
            return self._rng.geometric(p)

        def random(self, size):
            self.n += size
            return self._rng.random(size)

    used = []
    for n in (10**3, 10**12):
        rng = Counting()
        for _ in range(50):
            draw_tables(rng, np.array([n]), np.array([0.5]), np.array([0.5]))
        used.append(rng.n)
    assert used[1] < 8 * used[0]


def test_dirichlet__survives_tiny_concentrations():
    rng = np.random.default_rng(0)
    draw = draw_dirichlet(rng, np.full((200, 50), 1e-4))
    assert np.isfinite(draw).all()
    np.testing.assert_allclose(draw.sum(-1), 1)
    assert (draw.max(-1) > 0.9).mean() > 0.9  # nearly all mass on one entry


def test_dirichlet__moments():
    rng = np.random.default_rng(1)
    a = np.array([0.3, 1.0, 4.0])
    draws = draw_dirichlet(rng, np.broadcast_to(a, (40_000, 3)))
    mean = a / a.sum()
    sd = np.sqrt(mean * (1 - mean) / (a.sum() + 1))
    assert np.abs((draws.mean(0) - mean) / (sd / 200)).max() < 5
    np.testing.assert_allclose(draws.std(0), sd, rtol=0.03)


def joint_test(sampler, n: int, seed: int) -> float:
    """Geweke (2004) for (beta, pi, chain): largest |z| of some functions of beta and pi."""
    prior = TransitionPrior(alpha=3.0, gamma=2.0, kappa=8.0)
    n_states, length = 3, 12
    rng = np.random.default_rng(seed)

    def functions(usage, transition):
        return [
            *usage[:2],
            usage[0] ** 2,
            transition[0, 0],
            transition[0, 1],
            transition[1, 2] ** 2,
        ]

    def simulate_counts(transition):
        counts = np.zeros((n_states, n_states), int)
        z = rng.integers(n_states)
        for _ in range(length):
            following = rng.choice(n_states, p=transition[z])
            counts[z, following] += 1
            z = following
        return counts

    forward = np.array([functions(*draw_prior_transitions(rng, n_states, prior)) for _ in range(n)])
    usage, transition = draw_prior_transitions(rng, n_states, prior)
    successive = []
    for _ in range(n):
        usage, transition = sampler(rng, simulate_counts(transition), usage, prior)
        successive.append(functions(usage, transition))
    successive = np.array(successive)
    batches = successive[: n // 50 * 50].reshape(50, -1, successive.shape[1]).mean(1)
    error = np.sqrt(forward.var(0) / n + batches.var(0, ddof=1) / 50)
    return float(np.abs((forward.mean(0) - successive.mean(0)) / error).max())


def without_thinning(rng, counts, usage, prior):
    """Wrong twin: tables of self-transitions are not thinned (c = alpha beta + kappa = a)."""
    n = len(usage)
    base = prior.alpha * np.broadcast_to(usage, (n, n)) + prior.kappa * np.eye(n)
    tables = draw_tables(rng, counts, base, base)
    usage = draw_dirichlet(rng, prior.gamma / n + tables.sum(0))
    concentration = prior.alpha * usage + prior.kappa * np.eye(n) + counts
    return usage, draw_dirichlet(rng, concentration)


@pytest.mark.slow
def test_transitions__joint_distribution_test(full):
    n = 60_000 if full else 12_000
    assert joint_test(draw_transitions, n, seed=5) < 4.5
    assert joint_test(without_thinning, n, seed=5) > 5


def test_transitions__rows_have_the_closed_form_mean():
    rng = np.random.default_rng(2)
    prior = TransitionPrior(5.7, 1e3, 100.0)
    counts = np.array([[50, 3, 0], [1, 20, 9], [0, 0, 400]])
    usage = np.full(3, 1 / 3)
    draws = [draw_transitions(rng, counts, usage, prior) for _ in range(4000)]
    mean_usage = np.mean([u for u, _ in draws], 0)
    expected = prior.alpha * mean_usage + prior.kappa * np.eye(3) + counts
    expected /= expected.sum(-1, keepdims=True)
    found = np.mean([p for _, p in draws], 0)
    np.testing.assert_allclose(found, expected, atol=5 * 0.5 / np.sqrt(4000 * 60))
    assert stats.entropy(found[2]) < stats.entropy(found[1])


def test_log_prior__equals_that_of_a_library():
    rng = np.random.default_rng(0)
    prior = TransitionPrior(4.0, 6.0, 3.0)
    usage, transition = draw_prior_transitions(rng, 3, prior)
    expected = stats.dirichlet(np.full(3, 2.0)).logpdf(usage)
    for i, row in enumerate(transition):
        expected += stats.dirichlet(4.0 * usage + 3.0 * np.eye(3)[i]).logpdf(row)
    assert log_prior(usage, transition, prior) == pytest.approx(expected, rel=1e-10)
