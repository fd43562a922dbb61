"""Evidence of labels, all parameters integrated out, and states merged by it (model.md 3.9)."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from scipy.special import gammaln, multigammaln

from kpms_zarr.compute.kernels.ar import feature_pairs, unpack
from kpms_zarr.compute.kernels.dynamics import DynamicsPrior, posterior_of
from kpms_zarr.compute.kernels.transitions import TransitionPrior

_PAIRS_AT_ONCE = 256
"""Pairs of states whose moments exist at a time."""


class LogEvidence(NamedTuple):
    """Parts of log p(x, z | kappa and the other hyperparameters), in nat.

    Attributes
    ----------
    dynamics : float
        log p(x | z): the latent pose given the first ``lags`` frames of every session, with
        A, b and Q of all states integrated out.
    transitions : float
        log p(z | first label of every session), with all rows of the transition matrix integrated
        out given even global weights.
    """

    dynamics: float
    transitions: float


def log_evidence(
    moments: np.ndarray,
    weight_bias: np.ndarray,
    counts: np.ndarray,
    dynamics: DynamicsPrior,
    transition: TransitionPrior,
) -> LogEvidence:
    """Log evidence of labels by their sums.

    Parameters
    ----------
    moments : (state, pair)
        Of residuals under ``weight_bias`` (:func:`kernels.ar.tile_moments`).
    weight_bias : (state, latent, lag * latent + 1)
    counts : (state, state)
        Transitions between consecutive frames.
    """
    return LogEvidence(
        float(dynamics_evidence(moments, weight_bias, dynamics).sum()),
        float(transition_evidence(counts, transition).sum()),
    )


def dynamics_evidence(
    moments: np.ndarray, weight_bias: np.ndarray, prior: DynamicsPrior
) -> np.ndarray:
    """Log marginal likelihood of the frames of each state: (state,), 0 of a state without any.

    Product of the predictive densities, Student's t, of one frame after the other, in closed form
    by the normalising constants of prior and posterior (matrix-normal inverse-Wishart: Fox et al.,
    IEEE Trans. Signal Process. 59:1569, 2011, section III).

    Parameters
    ----------
    moments : (state, pair)
        Of residuals under ``weight_bias``.
    weight_bias : (state, latent, lag * latent + 1)
        Any reference; the result depends on it by rounding alone.
    """
    _, m, d = weight_bias.shape
    posterior = posterior_of(moments, weight_bias, prior)
    n, dof = posterior.dof - prior.dof, posterior.dof
    of_covariance = multigammaln(0.5 * dof, m) - multigammaln(0.5 * prior.dof, m)
    of_covariance += 0.5 * prior.dof * m * np.log(prior.innovation_scale)
    of_covariance -= 0.5 * dof * np.linalg.slogdet(posterior.scatter)[1]
    of_weight = d * np.log(prior.weight_scale) + np.linalg.slogdet(posterior.precision)[1]
    found: np.ndarray = of_covariance - 0.5 * m * (n * np.log(np.pi) + of_weight)
    return found


def transition_evidence(counts: np.ndarray, prior: TransitionPrior) -> np.ndarray:
    """Log probability of the transitions out of each state: (state,), 0 of a state without any.

    Rows pi_i ~ Dir(alpha beta + kappa e_i) are integrated out, beta stays at its prior mean, 1 / N
    each, so that no number of a state matters.

    Parameters
    ----------
    counts : (state, state)
        Transitions between consecutive frames, of all N states.
    """
    even = prior.alpha / len(counts)
    stays = np.diagonal(counts)
    gain = _rise(counts, even)
    np.fill_diagonal(gain, _rise(stays, even + prior.kappa))
    found: np.ndarray = gain.sum(1) - _rise(counts.sum(1), prior.alpha + prior.kappa)
    return found


def _rise(count: np.ndarray, start: float) -> np.ndarray:
    """Log of Gamma(start + count) / Gamma(start); exactly 0 where there is no count."""
    found: np.ndarray = gammaln(start + count) - gammaln(start)
    return found


# ------------------------------------------------------------------ moments by another reference


def recentred(moments: np.ndarray, current: np.ndarray, reference: np.ndarray) -> np.ndarray:
    """Moments of residuals under ``reference`` instead of ``current``, in float64.

    r' = r + ([A b]_current - [A b]_reference) xt, so that features are multiplied by a triangular
    matrix of determinant 1, and their sums of products from both sides.

    Parameters
    ----------
    moments : (state, pair)
    current, reference : (state, latent, lag * latent + 1)
        Or without states, one for all.
    """
    n_latent, d = np.shape(current)[-2:]
    rows, columns = feature_pairs(n_latent, (d - 1) // n_latent)
    full = np.zeros((len(moments), d + n_latent, d + n_latent))
    full[:, rows, columns] = full[:, columns, rows] = moments
    turn = np.tile(np.eye(d + n_latent), (len(moments), 1, 1))
    turn[:, d:, :d] = np.asarray(current) - reference
    found: np.ndarray = (turn @ full @ turn.transpose(0, 2, 1))[:, rows, columns]
    return found


def pooled(moments: np.ndarray, weight_bias: np.ndarray, target: np.ndarray) -> np.ndarray:
    """Moments after every state ``i`` has become ``target[i]``: (state, pair).

    Those of a state that stays remain residuals under its own ``weight_bias``.
    """
    found = np.zeros_like(moments)
    np.add.at(found, target, recentred(moments, weight_bias, weight_bias[target]))
    return found


# ------------------------------------------------------------------ merging


def merge_states(
    moments: np.ndarray,
    weight_bias: np.ndarray,
    counts: np.ndarray,
    dynamics: DynamicsPrior,
    transition: TransitionPrior,
    *,
    margin: float = 0.0,
) -> np.ndarray:
    """Merge pairs of states, the one that gains most evidence first, while one gains.

    Greedy agglomeration by Bayes factors as of Heller and Ghahramani (ICML 2005), for states of a
    sticky HDP AR-HMM (**ours**). An optimiser, not a move that keeps the posterior: for burn-in.

    Parameters
    ----------
    moments : (state, pair)
        Of residuals under ``weight_bias``.
    weight_bias : (state, latent, lag * latent + 1)
    counts : (state, state)
        Transitions between consecutive frames.
    margin : float
        Gain, in nat, that a merge must exceed.

    Returns
    -------
    (state,) int64
        State that each becomes; of a merged pair the one with more frames stays. States without
        frames stay as they are.
    """
    search = _Search.of(moments, weight_bias, counts, dynamics, transition)
    target = np.arange(len(counts))
    while len(search.state) > 1:
        gain = search.gain
        pair = np.unravel_index(np.argmax(gain), gain.shape)
        if not gain[pair] > margin:
            break
        stays, goes = sorted(pair, key=lambda row: (-search.n_frames[row], row))
        target[target == search.state[goes]] = search.state[stays]
        search.merge(int(stays), int(goes))
    return target


def merge_gains(
    moments: np.ndarray,
    weight_bias: np.ndarray,
    counts: np.ndarray,
    dynamics: DynamicsPrior,
    transition: TransitionPrior,
) -> np.ndarray:
    """Gain of evidence, in nat, when two states become one: (state, state), symmetric.

    -inf on the diagonal and where a state has no frames.
    """
    search = _Search.of(moments, weight_bias, counts, dynamics, transition)
    found = np.full(counts.shape, -np.inf)
    found[np.ix_(search.state, search.state)] = search.gain
    return found


@dataclass
class _Search:
    """Search over the states that have frames, and what each pair of them would gain.

    Attributes
    ----------
    state : (row,)
        States that are left.
    moments : (row, pair)
        Of residuals under the prior mean.
    counts : (row, row) float64
        Transitions.
    evidence : (row,)
        Of the dynamics.
    of_dynamics : (row, row)
        Gain of the dynamics by pair.
    """

    state: np.ndarray
    moments: np.ndarray
    counts: np.ndarray
    evidence: np.ndarray
    of_dynamics: np.ndarray
    n_states: int
    dynamics: DynamicsPrior
    transition: TransitionPrior

    @classmethod
    def of(
        cls,
        moments: np.ndarray,
        weight_bias: np.ndarray,
        counts: np.ndarray,
        dynamics: DynamicsPrior,
        transition: TransitionPrior,
    ) -> _Search:
        """Search from labels as they are."""
        n_latent, d = dynamics.mean.shape
        count, *_ = unpack(moments, n_latent, (d - 1) // n_latent)
        state = np.flatnonzero(count > 0)
        common = recentred(moments[state], weight_bias[state], dynamics.mean)
        found = cls(
            state,
            common,
            counts[np.ix_(state, state)].astype(float),
            np.zeros(len(state)),
            np.full((len(state), len(state)), -np.inf),
            len(counts),
            dynamics,
            transition,
        )
        found.evidence = found._evidence(common)
        for left, right in _pairs(len(state)):
            found._compare(left, right)
        return found

    @property
    def n_frames(self) -> np.ndarray:
        """Frames of each state: (row,)."""
        n_latent, d = self.dynamics.mean.shape
        return unpack(self.moments, n_latent, (d - 1) // n_latent)[0]

    @property
    def gain(self) -> np.ndarray:
        """Gain of evidence by pair: (row, row)."""
        return self.of_dynamics + self._of_transitions()

    def merge(self, stays: int, goes: int) -> None:
        """Let one state take the frames of another."""
        self.moments[stays] += self.moments[goes]
        self.counts[stays] += self.counts[goes]
        self.counts[:, stays] += self.counts[:, goes]
        rest = np.delete(np.arange(len(self.state)), goes)
        self.state, self.moments = self.state[rest], self.moments[rest]
        self.counts, self.evidence = self.counts[np.ix_(rest, rest)], self.evidence[rest]
        self.of_dynamics = self.of_dynamics[np.ix_(rest, rest)]
        row = stays - (goes < stays)
        self.evidence[row] = self._evidence(self.moments[row : row + 1])[0]
        others = np.delete(np.arange(len(rest)), row)
        self._compare(np.full_like(others, row), others)

    def _evidence(self, moments: np.ndarray) -> np.ndarray:
        mean = np.broadcast_to(self.dynamics.mean, (len(moments), *self.dynamics.mean.shape))
        return dynamics_evidence(moments, mean, self.dynamics)

    def _compare(self, left: np.ndarray, right: np.ndarray) -> None:
        """Work the gain of the dynamics of some pairs out."""
        joint = self._evidence(self.moments[left] + self.moments[right])
        gain = joint - self.evidence[left] - self.evidence[right]
        self.of_dynamics[left, right] = self.of_dynamics[right, left] = gain

    def _of_transitions(self) -> np.ndarray:
        """Gain of the transitions by pair: rows i and j become one, and so do the columns."""
        even, kappa = self.transition.alpha / self.n_states, self.transition.kappa
        total = self.transition.alpha + kappa
        counts = self.counts
        stays, leaves = np.diagonal(counts), counts.sum(1)
        moves = counts - np.diag(stays)
        gain = _shared(moves, even) + _shared(moves.T, even)
        # What was a move between the two becomes a stay.
        gain -= _rise(moves, even) + _rise(moves, even).T
        joint = stays[:, None] + stays + moves + moves.T
        gain += _joined(joint, stays, even + kappa)
        return gain - _joined(leaves[:, None] + leaves, leaves, total)


def _joined(joint: np.ndarray, alone: np.ndarray, start: float) -> np.ndarray:
    """Rise of the joint count of two states beyond that of each alone: (row, row)."""
    single = _rise(alone, start)
    return _rise(joint, start) - single[:, None] - single


def _shared(moves: np.ndarray, start: float) -> np.ndarray:
    """Sum over rows of what pairs of columns gain when they become one: (column, column).

    A row gives something only where both of its counts are above zero, which are few.
    """
    total = np.zeros((moves.shape[1], moves.shape[1]))
    for row in moves:
        there = np.flatnonzero(row)
        alone = row[there]
        total[np.ix_(there, there)] += _joined(alone[:, None] + alone, alone, start)
    return total


def _pairs(n: int) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """All pairs of n rows, some at a time."""
    left, right = np.triu_indices(n, 1)
    for start in range(0, len(left), _PAIRS_AT_ONCE):
        part = slice(start, start + _PAIRS_AT_ONCE)
        yield left[part], right[part]
