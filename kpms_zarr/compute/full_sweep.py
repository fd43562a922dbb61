"""One Gibbs sweep of the full stage: the engine of the AR stage around another tile."""

from __future__ import annotations

from collections.abc import Iterable
from contextlib import closing
from functools import partial
from typing import Any, NamedTuple

import jax
import numpy as np

from kpms_zarr.compute.errors import SamplingError
from kpms_zarr.compute.full_tile import (
    FixedSettings,
    FullTables,
    TileInput,
    TileOutput,
    sample_full_tile,
)
from kpms_zarr.compute.kernels.pose import PoseMap
from kpms_zarr.compute.segments import Tile, cut, tiles
from kpms_zarr.compute.stream import gather, in_flight, neighbours, pad, scatter_all
from kpms_zarr.compute.summaries import count_labels
from kpms_zarr.compute.sweep import (
    NoiseSums,
    Parameters,
    Sampler,
    SweepResult,
    on_device,
    tables_of,
)

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
            segment_frames=sampler.shape.n_frames,
            n_in_flight=sampler.n_in_flight,
            seed=sampler.seed,
            precision=sampler.dtype.name,
        )
        self.observation = observation
        self.settings = settings
        self.n_repeated = 0

    def sweep(self, parameters: Parameters, number: int) -> SweepResult:
        """Draw everything local once, even segments first, then odd ones given the even.

        Raises
        ------
        SamplingError
            When a tile has no finite result even in float64; the chain is then as it was before
            the sweep.
        """
        tables = FullTables(
            tables_of(parameters),
            parameters.dynamics.weight_bias,
            self.observation.pose,
            self.observation.noise_variance,
            np.asarray(self.observation.step_variance),
        )
        shared = on_device(tables, self.dtype)
        total: _Sums | None = None
        with self.chain.undoable():
            for is_last, segments in enumerate(
                cut(self.chain.index, self.shape, self.seed, number)
            ):
                update = partial(
                    self._update_full,
                    tables=tables,
                    shared=shared,
                    number=number,
                    is_last=bool(is_last),
                )
                work = tiles(segments, self.shape)
                parts = in_flight(update, work, self.n_in_flight, is_double=self._is_double)
                # Closed before anything is undone: no thread may still write.
                with closing(parts):
                    for part in parts:
                        total = part if total is None else _add(total, part)
        assert total is not None
        self.n_repeated += total.repeated
        counts = count_labels(self.chain, self.n_states)
        terms = self._terms(parameters, total.moments, counts)
        for name, value in zip(_SUMS, total.terms, strict=True):
            terms[name] = terms.get(name, 0.0) + float(value) / self.n_modelled
        return SweepResult(total.moments, counts, terms, NoiseSums(total.square, total.n_observed))

    def _update_full(
        self, tile: Tile, *, tables: FullTables, shared: FullTables, number: int, is_last: bool
    ) -> _Sums:
        given = self._input(tile)
        found = self._sample(shared, given, number, is_last)
        is_repeated = not self._is_sound(found, self.dtype)
        if is_repeated:
            found = self._again(tile, tables, given, number, is_last)
        scatter_all(self.chain, tile, np.asarray(found.z), np.asarray(found.local))
        by_segment = [np.asarray(getattr(found, name), np.float64).sum() for name in _SUMS]
        return _Sums(
            np.asarray(found.moments, np.float64),
            np.array(by_segment),
            np.asarray(found.square, np.float64),
            np.asarray(found.n_observed, np.float64),
            int(is_repeated),
        )

    def _input(self, tile: Tile) -> TileInput:
        chain, shape, lags = self.chain, self.shape, self.chain.index.lags
        left, _ = neighbours(chain, tile, self.n_states)
        return TileInput(
            gather(chain.local, chain, tile, shape, before=lags, after=lags),
            gather(chain.observed, chain, tile, shape, before=lags),
            gather(
                chain.syllable, chain, tile, shape, after=lags, fill=self.n_states, dtype=np.int32
            ),
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
        with jax.enable_x64(True):
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
