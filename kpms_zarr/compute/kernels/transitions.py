"""Sticky HDP transitions: table counts, global weights, rows (model.md 3.2; Fox et al. 2011)."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from scipy.special import gammaln

_USAGE_FLOOR = 1e-100
"""With a very small gamma a weight underflows to 0, which is no concentration."""


class TransitionPrior(NamedTuple):
    """Hyperparameters of the sticky HDP.

    Attributes
    ----------
    alpha : float
        Concentration of the rows around the global weights.
    gamma : float
        Concentration of the global weights.
    kappa : float
        Extra mass on staying.
    """

    alpha: float
    gamma: float
    kappa: float


def draw_transitions(
    rng: np.random.Generator, counts: np.ndarray, usage: np.ndarray, prior: TransitionPrior
) -> tuple[np.ndarray, np.ndarray]:
    """Draw global weights and transition matrix given counts and the previous weights.

    Parameters
    ----------
    counts : (state, state) int
        Transitions between consecutive frames.
    usage : (state,)
        Current global weights beta.

    Returns
    -------
    usage : (state,)
        beta ~ Dir(gamma / N + sum_i m_ij).
    transition : (state, state)
        pi_i ~ Dir(alpha beta + kappa e_i + n_i.).
    """
    n_states = len(usage)
    base = prior.alpha * np.broadcast_to(usage, (n_states, n_states))
    sticky = base + prior.kappa * np.eye(n_states)
    tables = draw_tables(rng, counts, base, sticky)
    usage = np.maximum(draw_dirichlet(rng, prior.gamma / n_states + tables.sum(0)), _USAGE_FLOOR)
    concentration = prior.alpha * usage + prior.kappa * np.eye(n_states) + counts
    return usage, draw_dirichlet(rng, concentration)


def draw_prior_transitions(
    rng: np.random.Generator, n_states: int, prior: TransitionPrior
) -> tuple[np.ndarray, np.ndarray]:
    """Draw global weights and transition matrix from the prior."""
    concentration = np.full(n_states, prior.gamma / n_states)
    usage = np.maximum(draw_dirichlet(rng, concentration), _USAGE_FLOOR)
    return usage, draw_dirichlet(rng, prior.alpha * usage + prior.kappa * np.eye(n_states))


def draw_dirichlet(rng: np.random.Generator, concentration: np.ndarray) -> np.ndarray:
    """Dirichlet draw over the last axis, in the log domain: tiny concentrations do not underflow.

    For a < 1 uses Gamma(a) = Gamma(a + 1) U^(1/a).
    """
    log_gamma = np.log(rng.standard_gamma(concentration + 1))
    log_gamma += np.log(1 - rng.random(concentration.shape)) / concentration
    weight = np.exp(log_gamma - log_gamma.max(-1, keepdims=True))
    return weight / weight.sum(-1, keepdims=True)


def draw_tables(
    rng: np.random.Generator, counts: np.ndarray, numerator: np.ndarray, start: np.ndarray
) -> np.ndarray:
    """Auxiliary table counts in O(log n) instead of O(n), exactly.

    The thinned count of Fox et al. is a sum of independent Bernoulli draws with p_j = a / (c + j),
    j = 0..n-1. Cut 0..n-1 into bins in which c + j at most doubles; in a bin that begins at lo, a
    Bernoulli(p_lo) process proposes positions (geometric gaps), and a proposal at j is kept with
    probability p_j / p_lo. About a proposals a bin are made, however long the bin.

    Parameters
    ----------
    counts : (...) int
        n, transitions observed.
    numerator : (...)
        a; alpha beta_j.
    start : (...)
        c; alpha beta_j off the diagonal, alpha beta_i + kappa on it.

    Returns
    -------
    (...) int64
    """
    pair = np.flatnonzero(counts)
    n, a, c = (np.ravel(values)[pair] for values in (counts, numerator, start))
    tables = np.zeros(counts.size, np.int64)
    low = np.zeros(len(pair), np.int64)
    while len(pair):
        high = np.minimum(n, np.maximum(low + 1, np.minimum(2 * low + c, n).astype(np.int64)))
        tables[pair] += _count_in_bin(rng, a, c, low, high)
        is_open = high < n
        pair, n, a, c, low = (v[is_open] for v in (pair, n, a, c, high))
    return tables.reshape(counts.shape)


def _count_in_bin(
    rng: np.random.Generator, a: np.ndarray, c: np.ndarray, low: np.ndarray, high: np.ndarray
) -> np.ndarray:
    """Kept proposals of one bin per pair; one pass of the loop is one proposal in every bin."""
    kept = np.zeros(len(a), np.int64)
    lane = np.arange(len(a))
    position = low - 1
    p_low = np.minimum(1.0, a / (c + low))
    while len(lane):
        # The gap is cut before it is added: a geometric number can exceed every integer type.
        gap = np.minimum(rng.geometric(p_low[lane]), high[lane] - position[lane])
        position[lane] += gap
        lane = lane[position[lane] < high[lane]]
        p = a[lane] / (c[lane] + position[lane])
        kept[lane] += rng.random(len(lane)) * p_low[lane] < p
    return kept


def log_prior(usage: np.ndarray, transition: np.ndarray, prior: TransitionPrior) -> float:
    """Log density of beta and pi under their Dirichlet priors."""
    n_states = len(usage)
    sticky = prior.alpha * usage + prior.kappa * np.eye(n_states)
    even = np.full((1, n_states), prior.gamma / n_states)
    return _log_dirichlet(usage[None], even) + _log_dirichlet(transition, sticky)


def _log_dirichlet(values: np.ndarray, concentration: np.ndarray) -> float:
    """Sum of log densities over rows; values that underflowed count as the smallest number."""
    log_values = np.log(np.maximum(values, np.finfo(float).tiny))
    constant = gammaln(concentration.sum(-1)) - gammaln(concentration).sum(-1)
    return float((constant + ((concentration - 1) * log_values).sum(-1)).sum())
