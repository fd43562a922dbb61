"""Sessions as rows of colour over time."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import holoviews as hv
import numpy as np
import xarray as xr
from bokeh.models import CustomJSHover, HoverTool

from kpms_zarr.store.core.access import Session
from kpms_zarr.store.model.syllable_names import SyllableNames
from kpms_zarr.viz.ethograms.binning import AFTER_END, Binned, BinnedView
from kpms_zarr.viz.ethograms.shading import PALEST, code_image, code_text
from kpms_zarr.viz.shared import reading
from kpms_zarr.viz.shared.colors import palette
from kpms_zarr.viz.shared.opened import OpenModel
from kpms_zarr.viz.shared.style import frame, hover_tool, short, syllable_name
from kpms_zarr.viz.shared.times import TIME_AXIS, clock_hover
from kpms_zarr.viz.shared.views import view

_MOST_FRAMES = 2**22
"""Labels that are counted bin by bin: half a second."""
_ROW_HEIGHT = 30
_MIN_HEIGHT = 230  # Less hides tools of the toolbar.


@view
def ethogram(
    opened: OpenModel,
    *,
    sessions: Sequence[str] | None = None,
    max_sessions: int = 12,
    n_bins: int = 1500,
    by_certainty: bool = True,
) -> hv.Overlay:
    """Whole sessions as rows over time, each time bin in the colour of its commonest syllable.

    Parameters
    ----------
    sessions : sequence of str, optional
        Names (default: the first ones).
    max_sessions : int
        At most so many rows.
    n_bins : int
        At most so many bins for the longest session; a bin is a whole number of frames of the
        slowest video, and of long sessions one of the levels of detail that the store has.
    by_certainty : bool
        Whether bins are the paler the less certain their labels are on average; nothing is where
        labels have no certainty.

    Returns
    -------
    holoviews.Overlay
        An Image (session, bin) and row separators: of labels, NaN after the end of a session; with
        opacities of :func:`shading.codes`.
    """
    labels = opened.labels
    rows = reading.label_sessions(labels, names=sessions, limit=max_sessions)
    is_long = sum(row.n_frames for row in rows) > _MOST_FRAMES
    is_shaded = by_certainty and "certainty" in labels
    if not is_long or opened.levels is None:
        view = _binned(labels, rows, n_bins, with_certainty=is_shaded)
    else:
        binned = Binned.of(opened, [row.name for row in rows])
        view = binned.view(n_columns=n_bins, n_rows=len(rows))
    n_syllables = int(view.syllable.max()) + 1
    bounds = (0.0, 0.0, view.stop, float(len(rows)))
    if is_shaded:
        image = code_image(view, n_syllables, bounds)
        return _with_rows(image, rows, _row_hover(rows, shaded_for=opened.names))
    values = np.where(view.syllable == AFTER_END, np.nan, view.syllable).astype(np.float32)
    image = hv.Image(values, kdims=["time", "row"], vdims=["syllable"], bounds=bounds)
    return _with_rows(
        image.opts(
            cmap=palette(n_syllables),
            clim=(-1.5, n_syllables - 0.5),
            clipping_colors={"NaN": (0, 0, 0, 0)},
        ),
        rows,
        _row_hover(rows),
    )


@view
def bouts(
    opened: OpenModel,
    *,
    sessions: Sequence[str] | None = None,
    max_sessions: int = 12,
    seconds: float = 60.0,
    by_certainty: bool = True,
) -> hv.Overlay:
    """The beginning of sessions at full frame resolution, one rectangle a bout.

    Parameters
    ----------
    sessions : sequence of str, optional
        Names (default: the first ones).
    max_sessions : int
    seconds : float
    by_certainty : bool
        Whether bouts are the paler the less certain their labels are on average; none is where
        labels have no certainty.

    Returns
    -------
    holoviews.Overlay
        Rectangles with vdims syllable, session, duration (ms), certainty (%; NaN = not known),
        opacity, and row separators.
    """
    labels = opened.labels
    rows = reading.label_sessions(labels, names=sessions, limit=max_sessions)
    columns: list[tuple[np.ndarray, ...]] = []
    for row, session in enumerate(rows):
        found = reading.first_bouts(labels, session, seconds=seconds)
        low = np.full(len(found.start), len(rows) - row - 1)
        length = (found.stop - found.start) / session.fps * 1000
        name = np.full(len(found.start), session.name, dtype=object)
        begin, end = found.start / session.fps, found.stop / session.fps
        certainty = np.full(len(low), np.nan)
        if "certainty" in labels:
            certainty = reading.bout_certainty(labels, session, found)
        shade = np.nan_to_num(certainty, nan=1.0) if by_certainty else np.ones(len(low))
        opacity = PALEST + (1 - PALEST) * shade
        columns.append(
            (begin, low, end, low + 1, found.syllable, name, length, 100 * certainty, opacity)
        )
    table = tuple(np.concatenate(column) for column in zip(*columns, strict=True))
    n_syllables = int(table[4].max()) + 1
    kdims, vdims = ["time", "row", "end", "row_end"], ["syllable", "session", "duration"]
    vdims += ["certainty", "opacity"]
    rectangles = hv.Rectangles(table, kdims=kdims, vdims=vdims).opts(
        color="syllable",
        cmap=palette(n_syllables),
        clim=(-1.5, n_syllables - 0.5),
        fill_alpha="opacity",
        line_width=0,
    )
    is_known = "certainty" in labels
    hover = hover_tool(
        ("session", "@session"),
        ("time", "@time{custom} to @end{custom}"),
        ("syllable", "@syllable{custom}"),
        ("duration", "@duration{0} ms"),
        *([("certainty", "@certainty{0} %")] if is_known else []),
        formatters={"@syllable": syllable_name(), "@time": clock_hover(), "@end": clock_hover()},
    )
    longest = max(session.n_frames / session.fps for session in rows)
    return _with_rows(rectangles, rows, hover, xlim=(0, min(seconds, longest)))


def _binned(
    labels: xr.Dataset, rows: Sequence[Session], n_bins: int, *, with_certainty: bool
) -> BinnedView:
    """Labels of all frames of some sessions in at most so many bins."""
    slowest = min(session.fps for session in rows)
    longest = max(session.n_frames / session.fps for session in rows)
    n_frames = max(1, int(np.ceil(longest * slowest / n_bins - 1e-9)))
    widths = [n_frames * (row.fps / slowest) for row in rows]
    modes = [
        reading.mode_bins(labels, row, frames_per_bin=width)
        for row, width in zip(rows, widths, strict=True)
    ]
    syllable = np.full((len(rows), max(map(len, modes))), AFTER_END, np.int16)
    certainty = np.full(syllable.shape, np.nan, np.float16)
    for place, (row, width, mode) in enumerate(zip(rows, widths, modes, strict=True)):
        syllable[place, : len(mode)] = mode
        if with_certainty:
            means = reading.mean_bins(labels, row, frames_per_bin=width)
            certainty[place, : len(mode)] = means
    shown = np.arange(len(rows))
    return BinnedView(
        syllable, certainty, shown, 0, 1, 0.0, n_frames / slowest, math.ceil(max(widths))
    )


def _row_hover(rows: Sequence[Session], shaded_for: SyllableNames | None = None) -> HoverTool:
    """What is under the pointer; ``shaded_for``: names of the syllables of shaded codes."""
    names = [session.name for session in rows]
    name = CustomJSHover(
        args={"names": names},
        code="return names[Math.min(names.length - 1, Math.floor(names.length - value))];",
    )
    if shaded_for is not None:
        return hover_tool(
            ("session", "$y{custom}"),
            ("time", "$x{time}"),
            ("syllable", "@image{syllable}"),
            ("certainty", "@image{share}"),
            formatters={"$y": name, "$x": clock_hover(), "@image": code_text(shaded_for)},
        )
    return hover_tool(
        ("session", "$y{custom}"),
        ("time", "$x{time}"),
        ("syllable", "@image{custom}"),
        formatters={"$y": name, "$x": clock_hover(), "@image": syllable_name()},
    )


def _with_rows(
    element: hv.Element, rows: Sequence[Session], hover: HoverTool, **options: Any
) -> hv.Overlay:
    """Session names on the y axis, the first on top, and white lines between the rows."""
    style = {
        **frame(max(_MIN_HEIGHT, 90 + _ROW_HEIGHT * len(rows)), hover=hover, ygrid=False),
        "yticks": [
            (len(rows) - row - 0.5, short(session.name)) for row, session in enumerate(rows)
        ],
        "ylim": (0, len(rows)),
        "xlabel": TIME_AXIS,
        "ylabel": "",
        **options,
    }
    lines = hv.HLines(np.arange(len(rows) + 1)).opts(color="white", line_width=4, default_tools=[])
    return (element.opts(**style) * lines).opts(**style, show_legend=False)
