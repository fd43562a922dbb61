"""Fingerprints of units: usage, speed and turning of every syllable, for a heat map."""

from __future__ import annotations

import numpy as np
import xarray as xr

from kpms_zarr.compute.analysis.groups.statistics import STATISTICS, values_of
from kpms_zarr.compute.analysis.groups.units import Units

SHOWN = ("frequency", "speed", "turning", "absolute_turning")


def fingerprints(units: Units, states: np.ndarray) -> xr.Dataset:
    """What each unit does, syllable by syllable: units of one group stand together.

    Parameters
    ----------
    units : Units
    states : ndarray, (state,) int
        Syllables that are shown.

    Returns
    -------
    xarray.Dataset, (statistic, unit, state)
        ``value``, in the units of the statistic, and ``standardised``: minus the mean over all
        units, over their standard deviation; NaN = none. Coordinates ``unit`` and ``group`` of
        units. Statistics that the table has not are left out.
    """
    pooled = units.pooled
    names = [name for name in SHOWN if STATISTICS[name].needs in pooled]
    places = np.flatnonzero(np.isin(pooled["state"].values, states))
    order = np.lexsort((np.arange(len(units.group)), units.group))
    value = np.stack([values_of(pooled, name)[places][:, order].T for name in names])
    known = np.isfinite(value)
    n = np.maximum(known.sum(1, keepdims=True), 1)
    mean = np.where(known, value, 0).sum(1, keepdims=True) / n
    spread = np.sqrt(np.where(known, (value - mean) ** 2, 0).sum(1, keepdims=True) / n)
    standardised = np.where(spread > 0, (value - mean) / np.where(spread > 0, spread, 1), 0.0)
    dims = ("statistic", "unit", "state")
    return xr.Dataset(
        {
            "value": (dims, value),
            "standardised": (dims, np.where(known, standardised, np.nan)),
        },
        {
            "statistic": np.asarray(names, dtype=object),
            "unit": np.asarray([units.names[i] for i in order], dtype=object),
            "group": ("unit", np.asarray([units.groups[units.group[i]] for i in order], object)),
            "state": pooled["state"].values[places],
        },
    )
