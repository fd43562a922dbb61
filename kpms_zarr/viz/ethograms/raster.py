"""Raster of all sessions as rows of colour over time, from hours down to single frames."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any
from weakref import WeakSet

import holoviews as hv
import numpy as np
import pandas as pd
import param
from bokeh.models import (
    BoxZoomTool,
    ColumnDataSource,
    CustomJSHover,
    CustomJSTickFormatter,
    FixedTicker,
    HoverTool,
    HSpan,
    Quad,
)

from kpms_zarr.store.core.access import Session
from kpms_zarr.store.model.syllable_names import SyllableNames
from kpms_zarr.store.run_lengths import run_bounds
from kpms_zarr.viz.ethograms.binning import AFTER_END, Binned, BinnedView
from kpms_zarr.viz.ethograms.shading import code_image, code_text
from kpms_zarr.viz.shared.bands import EpochBand
from kpms_zarr.viz.shared.opened import OpenModel
from kpms_zarr.viz.shared.picture_data import PictureTable, attach
from kpms_zarr.viz.shared.style import INK, hover_tool, load, polish_figure, short, weakly
from kpms_zarr.viz.shared.times import PLAIN, TIME_AXIS, SessionClock, clock_hover, time_axis_hook
from kpms_zarr.viz.shared.views import view

_ROW_HEIGHT = 30
_MIN_HEIGHT = 240  # Less hides tools of the toolbar.
_AROUND_PLOT, _AROUND_ROWS = 90, 60  # px: title, axis and its label, with and without room
_NAME_HEIGHT = 20
_STEPS = [mantissa * 10**power for power in range(6) for mantissa in (1, 2, 5)]
_STRIP_FRAMES = 2**17
_MOST_EDGES = 60
_BAND = 0.16
"""Height of the band of an epoch; that of a row is 1."""


@view
def raster(
    opened: OpenModel,
    *,
    sessions: Sequence[str] | None = None,
    highlight: int = -1,
    by_certainty: bool = True,
    height: int = 560,
) -> hv.DynamicMap:
    """The ethogram of all sessions; where one zooms in, it is read from the store again.

    Colours are those of all views. Each column of a row shows the commonest syllable of its
    frames; the title says how many these are. Needs a running Python (a notebook, a server).

    Parameters
    ----------
    sessions : sequence of str, optional
        Names, in the order in which they are shown (default: all).
    highlight : int
        Syllable that alone is coloured; -1 = all are.
    by_certainty : bool
        Pale where labels are uncertain, or, in versions that have no certainty, where a column
        holds frames of many syllables.
    height : int
        In px, at most.

    Returns
    -------
    holoviews.DynamicMap
        Of an Image of :func:`shading.codes`, (row, bin).
    """
    binned = Binned.of(opened, sessions)
    return Raster(
        binned, opened.names, highlight=highlight, by_certainty=by_certainty, height=height
    ).plot


class RasterStyle(param.Parameterized):
    """Style of a raster that can be changed while one looks at it."""

    highlight = param.Integer(-1, doc="Syllable that alone is coloured; -1 = all")
    by_certainty = param.Boolean(True, doc="Whether uncertain labels are pale")
    marked = param.Parameter(("", 0.0, 0.0), doc="Session, start and stop in s that are marked")


class Raster:
    """Raster, and what links it with other views.

    Parameters
    ----------
    highlight, by_certainty, height
        See :func:`raster`.
    rows : sequence of str, optional
        Names of the rows (default: those of the sessions).
    on_tap : callable, optional
        Is given the session, the time in s and the syllable that a person has clicked.
    bands : sequence of sequence of EpochBand
        Epochs of each session, drawn as thin bands below the rows.

    Attributes
    ----------
    style : RasterStyle
        Set its parameters to change what is shown.
    view : BinnedView
        What is shown now.
    """

    def __init__(
        self,
        binned: Binned,
        names: SyllableNames | None = None,
        *,
        highlight: int = -1,
        by_certainty: bool = True,
        height: int = 560,
        rows: Sequence[str] | None = None,
        on_tap: Callable[[Session, float, int], None] | None = None,
        bands: Sequence[Sequence[EpochBand]] = (),
    ) -> None:
        load()
        self.binned = binned
        self.style = RasterStyle(highlight=highlight, by_certainty=by_certainty)
        self._n = len(binned.sessions)
        self._rows = list(rows or (session.name for session in binned.sessions))
        self._names = names
        self._height = max(_MIN_HEIGHT, min(height, _AROUND_PLOT + _ROW_HEIGHT * self._n))
        self._on_tap, self._bands = on_tap, bands
        self._asked: tuple[float, ...] = ()
        self.view = self._read(None, None)
        # Lines are added to the figure in a hook: elements of HoloViews make it half as fast.
        self._marks: WeakSet[ColumnDataSource] = WeakSet()
        self.style.param.watch(self._move_marks, "marked")
        changes = hv.streams.Params(self.style, ["highlight", "by_certainty"])
        self.plot = hv.DynamicMap(self._image, streams=[hv.streams.RangeXY(), changes])
        self._tap = hv.streams.Tap(source=self.plot)
        self._tap.add_subscriber(self._tapped)

    @property
    def _extent(self) -> tuple[float, float]:
        """Limits of the y axis: the session at place p is from -p - 0.5 to -p + 0.5."""
        return 0.5 - self._n, 0.5

    def at(self, x: float, y: float) -> tuple[Session, float, int]:
        """Session, time in s and syllable that are shown at a place of the plot.

        Returns
        -------
        (Session, float, int)
            The syllable is ``AFTER_END`` where there is none.
        """
        view = self.view
        place = min(max(0, -math.floor(y + 0.5)), self._n - 1)
        row = min(max(0, (place - view.first) // view.step), len(view.shown) - 1)
        column = math.floor((x - view.start) / view.seconds)
        is_inside = 0 <= column < view.syllable.shape[1]
        syllable = int(view.syllable[row, column]) if is_inside else AFTER_END
        return self.binned.sessions[view.shown[row]], x, syllable

    # ------------------------------------------------------------------ drawing

    def _read(self, x_range: Any, y_range: Any) -> BinnedView:
        x0, x1 = sorted(x_range) if _is_range(x_range) else (0.0, self.binned.seconds)
        y0, y1 = sorted(y_range) if _is_range(y_range) else self._extent
        x0, x1 = max(0.0, x0), min(x1, self.binned.seconds)
        y0, y1 = max(self._extent[0], y0), min(y1, self._extent[1])
        asked = (x0, x1, y0, y1)
        if asked != self._asked:
            first, last = _places(y0, y1)
            self.view = self.binned.view(x0, x1, first, last, n_rows=self._height - _AROUND_ROWS)
            self._asked = asked
        return self.view

    def _image(
        self,
        x_range: Any = None,
        y_range: Any = None,
        highlight: int = -1,
        by_certainty: bool = True,
    ) -> hv.Image:
        view = self._read(x_range, y_range)
        top = 0.5 - view.first
        bounds = (view.start, top - view.step * len(view.shown), view.stop, top)
        n_states = self.binned.n_states
        return code_image(view, n_states, bounds, highlight, by_certainty).opts(
            default_tools=[],
            tools=[BoxZoomTool(), "pan", "xwheel_zoom", "ywheel_zoom", "reset"],
            active_tools=["box_zoom"],
            responsive=True,
            height=self._height,
            xlabel=TIME_AXIS,
            ylabel="",
            title=described(view, self._n),
            hooks=[weakly(self._finish)],
        )

    def _finish(self, plot: Any, _element: Any) -> None:
        """Hook: lines, names of rows, what is under the pointer, and how fine the bins are."""
        figure, view = plot.state, self.view
        if "rows" not in plot.handles:
            self._begin(plot)
            # Not by xlim and ylim, with which HoloViews reads and draws everything twice.
            x0, x1, y0, y1 = self._asked
            _set_range(figure.x_range, x0, x1, 0.0, self.binned.seconds)
            _set_range(figure.y_range, y0, y1, *self._extent)
        plot.handles["rows"].data = {"step": [view.step]}
        plot.handles["ticker"].ticks = self._ticks()
        # Between rows that are high enough for it.
        n_rows = len(view.shown) if len(view.shown) <= _MOST_EDGES and view.step == 1 else 0
        plot.handles["edges"].data = {"y": 0.5 - view.first - np.arange(1, max(1, n_rows))}
        polish_figure(figure, xgrid=False, ygrid=False)
        shown = [self.binned.sessions[place].name for place in view.shown]
        _tell(plot, None, view=view, names=self._names, rows=shown)

    def _begin(self, plot: Any) -> None:
        """Give a figure what it has from the beginning."""
        figure = plot.state
        rows = plot.handles["rows"] = ColumnDataSource({"step": [1]})
        hover = self._hover(rows)
        hover.renderers = [plot.handles["glyph_renderer"]]
        figure.add_tools(hover)
        figure.yaxis.ticker = plot.handles["ticker"] = FixedTicker()
        figure.yaxis.formatter = CustomJSTickFormatter(
            args={"names": [short(name) for name in self._rows]},
            code="return names[-Math.round(tick)] ?? '';",
        )
        edges = plot.handles["edges"] = ColumnDataSource({"y": []})
        figure.add_glyph(edges, HSpan(y="y", line_color="white", line_width=2))
        self._add_bands(figure)
        mark = ColumnDataSource(self._mark())
        sides: dict[str, Any] = {name: name for name in ("left", "right", "bottom", "top")}
        figure.add_glyph(mark, Quad(**sides, fill_alpha=0, line_color=INK, line_width="width"))
        self._marks.add(mark)

    def _add_bands(self, figure: Any) -> None:
        """Draw the epochs of each session at the lower edge of its row."""
        rows = [
            (one.start, one.stop, -place - 0.5, -place - 0.5 + _BAND, one.color)
            for place, bands in enumerate(self._bands)
            for one in bands
        ]
        if not rows:
            return
        names = ("left", "right", "bottom", "top", "color")
        source = ColumnDataSource(dict(zip(names, map(list, zip(*rows, strict=True)), strict=True)))
        sides: dict[str, Any] = {name: name for name in names[:4]}
        figure.add_glyph(
            source, Quad(**sides, fill_color="color", line_color="white", line_width=0.5)
        )

    def _ticks(self) -> list[float]:
        """Place names of rows: all, each amid what is seen of it, or every second ..."""
        _, _, low, high = self._asked
        first, last = _places(low, high)
        wanted = (last - first + 1) * _NAME_HEIGHT / (self._height - _AROUND_PLOT)
        every = next(n for n in _STEPS if n >= wanted or n == _STEPS[-1])
        places = range(-(-first // every) * every, last + 1, every)
        if every > 1:
            return [-float(place) for place in places]
        return [(max(low, -place - 0.5) + min(high, -place + 0.5)) / 2 for place in places]

    def _mark(self) -> dict[str, list[float]]:
        """Draw a box around the chosen time, and among many rows a line across, to be found by."""
        name, start, stop = self.style.marked
        place = next((i for i, one in enumerate(self.binned.sessions) if one.name == name), None)
        boxes = []
        if place is not None:
            boxes.append((start, stop, -place - 0.5, -place + 0.5, 2.5))
            if self._n > _MOST_EDGES:
                boxes.append((0.0, self.binned.seconds, -place, -place, 0.8))
        names = ("left", "right", "bottom", "top", "width")
        return {name: [box[i] for box in boxes] for i, name in enumerate(names)}

    def _move_marks(self, *_: Any) -> None:
        for mark in self._marks:
            move = partial(setattr, mark, "data", self._mark())
            document = mark.document
            if document is not None and document.session_context:
                # Clicks come while the document is not held, without which it must not be changed.
                document.add_next_tick_callback(partial(_in_order, move))
            else:
                move()

    def _hover(self, rows: ColumnDataSource) -> HoverTool:
        session = CustomJSHover(
            args={"names": self._rows, "rows": rows},
            code="""
            const last = names.length - 1, step = rows.data.step[0];
            const place = Math.min(Math.max(0, -Math.round(value)), last);
            return names[Math.min(step * Math.floor(place / step) + Math.floor(step / 2), last)];
            """,
        )
        return hover_tool(
            ("session", "$y{custom}"),
            ("time", "$x{time}"),
            ("syllable", "@image{syllable}"),
            (self.binned.certainty_name, "@image{share}"),
            formatters={"$y": session, "$x": clock_hover(), "@image": code_text(self._names)},
        )

    def _tapped(self, x: float | None, y: float | None) -> None:
        if self._on_tap is not None and x is not None and y is not None:
            self._on_tap(*self.at(x, y))


def _in_order(change: Callable[[], None]) -> None:
    """Change a document after what Panel has not sent yet, perhaps the very plot that changes."""
    from panel.io import unlocked  # only where there is a server, which has it

    with unlocked():
        change()


def strip(
    binned: Binned,
    session: str,
    start: float,
    stop: float,
    *,
    names: SyllableNames | None = None,
    highlight: int = -1,
    by_certainty: bool = True,
    height: int = 160,
    clock_of: SessionClock = PLAIN,
) -> tuple[hv.Image, BinnedView]:
    """Some time of one session, a column for each frame (of 131,072 and more: finest bins).

    Parameters
    ----------
    clock_of : SessionClock
        Of the session, by which times are written.

    Returns
    -------
    (holoviews.Image, BinnedView)
        The plot and the data in it.
    """
    load()
    one = binned.only(session)
    view = one.view(start, stop, n_columns=_STRIP_FRAMES)
    image = code_image(view, one.n_states, (view.start, 0, view.stop, 1), highlight, by_certainty)
    fps = one.sessions[0].fps
    hover = hover_tool(
        ("time", "$x{time}"),
        ("frame", "$x{frame}"),
        ("syllable", "@image{syllable}"),
        (one.certainty_name, "@image{share}"),
        formatters={"$x": clock_hover(clock_of, fps=fps), "@image": code_text(names)},
    )
    return image.opts(
        responsive=True,
        height=height,
        default_tools=[],
        tools=["xbox_select", "xpan", "xwheel_zoom", "reset", hover],
        active_tools=["xbox_select"],
        toolbar="above",
        xlim=(start, stop),
        ylim=(0, 1),
        yaxis=None,
        xlabel=TIME_AXIS,
        hooks=[
            _polish,
            time_axis_hook(clock_of),
            partial(_tell, view=view, names=names, rows=[session]),
        ],
    ), view


def described(view: BinnedView, n_sessions: int) -> str:
    """Describe how many sessions a view shows, and how fine."""
    n_visible = min(view.step * len(view.shown), n_sessions - view.first)
    what = f"{len(view.shown):,} of {n_visible:,} sessions" if view.step > 1 else ""
    what = what or f"{n_visible:,} session{'s' * (n_visible != 1)}"
    frames = view.frames_per_bin
    each = "single frames" if frames == 1 else f"{frames:,} frames ({_time(view.seconds)}) a column"
    return f"{what}, {each}" + (f"; {view.note}" if view.note else "")


def _set_range(axis: Any, start: float, stop: float, first: float, last: float) -> None:
    """Set what is shown at first, and what there is to show."""
    axis.update(start=start, end=stop, reset_start=first, reset_end=last, bounds=(first, last))


def _polish(plot: Any, _element: Any) -> None:
    polish_figure(plot.state, xgrid=False, ygrid=False)


def _places(low: float, high: float) -> tuple[int, int]:
    """First and last place between two heights."""
    return -math.ceil(high - 0.5 - 1e-6), -math.floor(low + 0.5 + 1e-6)


def _is_range(values: Any) -> bool:
    return values is not None and all(v is not None and np.isfinite(v) for v in values)


def _time(seconds: float) -> str:
    if seconds < 1:
        return f"{seconds * 1000:.0f} ms"
    return f"{seconds:.1f} s" if seconds < 120 else f"{seconds / 60:.1f} min"


# ------------------------------------------------------------------ as a table


def _tell(
    plot: Any, _element: Any, *, view: BinnedView, names: SyllableNames | None, rows: Sequence[str]
) -> None:
    """Hook: a table of runs of syllables in place of the codes that are drawn."""
    attach(plot.state, partial(runs_of_view, view, names, rows))


def runs_of_view(
    view: BinnedView, names: SyllableNames | None, sessions: Sequence[str]
) -> PictureTable:
    """Table of the columns of a view, those of one syllable after the other taken together.

    Parameters
    ----------
    sessions : sequence of str
        Of the rows of the view.

    Returns
    -------
    PictureTable
        ``session``, ``start_s``, ``stop_s``, ``syllable`` (-1 = none), ``name``, and the mean
        ``certainty`` of the columns.
    """
    columns: list[pd.DataFrame] = []
    for name, syllable, certainty in zip(sessions, view.syllable, view.certainty, strict=True):
        start, stop = run_bounds(syllable)
        known = np.isfinite(certainty)
        total = np.append(0.0, np.cumsum(np.where(known, certainty, 0).astype(np.float64)))
        number = np.append(0, np.cumsum(known))
        n_known = number[stop] - number[start]
        with np.errstate(invalid="ignore", divide="ignore"):
            mean = (total[stop] - total[start]) / np.where(n_known, n_known, np.nan)
        found = pd.DataFrame({
            "session": name, "start_s": view.start + start * view.seconds,
            "stop_s": view.start + stop * view.seconds, "syllable": syllable[start],
            "certainty": mean,
        })  # fmt: skip
        columns.append(found[found["syllable"] != AFTER_END])
    rows = pd.concat(columns, ignore_index=True)
    if names is not None:
        called = {
            one: names.label(one) if one >= 0 else "none" for one in set(rows["syllable"].tolist())
        }
        rows.insert(4, "name", [called[one] for one in rows["syllable"].tolist()])
    frames = view.frames_per_bin
    fine = "single frames" if frames == 1 else f"the commonest syllable of each {frames:,} frames"
    every = f"; every {view.step:,}th session" if view.step > 1 else ""
    return PictureTable(rows, (f"runs of {fine}{every}; times count frames at the frame rate",))
