"""Patterns: the labels that several labellings give a frame, with how many frames have them."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

from kpms_zarr.compute.analysis.shared import (
    BLOCK_FRAMES,
    Labelling,
    Shared,
    Stretch,
    stretches,
)
from kpms_zarr.compute.mapreduce import map_reduce

MOST_PATTERNS = 1_000_000
"""Patterns that are held; beyond them the rarest half is dropped."""


class Patterns(NamedTuple):
    """Distinct combinations of labels.

    Attributes
    ----------
    label : ndarray, (pattern, labelling) int16
        -1 = none.
    n_frames : ndarray, (pattern,) int64
    usage : tuple of ndarray, (syllable,) int64
        Frames of each syllable of each labelling, those of dropped patterns included.
    n_dropped : int
        Frames of patterns that were too many to hold.
    """

    label: np.ndarray
    n_frames: np.ndarray
    usage: tuple[np.ndarray, ...]
    n_dropped: int = 0

    @classmethod
    def of(cls, label: np.ndarray) -> Patterns:
        """Count the patterns of some frames; ``label``: (frame, labelling) int."""
        narrow = np.ascontiguousarray(label, dtype=np.int16)
        row = np.dtype((np.void, narrow.dtype.itemsize * narrow.shape[1]))
        distinct, number = np.unique(narrow.view(row).reshape(-1), return_counts=True)
        usage = [np.bincount(z[z >= 0].astype(np.int64)) for z in narrow.T]
        found = distinct.view(np.int16).reshape(-1, narrow.shape[1])
        return cls(found, number.astype(np.int64), tuple(usage))

    def only(self, labellings: np.ndarray) -> Patterns:
        """Patterns of some of the labellings; equal ones may occur several times."""
        usage = tuple(self.usage[place] for place in labellings)
        return Patterns(self.label[:, labellings], self.n_frames, usage, self.n_dropped)

    def add(self, other: Patterns) -> Patterns:
        """Add the frames of both."""
        every = np.concatenate([self.label, other.label])
        number = np.concatenate([self.n_frames, other.n_frames])
        row = np.dtype((np.void, 2 * every.shape[1]))
        packed = np.ascontiguousarray(every).view(row).reshape(-1)
        distinct, place = np.unique(packed, return_inverse=True)
        total = np.bincount(place, weights=number, minlength=len(distinct)).astype(np.int64)
        label = distinct.view(np.int16).reshape(-1, every.shape[1])
        n_dropped = self.n_dropped + other.n_dropped
        if len(total) > MOST_PATTERNS:
            kept = np.sort(np.argsort(-total, kind="stable")[: MOST_PATTERNS // 2])
            n_dropped += int(total.sum() - total[kept].sum())
            label, total = label[kept], total[kept]
        usage = tuple(_sum(a, b) for a, b in zip(self.usage, other.usage, strict=True))
        return Patterns(label, total, usage, n_dropped)


def patterns_of(labellings: Sequence[Labelling], sessions: Sequence[Shared]) -> Patterns:
    """Count the patterns of some sessions in one pass, block by block.

    Parameters
    ----------
    labellings : sequence of Labelling
    sessions : sequence of Shared
        At least one. A labelling that lacks a session has no label there.
    """
    return map_reduce(_Finder(tuple(labellings)), stretches(sessions), Patterns.add)


def labels_of(labellings: Sequence[Labelling], stretch: Stretch) -> np.ndarray:
    """Labels of a block in all labellings: (frame, labelling) int16; -1 = none."""
    found = np.full((stretch.stop - stretch.start, len(labellings)), -1, np.int16)
    for column, (labels, row) in enumerate(zip(labellings, stretch.session.rows, strict=True)):
        if row >= 0:
            found[:, column] = labels.syllable(row, stretch.start, stretch.stop)
    return found


def patterns_of_blocks(blocks: Iterable[np.ndarray]) -> Patterns:
    """Count the patterns of labels that lie in this process, block by block.

    Parameters
    ----------
    blocks : iterable of ndarray, (frame, labelling) int
        At least one.
    """
    total, some, n = None, [], 0
    for block in blocks:
        some.append(block)
        n += len(block)
        if n >= BLOCK_FRAMES:
            found = Patterns.of(np.concatenate(some))
            total, some, n = found if total is None else total.add(found), [], 0
    if some:
        found = Patterns.of(np.concatenate(some))
        total = found if total is None else total.add(found)
    if total is None:
        raise ValueError("no blocks")
    return total


@dataclass(frozen=True)
class _Finder:
    labellings: tuple[Labelling, ...]

    def __call__(self, stretch: Stretch) -> Patterns:
        return Patterns.of(labels_of(self.labellings, stretch))


def _sum(one: np.ndarray, two: np.ndarray) -> np.ndarray:
    total = np.zeros(max(len(one), len(two)), np.int64)
    total[: len(one)] += one
    total[: len(two)] += two
    return total
