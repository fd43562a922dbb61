"""The tree of syllables as a picture."""

from __future__ import annotations

import holoviews as hv
import numpy as np
import pytest
import xarray as xr
from scipy.cluster.hierarchy import linkage

from kpms_zarr.viz import dendrogram
from kpms_zarr.viz.shared.colors import syllable_color

STATES = np.array([0, 2, 5, 7])
PLACE = np.array([0.0, 4.0, 0.5, 4.2])


def table(**coords: object) -> xr.Dataset:
    distance = np.abs(PLACE[:, None] - PLACE)
    return xr.Dataset(
        {
            "distance": (("state", "state_other"), distance, {"units": "nat / frame"}),
            "linkage": (("merge", "column"), linkage(PLACE[:, None], "average")),
        },
        {"state": STATES, "state_other": STATES, **coords},
        {"kind": "evidence"},
    )


def test_dendrogram__has_the_tree_the_colours_and_the_families():
    names = np.array(["", "rear", "", ""], dtype=object)
    family = ("state", np.array([1, 0, 1, 0]))
    found = dendrogram(
        table(name=("state", names), family=family, frequency=("state", np.full(4, 0.25)))
    )
    branches, leaves, bars = found.Path.branches, found.Points.leaves, found.Rectangles.families
    tops = sorted(one["distance"].max() for one in branches.split(datatype="dataframe"))
    assert tops == pytest.approx([0.2, 0.5, np.mean([4.0, 4.2, 3.5, 3.7])])
    shown = leaves.dframe().sort_values("place")
    assert set(shown["syllable"][:2]) in ({"0", "5"}, {"2 rear", "7"})
    for _, one in shown.iterrows():
        assert one["color"] == syllable_color(int(one["syllable"].split()[0]))
    assert sorted(bars["family"]) == [0, 1]
    hv.renderer("bokeh").get_plot(found)


def test_dendrogram__needs_neither_names_nor_families():
    found = dendrogram(table())
    assert "Rectangles" not in found.children
    hv.renderer("bokeh").get_plot(found)
