"""Microseconds per frame and sweep of both stages, and where they go.

    python benchmarks/sweep_speed.py [--sessions 10] [--frames 10000] [--sweeps 40]

Prints the whole sweep as `fit` runs it for each stage, then every block alone on as many tiles as
there are threads, best of the repeats, with what bounds it. The limits are measured in the same
run: the speed of matrix products, and the time to read and write each number that a block must.
"""

import argparse
import resource
import tempfile
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np

import kpms_zarr
from kpms_zarr.compute.events import PlanMade, ResourcePlan, SweepEnded
from kpms_zarr.compute.kernels import rng
from kpms_zarr.compute.kernels.ar import feature_pairs, tile_moments
from kpms_zarr.compute.kernels.centroid import centroid_evidence, draw_centroid
from kpms_zarr.compute.kernels.heading import draw_heading, heading_evidence
from kpms_zarr.compute.kernels.hmm import filter_forward, hmm_tables, sample_backward, window
from kpms_zarr.compute.kernels.latent import eliminate_forward, factor_table, substitute_backward
from kpms_zarr.compute.kernels.noise import draw_noise_scale
from kpms_zarr.compute.kernels.pose import PoseMap, latent_evidence, pose_of, rotate
from kpms_zarr.compute.runs.budget import (
    TileCall,
    TileSizes,
    synthetic_call,
    synthetic_tables,
)
from kpms_zarr.compute.runs.start_model import StartModel
from kpms_zarr.compute.sampler.certainty import LabelCertainty
from kpms_zarr.compute.sampler.chain import Chain, ChainIndex
from kpms_zarr.compute.sampler.full_tile import (
    FixedSettings,
    FullTables,
    TileInput,
    sample_full_tile,
)
from kpms_zarr.compute.sampler.resting import ALL_EVERY
from kpms_zarr.compute.sampler.segments import Tile, TileShape
from kpms_zarr.compute.sampler.stream import Pipeline, gather, gather_labels, in_flight, scatter_all
from kpms_zarr.compute.sampler.sweep import Sweeper
from kpms_zarr.compute.sampler.tile_model import on_device
from kpms_zarr.store.core import access
from kpms_zarr.store.core.access import Session
from kpms_zarr.store.study.synthetic import SyntheticStudy, write_store

N, M, LAGS, K, D, DOF = 100, 4, 3, 8, 2, 5
THREADS = 2
ROUNDS = 3
REPEATS = 7


def best_of(function: Callable[[], object], repeats: int = REPEATS) -> float:
    """Seconds of the fastest call, after one that compiles."""
    jax.block_until_ready(function())
    times = []
    for _ in range(repeats):
        began = time.perf_counter()
        jax.block_until_ready(function())
        times.append(time.perf_counter() - began)
    return min(times)


def threaded(function: Callable[[], object]) -> float:
    """Seconds per call when every thread has one."""

    def tiles() -> None:
        work = in_flight(
            lambda _: jax.block_until_ready(function()), range(THREADS), THREADS, is_double=False
        )
        for _ in work:
            pass

    return best_of(tiles) / THREADS


class Block:
    """One block of a sweep, to be timed alone.

    Attributes
    ----------
    name, bound : str
        What it does, and what bounds it.
    function : callable
    arguments : tuple of arrays
    flops : float
        Multiply-adds of a frame that cannot be avoided, counted twice.
    """

    def __init__(
        self,
        name: str,
        bound: str,
        flops: float,
        function: Callable[..., object],
        *arguments: object,
    ) -> None:
        self.name, self.bound, self.flops = name, bound, flops
        self.function = jax.jit(function)
        self.arguments = jax.tree.map(jnp.asarray, arguments)

    def seconds(self) -> float:
        """Per tile."""
        return threaded(lambda: self.function(*self.arguments))

    def n_bytes(self) -> int:
        """Read and written: arguments and results."""
        results = jax.eval_shape(self.function, *self.arguments)
        leaves = jax.tree.leaves((self.arguments, results))
        return sum(leaf.size * leaf.dtype.itemsize for leaf in leaves)


