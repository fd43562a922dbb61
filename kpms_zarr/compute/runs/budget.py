"""Budget of a fit on this machine, and memory of one tile on the device."""

from __future__ import annotations

import time
from dataclasses import dataclass
from typing import Any, NamedTuple

import jax
import numpy as np

from kpms_zarr.compute.kernels.dynamics import Dynamics
from kpms_zarr.compute.kernels.pose import PoseMap
from kpms_zarr.compute.sampler.ar_model import sample_tile
from kpms_zarr.compute.sampler.certainty import certainty_of_tile, synthetic_messages
from kpms_zarr.compute.sampler.full_tile import (
    FixedSettings,
    FullTables,
    TileInput,
    sample_full_tile,
)
from kpms_zarr.compute.sampler.segments import TileShape
from kpms_zarr.compute.sampler.stream import in_flight
from kpms_zarr.compute.sampler.tile_model import Parameters, on_device, tables_of


@dataclass(frozen=True)
class TileSizes:
    """Numbers that the size of a tile on the device depends on.

    Attributes
    ----------
    n_states, n_latent, lags, n_keypoints, n_space : int
        0 keypoints: the AR stage.
    """

    shape: TileShape
    n_states: int
    n_latent: int
    lags: int
    n_keypoints: int
    n_space: int
    precision: str


@dataclass(frozen=True)
class TileMemory:
    """Bytes of one tile on the device.

    Attributes
    ----------
    input, output, temporary : int
        What goes in, what comes out, what is held meanwhile.
    """

    input: int
    output: int
    temporary: int

    @property
    def total(self) -> int:
        """Sum of the three."""
        return self.input + self.output + self.temporary


DEFAULT_SETTINGS = FixedSettings(5, 10.0, 1e6, False)


class TileCall(NamedTuple):
    """Call of a compiled function for one tile; ``fixed`` = what is compiled into it."""

    function: Any
    arguments: tuple[Any, ...]
    fixed: dict[str, Any]

    def compile(self) -> Any:
        """Compile the function for arguments of these shapes."""
        return self.function.lower(*self.arguments, **self.fixed).compile()

    def __call__(self) -> Any:
        """Compute the tile."""
        return self.function(*self.arguments, **self.fixed)


def synthetic_call(
    sizes: TileSizes,
    tables: FullTables,
    settings: FixedSettings = DEFAULT_SETTINGS,
    number: int = 0,
) -> TileCall:
    """Call the sampler of a stage, the full one where there are keypoints, with synthetic data."""
    sweep = (np.zeros(2, np.uint32), np.int32(number))
    if sizes.n_keypoints:
        arguments = (tables, synthetic_tile(sizes, number), *sweep, np.bool_(False))
        return TileCall(sample_full_tile, arguments, {"settings": settings, "lags": sizes.lags})
    arguments = (tables.hmm, tables.weight_bias, *_synthetic_ar_tile(sizes), *sweep)
    return TileCall(sample_tile, arguments, {"lags": sizes.lags, "n_frames": sizes.shape.n_frames})


def tile_memory(sizes: TileSizes, settings: FixedSettings = DEFAULT_SETTINGS) -> TileMemory:
    """Compile a tile and ask the compiler what it takes; the fit then runs what was compiled."""
    with jax.enable_x64(np.dtype(sizes.precision) == np.float64):
        return _memory_of(synthetic_call(sizes, synthetic_tables(sizes), settings))


def certainty_memory(sizes: TileSizes) -> TileMemory:
    """Compile a tile of :class:`LabelCertainty` and ask the compiler what it takes."""
    dtype = np.dtype(sizes.precision)
    with jax.enable_x64(dtype == np.float64):
        x, *_ = _synthetic_ar_tile(sizes)
        messages = synthetic_messages(sizes.shape, sizes.n_states, dtype)
        arguments = (synthetic_tables(sizes).hmm, x, *messages)
        return _memory_of(TileCall(certainty_of_tile, arguments, {"lags": sizes.lags}))


def _memory_of(call: TileCall) -> TileMemory:
    found = call.compile().memory_analysis()
    given = int(getattr(found, "argument_size_in_bytes", 0))
    left = int(getattr(found, "output_size_in_bytes", 0))
    temporary = int(getattr(found, "temp_size_in_bytes", 0))
    if not temporary:  # a backend that does not say: as on a CPU, and half as much again
        temporary = 12 * (given + left)
    return TileMemory(given, left, temporary)


def synthetic_tables(sizes: TileSizes) -> FullTables:
    """Parameters of the right shapes on the device: a random walk, all states alike."""
    n, m, lags, k = sizes.n_states, sizes.n_latent, sizes.lags, sizes.n_keypoints
    weight_bias = np.zeros((n, m, m * lags + 1))
    weight_bias[:, :, -m - 1 : -1] = np.eye(m)
    dynamics = Dynamics(weight_bias, np.tile(0.1 * np.eye(m), (n, 1, 1)))
    even = np.full(n, 1 / n)
    hmm = tables_of(Parameters(dynamics, even, np.tile(even, (n, 1))))
    tables = FullTables(
        hmm,
        hmm,
        weight_bias,
        PoseMap(np.zeros((k, sizes.n_space, m)), np.zeros((k, sizes.n_space))),
        np.ones(k),
        np.asarray(1.0),
    )
    result: FullTables = on_device(tables, np.dtype(sizes.precision))
    return result


def synthetic_tile(sizes: TileSizes, seed: int = 0) -> TileInput:
    """One tile of the full stage in which a random walk is tracked."""
    rng = np.random.default_rng(seed)
    b, t, lags = sizes.shape.n_segments, sizes.shape.n_frames, sizes.lags
    m, d, k = sizes.n_latent, sizes.n_space, sizes.n_keypoints
    local = rng.normal(size=(b, t + 2 * lags, m + d + 1 + k)).astype(sizes.precision)
    local[..., -k:] = 1
    observed = rng.normal(size=(b, t + lags, k * d + k)).astype(np.float32)
    observed[..., -k:] = 1
    return TileInput(
        local,
        observed,
        np.zeros((b, t + lags), np.int32),
        np.zeros(b, np.int32),
        np.full(b, t, np.int32),
        np.full(b, lags, np.int32),
        rng.integers(0, 2**32, (b, 2), dtype=np.uint32),
    )


def _synthetic_ar_tile(sizes: TileSizes) -> tuple[Any, ...]:
    b, t = sizes.shape.n_segments, sizes.shape.n_frames
    return (
        np.zeros((b, sizes.lags + t, sizes.n_latent), sizes.precision),
        np.zeros((b, t), np.int32),
        np.zeros(b, np.int32),
        np.zeros(b, np.int32),
        np.full(b, t, np.int32),
        np.zeros((b, 2), np.uint32),
        np.zeros(b, np.int32),
    )


def time_of_tile(sizes: TileSizes, settings: FixedSettings, n_in_flight: int) -> float:
    """Measure seconds of a tile with so many in flight, on synthetic data, once compiled."""
    is_double = np.dtype(sizes.precision) == np.float64
    with jax.enable_x64(is_double):
        tables = synthetic_tables(sizes)

    def run(number: int) -> None:
        jax.block_until_ready(synthetic_call(sizes, tables, settings, number)())

    def rounds(n: int) -> float:
        began = time.perf_counter()
        for _ in in_flight(run, range(n), n_in_flight, is_double=is_double):
            pass
        return time.perf_counter() - began

    rounds(n_in_flight)
    return rounds(3 * n_in_flight) / (3 * n_in_flight)
