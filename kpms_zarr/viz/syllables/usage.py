"""Usage of syllables: share of the frames, and durations of bouts."""

from __future__ import annotations

import holoviews as hv
import numpy as np

from kpms_zarr.viz.shared.colors import syllable_color
from kpms_zarr.viz.shared.histograms import draw_durations
from kpms_zarr.viz.shared.opened import OpenModel
from kpms_zarr.viz.shared.style import frame, hover_tool
from kpms_zarr.viz.shared.views import view


@view
def frequencies(opened: OpenModel) -> hv.Bars:
    """Share of the frames of each syllable in use, most frequent first.

    Returns
    -------
    holoviews.Bars
        kdim syllable; vdims share (%), bouts, median and mean duration (ms).

    Raises
    ------
    MissingData
        When the version has no statistics.
    """
    names = ("frequency", "n_bouts", "median_duration", "mean_duration")
    labels = opened.labels_with(*names)
    opened.require_bouts()
    used = np.asarray(opened.used)
    columns = [labels[name].values[used] for name in names]
    table = (
        used.astype(str),
        100 * columns[0],
        *columns[1:],
        np.asarray([syllable_color(int(state)) for state in used], dtype=object),
    )
    hover = hover_tool(
        ("syllable", "@syllable"),
        ("share of the frames", "@share{0.0} %"),
        ("bouts", "@bouts{0,0}"),
        ("median duration", "@median{0} ms"),
        ("mean duration", "@mean{0} ms"),
    )
    bars = hv.Bars(table, kdims=["syllable"], vdims=["share", "bouts", "median", "mean", "color"])
    return bars.opts(
        **frame(
            320,
            hover=hover,
            xgrid=False,
            color="color",
            line_color=None,
            xlabel="syllable",
            ylabel="share of the frames (%)",
        )
    )


@view
def durations(opened: OpenModel) -> hv.Overlay:
    """Durations of the bouts of all syllables, the median marked.

    Returns
    -------
    holoviews.Overlay
        A Histogram over ms (share of the bouts in %, count), a line and its text. The axis ends
        where 99 % of the bouts are shown.

    Raises
    ------
    MissingData
        When the version has no statistics.
    """
    labels = opened.labels_with("duration_count", "duration", "frequency")
    opened.require_bouts()
    return draw_durations(labels)
