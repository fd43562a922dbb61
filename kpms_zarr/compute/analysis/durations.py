"""Durations of the bouts of a labelling, counted in blocks that cut bouts anywhere."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from kpms_zarr.compute.mapreduce import Histogram, weighted_median
from kpms_zarr.store.run_lengths import run_bounds

_LENGTH_BITS = 40


class BoutLengths(NamedTuple):
    """Lengths of the bouts of consecutive blocks; blocks add up in their order.

    Attributes
    ----------
    whole : Histogram
        Of the bouts whose ends are known: frame rate and length in one number.
    open : ndarray, (bout, 4) int64
        The first and the last run, which may go on in the block before or behind: session, number
        of the frame rate, label, length. One row where there is one run only.
    """

    whole: Histogram
    open: np.ndarray

    @classmethod
    def of_block(cls, label: np.ndarray, *, session: int, rate: int) -> BoutLengths:
        """Find the bouts of one block.

        Parameters
        ----------
        label : ndarray, (frame,) int
            At least one; -1 = none.
        session, rate : int
            Numbers of the session and of its frame rate.
        """
        start, stop = run_bounds(label)
        runs = np.empty((len(start), 4), np.int64)
        runs[:, 0], runs[:, 1] = session, rate
        runs[:, 2], runs[:, 3] = label[start], stop - start
        return cls(_histogram(runs[1:-1]), _ends(runs))

    def add(self, other: BoutLengths) -> BoutLengths:
        """Add the bouts of the blocks that follow."""
        left, right = self.open.copy(), other.open
        if (left[-1, :3] == right[0, :3]).all():
            left[-1, 3] += right[0, 3]
            right = right[1:]
        runs = np.concatenate([left, right])
        return BoutLengths(self.whole.add(other.whole).add(_histogram(runs[1:-1])), _ends(runs))

    def median(self, fps: Sequence[float]) -> float:
        """Median duration of all bouts in ms, the open ones included; NaN without bouts.

        Parameters
        ----------
        fps : sequence of float
            Frames per second, by number of the frame rate.
        """
        every = self.whole.add(_histogram(self.open))
        milliseconds = 1000 / np.asarray(fps, dtype=np.float64)
        length = every.key & ((1 << _LENGTH_BITS) - 1)
        return weighted_median(length * milliseconds[every.key >> _LENGTH_BITS], every.number)


def _ends(runs: np.ndarray) -> np.ndarray:
    return runs if len(runs) == 1 else runs[[0, -1]]


def _histogram(runs: np.ndarray) -> Histogram:
    runs = runs[runs[:, 2] >= 0]
    return Histogram.of_block((runs[:, 1] << _LENGTH_BITS) | runs[:, 3])
