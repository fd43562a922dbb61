"""The AR stage as a whole: segments are exact, the joint distribution is right, truth is found."""

from collections.abc import Sequence
from functools import partial

import jax
import numpy as np
import pytest

import kpms_zarr
from kpms_zarr.compute.analysis.agreement import adjusted_rand_index, normalized_mutual_information
from kpms_zarr.compute.kernels.dynamics import (
    Dynamics,
    DynamicsPrior,
    draw_dynamics,
    draw_prior_dynamics,
    prior_mean,
)
from kpms_zarr.compute.kernels.transitions import (
    TransitionPrior,
    draw_prior_transitions,
    draw_transitions,
)
from kpms_zarr.compute.sampler import ar_model
from kpms_zarr.compute.sampler.ar_model import ArModel
from kpms_zarr.compute.sampler.chain import Chain, ChainIndex
from kpms_zarr.compute.sampler.segments import TileShape
from kpms_zarr.compute.sampler.stream import Pipeline
from kpms_zarr.compute.sampler.sweep import Sweeper
from kpms_zarr.compute.sampler.tile_model import Parameters
from kpms_zarr.store.core.access import Session
from kpms_zarr.store.model.models import open_labels
from kpms_zarr.store.study import synthetic

N_STATES, LAGS = 3, 2


def independent(chain, tile, n_states):
    """Wrong twin: segments that know nothing of their neighbours."""
    none = np.full(len(tile.session), n_states, np.int32)
    return none, none


def without_right(chain, tile, n_states, *, right_one):
    """Wrong twin: segments that do not see the label after them."""
    left, _ = right_one(chain, tile, n_states)
    return left, np.full(len(tile.session), n_states, np.int32)


def overwriting(tables, before, drawn, is_own):
    """Wrong twin: labels that are not drawn this time are taken away and cannot come back."""
    return drawn


ALL = ArModel()
SOME = ArModel(np.array([0, 2]))
"""Two of the three states."""


def exact_marginals(x: np.ndarray, parameters: Parameters) -> np.ndarray:
    """P(z_t | all x) of one session by forward-backward over the uncut session, (frame, state)."""
    dynamics, _, pi = parameters
    n = len(x) - LAGS
    likelihood = np.empty((n, N_STATES))
    for t in range(n):
        past = np.append(x[t : t + LAGS].ravel(), 1)
        r = x[t + LAGS] - dynamics.weight_bias @ past
        quadratic = np.einsum("ni,nij,nj->n", r, np.linalg.inv(dynamics.covariance), r)
        likelihood[t] = np.exp(-quadratic / 2) / np.sqrt(np.linalg.det(dynamics.covariance))
    forward, backward = np.empty((n, N_STATES)), np.ones((n, N_STATES))
    predicted = np.full(N_STATES, 1 / N_STATES)
    for t in range(n):
        forward[t] = predicted * likelihood[t]
        forward[t] /= forward[t].sum()
        predicted = forward[t] @ pi
    for t in range(n - 2, -1, -1):
        backward[t] = pi @ (likelihood[t + 1] * backward[t + 1])
        backward[t] /= backward[t].sum()
    marginal = forward * backward
    return marginal / marginal.sum(-1, keepdims=True)


