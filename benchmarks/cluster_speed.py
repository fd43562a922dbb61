"""What a sweep costs on the workers of a cluster, beside the same sweep in one process.

    python benchmarks/cluster_speed.py                   # 1 M frames, in one process and on local:2
    python benchmarks/cluster_speed.py --parts dry       # messages and folding of 1,000 workers

Overhead: sweeps of the AR stage and of the full one over the same store, two tiles at once in one
process, and two workers of one thread each, on the same two cores; median over sweeps, commits left
out. Dry: what the process that was started does in a sweep over a thousand workers, each of which
answers at once with sums of the size that 100 states have: calls, messages, folding, and the draw
of the parameters, through a real scheduler on this machine.
"""

from __future__ import annotations

import argparse
import json
import resource
import subprocess
import sys
import tempfile
import time
from functools import reduce
from pathlib import Path
from typing import Any

import numpy as np

N_STATES, N_LATENT, LAGS = 100, 4, 3


def study(folder: Path, n_sessions: int, n_frames: int) -> Path:
    """Store of simulated sessions with its PCA, made once."""
    import kpms_zarr
    from kpms_zarr.store.study.synthetic import SyntheticStudy, write_store

    store = folder / "study.zarr"
    if not (store / "pca").exists():
        write_store(store, SyntheticStudy(n_sessions=n_sessions, n_frames=n_frames, seed=0))
        kpms_zarr.pca(store)
    return store


def measure(store: Path, stage: str, sweeps: int, cluster: str | None) -> dict[str, float]:
    """Fit in this process or on a cluster; ms of a sweep, and MB of this process."""
    import kpms_zarr
    from kpms_zarr.compute.events import SweepEnded

    seconds: list[float] = []

    def keep(event: object) -> None:
        if isinstance(event, SweepEnded) and event.stage == stage:
            seconds.append(event.seconds)

    ar = 2 if stage == "full" else sweeps
    config = kpms_zarr.FitConfig(
        stage="ar" if stage == "ar" else "both", ar_sweeps=None if stage == "ar" else ar,
        sweeps=sweeps, n_states=N_STATES, latent_dim=N_LATENT, average_sweeps=1, certainty=False,
    )  # fmt: skip
    kpms_zarr.fit(
        store, model="m", config=config, cluster=cluster, overwrite=True, callbacks=[keep],
        budget=kpms_zarr.Budget(tiles_in_flight=2), save_every=10_000,
    )  # fmt: skip
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1000
    return {"ms": 1000 * float(np.median(seconds[2:])), "MB": peak}


def overhead(options: argparse.Namespace, folder: Path) -> None:
    """Print the table of both stages, each run in a process of its own."""
    store = study(folder, options.sessions, options.frames)
    n_frames = options.sessions * options.frames
    print(f"\n{n_frames:,} frames, {options.sessions} sessions, {N_STATES} states\n")
    print(
        "| stage | where | ms a sweep | us a frame | this process, peak MB | against one process |"
    )
    print("| --- | --- | --- | --- | --- | --- |")
    for stage in ("ar", "full"):
        base = 0.0
        for where in (None, "local:2"):
            line = [
                sys.executable, __file__, "--one", json.dumps([str(store), stage, where]),
                "--sweeps", str(options.sweeps),
            ]  # fmt: skip
            done = subprocess.run(line, check=True, capture_output=True, text=True)
            found = json.loads(done.stdout.splitlines()[-1])
            base = base or found["ms"]
            print(
                f"| {stage} | {where or 'one process, two threads'} | {found['ms']:.0f} | "
                f"{1000 * found['ms'] / n_frames:.2f} | {found['MB']:.0f} | "
                f"{found['ms'] / base - 1:+.1%} |",
                flush=True,
            )


def canned(number: int, n_pairs: int, fps: float) -> Any:
    """Answer of a worker, with one shard."""
    from kpms_zarr.compute.mapreduce import Histogram
    from kpms_zarr.compute.runs.bundle import BundleResult
    from kpms_zarr.compute.sampler.bouts import LabelCounts
    from kpms_zarr.compute.sampler.tile_model import SweepSums

    rng = np.random.default_rng(number)
    bouts = rng.integers(0, N_STATES, 50_000) << 40 | rng.geometric(0.05, 50_000)
    counts = LabelCounts(
        rng.integers(0, 9, N_STATES), rng.integers(0, 9, (N_STATES, N_STATES)),
        Histogram.of_block(bouts), fps,
    )  # fmt: skip
    sums = SweepSums(rng.normal(size=(N_STATES, n_pairs)), np.zeros(4), np.zeros(8), np.zeros(8))
    return BundleResult({number: sums}, counts, np.full((8, 600), -1, np.int16), 10)


