"""Agreement of independent analyses of the same sessions: single chains, and ensembles of them.

    python benchmarks/replicability.py --data FOLDER        # csv files of DeepLabCut, some hours
    python benchmarks/replicability.py --reduced            # simulated sessions, minutes
    python benchmarks/replicability.py --store S --recipes merged,margin --chains 48 --size 16
    python benchmarks/replicability.py table --data FOLDER  # see replicability_table.py

Runs chains of the AR stage by each recipe through the sampler of the package, every chain with a
seed of its own, forms ensembles that share no chain, and prints what they agree in, always with how
coarse they are: an effective number of 3 and one of 8 are different findings. Chains are kept under
``--keep``, so that a run that was stopped goes on, and tables can be printed again.

An ensemble is what :func:`kpms_zarr.consensus` makes of its chains: see
``kpms_zarr/compute/analysis/partition.py``.
"""

import argparse
import itertools
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from scipy.cluster.vq import vq
from scipy.ndimage import gaussian_filter1d, median_filter
from scipy.optimize import linear_sum_assignment

import kpms_zarr
from kpms_zarr.compute.analysis.agreement import (
    adjusted_rand_index,
    contingency,
    normalized_mutual_information,
)
from kpms_zarr.compute.analysis.partition import vote
from kpms_zarr.compute.analysis.patterns import Patterns
from kpms_zarr.compute.analysis.smoothing import BLOCK_FRAMES, best_path, price_for, scores_of
from kpms_zarr.compute.config import Budget, FitConfig
from kpms_zarr.compute.kernels.ar import feature_pairs, unpack
from kpms_zarr.compute.kernels.dynamics import DynamicsPrior, posterior_of, prior_mean
from kpms_zarr.compute.kernels.evidence import log_evidence, merge_states, pooled
from kpms_zarr.compute.runs.plan import settle_tiles
from kpms_zarr.compute.runs.preparation import load, make_chain, plan_of, prepare
from kpms_zarr.compute.runs.stages import begin, make_sweeper, pipeline_of, run, stages_of
from kpms_zarr.compute.sampler.bouts import count_labels
from kpms_zarr.compute.sampler.chain import Chain
from kpms_zarr.compute.sampler.initialize import fit_centres
from kpms_zarr.compute.sampler.prior import ParameterPrior
from kpms_zarr.compute.sampler.sweep import Sweeper, SweepResult
from kpms_zarr.compute.sampler.tile_model import SweepSums
from kpms_zarr.compute.sampler.trace import ChainProgress
from kpms_zarr.store.study.synthetic import SyntheticStudy, simulate_session, write_store

KEYPOINTS = ("spine4", "spine3", "spine2", "spine1", "head", "nose", "right ear", "left ear")
"""Of the nine mice: all but the tail."""
TARGET_MS = 400.0


@dataclass(frozen=True)
class Recipe:
    """One way to make a chain of the AR stage.

    Attributes
    ----------
    sweeps : int
        In all.
    merges : tuple of int
        Sweeps after which states are merged by evidence.
    margin : float
        Gain, in nat, that a merge must exceed.
    merge_kappa : float or None
        Stickiness at which merges are judged, None = that of the chain: the larger, the more nat a
        switch that a merge takes away is worth.
    splits : tuple of int
        Sweeps after which states are split in two where evidence grows.
    kept : int
        Sweeps at the end whose labels are averaged.
    settings : dict
        Of the fit, besides.
    """

    sweeps: int = 27
    merges: tuple[int, ...] = (4, 10, 18)
    margin: float = 0.0
    merge_kappa: float | None = None
    splits: tuple[int, ...] = ()
    kept: int = 6
    settings: dict[str, Any] = field(default_factory=dict)


