"""Map a function over blocks in parallel and add the results up, always in the same order."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from itertools import islice
from typing import Any, NamedTuple, Protocol, TypeVar

import dask
import numpy as np

from kpms_zarr.compute.memory import parse_size, resident_memory
from kpms_zarr.store.core import access, layout, regions
from kpms_zarr.store.core.access import StoreLike
from kpms_zarr.store.core.blocks import Block
from kpms_zarr.store.core.schema import FRAMES_PER_CHUNK
from kpms_zarr.store.cores import n_cores
from kpms_zarr.store.errors import InputError
from kpms_zarr.store.missing import without_missing
from kpms_zarr.store.run_lengths import run_starts
from kpms_zarr.store.wording import option

Item = TypeVar("Item")
Result = TypeVar("Result")

_PARTITIONS_PER_WAVE = 64
_BYTES_PER_NUMBER = 80
"""Of a block that is aligned: ten arrays in float64 (measured: 25 MB for 8 keypoints in 2-D)."""
_WORKING_BYTES = 50_000_000
"""Modules that are loaded on the way."""


class OutlierFinder(Protocol):
    """Finder of the outlying keypoints of a block: see :class:`outliers.Screen`."""

    def find(self, block: Block, position: np.ndarray, confidence: np.ndarray) -> np.ndarray:
        """Find outlying keypoints, (frame, keypoint) bool; positions in units of the store."""
        ...


class BlockReader:
    """Reads blocks of tracked data; travels to other processes as the path of the store.

    Make a new one for each run: open arrays keep the shape that they had when they were opened.

    Parameters
    ----------
    keypoints : sequence of int, optional
        Keypoints of the store to return, in this order (default: all).
    scale : mapping of int to float, optional
        Index of a session -> units of position of the store for one unit of what is returned;
        1 for a session that it lacks.
    screen : OutlierFinder, optional
        Keypoints that it finds outlying are returned as missing.
    """

    def __init__(
        self,
        store: StoreLike,
        *,
        keypoints: Sequence[int] | None = None,
        scale: Mapping[int, float] | None = None,
        screen: OutlierFinder | None = None,
    ) -> None:
        self._store, self._place = os.fspath(store), access.absolute(store)
        self._keypoints = None if keypoints is None else np.asarray(keypoints, dtype=np.int64)
        self._scale = {int(i): float(s) for i, s in (scale or {}).items() if s != 1}
        self._screen = screen
        self._arrays: dict[str, Any] = {}

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "_arrays": {}}

    @property
    def store(self) -> str:
        """Path or URL of the store."""
        return self._store

    @property
    def is_scaled(self) -> bool:
        """Whether positions of any session are returned in other units than they are stored."""
        return bool(self._scale)

    def _array(self, name: str) -> Any:
        if name not in self._arrays:
            self._arrays[name] = access.open_group(self._place)[f"{layout.KEYPOINTS}/{name}"]
        return self._arrays[name]

    def position(self, block: Block) -> np.ndarray:
        """Positions of a block: (frame, keypoint, space) float32; NaN where the screen says so."""
        return self._position(block, self._screen)

    def believed(self, block: Block) -> np.ndarray:
        """Positions as in :meth:`position`, but without regard to a screen."""
        return self._position(block, None)

    def _position(
        self, block: Block, screen: OutlierFinder | None, confidence: np.ndarray | None = None
    ) -> np.ndarray:
        values = self._selected("position", block)
        if screen is not None:
            confidence = self.confidence(block) if confidence is None else confidence
            is_off = screen.find(block, values, confidence)
            values = np.where(is_off[..., None], np.float32(np.nan), values)
        scale = self._scale.get(block.session)
        if scale is None:
            return values
        with np.errstate(over="ignore"):  # too far out for float32: not finite, hence not valid
            return values / np.float32(scale)

    def tracked(self, block: Block) -> tuple[np.ndarray, np.ndarray]:
        """Positions, NaN where `kpms_zarr.store.missing` calls them so, and confidences."""
        confidence = self.confidence(block)
        position = self._position(block, self._screen, confidence)
        return without_missing(position, confidence), confidence

    def confidence(self, block: Block) -> np.ndarray:
        """Confidences of a block: (frame, keypoint) float32, NaN = not given."""
        return self._selected("confidence", block)

    def _selected(self, name: str, block: Block) -> np.ndarray:
        values = regions.read(self._array(name), block)
        # take, not values[:, keypoints]: sums round by memory layout, and this one is that of a
        # store which holds nothing else
        return values if self._keypoints is None else values.take(self._keypoints, axis=1)


@contextmanager
def limit_workers(
    store: StoreLike, host_memory: str | int | None, *, is_strict: bool = True
) -> Iterator[None]:
    """Limit the blocks that are worked on at once to what a budget of memory allows.

    Parameters
    ----------
    host_memory : str, int or None
        Such as ``"4GB"``, or bytes, of the whole process; None = as many blocks as Dask has
        threads. A scheduler or client that the user has chosen is left alone.
    is_strict : bool
        False: one block at a time where not even that fits, for somebody else will refuse.

    Raises
    ------
    InputError
        When not even one block fits, with the smallest budget that would do.
    """
    if host_memory is None:
        yield
        return
    position = access.open_group(store)[f"{layout.KEYPOINTS}/position"]
    n_points, n_space = position.shape[2:]  # type: ignore[union-attr]
    one = FRAMES_PER_CHUNK * n_points * (n_space + 1) * _BYTES_PER_NUMBER
    n_bytes, taken = parse_size(host_memory), resident_memory() + _WORKING_BYTES
    n_blocks = (n_bytes - taken) // one
    if n_blocks < 1 and is_strict:
        needed = f"{-(-(taken + one) // 10**6)}MB"
        raise InputError(
            expected=f"a `host_memory=` of at least {needed}",
            found=f"{n_bytes // 10**6}MB",
            where="blocks of frames in memory",
            fix=f"give {option('host_memory', needed)}",
        )
    n_threads = int(min(max(1, n_blocks), n_cores()))
    with dask.config.set(num_workers=n_threads):
        yield


def map_reduce(
    function: Callable[[Item], Result],
    items: Iterable[Item],
    add: Callable[[Result, Result], Result],
    *,
    batch: int = 4,
) -> Result:
    """Map a function over items with Dask and add up the results.

    Batches of items are folded one after another, the batches of a wave are added as a balanced
    tree, and the waves are added in order. Which results meet depends on the number of items and
    ``batch`` alone, so the sum is the same to the bit with any scheduler and any number of
    workers. Dask never sees more than one wave, so the graph stays small for any number of items.

    Parameters
    ----------
    function : callable
        Result of one item. Picklable (a top-level function, or a partial of one) when a
        distributed client or the processes scheduler is in use.
    items : iterable
        Consumed lazily, one wave at a time.
    add : callable
        Associative; must not change its arguments.
    batch : int
        Items in a task.

    Returns
    -------
    object
        Sum of the results, in the order of the items.

    Raises
    ------
    ValueError
        When there are no items.

    Notes
    -----
    Dask's own configuration decides where the tasks run: threads unless the user has chosen a
    scheduler or made a distributed client. At most one result per worker and per level of the
    tree is held at a time.
    """
    partitions = _groups(items, batch)
    total: Result | None = None
    is_first = True
    for wave in _groups(partitions, _PARTITIONS_PER_WAVE):
        result = _compute(function, wave, add)
        total = result if is_first else add(total, result)  # type: ignore[arg-type]
        is_first = False
    if is_first:
        raise ValueError("map_reduce needs at least one item")
    return total  # type: ignore[return-value]


def _groups(items: Iterable[Any], size: int) -> Iterator[list[Any]]:
    iterator = iter(items)
    while group := list(islice(iterator, size)):
        yield group


def _compute(
    function: Callable[[Any], Result],
    wave: list[list[Any]],
    add: Callable[[Result, Result], Result],
) -> Result:
    # one node for the function, so that a large one is sent once to each worker, not per task
    shared = dask.delayed(function, pure=False, traverse=False)
    fold = dask.delayed(_fold, pure=False)
    plus = dask.delayed(add, pure=False)
    nodes = [fold(shared, partition, add) for partition in wave]
    while len(nodes) > 1:
        pairs = [plus(*nodes[i : i + 2]) for i in range(0, len(nodes) - 1, 2)]
        nodes = pairs + nodes[2 * len(pairs) :]
    # Dask looks for a client, and imports distributed to do so, which takes a second, where it is
    # installed; nobody has made a client who has not imported it.
    has_none = dask.config.get("scheduler", None) is None and "distributed" not in sys.modules
    options = {"scheduler": "threads"} if has_none else {}
    (result,) = dask.compute(nodes[0], **options)
    return result


def _fold(
    function: Callable[[Any], Result], items: list[Any], add: Callable[[Result, Result], Result]
) -> Result:
    total = function(items[0])
    for item in items[1:]:
        total = add(total, function(item))
    return total


class Histogram(NamedTuple):
    """Counts of the integers that occur.

    Attributes
    ----------
    key : ndarray, (entry,) int64
        Increasing.
    number : ndarray, (entry,) int64
    """

    key: np.ndarray
    number: np.ndarray

    @classmethod
    def of_block(cls, key: np.ndarray) -> Histogram:
        """Count integers."""
        return cls(*np.unique(key, return_counts=True))

    def at_rank(self, rank: int) -> tuple[int, int]:
        """Find the key at a rank, and the rank among its own."""
        below = np.cumsum(self.number)
        at = int(np.searchsorted(below, rank, side="right"))
        return int(self.key[at]), int(rank - (below[at] - self.number[at]))

    def add(self, other: Histogram) -> Histogram:
        """Add the counts of both."""
        key = np.concatenate([self.key, other.key])
        number = np.concatenate([self.number, other.number])
        order = np.argsort(key, kind="stable")
        key, number = key[order], number[order]
        first = run_starts(key)
        return Histogram(key[first], np.add.reduceat(number, first) if first.size else number)


def weighted_median(
    values: Sequence[float] | np.ndarray, weights: Sequence[int] | np.ndarray
) -> float:
    """Median of values that count as often as their weights say; the same in any order.

    Parameters
    ----------
    values, weights : sequence, (entry,)

    Returns
    -------
    float
        The mean of the two middle values when the weights split evenly; NaN without weights.
    """
    value, weight = np.asarray(values, dtype=np.float64), np.asarray(weights, dtype=np.int64)
    value, weight = value[weight > 0], weight[weight > 0]
    if not value.size:
        return float("nan")
    order = np.argsort(value, kind="stable")
    below = np.cumsum(weight[order])
    middle = np.searchsorted(below, [(below[-1] - 1) // 2, below[-1] // 2], side="right")
    return float(value[order][middle].mean())
