"""Movement of tiles between store, host and device: read ahead, compute, write back."""

from __future__ import annotations

import threading
import time
from collections import deque
from collections.abc import Callable, Generator, Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor, wait
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any, TypeVar

import jax
import numpy as np

from kpms_zarr.compute.errors import OutOfMemoryError
from kpms_zarr.compute.sampler.chain import Chain
from kpms_zarr.compute.sampler.placement import Segments
from kpms_zarr.compute.sampler.segments import Task, Tile, TileShape

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
    is_double : bool
        Whether 64-bit types are enabled; JAX keeps that setting by thread.
    """
    pending: deque[Future[R]] = deque()
    with ThreadPoolExecutor(n_in_flight) as pool:
        for item in items:
            if len(pending) == n_in_flight:
                yield pending.popleft().result()
            pending.append(pool.submit(_with_precision, function, item, is_double))
        while pending:
            yield pending.popleft().result()


def _with_precision(function: Callable[[T], R], item: T, is_double: bool) -> R:
    with jax.enable_x64(is_double):
        return function(item)


class BusyMeter:
    """Meter of the time in which the device was busy."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._running = 0
        self._since = self._began = time.perf_counter()
        self._busy = 0.0

    @contextmanager
    def busy(self) -> Iterator[None]:
        """Context around a computation of the device, until it is done."""
        with self._lock:
            if not self._running:
                self._since = time.perf_counter()
            self._running += 1
        try:
            yield
        finally:
            with self._lock:
                self._running -= 1
                if not self._running:
                    self._busy += time.perf_counter() - self._since

    def restart(self) -> float:
        """Share of the time since the last restart in which nothing ran on the device."""
        with self._lock:
            now = time.perf_counter()
            passed = max(now - self._began, 1e-9)
            share = 1 - min(1.0, self._busy / passed)
            self._busy, self._began = 0.0, now
            return share


@dataclass
class Pipeline:
    """Number of tiles in flight, and how busy they keep the device.

    Attributes
    ----------
    n : int
        Halved when the device runs out of memory.
    on_less : callable
        Is given the new number.
    """

    n: int
    on_less: Callable[[int], None] = field(default=lambda n: None)
    meter: BusyMeter = field(default_factory=BusyMeter)

    @property
    def n_ahead(self) -> int:
        """Tiles whose data are read before their turn."""
        return self.n + 4


def run_tasks(
    update: Callable[[Task], R],
    tasks: Sequence[Task],
    pipeline: Pipeline,
    *,
    is_double: bool,
    read_ahead: Callable[[Task], None] = lambda task: None,
    on_tile: Callable[[int, int], None] = lambda done, of: None,
) -> Generator[tuple[Task, R]]:
    """Update tiles in threads, results in the order of the tasks.

    A tile is written back at the end of its update, so one that fails for lack of memory is
    simply updated again, alone; from then on half as many run at once as did when it failed.

    Parameters
    ----------
    is_double : bool
        Whether 64-bit types are enabled.
    read_ahead : callable
        Is given each task some time before its turn.
    on_tile : callable
        Is given (tiles done, all tiles) after each.

    Raises
    ------
    OutOfMemoryError
        When a single tile does not fit.
    """
    pending: deque[tuple[Task, Future[R], int]] = deque()
    n_even = n_done = n_read = 0
    with ThreadPoolExecutor(pipeline.n) as pool:

        def submit(task: Task) -> Future[R]:
            return pool.submit(_with_precision, update, task, is_double)

        def finish() -> tuple[Task, R]:
            nonlocal n_even, n_done
            task, future, n_then = pending.popleft()
            while (error := future.exception()) is not None:
                if not is_out_of_memory(error):
                    raise error
                # The others end first, one way or the other, and give their memory back.
                wait([other for _, other, _ in pending])
                # Of those that failed together the first has halved already.
                if n_then <= pipeline.n:
                    _halve(pipeline, error)
                n_then = pipeline.n
                future = submit(task)
                wait([future])
            n_even += not task.is_odd
            n_done += 1
            on_tile(n_done, len(tasks))
            return task, future.result()

        for number, task in enumerate(tasks):
            while n_read < min(number + pipeline.n_ahead, len(tasks)):
                read_ahead(tasks[n_read])
                n_read += 1
            while pending and (len(pending) >= pipeline.n or n_even < task.needs):
                yield finish()
            pending.append((task, submit(task), pipeline.n))
        while pending:
            yield finish()


