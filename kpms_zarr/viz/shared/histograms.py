"""Durations of bouts, drawn for all syllables together."""

from __future__ import annotations

import holoviews as hv
import xarray as xr

from kpms_zarr.viz.shared import reading
from kpms_zarr.viz.shared.style import INK, frame, hover_tool, load

_MAX_BARS = 150
_SHOWN_SHARE = 0.99


def draw_durations(labels: xr.Dataset) -> hv.Overlay:
    """Draw what :func:`durations` returns, of counts that are there already.

    Parameters
    ----------
    labels : Dataset
        With ``duration_count`` (state, duration) and ``duration`` (duration) in ms.
    """
    load()
    of_all = labels["duration_count"].sum("state").values
    edges, (count,) = reading.duration_bins(
        of_all[None], labels["duration"].values, max_bins=_MAX_BARS, shown=_SHOWN_SHARE
    )
    share = 100 * count / max(int(of_all.sum()), 1)
    median = reading.overall_median(labels)
    top = 1.2 * max(share.max(), 1e-9)
    hover = hover_tool(
        ("duration", "@left{0} to @right{0} ms"), ("bouts", "@count{0,0} (@share{0.0} %)")
    )
    bars = hv.Histogram((edges, share, count), kdims=["duration"], vdims=["share", "count"]).opts(
        fill_color="#8fb3d9", line_color="white", line_width=0.5
    )
    line = hv.VLine(median).opts(color=INK, line_width=2, line_dash="dashed", default_tools=[])
    text = hv.Text(median, 0.93 * top, f"  median {median:.0f} ms", halign="left").opts(
        color=INK, text_font_size="13px", default_tools=[]
    )
    style = {
        **frame(300, hover=hover),
        "xlim": (max(0.0, float(edges[0])), float(edges[-1])),
        "ylim": (0, top),
        "xlabel": "duration of the bout (ms)",
        "ylabel": "share of the bouts (%)",
    }
    return (bars.opts(**style) * line * text).opts(**style, show_legend=False)
