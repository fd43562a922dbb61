"""Ceiling of what replicates: by the number of chains, by the amount of video, by granularity.

    python benchmarks/replicability_ceiling.py --data FOLDER --keep RESULTS
    python benchmarks/replicability_ceiling.py --keep RESULTS --parts simulated --sizes 0.25,1,4
    python benchmarks/replicability_ceiling.py --reduced

Chains of the AR stage (benchmarks/replicability.py) and ensembles of them, which share no chain.
Every chain labels all sessions by its parameters, as the members of a consensus do, so that all
comparisons are about the same frames.

Parts:

data
    Chains that are fitted to all sessions, to halves, and to quarters of them: agreement of
    ensembles of the same sessions, which differ in the seed alone, and of ensembles of disjoint
    ones, which share no video; and, of all sessions, by the number of chains.
simulated
    The parameters of one of these chains taken for the truth, sessions of other lengths drawn from
    them: as much overlap as the model finds in the real ones, with a known answer. Labels by the
    true parameters bound what any fit can find; more frames show what more video would bring.
"""

import argparse
import itertools
import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import replicability as chains_of
from replicability import RECIPES, TARGET_MS, Ensemble, Study, effective, ensemble, used

from kpms_zarr.compute.analysis.agreement import adjusted_rand_index
from kpms_zarr.compute.config import FitConfig
from kpms_zarr.compute.kernels.dynamics import Dynamics
from kpms_zarr.compute.runs.stages import begin, make_sweeper, pipeline_of, run
from kpms_zarr.compute.sampler.certainty import BestLabels
from kpms_zarr.compute.sampler.tile_model import Parameters
from kpms_zarr.store.core.schema import USED_FRACTION
from kpms_zarr.store.study.synthetic import SyntheticStudy, affine_scan

HEAD = (
    "| what | pairs | ARI, mean (lowest-highest) | to the truth | effective | used | bout, ms "
    "| error of certainty |\n| --- | --- | --- | --- | --- | --- | --- | --- |"
)
LARGEST_EIGENVALUE = 0.995
"""Of the dynamics of a state that sessions are drawn with; of a fit some are just above 1."""


@dataclass(frozen=True)
class Source:
    """Sessions, and the labels that chains of some of them give to all of them.

    Attributes
    ----------
    store : Path
    whole : Study
        All sessions.
    config : FitConfig
        Of a chain of all sessions.
    keep : Path
        Folder for what chains have found.
    """

    store: Path
    whole: Study
    config: FitConfig
    keep: Path

    def part(self, sessions: Sequence[str] | None) -> Study:
        """Study of some sessions."""
        if sessions is None:
            return self.whole
        return chains_of.open_study(self.store, self.config.resolved(sessions=tuple(sessions)))

    def labels(
        self, name: str, seeds: Sequence[int], recipe: str, sessions: Sequence[str] | None = None
    ) -> list[np.ndarray]:
        """Labels of all sessions by chains of some of them: a list of (frame,)."""
        missing = [s for s in seeds if not self._file(name, recipe, s).exists()]
        part = self.part(sessions) if missing else self.whole
        for seed in missing:
            began = time.perf_counter()
            parameters = fitted(part, recipe, seed)
            z = labelled(self.whole, parameters)
            file = self._file(name, recipe, seed)
            np.savez_compressed(file, labels=z, **parameters.to_store())  # type: ignore[arg-type]
            seconds = time.perf_counter() - began
            print(f"{name} {recipe} {seed}: {seconds:.1f} s, {chains_of.coarse(z)}", flush=True)
        return [
            np.load(self._file(name, recipe, seed))["labels"].astype(np.int64) for seed in seeds
        ]

    def parameters(self, name: str, recipe: str, seed: int) -> Parameters:
        """Parameters that a chain ended with."""
        with np.load(self._file(name, recipe, seed)) as kept:
            return Parameters.from_store(kept)

    def _file(self, name: str, recipe: str, seed: int) -> Path:
        return self.keep / f"{name}-{recipe}-{seed}.npz"

    def agreed(self, labels: Sequence[np.ndarray], size: int) -> list[Ensemble]:
        """Ensembles of so many chains, one after the other."""
        target = TARGET_MS * self.whole.fps / 1000
        return [
            ensemble(labels[i : i + size], self.whole.length, target)
            for i in range(0, len(labels) - size + 1, size)
        ]