def is_out_of_memory(error: BaseException) -> bool:
    """Whether an error says that memory ran out, on the device or on the host."""
    if isinstance(error, OutOfMemoryError):  # nothing that could be tried again
        return False
    return isinstance(error, MemoryError) or "RESOURCE_EXHAUSTED" in str(error)


def _halve(pipeline: Pipeline, error: BaseException) -> None:
    if pipeline.n == 1:
        raise OutOfMemoryError(str(error).splitlines()[0]) from error
    pipeline.n //= 2
    pipeline.on_less(pipeline.n)


def spans(
    chain: Chain, tile: Tile, *, before: int = 0, after: int = 0
) -> tuple[np.ndarray, np.ndarray]:
    """Find the rows of the flat arrays that a tile covers, with some of the session around.

    ``before`` is at most ``lags``, so that there are as many.
    """
    index = chain.index
    begin = index.first[tile.session] + tile.start
    last = (index.first + index.length)[tile.session]
    return begin - before, np.minimum(begin + tile.length + after, last)


def gather(
    values: Segments,
    chain: Chain,
    tile: Tile,
    shape: TileShape,
    *,
    before: int = 0,
    after: int = 0,
    fill: int = 0,
    columns: slice | None = None,
) -> Any:
    """Gather the frames of a tile, and some frames of the same session around each segment.

    Parameters
    ----------
    values : Segments
        An array of the chain.
    before : int
        At most ``lags``.
    fill : int
        Where there is no frame.

    Returns
    -------
    array, (segment, before + frame + after, ...)
        What follows a segment that is shorter than the tile comes right behind it. On the device
        when the values lie there.
    """
    begin, end = spans(chain, tile, before=before, after=after)
    return values.gather(
        begin, end, n_rows=before + shape.n_frames + after, n_segments=shape.n_segments,
        fill=fill, columns=columns,
    )  # fmt: skip


def gather_latent(chain: Chain, tile: Tile, shape: TileShape) -> Any:
    """Latent pose of a tile with its lags: (segment, lag + frame, latent), zero where padded."""
    columns = slice(0, chain.n_latent)
    return gather(chain.local, chain, tile, shape, before=chain.index.lags, columns=columns)


def gather_labels(
    chain: Chain, tile: Tile, shape: TileShape, *, after: int = 0, fill: int = 0
) -> Any:
    """Labels of a tile: (segment, frame + after) int32."""
    found = gather(chain.syllable, chain, tile, shape, after=after, fill=fill)
    return found.astype(np.int32)


def scatter_labels(chain: Chain, tile: Tile, z: Any) -> None:
    """Write the labels of a tile, (segment, frame), back to the chain."""
    begin = chain.index.first[tile.session] + tile.start
    chain.syllable.put(begin, np.zeros_like(begin), tile.length, z)


def scatter_all(chain: Chain, tile: Tile, z: Any, local: Any) -> None:
    """Write all that was sampled of a tile back.

    The first ``lags`` frames are written where they begin a session, and belong to the segment.

    Parameters
    ----------
    z : array, (segment, frame)
    local : array, (segment, lag + frame, feature)
    """
    lags = chain.index.lags
    begin = chain.index.first[tile.session] + tile.start
    skip = np.where(tile.start > lags, lags, 0)
    if chain.home != "device":
        # Before the first of them is written: this may fail for lack of memory, writing does not.
        z, local = np.asarray(z), np.asarray(local)
    chain.local.put(begin - lags + skip, skip, lags + tile.length, local)
    scatter_labels(chain, tile, z)


def neighbours(chain: Chain, tile: Tile, n_states: int) -> tuple[np.ndarray, np.ndarray]:
    """Labels of the frames before and after each segment, ``n_states`` where there is none."""
    index = chain.index
    begin, end = spans(chain, tile)
    has_left = tile.start > index.lags
    has_right = tile.start + tile.length < index.length[tile.session]
    left = chain.syllable.take(begin - 1)
    right = chain.syllable.take(np.minimum(end, chain.syllable.shape[0] - 1))
    left = np.where(has_left & (left >= 0), left, n_states)
    right = np.where(has_right & (right >= 0), right, n_states)
    return left.astype(np.int32), right.astype(np.int32)


def pad(values: np.ndarray, shape: TileShape, fill: int) -> np.ndarray:
    """Pad per-segment values of a tile to its full shape."""
    missing = shape.n_segments - len(values)
    widths = [(0, missing)] + [(0, 0)] * (values.ndim - 1)
    return np.pad(values, widths, constant_values=fill)