def blocks(n_segments: int, n_frames: int) -> list[Block]:
    """The blocks of a full sweep on random data of one tile."""
    g = np.random.default_rng(0)
    rows, steps = n_frames + LAGS, n_frames + LAGS
    x = g.normal(size=(n_frames + 2 * LAGS, M, n_segments)).astype(np.float32)
    weight_bias = jnp.asarray(0.2 * g.normal(size=(N, M, M * LAGS + 1)), jnp.float32)
    pi = 0.9 * np.eye(N) + 0.1 / N
    tables = hmm_tables(
        weight_bias[..., :-1], weight_bias[..., -1], np.tile(0.1 * np.eye(M), (N, 1, 1)), pi
    )
    tables = on_device(tables, np.dtype(np.float32))
    lane = np.full(n_segments, N, np.int32)
    length = np.full(n_segments, n_frames, np.int32)
    first = np.zeros(n_segments, np.int32)
    words = g.integers(2**32, size=(2, n_segments), dtype=np.uint32)
    keys = (words[0], words[1])
    is_drawn = np.ones((rows, n_segments), bool)
    z = g.integers(N, size=(steps, n_segments)).astype(np.int32)
    pose_map = PoseMap(
        (5 * g.normal(size=(K, D, M))).astype(np.float32),
        (30 * g.normal(size=(K, D))).astype(np.float32),
    )
    weight = g.uniform(0.1, 1, size=(K, rows, n_segments)).astype(np.float32)
    offset = (30 * g.normal(size=(K, D, rows, n_segments))).astype(np.float32)
    heading = g.uniform(-3, 3, size=(rows, n_segments)).astype(np.float32)
    v = g.normal(size=(rows + 1, D, n_segments)).astype(np.float32)
    missing = g.random(size=weight.shape) < 0.02

    def states(x: jax.Array, u: jax.Array) -> jax.Array:
        filtered = filter_forward(tables, window(x[:rows], LAGS), lane)
        return sample_backward(tables, filtered, lane, length, u)

    def numbers(first: jax.Array) -> jax.Array:
        return rng.frame_uniforms(keys, first, n_frames, jnp.float32)

    def latent(
        weight: jax.Array, offset: jax.Array, heading: jax.Array, z: jax.Array, x: jax.Array
    ) -> jax.Array:
        j, information = latent_evidence(pose_map, weight, offset, heading)
        noise = rng.frame_normals(keys, first, rows, M, jnp.float32)
        elimination = eliminate_forward(factor_table(tables), z, j, information, x, is_drawn, 10.0)
        return substitute_backward(elimination, x, is_drawn, noise)

    def turn(weight: jax.Array, offset: jax.Array, x: jax.Array) -> jax.Array:
        pose = pose_of(pose_map, x[:rows].transpose(1, 0, 2))
        a, b = heading_evidence(weight, pose, offset)
        return rotate(pose, draw_heading(a, b, keys, first, is_drawn))

    def move(weight: jax.Array, residual: jax.Array, v: jax.Array) -> jax.Array:
        lam, mu = centroid_evidence(weight, residual)
        noise = rng.frame_normals(keys, first, rows, D, jnp.float32)
        return draw_centroid(
            lam, mu, v, is_drawn, is_drawn, noise,
            step_variance=jnp.float32(0.5), initial_variance=1e6,
        )  # fmt: skip

    def scales(offset: jax.Array, prior: jax.Array) -> jax.Array:
        square = jnp.sum(jnp.square(offset), 1)
        return draw_noise_scale(
            square, prior, missing, np.ones(K, np.float32), keys, first, dof=DOF, n_space=D
        )

    def sums(x: jax.Array, z: jax.Array) -> jax.Array:
        return tile_moments(x[:rows], z[:n_frames], is_drawn[LAGS:], weight_bias, LAGS)

    u = np.asarray(jax.jit(numbers)(first))
    width = (LAGS + 1) * M
    n_pairs = len(feature_pairs(M, LAGS)[0])
    elimination = width * (width + 1) * M + LAGS * M * (LAGS * M + 1) * M + 2 * M * width
    return [
        Block(
            "syllables", "element-wise work on latent x state", 2 * N * (M * width + N),
            states, x, u,
        ),
        Block(
            "pose", "sequential steps of many small operations",
            2 * (M * M * K + M * K * D) + elimination, latent, weight, offset, heading, z, x,
        ),
        Block(
            "heading", "random words, sines and logarithms", 2 * K * D * (M + 2),
            turn, weight, offset, x,
        ),
        Block(
            "centroid", "sequential steps of tiny operations", 2 * K * (D + 1),
            move, weight, offset, v,
        ),
        Block("noise scales", "random words and logarithms", 2 * K * 50, scales, offset, weight),
        Block("sums by state", "scattered additions", 2 * n_pairs, sums, x, z),
    ]  # fmt: skip


