"""Cut sessions into segments, anew every sweep, and lay them side by side in tiles of one shape."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import pairwise

import numpy as np

from kpms_zarr.compute.config import FRAMES_PER_DEVICE_TILE, FRAMES_PER_TILE
from kpms_zarr.compute.kernels.rng import SEGMENT_OFFSET
from kpms_zarr.compute.sampler.chain import ChainIndex

_LANES = 8


@dataclass(frozen=True)
class Tile:
    """Segments of any sessions that the device updates at once.

    Rows beyond ``n_segments`` of the shape are padding.

    Attributes
    ----------
    session : ndarray, (segment,) int64
        Position in the chain's index.
    start : ndarray, (segment,) int64
        First frame within the session, at least ``lags``.
    length : ndarray, (segment,) int64
    """

    session: np.ndarray
    start: np.ndarray
    length: np.ndarray


@dataclass(frozen=True)
class TileShape:
    """Shape of all tiles, the one that is compiled.

    Attributes
    ----------
    n_segments, n_frames : int
        Segments side by side, and frames of a segment.
    """

    n_segments: int
    n_frames: int

    @classmethod
    def of(
        cls, index: ChainIndex, segment_frames: int, tile_frames: int = FRAMES_PER_TILE
    ) -> TileShape:
        """Shape for some sessions: at most about ``tile_frames``, an even number of tiles a shard.

        Tiles for the cores of a CPU go in pairs; those of the size that other devices have run one
        after the other, and are as wide as they can be. Depends on the sessions and on settings of
        the fit, never on a memory budget or on tiles in pipeline, so that these cannot change a
        result.
        """
        n_frames = int(min(segment_frames, max(1, index.n_modelled.max(initial=1))))
        most = (-(-index.n_modelled // n_frames) + 1 + 1) // 2
        n_lanes = np.bincount(index.shard, most).astype(np.int64)
        per_tile = max(_LANES, tile_frames // n_frames // _LANES * _LANES)
        at_least = 2 if tile_frames < FRAMES_PER_DEVICE_TILE else 1
        n_tiles = at_least * np.maximum(1, -(-n_lanes // (at_least * per_tile)))
        in_tile = -(-n_lanes // (n_tiles * _LANES))
        return cls(_LANES * max(1, int(in_tile.max(initial=1))), n_frames)

    def n_tiles(self, index: ChainIndex) -> int:
        """Tiles of a sweep, at most: shards are not mixed, nor even segments with odd ones."""
        n_segments = -(-index.n_modelled // self.n_frames) + 1
        of_kind = np.bincount(index.shard, (n_segments + 1) // 2).astype(np.int64)
        return int(2 * (-(-of_kind // self.n_segments)).sum())


def cut(index: ChainIndex, shape: TileShape, seed: int, sweep: int) -> tuple[Tile, Tile]:
    """Cut sessions into the even and the odd segments of a sweep, in the order of the index.

    Cuts begin at a pseudo-random offset per session, addressed by (seed, sweep, session).
    """
    n_modelled = index.n_modelled
    offset = 1 + _hash(index.words, seed, sweep) % np.uint64(shape.n_frames)
    offset = np.minimum(offset.astype(np.int64), n_modelled)
    n_segments = np.where(n_modelled > 0, 1 + -(-(n_modelled - offset) // shape.n_frames), 0)
    session = np.repeat(np.arange(len(n_segments)), n_segments)
    rank = np.arange(len(session)) - np.repeat(np.cumsum(n_segments) - n_segments, n_segments)
    start = np.where(rank > 0, offset[session] + (rank - 1) * shape.n_frames, 0)
    stop = np.minimum(offset[session] + rank * shape.n_frames, n_modelled[session])
    segments = Tile(session, start + index.lags, stop - start)
    return _select(segments, rank % 2 == 0), _select(segments, rank % 2 == 1)


def tiles(segments: Tile, shape: TileShape, shard: np.ndarray | None = None) -> list[Tile]:
    """Cut a list of segments into tiles.

    Parameters
    ----------
    segments, shape
    shard : ndarray, (session,), optional
        Shard of each session, ascending; no tile has segments of two (default: all are one).
    """
    n = len(segments.session)
    of_segment = np.zeros(n, np.int64) if shard is None else shard[segments.session]
    bounds = [0, *(np.flatnonzero(np.diff(of_segment)) + 1).tolist(), n]
    return [
        _select(segments, slice(first, min(first + shape.n_segments, end)))
        for begin, end in pairwise(bounds)
        for first in range(begin, end, shape.n_segments)
    ]


@dataclass(frozen=True)
class Task:
    """One tile of a sweep, and when it may begin.

    Attributes
    ----------
    is_odd : bool
        Whether its segments are conditioned on even ones of the same sweep.
    needs : int
        How many tiles of even segments must be written back before it is gathered.
    shard : int
        Number of the shard that its sessions belong to.
    """

    is_odd: bool
    tile: Tile
    needs: int
    shard: int = 0


def schedule(index: ChainIndex, shape: TileShape, seed: int, sweep: int, lag: int) -> list[Task]:
    """Schedule the tiles of a sweep in the order of their start.

    Odd segments follow closely behind the even ones around them, so that data are still at hand;
    which draws result does not depend on it, since a segment depends on its neighbours alone.

    Parameters
    ----------
    lag : int
        Even tiles that an odd one waits for beyond those that it needs, so that it never keeps
        a thread waiting.
    """
    segments = cut(index, shape, seed, sweep)
    even, odd = (tiles(part, shape, index.shard) for part in segments)
    begin = index.first[segments[0].session] + segments[0].start
    n_held = np.cumsum([len(tile.session) for tile in even])
    tasks: list[Task] = []
    n_even = 0

    def task(tile: Tile, needs: int | None = None) -> Task:
        shard = int(index.shard[tile.session[0]])
        return Task(needs is not None, tile, needs or 0, shard)

    for tile in odd:
        end = index.first[tile.session[-1]] + tile.start[-1] + tile.length[-1]
        # Even segments up to the one behind the last of these.
        behind = int(np.searchsorted(begin, end, side="right"))
        needs = int(np.searchsorted(n_held, behind)) + 1
        while n_even < min(needs + lag, len(even)):
            tasks.append(task(even[n_even]))
            n_even += 1
        tasks.append(task(tile, needs))
    return tasks + [task(tile) for tile in even[n_even:]]


def _select(segments: Tile, which: np.ndarray | slice) -> Tile:
    return Tile(segments.session[which], segments.start[which], segments.length[which])


def _hash(words: np.ndarray, seed: int, sweep: int) -> np.ndarray:
    """Hash a session to a 64-bit number (splitmix64 over the address)."""
    state = np.zeros(len(words), np.uint64)
    for word in (seed, sweep, SEGMENT_OFFSET, words[:, 0], words[:, 1]):
        state = _mix(state ^ np.asarray(word).astype(np.uint64))
    return state


def _mix(z: np.ndarray) -> np.ndarray:
    z = z + np.uint64(0x9E3779B97F4A7C15)
    z = (z ^ (z >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    z = (z ^ (z >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return z ^ (z >> np.uint64(31))
