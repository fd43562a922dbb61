"""The full stage as a whole: the joint distribution is right, and segments and gaps are exact."""

from __future__ import annotations

import sys
from contextlib import contextmanager
from dataclasses import replace
from functools import lru_cache, partial, partialmethod
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from kpms_zarr.compute.errors import SamplingError
from kpms_zarr.compute.kernels import rng as streams
from kpms_zarr.compute.kernels.dynamics import (
    Dynamics,
    DynamicsPrior,
    draw_dynamics,
    prior_mean,
)
from kpms_zarr.compute.kernels.noise import draw_noise_variance
from kpms_zarr.compute.kernels.pose import PoseMap
from kpms_zarr.compute.kernels.transitions import TransitionPrior, draw_transitions
from kpms_zarr.compute.sampler import full_model, full_tile
from kpms_zarr.compute.sampler import segments as segments_module
from kpms_zarr.compute.sampler.chain import NO_STATE, Chain, ChainIndex
from kpms_zarr.compute.sampler.full_model import FullModel, Observation
from kpms_zarr.compute.sampler.full_tile import FixedSettings, sample_full_tile
from kpms_zarr.compute.sampler.segments import Tile, TileShape
from kpms_zarr.compute.sampler.stream import Pipeline
from kpms_zarr.compute.sampler.sweep import Sweeper, SweepResult
from kpms_zarr.compute.sampler.tile_model import Parameters
from kpms_zarr.store.core.access import Session

pytestmark = pytest.mark.slow

N_STATES, LAGS, N_LATENT = 3, 2, 2
DYNAMICS = DynamicsPrior(0.9 * prior_mean(N_LATENT, LAGS), 0.3, 4.0, N_LATENT + 12)
STICKY = TransitionPrior(3.0, 4.0, 4.0)
NOISE_DOF, NOISE_SCALE, SIGMA_DOF = 7, 0.4, 12.0
LATENT_VARIANCE, CENTROID_VARIANCE, STEP_VARIANCE = 1.0, 2.0, 0.5
SETTINGS = FixedSettings(NOISE_DOF, LATENT_VARIANCE, CENTROID_VARIANCE, False)
N_CHAINS = 40
TINY = (17, 9, 3)


@contextmanager
def traced_with(where, **what):
    """Something else in the code of the tile, which is traced anew for it."""

    def sample(*args, settings, lags):
        return sample_full_tile.__wrapped__(*args, settings=settings, lags=lags)

    with pytest.MonkeyPatch.context() as patch:
        for name, value in what.items():
            patch.setattr(where, name, value)
        anew = jax.jit(sample, static_argnames=("settings", "lags"))
        patch.setattr(full_model, "sample_full_tile", anew)
        yield


# ------------------------------------------------------------------ the model, naively


class Study(NamedTuple):
    """What is given: sizes, priors that differ between frames, and what is missing."""

    lengths: tuple[int, ...]
    n_space: int
    loading: np.ndarray
    mean: np.ndarray
    prior_scale: np.ndarray
    seen: np.ndarray
    half_seen: np.ndarray
    is_reversed: bool = False

    @property
    def index(self) -> ChainIndex:
        sessions = [Session(f"g{i:03}", i, n, 30.0) for i, n in enumerate(self.lengths)]
        return ChainIndex.of(sessions[::-1] if self.is_reversed else sessions, LAGS)

    @property
    def parts(self) -> list[slice]:
        ends = np.cumsum(self.lengths)
        return [slice(end - n, end) for end, n in zip(ends, self.lengths, strict=True)]

    @property
    def observation(self) -> Observation:
        sigma = np.full(len(self.mean), NOISE_SCALE)
        return Observation(PoseMap(self.loading, self.mean), sigma, STEP_VARIANCE)


class State(NamedTuple):
    """Draws from the joint distribution, (draw, ...) each; frames of all sessions end to end."""

    x: np.ndarray
    v: np.ndarray
    h: np.ndarray
    s: np.ndarray
    z: np.ndarray
    y: np.ndarray
    weight_bias: np.ndarray
    covariance: np.ndarray
    usage: np.ndarray
    transition: np.ndarray
    sigma: np.ndarray


def study(n_space: int, lengths: tuple[int, ...], seed: int = 0) -> Study:
    """Some keypoints missing here and there, a frame without any, a keypoint never seen."""
    rng = np.random.default_rng(seed)
    n_keypoints, n_frames = 6 - n_space, sum(lengths)
    centering = np.eye(n_keypoints) - 1 / n_keypoints
    loading = np.einsum("kj,jdm->kdm", centering, rng.normal(size=(n_keypoints, n_space, N_LATENT)))
    mean = centering @ rng.normal(size=(n_keypoints, n_space)) * 1.5
    seen = rng.random((n_frames, n_keypoints)) > 0.15
    seen[6] = False
    seen[lengths[0] : lengths[0] + lengths[1], 1] = False
    seen[2] = seen[lengths[0] - 1] = True
    half_seen = ~seen & (rng.random(seen.shape) < 0.3)
    prior_scale = rng.uniform(0.4, 1.6, seen.shape).astype(np.float32)
    return Study(lengths, n_space, loading, mean, prior_scale, seen, half_seen)


