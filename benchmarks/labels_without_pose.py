"""Labels given the parameters of a fit, the latent pose integrated out: what holds them then.

    python benchmarks/labels_without_pose.py --data FOLDER [--sweeps 50,120]

Given heading, centroid and noise the full stage is a switching linear dynamical system. Two fits
that differ in the seed are made; then an interacting multiple model filter (Blom and Bar-Shalom,
IEEE Trans. Autom. Control 33:780, 1988) carries one Gaussian of the last ``lags`` poses for each
state through segments of all sessions, and backward simulation (Godsill, Doucet and West, J. Am.
Stat. Assoc. 99:156, 2004) draws labels and pose from it together. The filter is an approximation:
each step replaces a mixture by its moments. ``--check`` compares it with enumeration on a tiny
system.

Printed, for each fit: how far two draws agree, and averages of halves of the draws; and how far the
average agrees with that of the same parameters given heading, centroid and noise of the other fit.
"""

import argparse
import itertools
import tempfile
import time
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.scipy.linalg import solve_triangular
from replicability import KEYPOINTS, coarse, matched
from scipy.special import logsumexp

import kpms_zarr
from kpms_zarr.compute.analysis.agreement import adjusted_rand_index, contingency
from kpms_zarr.compute.config import Budget, FitConfig
from kpms_zarr.compute.kernels.pose import PoseMap, latent_evidence
from kpms_zarr.compute.runs.plan import settle_tiles
from kpms_zarr.compute.runs.preparation import load, make_chain, plan_of, prepare
from kpms_zarr.compute.runs.stages import begin, make_sweeper, pipeline_of, run
from kpms_zarr.compute.sampler.tile_model import Parameters
from kpms_zarr.store.core.schema import FRAMES_PER_CHUNK

jax.config.update("jax_enable_x64", True)
SEGMENT, RUN_IN = 384, 48
"""Frames of a segment, and frames before and after it that are computed and thrown away."""
AT_ONCE = 24
"""Segments side by side."""
DRAWS = 16
RARE = 5e-4
"""States with a smaller share of the frames are left out."""


class System(NamedTuple):
    """Dynamics of the states: weight (state, latent, window), bias, covariance, transition."""

    weight: Any
    bias: Any
    covariance: Any
    transition: Any


class Filtered(NamedTuple):
    """What the filter knows after each frame.

    Attributes
    ----------
    share : (frame, segment, state)
    mean : (frame, state, segment, window)
    covariance : (frame, state, segment, window, window)
    """

    share: Any
    mean: Any
    covariance: Any


def mixed(share: Any, mean: Any, covariance: Any, transition: Any) -> tuple[Any, Any, Any]:
    """Probability, mean and covariance of each state before a frame, by moments of the mixture."""
    joint = share[:, :, None] * transition
    expected = joint.sum(1)
    weight = joint / jnp.maximum(expected[:, None], 1e-300)
    middle = jnp.einsum("bj,jbx->bx", share, mean)
    off = mean - middle
    moved = jnp.einsum("bji,jbx->ibx", weight, off)
    square = covariance + off[..., :, None] * off[..., None, :]
    spread = jnp.einsum("bji,jbxy->ibxy", weight, square)
    return expected, moved + middle, spread - moved[..., :, None] * moved[..., None, :]


def joined(covariance: Any, cross: Any, new: Any, n_latent: int) -> Any:
    """Covariance of the window a frame later: its oldest pose gone, the new one at the end."""
    kept, link = covariance[..., n_latent:, n_latent:], cross[..., n_latent:, :]
    top = jnp.concatenate([kept, link], -1)
    return jnp.concatenate([top, jnp.concatenate([jnp.swapaxes(link, -1, -2), new], -1)], -2)


