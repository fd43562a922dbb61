"""Pose space: variance by component, effect of components, densities of groups."""

from __future__ import annotations

import os

import holoviews as hv
import numpy as np
import xarray as xr
from bokeh.models import PrintfTickFormatter

from kpms_zarr.store.core import access, layout
from kpms_zarr.store.core.access import StoreLike
from kpms_zarr.store.errors import InputError
from kpms_zarr.store.model import models
from kpms_zarr.store.study.settings import StudySettings
from kpms_zarr.store.wording import call
from kpms_zarr.viz.pose.data import Scores, groups, sample_scores
from kpms_zarr.viz.shared import skeletons
from kpms_zarr.viz.shared.guessing import drawn_settings
from kpms_zarr.viz.shared.opened import ModelLike, OpenModel
from kpms_zarr.viz.shared.style import INK, LINE, fixed_frame, frame, hover_tool, load, short

_MAX_SCREE = 40
_POSE_SIZE = 230
_BAR = "#8fb3d9"
_DECADES = 1e3  # From the fullest cell down to the lightest colour.
_LEAST_SHARE = 0.001  # Of the variance: components with less move nothing that can be seen.


def open_pca(store: StoreLike) -> xr.Dataset:
    """The group ``pca`` of a store (see ``schema.PCA``).

    Raises
    ------
    InputError
        When the store has none yet.
    """
    if not access.made(access.open_group(store), layout.PCA):
        raise InputError(
            expected="principal components of the pose",
            found="a store without",
            where=os.fspath(store),
            fix=f"run: {call('pca', store)}",
        )
    return access.dataset(store, layout.PCA)


def scree(store: StoreLike) -> hv.Overlay:
    """Scree plot: share of the variance of the pose in each principal component.

    Parameters
    ----------
    store : path or URL

    Returns
    -------
    holoviews.Overlay
        Bars (Histogram, one bin a component) of the share and a Curve of the cumulative share,
        both in %, and a line after the components that a fit takes unless told otherwise. At
        most 40 components.

    Raises
    ------
    InputError
        When the store has no components yet.
    """
    load()
    return draw_scree(open_pca(store))


def components(
    store: StoreLike,
    *,
    max_components: int = 8,
    azimuth: float = 30.0,
    elevation: float = 25.0,
) -> hv.Layout:
    """Principal components as deformed skeletons.

    Parameters
    ----------
    store : path or URL
    max_components : int
        At most so many, of those that hold 0.1 % of the variance or more.
    azimuth, elevation : float
        From where a pose in 3-D is seen, in degrees: 0 and 90 = from above, the animal facing
        right. A pose in 2-D is seen from above.

    Returns
    -------
    holoviews.Layout
        An Overlay a component of skeletons at -2, 0 and +2 standard deviations.

    Raises
    ------
    InputError
        When the store has no components yet.
    """
    load()
    return draw_components(
        open_pca(store),
        drawn_settings(store),
        max_components=max_components,
        azimuth=azimuth,
        elevation=elevation,
    )


def scores(
    store: StoreLike,
    *,
    model: ModelLike | None = None,
    version: str | None = None,
    by: str | None = "group",
    dims: tuple[int, int] = (0, 1),
    seed: int = 0,
) -> hv.Layout:
    """Densities of the groups of a study in the space of poses.

    Parameters
    ----------
    store : path or URL
    model : str or OpenModel, optional
        (Default: the first by name.)
    version : str, optional
        Of its labels.
    by : str, optional
        Coordinate of the sessions that makes the groups: at most the 12 with most sessions are
        shown. None, or a store without ``group``: all sessions together.
    dims : (int, int)
        Latent dimensions across and upwards.
    seed : int
        Of the sample: at most 48 blocks of 16,384 frames are read, equally many of each group.

    Returns
    -------
    holoviews.Layout
        A QuadMesh a group: share of its frames in each cell in %, on common axes and
        colours (logarithmic).

    Raises
    ------
    InputError
        When there is no such model, no such coordinate, or no such dimension.
    MissingData
        When the version has no latent poses.
    """
    load()
    if model is None:
        names = [info.name for info in models.list_models(store)]
        model = names[0] if names else "first"
    opened = OpenModel.of(store, model, version)
    labels = opened.labels_with("latent")
    of_group = groups(opened.sessions, opened.tracked, by)
    return draw_scores(sample_scores(labels, of_group, by=by or "", dims=dims, seed=seed))


# ------------------------------------------------------------------ drawing