RECIPES = {
    "plain": Recipe(sweeps=100, merges=(), kept=20),
    "plain50": Recipe(sweeps=50, merges=(), kept=10),
    "merged": Recipe(),
    "kappa1e2": Recipe(merge_kappa=1e2),
    "kappa1": Recipe(merge_kappa=1.0),
    "split1e2": Recipe(sweeps=44, merges=(4, 10, 18, 26, 34), splits=(22, 30), merge_kappa=1e2),
    "longer1e2": Recipe(sweeps=44, merges=(4, 10, 18, 28), merge_kappa=1e2),
    "split": Recipe(sweeps=44, merges=(4, 10, 18, 26, 34), splits=(22, 30)),
    "margin100": Recipe(margin=100.0),
    "margin300": Recipe(margin=300.0),
    "once": Recipe(merges=(18,)),
    "late": Recipe(sweeps=60, merges=(40,)),
    "stiff": Recipe(settings={"innovation_scale": 1.0, "innovation_dof": 50}),
    "stiff-plain": Recipe(
        sweeps=100, merges=(), kept=20, settings={"innovation_scale": 1.0, "innovation_dof": 50}
    ),
    "stiff4": Recipe(settings={"innovation_scale": 4.0, "innovation_dof": 100}),
    "stiff20": Recipe(settings={"innovation_scale": 20.0, "innovation_dof": 500}),
    "stiff-kappa1e2": Recipe(
        merge_kappa=1e2, settings={"innovation_scale": 1.0, "innovation_dof": 50}
    ),
    "tied": Recipe(settings={"innovation_scale": 4e3, "innovation_dof": 100_000}),
    "longer": Recipe(sweeps=60),
    "sticky": Recipe(settings={"kappa": 1e6}),
}


@dataclass(frozen=True)
class Study:
    """Sessions whose latent pose is loaded, ready for chains.

    Attributes
    ----------
    length : ndarray, (session,)
        Modelled frames.
    """

    chain: Chain
    preparation: Any
    config: FitConfig
    n_in_flight: int

    @property
    def length(self) -> np.ndarray:
        return self.chain.index.n_modelled

    @property
    def fps(self) -> float:
        return max(session.fps for session in self.chain.index.sessions)

    def rows(self) -> Iterator[slice]:
        """Modelled frames of each session in the arrays of the chain."""
        index = self.chain.index
        for first, length in zip(index.first, index.length, strict=True):
            yield slice(int(first) + index.lags, int(first + length))

    def labels(self) -> np.ndarray:
        """Labels of the modelled frames as they are now."""
        return np.concatenate([self.chain.syllable[rows] for rows in self.rows()])

    def put(self, labels: np.ndarray) -> None:
        """Write labels of the modelled frames."""
        done = 0
        for rows in self.rows():
            n = rows.stop - rows.start
            self.chain.syllable[rows] = labels[done : done + n].astype(np.int16)
            done += n

    def features(self, weight_bias: np.ndarray) -> np.ndarray:
        """Lagged latent pose, 1 and residual of the modelled frames: (frame, feature)."""
        lags, found = self.chain.index.lags, []
        for rows in self.rows():
            x = np.asarray(self.chain.latent[rows.start - lags : rows.stop], float)
            n = len(x) - lags
            past = np.concatenate([*(x[i : i + n] for i in range(lags)), np.ones((n, 1))], 1)
            found.append(np.concatenate([past, x[lags:] - past @ weight_bias.T], 1))
        return np.concatenate(found)