@jax.jit
def filter_forward(system: System, j: Any, g: Any, exists: Any) -> tuple[Filtered, Any]:
    """Filter segments: j (frame, segment, latent, latent), g (frame, segment, latent).

    Returns
    -------
    Filtered, and log p(keypoints of a frame | those before) up to a constant (frame, segment); from
    frame ``lags`` on.
    """
    weight, bias, covariance, transition = system
    n_states, n_latent, size = weight.shape
    lags, n_segments = size // n_latent, g.shape[1]
    eye = jnp.eye(n_latent)
    first = jnp.linalg.inv(j[:lags] + eye / 10)
    start = jnp.einsum("lbij,lbj->lbi", first, g[:lags]).transpose(1, 0, 2).reshape(-1, size)
    spread = jnp.zeros((n_segments, size, size))
    for i in range(lags):
        rows = slice(i * n_latent, (i + 1) * n_latent)
        spread = spread.at[:, rows, rows].set(first[i])

    def step(carry: Any, inputs: Any) -> Any:
        share, mean, known, is_first = carry
        jt, gt, ok = inputs
        expected, mean_in, known_in = mixed(share, mean, known, transition)
        expected = jnp.where(is_first, 1 / n_states, expected)
        cross = jnp.einsum("ibxy,imy->ibxm", known_in, weight)
        new = jnp.einsum("imx,ibxn->ibmn", weight, cross) + covariance[:, None]
        predicted = jnp.einsum("imx,ibx->ibm", weight, mean_in) + bias[:, None]
        window = jnp.concatenate([mean_in[..., n_latent:], predicted], -1)
        prior = joined(known_in, cross, new, n_latent)
        link = prior[..., -n_latent:]
        inverse = jnp.linalg.inv(eye + jnp.einsum("bij,kbjl->kbil", jt, new))
        gain = jnp.einsum("kbxm,kbmn->kbxn", link, inverse)
        left = gt - jnp.einsum("bij,kbj->kbi", jt, predicted)
        seen = jnp.einsum("kbxn,bnm,kbym->kbxy", gain, jt, link)
        posterior = prior - (seen + jnp.swapaxes(seen, -1, -2)) / 2
        after = window + jnp.einsum("kbxn,kbn->kbx", gain, left)
        fit = (
            jnp.linalg.slogdet(inverse)[1]
            + jnp.einsum("kbi,kbi->kb", gt + left, predicted)
            + jnp.einsum("kbi,kbi->kb", left, after[..., -n_latent:] - predicted)
        ) / 2
        log = jnp.log(jnp.maximum(expected, 1e-300)) + fit.T
        share_out = jax.nn.softmax(log, 1)
        gained = jnp.where(ok, jax.nn.logsumexp(log, 1), 0)
        carry = (
            jnp.where(ok[:, None], share_out, share),
            jnp.where(ok[:, None], after, mean),
            jnp.where(ok[:, None, None], posterior, known),
            jnp.zeros((), bool),
        )
        return carry, (Filtered(*carry[:3]), gained)

    begin_with = (
        jnp.full((n_segments, n_states), 1 / n_states),
        jnp.broadcast_to(start, (n_states, *start.shape)),
        jnp.broadcast_to(spread, (n_states, *spread.shape)),
        jnp.ones((), bool),
    )
    found: tuple[Filtered, Any] = jax.lax.scan(
        step, begin_with, (j[lags:], g[lags:], exists[lags:])
    )[1]
    return found


def log_normal(x: Any, mean: Any, covariance: Any) -> Any:
    """Log density up to a constant."""
    root = jnp.linalg.cholesky(covariance)
    error = solve_triangular(root, (x - mean)[..., None], lower=True)[..., 0]
    log_det = jnp.log(jnp.diagonal(root, axis1=-2, axis2=-1)).sum(-1)
    return -(error**2).sum(-1) / 2 - log_det


