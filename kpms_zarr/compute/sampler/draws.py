"""Labels of all frames after some of the last sweeps, and what they average to."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

from kpms_zarr.compute.config import FitConfig
from kpms_zarr.compute.sampler.chain import BLOCK_FRAMES, NO_STATE, Chain, ChainIndex
from kpms_zarr.compute.sampler.placement import FrameArray, make_rows
from kpms_zarr.store.run_lengths import run_starts

MOST_DRAWS = 50
"""Sweeps whose labels are kept: a share of them is known to 0.07 at worst, one standard error."""

_FRAMES_AT_ONCE = 65_536

_SMALL = 127
"""States that a byte tells apart."""


class Choices(NamedTuple):
    """The two commonest labels of some frames among their draws.

    Attributes
    ----------
    state, second : ndarray, (frame,) int16
        -1 = none.
    share, second_share : ndarray, (frame,) float64
        Of the draws: averages of the posterior over the sweeps that are kept.
    """

    state: np.ndarray
    share: np.ndarray
    second: np.ndarray
    second_share: np.ndarray


@dataclass(frozen=True)
class DrawSchedule:
    """Which sweeps of a fit are kept: the last ``n_averaged``, or as many of them, evenly spread.

    Attributes
    ----------
    n_sweeps : int
        Of the whole fit.
    n_averaged : int
    """

    n_sweeps: int
    n_averaged: int

    @classmethod
    def of(cls, config: FitConfig) -> DrawSchedule:
        """Schedule of a fit."""
        return cls(config.all_sweeps, config.n_averaged)

    @property
    def every(self) -> int:
        """Sweeps from one that is kept to the next."""
        return -(-self.n_averaged // MOST_DRAWS)

    @property
    def n_draws(self) -> int:
        """Sweeps that are kept in all; the last one always is."""
        return self.n_averaged // self.every

    def slot(self, done: int) -> int | None:
        """Place of the draw after ``done`` sweeps, from 0; None when it is not kept."""
        before_end, rest = divmod(self.n_sweeps - done, self.every)
        return None if rest or before_end >= self.n_draws else self.n_draws - 1 - before_end

    def n_kept(self, done: int) -> int:
        """Draws that are kept after so many sweeps."""
        return max(0, min(self.n_draws, self.n_draws - -(-(self.n_sweeps - done) // self.every)))


class LabelDraws:
    """Labels of all frames after some sweeps, one array each.

    A sweep writes one array from end to end; nothing is read before the last.

    Parameters
    ----------
    index : ChainIndex
    n_draws : int
        At most.
    n_states : int
    home : str
        Where they lie; what belongs on the device lies on the host.
    scratch : path, optional
        Folder of the scratch files of ``"disk"``.

    Attributes
    ----------
    n_kept : int
        Draws so far.
    """

    def __init__(
        self,
        index: ChainIndex,
        n_draws: int,
        n_states: int,
        *,
        home: str = "host",
        scratch: str | None = None,
    ) -> None:
        self.n_kept = 0
        self._rows: list[FrameArray] = []
        place = "disk" if home == "disk" else "host"
        for number in range(n_draws):
            name = f"draw {number + 1} of the labels"
            shape = (index.n_frames,)
            self._rows.append(make_rows(place, name, draw_dtype(n_states), shape, scratch))

    def keep(self, chain: Chain, slot: int, which: np.ndarray | None = None) -> None:
        """Keep the labels of a chain as the draw ``slot``, at most the next one.

        ``which``: of the sessions, (session,) bool; the others have no such draw (default: all).
        """
        rows = self._rows[slot]
        for start in range(0, chain.index.n_frames, BLOCK_FRAMES):
            frames = slice(start, start + BLOCK_FRAMES)
            rows[frames] = np.asarray(chain.syllable[frames])
        for row in [] if which is None else np.flatnonzero(~which):
            first = int(chain.index.first[row])
            rows[first : first + int(chain.index.length[row])] = NO_STATE
        self.n_kept = max(self.n_kept, slot + 1)

    def read(self, start: int, stop: int, draws: np.ndarray | None = None) -> np.ndarray:
        """Labels of some frames: (frame, draw) int16; ``draws``: which of them (default: all)."""
        draws = np.arange(self.n_kept) if draws is None else draws
        found = np.empty((stop - start, len(draws)), np.int16)
        for column, draw in enumerate(draws):
            found[:, column] = self._rows[draw][start:stop]
        return found

    def put(self, slot: int, start: int, labels: np.ndarray) -> None:
        """Put labels (frame,) into the draw ``slot``, from frame ``start`` on."""
        self._rows[slot][start : start + len(labels)] = labels
        self.n_kept = max(self.n_kept, slot + 1)

    def write(self, start: int, labels: np.ndarray) -> None:
        """Put back what :meth:`read` gave, (frame, draw), from frame ``start`` on."""
        for rows, column in zip(self._rows, labels.T, strict=False):
            rows[start : start + len(labels)] = column

    def relabel(self, number: np.ndarray) -> None:
        """Give label ``i`` of all draws the number ``number[i]``, draw after draw."""
        for rows in self._rows[: self.n_kept]:
            for start in range(0, rows.shape[0], BLOCK_FRAMES):
                frames = slice(start, start + BLOCK_FRAMES)
                rows[frames] = number[rows[frames]]

    def close(self) -> None:
        """Free memory and scratch files."""
        for rows in self._rows:
            rows.close()


def draw_dtype(n_states: int) -> str:
    """Type that a label of a draw is kept in."""
    return "int8" if n_states <= _SMALL else "int16"


def commonest(draws: np.ndarray) -> Choices:
    """Find the two commonest labels of every frame; the lower one where two are as common.

    Parameters
    ----------
    draws : ndarray, (frame, draw)
        -1 = no such draw of the frame, or no label at all.
    """
    n_frames, n_draws = draws.shape
    flat = np.sort(draws, axis=1).ravel()
    begin = run_starts(flat, np.arange(0, len(flat), n_draws))
    frame, label = begin // n_draws, flat[begin]
    length = np.where(label == NO_STATE, 0, np.diff(np.append(begin, len(flat))))
    # Runs of a frame lie by label; a stable sort leaves the lower label first.
    order = np.lexsort((-length, frame))
    first = np.searchsorted(frame, np.arange(n_frames))
    following = np.minimum(first + 1, len(order) - 1)
    best, next_best = order[first], order[following]
    has_second = (frame[following] == np.arange(n_frames)) & (following > first)
    has_second &= label[next_best] != NO_STATE
    number = (draws != NO_STATE).sum(1)
    share = length / np.where(number, number, 1)[frame]
    return Choices(
        label[best].astype(np.int16),
        np.where(number, share[best], np.nan),
        np.where(has_second, label[next_best], NO_STATE).astype(np.int16),
        np.where(number, np.where(has_second, share[next_best], 0), np.nan),
    )


class AveragedLabels:
    """Labels of a chain by the average of its draws, read by slices of frames.

    Parameters
    ----------
    chain : Chain
        With draws.
    draws : ndarray, optional
        Which of them count (default: all).
    """

    def __init__(self, chain: Chain, draws: np.ndarray | None = None) -> None:
        assert chain.draws is not None
        self._chain, self._draws, self._which = chain, chain.draws, draws

    @property
    def index(self) -> ChainIndex:
        """Index of the sessions."""
        return self._chain.index

    @property
    def syllable(self) -> AveragedLabels:
        """Commonest label of every frame, (frame,), read by slices."""
        return self

    def __getitem__(self, key: slice) -> np.ndarray:
        start, stop, _ = key.indices(self.index.n_frames)
        parts = [found.state for found in self._choices(start, stop)]
        return np.concatenate(parts) if parts else np.zeros(0, np.int16)

    def of_session(self, row: int) -> Iterator[Choices]:
        """Yield the choices of the frames of a session, some of them at a time, in order."""
        first = int(self.index.first[row])
        return self._choices(first, first + int(self.index.length[row]))

    def _choices(self, start: int, stop: int) -> Iterator[Choices]:
        for begin in range(start, stop, _FRAMES_AT_ONCE):
            end = min(begin + _FRAMES_AT_ONCE, stop)
            yield commonest(self._draws.read(begin, end, self._which))
