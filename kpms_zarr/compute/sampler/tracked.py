"""The data of the full stage by blocks from the store, read ahead and kept within a budget."""

from __future__ import annotations

import threading
from collections import OrderedDict
from collections.abc import Callable, Iterable, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any, NamedTuple

import numpy as np

from kpms_zarr.compute.config import FitConfig
from kpms_zarr.compute.kernels.noise import prior_scale
from kpms_zarr.compute.mapreduce import BlockReader
from kpms_zarr.compute.sampler.chain import ChainIndex
from kpms_zarr.compute.sampler.placement import HostSegments
from kpms_zarr.store.core.blocks import Block
from kpms_zarr.store.core.schema import FRAMES_PER_CHUNK

N_READERS = 4
"""Threads that read: they wait for the storage more than they compute."""


class NoiseByConfidence(NamedTuple):
    """Prior scale of the noise of a keypoint: log10 of its root against that of the confidence.

    Attributes
    ----------
    slope, intercept, pseudocount : float
        See ``noise_slope`` of :class:`FitConfig`; in model units.
    source : str
        Where it is from, in words; "" for settings, be they given or defaults.
    """

    slope: float
    intercept: float
    pseudocount: float
    source: str = ""

    @classmethod
    def of(cls, config: FitConfig) -> NoiseByConfidence:
        """Noise prior of settings."""
        return cls(config.noise_slope, config.noise_intercept, config.confidence_pseudocount)

    @classmethod
    def from_attributes(cls, attrs: Mapping[str, Any]) -> NoiseByConfidence | None:
        """Noise prior that attributes keep; None from earlier releases."""
        if "noise_slope" not in attrs:
            return None
        slope, intercept, pseudocount = (float(attrs[f"noise_{name}"]) for name in cls._fields[:3])
        return cls(slope, intercept, pseudocount, str(attrs["noise_source"]))

    def to_attributes(self) -> dict[str, Any]:
        """Attributes that keep it, beside the settings."""
        return {f"noise_{name}": value for name, value in self._asdict().items()}


def observe(reader: BlockReader, block: Block, noise: NoiseByConfidence) -> np.ndarray:
    """Positions as tracked and the prior scales of their noise.

    Parameters
    ----------
    reader : BlockReader
        Of positions in model units.

    Returns
    -------
    ndarray, (frame, keypoint * space + keypoint) float32
        Positions are NaN where :func:`kpms_zarr.store.missing.is_missing` says so.
    """
    position, confidence = reader.tracked(block)
    prior = prior_scale(
        confidence,
        slope=noise.slope,
        intercept=noise.intercept,
        pseudocount=noise.pseudocount,
    )
    return np.concatenate([position.reshape(block.n_frames, -1), prior], 1)


class TrackedData(HostSegments):
    """Segments of tracked data out of blocks that are read once where they fit, else as needed.

    What fits ``kept_bytes`` is kept for good, first come first kept: in sweeps that pass over
    everything in the same order, whatever makes room for the next block is what is needed last.

    Parameters
    ----------
    read : callable
        Block -> (frame, column) float32.
    kept_bytes : int
        For blocks that stay.
    recent_bytes : int
        For blocks around the tiles that are under way.

    Attributes
    ----------
    shape : tuple of int
        (frame, column) of all.
    n_bytes_read : int
        So far, as they lie in memory.
    """

    def __init__(
        self,
        read: Callable[[Block], np.ndarray],
        index: ChainIndex,
        n_columns: int,
        *,
        kept_bytes: int,
        recent_bytes: int,
    ) -> None:
        self.shape, self.dtype = (index.n_frames, n_columns), np.dtype(np.float32)
        self.n_bytes_read = 0
        self._read, self._index = read, index
        self._room, self._recent_bytes = kept_bytes, recent_bytes
        self._kept: dict[tuple[int, int], Future[np.ndarray]] = {}
        self._recent: OrderedDict[tuple[int, int], Future[np.ndarray]] = OrderedDict()
        self._n_recent = 0
        self._lock = threading.Lock()
        self._readers = ThreadPoolExecutor(N_READERS, thread_name_prefix="read")

    def _read_into(self, row: int, target: np.ndarray, columns: slice | None = None) -> None:
        ((session, first, last),) = self._places(np.array([row]), np.array([row + len(target)]))
        done = 0
        while first + done < last:
            number, inside = divmod(first + done, FRAMES_PER_CHUNK)
            rows = self.block(session, number)[inside : inside + last - first - done]
            target[done : done + len(rows)] = rows if columns is None else rows[:, columns]
            done += len(rows)

    def prefetch(self, begin: np.ndarray, end: np.ndarray) -> None:
        """Begin to read the blocks that :meth:`gather` will take."""
        wanted = {
            (session, number): None
            for session, first, last in self._places(begin, end)
            for number in range(first // FRAMES_PER_CHUNK, -(-last // FRAMES_PER_CHUNK))
        }
        for session, number in wanted:
            self._get(session, number)

    def block(self, session: int, number: int) -> np.ndarray:
        """A block of a session (position in the index): (frame, column) float32."""
        return self._get(session, number).result()

    def _places(self, begin: np.ndarray, end: np.ndarray) -> Iterable[tuple[int, int, int]]:
        first = self._index.first
        session = np.searchsorted(first, begin, side="right") - 1
        origin = first[session]
        places = np.stack([session, begin - origin, end - origin], 1).tolist()
        return ((place[0], place[1], place[2]) for place in places)

    def _get(self, session: int, number: int) -> Future[np.ndarray]:
        key = (session, number)
        with self._lock:
            found = self._kept.get(key) or self._recent.get(key)
            if found is not None and not _has_failed(found):
                if key in self._recent:
                    self._recent.move_to_end(key)
                return found
            start = number * FRAMES_PER_CHUNK
            stop = min(start + FRAMES_PER_CHUNK, int(self._index.length[session]))
            row = self._index.sessions[session].index
            asked = self._readers.submit(self._read_block, Block(row, start, stop))
            n_bytes = self._size(key)
            if n_bytes <= self._room or key in self._kept:
                self._room -= 0 if key in self._kept else n_bytes
                self._kept[key] = asked
            else:
                self._n_recent += 0 if key in self._recent else n_bytes
                self._recent[key] = asked
                self._drop_oldest(key)
            return asked

    def _drop_oldest(self, newest: tuple[int, int]) -> None:
        while self._n_recent > self._recent_bytes and next(iter(self._recent)) != newest:
            old, _ = self._recent.popitem(last=False)
            self._n_recent -= self._size(old)

    def _size(self, key: tuple[int, int]) -> int:
        session, number = key
        left = int(self._index.length[session]) - number * FRAMES_PER_CHUNK
        return min(FRAMES_PER_CHUNK, left) * self.shape[1] * 4

    def _read_block(self, block: Block) -> np.ndarray:
        found = self._read(block)
        with self._lock:
            self.n_bytes_read += found.nbytes
        return found

    def close(self) -> None:
        """Stop reading and free the blocks."""
        self._readers.shutdown(wait=True, cancel_futures=True)
        self._kept.clear()
        self._recent.clear()


def _has_failed(future: Future[Any]) -> bool:
    return future.done() and (future.cancelled() or future.exception() is not None)