def traffic(n_segments: int, n_frames: int) -> float:
    """Seconds to gather a tile of the full stage from the chain and to write it back."""
    n_lanes = 2 * n_segments
    index = ChainIndex.of([Session("a", 0, n_lanes * n_frames + LAGS, 30.0)], LAGS)
    with Chain(index, n_latent=M, n_space=D, dtype="float32", n_keypoints=K) as chain:
        shape = TileShape(n_segments, n_frames)
        start = LAGS + 2 * n_frames * np.arange(n_segments)
        tile = Tile(np.zeros(n_segments, int), start, np.full(n_segments, n_frames))

        def move() -> None:
            local = gather(chain.local, chain, tile, shape, before=LAGS, after=LAGS)
            gather(chain.observed, chain, tile, shape, before=LAGS)
            z = gather_labels(chain, tile, shape, after=LAGS)
            scatter_all(chain, tile, z[:, :n_frames], local[:, : LAGS + n_frames])

        return best_of(move)


def memory(n_segments: int, n_frames: int) -> dict[str, float]:
    """Bytes per frame in flight of the compiled tile: temporary, in, out."""
    weight_bias = np.zeros((N, M, M * LAGS + 1), np.float32)
    tables = hmm_tables(
        weight_bias[..., :-1], weight_bias[..., -1], np.tile(np.eye(M), (N, 1, 1)),
        np.full((N, N), 1 / N),
    )  # fmt: skip
    full = FullTables(
        tables,
        tables,
        weight_bias,
        PoseMap(np.zeros((K, D, M)), np.zeros((K, D))),
        np.ones(K),
        np.ones(()),
    )
    full = on_device(full, np.dtype(np.float32))
    lane = np.zeros(n_segments, np.int32)
    tile = TileInput(
        np.zeros((n_segments, n_frames + 2 * LAGS, M + D + 1 + K), np.float32),
        np.zeros((n_segments, n_frames + LAGS, K * (D + 1)), np.float32),
        np.zeros((n_segments, n_frames + LAGS), np.int32),
        lane, lane, lane, np.zeros((n_segments, 2), np.uint32),
    )  # fmt: skip
    jax.clear_caches()
    began = time.perf_counter()
    compiled = sample_full_tile.lower(
        full, tile, np.zeros(2, np.uint32), np.int32(0), np.bool_(0),
        settings=FixedSettings(DOF, 10.0, 1e6, False), lags=LAGS,
    ).compile()  # fmt: skip
    seconds = time.perf_counter() - began
    used = compiled.memory_analysis()
    frames = n_segments * n_frames
    return {
        "temporary memory, B/frame in flight": used.temp_size_in_bytes / frames,
        "input, B/frame in flight": used.argument_size_in_bytes / frames,
        "output, B/frame in flight": used.output_size_in_bytes / frames,
        "compilation, s": seconds,
    }