def answer(order: Any, number: int, n_pairs: int) -> Any:
    """Worker that answers at once."""
    return canned(number, n_pairs, 30.0)


def dry(options: argparse.Namespace) -> None:
    """Print what a sweep over so many workers takes beside the sampling."""
    from distributed import Client, LocalCluster

    from kpms_zarr.compute.cluster.crew import Crew, Part
    from kpms_zarr.compute.kernels.ar import feature_pairs
    from kpms_zarr.compute.kernels.dynamics import DynamicsPrior, prior_mean
    from kpms_zarr.compute.kernels.transitions import TransitionPrior
    from kpms_zarr.compute.runs.bundle import SweepOrder
    from kpms_zarr.compute.sampler.bouts import LabelCounts
    from kpms_zarr.compute.sampler.prior import ParameterPrior
    from kpms_zarr.compute.sampler.tile_model import SweepSums

    n_pairs = len(feature_pairs(N_LATENT, LAGS)[0])
    prior = ParameterPrior(
        dynamics=DynamicsPrior(prior_mean(N_LATENT, LAGS), 10.0, 0.01, N_LATENT + 2.0),
        transition=TransitionPrior(5.7, 1e3, 1e4),
    )
    first = prior.first(0, N_STATES)
    print("\n| workers | ms a sweep: calls and messages | folding | parameters | peak MB |")
    print("| --- | --- | --- | --- | --- |")
    with (
        LocalCluster(n_workers=1, threads_per_worker=2, dashboard_address=None) as cluster,
        Client(cluster) as client,
    ):
        crew = Crew(client)
        (worker,) = crew.workers()
        order = SweepOrder("full", 0, first, np.ones(8), False)
        for n in (10, 100, options.workers):
            parts = [Part(f"part {i}", worker) for i in range(n)]
            crew.call(parts, answer, lambda part, _: (order, part, n_pairs))
            began = time.perf_counter()
            results = crew.call(parts, answer, lambda part, _: (order, part, n_pairs))
            called = time.perf_counter()
            sums = {shard: one for result in results for shard, one in result.sums.items()}
            total = reduce(SweepSums.plus, [sums[shard] for shard in sorted(sums)])
            counts = reduce(LabelCounts.plus, [result.counts for result in results])
            folded = time.perf_counter()
            moments = np.zeros_like(total.moments)
            drawn = prior.draw(
                0, 0, moments=moments, transitions=counts.transitions,
                weight_bias=first.dynamics.weight_bias, usage=first.usage,
            )  # fmt: skip
            prior.log_density(drawn, None)
            prior.log_evidence(moments, counts.transitions, first.dynamics.weight_bias)
            drew = time.perf_counter()
            peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1000
            print(
                f"| {n:,} | {1000 * (called - began):.0f} | {1000 * (folded - called):.1f} | "
                f"{1000 * (drew - folded):.0f} | {peak:.0f} |",
                flush=True,
            )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--parts", default="overhead,dry")
    parser.add_argument("--sessions", type=int, default=20)
    parser.add_argument("--frames", type=int, default=50_000)
    parser.add_argument("--sweeps", type=int, default=10)
    parser.add_argument("--workers", type=int, default=1000)
    parser.add_argument("--keep", type=Path, help="folder of the store (default: a temporary one)")
    parser.add_argument("--one", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.one:
        store, stage, where = json.loads(options.one)
        print(json.dumps(measure(Path(store), stage, options.sweeps, where)))
        return
    with tempfile.TemporaryDirectory() as folder:
        keep = options.keep or Path(folder)
        keep.mkdir(parents=True, exist_ok=True)
        if "overhead" in options.parts:
            overhead(options, keep)
        if "dry" in options.parts:
            dry(options)


if __name__ == "__main__":
    main()
