"""Moves tiles between host and device, several at a time; results come back in order."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Generator, Iterable
from concurrent.futures import Future, ThreadPoolExecutor
from typing import TypeVar

import jax
import numpy as np

from kpms_zarr.compute.chain import Chain
from kpms_zarr.compute.segments import Tile, TileShape

T = TypeVar("T")
R = TypeVar("R")


def in_flight(
    function: Callable[[T], R], items: Iterable[T], n_in_flight: int, *, is_double: bool
) -> Generator[R]:
    """Apply a function to items in threads, at most ``n_in_flight`` at a time, results in order.

    XLA on a CPU runs the small operations of a scan on one thread and releases the GIL, so tiles
    in threads fill the cores; on a GPU they overlap transfer and compute.

    Parameters
    ----------
    function : callable
    items : iterable
    n_in_flight : int
    is_double : bool
        Whether 64-bit types are enabled; JAX keeps that setting by thread.
    """

    def run(item: T) -> R:
        with jax.enable_x64(is_double):
            return function(item)

    pending: deque[Future[R]] = deque()
    with ThreadPoolExecutor(n_in_flight) as pool:
        for item in items:
            if len(pending) == n_in_flight:
                yield pending.popleft().result()
            pending.append(pool.submit(run, item))
        while pending:
            yield pending.popleft().result()


def gather(
    values: np.ndarray,
    chain: Chain,
    tile: Tile,
    shape: TileShape,
    *,
    before: int = 0,
    after: int = 0,
    fill: int = 0,
    dtype: np.dtype | type | None = None,
) -> np.ndarray:
    """Values of the frames of a tile, and of some frames of the same session around each segment.

    Parameters
    ----------
    values : ndarray, (frame, ...)
        An array of the chain.
    chain : Chain
    tile : Tile
    shape : TileShape
    before : int
        At most ``lags``.
    after : int
    fill : int
        Where there is no frame.
    dtype : dtype, optional
        Default: that of ``values``.

    Returns
    -------
    (segment, before + frame + after, ...)
        What follows a segment that is shorter than the tile comes right behind it.
    """
    index = chain.index
    n_frames = before + shape.n_frames + after
    found = np.full((shape.n_segments, n_frames, *values.shape[1:]), fill, dtype or values.dtype)
    begin = index.first[tile.session] + tile.start
    end = np.minimum(begin + tile.length + after, (index.first + index.length)[tile.session])
    for lane, (first, last) in enumerate(zip(begin - before, end, strict=True)):
        found[lane, : last - first] = values[first:last]
    return found


def gather_latent(chain: Chain, tile: Tile, shape: TileShape) -> np.ndarray:
    """Latent pose of a tile with its lags: (segment, lag + frame, latent), zero where padded."""
    return gather(chain.latent, chain, tile, shape, before=chain.index.lags)


def gather_labels(chain: Chain, tile: Tile, shape: TileShape) -> np.ndarray:
    """Labels of a tile: (segment, frame) int32, 0 where padded."""
    return gather(chain.syllable, chain, tile, shape, dtype=np.int32)


def scatter_labels(chain: Chain, tile: Tile, z: np.ndarray) -> None:
    """Write the labels of a tile, (segment, frame), back to the chain."""
    begin = chain.index.first[tile.session] + tile.start
    for lane, (first, length) in enumerate(zip(begin, tile.length, strict=True)):
        chain.syllable[first : first + length] = z[lane, :length]


def scatter_all(chain: Chain, tile: Tile, z: np.ndarray, local: np.ndarray) -> None:
    """Write all that was sampled of a tile back.

    The first ``lags`` frames are written where they begin a session, and belong to the segment.

    Parameters
    ----------
    chain : Chain
    tile : Tile
    z : ndarray, (segment, frame)
    local : ndarray, (segment, lag + frame, feature)
    """
    lags = chain.index.lags
    begin = chain.index.first[tile.session] + tile.start
    skip = np.where(tile.start > lags, lags, 0)
    for lane, (first, length, own) in enumerate(zip(begin, tile.length, skip, strict=True)):
        frames = slice(first - lags + own, first + length)
        chain.keep(frames)
        chain.local[frames] = local[lane, own : lags + length]
        chain.syllable[first : first + length] = z[lane, :length]


def neighbours(chain: Chain, tile: Tile, n_states: int) -> tuple[np.ndarray, np.ndarray]:
    """Labels of the frames before and after each segment, ``n_states`` where there is none."""
    index = chain.index
    begin = index.first[tile.session] + tile.start
    end = begin + tile.length
    has_left = tile.start > index.lags
    has_right = tile.start + tile.length < index.length[tile.session]
    left = np.where(has_left, chain.syllable[begin - 1], n_states)
    right = np.where(has_right, chain.syllable[np.minimum(end, index.n_frames - 1)], n_states)
    return left.astype(np.int32), right.astype(np.int32)


def pad(values: np.ndarray, shape: TileShape, fill: int) -> np.ndarray:
    """Pad per-segment values of a tile to its full shape."""
    missing = shape.n_segments - len(values)
    widths = [(0, missing)] + [(0, 0)] * (values.ndim - 1)
    return np.pad(values, widths, constant_values=fill)
