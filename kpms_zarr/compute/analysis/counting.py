"""Counts of labellings, and of how each two of them coincide, in one pass over blocks of frames."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import combinations
from typing import NamedTuple

import numpy as np

from kpms_zarr.compute.analysis.agreement import contingency
from kpms_zarr.compute.analysis.boundaries import Changes, count_changes
from kpms_zarr.compute.analysis.durations import BoutLengths
from kpms_zarr.compute.analysis.shared import BLOCK_FRAMES, Labelling, Shared, Stretch, stretches
from kpms_zarr.compute.mapreduce import map_reduce

N_BINS = 10
"""Bins of certainty, equally wide from 0 to 1."""


class Overlap(NamedTuple):
    """Frames that two labellings have both, by their labels.

    Attributes
    ----------
    frames : ndarray, (syllable of a, syllable of b) int64
    alone : ndarray, (2,) int64
        Frames of the sessions of both that a alone labels, and b alone.
    by_certainty_a, by_certainty_b : ndarray, (certainty_bin, syllable of a, syllable of b) int64
        Those in which the certainty of a, or of b, is known.
    certainty_a, certainty_b : ndarray, (certainty_bin,) float64
        Sums of these certainties.
    changes : Changes
    """

    frames: np.ndarray
    alone: np.ndarray
    by_certainty_a: np.ndarray
    certainty_a: np.ndarray
    by_certainty_b: np.ndarray
    certainty_b: np.ndarray
    changes: Changes

    def add(self, other: Overlap) -> Overlap:
        """Add the frames of both."""
        return Overlap(
            _sum(self.frames, other.frames),
            _sum(self.alone, other.alone),
            _sum(self.by_certainty_a, other.by_certainty_a),
            _sum(self.certainty_a, other.certainty_a),
            _sum(self.by_certainty_b, other.by_certainty_b),
            _sum(self.certainty_b, other.certainty_b),
            self.changes.add(other.changes),
        )


class Usage(NamedTuple):
    """Frames that one labelling has.

    Attributes
    ----------
    frames : ndarray, (syllable,) int64
    bouts : BoutLengths or None
        None before the first block.
    certainty : float
        Sum over the frames in which it is known.
    n_certain : int
        These frames.
    """

    frames: np.ndarray
    bouts: BoutLengths | None
    certainty: float
    n_certain: int

    def add(self, other: Usage) -> Usage:
        """Add the frames of the blocks that follow."""
        bouts = self.bouts or other.bouts
        if self.bouts and other.bouts:
            bouts = self.bouts.add(other.bouts)
        return Usage(
            _sum(self.frames, other.frames),
            bouts,
            self.certainty + other.certainty,
            self.n_certain + other.n_certain,
        )


class Counts(NamedTuple):
    """Counts of some labellings.

    Attributes
    ----------
    usage : tuple of Usage
        Of each labelling, over all frames that it labels.
    overlaps : tuple of Overlap
        Of each two, in the order of ``itertools.combinations``.
    """

    usage: tuple[Usage, ...]
    overlaps: tuple[Overlap, ...]

    def add(self, other: Counts) -> Counts:
        """Add the counts of the blocks that follow."""
        return Counts(
            tuple(one.add(two) for one, two in zip(self.usage, other.usage, strict=True)),
            tuple(one.add(two) for one, two in zip(self.overlaps, other.overlaps, strict=True)),
        )


def count(
    labellings: Sequence[Labelling],
    sessions: Sequence[Shared],
    *,
    tolerance: int,
    block_frames: int = BLOCK_FRAMES,
) -> Counts:
    """Count labels and how they coincide; the result does not depend on the blocks.

    Parameters
    ----------
    labellings : sequence of Labelling
    sessions : sequence of Shared
        At least one.
    tolerance : int
        Frames between two changes of label that count as one.
    block_frames : int
        Frames that are worked on at once.
    """
    counter = _Counter(tuple(labellings), tolerance)
    return map_reduce(counter, stretches(sessions, block_frames), Counts.add)


class _Read(NamedTuple):
    """What is read of a labelling: labels with the margins of the block, certainties without."""

    wide: np.ndarray
    syllable: np.ndarray
    certainty: np.ndarray | None


@dataclass(frozen=True)
class _Counter:
    """Counts one stretch."""

    labellings: tuple[Labelling, ...]
    tolerance: int

    def __call__(self, stretch: Stretch) -> Counts:
        first = max(0, stretch.start - self.tolerance - 1)
        last = min(stretch.session.n_frames, stretch.stop + self.tolerance)
        inner = slice(stretch.start - first, stretch.stop - first)
        read: list[_Read | None] = []
        for labels, row in zip(self.labellings, stretch.session.rows, strict=True):
            if row < 0:
                read.append(None)
                continue
            wide = labels.syllable(row, first, last)
            certainty = labels.certainty(row, stretch.start, stretch.stop)
            read.append(_Read(wide, wide[inner], certainty))
        return Counts(
            tuple(_usage(one, stretch.session) for one in read),
            tuple(self._overlap(a, b, inner) for a, b in combinations(read, 2)),
        )

    def _overlap(self, a: _Read | None, b: _Read | None, inner: slice) -> Overlap:
        if a is None or b is None:
            return _NOTHING
        return Overlap(
            contingency(a.syllable, b.syllable),
            _alone(a.syllable >= 0, b.syllable >= 0),
            *_by_certainty(a.certainty, a.syllable, b.syllable),
            *_by_certainty(b.certainty, a.syllable, b.syllable),
            count_changes(
                a.wide, b.wide, start=inner.start, stop=inner.stop, tolerance=self.tolerance
            ),
        )


_NOTHING = Overlap(
    np.zeros((0, 0), np.int64),
    np.zeros(2, np.int64),
    np.zeros((N_BINS, 0, 0), np.int64),
    np.zeros(N_BINS),
    np.zeros((N_BINS, 0, 0), np.int64),
    np.zeros(N_BINS),
    Changes(0, 0, 0, 0, 0, 0, 0),
)


def _alone(has_a: np.ndarray, has_b: np.ndarray) -> np.ndarray:
    return np.array([np.count_nonzero(has_a & ~has_b), np.count_nonzero(has_b & ~has_a)])


def _usage(read: _Read | None, session: Shared) -> Usage:
    if read is None:
        return Usage(np.zeros(0, np.int64), None, 0.0, 0)
    labelled = read.syllable >= 0
    bouts = BoutLengths.of_block(read.syllable, session=session.number, rate=session.rate)
    certainty = np.zeros(0) if read.certainty is None else read.certainty[labelled]
    certainty = certainty[np.isfinite(certainty)].astype(np.float64)
    frames = np.bincount(read.syllable[labelled].astype(np.int64)).astype(np.int64)
    return Usage(frames, bouts, float(certainty.sum()), certainty.size)


def _by_certainty(
    certainty: np.ndarray | None, a: np.ndarray, b: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """Count frames by bin of certainty and by pair of labels, and sum the certainties up by bin."""
    if certainty is None:
        return _NOTHING.by_certainty_a, _NOTHING.certainty_a
    is_known = (a >= 0) & (b >= 0) & np.isfinite(certainty)
    value = certainty[is_known].astype(np.float64)
    place = np.clip((value * N_BINS).astype(np.int64), 0, N_BINS - 1)
    a, b = a[is_known].astype(np.int64), b[is_known].astype(np.int64)
    shape = (N_BINS, int(a.max(initial=-1)) + 1, int(b.max(initial=-1)) + 1)
    cell = (place * shape[1] + a) * shape[2] + b
    frames = np.bincount(cell, minlength=shape[0] * shape[1] * shape[2]).reshape(shape)
    return frames, np.bincount(place, weights=value, minlength=N_BINS)


def _sum(one: np.ndarray, two: np.ndarray) -> np.ndarray:
    """Add tables of which each has room for the syllables that it met."""
    if one.shape == two.shape:
        return one + two
    total = np.zeros(np.maximum(one.shape, two.shape), one.dtype)
    for table in (one, two):
        total[tuple(slice(n) for n in table.shape)] += table
    return total