@jax.jit
def simulate(system: System, filtered: Filtered, exists: Any, key: Any) -> Any:
    """Draw labels (frame, segment), last frame first, and the pose along with them."""
    weight, bias, covariance, transition = system
    n_latent, size = weight.shape[1:]
    n_segments = exists.shape[1]
    lane, eye = jnp.arange(n_segments), jnp.eye(size)

    def step(carry: Any, inputs: Any) -> Any:
        window, following, has_next = carry
        (share, mean, known), ok, key = inputs
        keys = jax.random.split(key, 3)
        a, q = weight[following], covariance[following]
        cross = jnp.einsum("jbxy,bmy->jbxm", known, a)
        new = jnp.einsum("bmx,jbxn->jbmn", a, cross) + q
        predicted = jnp.einsum("bmx,jbx->jbm", a, mean) + bias[following]
        spread = joined(known, cross, new, n_latent)
        centre = jnp.concatenate([mean[..., n_latent:], predicted], -1)
        log = jnp.log(jnp.maximum(share, 1e-300)).T
        linked = log + jnp.log(transition)[:, following] + log_normal(window, centre, spread)
        z = jax.random.categorical(keys[0], jnp.where(has_next, linked, log), axis=0)
        m, p, s, c = mean[z, lane], known[z, lane], spread[z, lane], cross[z, lane]
        of_old = jnp.concatenate([p[:, :n_latent, n_latent:], c[:, :n_latent]], -1)
        factor = jnp.linalg.solve(s, jnp.swapaxes(of_old, -1, -2))
        old = m[:, :n_latent] + jnp.einsum("bum,bu->bm", factor, window - centre[z, lane])
        rest = p[:, :n_latent, :n_latent] - jnp.einsum("bmu,bun->bmn", of_old, factor)
        root = jnp.linalg.cholesky(
            (rest + jnp.swapaxes(rest, -1, -2)) / 2 + 1e-9 * eye[:n_latent, :n_latent]
        )
        old = old + jnp.einsum("bmn,bn->bm", root, jax.random.normal(keys[1], old.shape))
        last = jnp.linalg.cholesky(p + 1e-10 * eye)
        last = m + jnp.einsum("bxy,by->bx", last, jax.random.normal(keys[2], m.shape))
        moved = jnp.concatenate([old, window[:, :-n_latent]], -1)
        return (jnp.where(has_next[:, None], moved, last), z, ok), z

    begin_with = (
        jnp.zeros((n_segments, size)), jnp.zeros(n_segments, int), jnp.zeros(n_segments, bool)
    )  # fmt: skip
    keys = jax.random.split(key, len(exists))
    return jax.lax.scan(step, begin_with, (filtered, exists, keys), reverse=True)[1]


# ------------------------------------------------------------------ two fits


@dataclass(frozen=True)
class Fitted:
    """A chain at its last sweep: state by frame, parameters, data, in model units."""

    local: np.ndarray
    z: np.ndarray
    parameters: Parameters
    noise_variance: np.ndarray
    observed: np.ndarray
    pose: PoseMap
    first: np.ndarray
    length: np.ndarray
    lags: int

    def labels(self) -> np.ndarray:
        """Of the modelled frames."""
        parts = zip(self.first, self.length, strict=True)
        return np.concatenate([self.z[a + self.lags : a + n] for a, n in parts]).astype(int)

    def evidence(self, session: int) -> tuple[np.ndarray, np.ndarray]:
        """J (frame, latent, latent) and g (frame, latent) of a session."""
        n_keypoints, n_space, n_latent = self.pose.loading.shape
        rows = slice(self.first[session], self.first[session] + self.length[session])
        local, y = self.local[rows].astype(float), self.observed[rows].astype(float)
        v = local[:, n_latent : n_latent + n_space]
        h, s = local[:, n_latent + n_space], local[:, n_latent + n_space + 1 :]
        y = y[:, : n_keypoints * n_space].reshape(-1, n_keypoints, n_space)
        is_missing = np.isnan(y).any(-1)
        weight = np.where(is_missing, 0, 1 / (s * self.noise_variance))
        offset = np.where(is_missing[..., None], 0, y - v[:, None])
        j, g = latent_evidence(
            self.pose, weight.T[..., None], offset.transpose(1, 2, 0)[..., None], h[:, None]
        )
        return np.asarray(j)[..., 0].transpose(2, 0, 1), np.asarray(g)[..., 0].T

    def system(self) -> tuple[np.ndarray, System]:
        """States in use, and their dynamics."""
        n = len(self.parameters.usage)
        share = np.bincount(self.labels(), minlength=n) / len(self.labels())
        kept = np.flatnonzero(share > RARE)
        weight_bias, covariance = (values[kept] for values in self.parameters.dynamics)
        transition = np.maximum(self.parameters.transition[np.ix_(kept, kept)], 1e-12)
        transition = transition / transition.sum(1, keepdims=True)
        return kept, System(weight_bias[..., :-1], weight_bias[..., -1], covariance, transition)


