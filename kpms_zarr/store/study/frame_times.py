"""Samples with times of their own brought to the times of frames."""

from __future__ import annotations

import numpy as np

from kpms_zarr.store.study.timestamps import SessionTimes

_SLACK = 0.01
"""Of a frame by which a sample may miss the time of a frame: times are rounded in files."""


class FrameAligner:
    """Brings the samples of a session to its frames, piece after piece.

    Where there are on average two samples or more in a
    frame, its value is the mean of those within half a frame of it, so that what is faster than
    the frames does not come back as something slower; else it is interpolated linearly between the
    sample before and the one behind, unless these are further apart than ``max_gap``. Samples that
    are no numbers are left out. Frames that nothing is known of are NaN.

    Parameters
    ----------
    times : SessionTimes
        Of the frames: their timestamps, or k / fps.
    n_columns : int
        Values of each sample.
    start : float, optional
        Time of the first frame on the clock of the samples, in s (default: its timestamp, as both
        are on the clock of the recording then; 0 without timestamps).
    max_gap : float
        In s.
    """

    def __init__(
        self,
        times: SessionTimes,
        n_columns: int,
        *,
        start: float | None = None,
        max_gap: float = 1.0,
    ) -> None:
        n_frames = self._n = times.n_frames
        at = times.at(0, n_frames)
        shift = 0.0 if start is None else start - at[0]
        self._at, self._max_gap = at + shift, max_gap
        # Lost frames and pauses do not make the others longer.
        interval = float(np.median(np.diff(at))) if n_frames > 1 else 1 / times.fps
        self._interval, self._slack = interval, _SLACK * interval
        between = self._at[:-1] + np.diff(self._at) / 2
        ends = self._at[0] - interval / 2, self._at[-1] + interval / 2
        self._edges = np.concatenate([ends[:1], between, ends[1:]])
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
        time = np.asarray(time, np.float64)
        for column, found in enumerate(np.asarray(values, np.float64).T):
            is_there = np.isfinite(found)
            if is_there.any():
                self._add(column, time[is_there], found[is_there])

    def _add(self, column: int, at: np.ndarray, found: np.ndarray) -> None:
        if not self._samples[column]:
            self._first[column] = at[0]
        self._samples[column] += len(at)
        nearest = np.searchsorted(self._edges, at, side="right") - 1
        is_in = (nearest >= 0) & (nearest < self._n)
        away = np.abs(at - self._at[np.clip(nearest, 0, self._n - 1)])
        is_in &= away <= self._interval / 2 * (1 + 1e-9)
        place = nearest[is_in]
        self._total[column] += np.bincount(place, found[is_in], self._n)
        self._number[column] += np.bincount(place, minlength=self._n)
        before = self._last[column]
        if before is not None:
            at, found = np.append(before[0], at), np.append(before[1], found)
        self._last[column] = (float(at[-1]), float(found[-1]))
        low = np.searchsorted(self._at, at[0] - self._slack)
        frames = slice(low, np.searchsorted(self._at, at[-1] + self._slack, side="right"))
        moment = self._at[frames]
        right = np.clip(np.searchsorted(at, moment), 1, max(1, len(at) - 1))
        left = right - 1
        right = np.minimum(right, len(at) - 1)
        is_near = (at[right] - at[left]) <= self._max_gap + self._slack
        value = np.where(is_near, np.interp(moment, at, found), np.nan)
        for side in (left, right):
            is_same = np.abs(at[side] - moment) <= self._slack
            value = np.where(is_same & np.isnan(value), found[side], value)
        self._between[column, frames] = value

    def is_mean(self, column: int) -> bool:
        """Whether there are two samples or more in a frame, on average."""
        last = self._last[column]
        if last is None or self._samples[column] < 2:
            return False
        length = (last[0] - self._first[column]) / self._interval
        return bool(self._samples[column] - 1 >= 2 * length * (1 - 1e-9))

    def values(self, column: int) -> np.ndarray:
        """Values of a column at the frames, (frame,) float64."""
        if not self.is_mean(column):
            return self._between[column]
        with np.errstate(invalid="ignore"):
            return np.asarray(self._total[column] / self._number[column])