def open_study(
    store: Path, config: FitConfig, *, median: int = 1, smooth: float = 0.0, is_even: bool = False
) -> Study:
    """Load sessions, with the latent pose as it is or changed before the first sweep.

    Parameters
    ----------
    median : int
        Frames of a running median, 1 = none.
    smooth : float
        Standard deviation of a Gaussian filter after it, in frames.
    is_even : bool
        Scale the dims so that what the last frames do not predict is as large in each (0.2).
    """
    config = settle_tiles(config)
    preparation = prepare(store, config, None, lambda event: None)
    plan = plan_of(preparation, config, Budget(), lambda event: None)
    chain = make_chain(preparation, config, plan, None)
    load(chain, preparation, config, None, plan.tiles_in_flight)
    study = Study(chain, preparation, config, plan.tiles_in_flight)
    latent = slice(0, chain.n_latent)

    def change(function: Callable[[np.ndarray], np.ndarray]) -> None:
        for session, first in zip(chain.index.sessions, chain.index.first, strict=True):
            rows = slice(int(first), int(first) + session.n_frames)
            local = np.asarray(chain.local[rows]).copy()
            local[:, latent] = function(local[:, latent])
            chain.local[rows] = local

    if median > 1:
        change(lambda x: median_filter(x, (median, 1)))
    if smooth:
        change(lambda x: gaussian_filter1d(x, smooth, axis=0))
    if is_even:
        features = study.features(prior_mean(chain.n_latent, config.lags))
        d = chain.n_latent * config.lags + 1
        past, change_of = features[:, :d], features[:, d:]
        residual = change_of - past @ np.linalg.lstsq(past, change_of, rcond=None)[0]
        factor = 0.2 / residual.std(0)
        change(lambda x: x * factor)
    return study


# ------------------------------------------------------------------ one chain


@dataclass(frozen=True)
class Found:
    """What a chain ends with.

    Attributes
    ----------
    labels : ndarray, (frame,)
        The commonest of the last sweeps.
    evidence : float
        Log evidence of the last sweep, nat per frame.
    """

    labels: np.ndarray
    evidence: float
    seconds: float


def sample(study: Study, recipe: Recipe, seed: int) -> Found:
    """Run one chain."""
    began = time.perf_counter()
    settings = {**recipe.settings, "seed": seed, "sweeps": recipe.sweeps, "merge_sweeps": 0}
    config = study.config.resolved(**settings)
    pipeline = pipeline_of(study.n_in_flight, lambda event: None)
    sweeper = make_sweeper(study.chain, config, pipeline)
    progress = begin(sweeper, config, None, 0)
    votes = np.zeros((int(study.length.sum()), config.n_states), np.uint8)

    def go(until: int) -> None:
        run(sweeper, study.preparation, config, progress, lambda event: None, until=until)

    for sweep in range(1, recipe.sweeps + 1):
        go(sweep)
        if sweep in recipe.merges:
            merge(sweeper, config, progress, recipe)
        if sweep in recipe.splits:
            rng = np.random.default_rng([seed, sweep])
            split(study, sweeper, config, progress, recipe, rng)
        if sweep > recipe.sweeps - recipe.kept:
            z = study.labels()
            votes[np.arange(len(z)), z] += 1
    labels = votes.argmax(1).astype(np.int16)
    return Found(labels, progress.trace.log_evidence[-1], time.perf_counter() - began)


def merge(sweeper: Sweeper, config: FitConfig, progress: ChainProgress, recipe: Recipe) -> None:
    """Merge states by evidence, as the fit does, or otherwise."""
    result, weight_bias = progress.result, progress.parameters.dynamics.weight_bias
    assert result is not None
    prior = prior_of(sweeper, config, progress, recipe)
    moments, counts = result.sums.moments, result.counts.transitions
    target = merge_states(
        moments, weight_bias, counts, prior.dynamics, prior.transition, margin=recipe.margin
    )
    sweeper.chain.relabel(target)
    sums = result.sums._replace(moments=pooled(moments, weight_bias, target))
    progress.result = SweepResult(sums, count_labels(sweeper.chain, len(target)), result.terms)


def prior_of(
    sweeper: Sweeper, config: FitConfig, progress: ChainProgress, recipe: Recipe
) -> ParameterPrior:
    """Priors with the stickiness at which merges and splits are judged."""
    assert progress.kappa is not None
    kappa = progress.kappa.value if recipe.merge_kappa is None else recipe.merge_kappa
    return stages_of(config, sweeper.chain)[0].prior.with_kappa(kappa)