def fitted(study: Study, recipe: str, seed: int) -> Parameters:
    """Parameters after the last sweep of a chain."""
    how = RECIPES[recipe]
    config = study.config.resolved(**how.settings, seed=seed, sweeps=how.sweeps, merge_sweeps=0)
    sweeper = make_sweeper(study.chain, config, pipeline_of(study.n_in_flight, lambda event: None))
    progress = begin(sweeper, config, None, 0)
    for sweep in range(1, how.sweeps + 1):
        run(sweeper, study.preparation, config, progress, lambda event: None, until=sweep)
        if sweep in how.merges:
            chains_of.merge(sweeper, config, progress, how)
    return progress.parameters


def labelled(study: Study, parameters: Parameters) -> np.ndarray:
    """Most probable label of every modelled frame, given the parameters: (frame,) int16."""
    config = study.config.resolved(n_states=len(parameters.usage))
    sweeper = make_sweeper(study.chain, config, pipeline_of(study.n_in_flight, lambda event: None))
    by_row = dict(BestLabels(sweeper, parameters).of_sessions())
    return np.concatenate([by_row[row][config.lags :] for row in sorted(by_row)])


def row(
    what: str,
    source: Source,
    labellings: Sequence[np.ndarray | Ensemble],
    pairs: Sequence[tuple[int, int]] | None = None,
    truth: np.ndarray | None = None,
) -> str:
    """Row of the table: ``pairs`` of the labellings (default: each two).

    The certainties of ensembles are held against each other's labels.
    """
    labels = [one.labels if isinstance(one, Ensemble) else one for one in labellings]
    if pairs is None:
        pairs = list(itertools.combinations(range(len(labels)), 2))
    values = [adjusted_rand_index(labels[i], labels[j]) for i, j in pairs]
    shown = f"{np.mean(values):.3f} ({min(values):.2f}-{max(values):.2f})" if values else ""
    right = ""
    if truth is not None:
        right = f"{np.mean([adjusted_rand_index(z, truth) for z in labels]):.3f}"
    fps, length = source.whole.fps, source.whole.length
    bout = np.mean([chains_of.median_bout(z, length) for z in labels]) * 1000 / fps
    size = " | ".join(f"{np.mean([of(z) for z in labels]):.1f}" for of in (effective, used))
    errors = []
    for pair in pairs:
        same = chains_of.matched(*(labels[i] for i in pair))
        for one in (labellings[i] for i in pair):
            if isinstance(one, Ensemble):
                errors.append(chains_of.calibration_error(one.certainty, same))
    error = f"{np.mean(errors):.3f}" if errors else ""
    return f"| {what} | {len(pairs)} | {shown} | {right} | {size} | {bout:.0f} | {error} |"


# ------------------------------------------------------------------ by amount of video


