"""Fingerprints of sessions or animals: a heat map of usage, speed and turning by syllable."""

from __future__ import annotations

import holoviews as hv
import numpy as np
import xarray as xr

from kpms_zarr.viz.groups.drawing import chosen
from kpms_zarr.viz.shared.style import frame, hover_tool, load, short

_REACH = 3.0
"""Standard deviations at the ends of the colours."""
_BETWEEN = " · "


def fingerprint_map(table: xr.Dataset, *, statistic: str = "frequency") -> hv.HeatMap:
    """Heat map of what each unit does, syllable by syllable; units of one group stand together.

    Parameters
    ----------
    table : xarray.Dataset, (statistic, unit, state)
        ``kpms_zarr.compare_groups(...).fingerprints``.
    statistic : str
        ``"frequency"``, ``"speed"``, ``"turning"`` or ``"absolute_turning"``, as far as it is
        there.

    Returns
    -------
    holoviews.HeatMap
        kdims syllable and unit (group and name); vdims standardised (minus the mean over all
        units, over their standard deviation) and value.

    Raises
    ------
    InputError
        When there is no such statistic.
    """
    load()
    one = chosen(table, statistic)
    whole = [
        f"{group}{_BETWEEN}{name}"
        for group, name in zip(one["group"].values, one["unit"].values, strict=True)
    ]
    units = [short(name, 28) for name in whole]
    units = units if len(set(units)) == len(units) else whole
    states = [str(state) for state in one["state"].values]
    row, column = (grid.ravel() for grid in np.indices(one["value"].shape))
    cells = (
        np.asarray(states, dtype=object)[column],
        np.asarray(units, dtype=object)[row],
        one["standardised"].values.ravel(),
        one["value"].values.ravel(),
    )
    heat = hv.HeatMap(cells, kdims=["syllable", "unit"], vdims=["standardised", "value"])
    hover = hover_tool(
        ("unit", "@unit"),
        ("syllable", "@syllable"),
        (statistic.replace("_", " "), "@value{0.000}"),
        ("standard deviations from the mean", "@standardised{0.0}"),
    )
    return heat.opts(
        **frame(
            int(np.clip(130 + 22 * len(units), 300, 960)),
            hover=hover,
            cmap=hv.plotting.util.process_cmap("RdBu", 64)[::-1],
            clim=(-_REACH, _REACH),
            line_color="#ffffff",
            invert_yaxis=True,
            colorbar=True,
            clabel="standard deviations",
            xlabel="syllable",
            ylabel="",
        )
    )
