"""Intervals between events, counted in blocks that cut sessions anywhere."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from kpms_zarr.compute.mapreduce import Histogram


@dataclass(frozen=True)
class Intervals:
    """Intervals between change points of consecutive blocks; blocks add up in their order.

    Attributes
    ----------
    number : Histogram
        Of whole intervals: row of the session and frames in one number.
    ends : ndarray, (block, 4) int64
        Row of the session, first and last change point (-1 = none), number of change points.
    """

    number: Histogram
    ends: np.ndarray

    _BITS: ClassVar[int] = 40

    @classmethod
    def of_block(cls, row: int, frames: np.ndarray) -> Intervals:
        """Intervals between the change points of a block, given as frames of its session."""
        ends = [row, *(frames[[0, -1]] if len(frames) else (-1, -1)), len(frames)]
        key = (row << cls._BITS) | np.diff(frames).astype(np.int64)
        return cls(Histogram.of_block(key), np.array([ends], np.int64))

    def plus(self, other: Intervals) -> Intervals:
        """Add the intervals of the blocks that follow, and the one in between."""
        left, right = self.ends[-1], other.ends[0]
        number = self.number.add(other.number)
        if left[0] != right[0]:
            return Intervals(number, np.concatenate([self.ends, other.ends]))
        if left[2] >= 0 and right[1] >= 0:
            key = np.array([(left[0] << self._BITS) | (right[1] - left[2])])
            number = number.add(Histogram.of_block(key))
        first = left[1] if left[1] >= 0 else right[1]
        last = right[2] if right[2] >= 0 else left[2]
        both = np.array([[left[0], first, last, left[3] + right[3]]], np.int64)
        return Intervals(number, np.concatenate([self.ends[:-1], both, other.ends[1:]]))

    @property
    def row(self) -> np.ndarray:
        """Row of the session of each distinct interval."""
        return self.number.key >> self._BITS

    @property
    def frames(self) -> np.ndarray:
        """Frames of each distinct interval."""
        return self.number.key & ((1 << self._BITS) - 1)
