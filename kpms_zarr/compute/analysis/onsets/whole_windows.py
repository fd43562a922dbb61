"""Bouts with all frames of a window around their onset, found block by block."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from kpms_zarr.compute.analysis.tables.bout_stream import EpochBouts


class Onsets(NamedTuple):
    """Bouts of one session by their onsets, in order.

    Attributes
    ----------
    syllable, start, stop : ndarray, (bout,) int64
        ``start`` is the frame of the onset, ``stop`` the one after the bout.
    """

    syllable: np.ndarray
    start: np.ndarray
    stop: np.ndarray


class WholeWindows:
    """Finds the bouts whose window lies within one stretch of labelled frames of one epoch.

    A window is the frames from ``before`` the onset to ``after`` it. It crosses no end of a
    session or of an interval of an epoch, and holds no frame without a label. A bout at the
    beginning of a stretch is none: it may have begun before.

    Parameters
    ----------
    before, after : int
        In frames, 0 or more.
    """

    def __init__(self, before: int, after: int) -> None:
        self._before, self._after = before, after
        self._stretch_start = 0
        self._waiting = Onsets(*(np.zeros(0, np.int64) for _ in range(3)))

    def add(self, bouts: EpochBouts) -> Onsets:
        """Add bouts in order; returns those of which it is certain now.

        What waits for the end of its window is no more than the bouts of one window.
        """
        is_first = bouts.previous < 0
        # The first bout of the stretch that each belongs to; -1 = begun in an earlier block.
        number = np.arange(len(bouts.start))
        first = np.maximum.accumulate(np.where(is_first, number, -1))
        since = np.where(first >= 0, bouts.start[first], self._stretch_start)
        has_room = ~is_first & (bouts.start - self._before >= since)
        stretch = np.concatenate([np.zeros(len(self._waiting.start), np.int64), is_first.cumsum()])
        n_stretches = int(stretch[-1]) + 1 if len(stretch) else 1
        end = np.zeros(n_stretches, np.int64)
        every = Onsets(
            *(
                np.concatenate(pair)
                for pair in zip(
                    self._waiting, (bouts.syllable, bouts.start, bouts.stop), strict=True
                )
            )
        )
        np.maximum.at(end, stretch, every.stop)
        is_open = np.zeros(n_stretches, bool)
        is_open[-1] = not len(bouts.start) or bouts.following[-1] >= 0
        candidate = np.concatenate([np.ones(len(self._waiting.start), bool), has_room])
        is_whole = candidate & (every.start + self._after < end[stretch])
        waits = candidate & ~is_whole & is_open[stretch]
        self._waiting = Onsets(*(part[waits] for part in every))
        if len(bouts.start):
            self._stretch_start = int(since[-1])
        return Onsets(*(part[is_whole] for part in every))
