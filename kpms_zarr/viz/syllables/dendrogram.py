"""Tree of the syllables of a model by how alike they are."""

from __future__ import annotations

from collections.abc import Collection

import holoviews as hv
import numpy as np
import xarray as xr
from scipy.cluster.hierarchy import dendrogram as coordinates

from kpms_zarr.viz.shared.colors import syllable_color
from kpms_zarr.viz.shared.style import INK, LINE, MUTED, frame, hover_tool, load

_LEAF = 10.0
"""What SciPy puts between two leaves, the first of which is at half of it."""


def dendrogram(
    similarity: xr.Dataset, *, cut: float | None = None, chosen: Collection[int] = ()
) -> hv.Overlay:
    """Tree of syllables: the lower two branches join, the more alike what they hold.

    A disk in the colour of the syllable stands at each leaf, a bar below the leaves of one family
    that stand together.

    Parameters
    ----------
    similarity : xarray.Dataset
        What ``kpms_zarr.similarity`` returns, of two syllables or more.
    cut : float, optional
        Distance at which a line is drawn; branches that join below it have another colour.
    chosen : collection of int
        Syllables that are marked.

    Returns
    -------
    holoviews.Overlay
        Branches (path), leaves (points: syllable, frequency, family) and, where families are known,
        bars (rectangles: family); with ``cut`` a line and what joins below it (path), with
        ``chosen`` points around the leaves.
    """
    load()
    states = similarity["state"].values
    tree = coordinates(similarity["linkage"].values, no_plot=True)
    leaves = np.asarray(tree["leaves"])
    branches = [
        np.column_stack([np.asarray(x) / _LEAF - 0.5, y])
        for x, y in zip(tree["icoord"], tree["dcoord"], strict=True)
    ]
    top = max((float(one[:, 1].max()) for one in branches), default=1.0) or 1.0
    joined = [one for one in branches if cut is not None and float(one[:, 1].max()) <= cut]
    unit = similarity["distance"].attrs.get("units", "")
    names = similarity["name"].values if "name" in similarity.coords else [""] * len(states)
    called = [f"{state} {name}".rstrip() for state, name in zip(states, names, strict=True)]
    missing = np.full(len(states), np.nan)
    share = similarity["frequency"].values if "frequency" in similarity.coords else missing
    has_families = "family" in similarity.coords
    family = similarity["family"].values if has_families else np.full(len(states), -1)
    hover = hover_tool(
        ("syllable", "@syllable"),
        ("frames", "@frequency{0.0} %"),
        *([("family", "@family")] if has_families else []),
    )
    ticks = [(place, called[leaf]) for place, leaf in enumerate(leaves)]
    low = -0.08 * top
    layers = [
        hv.Path(branches, kdims=["place", "distance"], label="branches").opts(
            color=MUTED, line_width=1.5
        ),
        hv.Points(
            (
                np.arange(len(leaves)),
                np.zeros(len(leaves)),
                np.asarray(called, dtype=object)[leaves],
                100 * share[leaves],
                family[leaves],
                np.asarray([syllable_color(int(states[leaf])) for leaf in leaves], dtype=object),
            ),
            kdims=["place", "distance"],
            vdims=["syllable", "frequency", "family", "color"],
            label="leaves",
        ).opts(size=10, color="color", line_color=INK, line_width=0.8, tools=[hover]),
    ]
    if joined:
        layers.insert(
            1,
            hv.Path(joined, kdims=["place", "distance"], label="joined").opts(
                color=LINE, line_width=2.5
            ),
        )
    is_chosen = np.isin(states[leaves], np.asarray(list(chosen), np.int64))
    if is_chosen.any():
        places = np.flatnonzero(is_chosen)
        layers.append(
            hv.Points((places, np.zeros(len(places))), ["place", "distance"], label="chosen").opts(
                size=18, fill_alpha=0, line_color=LINE, line_width=2.5
            )
        )
    if cut is not None:
        layers.append(hv.HLine(cut).opts(color=LINE, line_width=1, line_dash="dashed"))
    if has_families:
        layers.append(_bars(family[leaves], low))
    kind = similarity.attrs.get("kind", "")
    return hv.Overlay(layers).opts(
        **frame(
            380,
            xgrid=False,
            xticks=ticks,
            xrotation=60 if max(map(len, called)) > 3 or len(leaves) > 30 else 0,
            xlabel="syllable",
            ylabel=f"distance by {kind} ({unit})" if kind else "distance",
            xlim=(-0.8, len(leaves) - 0.2),
            ylim=(2.2 * low, 1.05 * top),
            show_legend=False,
        )
    )


def _bars(family: np.ndarray, low: float) -> hv.Rectangles:
    """Bars below leaves of one family that stand together, (leaf,); -1 = none."""
    start = np.flatnonzero(np.append(True, family[1:] != family[:-1]))
    stop = np.append(start[1:], len(family))
    bars = [
        (a - 0.4, 2 * low, b - 0.6, 1.4 * low, int(family[a]), syllable_color(int(family[a])))
        for a, b in zip(start, stop, strict=True)
        if family[a] >= 0
    ]
    return hv.Rectangles(bars, vdims=["family", "color"], label="families").opts(
        color="color", line_color=INK, line_width=0.5, tools=[hover_tool(("family", "@family"))]
    )


def node_places(similarity: xr.Dataset) -> np.ndarray:
    """Where the nodes of the tree stand in :func:`dendrogram`, (node, 2): place and distance.

    Leaves first, in the order of ``state``; then the joins in the order of ``linkage``.
    """
    rows = similarity["linkage"].values
    n = similarity.sizes["state"]
    place = np.zeros(2 * n - 1)
    order = {int(state): number for number, state in enumerate(similarity["leaf"].values)}
    place[:n] = [order[int(state)] for state in similarity["state"].values]
    for number, (left, right, *_) in enumerate(rows):
        place[n + number] = (place[int(left)] + place[int(right)]) / 2
    return np.column_stack([place, np.append(np.zeros(n), rows[:, 2])])


def nearest_node(similarity: xr.Dataset, x: float, y: float) -> int:
    """The node that is nearest to a place of :func:`dendrogram`; -1 = none is near.

    Near is within a twentieth of the width or a tenth of the height; below the axis, the leaf.
    """
    at = node_places(similarity)
    top = at[:, 1].max() or 1.0
    away = np.abs(at - (x, max(y, 0.0))) / (max(1.0, similarity.sizes["state"] / 20), top / 10)
    distance = np.hypot(*away.T)
    nearest = int(distance.argmin())
    return nearest if distance[nearest] <= 1 else -1