def rotation(h: np.ndarray, n_space: int) -> np.ndarray:
    r = np.zeros((*h.shape, n_space, n_space))
    r[..., 0, 0] = r[..., 1, 1] = np.cos(h)
    r[..., 0, 1], r[..., 1, 0] = -np.sin(h), np.sin(h)
    if n_space == 3:
        r[..., 2, 2] = 1
    return r


def placed_pose(g: Study, x: np.ndarray, v: np.ndarray, h: np.ndarray) -> np.ndarray:
    """R(h) p(x) + v, (..., frame, keypoint, space)."""
    pose = np.einsum("kdm,...m->...kd", g.loading, x) + g.mean
    return np.einsum("...ij,...kj->...ki", rotation(h, g.n_space), pose) + v[..., None, :]


def draw_positions(
    rng: np.random.Generator, g: Study, x: np.ndarray, v: np.ndarray, h: np.ndarray, s: np.ndarray,
    sigma: np.ndarray,
) -> np.ndarray:  # fmt: skip
    """Y; NaN where missing, and one coordinate NaN is as good as all."""
    deviation = np.sqrt(s * sigma)[..., None]
    y = placed_pose(g, x, v, h) + deviation * rng.normal(size=(*s.shape, g.n_space))
    y[..., ~g.seen, :] = np.nan
    y[..., g.half_seen, 0] = 9.0
    return y


def draw_prior(rng: np.random.Generator, g: Study, n: int) -> State:
    """Draws from the generative model of section 2."""
    m, d = N_LATENT, N_LATENT * LAGS + 1
    vectors = rng.normal(size=(n, N_STATES, int(DYNAMICS.dof), m))
    wishart = np.einsum("...ni,...nj->...ij", vectors, vectors) / DYNAMICS.innovation_scale
    covariance = np.linalg.inv(wishart)
    root = np.linalg.cholesky(covariance)
    spread = np.sqrt(DYNAMICS.weight_scale) * rng.normal(size=(n, N_STATES, m, d))
    weight_bias = DYNAMICS.mean + root @ spread
    usage = rng.dirichlet(np.full(N_STATES, STICKY.gamma / N_STATES), n)
    gamma = rng.gamma(STICKY.alpha * usage[:, None] + STICKY.kappa * np.eye(N_STATES))
    transition = gamma / gamma.sum(-1, keepdims=True)
    sigma = NOISE_SCALE * SIGMA_DOF / rng.chisquare(SIGMA_DOF, (n, len(g.mean)))
    n_frames, each = sum(g.lengths), np.arange(n)
    x = np.empty((n, n_frames, m))
    v = np.empty((n, n_frames, g.n_space))
    z = np.full((n, n_frames), NO_STATE)
    for part in g.parts:
        for t in range(part.start, part.stop):
            if t == part.start:
                v[:, t] = np.sqrt(CENTROID_VARIANCE) * rng.normal(size=(n, g.n_space))
            else:
                v[:, t] = v[:, t - 1] + np.sqrt(STEP_VARIANCE) * rng.normal(size=(n, g.n_space))
            if t < part.start + LAGS:
                x[:, t] = np.sqrt(LATENT_VARIANCE) * rng.normal(size=(n, m))
                continue
            if t == part.start + LAGS:
                z[:, t] = rng.integers(N_STATES, size=n)
            else:
                cumulative = transition[each, z[:, t - 1]].cumsum(-1)
                z[:, t] = (cumulative < rng.random((n, 1))).sum(-1).clip(max=N_STATES - 1)
            past = np.concatenate([x[:, t - 2], x[:, t - 1], np.ones((n, 1))], 1)
            x[:, t] = np.einsum("nij,nj->ni", weight_bias[each, z[:, t]], past)
            x[:, t] += np.einsum("nij,nj->ni", root[each, z[:, t]], rng.normal(size=(n, m)))
    h = rng.uniform(-np.pi, np.pi, (n, n_frames))
    s = NOISE_DOF * g.prior_scale / rng.chisquare(NOISE_DOF, (n, *g.prior_scale.shape))
    y = draw_positions(rng, g, x, v, h, s, sigma[:, None])
    return State(x, v, h, s, z, y, weight_bias, covariance, usage, transition, sigma)