def split(
    study: Study,
    sweeper: Sweeper,
    config: FitConfig,
    progress: ChainProgress,
    recipe: Recipe,
    rng: np.random.Generator,
) -> None:
    """Split states in two, whole bouts at a time, where evidence grows.

    Bouts of a state are parted by their mean and slope, then moved to the half whose dynamics
    predict them better, a few times. The log likelihood of a bout is linear in its moments.
    """
    prior = prior_of(sweeper, config, progress, recipe)
    mean, n_states = prior.dynamics.mean, config.n_states
    z, ends = study.labels().astype(np.int64), np.cumsum(study.length)
    begin = np.unique(np.r_[0, np.flatnonzero(np.diff(z)) + 1, ends[:-1]])
    label, size = z[begin], np.diff(np.append(begin, len(z)))
    is_first = np.isin(begin, np.r_[0, ends[:-1]])
    features = study.features(mean)
    rows, columns = feature_pairs(mean.shape[0], config.lags)
    moments = np.add.reduceat(features[:, rows] * features[:, columns], begin)
    sketch = np.add.reduceat(features, begin) / size[:, None]
    weight_bias = progress.parameters.dynamics.weight_bias.copy()

    def evidence(of: np.ndarray) -> float:
        sums = np.zeros((n_states, len(rows)))
        np.add.at(sums, of, moments)
        counts = np.zeros((n_states, n_states))
        np.add.at(counts, (of, of), size - 1)
        np.add.at(counts, (of[:-1][~is_first[1:]], of[1:][~is_first[1:]]), 1)
        return sum(log_evidence(sums, np.broadcast_to(mean, weight_bias.shape), counts,
                                prior.dynamics, prior.transition))  # fmt: skip

    now = evidence(label)
    for state in np.flatnonzero(np.bincount(label, size, n_states) >= 0.01 * len(z)):
        free = np.flatnonzero(np.bincount(label, minlength=n_states) == 0)
        which = np.flatnonzero(label == state)
        if not len(free) or len(which) < 20:
            continue
        scaled = sketch[which] / np.maximum(sketch[which].std(0), 1e-6)
        half = vq(scaled, fit_centres(rng, scaled, 2))[0]
        for _ in range(8):
            if min(np.bincount(half, minlength=2)) < 5:
                break
            score = np.stack([fitness(moments[which], half == h, prior.dynamics) for h in (0, 1)])
            half = score.argmax(0)
        proposed = label.copy()
        proposed[which[half == 1]] = free[0]
        then = evidence(proposed)
        if then > now:
            label, now = proposed, then
            weight_bias[free[0]] = weight_bias[state]
    study.put(np.repeat(label, size))
    dynamics = progress.parameters.dynamics._replace(weight_bias=weight_bias)
    progress.parameters = progress.parameters._replace(dynamics=dynamics)
    sums, counts = sweeper.measure(weight_bias)
    progress.result = SweepResult(SweepSums(sums), counts, {})


