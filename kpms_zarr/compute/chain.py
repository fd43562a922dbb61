"""The chain's per-frame state: one flat array per variable in a scratch file, sessions end to end.

Sessions lie in the order of their names, so that nothing computed here depends on the order in
which they were ingested.
"""

from __future__ import annotations

import tempfile
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType

import numpy as np

from kpms_zarr.compute.kernels.rng import session_words
from kpms_zarr.store.access import Session

NO_STATE = -1
"""Label of frames that are not modelled: the first ``lags`` of a session."""

_GROUP_FRAMES = 4_000_000


@dataclass(frozen=True)
class ChainIndex:
    """Where each session lies in the flat arrays.

    Attributes
    ----------
    sessions : tuple of Session
        By name.
    first : ndarray, (session,) int64
        First frame of each session in the flat arrays.
    length : ndarray, (session,) int64
        Frames of each session.
    words : ndarray, (session, 2) uint32
        Identity of each session for random numbers.
    lags : int
    """

    sessions: tuple[Session, ...]
    first: np.ndarray
    length: np.ndarray
    words: np.ndarray
    lags: int

    @classmethod
    def of(cls, sessions: Sequence[Session], lags: int) -> ChainIndex:
        """Index of some sessions in any order."""
        ordered = tuple(sorted(sessions, key=lambda session: session.name))
        length = np.array([session.n_frames for session in ordered], np.int64)
        words = np.array([session_words(s.name) for s in ordered], np.uint32).reshape(-1, 2)
        return cls(ordered, np.cumsum(length) - length, length, words, lags)

    @property
    def n_frames(self) -> int:
        """Frames of all sessions."""
        return int(self.length.sum())

    @property
    def n_modelled(self) -> np.ndarray:
        """Frames with a label, by session: all but the first ``lags``."""
        return np.maximum(self.length - self.lags, 0)

    def groups(self) -> Iterator[tuple[int, int]]:
        """Runs of whole sessions of some million frames, as (start, stop) in the flat arrays."""
        start = 0
        for first, length in zip(self.first, self.length, strict=True):
            if first + length - start > _GROUP_FRAMES and first > start:
                yield start, int(first)
                start = int(first)
        yield start, self.n_frames


class Chain:
    """Latent pose and labels of every frame, in a scratch folder that goes when it is closed.

    Parameters
    ----------
    index : ChainIndex
    n_latent, n_space : int
    dtype : str
        Of the latent pose.

    Attributes
    ----------
    latent : memmap, (frame, latent)
    syllable : memmap, (frame,) int16
    centroid : memmap, (frame, space) float32
    heading : memmap, (frame,) float32
    """

    def __init__(self, index: ChainIndex, *, n_latent: int, n_space: int, dtype: str) -> None:
        self.index = index
        self._folder = tempfile.TemporaryDirectory(prefix="kpms_zarr_")
        n = index.n_frames
        self.latent = self._array("latent", dtype, (n, n_latent))
        self.syllable = self._array("syllable", "int16", (n,))
        self.centroid = self._array("centroid", "float32", (n, n_space))
        self.heading = self._array("heading", "float32", (n,))
        self.syllable[:] = NO_STATE

    def _array(self, name: str, dtype: str, shape: tuple[int, ...]) -> np.memmap:
        path = Path(self._folder.name) / name
        return np.memmap(path, dtype=dtype, mode="w+", shape=shape)

    def close(self) -> None:
        """Delete the scratch files."""
        self._folder.cleanup()

    def __enter__(self) -> Chain:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()
