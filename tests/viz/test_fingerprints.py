"""Fingerprints of units as a heat map."""

from __future__ import annotations

import holoviews as hv
import numpy as np
import pytest
import xarray as xr

from kpms_zarr.store.errors import InputError
from kpms_zarr.viz import fingerprint_map

TABLE = xr.Dataset(
    {
        name: (("statistic", "unit", "state"), np.arange(12.0).reshape(2, 3, 2) * factor)
        for name, factor in (("value", 0.01), ("standardised", 0.2))
    },
    {
        "statistic": np.array(["frequency", "speed"], dtype=object),
        "unit": np.array(["s1", "s1", "s2"], dtype=object),
        "group": ("unit", np.array(["a", "b", "b"], dtype=object)),
        "state": [0, 7],
    },
)


def test_fingerprint_map__shows_units_by_group():
    heat = fingerprint_map(TABLE, statistic="speed")
    assert list(dict.fromkeys(heat["unit"])) == ["a · s1", "b · s1", "b · s2"]
    assert list(dict.fromkeys(heat["syllable"])) == ["0", "7"]
    np.testing.assert_allclose(np.sort(heat["value"]), np.arange(6, 12) * 0.01)
    hv.renderer("bokeh").get_plot(heat)


def test_fingerprint_map__refuses_what_is_not_there():
    with pytest.raises(InputError, match="expected one of frequency, speed"):
        fingerprint_map(TABLE, statistic="turning")