def fitness(moments: np.ndarray, is_in: np.ndarray, prior: DynamicsPrior) -> np.ndarray:
    """Log likelihood of bouts (bout,) under the mean dynamics of some of them."""
    m, d = prior.mean.shape
    known = posterior_of(moments[is_in].sum(0)[None], prior.mean[None], prior)
    covariance = known.scatter[0] / (known.dof[0] - m - 1)
    residual = np.concatenate([-known.mean[0], np.eye(m)], 1)
    form = residual.T @ np.linalg.solve(covariance, residual)
    rows, columns = feature_pairs(m, (d - 1) // m)
    twice = np.where(rows == columns, 1.0, 2.0)
    count, *_ = unpack(moments, m, (d - 1) // m)
    found: np.ndarray = -0.5 * (
        count * np.linalg.slogdet(covariance)[1] + moments @ (twice * form[rows, columns])
    )
    return found


def chains(
    study: Study, name: str, seeds: Sequence[int], keep: Path, say: Callable[[str], None]
) -> list[Found]:
    """Chains of a recipe, those that are kept already from there."""
    found = []
    for seed in seeds:
        file = keep / f"{name}-{seed}.npz"
        if file.exists():
            known = np.load(file)
            found.append(Found(known["labels"], float(known["evidence"]), float(known["seconds"])))
            continue
        one = sample(study, RECIPES[name], seed)
        np.savez_compressed(file, labels=one.labels, evidence=one.evidence, seconds=one.seconds)
        say(
            f"{name} {seed}: {one.seconds:.1f} s, evidence {one.evidence:.4f}, {coarse(one.labels)}"
        )
        found.append(one)
    return found


# ------------------------------------------------------------------ how alike, how coarse


def effective(z: np.ndarray) -> float:
    """exp(entropy of usage)."""
    p = np.bincount(z) / len(z)
    p = p[p > 0]
    return float(np.exp(-(p * np.log(p)).sum()))


def used(z: np.ndarray) -> int:
    """Labels with at least 0.5 % of the frames."""
    return int((np.bincount(z) >= 0.005 * len(z)).sum())


def coarse(z: np.ndarray) -> str:
    return f"effective {effective(z):.1f}, used {used(z)}"


def matched(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """Whether the labels of a frame are each other's match (Hungarian): (frame,)."""
    table = contingency(a, b)
    rows, columns = linear_sum_assignment(-table)
    partner = np.full(len(table), -1)
    partner[rows] = columns
    same: np.ndarray = partner[a] == b
    return same


def median_bout(z: np.ndarray, length: np.ndarray) -> float:
    """Median length of a bout, in frames."""
    ends = np.union1d(np.flatnonzero(np.diff(z)) + 1, np.cumsum(length))
    return float(np.median(np.diff(np.append(0, ends))))


def calibration_error(p: np.ndarray, is_same: np.ndarray, n_bins: int = 10) -> float:
    """Expected calibration error: mean over frames of |said - true| by bins of what is said."""
    which = np.minimum((p * n_bins).astype(int), n_bins - 1)
    bins = [which == i for i in range(n_bins) if (which == i).any()]
    return float(sum(abs(p[b].mean() - is_same[b].mean()) * b.mean() for b in bins))


# ------------------------------------------------------------------ ensembles


@dataclass(frozen=True)
class Ensemble:
    """Labels that chains agree on.

    Attributes
    ----------
    labels : ndarray, (frame,)
    certainty : ndarray, (frame,)
        Share of the votes that the label has.
    """

    labels: np.ndarray
    certainty: np.ndarray


def ensemble(labels: Sequence[np.ndarray], length: np.ndarray, target: float) -> Ensemble:
    """Consensus of chains (frame,), as the package makes it; ``target``: median bout, in frames."""
    every = np.stack(labels, 1)
    votes = vote(Patterns.of(every))
    share = votes.shares(every)
    score, ends = scores_of(share), np.cumsum(length)

    def path(price: float) -> np.ndarray:
        sessions = zip(ends - length, ends, strict=True)
        return np.concatenate([best_path(_blocks(score[a:b]), price) for a, b in sessions])

    z = path(price_for(lambda price: median_bout(path(price), length), target))
    z = z.astype(np.int64)
    return Ensemble(z, share[np.arange(len(z)), z])


def _blocks(score: np.ndarray) -> Iterator[np.ndarray]:
    for start in range(0, len(score), BLOCK_FRAMES):
        yield score[start : start + BLOCK_FRAMES]


def agree(group: Sequence[Found], study: Study, share: float) -> Ensemble:
    """Ensemble of the chains of a group that have the highest evidence, a share of them."""
    best = sorted(group, key=lambda one: -one.evidence)[: max(1, round(share * len(group)))]
    labels = [one.labels.astype(np.int64) for one in best]
    return ensemble(labels, study.length, TARGET_MS * study.fps / 1000)


# ------------------------------------------------------------------ tables

_HEAD = (
    "| what | pairs | ARI, mean (lowest-highest) | NMI | matched | effective | used | bout, ms "
    "| error of certainty |\n| --- | --- | --- | --- | --- | --- | --- | --- | --- |"
)


def row(
    what: str,
    labels: Sequence[np.ndarray],
    study: Study,
    certainties: Sequence[np.ndarray] = (),
) -> str:
    """One row of the table: all pairs of labellings that share nothing."""
    pairs = list(itertools.combinations(range(len(labels)), 2))
    ari = [adjusted_rand_index(labels[i], labels[j]) for i, j in pairs]
    nmi = [normalized_mutual_information(labels[i], labels[j]) for i, j in pairs]
    same = [matched(labels[i], labels[j]) for i, j in pairs]
    ends = study.length
    error = "" if not certainties else f"""{np.mean([
        calibration_error(certainties[k], m)
        for pair, m in zip(pairs, same, strict=True) for k in pair
    ]):.3f}"""  # fmt: skip
    bouts = np.mean([median_bout(z, ends) for z in labels]) * 1000 / study.fps
    return (
        f"| {what} | {len(pairs)} | {np.mean(ari):.3f} ({min(ari):.2f}-{max(ari):.2f}) "
        f"| {np.mean(nmi):.3f} | {np.mean([m.mean() for m in same]):.3f} "
        f"| {np.mean([effective(z) for z in labels]):.1f} "
        f"| {np.mean([used(z) for z in labels]):.1f} "
        f"| {bouts:.0f} | {error} |"
    )


def table(
    study: Study,
    names: Sequence[str],
    seeds: Sequence[int],
    sizes: Sequence[int],
    keep: Path,
    truth: np.ndarray | None,
) -> None:
    """Print what chains and ensembles of each recipe agree in."""
    rows = []
    for name in names:
        found = chains(study, name, seeds, keep, lambda text: print(text, flush=True))
        seconds = np.mean([one.seconds for one in found])
        evidence = np.mean([one.evidence for one in found])
        labels = [one.labels.astype(np.int64) for one in found]
        what = f"{name}: single chains, {seconds:.1f} s each, evidence {evidence:.3f}"
        rows.append(row(what, labels[:16], study))
        if len(found) >= 16:
            by_evidence = np.argsort([-one.evidence for one in found])[: len(found) // 4]
            what = f"{name}: the quarter of the highest evidence"
            rows.append(row(what, [labels[i] for i in by_evidence], study))
            best = [
                max(range(i, i + 4), key=lambda k: found[k].evidence)
                for i in range(0, len(found) - 3, 4)
            ]
            rows.append(row(f"{name}: the best of four each", [labels[i] for i in best], study))
        if truth is not None:
            rows[-1] += (
                f" to the truth {np.mean([adjusted_rand_index(z, truth) for z in labels]):.3f}"
            )
        for size in sizes:
            groups = [found[i : i + size] for i in range(0, len(found) - size + 1, size)]
            if len(groups) < 2:
                continue
            for share in (1.0, 0.5):
                agreed = [agree(group, study, share) for group in groups]
                which = "" if share == 1 else f" the {share:.0%} of highest evidence of"
                what = f"{name}:{which} ensembles of {size}"
                certainties = [e.certainty for e in agreed]
                rows.append(row(what, [e.labels for e in agreed], study, certainties))
                if truth is not None:
                    to_truth = np.mean([adjusted_rand_index(e.labels, truth) for e in agreed])
                    rows[-1] += f" to the truth {to_truth:.3f}"
        print("\n".join([_HEAD, *rows]), flush=True)


# ------------------------------------------------------------------ sessions


def ingest_mice(data: Path, store: Path) -> None:
    files = sorted(data.glob("*.csv"))
    kpms_zarr.ingest(store, files, fps=30.0, anterior=["nose"], posterior=["spine4"])
    kpms_zarr.pca(store)


def simulate(store: Path, study: SyntheticStudy, lags: int) -> np.ndarray:
    """Write a study; returns the true labels of the modelled frames."""
    write_store(store, study)
    kpms_zarr.pca(store)
    sessions = [simulate_session(study, row) for row in range(study.n_sessions)]
    return np.concatenate([session.syllable[lags:] for session in sessions])


def make_hard(study: Study, gap: float = 0.12, noise: float = 0.2, n_pairs: int = 12) -> np.ndarray:
    """Replace the latent pose by one of syllables in close pairs, with white noise on it.

    The two of a pair hold nearly the same pose and differ in how it is reached; bouts are
    geometric with a mean of 12 frames.

    Returns
    -------
    (frame,)
        True labels of the modelled frames.
    """
    chain, n = study.chain, 2 * n_pairs
    rng, m = np.random.default_rng(5), chain.n_latent
    target = np.repeat(rng.normal(size=(n_pairs, m)), 2, 0) + gap * rng.normal(size=(n, m))
    skew = rng.normal(size=(n, m, m))
    turn = 0.88 * np.eye(m) + 0.1 * (skew - skew.transpose(0, 2, 1))
    turn /= np.maximum(1, np.abs(np.linalg.eigvals(turn)).max(1) / 0.93)[:, None, None]
    truth = []
    for session, first in zip(chain.index.sessions, chain.index.first, strict=True):
        z, state = [], int(rng.integers(n))
        while len(z) < session.n_frames:
            z += [state] * (1 + int(rng.geometric(1 / 11)))
            state = (state + 1 + int(rng.integers(n - 1))) % n
        x, at = np.empty((session.n_frames, m)), target[z[0]]
        for t, now in enumerate(z[: session.n_frames]):
            at = target[now] + turn[now] @ (at - target[now]) + 0.12 * rng.normal(size=m)
            x[t] = at
        rows = slice(int(first), int(first) + session.n_frames)
        local = np.asarray(chain.local[rows]).copy()
        local[:, :m] = x + noise * rng.normal(size=x.shape)
        chain.local[rows] = local
        truth.append(np.array(z[chain.index.lags : session.n_frames]))
    return np.concatenate(truth)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data", type=Path, help="folder of the nine mice, csv files")
    parser.add_argument("--store", type=Path, help="a store with components; made of --data")
    parser.add_argument("--keep", type=Path, help="folder for chains (default: temporary)")
    parser.add_argument("--recipes", default="plain,merged", help=", ".join(RECIPES))
    parser.add_argument("--chains", type=int, default=48)
    parser.add_argument("--seed", type=int, default=1000, help="of the first chain")
    parser.add_argument("--size", default="8,16", help="chains of an ensemble")
    parser.add_argument("--kappa", type=float, default=4e4)
    parser.add_argument("--latent-dim", type=int, help="default: those of 90 % of the variance")
    parser.add_argument("--median", type=int, default=1, help="filter of the latent pose, frames")
    parser.add_argument("--smooth", type=float, default=0.0, help="then, a Gaussian one, frames")
    parser.add_argument("--even", action="store_true", help="equal innovations in all latent dims")
    parser.add_argument(
        "--hard", action="store_true", help="simulated, 24 syllables in close pairs"
    )
    parser.add_argument("--reduced", action="store_true", help="simulated, 6 chains")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as scratch:
        keep = options.keep or Path(scratch)
        keep.mkdir(parents=True, exist_ok=True)
        store = options.store or Path(scratch) / "study.zarr"
        truth = None
        if options.reduced:
            options.chains, options.size = 6, "3"
            truth = simulate(store, SyntheticStudy(n_sessions=4, n_frames=2500, seed=1), 3)
        elif options.hard:
            simulate(store, SyntheticStudy(n_sessions=6, n_frames=8000, seed=1), 3)
        elif not store.exists():
            ingest_mice(options.data, store)
        keypoints = None if options.reduced or options.hard else KEYPOINTS
        n_latent = options.latent_dim or (4 if options.hard else None)
        config = FitConfig(
            stage="ar", kappa=options.kappa, use_keypoints=keypoints, latent_dim=n_latent
        )
        opened = open_study(
            store, config, median=options.median, smooth=options.smooth, is_even=options.even
        )
        if options.hard:
            truth = make_hard(opened)
        seeds = range(options.seed, options.seed + options.chains)
        sizes = [int(size) for size in options.size.split(",")]
        table(opened, options.recipes.split(","), seeds, sizes, keep, truth)


if __name__ == "__main__":
    if sys.argv[1:2] == ["table"]:
        import replicability_table

        replicability_table.main(sys.argv[2:])
    else:
        main()
