"""Samples with times of their own brought to the times of frames."""

from __future__ import annotations

import numpy as np

_SLACK = 0.01
"""Of a frame by which a sample may miss the time of a frame: times are rounded in files."""


class FrameAligner:
    """Brings the samples of a session to its frames, piece after piece.

    Frame k is at k / fps after the first. Where there are on average two samples or more in a
    frame, its value is the mean of those within half a frame of it, so that what is faster than
    the frames does not come back as something slower; else it is interpolated linearly between the
    sample before and the one behind, unless these are further apart than ``max_gap``. Samples that
    are no numbers are left out. Frames that nothing is known of are NaN.

    Parameters
    ----------
    n_frames : int
    fps : float
        Frames per second.
    n_columns : int
        Values of each sample.
    start : float
        Time of the first frame on the clock of the samples, in s.
    max_gap : float
        In s.
    """

    def __init__(
        self, n_frames: int, fps: float, n_columns: int, *, start: float = 0.0, max_gap: float = 1.0
    ) -> None:
        self._n, self._fps, self._start, self._max_gap = n_frames, fps, start, max_gap
        self._total, self._number = (np.zeros((n_columns, n_frames)) for _ in range(2))
        self._between = np.full((n_columns, n_frames), np.nan)
        self._last: list[tuple[float, float] | None] = [None] * n_columns
        self._first = np.full(n_columns, np.nan)
        self._samples = np.zeros(n_columns, np.int64)

    def add(self, time: np.ndarray, values: np.ndarray) -> None:
        """Add samples behind those before.

        Parameters
        ----------
        time : ndarray, (sample,)
            In s, none before another one that came earlier.
        values : ndarray, (sample, column)
        """
        frame = (np.asarray(time, np.float64) - self._start) * self._fps
        for column, found in enumerate(np.asarray(values, np.float64).T):
            is_there = np.isfinite(found)
            if is_there.any():
                self._add(column, frame[is_there], found[is_there])

    def _add(self, column: int, at: np.ndarray, found: np.ndarray) -> None:
        if not self._samples[column]:
            self._first[column] = at[0]
        self._samples[column] += len(at)
        nearest = np.floor(at + 0.5)
        is_in = (nearest >= 0) & (nearest < self._n)
        place = nearest[is_in].astype(np.int64)
        self._total[column] += np.bincount(place, found[is_in], self._n)
        self._number[column] += np.bincount(place, minlength=self._n)
        before = self._last[column]
        if before is not None:
            at, found = np.append(before[0], at), np.append(before[1], found)
        self._last[column] = (float(at[-1]), float(found[-1]))
        low, high = np.ceil(at[0] - _SLACK), np.floor(at[-1] + _SLACK)
        frames = np.arange(max(0, int(low)), min(self._n - 1, int(high)) + 1)
        right = np.clip(np.searchsorted(at, frames), 1, max(1, len(at) - 1))
        left = right - 1
        right = np.minimum(right, len(at) - 1)
        is_near = (at[right] - at[left]) <= self._max_gap * self._fps + _SLACK
        value = np.where(is_near, np.interp(frames, at, found), np.nan)
        for side in (left, right):
            is_same = np.abs(at[side] - frames) <= _SLACK
            value = np.where(is_same & np.isnan(value), found[side], value)
        self._between[column, frames] = value

    def is_mean(self, column: int) -> bool:
        """Whether there are two samples or more in a frame, on average."""
        last = self._last[column]
        if last is None or self._samples[column] < 2:
            return False
        length = last[0] - self._first[column]
        return bool(self._samples[column] - 1 >= 2 * length * (1 - 1e-9))

    def values(self, column: int) -> np.ndarray:
        """Values of a column at the frames, (frame,) float64."""
        if not self.is_mean(column):
            return self._between[column]
        with np.errstate(invalid="ignore"):
            return np.asarray(self._total[column] / self._number[column])
