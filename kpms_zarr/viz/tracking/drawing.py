"""Drawings of the tracking quality: heat map, histograms, traces with marks."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import holoviews as hv
import numpy as np
from bokeh.models import CustomJSHover, CustomJSTickFormatter, FixedTicker, HoverTool

from kpms_zarr.viz.shared.style import INK, LINE, MUTED, frame, hover_tool, short
from kpms_zarr.viz.shared.times import (
    CLOCK_JS,
    PLAIN,
    TIME_AXIS,
    SessionClock,
    clock_hover,
    time_axis_hook,
)
from kpms_zarr.viz.tracking.data import Confidences, QualityTable
from kpms_zarr.viz.tracking.frames import KeypointTrace, Marks, Traces

WORDS = {"missing": "missing", "low_confidence": "low confidence", "outlier": "outliers"}
"""Problem -> what it is called on the screen."""

LOW, OUTLIER, GAP = "#d55e00", "#780f4b", "#d5dbe1"
"""Colours of frames of low confidence, of outliers, and of missing ones."""

# Bands, as most shares are small and a few are not; lighter = better, for every kind of eyes.
_BORDERS = (0.001, 0.01, 0.05, 0.2, 0.5)
_BAND_COLORS = ("#ffffff", "#fff3c9", "#fee391", "#fec44f", "#ec7014", "#cc4c02", "#662506")
_BAND_LABELS = {0.5: "0", 1.5: "0.1 %", 2.5: "1 %", 3.5: "5 %", 4.5: "20 %", 5.5: "50 %"}
_ROW_HEIGHT = 17
_FONT_SIZE = {"title": "13px"}
_LEAST = 0.01  # In %: below it a share of confidences is not drawn.
_MAX_KEYPOINT_LABELS = 60


# ------------------------------------------------------------------ sessions by keypoints


def draw_map(
    table: QualityTable, *, what: str, marked: tuple[str, str] | None = None
) -> hv.HeatMap | hv.Overlay:
    """Draw the heat map of a table; with ``marked`` (session, keypoint) a mark on that cell."""
    rows, columns = labels(table.sessions), labels(table.keypoints, 18)
    row, column = (grid.ravel() for grid in np.indices((len(rows), len(columns))))
    data = (
        np.array(columns, dtype=object)[column],
        np.array(rows, dtype=object)[row],
        band(table.share[what][row, column]),
        row,
        column,
        *(100 * table.share[name][row, column] for name in WORDS),
        table.longest_gap[row, column],
        table.worst[what][row, column],
    )
    vdims = ["band", "row", "column", *WORDS, "gap", "worst"]
    heat = hv.HeatMap(data, kdims=["keypoint", "session"], vdims=vdims)
    heat = heat.opts(**_map_style(table, columns, WORDS[what]))
    if marked is None or marked[0] not in table.sessions or marked[1] not in table.keypoints:
        return heat
    place = (columns[table.keypoints.index(marked[1])], rows[table.sessions.index(marked[0])])
    mark = hv.Points([place], kdims=["keypoint", "session"]).opts(
        marker="square", size=_ROW_HEIGHT - 3, fill_alpha=0, line_color=LINE, line_width=3
    )
    return heat * mark.opts(default_tools=[], tools=[])


def labels(names: Sequence[str], length: int = 26) -> list[str]:
    """Short names for an axis, no two of them the same."""
    found: list[str] = []
    for index, name in enumerate(names):
        label = short(name, length)
        found.append(label if label not in found else f"{label} ({index + 1})")
    return found


def band(share: np.ndarray) -> np.ndarray:
    """Number of the band that each share lies in: 0 for none at all; NaN stays."""
    number = 1.0 + np.searchsorted(_BORDERS, share, side="right")
    return np.where(np.isnan(share), np.nan, np.where(share <= 0, 0.0, number))


def _map_style(table: QualityTable, columns: list[str], words: str) -> dict[str, Any]:
    rotate = sum(map(len, columns)) > 90
    label_height = 7 * max(map(len, columns), default=0) if rotate else 20
    hover = _map_hover(table, words)
    style = frame(70 + label_height + _ROW_HEIGHT * max(len(table.sessions), 9), hover=hover)
    return {
        **style,
        "hooks": [*style["hooks"], _thin_labels],
        "tools": [hover],
        "active_tools": [],
        "toolbar": None,
        "cmap": list(_BAND_COLORS),
        "clim": (-0.5, len(_BAND_COLORS) - 0.5),
        "clipping_colors": {"NaN": "#c4c4c4"},
        "line_color": "#e4e7eb",
        "invert_yaxis": True,
        "xaxis": "top",
        "xrotation": 60 if rotate else 0,
        "colorbar": True,
        "colorbar_opts": {
            "ticker": FixedTicker(ticks=list(_BAND_LABELS)),
            "major_label_overrides": _BAND_LABELS,
        },
        "clabel": "",
        "title": f"share of the frames: {words}",
        "fontsize": _FONT_SIZE,
        "xlabel": "",
        "ylabel": "",
    }


def _thin_labels(plot: Any, _element: Any) -> None:
    """Hook: of very many keypoints every second, third, ... is named."""
    n_keypoints = len(getattr(plot.state.x_range, "factors", ()))
    if n_keypoints > _MAX_KEYPOINT_LABELS:
        step = -(-n_keypoints // _MAX_KEYPOINT_LABELS)
        plot.state.above[0].formatter = CustomJSTickFormatter(
            code=f"return index % {step} ? '' : tick"
        )


def _map_hover(table: QualityTable, words: str) -> HoverTool:
    """Hover box with whole names, and numbers that may be missing."""
    percent = CustomJSHover(
        code="""
        const share = Number(value);
        if (!Number.isFinite(share)) return "not known";
        return share > 0 && share < 0.01 ? "under 0.01 %" : share.toFixed(share < 1 ? 2 : 1) + " %";
        """
    )
    seconds = CustomJSHover(
        code="return Number.isFinite(Number(value)) ? Number(value).toFixed(1) + ' s' : 'none'"
    )
    name = {
        at: CustomJSHover(args={"names": list(names)}, code="return names[value]")
        for at, names in (("@row", table.sessions), ("@column", table.keypoints))
    }
    return hover_tool(
        ("session", "@row{custom}"),
        ("keypoint", "@column{custom}"),
        *((word, f"@{problem}{{custom}}") for problem, word in WORDS.items()),
        ("longest gap", "@gap{custom}"),
        (f"worst 10 s ({words}) from", "@worst{custom}"),
        formatters={
            **name,
            **{f"@{problem}": percent for problem in WORDS},
            "@gap": seconds,
            "@worst": CustomJSHover(
                code=f"{CLOCK_JS} return Number.isFinite(Number(value)) && value !== null ? "
                "clock(Number(value), 1) : 'none'"
            ),
        },
    )


# ------------------------------------------------------------------ confidences


def draw_confidences(
    confidences: Sequence[Confidences], *, threshold: float, with_all: bool
) -> hv.Layout:
    """Draw histograms, three in a row, with common axes; the one of shares is logarithmic."""
    panels = [_histogram(one, threshold, with_all) for one in confidences]
    return hv.Layout(panels).cols(3)


def _height(share: np.ndarray) -> np.ndarray:
    """Height of a bar on a logarithmic axis that begins at 0.01 %."""
    return np.log10(np.maximum(100 * share, _LEAST) / _LEAST)


def _histogram(one: Confidences, threshold: float, with_all: bool) -> hv.Overlay:
    hover = hover_tool(
        ("confidence", "@left{0.00} to @right{0.00}"), ("share of the frames", "@share{0.000} %")
    )
    low = "" if np.isnan(one.low) else f": {100 * one.low:.1f} % below {threshold:g}"
    style = {
        **frame(190, hover=hover),
        "title": short(one.keypoint, 24) + (low or ": no confidences"),
        "fontsize": _FONT_SIZE,
        "xlim": (0, 1),
        "ylim": (0, 4.1),
        "yticks": [(float(_height(np.array(p / 100))), f"{p:g}") for p in (0.01, 0.1, 1, 10, 100)],
        "xlabel": "confidence",
        "ylabel": "share of frames (%)",
        "toolbar": None,
    }
    columns = (one.edges, _height(one.share), 100 * one.share)
    bars = hv.Histogram(columns, kdims=["confidence"], vdims=["height", "share"])
    bars = bars.opts(fill_color="#8fb3d9", line_color="white", line_width=0.5, **style)
    parts: list[hv.Element] = [bars]
    if with_all:
        middle = (one.edges[1:] + one.edges[:-1]) / 2
        table_of_all = (middle, _height(one.share_of_all))
        curve = hv.Curve(table_of_all, kdims=["confidence"], vdims=["height"])
        parts.append(
            curve.opts(color=INK, line_width=1.3, interpolation="steps-mid", default_tools=[])
        )
    line = hv.VLine(threshold).opts(color=LOW, line_width=1.5, line_dash="dashed", default_tools=[])
    return hv.Overlay([*parts, line]).opts(**style, show_legend=False)


# ------------------------------------------------------------------ traces


def draw_traces(traces: Traces, clock_of: SessionClock = PLAIN) -> hv.Layout:
    """Draw the traces, one panel below the other, on one time axis."""
    above = [None, *traces.traces]
    panels = [
        _panel(
            traces,
            trace,
            clock_of,
            with_title=before is None or before.keypoint != trace.keypoint,
            with_label=trace is traces.traces[-1],
        )
        for before, trace in zip(above, traces.traces, strict=False)
    ]
    return hv.Layout(panels).cols(1)


def what_was_read(traces: Traces) -> str:
    """Note on what was not read; "" when everything was."""
    if len(traces.parts) == 1:
        return ""
    minutes = traces.session.fps * 60
    return (
        f"Of this long time {len(traces.parts)} parts at equal distances were read, "
        f"{traces.n_read / minutes:,.0f} of {(traces.stop - traces.start) / minutes:,.0f} minutes; "
        "the rest is hatched. Choose a shorter time to see every frame."
    )


def _panel(
    traces: Traces,
    trace: KeypointTrace,
    clock_of: SessionClock,
    *,
    with_title: bool,
    with_label: bool,
) -> hv.Overlay:
    fps = traces.session.fps
    low, high = value_limits(trace)
    style = {
        **frame(120 + 26 * with_title + 26 * with_label),
        "title": _title(traces, trace) if with_title else "",
        "toolbar": "above" if with_title else None,
        "fontsize": _FONT_SIZE,
        "xlim": (traces.start / fps, traces.stop / fps),
        "ylim": (low, high),
        "xlabel": TIME_AXIS if with_label else "",
        "ylabel": f"{short(trace.keypoint, 12)} {trace.space}",
        "show_legend": False,
    }
    style["hooks"] = [*style["hooks"], time_axis_hook(clock_of, with_label=with_label), _margin]
    hover = hover_tool(
        ("time", "@time{custom}"),
        ("frame", "@frame{0}"),
        (f"{trace.keypoint} {trace.space}", "@value{0,0.0}"),
        ("confidence", "@confidence{0.00}"),
        ("", "@why"),
        formatters={"@time": clock_hover(clock_of)},
    )
    # A name of its own: HoloViews links axes of the same quantity.
    axis = f"{trace.keypoint} {trace.space}"
    line = hv.Curve((trace.frame / fps, trace.value), kdims=["time"], vdims=[axis]).opts(
        color=LINE, line_width=1.2, **style
    )
    parts: list[hv.Element] = [line]
    if len(trace.gaps):
        parts.append(_spans(trace.gaps / fps, GAP, 0.8))
    parts += _not_read(traces)
    for marks, why in ((trace.low_confidence, "low confidence"), (trace.outlier, "outlier")):
        if len(marks.frame):
            parts.append(_marks(marks, fps, (low, high), why, axis, hover))
    return hv.Overlay(parts).opts(**style)


def _margin(plot: Any, _element: Any) -> None:
    """Hook: room on the right, where a page has a button below the last tick."""
    plot.state.min_border_right = 30


def _title(traces: Traces, trace: KeypointTrace) -> str:
    """Title with the number of marked frames."""
    return (
        f"{short(trace.keypoint, 24)}: of {traces.n_read:,} frames {trace.n_missing:,} missing, "
        f"{trace.low_confidence.n_all:,} low confidence, {trace.outlier.n_all:,} outlying"
    )


def value_limits(trace: KeypointTrace) -> tuple[float, float]:
    """Ends of the axis: all positions that are no outliers, and outliers not too far from them."""
    inside = trace.value[np.isfinite(trace.value)]
    is_outlier = np.isin(trace.frame[np.isfinite(trace.value)], trace.outlier.frame)
    usual = inside[~is_outlier] if (~is_outlier).any() else inside
    if not len(usual):
        return 0.0, 1.0
    # Where marks were thinned, outliers are left among these; a few of them must not rule.
    ends = (0.005, 0.995) if trace.outlier.n_all else (0, 1)
    low, high = np.quantile(usual, ends)
    span = max(float(high - low), 1e-6 * max(abs(low), abs(high), 1e-9))
    low, high = low - 0.15 * span, high + 0.15 * span
    return (
        float(max(low - span, min(low, inside.min() - 0.03 * span))),
        float(min(high + span, max(high, inside.max() + 0.03 * span))),
    )


def _spans(edges: np.ndarray, color: str, alpha: float) -> hv.VSpans:
    return hv.VSpans((edges[:, 0], edges[:, 1])).opts(
        color=color, line_width=0, alpha=alpha, default_tools=[]
    )


def _not_read(traces: Traces) -> list[hv.VSpans]:
    """Hatch what was not read, where a sample was read."""
    edges = np.array(traces.parts) / traces.session.fps
    between = np.column_stack([edges[:-1, 1], edges[1:, 0]])
    between = between[between[:, 1] > between[:, 0]]
    return [_spans(between, "#ffffff", 1.0).opts(hooks=[_hatch])] if len(between) else []


def _hatch(plot: Any, _element: Any) -> None:
    """Hook: an option that HoloViews does not pass on."""
    plot.handles["glyph"].update(hatch_pattern="/", hatch_color=MUTED, hatch_alpha=0.25)


def _marks(
    marks: Marks, fps: float, limits: tuple[float, float], why: str, axis: str, hover: Any
) -> hv.Scatter:
    """Marked frames; those beyond the axis at its edge, as triangles."""
    low, high = limits
    margin = 0.02 * (high - low)
    is_outlier = why == "outlier"
    shape = np.where(
        marks.value > high,
        "triangle",
        np.where(marks.value < low, "inverted_triangle", "diamond" if is_outlier else "circle"),
    ).astype(object)
    columns = (
        marks.frame / fps,
        np.clip(marks.value, low + margin, high - margin),
        marks.value,
        marks.frame,
        marks.confidence,
        np.full(len(marks.frame), why, dtype=object),
        shape,
    )
    names = [axis, "value", "frame", "confidence", "why", "shape"]
    return hv.Scatter(columns, kdims=["time"], vdims=names, label=why).opts(
        marker="shape",
        size=9 if is_outlier else 7,
        line_color=OUTLIER if is_outlier else LOW,
        fill_color=OUTLIER if is_outlier else LOW,
        fill_alpha=0.9 if is_outlier else 0,
        line_width=1.3,
        default_tools=[],
        tools=[hover],
    )