# ------------------------------------------------------------------ Geweke's test


def functions(g: Study, state: State) -> dict[str, np.ndarray]:
    """Functions of parameters, what is sampled for each frame, and data: (draw,) each."""
    x, v, h, s, z, y, weight_bias, covariance, usage, transition, sigma = state
    each = np.arange(len(x))[:, None]
    first = np.array([part.start for part in g.parts])
    last = np.array([part.stop - 1 for part in g.parts])
    after = np.setdiff1d(np.arange(x.shape[1]), first)
    third = np.setdiff1d(after, first + 1)
    fourth = np.setdiff1d(third, first + 2)
    f: dict[str, np.ndarray] = {}

    def add(name: str, values: np.ndarray) -> None:
        """Mean over frames (and keypoints); one function for each further dimension."""
        if values.ndim == 1:
            f[name] = values
        elif values.ndim == 2:
            f[name] = values.mean(1)
        else:
            for i in range(values.shape[2]):
                add(f"{name}[{i}]", values[:, :, i])

    # Pose: bounded, for the dynamics that the prior draws may grow.
    bounded = np.tanh(x / 2)
    add("x", bounded)
    add("x square", bounded**2)
    add("x first", bounded[:, first])
    add("x first square", bounded[:, first] ** 2)
    add("x second square", bounded[:, first + 1] ** 2)
    add("x last square", bounded[:, last] ** 2)
    add("x lag 1", bounded[:, after] * bounded[:, after - 1])
    add("x lag 2", bounded[:, third] * bounded[:, third - 2])
    add("x both", bounded[..., 0] * bounded[..., 1])
    add("x step", np.tanh(np.square(x[:, after] - x[:, after - 1])))
    # Innovations.
    past = np.concatenate([x[:, third - 2], x[:, third - 1], np.ones((len(x), len(third), 1))], -1)
    state_of = z[:, third]
    r = x[:, third] - np.einsum("ntij,ntj->nti", weight_bias[each, state_of], past)
    white = np.linalg.solve(np.linalg.cholesky(covariance)[each, state_of], r[..., None])[..., 0]
    add("innovation", white)
    add("innovation square", white**2)
    add("innovation x lag 1", white * np.tanh(x[:, third - 1] / 2))
    add("innovation x lag 2", white * np.tanh(x[:, third - 2] / 2))
    row = {t: i for i, t in enumerate(third)}
    now, before = [row[t] for t in fourth], [row[t - 1] for t in fourth]
    add("innovation lag 1", white[:, now] * white[:, before])
    add("innovation step square", np.square(white[:, now] - white[:, before]).sum(-1))
    # Centroid.
    step = v[:, after] - v[:, after - 1]
    add("v first", v[:, first])
    add("v first square", v[:, first] ** 2)
    add("v step", step)
    add("v step square", step**2)
    add("v step lag 1", (v[:, third] - v[:, third - 1]) * (v[:, third - 1] - v[:, third - 2]))
    add("v last square", v[:, last] ** 2)
    add("v x", v[..., :2] * bounded)
    add("v step x step", step[..., :2] * (bounded[:, after] - bounded[:, after - 1]))
    add("v step innovation", (v[:, third] - v[:, third - 1])[..., :2] * white)
    # Heading, alone and against the direction that the data point to.
    add("cos h", np.cos(h))
    add("sin h", np.sin(h))
    add("cos 2h", np.cos(2 * h))
    add("cos h lag 1", np.cos(h[:, after] - h[:, after - 1]))
    add("cos h x", np.cos(h)[..., None] * bounded)
    add("cos h v", np.cos(h)[..., None] * v)
    pose = np.einsum("kdm,...m->...kd", g.loading, x) + g.mean
    turned = np.einsum("...ij,...kj->...ki", rotation(h, g.n_space), pose)
    offset = np.where(g.seen[..., None], y - v[:, :, None], 0)
    weight = np.where(g.seen, 1 / (s * sigma[:, None]), 0)
    a = np.einsum("ntk,ntkd,ntkd->nt", weight, pose[..., :2], offset[..., :2])
    b = np.einsum("ntk,ntk->nt", weight, pose[..., 0] * offset[..., 1])
    b -= np.einsum("ntk,ntk->nt", weight, pose[..., 1] * offset[..., 0])
    some = g.seen.any(1)
    add("cos h - data", np.cos(h - np.arctan2(b, a))[:, some])
    add("sin h - data", np.sin(h - np.arctan2(b, a))[:, some])
    add("h given nothing", np.cos(h)[:, ~some])
    # Noise.
    log_s = np.log(s / g.prior_scale)
    unit = np.where(g.seen[..., None], (offset - turned) * np.sqrt(weight)[..., None], 0)
    square = np.square(unit).sum(-1)
    add("log s seen", log_s[:, g.seen])
    add("log s missing", log_s[:, ~g.seen])
    add("log s seen square", log_s[:, g.seen] ** 2)
    add("log s missing square", log_s[:, ~g.seen] ** 2)
    add("log s lag 1", log_s[:, after] * log_s[:, after - 1])
    add("log s v", log_s.mean(-1)[..., None] * v)
    add("error square", square[:, g.seen])
    add("error square bounded", np.tanh(square[:, g.seen]))
    add("error square log s", (np.tanh(square) * log_s)[:, g.seen])
    add("error", unit[:, g.seen])
    add("error turned", (unit * turned)[:, g.seen])
    add("error sum square", unit.sum(2) ** 2)
    add("error lag 1", (unit[:, after] * unit[:, after - 1]).sum(2))
    add("error v step", unit[:, after].sum(2) * step)
    add("error x", unit.sum(2)[..., :2] * bounded)
    add("log sigma", np.log(sigma)[:, None])
    add("log sigma square", np.log(sigma)[:, None] ** 2)
    add("log sigma log s", np.log(sigma)[:, None] * log_s.mean(1, keepdims=True))
    # Data.
    seen_y = np.tanh(y[:, g.seen] / 3)
    add("y", seen_y)
    add("y square", seen_y**2)
    centre = np.where(g.seen[..., None], y, 0).sum(2)
    add("y v", np.tanh(centre / 8) * np.tanh(v / 2))
    # Parameters and labels.
    flat = weight_bias.reshape(len(x), N_STATES, -1)
    add("a", flat)
    add("a square", np.tanh(flat**2))
    add("a of state 0", flat[:, :1])
    add("log det q", np.log(np.linalg.det(covariance))[:, None])
    add("q", np.tanh(covariance[:, :, 0, 1]))
    add("usage", usage[:, None])
    add("usage square", usage**2)
    add("transition", transition[:, :1])
    add("transition diagonal", np.diagonal(transition, axis1=1, axis2=2))
    add("transition square", transition**2)
    add("transition usage", transition * usage[:, None])
    is_state = z[:, third, None] == np.arange(N_STATES)
    add("z", is_state)
    add("z square", is_state.mean(1, keepdims=True) ** 2)
    stays = z[:, fourth] == z[:, fourth - 1]
    add("stays", stays)
    add("stays square", stays.mean(1) ** 2)
    add("z x", is_state[..., :2] * bounded[:, third])
    add("stays x step", stays[..., None] * np.tanh(np.square(x[:, fourth] - x[:, fourth - 1])))
    return f


