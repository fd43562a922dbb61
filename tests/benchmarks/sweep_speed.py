"""Microseconds per frame and sweep of the AR stage, and where they go.

    python tests/benchmarks/sweep_speed.py [--sessions 10] [--frames 10000] [--sweeps 20]

Prints a line for each layer, best of the repeats: the whole sweep as `fit` runs it, then its parts
alone on one tile. The limit is what the two matrix products and the sums of products would cost
at the matrix-product speed of this machine, measured in the same run.
"""

import argparse
import resource
import tempfile
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np

import kpms_zarr
from kpms_zarr.compute.events import PlanMade, SweepEnded
from kpms_zarr.compute.kernels.ar import feature_pairs, tile_moments
from kpms_zarr.compute.kernels.hmm import filter_forward, hmm_tables, sample_backward, window
from kpms_zarr.compute.kernels.rng import SYLLABLE, frame_uniforms
from kpms_zarr.compute.stream import in_flight
from kpms_zarr.store.synthetic import SyntheticStudy, write_store

N, M, LAGS = 100, 4, 3


def best_of(function: Callable[[], object], repeats: int = 5) -> float:
    """Seconds of the fastest call, after one that compiles."""
    jax.block_until_ready(function())
    times = []
    for _ in range(repeats):
        began = time.perf_counter()
        jax.block_until_ready(function())
        times.append(time.perf_counter() - began)
    return min(times)


def parts(n_segments: int, n_frames: int, n_threads: int) -> dict[str, float]:
    """us per frame of each part alone, on ``n_threads`` tiles in as many threads."""
    rng = np.random.default_rng(0)
    x = rng.normal(size=(n_frames + LAGS, M, n_segments)).astype(np.float32)
    weight_bias = 0.2 * rng.normal(size=(N, M, M * LAGS + 1))
    pi = 0.9 * np.eye(N) + 0.1 / N
    covariance = np.tile(np.eye(M), (N, 1, 1))
    tables = hmm_tables(weight_bias[..., :-1], weight_bias[..., -1], covariance, pi)
    tables = jax.tree.map(lambda a: jnp.asarray(a, jnp.float32), tables)
    current = jnp.asarray(weight_bias, jnp.float32)
    lane = np.zeros(n_segments, np.int32)
    words = rng.integers(2**32, size=(n_segments, 2), dtype=np.uint32)
    length = np.full(n_segments, n_frames, np.int32)
    draw = jax.jit(
        lambda first: frame_uniforms(
            np.zeros(2, np.uint32), 0, SYLLABLE, words, first, n_frames, jnp.float32
        )
    )
    u = draw(lane)
    forward = jax.jit(lambda x: filter_forward(tables, window(x, LAGS), lane))
    filtered = forward(x)
    backward = jax.jit(lambda f: sample_backward(tables, f, lane, length, u))
    z = backward(filtered)
    real = np.ones((n_frames, n_segments), bool)
    moments = jax.jit(lambda z: tile_moments(jnp.asarray(x), z, real, current, LAGS))
    a, b = (jnp.asarray(rng.normal(size=(1024, 1024)), jnp.float32) for _ in range(2))
    product = jax.jit(lambda a: a @ b)
    per_frame = 1e6 / (n_frames * n_segments)

    def threaded(function: Callable[[], object]) -> float:
        def tiles() -> None:
            for _ in in_flight(
                lambda _: jax.block_until_ready(function()),
                range(n_threads),
                n_threads,
                is_double=False,
            ):
                pass

        return best_of(tiles) / n_threads

    flops = 2 * 1024**3 / best_of(lambda: product(a))
    n_pairs = len(feature_pairs(M, LAGS)[0])
    needed = 2 * (N * M * M * (LAGS + 1) + N * N) + 2 * n_pairs
    return {
        "filter forward": threaded(partial(forward, x)) * per_frame,
        "sample backward": threaded(partial(backward, filtered)) * per_frame,
        "sums by state": threaded(partial(moments, z)) * per_frame,
        "random numbers": threaded(partial(draw, lane)) * per_frame,
        f"limit: products at {flops / 1e9:.0f} GFLOP/s": needed / flops * 1e6,
    }


def whole(study: SyntheticStudy, n_sweeps: int, folder: Path) -> tuple[float, PlanMade, int]:
    """us per frame and sweep of a fit (median of its sweeps), its plan, frames."""
    store = folder / "study.zarr"
    write_store(store, study)
    kpms_zarr.pca(store)
    events: list[object] = []
    config = kpms_zarr.FitConfig(sweeps=n_sweeps, latent_dim=M, n_states=N, lags=LAGS)
    kpms_zarr.fit(store, model="m", config=config, callbacks=[events.append])
    (plan,) = (event for event in events if isinstance(event, PlanMade))
    seconds = [e.seconds for e in events if isinstance(e, SweepEnded) and e.sweep > 2]
    return float(np.median(seconds)) / plan.n_frames * 1e6, plan, plan.n_frames


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--sessions", type=int, default=10)
    parser.add_argument("--frames", type=int, default=10_000)
    parser.add_argument("--sweeps", type=int, default=20)
    options = parser.parse_args()
    print(f"jax {jax.__version__}, {jax.devices()[0]}, {N} states, {M} latent dims, {LAGS} lags")
    with tempfile.TemporaryDirectory() as folder:
        study = SyntheticStudy(n_sessions=options.sessions, n_frames=options.frames)
        speed, plan, n_frames = whole(study, options.sweeps, Path(folder))
    print(
        f"{n_frames:,} frames, tiles of {plan.n_segments} x {plan.n_segment_frames}, "
        f"{plan.tiles_in_flight} in flight, {plan.device_bytes / 1e6:.0f} MB on the device"
    )
    print(f"{'whole sweep':<36}{speed:6.2f} us/frame")
    for name, value in parts(plan.n_segments, plan.n_segment_frames, 2).items():
        print(f"{name:<36}{value:6.2f} us/frame")
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    print(f"{'peak memory of this process':<36}{peak:6.0f} MB")


if __name__ == "__main__":
    main()
