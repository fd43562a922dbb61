"""Change points as ``kpms_zarr.changepoints`` finds them: a view, and a sheet."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import holoviews as hv
import numpy as np
import xarray as xr

from kpms_zarr.viz.shared.decimation import extremes, thinned
from kpms_zarr.viz.shared.sheets import PaperSheet
from kpms_zarr.viz.shared.style import INK, MUTED, frame, hover_tool, load
from kpms_zarr.viz.shared.times import PLAIN, TIME_AXIS, SessionClock, clock_hover

_BAND = "#dfe3e8"
_BASELINE = "#7b8794"
_FOUND = "#2a78b5"
_MOST_TIMES = 3.0
"""Times the upper quartile: longer intervals are not drawn."""
_BARS = 40
_MOST_READ = 2**22
"""Frames of a session whose score is read at once."""
_MOST_DRAWN = 6000


class Drawing(NamedTuple):
    """A drawing: lines and bars on axes.

    Attributes
    ----------
    title, x_label, y_label : str
    bars : tuple of ndarray
        Edges (bar + 1,) and heights (bar,), or ().
    lines : list of (x, y, color, is_dashed)
    band : tuple of ndarray
        x, low, high, or ().
    marks : list of (x, words)
        Vertical lines.
    """

    title: str
    x_label: str
    y_label: str
    bars: tuple[np.ndarray, ...]
    lines: list[tuple[np.ndarray, np.ndarray, str, bool]]
    band: tuple[np.ndarray, ...]
    marks: list[tuple[float, str]]


def changepoints(points: xr.Dataset, *, height: int = 260) -> hv.Layout:
    """Peaks of the change score, intervals between change points, and the score around onsets.

    Parameters
    ----------
    points : xarray.Dataset
        What ``kpms_zarr.changepoints`` returns; the last drawing needs a model.
    height : int
        Of each drawing, in px.

    Returns
    -------
    holoviews.Layout
        Peaks of the data (Curve) and of shifted data (dashed Curve) with the threshold; a Histogram
        of intervals with their median and the suggested target duration; the mean score around
        onsets (Curve) with the band of shifted onsets (Area).
    """
    load()
    views = []
    for curve in curves_of(points):
        parts: list[hv.Element] = []
        x, y = curve.x_label, curve.y_label
        if curve.band:
            parts.append(
                hv.Area(curve.band, kdims=[x], vdims=["low", "high"]).opts(
                    color=_BAND, line_width=0, default_tools=[]
                )
            )
        if curve.bars:
            parts.append(
                hv.Histogram(curve.bars, kdims=[x], vdims=[y]).opts(
                    fill_color=_FOUND, fill_alpha=0.6, line_width=0, default_tools=[]
                )
            )
        for at, values, color, is_dashed in curve.lines:
            dash = "dashed" if is_dashed else "solid"
            parts.append(
                hv.Curve((at, values), kdims=[x], vdims=[y]).opts(
                    color=color, line_dash=dash, line_width=1.5, default_tools=[]
                )
            )
        for place, _ in curve.marks:
            parts.append(
                hv.VLine(place).opts(color=INK, line_width=1, line_dash="dotted", default_tools=[])
            )
        words = "; ".join(text for _, text in curve.marks if text)
        style = {
            **frame(height), "responsive": False, "width": 360, "xlabel": x, "ylabel": y,
            "tools": [], "active_tools": [], "toolbar": None,
            "title": f"{curve.title}{f' ({words})' if words else ''}",
        }  # fmt: skip
        views.append(hv.Overlay(parts).opts(**style, show_legend=False))
    return hv.Layout(views).cols(3)


def session_rates(points: xr.Dataset, *, chosen: str = "", height: int = 230) -> hv.Overlay:
    """Change points per minute of each session, in the order of the rates.

    Parameters
    ----------
    points : xarray.Dataset
        What ``kpms_zarr.changepoints`` returns.
    chosen : str
        Name of the session that is marked.
    height : int
        In px.

    Returns
    -------
    holoviews.Overlay
        Of Points with vdims session, points, interval (ms; NaN = fewer than two points).
    """
    load()
    names = np.array([str(one) for one in points["session"].values], dtype=object)
    n = points["n_changepoints"].values
    minutes = points["n_frames"].values / points["fps"].values / 60
    rate = n / np.maximum(minutes, 1e-9)
    order = np.argsort(rate, kind="stable")
    columns = (np.arange(1, len(order) + 1), rate[order], names[order], n[order],
               points["median_interval"].values[order])  # fmt: skip
    kdims, vdims = ["place", "rate"], ["session", "points", "interval"]
    hover = hover_tool(
        ("session", "@session"), ("change points", "@points{0,0}"),
        ("per minute", "@rate{0.0}"), ("median interval", "@interval{0} ms"),
    )  # fmt: skip
    style = {
        **frame(height, hover=hover), "xlabel": "session, by its rate",
        "ylabel": "change points per minute", "ylim": (0, 1.08 * max(float(rate.max()), 1e-9)),
        "xlim": (0.0, len(order) + 1.0), "title": "",
    }  # fmt: skip
    dots = hv.Points(columns, kdims=kdims, vdims=vdims).opts(
        color=_FOUND, size=7, line_color="white", **style
    )
    parts: list[hv.Element] = [dots]
    where = np.flatnonzero(names[order] == chosen)
    if len(where):
        mark = [(columns[0][where[0]], columns[1][where[0]])]
        parts.append(hv.Points(mark, kdims=kdims).opts(
            size=13, fill_alpha=0, line_color=INK, line_width=2, default_tools=[], tools=[]
        ))  # fmt: skip
    return hv.Overlay(parts).opts(**style, show_legend=False)


class ScoreStrip(NamedTuple):
    """Change score of some time of a session, and its change points.

    Attributes
    ----------
    time, score : ndarray, (drawn,)
        Of long times the lowest and the highest of equal stretches; s of the session.
    point_time, point_score : ndarray, (point,)
    n_points : int
        Of them all, whether drawn or not.
    start, stop : float
        What was read, in s.
    """

    time: np.ndarray
    score: np.ndarray
    point_time: np.ndarray
    point_score: np.ndarray
    n_points: int
    start: float
    stop: float


def read_strip(points: xr.Dataset, session: str, start: float, stop: float) -> ScoreStrip | None:
    """Read the change score of some time of a session; None where it has none.

    At most 4,194,304 frames are read, the first ones.

    Parameters
    ----------
    points : xarray.Dataset
        The group ``changepoints``, lazily.
    start, stop : float
        In s of the session.
    """
    names = [str(name) for name in points["session"].values]
    if session not in names:
        return None
    row = names.index(session)
    fps, n_frames = (float(points[name].values[row]) for name in ("fps", "n_frames"))
    first = max(0, int(np.floor(start * fps + 1e-6)))
    last = int(min(n_frames, np.ceil(stop * fps - 1e-6), first + _MOST_READ))
    if first >= last:
        return None
    score = points["change_score"][row, first:last].values.astype(np.float64)
    at = np.flatnonzero(points["changepoint"][row, first:last].values == 1)
    drawn, marks = (
        extremes(score, _MOST_DRAWN),
        at[thinned(at, score[at], last - first, _MOST_DRAWN)],
    )
    return ScoreStrip(
        (first + drawn) / fps, score[drawn], (first + marks) / fps, score[marks], len(at),
        first / fps, last / fps,
    )  # fmt: skip


def score_strip(
    found: ScoreStrip, threshold: float, *, height: int = 190, clock_of: SessionClock = PLAIN
) -> hv.Overlay:
    """Change score over time (Curve) with the threshold, and the change points (Points).

    Parameters
    ----------
    threshold : float
        NaN or infinite = none.
    height : int
        In px.
    clock_of : SessionClock
        Of the session, by which times are written.
    """
    load()
    hover = hover_tool(
        ("time", "@time{custom}"), ("change score", "@score{0.00}"),
        formatters={"@time": clock_hover(clock_of)},
    )  # fmt: skip
    style = {
        **frame(height), "xlabel": TIME_AXIS, "ylabel": "change score",
        "xlim": (found.start, found.stop), "title": "",
    }  # fmt: skip
    parts: list[hv.Element] = [
        hv.Curve((found.time, found.score), kdims=["time"], vdims=["score"]).opts(
            color=_BASELINE, line_width=1, **style
        )
    ]
    if np.isfinite(threshold):
        parts.append(
            hv.HLine(threshold).opts(
                color=INK, line_width=1, line_dash="dotted", default_tools=[]
            )
        )  # fmt: skip
    dots = hv.Points((found.point_time, found.point_score), kdims=["time", "score"])
    parts.append(
        dots.opts(color=_FOUND, size=7, line_color="white", tools=[hover], default_tools=[])
    )
    return hv.Overlay(parts).opts(**style, show_legend=False)


def curves_of(points: xr.Dataset) -> list[Drawing]:
    """Drawings of a result; without intervals, or without a model, there are fewer."""
    facts = points.attrs
    found = [_peaks(points)]
    if np.isfinite(facts["median_interval"]):
        found.append(_intervals(points))
    if "onset_score" in points:
        lag = points["lag"].values
        low, high = points["shifted_quantile"].values
        found.append(
            Drawing(
                f"around {facts['n_onsets']:,} onsets of {facts['model']}, "
                f"p {facts['onset_p']:.2g}",
                "ms after the onset", "change score", (),
                [(lag, points["shifted_score"].values, _BASELINE, True),
                 (lag, points["onset_score"].values, _FOUND, False)],
                (lag, low, high), [(0.0, "")],
            )
        )  # fmt: skip
    return found


def _peaks(points: xr.Dataset) -> Drawing:
    height, threshold = points["height"].values, float(points.attrs["threshold"])

    def as_high(name: str) -> np.ndarray:
        return np.asarray(np.cumsum(points[name].values[::-1])[::-1], np.float64)

    lines = [
        (height, as_high("shifted_count"), _BASELINE, True),
        (height, as_high("peak_count"), _FOUND, False),
    ]
    marks = [(threshold, f"threshold {threshold:.2f}")] if np.isfinite(threshold) else []
    title = "peaks, and of shifted data (dashed)"
    return Drawing(title, "change score", "peaks as high", (), lines,
                 (), marks)  # fmt: skip


def _intervals(points: xr.Dataset) -> Drawing:
    interval, count = points["change_interval"].values, points["interval_count"].values
    facts = points.attrs
    tick = float(interval[0])
    most = min(float(interval[-1]), _MOST_TIMES * float(facts["upper_quartile"]))
    step = tick * max(1, round(most / tick / _BARS))  # whole frames, so that bars hold as many
    edges = np.arange(tick / 2, most + step, step)
    heights, edges = np.histogram(interval, edges, weights=count)
    target = float(facts["target_duration"])
    marks = [(float(facts["median_interval"]), f"median {facts['median_interval']:.0f} ms"),
             (target, f"target {target:.0f} ms")]  # fmt: skip
    return Drawing("intervals", "ms between change points", "intervals", (edges, heights), [], (),
                 marks)  # fmt: skip


# ------------------------------------------------------------------ on paper


def changepoints_sheet(points: xr.Dataset) -> PaperSheet:
    """All drawings of a result beside each other."""
    curves = curves_of(points)
    width, height, gap = 200.0, 130.0, 62.0
    facts = points.attrs
    sheet = PaperSheet(max(len(curves) * (width + gap) + 20, 460), height + 112)
    sheet.words((10, 16), "Change points without a model", 12)
    few = (
        f"{facts['n_changepoints']:,} change points in {points.sizes['session']} sessions, windows "
    )
    sheet.words((10, 32), f"{few}of {facts['window']:g} ms", 7.5, MUTED)
    words = (
        "dotted: threshold; median interval and suggested target duration; grey: shifted data, 95 %"
    )
    sheet.words((10, 43), words, 7.5, MUTED)
    for number, curve in enumerate(curves):
        _draw(sheet, curve, (50 + number * (width + gap), 72, width, height))
    return sheet


def _draw(sheet: PaperSheet, curve: Drawing, box: tuple[float, float, float, float]) -> None:
    left, top, width, height = box
    (x0, x1), (y0, y1) = _limits(curve)

    def at(x: Sequence[float] | np.ndarray, y: Sequence[float] | np.ndarray) -> np.ndarray:
        right = left + width * (np.asarray(x, float) - x0) / (x1 - x0)
        down = top + height * (y1 - np.asarray(y, float)) / (y1 - y0)
        return np.stack([right, np.clip(down, top, top + height)], axis=1)

    if curve.band:
        x, low, high = curve.band
        sheet.area(np.concatenate([at(x, low), at(x, high)[::-1]]), _BAND)
    if curve.bars:
        edges, heights = curve.bars
        for begin, end, value in zip(edges[:-1], edges[1:], heights, strict=True):
            if value:
                corners = ([begin, begin, end, end], [y0, value, value, y0])
                sheet.area(at(*corners), _FOUND)
    for x, y, color, is_dashed in curve.lines:
        sheet.line(at(x, y), color, 0.9 if is_dashed else 1.4, is_dashed=is_dashed)
    for x_mark, words in curve.marks:
        sheet.line(at([x_mark, x_mark], [y0, y1]), INK, 0.7, is_dashed=True)
        place = float(at([x_mark], [y1])[0, 0]) + 3
        if len(curve.marks) == 1:
            sheet.words((place, top + 7), words, 7, INK)
    sheet.line(at([x0, x0, x1], [y1, y0, y0]), MUTED, 0.8)
    for value in _ticks(y0, y1):
        place = float(at([x0], [value])[0, 1])
        sheet.line(np.array([(left - 3, place), (left, place)]), MUTED, 0.8)
        sheet.words((left - 5, place), f"{value:.6g}", 7, INK, "r")
    for value in _ticks(x0, x1):
        place = float(at([value], [y0])[0, 0])
        sheet.line(np.array([(place, top + height), (place, top + height + 3)]), MUTED, 0.8)
        sheet.words((place, top + height + 9), f"{value:.6g}", 7, INK, "m")
    sheet.words((left + width, top + height + 20), curve.x_label, 7, MUTED, "r")
    words = "; ".join(text for _, text in curve.marks) if len(curve.marks) > 1 else curve.y_label
    sheet.words((left, top - 8), f"{curve.title}: {words}", 7.5)


def _limits(curve: Drawing) -> tuple[tuple[float, float], tuple[float, float]]:
    xs = [line[0] for line in curve.lines] + list(curve.bars[:1])
    ys = [line[1] for line in curve.lines] + [*curve.bars[1:], *curve.band[1:]]
    x, y = np.concatenate(xs), np.concatenate(ys)
    x, y = x[np.isfinite(x)], y[np.isfinite(y)]
    if not len(x) or not len(y):
        return (0.0, 1.0), (0.0, 1.0)
    low = float(y.min()) if curve.band else 0.0
    room = 0.05 * (float(y.max()) - low) or 0.5
    x0, x1 = (0.0 if curve.bars else float(x.min())), float(x.max())
    return (x0, x1 if x1 > x0 else x0 + 1), (low - (room if curve.band else 0), y.max() + room)


def _ticks(low: float, high: float) -> list[float]:
    """Round numbers between two limits, about four of them."""
    raw = (high - low) / 4
    power = 10.0 ** np.floor(np.log10(raw))
    step = min((one * power for one in (1, 2, 5, 10)), key=lambda one: abs(one - raw))
    return [float(k * step) for k in range(int(np.ceil(low / step)), int(high / step) + 1)]