def segment_error(n_sweeps: int, models: Sequence[ArModel] = (ALL,)) -> float:
    """Largest |z| of label frequencies of a chain of short segments against the exact marginals.

    ``models``: of the sweeps, in turn.
    """
    rng = np.random.default_rng(3)
    pi = 0.8 * np.eye(N_STATES) + 0.2 / N_STATES
    weight_bias = np.zeros((N_STATES, 1, LAGS + 1))
    weight_bias[:, 0, -1] = [-0.7, 0.0, 0.7]
    dynamics = Dynamics(weight_bias, np.full((N_STATES, 1, 1), 1.0))
    parameters = Parameters(dynamics, np.full(N_STATES, 1 / N_STATES), pi)
    lengths = (25, 40)
    index = ChainIndex.of([Session(f"s{i}", i, n, 30.0) for i, n in enumerate(lengths)], LAGS)
    with Chain(index, n_latent=1, n_space=2, dtype="float64") as chain:
        chain.latent[:] = rng.normal(size=chain.latent.shape)
        chain.syllable[:] = 0
        for first in index.first:
            chain.syllable[first : first + LAGS] = -1
        exact = np.full((index.n_frames, N_STATES), np.nan)
        for first, n in zip(index.first, lengths, strict=True):
            x = np.asarray(chain.latent[first : first + n])
            exact[first + LAGS : first + n] = exact_marginals(x, parameters)
        sweeper = Sweeper(
            chain=chain,
            n_states=N_STATES,
            shape=TileShape.of(index, 6),
            pipeline=Pipeline(1),
            seed=1,
        )
        seen = np.empty((n_sweeps, index.n_frames), np.int8)
        for i in range(n_sweeps):
            sweeper.sweep(models[i % len(models)], parameters, i)
            seen[i] = chain.syllable
    is_real = ~np.isnan(exact[:, 0])
    worst = 0.0
    for state in range(N_STATES):
        hits = (seen[:, is_real] == state).astype(float)
        batches = hits[: n_sweeps // 40 * 40].reshape(40, -1, hits.shape[1]).mean(1)
        error = batches.std(0, ddof=1) / np.sqrt(40)
        worst = max(worst, float(np.abs((hits.mean(0) - exact[is_real, state]) / error).max()))
    return worst


@pytest.mark.full
@pytest.mark.slow
def test_segments__have_the_posterior_of_the_uncut_session(full, monkeypatch):
    n_sweeps = 8000 if full else 1600
    assert segment_error(n_sweeps) < 5.5
    monkeypatch.setattr(ar_model, "neighbours", independent)
    assert segment_error(n_sweeps) > 10


@pytest.mark.slow
def test_segments__have_it_too_when_some_states_rest_most_of_the_time(full, monkeypatch):
    n_sweeps = 8000 if full else 800
    assert segment_error(n_sweeps, [ALL, SOME, SOME]) < 5.5
    monkeypatch.setattr(ar_model, "holding", overwriting)
    plain, names = ar_model.sample_tile.__wrapped__, ("lags", "n_frames")
    anew = jax.jit(lambda *args, **sizes: plain(*args, **sizes), static_argnames=names)
    monkeypatch.setattr(ar_model, "sample_tile", anew)
    assert segment_error(n_sweeps // 2, [ALL, SOME, SOME]) > 10


N_LATENT, LENGTHS = 2, (11, 17)
PRIOR = DynamicsPrior(prior_mean(N_LATENT, LAGS), 0.02, 2.0, N_LATENT + 12)
STICKY = TransitionPrior(3.0, 4.0, 4.0)


def draw_parameters(rng: np.random.Generator) -> Parameters:
    return Parameters(
        draw_prior_dynamics(rng, N_STATES, PRIOR), *draw_prior_transitions(rng, N_STATES, STICKY)
    )


def draw_labels(rng: np.random.Generator, pi: np.ndarray) -> list[np.ndarray]:
    below = np.cumsum(pi, 1)
    sessions = []
    for n in LENGTHS:
        z = [int(rng.integers(N_STATES))]
        for u in rng.random(n - LAGS - 1):
            z.append(min(int(np.searchsorted(below[z[-1]], u)), N_STATES - 1))
        sessions.append(np.array(z))
    return sessions


def functions(p: Parameters, labels: list[np.ndarray]) -> list[float]:
    z = np.concatenate(labels)
    a, q = p.dynamics.weight_bias, p.dynamics.covariance
    stays = np.mean(np.concatenate([s[1:] == s[:-1] for s in labels]))
    return [
        a[0, 0, 0], a[1, 0, 2], a[0, 1, -1] ** 2, np.log(np.linalg.det(q[0])), q[1, 0, 1],
        p.usage[0], p.transition[0, 0], p.transition[1, 2], (z == 0).mean(),
        (z == 0).mean() ** 2, stays, stays**2,
    ]  # fmt: skip


def forward(n: int, seed: int) -> np.ndarray:
    """Functions of independent draws from the prior."""
    rng = np.random.default_rng(seed)
    drawn = (draw_parameters(rng) for _ in range(n))
    return np.array([functions(p, draw_labels(rng, p.transition)) for p in drawn])


def successive(n: int, seed: int, models: Sequence[ArModel] = (ALL,)) -> np.ndarray:
    """Functions of a chain that draws data given all else, and all else given the data."""
    index = ChainIndex.of([Session(f"g{i}", i, n, 30.0) for i, n in enumerate(LENGTHS)], LAGS)
    rng = np.random.default_rng(seed)

    def simulate_data(chain: Chain, dynamics: Dynamics) -> None:
        root = np.linalg.cholesky(dynamics.covariance)
        for first, n in zip(index.first, LENGTHS, strict=True):
            x = np.zeros((n, N_LATENT))
            x[:LAGS] = 1.0  # known, as in the model of this stage
            noise = rng.normal(size=x.shape)
            for t in range(LAGS, n):
                z = chain.syllable[first + t]
                past = np.append(x[t - LAGS : t].ravel(), 1)
                x[t] = dynamics.weight_bias[z] @ past + root[z] @ noise[t]
            chain.latent[first : first + n] = x

    found = []
    with Chain(index, n_latent=N_LATENT, n_space=2, dtype="float64") as chain:
        sweeper = Sweeper(
            chain=chain,
            n_states=N_STATES,
            shape=TileShape.of(index, 4),
            pipeline=Pipeline(1),
            seed=seed,
        )
        p = draw_parameters(rng)
        places = [slice(f + LAGS, f + n) for f, n in zip(index.first, LENGTHS, strict=True)]
        for place, z in zip(places, draw_labels(rng, p.transition), strict=True):
            chain.syllable[place] = z
        for i in range(n):
            simulate_data(chain, p.dynamics)
            result = sweeper.sweep(models[i % len(models)], p, i)
            dynamics = draw_dynamics(rng, result.sums.moments, p.dynamics.weight_bias, PRIOR)
            p = Parameters(
                dynamics, *draw_transitions(rng, result.counts.transitions, p.usage, STICKY)
            )
            found.append(functions(p, [np.array(chain.syllable[place]) for place in places]))
    return np.array(found)


def geweke(a: np.ndarray, b: np.ndarray) -> float:
    """Geweke's joint-distribution test: largest |z| of what was drawn forward and successively."""
    batches = b[: len(b) // 40 * 40].reshape(40, -1, b.shape[1]).mean(1)
    error = np.sqrt(a.var(0) / len(a) + batches.var(0, ddof=1) / 40)
    return float(np.abs((a.mean(0) - b.mean(0)) / error).max())


@pytest.mark.slow
def test_ar_sweep__joint_distribution_test(full, monkeypatch):
    n = 12_000 if full else 1200
    drawn = forward(4 * n, 1)
    assert geweke(drawn, successive(n, 2)) < 4.5
    assert geweke(drawn, successive(n, 3, [ALL, SOME])) < 4.5
    twin = partial(without_right, right_one=ar_model.neighbours)
    monkeypatch.setattr(ar_model, "neighbours", twin)
    assert geweke(drawn, successive(n, 2)) > 6


@pytest.mark.full
@pytest.mark.slow
def test_fit__recovers_simulated_syllables(tmp_path, full, capsys):
    """10 sessions x 10,000 frames, 12 syllables; a broken sampler stays far below the bound."""
    study = synthetic.SyntheticStudy(n_sessions=10, n_frames=10_000)
    store = tmp_path / "s.zarr"
    synthetic.write_store(store, study)
    kpms_zarr.pca(store, variance=0.99)
    truth = np.stack([synthetic.simulate_session(study, i).syllable for i in range(10)])
    config = kpms_zarr.FitConfig(stage="ar", sweeps=100 if full else 50)
    result = kpms_zarr.fit(store, model="m", config=config)
    found = open_labels(store, "m")["syllable"].values
    score = adjusted_rand_index(found, truth)
    mutual = normalized_mutual_information(found, truth)
    with capsys.disabled():
        print(f"\nARI {score:.3f}, NMI {mutual:.3f}, {result.n_used} of 12 syllables in use")
    assert score > 0.95
    assert 11 <= result.n_used <= 14
    # Wrong twins: the truth five frames late, and two of its syllables merged with others.
    assert adjusted_rand_index(np.roll(truth, 5, 1), truth) < 0.8
    assert adjusted_rand_index(truth // 2, truth) < 0.8