def draw_scree(data: xr.Dataset) -> hv.Overlay:
    """Draw the scree plot of a group ``pca``."""
    ratio = 100 * data["explained_variance_ratio"].values
    shown = ratio[:_MAX_SCREE]
    number = np.arange(1, len(shown) + 1)
    taken = int(data.attrs["n_components"])
    hover = hover_tool(("component", "@number"), ("share", "@share{0.0} %"))
    style = {
        **frame(280, hover=hover, xgrid=False),
        "xlim": (0.4, max(len(shown), taken) + 0.6),
        "ylim": (0, 105),
        "xlabel": "principal component",
        "ylabel": "share of the variance (%)",
        "xticks": [int(n) for n in number[:: max(1, -(-len(number) // 20))]],
        "toolbar": None,
        "title": f"{taken} components hold {ratio[:taken].sum():.1f} % of the variance",
        "fontsize": {"title": "13px"},
    }
    edges = np.arange(len(shown) + 1) + 0.5
    bars = hv.Histogram((edges, shown, number), kdims=["component"], vdims=["share", "number"])
    total = hv.Curve((number, np.cumsum(ratio)[:_MAX_SCREE]), ["component"], ["cumulative"])
    dots = hv.Scatter(
        (number, np.cumsum(ratio)[:_MAX_SCREE], number), ["component"], ["share", "number"]
    )
    line = hv.VLine(taken + 0.5).opts(
        color=INK, line_width=1.5, line_dash="dashed", default_tools=[]
    )
    word = hv.Text(taken + 0.5, 8, "  a fit takes those to the left", halign="left").opts(
        color=INK, text_font_size="12px", default_tools=[]
    )
    parts = [
        bars.opts(fill_color=_BAR, line_color="white", **style),
        total.opts(color=LINE, line_width=2, default_tools=[]),
        dots.opts(color=LINE, size=6, default_tools=[], tools=[hover]),
        line,
        word,
    ]
    return hv.Overlay(parts).opts(**style, show_legend=False)


def project(pose: np.ndarray, azimuth: float, elevation: float) -> np.ndarray:
    """Parallel projection of poses.

    Parameters
    ----------
    pose : ndarray, (..., space)
        2-D ones stay as they are.
    azimuth, elevation : float
        In degrees.

    Returns
    -------
    ndarray, (..., 2)
        Right and up.
    """
    if pose.shape[-1] == 2:
        return pose
    turn, tilt = np.deg2rad([azimuth, elevation])
    right = [np.cos(turn), np.sin(turn), 0.0]
    up = [-np.sin(tilt) * np.sin(turn), np.sin(tilt) * np.cos(turn), np.cos(tilt)]
    return pose @ np.array([right, up]).T


def draw_components(
    data: xr.Dataset,
    settings: StudySettings,
    *,
    max_components: int,
    azimuth: float = 30.0,
    elevation: float = 25.0,
) -> hv.Layout:
    """Skeletons of the components of a group ``pca``, four in a row."""
    names = [str(name) for name in data["keypoint"].values]
    mean = project(data["pose_mean"].values, azimuth, elevation)
    loading = project(shown_loading(data, max_components), azimuth, elevation)
    joined = skeletons.bones(settings.skeleton, names)
    style = fixed_frame(*pose_frame(data, max_components), width=_POSE_SIZE)
    share = 100 * data["explained_variance_ratio"].values
    panels = [
        hv.Overlay(skeletons.moved_poses(mean, move, joined, names)).opts(
            title=f"component {number + 1}: {share[number]:.1f} %", **style
        )
        for number, move in enumerate(loading)
    ]
    return hv.Layout(panels).cols(4)


def shown_loading(data: xr.Dataset, max_components: int) -> np.ndarray:
    """Components that are drawn: (component, keypoint, space), one at least."""
    ratio = data["explained_variance_ratio"].values
    n_seen = max(1, int((ratio >= _LEAST_SHARE).sum()))
    return data["pose_loading"].values[: min(max_components, n_seen)]


def pose_frame(data: xr.Dataset, max_components: int) -> tuple[np.ndarray, np.ndarray]:
    """Middle and half lengths (right and up) of a frame that all the skeletons fit into.

    Those of a pose in 3-D fit into it from any side.
    """
    loading = shown_loading(data, max_components)
    points = data["pose_mean"].values + 2 * np.concatenate([loading, -loading])
    if points.shape[-1] == 3:
        reach = 1.05 * max(float(np.linalg.norm(points, axis=-1).max()), 1e-9)
        return np.zeros(2), np.array([reach, reach])
    half = 0.55 * np.maximum(np.ptp(points, axis=(0, 1)), 1e-9)
    return (
        (points.max((0, 1)) + points.min((0, 1))) / 2,
        np.maximum(half, half[::-1] * np.array([0.7, 0.4])),
    )


def draw_scores(scores: Scores) -> hv.Layout:
    """Draw the densities of the groups, three in a row."""
    top = 100 * max((share.max() for share in scores.share.values()), default=0.0)
    hover = hover_tool(
        (f"latent {scores.dims[0]}", "@across{0.00}"),
        (f"latent {scores.dims[1]}", "@up{0.00}"),
        ("share of the frames", "@share{0.000} %"),
    )
    across, up = scores.edges
    panels = []
    for name, share in scores.share.items():
        n_sessions = scores.n_sessions[name]
        mesh = hv.QuadMesh(
            (across, up, 100 * np.where(share > 0, share, np.nan)),
            kdims=["across", "up"],
            vdims=["share"],
        )
        panels.append(
            mesh.opts(
                **frame(290, hover=hover),
                title=f"{short(name, 24)} ({n_sessions} session{'s' if n_sessions > 1 else ''})",
                fontsize={"title": "13px"},
                cmap="viridis_r",
                logz=True,
                clim=(top / _DECADES, top) if top else (0.1, 1.0),
                clipping_colors={"NaN": (0, 0, 0, 0)},
                colorbar=True,
                clabel="",
                colorbar_opts={"formatter": PrintfTickFormatter(format="%g %%")},
                xlim=(across[0], across[-1]),
                ylim=(up[0], up[-1]),
                xlabel=f"latent {scores.dims[0]}",
                ylabel=f"latent {scores.dims[1]}",
                toolbar=None,
            )
        )
    return hv.Layout(panels).cols(3)