def whole(
    study: SyntheticStudy, n_sweeps: int, folder: Path
) -> tuple[dict[str, float], ResourcePlan]:
    """us per frame and sweep of a fit by stage (median of rounds of sweeps), and its plan.

    A round has one sweep that draws among all states (model.md 3.12).
    """
    store = folder / "study.zarr"
    write_store(store, study)
    kpms_zarr.pca(store)
    events: list[object] = []
    config = kpms_zarr.FitConfig(
        ar_sweeps=n_sweeps, sweeps=n_sweeps, latent_dim=M, n_states=N, lags=LAGS
    )
    kpms_zarr.fit(store, model="m", config=config, callbacks=[events.append])
    (plan,) = (event.plan for event in events if isinstance(event, PlanMade))
    speed = {}
    for stage in ("ar", "full"):
        ended = [e for e in events if isinstance(e, SweepEnded) and e.stage == stage]
        seconds = np.array([e.seconds for e in ended[-ROUNDS * ALL_EVERY :]])
        rounds = seconds.reshape(ROUNDS, ALL_EVERY).mean(1)
        speed[stage] = float(np.median(rounds)) / plan.n_frames * 1e6
        speed[f"{stage} waiting"] = float(np.median([e.waiting for e in ended[2:]]))
    speed["certainty"] = certainty(store, plan) / plan.n_frames * 1e6
    return speed, plan


def certainty(store: Path, plan: ResourcePlan) -> float:
    """Seconds that the certainty of all labels of a fit takes at its end, once compiled."""
    start = StartModel.of(store, "m")
    index = ChainIndex.of(access.sessions(access.open_group(store)), LAGS)
    labels = kpms_zarr.open_labels(store, "m").load()
    with Chain(index, n_latent=M, n_space=D, dtype="float32") as chain:
        for session, first in zip(index.sessions, index.first, strict=True):
            one = labels.sel(session=session.name)[["latent", "syllable"]]
            rows = slice(first, first + session.n_frames)
            chain.latent[rows] = one["latent"].values[: session.n_frames]
            chain.syllable[rows] = one["syllable"].values[: session.n_frames]
        sweeper = Sweeper(
            chain=chain, n_states=N, seed=0, pipeline=Pipeline(plan.tiles_in_flight),
            shape=TileShape(plan.n_segments, plan.n_segment_frames),
        )  # fmt: skip
        return best_of(lambda: list(LabelCertainty(sweeper, start.parameters)), 3)


def of_some_states(n_segments: int, n_frames: int) -> list[tuple[str, int, float, float]]:
    """Tiles that draw labels among some of the states: stage, how many, us a frame, compilation s.

    As many tiles at once as there are threads.
    """
    tiles: dict[tuple[str, int], list[TileCall]] = {}
    compilation: dict[tuple[str, int], float] = {}
    best: dict[tuple[str, int], float] = {}
    for stage, n_keypoints in (("ar", 0), ("full", K)):
        sizes = TileSizes(TileShape(n_segments, n_frames), N, M, LAGS, n_keypoints, D, "float32")
        tables = synthetic_tables(sizes)
        for n_drawn in (N, 48, 32, 24, 16, 8):
            some = tables.hmm if n_drawn == N else tables.hmm.of(np.arange(n_drawn))
            given = tables._replace(drawn=on_device(some, np.dtype(np.float32)))
            if not n_keypoints:
                given = given._replace(hmm=given.drawn)
            key = stage, n_drawn
            tiles[key] = [synthetic_call(sizes, given, number=i) for i in range(THREADS)]
            began = time.perf_counter()
            jax.block_until_ready(tiles[key][0]())
            compilation[key] = time.perf_counter() - began
    with ThreadPoolExecutor(THREADS) as pool:
        # In turn, as the machine is faster at one time than at another.
        for _ in range(2 * REPEATS):
            for key, calls in tiles.items():
                began = time.perf_counter()
                list(pool.map(lambda call: jax.block_until_ready(call()), calls))
                seconds = time.perf_counter() - began
                best[key] = min(seconds, best.get(key, seconds))
    frames = THREADS * n_segments * n_frames
    return [(*key, 1e6 * best[key] / frames, compilation[key] - best[key]) for key in tiles]


