"""Likelihood of whole sessions: that of the uncut ones, whatever they were cut into."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from scipy.special import logsumexp

from kpms_zarr.compute.kernels.dynamics import Dynamics
from kpms_zarr.compute.sampler import certainty, likelihood
from kpms_zarr.compute.sampler.chain import Chain, ChainIndex
from kpms_zarr.compute.sampler.likelihood import session_log_likelihoods
from kpms_zarr.compute.sampler.segments import TileShape
from kpms_zarr.compute.sampler.stream import Pipeline
from kpms_zarr.compute.sampler.sweep import Sweeper
from kpms_zarr.compute.sampler.tile_model import Parameters
from kpms_zarr.store.core.access import Session

LAGS, M, N = 2, 2, 5
SHAPE = TileShape(8, 16)
LENGTHS = {
    "long": 700, "one segment": LAGS + 16, "two": LAGS + 32, "and one": LAGS + 33,
    "no label": LAGS, "one frame": 1, "one label": LAGS + 1, "b": 331, "a": 57,
}  # fmt: skip


def parameters_of(stay: float = 0.9) -> Parameters:
    rng = np.random.default_rng(0)
    weight_bias = 0.2 * rng.normal(size=(N, M, M * LAGS + 1))
    weight_bias[:, :, -1] = rng.normal(size=(N, M))
    root = 0.3 * rng.normal(size=(N, M, M))
    covariance = root @ root.transpose(0, 2, 1) + 0.5 * np.eye(M)
    transition = stay * np.eye(N) + (1 - stay) * rng.dirichlet(np.ones(N), N)
    return Parameters(Dynamics(weight_bias, covariance), np.full(N, 1 / N), transition)


def sweeper_of(
    lengths: dict[str, int], *, home: str = "host", dtype: str = "float32", n_in_flight: int = 2
) -> Sweeper:
    sessions = [Session(name, i, n, 30.0) for i, (name, n) in enumerate(lengths.items())]
    index = ChainIndex.of(sessions, LAGS)
    chain = Chain(index, n_latent=M, n_space=2, dtype=dtype, home=home)
    for session, first in zip(index.sessions, index.first, strict=True):
        rng = np.random.default_rng([ord(letter) for letter in session.name])
        frames = slice(first, first + session.n_frames)
        chain.latent[frames] = rng.normal(size=(session.n_frames, M))
    return Sweeper(chain=chain, n_states=N, pipeline=Pipeline(n_in_flight), seed=0, shape=SHAPE)


def found_of(sweeper: Sweeper, parameters: Parameters, **options: Any) -> dict[str, float]:
    values = session_log_likelihoods(sweeper, parameters, **options)
    return {s.name: v for s, v in zip(sweeper.chain.index.sessions, values, strict=True)}


def exact(x: np.ndarray, parameters: Parameters, n_scored: int = M, first_frame: int = 0) -> float:
    """Of one uncut session, by logarithms in float64."""
    x = x.astype(np.float64)
    if len(x) <= LAGS:
        return 0.0
    past = np.concatenate([x[i : len(x) - LAGS + i] for i in range(LAGS)], 1)
    regressor = np.concatenate([past, np.ones((len(past), 1))], 1)
    weight_bias, covariance = parameters.dynamics
    residual = x[LAGS:, None] - np.einsum("nmd,td->tnm", weight_bias, regressor)

    def log_density(n_dims: int) -> np.ndarray:
        corner = covariance[:, :n_dims, :n_dims]
        r = residual[..., :n_dims]
        square = (r * np.einsum("nij,tnj->tni", np.linalg.inv(corner), r)).sum(-1)
        return -0.5 * (square + np.linalg.slogdet(corner)[1] + n_dims * np.log(2 * np.pi))

    of_all, of_some = log_density(M), log_density(n_scored)
    log_pi, predicted, total = np.log(parameters.transition), np.full(N, -np.log(N)), 0.0
    for t in range(len(of_all)):
        if t + LAGS >= first_frame:
            total += logsumexp(predicted + of_some[t])
        filtered = predicted + of_all[t]
        filtered -= logsumexp(filtered)
        predicted = logsumexp(filtered[:, None] + log_pi, axis=0)
    return float(total)


def assert_exact(sweeper: Sweeper, parameters: Parameters, found: dict[str, float], **options: Any):
    index = sweeper.chain.index
    for session, first in zip(index.sessions, index.first, strict=True):
        x = np.asarray(sweeper.chain.latent[first : first + session.n_frames])
        expected = exact(x, parameters, **options)
        assert found[session.name] == pytest.approx(expected, rel=3e-6, abs=1e-3), session.name


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("options", [{}, {"n_scored": 1}, {"first_frame": 40}])
def test_likelihood__is_that_of_the_uncut_sessions(dtype, options):
    sweeper, parameters = sweeper_of(LENGTHS, dtype=dtype), parameters_of()
    found = found_of(sweeper, parameters, **options)
    assert_exact(sweeper, parameters, found, **options)
    # Wrong twin: other transitions are told apart.
    with pytest.raises(AssertionError):
        assert_exact(sweeper, parameters_of(stay=0.85), found, **options)


def test_likelihood__segments_on_their_own_are_not_that(monkeypatch):
    """Wrong twin: without what the segment before says, the test above fails."""
    sweeper, parameters = sweeper_of(LENGTHS), parameters_of()
    monkeypatch.setattr(likelihood, "_TOLERANCE", np.inf)
    with pytest.raises(AssertionError):
        assert_exact(sweeper, parameters, found_of(sweeper, parameters))


def test_likelihood__where_the_past_matters_for_long(monkeypatch):
    """Then segments run one after the other, with the same result."""
    sweeper, parameters = sweeper_of({"long": 700}), parameters_of(stay=1 - 1e-9)
    monkeypatch.setattr(likelihood, "_PASSES_AT_ONCE", 1)
    # States that nothing tells apart but the first frames: nothing is forgotten.
    covariance = np.tile(4.0 * np.eye(M), (N, 1, 1))
    weight_bias = np.zeros((N, M, M * LAGS + 1))
    weight_bias[:, 0, -1] = np.linspace(0, 1e-3, N)
    parameters = parameters._replace(dynamics=Dynamics(weight_bias, covariance))
    assert_exact(sweeper, parameters, found_of(sweeper, parameters))


@pytest.mark.parametrize("home", ["host", "disk", "device"])
@pytest.mark.parametrize("n_in_flight", [1, 3])
def test_likelihood__same_bits_for_any_budget_and_any_sessions_beside(
    home, n_in_flight, monkeypatch
):
    parameters = parameters_of()
    reference = found_of(sweeper_of(LENGTHS), parameters)
    few = dict(reversed([item for item in LENGTHS.items() if item[0] in ("b", "long", "two")]))
    monkeypatch.setattr(certainty, "_GROUP_FRAMES", 1)
    monkeypatch.setattr(certainty, "_GROUP_TILES", 0)
    monkeypatch.setattr(likelihood, "_ROWS", 3)
    sweeper = sweeper_of(few, home=home, n_in_flight=n_in_flight)
    with sweeper.chain:
        found = found_of(sweeper, parameters)
    assert found == {name: reference[name] for name in few}
