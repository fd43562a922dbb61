"""View of a noise calibration: log tracking error against log confidence, and the line."""

from __future__ import annotations

import holoviews as hv
import numpy as np
import xarray as xr

from kpms_zarr.store.core.access import StoreLike
from kpms_zarr.store.study.calibration import open_calibration
from kpms_zarr.viz.shared.style import INK, LINE, MUTED, frame, hover_tool, load


def noise_calibration(store: StoreLike) -> hv.Overlay:
    """Log tracking error against log confidence: keypoints faint, their median, and the line.

    Parameters
    ----------
    store : path or URL

    Returns
    -------
    holoviews.Overlay
        Points (keypoint by keypoint), Scatter (median of the keypoints in a bin) and Curve (the
        line that fits use).

    Raises
    ------
    InputError
        When the store has no calibration.
    """
    load()
    return draw_calibration(open_calibration(store).load())


def draw_calibration(calibration: xr.Dataset) -> hv.Overlay:
    """Draw the group ``calibration``."""
    error = calibration["tracking_error"].transpose("keypoint", "confidence_bin").values
    x = calibration["log_confidence"].transpose("keypoint", "confidence_bin").values
    number = calibration["n_compared"].transpose("keypoint", "confidence_bin").values
    names = np.array([str(name) for name in calibration["keypoint"].values], dtype=object)
    is_known = np.isfinite(error)
    point, place = np.nonzero(is_known)
    y = np.log10(np.where(is_known, error, 1))
    hover = hover_tool(
        ("keypoint", "@keypoint"), ("log10 confidence", "@x{0.00}"), ("log10 error", "@y{0.00}"),
        ("positions", "@n{0,0}"),
    )  # fmt: skip
    columns = (x[point, place], y[point, place], names[point], number[point, place])
    points = hv.Points(columns, kdims=["x", "y"], vdims=["keypoint", "n"])
    slope, intercept = (float(calibration.attrs[name]) for name in ("slope", "intercept"))
    style = {
        **frame(300, hover=hover),
        "xlabel": "log10(confidence + 0.001)",
        "ylabel": "log10(error), units of position",
        "title": f"slope {slope:.2f}, intercept {intercept:.2f}",
        "fontsize": {"title": "13px"},
        "toolbar": None,
    }
    faint = points.opts(color=MUTED, alpha=0.35, size=5, **style)
    bins = np.flatnonzero(is_known.any(0))
    middle = [
        (float(x[is_known[:, b], b].mean()), float(np.median(y[is_known[:, b], b]))) for b in bins
    ]
    medians = hv.Scatter(middle, kdims=["x"], vdims=["y"])
    ends = np.array([x[is_known].min(), x[is_known].max()]) if len(bins) else np.zeros(0)
    line = hv.Curve((ends, slope * ends + intercept), kdims=["x"], vdims=["y"])
    return (
        faint
        * medians.opts(color=INK, size=8, default_tools=[])
        * line.opts(color=LINE, line_width=2, default_tools=[])
    )
