"""One tile of the full stage, recomputed in float64 where float32 fails."""

from __future__ import annotations

import threading
from dataclasses import dataclass, field
from typing import NamedTuple

import jax
import numpy as np

from kpms_zarr.compute.errors import SamplingError
from kpms_zarr.compute.kernels.pose import PoseMap
from kpms_zarr.compute.sampler.ar_model import no_moments
from kpms_zarr.compute.sampler.chain import Chain, ChainIndex, Sized
from kpms_zarr.compute.sampler.full_tile import (
    FixedSettings,
    FullTables,
    TileInput,
    TileOutput,
    sample_full_tile,
)
from kpms_zarr.compute.sampler.segments import Task, Tile, TileShape
from kpms_zarr.compute.sampler.stream import gather, gather_labels, neighbours, pad, spans
from kpms_zarr.compute.sampler.tile_model import (
    Parameters,
    SweepAddress,
    SweepSums,
    TileDraw,
    on_device,
    tables_of,
)
from kpms_zarr.compute.sampler.tracked import TrackedData

SMALLEST_PIVOT = {np.dtype("float32"): 1e-3, np.dtype("float64"): -np.inf}
"""Share of a diagonal element that must survive the subtractions. At 1e-3 the means of a float32
draw are off by at most about 0.2 standard deviations; real data stay above 1e-2."""


class Observation(NamedTuple):
    """Parameters of the observation model that are not sampled for every frame.

    Attributes
    ----------
    noise_variance : (keypoint,)
        sigma2.
    step_variance : float
        sigma2_loc.
    """

    pose: PoseMap
    noise_variance: np.ndarray
    step_variance: float


