"""Views of a fitted model as HoloViews objects."""

from __future__ import annotations

import holoviews as hv
import numpy as np
import xarray as xr

from kpms_zarr.store.core.access import StoreLike
from kpms_zarr.store.model import models
from kpms_zarr.viz.ethograms.views import bouts, ethogram
from kpms_zarr.viz.fit.denoised import denoised
from kpms_zarr.viz.fit.traces import traces
from kpms_zarr.viz.shared import reading
from kpms_zarr.viz.shared.colors import syllable_color
from kpms_zarr.viz.shared.guessing import drawn_settings
from kpms_zarr.viz.shared.skeletons import bones as bones_of
from kpms_zarr.viz.shared.skeletons import moved_poses
from kpms_zarr.viz.shared.style import INK, fixed_frame, frame, hover_tool, load
from kpms_zarr.viz.syllables.transition_counts import TransitionCounts
from kpms_zarr.viz.syllables.transition_views import draw_matrix

__all__ = [
    "bouts",
    "denoised",
    "durations",
    "ethogram",
    "frequencies",
    "poses",
    "traces",
    "transitions",
]

_MAX_BARS = 150
_SHOWN_SHARE = 0.99
_POSE_SIZE = 250


def frequencies(store: StoreLike, *, model: str, version: str | None = None) -> hv.Bars:
    """Share of the frames of each syllable in use, most frequent first.

    Parameters
    ----------
    store : path or URL
    model : str
    version : str, optional

    Returns
    -------
    holoviews.Bars
        kdim syllable; vdims share (%), bouts, median and mean duration (ms).

    Raises
    ------
    InputError
        For a model that does not exist.
    MissingData
        When the version has no statistics.
    """
    load()
    labels = models.open_labels(store, model, version)
    names = ("frequency", "n_bouts", "median_duration", "mean_duration")
    reading.require(labels, names, store, "labels")
    reading.require_bouts(labels, store)
    used = reading.used_states(labels)
    columns = [labels[name].values[used] for name in names]
    table = (
        used.astype(str),
        100 * columns[0],
        *columns[1:],
        np.asarray([syllable_color(int(state)) for state in used], dtype=object),
    )
    hover = hover_tool(
        [
            ("syllable", "@syllable"),
            ("share of the frames", "@share{0.0} %"),
            ("bouts", "@bouts{0,0}"),
            ("median duration", "@median{0} ms"),
            ("mean duration", "@mean{0} ms"),
        ]
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


def durations(store: StoreLike, *, model: str, version: str | None = None) -> hv.Overlay:
    """Durations of the bouts of all syllables, the median marked.

    Parameters
    ----------
    store : path or URL
    model : str
    version : str, optional

    Returns
    -------
    holoviews.Overlay
        A Histogram over ms (share of the bouts in %, count), a line and its text. The axis ends
        where 99 % of the bouts are shown.

    Raises
    ------
    InputError
        For a model that does not exist.
    MissingData
        When the version has no statistics.
    """
    labels = models.open_labels(store, model, version)
    reading.require(labels, ("duration_count", "duration", "frequency"), store, "labels")
    reading.require_bouts(labels, store)
    return draw_durations(labels)


def draw_durations(labels: xr.Dataset) -> hv.Overlay:
    """What :func:`durations` returns, of counts that are there already.

    Parameters
    ----------
    labels : Dataset
        With ``duration_count`` (state, duration) and ``duration`` (duration) in ms.
    """
    load()
    of_all = labels["duration_count"].sum("state").values
    edges, (count,) = reading.duration_bins(
        of_all[None], labels["duration"].values, most=_MAX_BARS, shown=_SHOWN_SHARE
    )
    share = 100 * count / max(int(of_all.sum()), 1)
    median = reading.overall_median(labels)
    top = 1.2 * max(share.max(), 1e-9)
    hover = hover_tool(
        [
            ("duration", "@left{0} to @right{0} ms"),
            ("bouts", "@count{0,0} (@share{0.0} %)"),
        ]
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


def transitions(store: StoreLike, *, model: str, version: str | None = None) -> hv.HeatMap:
    """Which syllable follows which, for the syllables in use (at most 40), by frequency.

    Parameters
    ----------
    store : path or URL
    model : str
    version : str, optional

    Returns
    -------
    holoviews.HeatMap
        kdims next and syllable; vdims share (% of all changes from the syllable, also those to
        syllables that are not shown) and changes (count).

    Raises
    ------
    InputError
        For a model that does not exist.
    MissingData
        When the version has no statistics.
    """
    load()
    labels = models.open_labels(store, model, version)
    reading.require(labels, ("transition_count", "frequency"), store, "labels")
    reading.require_bouts(labels, store)
    changes, frequency = labels["transition_count"].values, labels["frequency"].values
    n_sessions = len(reading.label_sessions(labels))
    return draw_matrix(TransitionCounts(changes, np.nan_to_num(frequency), n_sessions))


def poses(
    store: StoreLike, *, model: str, version: str | None = None, max_latent: int = 8
) -> hv.Layout:
    """What each latent dimension does to the aligned pose, seen in the first two axes.

    Parameters
    ----------
    store : path or URL
    model : str
    version : str, optional
    max_latent : int

    Returns
    -------
    holoviews.Layout
        An Overlay of skeletons at -2, 0 and +2 standard deviations for each dimension.

    Raises
    ------
    InputError
        For a model that does not exist.
    MissingData
        When the version has no pose components.
    """
    load()
    data = reading.parameters(store, model, version)
    reading.require(data, ("pose_loading", "pose_mean", "keypoint"), store, "parameters")
    names = [str(name) for name in data["keypoint"].values]
    mean = data["pose_mean"].values[:, :2]
    loading = data["pose_loading"].values[:max_latent, :, :2]
    joined = bones_of(drawn_settings(store).skeleton, names)
    points = mean + 2 * np.concatenate([loading, -loading])
    middle = (points.max((0, 1)) + points.min((0, 1))) / 2
    half = 0.55 * np.maximum(np.ptp(points, axis=(0, 1)), 1e-9)
    half = np.maximum(half, half[::-1] * np.array([0.7, 0.4]))
    style = fixed_frame(middle, half, width=_POSE_SIZE)
    panels = [
        hv.Overlay(moved_poses(mean, move, joined, names)).opts(title=f"latent {index}", **style)
        for index, move in enumerate(loading)
    ]
    return hv.Layout(panels).cols(4)
