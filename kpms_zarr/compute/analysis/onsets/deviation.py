"""Whether the average around onsets leaves what shifted onsets give."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

SHARES = (0.025, 0.975)
"""Quantiles of the baseline."""
LEVEL = 0.95
"""Share of the shifts whose curve stays within the limits at all times."""
_SAME = 1e-9
"""Relative difference of deviations that are the same but for rounding."""


class Deviation(NamedTuple):
    """Test of one curve.

    Attributes
    ----------
    mean, sd : ndarray, (time,)
        Of the shifted curves.
    quantile : ndarray, (quantile, time)
    largest : float
        Largest deviation over all times, in standard deviations.
    at : int
        Number of its time; -1 = none.
    limit : float
        Largest deviation that the share :data:`LEVEL` of the shifted curves does not exceed.
    p : float
    """

    mean: np.ndarray
    sd: np.ndarray
    quantile: np.ndarray
    largest: float
    at: int
    limit: float
    p: float


def deviation(observed: np.ndarray, shifted: np.ndarray) -> Deviation:
    """Compare a curve with those of shifted onsets by its largest deviation over all times.

    The deviation at a time is the distance from the mean of all curves, in their standard
    deviations, the observed curve among them: each is treated like every other. The largest over
    the times is compared with that of each shifted curve (Westfall and Young 1993,
    *Resampling-Based Multiple Testing*), p = (1 + b) / (1 + n), b of the n as large or larger
    (Phipson and Smyth 2010, Stat Appl Genet Mol Biol 9:39).

    Parameters
    ----------
    observed : ndarray, (time,)
        NaN = not known.
    shifted : ndarray, (time, shift)
        NaN = not known.
    """
    is_known = np.isfinite(observed) & np.isfinite(shifted).all(1)
    empty = np.full(len(observed), np.nan)
    if not is_known.any() or not shifted.shape[1]:
        none = np.full((len(SHARES), len(observed)), np.nan)
        return Deviation(empty, empty.copy(), none, np.nan, -1, np.nan, np.nan)
    every = np.concatenate([observed[is_known, None], shifted[is_known]], axis=1)
    middle = every.mean(1, keepdims=True)
    spread = every.std(1, keepdims=True)
    size = np.abs(every).max()
    with np.errstate(divide="ignore", invalid="ignore"):
        away = np.where(spread > 1e-12 * size, np.abs(every - middle) / spread, 0.0)
    largest = away.max(0)
    n_as_large = int((largest[1:] >= largest[0] * (1 - _SAME)).sum())
    mean, sd = empty, empty.copy()
    mean[is_known], sd[is_known] = shifted[is_known].mean(1), shifted[is_known].std(1)
    quantile = np.full((len(SHARES), len(observed)), np.nan)
    quantile[:, is_known] = np.quantile(shifted[is_known], SHARES, axis=1)
    at = int(np.flatnonzero(is_known)[away[:, 0].argmax()])
    limit = float(np.quantile(largest[1:], LEVEL))
    p = (1 + n_as_large) / (1 + shifted.shape[1])
    return Deviation(mean, sd, quantile, float(largest[0]), at, limit, p)
