"""Sums of a signal around onsets, as they are and with the onsets shifted in a circle.

For all lags and all shifts at once they are one circular correlation of the onsets with the signal,
by FFT: what windows add that would reach over the ends of the stretch is taken off again, so that
sums of shifted onsets are of whole windows alone, as those of the onsets as they are.
"""

from __future__ import annotations

import numpy as np
from scipy import fft

_AT_ONCE = 1 << 20
"""Numbers of one step."""


def onset_sums(
    values: np.ndarray, onset: np.ndarray, item: np.ndarray, n_items: int, before: int, after: int
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Sum a signal around onsets.

    Parameters
    ----------
    values : ndarray, (frame,)
        NaN = missing.
    onset : ndarray, (onset,) int64
        Whose windows lie in the frames.
    item : ndarray, (onset,) int64
        Number of the syllable of each.
    n_items, before, after : int
        Syllables; frames of the window before and after the onset.

    Returns
    -------
    total, square : ndarray, (item, lag) float64
        Sums of the values that are there, and of their squares.
    number : ndarray, (item, lag) int64
    """
    lags = np.arange(-before, after + 1)
    total, square = (np.zeros((n_items, len(lags))) for _ in range(2))
    number = np.zeros((n_items, len(lags)), np.int64)
    for place, lag in enumerate(lags.tolist()):
        found = values[onset + lag]
        is_there = np.isfinite(found)
        found, of = found[is_there], item[is_there]
        total[:, place] = np.bincount(of, found, n_items)
        square[:, place] = np.bincount(of, found**2, n_items)
        number[:, place] = np.bincount(of, minlength=n_items)
    return total, square, number


class CircularSums:
    """Sums of a signal around onsets that are shifted in a circle within a stretch.

    Parameters
    ----------
    values : ndarray, (frame,)
        NaN = missing.
    before, after : int
        Frames of the window before and after an onset.
    """

    def __init__(self, values: np.ndarray, before: int, after: int) -> None:
        is_there = np.isfinite(values)
        self._n, self._before, self._after = len(values), before, after
        # Sums of differences from the mean lose fewer digits.
        self._middle = float(values[is_there].mean()) if is_there.any() else 0.0
        self._centred = np.where(is_there, values - self._middle, 0.0)
        self._there = is_there.astype(np.float64)
        self._is_whole = bool(is_there.all())
        self._spectrum = fft.rfft(self._centred)
        self._of_there = None if self._is_whole else fft.rfft(self._there)

    def sums(self, onset: np.ndarray, shift: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Sum the signal around shifted onsets.

        Parameters
        ----------
        onset : ndarray, (onset,) int64
            Ascending, from 0 to before the number of frames.
        shift : ndarray, (shift,) int64
            Frames by which all onsets move; what moves over the end comes in at the beginning.

        Returns
        -------
        total, number : ndarray, (lag, shift) float64
            Sums of the values that are there in whole windows, and their numbers.
        """
        train = fft.rfft(np.bincount(onset, minlength=self._n).astype(np.float64))
        lags = np.arange(-self._before, self._after + 1)
        place = (lags[:, None] + shift) % self._n
        total = self._correlated(train, self._spectrum)[place]
        if self._of_there is None:
            number = np.full(place.shape, float(len(onset)))
        else:
            number = np.rint(self._correlated(train, self._of_there)[place])
        self._take_off(onset, shift, lags, total, number)
        return total + self._middle * number, number

    def _correlated(self, train: np.ndarray, spectrum: np.ndarray) -> np.ndarray:
        """Sums of the signal at the onsets plus each number of frames, (frame,)."""
        return np.asarray(fft.irfft(np.conj(train) * spectrum, self._n))

    def _take_off(
        self,
        onset: np.ndarray,
        shift: np.ndarray,
        lags: np.ndarray,
        total: np.ndarray,
        number: np.ndarray,
    ) -> None:
        """Take off what windows add that reach over the ends."""
        n, width = self._n, self._before + self._after
        twice = np.concatenate([onset, onset + n])
        # Onsets that are moved to one of the last ``after`` or the first ``before`` frames.
        start = (n - self._after - shift) % n
        low = np.searchsorted(twice, start)
        count = np.searchsorted(twice, start + width) - low
        step = max(1, int(_AT_ONCE // max(1, len(lags) * max(1, count.max(initial=0)))))
        for first in range(0, len(shift), step):
            part = slice(first, first + step)
            of = np.repeat(np.arange(len(count[part])), count[part])
            if not len(of):
                continue
            within = np.arange(len(of)) - np.repeat(count[part].cumsum() - count[part], count[part])
            moved = twice[low[part][of] + within] + shift[part][of]
            place = (moved + lags[:, None]) % n
            for sums, values in ((total, self._centred), (number, self._there)):
                for row, added in zip(sums[:, part], values[place], strict=True):
                    row -= np.bincount(of, added, len(count[part]))
