"""Views of single syllables as HoloViews objects."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import holoviews as hv
import numpy as np

from kpms_zarr.store.model.syllable_names import SyllableNames
from kpms_zarr.viz.shared import reading
from kpms_zarr.viz.shared.colors import syllable_color
from kpms_zarr.viz.shared.opened import OpenModel
from kpms_zarr.viz.shared.style import INK, frame, hover_tool, short
from kpms_zarr.viz.shared.views import view
from kpms_zarr.viz.syllables import data
from kpms_zarr.viz.syllables.data import Trajectory
from kpms_zarr.viz.syllables.drawing import draw, extent
from kpms_zarr.viz.syllables.transition_counts import Neighbours, neighbours_of

_MAX_BARS = 60
_SHOWN_SHARE = 0.99
_SPREAD = 0.28


@view
def trajectory(
    opened: OpenModel,
    *,
    syllable: int,
    width: int = 420,
    gallery: data.Gallery | None = None,
) -> hv.Overlay | hv.Layout:
    """Typical poses of a syllable from the onset of a bout on, lighter ones earlier.

    Medians over up to 20 example bouts, turned so that the animal looks to the right at the onset.

    Parameters
    ----------
    syllable : int
    width : int
        Of the drawing, in px.
    gallery : Gallery, optional
        Where it is open already.

    Returns
    -------
    holoviews.Overlay
        In three dimensions a Layout of one from above and one from the side.

    Raises
    ------
    MissingData
        When the version has no poses.
    """
    known = gallery or data.Gallery(opened)
    opened.check_syllable(syllable)
    found = known.trajectory(syllable)
    views = draw(found, width=width)
    return views[0] if len(views) == 1 else hv.Layout(views).cols(len(views))


@view
def examples(
    opened: OpenModel,
    *,
    syllable: int,
    most: int = 8,
    width: int = 230,
    gallery: data.Gallery | None = None,
) -> hv.Layout:
    """Example bouts of a syllable side by side on the same axes, aligned at the onset.

    Parameters
    ----------
    syllable : int
    most : int
        Bouts at most.
    width : int
        Of each drawing, in px.
    gallery : Gallery, optional
        Where it is open already.

    Returns
    -------
    holoviews.Layout
        An Overlay for each bout (in three dimensions from above and from the side), titled with
        its session and onset.

    Raises
    ------
    MissingData
        When the version has no poses, or there are no bouts long enough.
    """
    known = gallery or data.Gallery(opened)
    opened.check_syllable(syllable)
    found = known.snapshots(syllable, most)
    if not found:
        raise reading.MissingData(
            expected=f"a bout of syllable {syllable} of 0.1 s or more",
            found="none in the sessions that were looked through",
            where=str(opened.store),
            fix="choose a syllable that is used more",
        )
    half = extent([poses for _, poses in found])
    views = []
    for example, poses in found:
        name, onset = short(example.session.name, 18), example.onset / example.session.fps
        title = f"{name}, {onset:.1f} s, {1000 * example.seconds:.0f} ms"
        views += draw(poses, width=width, half=half, title=title, labels=False)
    return hv.Layout(views).cols(4)


@view
def durations(
    opened: OpenModel,
    *,
    syllable: int | Sequence[int],
) -> hv.Overlay:
    """Durations of the bouts of a syllable, or of several on common axes.

    Parameters
    ----------
    syllable : int or sequence of int

    Returns
    -------
    holoviews.Overlay
        A Histogram over ms (share of the bouts in %, count) and a line at the median for each.
        The axis ends where 99 % of the bouts are shown.

    Raises
    ------
    MissingData
        When the version has no statistics.
    """
    labels = opened.labels_with("duration_count", "duration", "median_duration")
    chosen = [syllable] if isinstance(syllable, int | np.integer) else list(syllable)
    for one in chosen:
        opened.check_syllable(one)
    called = opened.names
    of_chosen = labels["duration_count"].values[chosen]
    edges, count = reading.duration_bins(
        of_chosen, labels["duration"].values, max_bins=_MAX_BARS, shown=_SHOWN_SHARE
    )
    total = of_chosen.sum(1)
    share = 100 * count / np.maximum(total, 1)[:, None]
    top = 1.2 * max(float(share.max(initial=0)), 1e-9)
    hover = hover_tool(
        ("duration", "@left{0} to @right{0} ms"), ("bouts", "@count{0,0} (@share{0.0} %)")
    )
    parts: list[Any] = []
    for row, one in enumerate(chosen):
        color, median = syllable_color(one), float(labels["median_duration"][one])
        label = f"{short(called.label(one), 24)}: median {median:.0f} ms"
        bars = hv.Histogram(
            (edges, share[row], count[row]),
            kdims=["duration"],
            vdims=["share", "count"],
            label=label,
        )
        alpha = 0.75 if len(chosen) == 1 else 0.45
        parts.append(bars.opts(fill_color=color, fill_alpha=alpha, line_color=color, tools=[hover]))
        if np.isfinite(median):
            line = hv.VLine(median)
            dash = "dashed" if row == 0 else "dotted"
            parts.append(line.opts(color=INK, line_width=2, line_dash=dash, default_tools=[]))
    style = {
        **frame(260, hover=None),
        "xlim": (float(max(0.0, edges[0])), float(edges[-1])),
        "ylim": (0, top),
        "xlabel": "duration of the bout (ms)",
        "ylabel": "share of the bouts (%)",
    }
    return hv.Overlay(parts).opts(**style, show_legend=True, legend_position="top")


@view
def frequency(
    opened: OpenModel,
    *,
    syllable: int,
    coordinate: str = "",
    frames: np.ndarray | None = None,
) -> hv.Overlay:
    """Share of the frames that a syllable has in each session, by group, and the mean of each.

    Parameters
    ----------
    syllable : int
    coordinate : str
        Of the sessions, such as ``"group"``; "" = all are one group.
    frames : ndarray, optional
        Result of :func:`~kpms_zarr.viz.syllables.data.session_frames` where it is known.

    Returns
    -------
    holoviews.Overlay
        Points (one a session) and Segments (the means).
    """
    opened.check_syllable(syllable)
    table = data.frequency_by_group(opened, syllable=syllable, coordinate=coordinate, frames=frames)
    share, group = table["share"].values, table["group"].values.astype(str)
    groups = sorted(set(group))
    place = np.zeros(len(group))
    means = []
    for number, name in enumerate(groups):
        mine = np.flatnonzero(group == name)
        # Evenly beside each other in the order of the shares, so that points do not hide others.
        rank = np.argsort(np.argsort(share[mine], kind="stable"), kind="stable")
        place[mine] = number + _SPREAD * (2 * ((rank * 0.618034) % 1) - 1)
        means.append((number - 0.36, share[mine].mean(), number + 0.36, share[mine].mean()))
    hover = hover_tool(
        ("session", "@session"), (coordinate or "group", "@group"), ("share", "@share{0.00} %")
    )
    points = hv.Points(
        (place, share, table["session"].values.astype(str), group),
        kdims=["place", "share"],
        vdims=["session", "group"],
    ).opts(color=syllable_color(syllable), line_color="white", size=9, tools=[hover])
    lines = hv.Segments(means, kdims=["x0", "y0", "x1", "y1"]).opts(color=INK, line_width=2)
    style = {
        **frame(260, xgrid=False),
        "xlim": (-0.6, len(groups) - 0.4),
        "ylim": (0, 1.15 * max(float(share.max(initial=0)), 1e-6)),
        "xticks": [(number, short(name, 18)) for number, name in enumerate(groups)],
        "xlabel": coordinate or "one point a session",
        "ylabel": "share of the frames (%)",
    }
    return (points * lines).opts(**style, show_legend=False)


@view
def neighbours(
    opened: OpenModel,
    *,
    syllable: int,
    most: int = 6,
) -> hv.Layout:
    """The syllables that most often come before and after a syllable.

    Parameters
    ----------
    syllable : int
    most : int
        At most so many of each.

    Returns
    -------
    holoviews.Layout
        Two Bars: share of the changes to, and from, the syllable (%), and their count.

    Raises
    ------
    MissingData
        When the version has no statistics.
    """
    changes, called = opened.labels_with("transition_count")["transition_count"], opened.names
    opened.check_syllable(syllable)
    sides = neighbours_of(changes.values, syllable, max_neighbours=most)
    top = 1.1 * max([1.0, *(float(side.share.max(initial=0)) for side in sides)])
    titles = ("comes before", "comes after")
    views = [
        _neighbour_bars(side, called, title, top) for side, title in zip(sides, titles, strict=True)
    ]
    return hv.Layout(views).cols(2)


@view
def compare(
    opened: OpenModel,
    *,
    syllables: tuple[int, int],
    width: int = 380,
    gallery: data.Gallery | None = None,
) -> hv.Layout:
    """Two syllables side by side: typical poses on the same axes.

    Their durations on common axes: :func:`durations` with both.

    Parameters
    ----------
    syllables : (int, int)
    width : int
        Of each drawing, in px.
    gallery : Gallery, optional
        Where it is open already.

    Returns
    -------
    holoviews.Layout
        A column for each syllable; in three dimensions from above and below that from the side.

    Raises
    ------
    MissingData
        When the version has no poses.
    """
    known = gallery or data.Gallery(opened)
    for one in syllables:
        opened.check_syllable(one)
    called = opened.names
    found = [known.trajectory(one) for one in syllables]
    half = extent(found)
    columns = [
        draw(one, width=width, half=half, title=_title(one, called), labels=True) for one in found
    ]
    return hv.Layout([view for row in zip(*columns, strict=True) for view in row]).cols(2)


def _title(trajectory: Trajectory, called: SyllableNames) -> str:
    return short(f"Syllable {called.label(trajectory.syllable)}", 26)


def _neighbour_bars(side: Neighbours, called: SyllableNames, title: str, top: float) -> hv.Bars:
    table = (
        np.asarray([short(called.label(int(one)), 22) for one in side.syllable], dtype=object),
        side.share,
        side.count,
        np.asarray([syllable_color(int(one)) for one in side.syllable], dtype=object),
    )
    hover = hover_tool(
        ("syllable", "@syllable"), ("share of the changes", "@share{0.0} % (@changes{0,0})")
    )
    bars = hv.Bars(table, kdims=["syllable"], vdims=["share", "changes", "color"])
    return bars.opts(
        **frame(
            max(150, 70 + 26 * len(side.syllable)),
            hover=hover,
            ygrid=False,
            color="color",
            line_color=None,
            invert_axes=True,
            invert_yaxis=True,
            ylim=(0, top),
            xlabel="",
            ylabel="share of the changes (%)",
            title=title,
        )
    )


__all__ = ["compare", "durations", "examples", "frequency", "neighbours", "trajectory"]
