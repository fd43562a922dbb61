"""The chain's per-frame state: one flat array per kind of variable, sessions end to end.

Sessions lie in the order of their names, so that nothing computed here depends on the order in
which they were ingested.
"""

from __future__ import annotations

import copy
from collections.abc import Sequence
from dataclasses import dataclass, replace
from types import TracebackType
from typing import Any, Protocol

import numpy as np

from kpms_zarr.compute.kernels.rng import session_words
from kpms_zarr.compute.sampler.placement import ColumnView, HostRows, make_rows
from kpms_zarr.store.core.access import Session

BLOCK_FRAMES = 1_000_000
"""Frames that are handled at once outside the tiles."""

NO_STATE = -1
"""Label of frames that are not modelled: the first ``lags`` of a session."""

SHARD_FRAMES = 131_072
"""Frames of a shard, where the study is not so long that there would be more than MOST_SHARDS."""

MOST_SHARDS = 1024
"""Of a study in whose sessions frames can be shared out evenly."""


@dataclass(frozen=True)
class ChainIndex:
    """Index of the sessions in the flat arrays.

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
    shard : ndarray, (session,) int64
        Number of the shard that each session belongs to, ascending. Sums over frames are taken
        shard by shard, and then over shards in order, so that their bits do not depend on which
        process takes which.
    """

    sessions: tuple[Session, ...]
    first: np.ndarray
    length: np.ndarray
    words: np.ndarray
    shard: np.ndarray
    lags: int

    @classmethod
    def of(
        cls, sessions: Sequence[Session], lags: int, *, shard_frames: int = SHARD_FRAMES
    ) -> ChainIndex:
        """Index of some sessions in any order.

        ``shard_frames``: of a shard, unless there would be too many shards.
        """
        ordered = tuple(sorted(sessions, key=lambda session: session.name))
        length = np.array([session.n_frames for session in ordered], np.int64)
        words = np.array([session_words(s.name) for s in ordered], np.uint32).reshape(-1, 2)
        shard = _shard_of(length, max(shard_frames, -(-int(length.sum()) // MOST_SHARDS)))
        return cls(ordered, np.cumsum(length) - length, length, words, shard, lags)

    def only(self, which: np.ndarray) -> ChainIndex:
        """Index of some of the sessions; ``which``: (session,) bool."""
        sessions = tuple(s for s, is_in in zip(self.sessions, which, strict=True) if is_in)
        return replace(
            self, sessions=sessions, first=self.first[which], length=self.length[which],
            words=self.words[which], shard=self.shard[which],
        )  # fmt: skip

    def alone(self, which: np.ndarray) -> ChainIndex:
        """Index of some of the sessions, (session,) bool, in arrays that hold no others."""
        found = self.only(which)
        return replace(found, first=np.cumsum(found.length) - found.length)

    @property
    def n_frames(self) -> int:
        """Frames of all sessions."""
        return int(self.length.sum())

    @property
    def n_modelled(self) -> np.ndarray:
        """Frames with a label, by session: all but the first ``lags``."""
        return np.maximum(self.length - self.lags, 0)


def _shard_of(length: np.ndarray, most: int) -> np.ndarray:
    """Shard of each session: one after the other, while a shard has no more than ``most`` frames.

    A session that is longer is a shard of its own.
    """
    found = np.zeros(len(length), np.int64)
    number, held = 0, 0
    for row, n_frames in enumerate(length.tolist()):
        if held and held + n_frames > most:
            number, held = number + 1, 0
        found[row] = number
        held += n_frames
    return found


class Sized(Protocol):
    """Sizes of a chain, which may lie elsewhere."""

    index: ChainIndex
    n_latent: int
    n_space: int
    n_keypoints: int


@dataclass
class ChainSizes:
    """Sizes of a chain that lies elsewhere."""

    index: ChainIndex
    n_latent: int
    n_space: int
    n_keypoints: int


class Chain:
    """State of every frame, in one placement, and the tracked data that it is sampled given.

    Parameters
    ----------
    dtype : str
        Of what is sampled.
    n_keypoints : int
        0 for the AR stage alone, which needs neither keypoints nor their noise.
    home : str
        Where the state lies: ``"device"``, ``"host"`` or ``"disk"``.
    scratch : path, optional
        Folder of the scratch files of ``"disk"``.
    observed : Segments, optional
        Where tiles get the tracked data from; default: an array in memory, to be filled.
    draws : LabelDraws, optional
        Labels after some of the last sweeps, when labels are averaged.

    Attributes
    ----------
    syllable : FrameArray, (frame,) int16
    local : FrameArray, (frame, latent + space + 1 + keypoint)
        Everything else that is sampled; the next four are columns of it.
    latent : (frame, latent)
    centroid : (frame, space)
    heading : (frame,)
    noise_scale : (frame, keypoint)
    observed : Segments, (frame, keypoint * space + keypoint) float32
        The data: positions (NaN = missing) and prior scales s0 of their noise.
    """

    def __init__(
        self,
        index: ChainIndex,
        *,
        n_latent: int,
        n_space: int,
        dtype: str,
        n_keypoints: int = 0,
        home: str = "host",
        scratch: str | None = None,
        observed: Any = None,
        draws: Any = None,
    ) -> None:
        self.index, self.home = index, home
        self.n_latent, self.n_space, self.n_keypoints = n_latent, n_space, n_keypoints
        n = index.n_frames
        ends = np.cumsum([n_latent, n_space, 1, n_keypoints])
        self._opened: list[Any] = []
        self.draws = None if draws is None else self._keep(draws)
        self.local = self._keep(make_rows(home, "state", dtype, (n, int(ends[-1])), scratch))
        self.columns: dict[str, slice | int] = {
            "latent": slice(0, int(ends[0])),
            "centroid": slice(int(ends[0]), int(ends[1])),
            "heading": int(ends[1]),
            "noise_scale": slice(int(ends[2]), int(ends[3])),
        }
        self.latent, self.centroid, self.heading, self.noise_scale = (
            ColumnView(self.local, which) for which in self.columns.values()
        )
        self.syllable = self._keep(make_rows(home, "syllable", "int16", (n,), scratch))
        for start in range(0, n, BLOCK_FRAMES):
            self.syllable[start : start + BLOCK_FRAMES] = NO_STATE
        if n_keypoints:
            width = n_keypoints * n_space + n_keypoints
            if observed is None:
                observed = HostRows(np.zeros((n, width), np.float32))
            self.observed = self._keep(observed)

    def _keep(self, rows: Any) -> Any:
        self._opened.append(rows)
        return rows

    def relabel(self, target: np.ndarray) -> None:
        """Give every frame of state ``i`` the state ``target[i]``, (state,), block by block."""
        # One entry more than states: -1 indexes it and stays -1.
        number = np.append(target, NO_STATE).astype(np.int16)
        for start in range(0, self.index.n_frames, BLOCK_FRAMES):
            block = slice(start, start + BLOCK_FRAMES)
            self.syllable[block] = number[self.syllable[block]]
        if self.draws is not None:
            self.draws.relabel(number)

    def only(self, which: np.ndarray) -> Chain:
        """A view for sampling some of the sessions; the chain itself must stay open."""
        view = copy.copy(self)
        view.index, view._opened = self.index.only(which), []
        return view

    @property
    def position(self) -> ColumnView:
        """(frame, keypoint * space), NaN = missing; of data that lie in memory."""
        return ColumnView(self.observed, slice(0, self.n_keypoints * self.n_space))

    @property
    def prior_scale(self) -> ColumnView:
        """(frame, keypoint), s0 of the noise scales; of data that lie in memory."""
        return ColumnView(self.observed, slice(self.n_keypoints * self.n_space, None))

    def close(self) -> None:
        """Free memory and scratch files."""
        for rows in self._opened:
            rows.close()

    def __enter__(self) -> Chain:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()