@dataclass(frozen=True, kw_only=True)
class FullModel:
    """Labels, latent pose, heading, centroid and noise scales; see :class:`TileModel`.

    Attributes
    ----------
    keeps_sound_segments : bool
        Of a tile that is computed again in float64, take only the segments that float32 cannot
        draw, so that each is drawn as it would be without those beside it. The moments are then
        not those of what is left.
    """

    observation: Observation
    settings: FixedSettings
    keeps_sound_segments: bool = False
    states: np.ndarray | None = None
    terms: tuple[str, ...] = ("position", "noise_scale", "centroid", "latent")
    _one_at_a_time: threading.Lock = field(default_factory=threading.Lock, repr=False)

    def tables(self, parameters: Parameters) -> FullTables:
        """See :class:`TileModel`."""
        of_all = tables_of(parameters)
        return FullTables(
            of_all,
            of_all if self.states is None else of_all.of(self.states),
            parameters.dynamics.weight_bias,
            self.observation.pose,
            self.observation.noise_variance,
            np.asarray(self.observation.step_variance),
        )

    def no_sums(self, chain: Sized, n_states: int) -> SweepSums:
        """See :class:`TileModel`."""
        by_keypoint = np.zeros(chain.n_keypoints)
        by_term = np.zeros(len(self.terms))
        return SweepSums(no_moments(chain, n_states), by_term, by_keypoint, by_keypoint, 0)

    def read_ahead(self, chain: Chain, tile: Tile) -> None:
        """See :class:`TileModel`."""
        if isinstance(chain.observed, TrackedData):
            chain.observed.prefetch(*spans(chain, tile, before=chain.index.lags))

    def gather(self, chain: Chain, tile: Tile, shape: TileShape, n_states: int) -> TileInput:
        """See :class:`TileModel`."""
        lags = chain.index.lags
        left, _ = neighbours(chain, tile, n_states)
        return TileInput(
            gather(chain.local, chain, tile, shape, before=lags, after=lags),
            gather(chain.observed, chain, tile, shape, before=lags),
            gather_labels(chain, tile, shape, after=lags, fill=n_states),
            pad(left, shape, n_states),
            pad(tile.length.astype(np.int32), shape, 0),
            pad(tile.start.astype(np.int32), shape, 0),
            pad(chain.index.words[tile.session], shape, 0),
        )

    def draw(
        self,
        chain: Chain,
        task: Task,
        inputs: TileInput,
        tables: FullTables,
        device_tables: FullTables,
        address: SweepAddress,
    ) -> TileDraw:
        """See :class:`TileModel`."""
        lags = chain.index.lags
        drawn = jax.block_until_ready(
            self._sample(device_tables, inputs, address, task.is_odd, lags)
        )
        is_repeated = not _is_sound(drawn, chain.local.dtype)
        if is_repeated:
            single = drawn
            drawn = self._recompute_in_float64(chain.index, task, tables, inputs, address)
            if self.keeps_sound_segments:
                drawn = _only_bad(single, drawn, chain.local.dtype)
        by_segment = [np.asarray(getattr(drawn, name), np.float64).sum() for name in self.terms]
        sums = SweepSums(
            np.asarray(drawn.moments, np.float64),
            np.array(by_segment),
            np.asarray(drawn.square, np.float64),
            np.asarray(drawn.n_observed, np.float64),
            int(is_repeated),
        )
        return TileDraw(drawn.z, drawn.local, sums)

    def _sample(
        self,
        tables: FullTables,
        inputs: TileInput,
        address: SweepAddress,
        is_last_pass: bool,
        lags: int,
    ) -> TileOutput:
        return sample_full_tile(
            tables,
            inputs,
            address.seed_words,
            np.int32(address.number),
            np.bool_(is_last_pass),
            settings=self.settings,
            lags=lags,
        )

    def _recompute_in_float64(
        self,
        index: ChainIndex,
        task: Task,
        tables: FullTables,
        inputs: TileInput,
        address: SweepAddress,
    ) -> TileOutput:
        double = np.dtype("float64")
        # One at a time: they take twice the memory of the tiles that were planned for.
        with self._one_at_a_time, jax.enable_x64(True):
            wide = inputs._replace(local=inputs.local.astype(double))
            shared = on_device(tables, double)
            drawn = self._sample(shared, wide, address, task.is_odd, index.lags)
        first_bad = np.asarray(drawn.first_bad)
        n_rows = drawn.local.shape[1]
        lanes = np.flatnonzero(first_bad < n_rows)
        if not lanes.size and np.isfinite(np.asarray(drawn.moments)).all():
            return drawn
        lane = int(lanes[0]) if lanes.size else 0
        row = int(min(first_bad[lane], n_rows - 1))
        raise _error(index, task.tile, drawn, lane, row, address.number)


def _is_sound(drawn: TileOutput, dtype: np.dtype) -> bool:
    return bool(np.isfinite(np.asarray(drawn.moments)).all()) and not _is_bad(drawn, dtype).any()


def _is_bad(drawn: TileOutput, dtype: np.dtype) -> np.ndarray:
    """Segments that are not finite, or of which too few digits are left: (segment,)."""
    is_bad = np.asarray(drawn.first_bad) < drawn.local.shape[1]
    return is_bad | ~(np.asarray(drawn.relative_pivot) > SMALLEST_PIVOT[dtype])


def _only_bad(single: TileOutput, double: TileOutput, dtype: np.dtype) -> TileOutput:
    """Put segments drawn in float64 in place of those that float32 cannot draw."""
    is_bad = _is_bad(single, dtype)
    z = np.where(is_bad[:, None], double.z, single.z)
    local = np.where(is_bad[:, None, None], double.local, single.local)
    return double._replace(z=z, local=local)  # type: ignore[arg-type]


def _error(
    index: ChainIndex, tile: Tile, drawn: TileOutput, lane: int, row: int, number: int
) -> SamplingError:
    session = index.sessions[int(tile.session[lane])]
    start = int(tile.start[lane])
    stop = start + int(tile.length[lane])
    frame = start - index.lags + row
    state = int(np.asarray(drawn.z)[lane, max(0, row - index.lags)])
    return SamplingError(session.name, start, stop, frame, state, number)
