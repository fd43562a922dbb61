"""What is compared of each syllable: one value for every unit."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import xarray as xr

from kpms_zarr.compute.analysis.groups.units import Units
from kpms_zarr.store.errors import InputError, Problem


class Statistic(NamedTuple):
    """A statistic of a syllable in a unit.

    Attributes
    ----------
    words, unit : str
    needs : str
        Variable of the table.
    """

    words: str
    unit: str
    needs: str


STATISTICS = {
    "frequency": Statistic("share of the labelled frames", "1", "n_frames"),
    "bouts": Statistic("share of the bouts", "1", "n_bouts"),
    "duration": Statistic("mean duration of the bouts", "ms", "mean_duration"),
    "median_duration": Statistic("median duration of the bouts", "ms", "median_duration"),
    "speed": Statistic("mean speed", "units/s", "mean_speed"),
    "turning": Statistic("mean change of heading, with its sign", "rad/s", "mean_turning"),
    "absolute_turning": Statistic(
        "mean amount of the change of heading", "rad/s", "mean_absolute_turning"
    ),
}
"""By name; means are over all frames or bouts of a unit."""


def check_statistics(names: Sequence[str]) -> tuple[str, ...]:
    """Names of statistics, each once.

    Raises
    ------
    InputError
        For others, or none.
    """
    names = (names,) if isinstance(names, str) else tuple(names)
    unknown = [name for name in names if name not in STATISTICS]
    if unknown or not names:
        raise InputError(
            expected=f"some of {', '.join(STATISTICS)}",
            found=", ".join(map(repr, unknown)) or "none",
            where="`statistic=`",
            fix="name some of these",
        )
    return tuple(dict.fromkeys(names))


def values_of(pooled: xr.Dataset, statistic: str) -> np.ndarray:
    """Value of a statistic for each syllable and unit.

    Parameters
    ----------
    pooled : xarray.Dataset, (unit, state)
        As ``units_of`` makes it.
    statistic : str

    Returns
    -------
    ndarray, (state, unit) float64
        NaN where there is none, as the duration of a syllable that does not occur.

    Raises
    ------
    InputError
        When the table has it not, or for medians of several rows.
    """
    if statistic in ("frequency", "bouts"):
        number = pooled[STATISTICS[statistic].needs].values
        total = number.sum(1, keepdims=True)
        return np.where(total > 0, number / np.where(total > 0, total, 1), np.nan).T
    needed = STATISTICS[statistic].needs
    if needed in pooled:
        return np.asarray(pooled[needed].values.T, dtype=np.float64)
    pools = statistic == "median_duration"
    raise InputError.of(
        [
            Problem(
                "one row of the table for each unit" if pools else f"a table with {needed}",
                "several: their medians cannot be pooled" if pools else "none",
                f"`statistic={statistic!r}`",
                "compare the mean, `statistic='duration'`" if pools else "leave it out",
            )
        ]
    )


def group_means(values: np.ndarray, units: Units) -> np.ndarray:
    """Mean over units of each group, of those that have a value: (item, group), NaN = none."""
    known = np.isfinite(values)
    member = (units.group[:, None] == np.arange(len(units.groups))).astype(np.float64)
    n = known @ member
    return np.where(n > 0, np.where(known, values, 0) @ member / np.maximum(n, 1), np.nan)