TILE_FRAMES = 16_384
"""Of the toys; fewer for those that shall take several tiles."""


class Toy:
    """A chain of a study and its sampler."""

    def __init__(
        self, g: Study, *, seed: int = 1, segment_frames: int = 3, n_in_flight: int = 1,
        settings: FixedSettings = SETTINGS,
    ) -> None:  # fmt: skip
        self.chain = Chain(
            g.index, n_latent=N_LATENT, n_space=g.n_space, dtype="float64",
            n_keypoints=len(g.mean),
        )  # fmt: skip
        self.chain.prior_scale[:] = g.prior_scale
        self.sweeper = Sweeper(
            chain=self.chain, n_states=N_STATES, seed=seed, pipeline=Pipeline(n_in_flight),
            shape=TileShape.of(g.index, segment_frames, TILE_FRAMES),
        )  # fmt: skip
        self.model = FullModel(observation=g.observation, settings=settings)

    def __enter__(self) -> Toy:
        return self

    def __exit__(self, *_: object) -> None:
        self.chain.close()

    def put(self, state: State, i: int = 0) -> Parameters:
        """Set the chain to one draw of the joint distribution."""
        chain = self.chain
        chain.latent[:], chain.centroid[:], chain.heading[:] = state.x[i], state.v[i], state.h[i]
        chain.noise_scale[:], chain.syllable[:] = state.s[i], state.z[i]
        self.put_positions(state.y[i])
        self.put_sigma(state.sigma[i])
        dynamics = Dynamics(state.weight_bias[i], state.covariance[i])
        return Parameters(dynamics, state.usage[i], state.transition[i])

    def put_positions(self, y: np.ndarray) -> None:
        self.chain.position[:] = y.reshape(len(y), -1)

    def put_sigma(self, sigma: np.ndarray) -> None:
        observation = self.model.observation._replace(noise_variance=sigma)
        self.model = replace(self.model, observation=observation)

    def sweep(self, parameters: Parameters, number: int) -> SweepResult:
        return self.sweeper.sweep(self.model, parameters, number)

    @property
    def local(self) -> list[np.ndarray]:
        """x, v, h, s, z as they are now."""
        c = self.chain
        views = (c.latent, c.centroid, c.heading, c.noise_scale, c.syllable)
        return [np.array(values) for values in views]