def by_data(source: Source, recipe: str, seed: int, n_chains: int, size: int) -> list[str]:
    """Rows of all sessions, of halves and of quarters, two ensembles each."""
    sessions = sorted(session.name for session in source.whole.chain.index.sessions)
    n = len(sessions)
    parts: dict[str, list[tuple[str, ...] | None]] = {
        "all sessions": [None],
        "halves": [tuple(sessions[i::2]) for i in range(2)],
        "quarters": [tuple(sessions[i::4][: max(1, n // 4)]) for i in range(4)],
    }
    rows = []
    for k, (what, some) in enumerate(parts.items()):
        found: list[Ensemble] = []
        singles: list[list[np.ndarray]] = []
        for i, names in enumerate(some):
            n_here = n_chains if names is None else 2 * size
            first = seed + 10_000 * k + 1000 * i
            seeds = range(first, first + n_here)
            labels = source.labels(f"{what.split()[0]}-{i}", seeds, recipe, names)
            singles.append(labels)
            if names is None:
                rows.append(row(f"{what}: single chains", source, labels[:16]))
                for few in (2, 4, 8, 16, 32):
                    if 2 * few <= len(labels):
                        agreed = source.agreed(labels, few)
                        rows.append(row(f"{what}: ensembles of {few}", source, agreed))
                continue
            found += source.agreed(labels, size)
        if len(some) > 1:
            last = range(len(some))
            alone = [one for labels in singles for one in labels]
            step = 2 * size
            within = [(i * step + a, i * step + a + size) for i in last for a in range(size)]
            rows.append(row(f"{what}: single chains, the same sessions", source, alone, within))
            same = [(2 * i, 2 * i + 1) for i in last]
            what = f"{what}: ensembles of {size}"
            rows.append(row(f"{what}, the same sessions", source, found, same))
            apart = [
                (2 * i + a, 2 * j + b)
                for i, j in itertools.combinations(last, 2) for a in (0, 1) for b in (0, 1)
            ]  # fmt: skip
            rows.append(row(f"{what}, disjoint sessions", source, found, apart))
    return rows


# ------------------------------------------------------------------ simulated


def in_use(parameters: Parameters, labels: np.ndarray) -> Parameters:
    """Parameters of the states with at least 0.5 % of the frames, switching as the labels do.

    The others have dynamics of the prior; and by the prior of the transitions, at this stickiness,
    bouts last for minutes: in labels it is the pose that ends them.
    """
    n = len(parameters.usage)
    share = np.bincount(labels, minlength=n) / len(labels)
    kept = np.flatnonzero(share >= USED_FRACTION)
    found = parameters.reordered(kept)
    number = np.full(n, -1)
    number[kept] = np.arange(len(kept))
    z = number[labels]
    z = z[z >= 0]
    counts = np.zeros((len(kept), len(kept)))
    np.add.at(counts, (z[:-1], z[1:]), 1)
    counts += 1e-3
    return found._replace(
        usage=share[kept] / share[kept].sum(), transition=counts / counts.sum(1, keepdims=True)
    )


def drawn(parameters: Parameters, lengths: Sequence[int], lags: int, seed: int) -> list[Any]:
    """Draw sessions of the AR model: list of (latent (frame, latent), labels (frame,))."""
    weight_bias, covariance = parameters.dynamics
    m = covariance.shape[-1]
    root = np.linalg.cholesky(covariance)
    usage = parameters.usage
    stay = np.diagonal(parameters.transition)
    leave = parameters.transition - np.diag(stay)
    leave = np.cumsum(leave / np.maximum(leave.sum(1, keepdims=True), 1e-300), 1)
    found = []
    for number, n_frames in enumerate(lengths):
        rng = np.random.default_rng([seed, number])
        state, bouts, done = int(rng.choice(len(usage), p=usage / usage.sum())), [], 0
        while done < n_frames:  # by bouts, not by frames
            duration = int(rng.geometric(max(1 - stay[state], 1e-6)))
            bouts.append((state, duration))
            done += duration
            state = min(int(np.searchsorted(leave[state], rng.random())), len(usage) - 1)
        z = np.repeat(*np.array(bouts).T)[:n_frames]
        drive = np.zeros((n_frames, lags * m))
        noise = np.einsum("tij,tj->ti", root[z], rng.normal(size=(n_frames, m)))
        drive[:, -m:] = weight_bias[z, :, -1] + noise
        step = np.zeros((len(usage), lags * m, lags * m))
        step[:, :-m, m:] = np.eye((lags - 1) * m)
        step[:, -m:] = weight_bias[..., :-1]
        x = affine_scan(step[z], drive, np.zeros(lags * m))[:, -m:]
        assert np.isfinite(x).all(), "the dynamics of this chain have no steady state"
        found.append((x, z))
    return found


def steady(dynamics: Dynamics, lags: int) -> Dynamics:
    """Dynamics whose states are stable: the lags of others are damped until they are."""
    weight_bias = dynamics.weight_bias.copy()
    m = weight_bias.shape[1]
    companion = np.zeros((len(weight_bias), lags * m, lags * m))
    companion[:, :-m, m:] = np.eye((lags - 1) * m)
    companion[:, -m:] = weight_bias[..., :-1]
    radius = np.abs(np.linalg.eigvals(companion)).max(1)
    factor = np.minimum(1, LARGEST_EIGENVALUE / radius)
    # All eigenvalues of a companion matrix are multiplied by it.
    powers = factor[:, None] ** np.repeat(np.arange(lags, 0, -1), m)
    weight_bias[..., :-1] *= powers[:, None]
    return Dynamics(weight_bias, dynamics.covariance)


def by_size(
    truth: Parameters, n_truth: int, source: Source, keep: Path, options: argparse.Namespace
) -> list[str]:
    """Rows of simulated sessions, so many times as long as the real ones in all."""
    rows, config = [], source.config
    truth = truth._replace(dynamics=steady(truth.dynamics, config.lags))
    real = [session.n_frames for session in source.whole.chain.index.sessions]
    for times in (float(size) for size in options.sizes.split(",")):
        n = max(1, round(times * len(real)))
        lengths = tuple((real * (n // len(real) + 1))[:n])
        name = f"simulated-{n_truth}-{times:g}"
        store = keep / f"{name}.zarr"
        study = SyntheticStudy(lengths=lengths, n_syllables=4, seed=1)
        if not store.exists():
            chains_of.simulate(store, study, config.lags)
        here = FitConfig(stage="ar", kappa=options.kappa, latent_dim=source.whole.chain.n_latent)
        whole = chains_of.open_study(store, here)
        chain, z = whole.chain, []
        made = drawn(truth, lengths, here.lags, seed=options.seed)
        order = {f"session_{i:03d}": i for i in range(n)}
        for session, first in zip(chain.index.sessions, chain.index.first, strict=True):
            x, labels = made[order[session.name]]
            rows_of = slice(int(first), int(first) + len(x))
            local = np.asarray(chain.local[rows_of]).copy()
            local[:, : chain.n_latent] = x
            chain.local[rows_of] = local
            z.append(labels[here.lags :])
        true = np.concatenate(z).astype(np.int64)
        one = Source(store, whole, here, keep)
        minutes = len(true) / whole.fps / 60
        what = f"{effective(true):.1f} true syllables, {minutes:.0f} minutes"
        rows.append(row(f"{what}: the truth", one, [true], []))
        best = labelled(whole, truth).astype(np.int64)
        rows.append(row(f"{what}: labels by the true parameters", one, [best], [], true))
        for recipe in options.recipes.split(","):
            seeds = range(options.seed + 50_000, options.seed + 50_000 + 2 * options.size)
            labels = one.labels(name, seeds, recipe)
            rows.append(row(f"{what}: single chains, {recipe}", one, labels, None, true))
            agreed = one.agreed(labels, options.size)
            text = f"{what}: ensembles of {options.size}, {recipe}"
            rows.append(row(text, one, agreed, None, true))
            print("\n".join(rows[-4:]), flush=True)
    return rows


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--data", type=Path, help="folder of the nine mice, csv files")
    parser.add_argument("--store", type=Path, help="a store with components; made of --data")
    parser.add_argument("--keep", type=Path, help="folder for chains (default: temporary)")
    parser.add_argument("--parts", default="data,simulated")
    parser.add_argument("--recipe", default="kappa1e2", help="of the chains of `data`")
    parser.add_argument("--recipes", default="kappa1e2", help="of those of `simulated`")
    parser.add_argument("--truths", default="kappa1e2,plain", help="recipes of the true parameters")
    parser.add_argument("--sizes", default="0.25,1,4", help="times the real frames")
    parser.add_argument("--chains", type=int, default=32, help="of all sessions")
    parser.add_argument("--size", type=int, default=8, help="chains of an ensemble elsewhere")
    parser.add_argument("--kappa", type=float, default=4e4)
    parser.add_argument("--seed", type=int, default=7000)
    parser.add_argument("--reduced", action="store_true", help="small, simulated throughout")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as scratch:
        keep = options.keep or Path(scratch)
        keep.mkdir(parents=True, exist_ok=True)
        store = options.store or keep / "study.zarr"
        keypoints: tuple[str, ...] | None = chains_of.KEYPOINTS
        if options.reduced:
            keypoints, options.chains, options.size, options.sizes = None, 4, 2, "0.5,1"
            study = SyntheticStudy(n_sessions=4, n_frames=1500, seed=1)
            chains_of.simulate(store, study, 3)
        elif not store.exists():
            chains_of.ingest_mice(options.data, store)
        config = FitConfig(stage="ar", kappa=options.kappa, use_keypoints=keypoints)
        source = Source(store, chains_of.open_study(store, config), config, keep)
        rows: list[str] = []
        if "data" in options.parts:
            rows += by_data(source, options.recipe, options.seed, options.chains, options.size)
            print("\n".join([HEAD, *rows]), flush=True)
        if "simulated" in options.parts:
            for recipe in options.truths.split(","):
                z = source.labels("all-0", [options.seed], recipe)[0]
                truth = in_use(source.parameters("all-0", recipe, options.seed), z)
                rows += by_size(truth, round(10 * effective(z)), source, keep, options)
        print("\n".join([HEAD, *rows]), flush=True)
        (keep / "ceiling.md").write_text("\n".join([HEAD, *rows]) + "\n")


if __name__ == "__main__":
    main()
