"""Occupancy over minutes or days: positions gathered into cells by Datashader."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from types import ModuleType
from typing import Any, NamedTuple

import holoviews as hv
import numpy as np
import pandas as pd
from bokeh.models import BoxZoomTool, CustomJSHover, PrintfTickFormatter

from kpms_zarr.store.core.access import Session, StoreLike
from kpms_zarr.store.core.schema import FRAMES_PER_CHUNK, LABEL_FRAMES_PER_CHUNK
from kpms_zarr.store.errors import InputError
from kpms_zarr.store.study.tracking import read_tracked
from kpms_zarr.viz.player.data import OpenSession, no_time, open_session, tracked_middle
from kpms_zarr.viz.shared.extra import require
from kpms_zarr.viz.shared.reading import MissingData, sampled
from kpms_zarr.viz.shared.style import UNIT, frame, hover_tool, load, size_from_frame, weakly
from kpms_zarr.viz.shared.times import clock

MAX_BLOCKS = 128
"""Blocks of 16,384 frames that are read; of longer times a regular sample."""

_READERS = 8
_WIDTH, _MIN_HEIGHT, _MAX_HEIGHT = 620, 200, 520  # px
_MARGIN = 1.04
_FRAMES_IN_A_CELL = 10
_FEWEST_CELLS, _MOST_CELLS = 32, 240  # Along the longer side.
_APART = 1.0  # s between two visits of a place.


@dataclass(frozen=True)
class Places:
    """Positions of an animal, seen from above.

    Attributes
    ----------
    start, stop : int
        Frames that were asked for.
    frame : ndarray, (frame,) int32
        Those that were read, have a position, and the syllable that was asked for.
    position : DataFrame
        ``x`` and ``y`` (float32) of these frames, in units of position.
    low, high : ndarray, (2,)
        Ends of all positions that were read, of whatever syllable.
    n_read : int
        Frames that were read.
    syllable : int
        -1 = of all.
    is_modelled : bool
        Whether it is the centroid of the model, or the median of the tracked keypoints.
    """

    session: Session
    start: int
    stop: int
    frame: np.ndarray
    position: pd.DataFrame
    low: np.ndarray
    high: np.ndarray
    n_read: int
    syllable: int
    is_modelled: bool

    @property
    def seconds_each(self) -> float:
        """Seconds that a frame stands for; more than its own where only a sample was read."""
        return (self.stop - self.start) / max(1, self.n_read) / self.session.fps

    @property
    def seconds(self) -> float:
        """Seconds that all of the frames stand for."""
        return len(self.frame) * self.seconds_each


@dataclass(frozen=True)
class OccupancyCells:
    """Seconds that an animal spent in square cells.

    Attributes
    ----------
    seconds : ndarray, (row, column)
        Rows upwards along y; NaN where it never was.
    left, bottom, right, top : float
        In units of position.
    """

    seconds: np.ndarray
    left: float
    bottom: float
    right: float
    top: float

    @property
    def side(self) -> float:
        """Width of a cell, in units of position."""
        return (self.right - self.left) / self.seconds.shape[1]


def require_datashader() -> ModuleType:
    """Import Datashader, which gathers millions of points.

    Raises
    ------
    InputError
        When it is not installed.
    """
    return require("datashader", "Datashader, which gathers millions of positions into a picture")


def occupancy(
    store: StoreLike,
    *,
    session: str | None = None,
    model: str | None = None,
    version: str | None = None,
    start: float = 0.0,
    stop: float | None = None,
    syllable: int = -1,
    is_y_down: bool | None = None,
) -> hv.DynamicMap:
    """Map of how long an animal was where, in finer cells where one zooms in.

    Cells are square, and the smaller the more frames there are; the title says how large.
    Zooming needs a running Python (a notebook, a server).

    Parameters
    ----------
    store : path or URL
    session : str, optional
        Name (default: the first).
    model : str, optional
        Whose centroids are shown (default: the median of the tracked keypoints of each frame).
    version : str, optional
        Of its labels (default: the current one).
    start, stop : float
        In s of the session (default: all of it). Of more than 128 blocks of 16,384 frames a
        regular sample is read.
    syllable : int
        Only frames with this label; -1 = all.
    is_y_down : bool, optional
        Whether y grows downwards, as in pictures (default: in 2-D). A 3-D position is seen from
        above.

    Returns
    -------
    holoviews.DynamicMap
        Of an Image: seconds in each cell.

    Raises
    ------
    InputError
        For a model or a session that does not exist, a time without frames, and where Datashader
        is not installed (extra ``viz``).
    MissingData
        When no frame of this time has a position, or the syllable.
    """
    if syllable >= 0 and model is None:
        raise InputError(
            expected="the model whose syllable is meant",
            found=f"syllable {syllable} without one",
            where="model",
            fix="name it: occupancy(store, model=..., syllable=...)",
        )
    opened = open_session(store, model=model, version=version, session=session)
    fps, n_frames = opened.session.fps, opened.session.n_frames
    end = n_frames / fps if stop is None else min(stop, n_frames / fps)
    if not (np.isfinite(start) and start < end):  # NaN is no time either
        raise no_time(opened.session, start, end)
    last = min(n_frames, max(round(start * fps) + 1, round(end * fps)))
    found = read_places(opened, min(max(0, round(start * fps)), last - 1), last, syllable=syllable)
    is_down = len(opened.data["space"]) == 2 if is_y_down is None else is_y_down
    return Occupancy(found, is_y_down=is_down, name=opened.names.label).plot


# ------------------------------------------------------------------ data


def read_places(opened: OpenSession, start: int, stop: int, *, syllable: int = -1) -> Places:
    """Read positions over a range of frames, or over a regular sample of its blocks.

    Parameters
    ----------
    start, stop : int
        Frames.
    syllable : int
        Only frames with this label; -1 = all.

    Raises
    ------
    InputError
        For a range without frames.
    MissingData
        When no frame has a position, or the syllable.
    """
    session = opened.session
    if not 0 <= start < stop <= session.n_frames:
        raise no_time(session, start / session.fps, stop / session.fps)
    labels = opened.labels
    is_modelled = labels is not None and "centroid" in labels.variables

    def read(part: tuple[int, int]) -> _Part:
        rows = slice(*part)
        if labels is not None and is_modelled:
            position = labels["centroid"][rows].values[:, :2]
        else:
            tracked, _ = read_tracked(opened.data, session.index, rows)
            position = tracked_middle(tracked)[:, :2]
        known = np.isfinite(position).all(1)
        keep = known
        if syllable >= 0:
            keep = known & (
                False if labels is None else labels["syllable"][rows].values == syllable
            )
        chosen = np.flatnonzero(keep)
        return _Part(
            (part[0] + chosen).astype(np.int32),
            position[chosen].astype(np.float32),
            np.min(position[known], axis=0, initial=np.inf),
            np.max(position[known], axis=0, initial=-np.inf),
        )

    parts = sampled(start, stop, MAX_BLOCKS)
    width = LABEL_FRAMES_PER_CHUNK if is_modelled else FRAMES_PER_CHUNK
    with ThreadPoolExecutor(_READERS) as pool:
        found = list(pool.map(read, (one for part in parts for one in _chunks(*part, width))))
    frames = np.concatenate([one.frame for one in found])
    if not len(frames):
        what = "position" if syllable < 0 else f"syllable {syllable} and a position"
        raise MissingData(
            expected=f"frames with a {what}",
            found=f"none from {start / session.fps:.2f} to {stop / session.fps:.2f} s",
            where=f"session {session.name}",
            fix="choose another time, session or syllable",
        )
    position = np.concatenate([one.position for one in found])
    return Places(
        session,
        start,
        stop,
        frames,
        pd.DataFrame({"x": position[:, 0].copy(), "y": position[:, 1].copy()}),
        np.min([one.low for one in found], axis=0).astype(np.float64),
        np.max([one.high for one in found], axis=0).astype(np.float64),
        sum(last - first for first, last in parts),
        syllable,
        is_modelled,
    )


class _Part(NamedTuple):
    frame: np.ndarray
    position: np.ndarray
    low: np.ndarray
    high: np.ndarray


def _chunks(start: int, stop: int, width: int) -> Iterator[tuple[int, int]]:
    """A range of frames cut where chunks of the store end."""
    for first in range(start // width * width, stop, width):
        yield max(start, first), min(stop, first + width)


def gather(
    places: Places,
    x_range: tuple[float, float],
    y_range: tuple[float, float],
) -> OccupancyCells:
    """Count the frames of a part of the arena by cell, in seconds.

    Parameters
    ----------
    x_range, y_range : (float, float)
        In units of position; made longer upwards to whole cells.
    """
    x, y = places.position["x"].values, places.position["y"].values
    is_inside = (x >= x_range[0]) & (x <= x_range[1]) & (y >= y_range[0]) & (y <= y_range[1])
    n_cells = int(np.clip(np.sqrt(is_inside.sum() / _FRAMES_IN_A_CELL), _FEWEST_CELLS, _MOST_CELLS))
    lengths = x_range[1] - x_range[0], y_range[1] - y_range[0]
    side = max(lengths) / n_cells
    n_columns, n_rows = (max(1, int(np.ceil(length / side - 1e-9))) for length in lengths)
    right, top = x_range[0] + n_columns * side, y_range[0] + n_rows * side
    canvas = require_datashader().Canvas(
        plot_width=n_columns,
        plot_height=n_rows,
        x_range=(x_range[0], right),
        y_range=(y_range[0], top),
    )
    count = canvas.points(places.position, "x", "y").values  # rows upwards
    seconds = np.where(count > 0, count * places.seconds_each, np.nan)
    return OccupancyCells(seconds, x_range[0], y_range[0], right, top)


def next_visit(places: Places, x: float, y: float, *, radius: float, after: int = -1) -> int | None:
    """Find the frame at which the animal comes to a place for the next time.

    Parameters
    ----------
    x, y, radius : float
        In units of position.
    after : int
        The visit begins after this frame; where none does, the first one is found.

    Returns
    -------
    int or None
        None where it never was.
    """
    away = np.hypot(places.position["x"].values - x, places.position["y"].values - y)
    frames = places.frame[away <= radius]
    if not len(frames):
        return None
    apart = max(1.0, _APART * places.session.fps)
    began = frames[np.diff(frames, prepend=-(2**30)) > apart]
    later = began[began > after]
    return int(later[0] if len(later) else began[0])


# ------------------------------------------------------------------ drawing


class Occupancy:
    """Map of where an animal was, and what links it with other views.

    Parameters
    ----------
    name : callable
        Gives the name of a syllable.
    on_tap : callable, optional
        Is given x, y and the side of a cell where a person has clicked.

    Attributes
    ----------
    cells : Cells
        What is shown now.
    """

    def __init__(
        self,
        places: Places,
        *,
        is_y_down: bool,
        name: Callable[[int], str] = str,
        on_tap: Callable[[float, float, float], None] | None = None,
    ) -> None:
        load()
        require_datashader()
        self._places, self._is_y_down, self._name, self._on_tap = places, is_y_down, name, on_tap
        self._x, self._y, self._height = _extent(places)
        self.cells = gather(places, self._x, self._y)
        self.plot = hv.DynamicMap(self._image, streams=[hv.streams.RangeXY()])
        self._tap = hv.streams.Tap(source=self.plot)
        self._tap.add_subscriber(self._tapped)

    def _tapped(self, x: float | None, y: float | None) -> None:
        if self._on_tap is not None and x is not None and y is not None:
            self._on_tap(float(x), float(y), self.cells.side)

    def _image(self, x_range: Any = None, y_range: Any = None) -> hv.Image:
        self.cells = cells = gather(
            self._places, _asked(x_range, self._x), _asked(y_range, self._y)
        )
        least = self._places.seconds_each
        most = float(np.nanmax(cells.seconds, initial=1.01 * least))
        hover = hover_tool(
            ("x", "$x{0.0}"),
            ("y", "$y{0.0}"),
            ("time in the cell", "@image{custom}"),
            formatters={"@image": _seconds_text()},
        )
        return hv.Image(
            cells.seconds[::-1],
            bounds=(cells.left, cells.bottom, cells.right, cells.top),
            kdims=["x", "y"],
            # Known, so that HoloViews does not look for the ends where all is empty.
            vdims=[hv.Dimension("seconds", range=(least, most))],
        ).opts(
            frame_width=_WIDTH,
            frame_height=self._height,
            default_tools=[],
            tools=[BoxZoomTool(match_aspect=True), "pan", "wheel_zoom", "reset", hover],
            active_tools=["box_zoom"],
            hooks=[
                *frame(0, xgrid=False, ygrid=False)["hooks"],
                size_from_frame,
                weakly(self._ranges),
            ],
            cmap="viridis_r",
            logz=True,
            clim=(least, most),
            clipping_colors={"NaN": (0, 0, 0, 0)},
            colorbar=True,
            clabel="",
            colorbar_opts={"formatter": PrintfTickFormatter(format="%g s")},
            invert_yaxis=self._is_y_down,
            xlabel=f"x ({UNIT})",
            ylabel=f"y ({UNIT})",
            title=self._title(cells),
            fontsize={"title": "13px"},
        )

    def _title(self, cells: OccupancyCells) -> str:
        places = self._places
        whose = _time(places.seconds)
        if places.syllable >= 0:
            whose += f" of syllable {self._name(places.syllable)}"
        inside = np.nansum(cells.seconds)
        seen = "" if inside > 0.995 * places.seconds else f", {_time(inside)} of it in view"
        n_all = places.stop - places.start
        part = f"; {places.n_read:,} of {n_all:,} frames read" if places.n_read < n_all else ""
        return f"{whose}{seen}; cells of {cells.side:.3g} {UNIT}{part}"

    def _ranges(self, plot: Any, _element: Any) -> None:
        """Hook: the whole arena at first. By xlim and ylim it would be drawn twice."""
        if "whole" in plot.handles:
            return
        plot.handles["whole"] = True
        y = self._y[::-1] if self._is_y_down else self._y
        for axis, (start, stop) in ((plot.state.x_range, self._x), (plot.state.y_range, y)):
            axis.update(start=start, end=stop, reset_start=start, reset_end=stop, bounds=None)


def _seconds_text() -> CustomJSHover:
    """Hover text of a time that may be 0."""
    return CustomJSHover(
        code='return Number.isFinite(value) ? `${value.toPrecision(3)} s` : "none";'
    )


def _time(seconds: float) -> str:
    if seconds >= 60:
        return clock(seconds)
    return f"{seconds:.0f} s" if seconds >= 10 else f"{seconds:.3g} s"


def _asked(wanted: Any, whole: tuple[float, float]) -> tuple[float, float]:
    if wanted is None or any(v is None or not np.isfinite(v) for v in wanted):
        return whole
    low, high = sorted(map(float, wanted))
    return (low, high) if high > low else whole


def _extent(places: Places) -> tuple[tuple[float, float], tuple[float, float], int]:
    """Ranges of x and y that hold all positions, to one scale, and the height in px."""
    low, high = places.low, places.high
    middle, half = (low + high) / 2, _MARGIN * (high - low) / 2
    half = np.maximum(half, max(float(half.max()) * 1e-3, 1e-6, float(np.abs(middle).max()) * 1e-6))
    height = int(np.clip(round(_WIDTH * half[1] / half[0]), _MIN_HEIGHT, _MAX_HEIGHT))
    scale = max(half[0] / _WIDTH, half[1] / height)  # units of position in half a px
    half = scale * np.array([_WIDTH, height])
    x, y = ((float(m - h), float(m + h)) for m, h in zip(middle, half, strict=True))
    return x, y, height