def fit(store: Path, seed: int, sweeps: tuple[int, int]) -> Fitted:
    """Sweep a chain of both stages."""
    config = settle_tiles(
        FitConfig(
            stage="both",
            seed=seed,
            ar_sweeps=sweeps[0],
            sweeps=sweeps[1],
            target_duration=400.0,
            use_keypoints=KEYPOINTS,
        )
    )
    with jax.enable_x64(False):
        preparation = prepare(store, config, None, lambda event: None)
        plan = plan_of(preparation, config, Budget(), lambda event: None)
        with make_chain(preparation, config, plan, None) as chain:
            load(chain, preparation, config, None, plan.tiles_in_flight)
            sweeper = make_sweeper(
                chain, config, pipeline_of(plan.tiles_in_flight, lambda event: None)
            )
            progress = begin(sweeper, config, None, 0)
            run(sweeper, preparation, config, progress, lambda event: None)
            index = chain.index
            blocks = [
                chain.observed.block(session, number)
                for session, length in enumerate(index.length)
                for number in range(-(-int(length) // FRAMES_PER_CHUNK))
            ]
            assert progress.noise_variance is not None
            return Fitted(
                np.array(chain.local[:]), np.array(chain.syllable[:]), progress.parameters,
                progress.noise_variance, np.concatenate(blocks),
                PoseMap(preparation.loading.transpose(1, 2, 0), preparation.mean),
                index.first.copy(), index.length.copy(), index.lags,
            )  # fmt: skip


def draw(of: Fitted, given: Fitted, seed: int) -> np.ndarray:
    """Labels (draw, modelled frame) by the parameters of one fit, given the rest of another."""
    kept, system = of.system()
    rest = replace(given, pose=of.pose)
    places, evidence = [], []
    for session, length in enumerate(of.length):
        evidence.append(rest.evidence(session))
        places += [(session, a, min(a + SEGMENT, length)) for a in range(0, length, SEGMENT)]
    n_frames = SEGMENT + 2 * RUN_IN
    found: list[list[np.ndarray]] = [[] for _ in range(DRAWS)]
    n_latent = of.pose.loading.shape[2]
    for first in range(0, len(places), AT_ONCE):
        j = np.zeros((n_frames, AT_ONCE, n_latent, n_latent))
        g, exists = np.zeros((n_frames, AT_ONCE, n_latent)), np.zeros((n_frames, AT_ONCE), bool)
        here = places[first : first + AT_ONCE]
        for lane, (session, a, b) in enumerate(here):
            rows = slice(max(0, a - RUN_IN), min(b + RUN_IN, of.length[session]))
            n = rows.stop - rows.start
            j[:n, lane], g[:n, lane] = (values[rows] for values in evidence[session])
            exists[:n, lane] = True
        filtered, _ = filter_forward(system, j, g, exists)
        for number in range(DRAWS):
            key = jax.random.fold_in(jax.random.key(seed), first * DRAWS + number)
            z = np.asarray(simulate(system, filtered, exists[of.lags :], key))
            for lane, (_, a, b) in enumerate(here):
                before = max(0, a - RUN_IN) + of.lags
                found[number].append(z[max(a, before) - before : b - before, lane])
    return kept[np.array([np.concatenate(parts) for parts in found])]


def average(z: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The commonest label of a frame, and its share."""
    states = np.unique(z)
    counts = np.stack([(z == state).sum(0) for state in states])
    return states[counts.argmax(0)], counts.max(0) / len(z)


def check() -> None:
    """Marginal probabilities of a tiny system, by enumeration and by draws."""
    rng = np.random.default_rng(0)
    m, lags, n_frames, n_states, n_draws = 2, 2, 7, 2, 20_000
    weight = rng.normal(size=(n_states, m, lags * m)) * 0.2
    weight[..., -m:] += np.eye(m) * 0.8
    system = System(
        weight, rng.normal(size=(n_states, m)) * 0.3,
        np.stack([np.eye(m) * 0.05, np.eye(m) * 0.6]), np.array([[0.8, 0.2], [0.3, 0.7]]),
    )  # fmt: skip
    root = rng.normal(size=(n_frames, m, m))
    j, g = 3 * root @ root.transpose(0, 2, 1), rng.normal(size=(n_frames, m)) * 3

    def log_density(path: tuple[int, ...]) -> float:
        n = n_frames * m
        precision, information, log = np.zeros((n, n)), g.ravel().copy(), 0.0
        for t in range(n_frames):
            at = slice(t * m, (t + 1) * m)
            precision[at, at] += j[t] + (np.eye(m) / 10 if t < lags else 0)
        for t, state in enumerate(path, lags):
            residual = np.zeros((m, n))
            residual[:, (t - lags) * m : t * m] = -system.weight[state]
            residual[:, t * m : (t + 1) * m] = np.eye(m)
            q = np.linalg.inv(system.covariance[state])
            b = system.bias[state]
            precision += residual.T @ q @ residual
            information += residual.T @ q @ b
            log -= (b @ q @ b + np.linalg.slogdet(system.covariance[state])[1]) / 2
        log += sum(np.log(system.transition[a, b]) for a, b in itertools.pairwise(path))
        solved = np.linalg.solve(precision, information)
        return float(log + information @ solved / 2 - np.linalg.slogdet(precision)[1] / 2)

    paths = np.array(list(itertools.product(range(n_states), repeat=n_frames - lags)))
    log = np.array([log_density(tuple(path)) for path in paths])
    exact = np.exp(log - logsumexp(log)) @ (paths == 0)
    exists = np.ones((n_frames, 1), bool)
    filtered, _ = filter_forward(system, j[:, None], g[:, None], exists)
    many = Filtered(
        *(jnp.repeat(v, n_draws, axis=a) for v, a in zip(filtered, (1, 2, 2), strict=True))
    )
    z = simulate(system, many, np.ones((n_frames - lags, n_draws), bool), jax.random.key(0))
    for t, (a, b) in enumerate(zip(exact, (np.asarray(z) == 0).mean(1), strict=True), lags):
        print(f"frame {t}: state 0 with {a:.3f} (enumerated), {b:.3f} (drawn)")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--data", type=Path, help="folder of csv files of the nine mice")
    parser.add_argument("--sweeps", default="50,120", help="of the AR and of the full stage")
    parser.add_argument("--seeds", default="2000,2001")
    parser.add_argument("--check", action="store_true")
    options = parser.parse_args()
    if options.check:
        check()
        return
    with tempfile.TemporaryDirectory() as folder:
        store = Path(folder) / "study.zarr"
        kpms_zarr.ingest(
            store, sorted(options.data.glob("*.csv")), fps=30, anterior=["nose"],
            posterior=["spine4"],
        )  # fmt: skip
        n_ar, n_full = (int(n) for n in options.sweeps.split(","))
        fits = [fit(store, int(seed), (n_ar, n_full)) for seed in options.seeds.split(",")]
    labels = []
    for one, other in (fits, fits[::-1]):
        began = time.perf_counter()
        z = draw(one, one, 0)
        seconds = time.perf_counter() - began
        label, certainty = average(z)
        halves = [average(z[i::2])[0] for i in (0, 1)]
        elsewhere, _ = average(draw(one, other, 1))
        print(
            f"{coarse(label)}; {seconds:.0f} s; draws agree {(z[0] == z[1]).mean():.3f}, halves "
            f"{(halves[0] == halves[1]).mean():.3f}, certainty {certainty.mean():.3f}; with the "
            f"last draw of the fit {(label == one.labels()).mean():.3f}; given the rest of the "
            f"other fit {(label == elsewhere).mean():.3f}",
            flush=True,
        )
        labels.append(label)
    for name, pair in (("last draws", [one.labels() for one in fits]), ("averages", labels)):
        table = contingency(*pair)
        print(f"{name}: ARI {adjusted_rand_index(table):.3f}, matched {matched(*pair).mean():.3f}")


if __name__ == "__main__":
    main()
