"""One Gibbs sweep of the full stage: the engine of the AR stage around another tile."""

from __future__ import annotations

import threading
from collections.abc import Iterable
from contextlib import closing
from functools import partial
from typing import Any, NamedTuple

import jax
import numpy as np

from kpms_zarr.compute.errors import SamplingError
from kpms_zarr.compute.kernels.pose import PoseMap
from kpms_zarr.compute.sampler.bouts import count_labels
from kpms_zarr.compute.sampler.full_tile import (
    FixedSettings,
    FullTables,
    TileInput,
    TileOutput,
    sample_full_tile,
)
from kpms_zarr.compute.sampler.segments import Task, Tile
from kpms_zarr.compute.sampler.stream import (
    gather,
    gather_labels,
    neighbours,
    pad,
    run_tasks,
    scatter_all,
    spans,
)
from kpms_zarr.compute.sampler.sweep import (
    NoiseSums,
    Parameters,
    Sampler,
    SweepResult,
    on_device,
    tables_of,
)
from kpms_zarr.compute.sampler.tracked import TrackedData

_SMALLEST_KEPT = {np.dtype("float32"): 1e-3, np.dtype("float64"): -np.inf}
"""Share of a diagonal element that must survive the subtractions. At 1e-3 the means of a float32
draw are off by at most about 0.2 standard deviations; real data stay above 1e-2."""

_SUMS = ("position", "noise_scale", "centroid", "latent")


class Observation(NamedTuple):
    """What links the latent pose to the keypoints, besides what is sampled for every frame.

    Attributes
    ----------
    pose : PoseMap
    noise_variance : (keypoint,)
        sigma2.
    step_variance : float
        sigma2_loc.
    """

    pose: PoseMap
    noise_variance: np.ndarray
    step_variance: float


class _Sums(NamedTuple):
    """What one tile adds to the statistics of a sweep, in float64."""

    moments: np.ndarray
    terms: np.ndarray
    square: np.ndarray
    n_observed: np.ndarray
    repeated: int