def simulate_successively(
    g: Study, start: State, n_sweeps: int, seed: int, rests: bool = False
) -> State:
    """Geweke's successive-conditional simulator (a sweep, the parameters, the data, and again).

    Begun anew from every draw of ``start``, which is exact: so nothing hangs on how fast it mixes.
    """
    rng = np.random.default_rng([seed, 1])
    records = []
    with Toy(g, seed=seed) as toy:
        chain = toy.chain
        local = (chain.latent, chain.centroid, chain.heading, chain.noise_scale)
        for i in range(len(start.x) * n_sweeps):
            run, done = divmod(i, n_sweeps)
            if not done:
                p, y, sigma = toy.put(start, run), start.y[run], start.sigma[run]
            else:
                y = draw_positions(rng, g, *(np.asarray(values) for values in local), sigma)
                toy.put_positions(y)
            if rests:
                toy.model = replace(toy.model, states=np.array([0, 2]) if done % 2 else None)
            result = toy.sweep(p, i)
            dynamics = draw_dynamics(rng, result.sums.moments, p.dynamics.weight_bias, DYNAMICS)
            usage, pi = draw_transitions(rng, result.counts.transitions, p.usage, STICKY)
            p = Parameters(dynamics, usage, pi)
            sigma = draw_noise_variance(
                rng, result.sums.noise_square, result.sums.noise_count, scale=NOISE_SCALE,
                dof=SIGMA_DOF, n_space=g.n_space,
            )  # fmt: skip
            toy.put_sigma(sigma)
            records.append((*toy.local, y, *dynamics, usage, pi, sigma))
    return State(*map(np.array, zip(*records, strict=True)))