def machine_limits() -> tuple[float, float]:
    """GFLOP/s of matrix products, and GB/s of reading and writing arrays larger than the cache."""
    g = np.random.default_rng(0)
    a = jnp.asarray(g.normal(size=(1024, 1024)), jnp.float32)
    product = jax.jit(lambda a: a @ a)
    long = jnp.asarray(g.normal(size=2**25), jnp.float32)
    copy = jax.jit(lambda a: a + 1)
    return (
        2 * 1024**3 / best_of(partial(product, a)) / 1e9,
        2 * long.nbytes / best_of(partial(copy, long)) / 1e9,
    )


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--sessions", type=int, default=10)
    parser.add_argument("--frames", type=int, default=10_000)
    parser.add_argument("--sweeps", type=int, default=40, help="of a stage, at least 17")
    options = parser.parse_args()
    print(
        f"jax {jax.__version__}, {jax.devices()[0]}, {N} states, {M} latent dims, {LAGS} lags, "
        f"{K} keypoints, {D}-D, float32"
    )
    with tempfile.TemporaryDirectory() as folder:
        study = SyntheticStudy(n_sessions=options.sessions, n_frames=options.frames, n_keypoints=K)
        speed, plan = whole(study, options.sweeps, Path(folder))
    print(
        f"{plan.n_frames:,} frames, tiles of {plan.n_segments} x {plan.n_segment_frames}, "
        f"{plan.tiles_in_flight} in flight, {plan.device_bytes / 1e6:.0f} MB on the device"
    )
    gflops, bandwidth = machine_limits()
    print(f"machine: {gflops:.0f} GFLOP/s in matrix products, {bandwidth:.1f} GB/s in streams\n")
    print(f"{'us per frame and sweep':<34}{'now':>6}{'limit':>8}  bound by")
    print(f"{'whole AR sweep':<34}{speed['ar']:6.2f}")
    print(f"{'whole full sweep':<34}{speed['full']:6.2f}")
    print(f"{'certainty, once at the end':<34}{speed['certainty']:6.2f}")
    print(f"device waits: AR {speed['ar waiting']:.0%}, full {speed['full waiting']:.0%}")
    n = plan.n_segments * plan.n_segment_frames
    total, limits = 0.0, 0.0
    for block in blocks(plan.n_segments, plan.n_segment_frames):
        seconds = block.seconds() / n * 1e6
        limit = max(block.flops / gflops / 1e3, block.n_bytes() / n / bandwidth / 1e3)
        total, limits = total + seconds, limits + limit
        print(f"  {block.name:<32}{seconds:6.2f}{limit:8.2f}  {block.bound}", flush=True)
    moved = traffic(plan.n_segments, plan.n_segment_frames) / n * 1e6
    print(
        f"  {'gather and scatter on the host':<32}{moved:6.2f}{'':8}  copies by segment, one thread"
    )
    print(f"  {'sum':<32}{total + moved:6.2f}{limits:8.2f}")
    print("\ntile that draws labels among so many states")
    for stage, n_drawn, each, compiled in of_some_states(plan.n_segments, plan.n_segment_frames):
        print(f"  {stage:<6}{n_drawn:>4}{each:30.2f}{compiled:8.1f} s to compile", flush=True)
    print()
    for name, value in memory(plan.n_segments, plan.n_segment_frames).items():
        print(f"{name:<40}{value:8.1f}")
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    print(f"{'peak memory of this process, MB':<40}{peak:8.0f}")


if __name__ == "__main__":
    main()
