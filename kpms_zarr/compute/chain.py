"""The chain's per-frame state: one flat array per variable in a scratch file, sessions end to end.

Sessions lie in the order of their names, so that nothing computed here depends on the order in
which they were ingested.
"""

from __future__ import annotations

import os
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
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
    """State of every frame, in scratch files that go with the process.

    Parameters
    ----------
    index : ChainIndex
    n_latent, n_space : int
    dtype : str
        Of what is sampled.
    n_keypoints : int
        0 for the AR stage alone, which needs neither keypoints nor their noise.

    Attributes
    ----------
    syllable : memmap, (frame,) int16
    local : memmap, (frame, latent + space + 1 + keypoint)
        Everything else that is sampled; the next four are views of it.
    latent : (frame, latent)
    centroid : (frame, space)
    heading : (frame,)
    noise_scale : (frame, keypoint)
    observed : memmap, (frame, keypoint * space + keypoint) float32
        The data; the next two are views of it.
    position : (frame, keypoint * space)
        NaN = missing.
    prior_scale : (frame, keypoint)
        s0 of the noise scales.
    """

    def __init__(
        self, index: ChainIndex, *, n_latent: int, n_space: int, dtype: str, n_keypoints: int = 0
    ) -> None:
        self.index = index
        self.n_latent, self.n_space, self.n_keypoints = n_latent, n_space, n_keypoints
        self._files: list[IO[bytes]] = []
        self._old: tuple[np.memmap, np.memmap] | None = None
        self._kept: list[slice] | None = None
        n = index.n_frames
        ends = np.cumsum([n_latent, n_space, 1, n_keypoints])
        self.local = self._array("state", dtype, (n, int(ends[-1])))
        self.latent = self.local[:, : ends[0]]
        self.centroid = self.local[:, ends[0] : ends[1]]
        self.heading = self.local[:, ends[1]]
        self.noise_scale = self.local[:, ends[2] :]
        self.syllable = self._array("syllable", "int16", (n,))
        self.syllable[:] = NO_STATE
        width = n_keypoints * n_space
        if n_keypoints:
            self.observed = self._array("data", "float32", (n, width + n_keypoints))
            self.position = self.observed[:, :width]
            self.prior_scale = self.observed[:, width:]
            # Reserved now, so that a full disk is found before the first sweep.
            self._old = (
                self._array("old_state", dtype, self.local.shape),
                self._array("old_syllable", "int16", self.syllable.shape),
            )

    @property
    def n_bytes(self) -> int:
        """Size of the scratch files."""
        state = self.local.nbytes + self.syllable.nbytes
        return 2 * state + self.observed.nbytes if self.n_keypoints else state

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

    @contextmanager
    def undoable(self) -> Iterator[None]:
        """Bring the state back to what it was at the start when the body raises."""
        assert self._old is not None
        self._kept = []
        try:
            yield
        except BaseException:
            for frames in self._kept:
                self.local[frames], self.syllable[frames] = (old[frames] for old in self._old)
            raise
        finally:
            self._kept = None

    def keep(self, frames: slice) -> None:
        """Note frames that are about to be written, once each; see :meth:`undoable`."""
        if self._kept is not None and self._old is not None:
            for old, now in zip(self._old, (self.local, self.syllable), strict=True):
                old[frames] = now[frames]
            self._kept.append(frames)

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