@lru_cache(2)
def simulate_marginally(n_space: int, n: int, seed: int) -> tuple[State, dict[str, np.ndarray]]:
    """Geweke's marginal-conditional simulator: some of the draws, and functions of all."""
    g = study(n_space, TINY)
    draws = draw_prior(np.random.default_rng([seed, 0]), g, n)
    return State(*(values[: n // 10].copy() for values in draws)), functions(g, draws)


def geweke(
    n_space: int, n_starts: int, seed: int = 1, n_sweeps: int = 5, rests: bool = False
) -> dict[str, float]:
    """z of each function: marginal-conditional against successive-conditional simulation.

    Each run of the latter is independent of the others, and where it began tells of where it
    ends: regressed on that, its mean is the sharper. ``rests``: every other sweep draws labels
    among two of the three states.
    """
    g = study(n_space, TINY)
    draws, a = simulate_marginally(n_space, max(20_000, 10 * n_starts), seed)
    start = State(*(values[:n_starts] for values in draws))
    b = functions(g, simulate_successively(g, start, n_sweeps, seed, rests))
    found = {}
    for name, values in a.items():
        begin = values[:n_starts] - values.mean()
        mean = b[name].reshape(n_starts, n_sweeps).mean(1)
        slope = np.cov(begin, mean)[0, 1] / begin.var(ddof=1)
        rest = mean - slope * begin
        error = np.sqrt(rest.var(ddof=2) / n_starts + (1 - slope) ** 2 * values.var() / len(values))
        found[name] = float((rest.mean() - values.mean()) / error)
    return found


def most(z: dict[str, float]) -> str:
    """The functions that differ most, for the reader."""
    top = sorted(z, key=lambda name: -abs(z[name]))[:4]
    return ", ".join(f"{name} {z[name]:.1f}" for name in top)


def worst(z: dict[str, float]) -> float:
    return max(abs(value) for value in z.values())


# ------------------------------------------------------------------ wrong twins


def three_dof(*args, n_space, right_one, **settings):
    """Wrong twin: as many degrees of freedom as in 3-D, always."""
    return right_one(*args, n_space=3, **settings)


def without_neighbours(model, chain, tile, shape, n_states, right_one):
    """Wrong twin: every segment is a session of its own."""
    given = right_one(model, chain, tile, shape, n_states)
    own = np.arange(given.z.shape[1]) < given.length[:, None]
    z = np.where(own, given.z, n_states)
    return given._replace(z=z, left=np.full_like(given.left, n_states))


def without_right(table, z, *args, right_one):
    """Wrong twin: the pose of a segment does not depend on the frames after it."""
    *_, is_drawn, _ = args
    own = jnp.pad(is_drawn[LAGS:], [(0, LAGS), (0, 0)])
    return right_one(table, jnp.where(own, z, N_STATES), *args)


def without_next(precision, mean, v, is_drawn, has_next, *args, right_one, **settings):
    """Wrong twin: the centroid of a segment does not depend on the frame after it."""
    inside = has_next & jnp.pad(is_drawn[1:], [(0, 1), (0, 0)])
    return right_one(precision, mean, v, is_drawn, inside, *args, **settings)


def inner_moments(tables, x, z, tile, frames, is_last_pass, lags, right_one):
    """Wrong twin: the dynamics do not see what links a segment to the one before."""
    return right_one(tables, x, z, tile, frames, jnp.zeros_like(is_last_pass), lags)


def interpolated(*given, right_one):
    """Wrong twin: a missing keypoint is taken for seen where it was last seen."""
    given = right_one(*given)
    observed = given.observed.copy()
    for t in range(1, observed.shape[1]):
        missing = np.isnan(observed[:, t])
        observed[:, t][missing] = observed[:, t - 1][missing]
    return given._replace(observed=observed)


# ------------------------------------------------------------------ segments


def uncut(index, shape, seed, sweep):
    """Every session in one segment."""
    session = np.flatnonzero(index.n_modelled)
    none = np.zeros(0, np.int64)
    lags = np.full(len(session), index.lags)
    return Tile(session, lags, index.n_modelled[session]), Tile(none, none, none)


def means_of_chains(g: Study, state: State, n_sweeps: int, **options) -> np.ndarray:
    """Means of x, v, cos h, sin h, log s and of being in each state: (chain, function).

    Given the parameters sessions are independent: as many chains as there are copies of the data.
    """
    copies = g._replace(
        lengths=g.lengths * N_CHAINS, prior_scale=np.tile(g.prior_scale, (N_CHAINS, 1))
    )
    local = (np.concatenate([values] * N_CHAINS, 1) for values in state[:6])
    total = 0
    with Toy(copies, **options) as toy:
        p = toy.put(State(*local, *state[6:]))
        for i in range(50 + n_sweeps):
            toy.sweep(p, i)
            if i >= 50:
                x, v, h, s, z = toy.local
                is_state = z[:, None] == np.arange(N_STATES)
                angle = np.stack([np.cos(h), np.sin(h)], 1)
                total = total + np.concatenate([x, v, angle, np.log(s), is_state], 1)
    return total.reshape(N_CHAINS, -1) / n_sweeps


def difference(a: np.ndarray, b: np.ndarray) -> float:
    """Largest |z| of the means of two lots of chains."""
    error = np.sqrt((a.var(0, ddof=1) + b.var(0, ddof=1)) / N_CHAINS)
    return float(np.max(np.abs(a.mean(0) - b.mean(0)) / np.maximum(error, 1e-3)))


# ------------------------------------------------------------------ missing data, naively


def dense_mean(g: Study, part: slice, w: np.ndarray, y: np.ndarray, state: State) -> np.ndarray:
    """Mean of x of a session given everything else, from its whole precision matrix."""
    n, m = part.stop - part.start, N_LATENT
    precision, right = np.zeros((n * m, n * m)), np.zeros(n * m)
    for i in range(n):
        t = part.start + i
        own = slice(i * m, (i + 1) * m)
        if i < LAGS:
            precision[own, own] += np.eye(m) / LATENT_VARIANCE
        else:
            a, k = state.weight_bias[0, state.z[0, t]], state.z[0, t]
            map_ = np.concatenate([-a[:, :-1], np.eye(m)], 1)
            window = slice((i - LAGS) * m, (i + 1) * m)
            inverse = np.linalg.inv(state.covariance[0, k])
            precision[window, window] += map_.T @ inverse @ map_
            right[window] += map_.T @ inverse @ a[:, -1]
        turn = rotation(state.h[0, t], g.n_space)
        for k in range(len(g.mean)):
            if w[t, k] > 0:
                c = turn @ g.loading[k]
                e = y[t, k] - state.v[0, t] - turn @ g.mean[k]
                precision[own, own] += w[t, k] * c.T @ c
                right[own] += w[t, k] * c.T @ e
    return np.linalg.solve(precision, right).reshape(n, m)


def dense_centroid(g: Study, part: slice, w: np.ndarray, y: np.ndarray, state: State) -> np.ndarray:
    """Mean of v of a session given everything else."""
    n = part.stop - part.start
    precision, right = np.zeros((n, n)), np.zeros((n, g.n_space))
    precision[0, 0] = 1 / CENTROID_VARIANCE
    for i in range(n - 1):
        step = np.zeros(n)
        step[i : i + 2] = -1, 1
        precision += np.outer(step, step) / STEP_VARIANCE
    pose = placed_pose(g, state.x[0], 0 * state.v[0], state.h[0])
    for i in range(n):
        for k in range(len(g.mean)):
            if w[part.start + i, k] > 0:
                precision[i, i] += w[part.start + i, k]
                right[i] += w[part.start + i, k] * (y - pose)[part.start + i, k]
    return np.linalg.solve(precision, right)


# ------------------------------------------------------------------ tests


def some_state(g: Study, seed: int = 5) -> State:
    return draw_prior(np.random.default_rng(seed), g, 1)


def run_sweeps(toy: Toy, state: State, n_sweeps: int = 3) -> list[np.ndarray]:
    """x, v, h, s, z after some sweeps, and what the last one reports."""
    p = toy.put(state)
    for i in range(n_sweeps):
        result = toy.sweep(p, i)
    sums = result.sums
    terms = np.array(list(result.terms.values()))
    return [*toy.local, sums.moments, sums.noise_square, sums.noise_count, terms]


def test_missing__a_prior_of_what_is_not_seen_changes_no_bit():
    g = study(2, TINY)
    state = some_state(g)
    rng = np.random.default_rng(0)
    with Toy(g) as toy:
        expected = run_sweeps(toy, state)
    # Whatever is said of observations that are missing, or of the rest of a coordinate pair.
    other = np.where(g.seen, 1, rng.uniform(1e-3, 1e3, g.seen.shape))
    changed = state._replace(s=state.s * other, y=state.y.copy())
    changed.y[..., g.half_seen, 0] = -1e4
    with Toy(g._replace(prior_scale=np.float32(g.prior_scale * other))) as toy:
        found = run_sweeps(toy, changed)
    for i, (a, b) in enumerate(zip(found, expected, strict=True)):
        if i == 3:
            np.testing.assert_array_equal(a[g.seen], b[g.seen])
            assert (a[~g.seen] != b[~g.seen]).all()
        else:
            np.testing.assert_array_equal(a, b)
    # The same said of one that is seen changes the session.
    seen = np.argwhere(g.seen)[0]
    changed.s[0, *seen] *= 2
    with Toy(g) as toy:
        assert (run_sweeps(toy, changed)[0] != expected[0])[g.parts[0]].all()


@pytest.mark.parametrize("n_space", [2, 3])
def test_missing__means_are_those_of_a_dense_model_without_them(n_space, monkeypatch):
    g = study(n_space, TINY)
    state = some_state(g)
    monkeypatch.setattr(segments_module, "cut", uncut)
    with (
        traced_with(streams, normal=lambda bits, dtype: jnp.zeros(bits.shape, dtype)),
        Toy(g, segment_frames=15) as toy,
    ):
        toy.sweep(toy.put(state), 0)
        x, v, h, _, z = toy.local
        y = np.array(toy.chain.position, np.float64).reshape(-1, *g.mean.shape)
    weight = 1 / (state.s[0] * state.sigma[0])
    given = state._replace(z=z[None])
    after = given._replace(x=x[None], h=h[None])
    filled = np.where(g.seen[..., None], y, placed_pose(g, state.x[0], state.v[0], state.h[0]) + 1)
    w = np.where(g.seen, weight, 0)
    for part in g.parts:
        np.testing.assert_allclose(x[part], dense_mean(g, part, w, y, given), rtol=1e-9, atol=1e-9)
        mean = dense_centroid(g, part, w, y, after)
        np.testing.assert_allclose(v[part], mean, rtol=1e-9, atol=1e-9)
    # Wrong twin: values in the place of what is missing, with the weight of what is seen.
    part = g.parts[0]
    assert np.abs(x[part] - dense_mean(g, part, weight, filled, given)).max() > 0.05
    assert np.abs(v[part] - dense_centroid(g, part, weight, filled, after)).max() > 0.05


def test_fix_heading__stays_zero():
    g = study(2, TINY)
    state = some_state(g)
    state = state._replace(h=0 * state.h)
    for is_fixed in (True, False):
        with Toy(g, settings=SETTINGS._replace(fix_heading=is_fixed)) as toy:
            p = toy.put(state)
            for i in range(4):
                toy.sweep(p, i)
                x, v, h, s, _ = toy.local
                assert (h == 0).all() == is_fixed
                assert all(np.isfinite(values).all() for values in (x, v, s))
                assert (x != state.x[0]).all()


@pytest.fixture
def many_tiles(monkeypatch):
    """A study that takes several tiles in each pass."""
    monkeypatch.setattr(sys.modules[__name__], "TILE_FRAMES", 8)
    return study(2, (60, 43, 27, 12))


def test_sweep__same_bits_for_any_number_of_tiles_in_flight_and_order_of_sessions(many_tiles):
    g = many_tiles
    state = some_state(g)
    with Toy(g) as toy:
        even, odd = segments_module.cut(toy.chain.index, toy.sweeper.shape, 1, 0)
        assert min(len(even.start), len(odd.start)) > 2 * toy.sweeper.shape.n_segments
        expected = run_sweeps(toy, state)
    for order, n in ((False, 2), (False, 5), (True, 3)):
        with Toy(g._replace(is_reversed=order), n_in_flight=n) as toy:
            for a, b in zip(run_sweeps(toy, state), expected, strict=True):
                np.testing.assert_array_equal(a, b)
    with Toy(g, seed=2) as toy:  # but not for another seed
        assert (run_sweeps(toy, state)[0] != expected[0]).all()


def test_sweep__draws_of_a_session_do_not_depend_on_the_other_sessions(many_tiles):
    g = many_tiles
    state = some_state(g)
    kept = slice(0, sum(g.lengths[:2]))
    fewer = g._replace(lengths=g.lengths[:2], prior_scale=g.prior_scale[kept])
    local = State(*(values[:, kept] for values in state[:6]), *state[6:])
    with Toy(g) as toy, Toy(fewer) as other:
        for a, b in zip(run_sweeps(toy, state)[:5], run_sweeps(other, local)[:5], strict=True):
            np.testing.assert_array_equal(a[kept], b)


def test_sweep__that_fails_names_session_and_segment(many_tiles):
    """A position that is no number but not missing either."""
    g = many_tiles
    with Toy(g, n_in_flight=3) as toy:
        p = toy.put(some_state(g))
        toy.chain.position[70] = np.inf
        with pytest.raises(SamplingError) as caught:
            toy.sweep(p, 2)
        assert (caught.value.session, caught.value.sweep) == ("g001", 2)
        assert caught.value.start <= 10 < caught.value.stop


def test_segments__have_the_posterior_of_the_uncut_sessions(full, monkeypatch, capsys):
    g = study(2, (30, 21))
    g.seen[10:15] = g.half_seen[10:15] = False
    state = some_state(g, 3)
    n_sweeps = 1000 if full else 120
    with monkeypatch.context() as patch:
        patch.setattr(segments_module, "cut", uncut)
        whole = means_of_chains(g, state, n_sweeps, seed=1, segment_frames=28)
    right = difference(means_of_chains(g, state, n_sweeps, seed=2, segment_frames=8), whole)
    twin = partial(without_neighbours, right_one=FullModel.gather)
    monkeypatch.setattr(FullModel, "gather", partialmethod(twin))
    wrong = difference(means_of_chains(g, state, n_sweeps // 4, seed=3, segment_frames=8), whole)
    with capsys.disabled():
        print(f"\nsegments: {right:.1f}, unaware of each other: {wrong:.1f}")
    assert right < 5
    assert wrong > 10


@pytest.mark.parametrize("n_space", [2, pytest.param(3, marks=pytest.mark.full)])
def test_full_sweep__joint_distribution_test(full, n_space, capsys):
    z = geweke(n_space, 2000 if full else 250)
    with capsys.disabled():
        print(f"\n{n_space}-D, {len(z)} functions: {most(z)}")
    assert worst(z) < 5


def test_full_sweep__joint_distribution_test_when_a_state_rests(full, capsys):
    z = geweke(2, 2000 if full else 120, rests=True)
    with capsys.disabled():
        print(f"\n{len(z)} functions: {most(z)}")
    assert worst(z) < 5
    if full:  # twice the compilation; otherwise the AR stage alone has this twin
        with traced_with(full_tile, holding=lambda tables, before, drawn, is_own: drawn):
            assert worst(geweke(2, 200, rests=True)) > 6


def test_full_sweep__joint_distribution_test_rejects_wrong_twins(full, monkeypatch, capsys):
    n_few, n_many = (300, 600) if full else (40, 100)
    found = {}
    for twin in (without_neighbours, interpolated):
        with monkeypatch.context() as patch:
            changed = partial(twin, right_one=FullModel.gather)
            patch.setattr(FullModel, "gather", partialmethod(changed))
            found[twin.__name__] = geweke(2, n_few)
    twins = {"draw_noise_scale": (three_dof, n_few), "eliminate_forward": (without_right, n_many)}
    if full:
        twins |= {"draw_centroid": (without_next, n_few), "_moments": (inner_moments, n_many)}
    for name, (twin, n_starts) in twins.items():
        with traced_with(full_tile, **{name: partial(twin, right_one=getattr(full_tile, name))}):
            found[twin.__name__] = geweke(2, n_starts)
    with traced_with(streams, CENTROID=streams.LATENT):
        found["one key for two blocks"] = geweke(2, n_few)
    with capsys.disabled():
        for name, z in found.items():
            print(f"\n{name}: {most(z)}", end="")
        print()
    for name, z in found.items():
        assert worst(z) > 6, name
