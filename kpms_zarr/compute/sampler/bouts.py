"""Bouts, durations and transitions of labels: exact, and never across sessions."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, NamedTuple, Protocol

import numpy as np

from kpms_zarr.compute.mapreduce import Histogram, weighted_median
from kpms_zarr.compute.sampler.chain import ChainIndex
from kpms_zarr.store.core.schema import USED_FRACTION
from kpms_zarr.store.run_lengths import run_starts

_MAX_DURATION_BINS = 300
_CHUNK_FRAMES = 2_000_000
_LENGTH_BITS = 40


@dataclass(frozen=True)
class LabelCounts:
    """Counts of one pass over the labels.

    Attributes
    ----------
    frames : ndarray, (state,) int64
    transitions : ndarray, (state, state) int64
        Between consecutive frames of a session, stays included.
    bouts : Histogram
        By syllable and length, in frames of the fastest video, in one number.
    fps : float
        Frame rate of the fastest video, frames per second.
    """

    frames: np.ndarray
    transitions: np.ndarray
    bouts: Histogram
    fps: float

    def plus(self, other: LabelCounts) -> LabelCounts:
        """Add the counts of other sessions."""
        return LabelCounts(
            self.frames + other.frames, self.transitions + other.transitions,
            self.bouts.add(other.bouts), self.fps,
        )  # fmt: skip

    @property
    def is_used(self) -> np.ndarray:
        """(state,) bool: which syllables have at least 0.5 % of the frames."""
        return self.frames >= USED_FRACTION * max(1, self.frames.sum())

    @property
    def n_used(self) -> int:
        """Syllables with at least 0.5 % of the frames."""
        return int(self.is_used.sum())

    @property
    def rare_share(self) -> float:
        """Share of the bouts that are of syllables with less than 0.5 % of the frames."""
        number = self.bouts.number
        rare = number[~self.is_used[self.bouts.key >> _LENGTH_BITS]].sum()
        return float(rare / max(1, number.sum()))

    @property
    def median_duration(self) -> float:
        """Median length of the bouts of syllables in use, in frames of the fastest video.

        Rare syllables are left out, for a jump of the tracking makes one bout of its own and two of
        the syllable that it cuts: where there are many, the median over all bouts says how long
        jumps last. Where no syllable is in use, all count.
        """
        return weighted_median(*self._lengths(self.is_used))

    @property
    def median_of_all(self) -> float:
        """Median length of all bouts, in frames of the fastest video."""
        return weighted_median(*self._lengths(np.ones_like(self.is_used)))

    @property
    def smooth_median_duration(self) -> float:
        """The same of lengths spread evenly over +-0.5 frames: moves without steps."""
        length, number = self._lengths(self.is_used)
        if not number.size:
            return 0.0
        total = np.cumsum(number)
        middle = int(np.searchsorted(total, total[-1] / 2))
        before = total[middle] - number[middle]
        return float(length[middle] - 0.5 + (total[-1] / 2 - before) / number[middle])

    def _lengths(self, which: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Distinct lengths, increasing, and how many bouts of these syllables have each."""
        key, number = self.bouts
        is_wanted = which[key >> _LENGTH_BITS]
        if is_wanted.any():
            key, number = key[is_wanted], number[is_wanted]
        length, entry = np.unique(key & ((1 << _LENGTH_BITS) - 1), return_inverse=True)
        return length, np.bincount(entry, number, minlength=len(length)).astype(np.int64)


class BoutBatch(NamedTuple):
    """Runs of one label within one session, in order.

    Attributes
    ----------
    session : ndarray, (bout,)
        Position in the chain's index.
    syllable : ndarray, (bout,)
        Never -1.
    length : ndarray, (bout,)
        In frames.
    previous : ndarray, (bout,)
        Syllable of the bout before it in the same session; -1 = none.
    """

    session: np.ndarray
    syllable: np.ndarray
    length: np.ndarray
    previous: np.ndarray


class Labelled(Protocol):
    """Labels of some sessions, laid end to end: a chain, or a view of one."""

    @property
    def index(self) -> ChainIndex:
        """Index of the sessions."""
        ...

    @property
    def syllable(self) -> Any:
        """(frame,) int16, read by slices."""
        ...


def iter_bouts(chain: Labelled, chunk_frames: int = _CHUNK_FRAMES) -> Iterator[BoutBatch]:
    """All bouts of a chain, some million frames at a time however long the sessions are."""
    first = chain.index.first
    opened = np.zeros((3, 0), np.int64)  # the last bout of a chunk may go on in the next
    before = (-1, -1)
    for start in range(0, chain.index.n_frames, chunk_frames):
        z = np.asarray(chain.syllable[start : start + chunk_frames])
        inside = first[np.searchsorted(first, start) : np.searchsorted(first, start + len(z))]
        begin = run_starts(z, inside - start)
        session = np.searchsorted(first, start + begin, side="right") - 1
        runs = np.stack([session, z[begin], np.diff(np.append(begin, len(z)))])
        if opened.size and (opened[:2, 0] == runs[:2, 0]).all():
            runs[2, 0] += opened[2, 0]
        else:
            runs = np.concatenate([opened, runs], 1)
        runs, opened = runs[:, :-1], runs[:, -1:]
        if runs.size:
            yield _with_previous(runs, before)
            before = (int(runs[0, -1]), int(runs[1, -1]))
    if opened.size:
        yield _with_previous(opened, before)


def _with_previous(runs: np.ndarray, before: tuple[int, int]) -> BoutBatch:
    session, syllable, length = runs
    is_same = session == np.append(before[0], session[:-1])
    previous = np.where(is_same, np.append(before[1], syllable[:-1]), -1)
    is_real = syllable >= 0
    return BoutBatch(session[is_real], syllable[is_real], length[is_real], previous[is_real])


def count_labels(chain: Labelled, n_states: int, fps_of_all: float | None = None) -> LabelCounts:
    """Count the labels of a chain.

    ``fps_of_all``: frame rate of the fastest video (default: of those in the chain).
    """
    fps = np.array([session.fps for session in chain.index.sessions])
    fastest = float(fps.max()) if fps_of_all is None else fps_of_all
    frames = np.zeros(n_states, np.int64)
    transitions = np.zeros((n_states, n_states), np.int64)
    bouts = Histogram(np.zeros(0, np.int64), np.zeros(0, np.int64))
    for part in iter_bouts(chain):
        np.add.at(frames, part.syllable, part.length)
        np.add.at(transitions, (part.syllable, part.syllable), part.length - 1)
        has_previous = part.previous >= 0
        np.add.at(transitions, (part.previous[has_previous], part.syllable[has_previous]), 1)
        ticks = np.rint(part.length * (fastest / fps[part.session])).astype(np.int64)
        bouts = bouts.add(Histogram.of_block(part.syllable << _LENGTH_BITS | ticks))
    return LabelCounts(frames, transitions, bouts, fastest)
