"""The chain's per-frame state: one flat array per variable in a scratch file, sessions end to end.

Sessions lie in the order of their names, so that nothing computed here depends on the order in
which they were ingested.
"""

from __future__ import annotations

import os
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from types import TracebackType
from typing import IO

import numpy as np

from kpms_zarr.compute.kernels.rng import session_words
from kpms_zarr.store.access import Session
from kpms_zarr.store.errors import InputError

NO_STATE = -1
"""Label of frames that are not modelled: the first ``lags`` of a session."""


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


class Chain:
    """Latent pose and labels of every frame, in scratch files that go with the process.

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
        self._files: list[IO[bytes]] = []
        n = index.n_frames
        self.latent = self._array("latent", dtype, (n, n_latent))
        self.syllable = self._array("syllable", "int16", (n,))
        self.centroid = self._array("centroid", "float32", (n, n_space))
        self.heading = self._array("heading", "float32", (n,))
        self.syllable[:] = NO_STATE

    def _array(self, name: str, dtype: str, shape: tuple[int, ...]) -> np.memmap:
        n_bytes = int(np.prod(shape)) * np.dtype(dtype).itemsize
        # Without a name on POSIX: gone with the process, however it ends.
        file = tempfile.TemporaryFile(prefix=f"kpms_zarr_{name}_")  # noqa: SIM115
        self._files.append(file)
        try:
            # Reserve the space now: a full disk under a memory map kills the process later.
            if hasattr(os, "posix_fallocate"):
                os.posix_fallocate(file.fileno(), 0, n_bytes)
        except OSError as error:
            self.close()
            raise InputError(
                expected=f"{n_bytes:,} bytes of scratch space for {name}",
                found=f"{error.strerror}",
                where=tempfile.gettempdir(),
                fix="free some space, or name another folder in the environment variable TMPDIR",
            ) from error
        return np.memmap(file, dtype=dtype, mode="w+", shape=shape)

    def close(self) -> None:
        """Let the scratch files go."""
        for file in self._files:
            file.close()

    def __enter__(self) -> Chain:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()