class FullSampler(Sampler):
    """Runs sweeps of the full stage over a chain.

    Parameters
    ----------
    sampler : Sampler
        Of the AR stage, whose chain and settings are taken over.
    observation : Observation
    settings : FixedSettings

    Attributes
    ----------
    n_repeated : int
        Tiles that were computed again in float64 so far.
    """

    def __init__(self, sampler: Sampler, observation: Observation, settings: FixedSettings) -> None:
        super().__init__(
            sampler.chain,
            n_states=sampler.n_states,
            segment_frames=sampler.segment_frames,
            flight=sampler.flight,
            seed=sampler.seed,
            precision=sampler.dtype.name,
            tile_frames=sampler.tile_frames,
            shape=sampler.shape,
        )
        self.observation = observation
        self.settings = settings
        self.n_repeated = 0
        self._wide = threading.Lock()

    def sweep(self, parameters: Parameters, number: int) -> SweepResult:
        """Draw everything local once, even segments first, then odd ones given the even.

        Raises
        ------
        SamplingError
            When a tile has no finite result even in float64; the chain is then half swept.
        """
        sums = self._draw_all(parameters, number)
        self.n_repeated += sums.repeated
        counts = count_labels(self.chain, self.n_states)
        terms = self._terms(parameters, sums.moments, counts)
        for name, value in zip(_SUMS, sums.terms, strict=True):
            terms[name] = terms.get(name, 0.0) + float(value) / self.n_modelled
        return SweepResult(sums.moments, counts, terms, NoiseSums(sums.square, sums.n_observed))

    def draw(self, parameters: Parameters, number: int) -> np.ndarray:
        """Draw everything local once; returns the moments."""
        return self._draw_all(parameters, number).moments

    def _draw_all(self, parameters: Parameters, number: int) -> _Sums:
        tables = self.tables(parameters)
        shared = on_device(tables, self.dtype)
        update = partial(self._update_full, tables=tables, shared=shared, number=number)
        total: list[_Sums | None] = [None, None]
        parts = run_tasks(
            update, self.tasks(number), self.flight, is_double=self._is_double,
            read_ahead=self._read_ahead,
        )  # fmt: skip
        # Closed before the error goes on: no thread may still write.
        with closing(parts):
            for task, part in parts:
                before = total[task.is_odd]
                total[task.is_odd] = part if before is None else _add(before, part)
        found = [part for part in total if part is not None]
        return found[0] if len(found) == 1 else _add(*found)

    def tables(self, parameters: Parameters) -> FullTables:
        """What a tile needs of the parameters, in float64 on the host."""
        return FullTables(
            tables_of(parameters),
            parameters.dynamics.weight_bias,
            self.observation.pose,
            self.observation.noise_variance,
            np.asarray(self.observation.step_variance),
        )

    def _read_ahead(self, task: Task) -> None:
        if isinstance(self.chain.observed, TrackedData):
            self.chain.observed.prefetch(
                *spans(self.chain, task.tile, before=self.chain.index.lags)
            )

    def _update_full(
        self, task: Task, *, tables: FullTables, shared: FullTables, number: int
    ) -> _Sums:
        tile = task.tile
        given = self.full_input(tile)
        with self.flight.meter.busy():
            found = jax.block_until_ready(self._sample(shared, given, number, task.is_odd))
        is_repeated = not self._is_sound(found, self.dtype)
        if is_repeated:
            found = self._again(tile, tables, given, number, task.is_odd)
        by_segment = [np.asarray(getattr(found, name), np.float64).sum() for name in _SUMS]
        sums = _Sums(
            np.asarray(found.moments, np.float64),
            np.array(by_segment),
            np.asarray(found.square, np.float64),
            np.asarray(found.n_observed, np.float64),
            int(is_repeated),
        )
        if self.watch:
            n_frames = self.shape.n_frames
            self.watch(tile, np.asarray(given.z)[:, :n_frames], np.asarray(found.z))
        # Last: what is written must not be drawn again from what it has changed.
        scatter_all(self.chain, tile, found.z, found.local)
        return sums

    def full_input(self, tile: Tile) -> TileInput:
        """What :func:`sample_full_tile` is given of a tile."""
        chain, shape, lags = self.chain, self.shape, self.chain.index.lags
        left, _ = neighbours(chain, tile, self.n_states)
        return TileInput(
            gather(chain.local, chain, tile, shape, before=lags, after=lags),
            gather(chain.observed, chain, tile, shape, before=lags),
            gather_labels(chain, tile, shape, after=lags, fill=self.n_states),
            pad(left, shape, self.n_states),
            pad(tile.length.astype(np.int32), shape, 0),
            pad(tile.start.astype(np.int32), shape, 0),
            pad(chain.index.words[tile.session], shape, 0),
        )

    def _sample(
        self, shared: FullTables, given: TileInput, number: int, is_last: bool
    ) -> TileOutput:
        return sample_full_tile(
            shared,
            given,
            self.seed_words,
            np.int32(number),
            np.bool_(is_last),
            settings=self.settings,
            lags=self.chain.index.lags,
        )

    def _is_sound(self, found: TileOutput, dtype: np.dtype) -> bool:
        is_finite = bool((np.asarray(found.first_bad) == found.local.shape[1]).all())
        is_finite &= bool(np.isfinite(np.asarray(found.moments)).all())
        return is_finite and bool((np.asarray(found.kept) > _SMALLEST_KEPT[dtype]).all())

    def _again(
        self, tile: Tile, tables: FullTables, given: TileInput, number: int, is_last: bool
    ) -> TileOutput:
        """The tile once more in float64."""
        double = np.dtype("float64")
        # One at a time: they take twice the memory of the tiles that were planned for.
        with self._wide, jax.enable_x64(True):
            shared = on_device(tables, double)
            wide = given._replace(local=given.local.astype(double))
            found = self._sample(shared, wide, number, is_last)
        first_bad = np.asarray(found.first_bad)
        n_rows = found.local.shape[1]
        lanes = np.flatnonzero(first_bad < n_rows)
        if not lanes.size and np.isfinite(np.asarray(found.moments)).all():
            return found
        lane = int(lanes[0]) if lanes.size else 0
        raise self._error(tile, found, lane, int(min(first_bad[lane], n_rows - 1)), number)

    def _error(
        self, tile: Tile, found: TileOutput, lane: int, row: int, number: int
    ) -> SamplingError:
        lags = self.chain.index.lags
        session = self.chain.index.sessions[int(tile.session[lane])]
        start = int(tile.start[lane])
        stop = start + int(tile.length[lane])
        frame = start - lags + row
        state = int(np.asarray(found.z)[lane, max(0, row - lags)])
        return SamplingError(session.name, start, stop, frame, state, number)


def _add(a: _Sums, b: _Sums) -> _Sums:
    pairs: Iterable[tuple[Any, Any]] = zip(a, b, strict=True)
    return _Sums(*(x + y for x, y in pairs))
