"""Poses of bouts as drawings: HoloViews objects, and small pictures (SVG) for many at once."""

from __future__ import annotations

import html
from collections.abc import Sequence
from functools import partial
from typing import Any

import holoviews as hv
import numpy as np
import pandas as pd

from kpms_zarr.viz.shared.colors import syllable_color
from kpms_zarr.viz.shared.picture_data import PictureTable
from kpms_zarr.viz.shared.style import INK, UNIT, hover_tool, polish_figure
from kpms_zarr.viz.syllables.data import Trajectory

AXES = (f"ahead ({UNIT})", f"across ({UNIT})", f"up ({UNIT})")
"""Labels of the axes of poses as the animal sees them at the onset of a bout."""

_COLUMNS = ("ahead", "across", "up")
_FIRST_SHARE = 0.4
"""Of its colour that the pose at the onset has; the last one has all of it."""


def faded(color: str, share: float) -> str:
    """Mix a colour with white so that ``share`` of it is left."""
    parts = (int(color[i : i + 2], 16) for i in (1, 3, 5))
    return "#" + "".join(f"{round(255 - share * (255 - part)):02x}" for part in parts)


def fading(color: str, n: int) -> list[str]:
    """Colours of poses from the first to the last."""
    return [faded(color, share) for share in np.linspace(_FIRST_SHARE, 1, n)]


def extent(trajectories: Sequence[Trajectory], aspect: float = 0.75) -> np.ndarray:
    """Middle and half length along each axis of a box around some poses.

    Parameters
    ----------
    aspect : float
        Height of the box by its width.

    Returns
    -------
    ndarray, (2, space)
    """
    points = np.concatenate([one.pose.reshape(-1, one.pose.shape[-1]) for one in trajectories])
    points = points[np.isfinite(points).all(1)]
    if not len(points):
        return np.array([[0.0] * points.shape[1], [1.0, *[aspect] * (points.shape[1] - 1)]])
    low, high = points.min(0), points.max(0)
    half = 0.58 * np.maximum(high - low, 1e-9)
    half[0] = max(half[0], half[1:].max() / aspect)
    half[1:] = half[0] * aspect
    return np.stack([(low + high) / 2, half])


def draw(
    trajectory: Trajectory,
    *,
    width: int,
    half: np.ndarray | None = None,
    title: str = "",
    labels: bool = True,
) -> list[hv.Overlay]:
    """Poses as drawings: one in two dimensions, from above and from the side in three.

    Parameters
    ----------
    width : int
        In px; the height is three quarters of it.
    half : ndarray, optional
        Result of :func:`extent` (default: of these poses).
    labels : bool
        Whether the axes have labels.

    Returns
    -------
    list of holoviews.Overlay
    """
    box = extent([trajectory]) if half is None else half
    sides = [(1, "from above"), (2, "from the side")] if trajectory.is_3d else [(1, "")]
    views = []
    for axis, side in sides:
        (x, y), (dx, dy) = box[0][[0, axis]], box[1][[0, axis]]
        ylim = (y - dy, y + dy)
        style = {
            "hooks": [partial(_shape, is_down=not trajectory.is_3d)],
            "frame_width": width,
            "frame_height": round(width * 0.75),
            "default_tools": [],
            "toolbar": None,
            "xlim": (x - dx, x + dx),
            "ylim": ylim,
            "xlabel": AXES[0],
            "ylabel": AXES[axis],
            "title": ", ".join(text for text in (title, side) if text),
            "show_legend": False,
            **({} if labels else {"xaxis": None, "yaxis": None}),
        }
        views.append(hv.Overlay(_skeletons(trajectory, axis)).opts(**style))
    return views


def _skeletons(trajectory: Trajectory, axis: int) -> list[hv.Element]:
    """Draw all poses as one Segments and one Points, larger and with a rim at the front."""
    colors = fading(syllable_color(trajectory.syllable), len(trajectory.seconds))
    flat = trajectory.pose[..., [0, axis]]
    n_moments, n_keypoints = flat.shape[:2]
    joined = np.asarray(trajectory.bones, dtype=np.int64).reshape(-1, 2)
    ends = flat[:, joined].reshape(-1, 4)  # (moment and bone, x0 y0 x1 y1)
    lines = (*ends.T, np.repeat(colors, len(joined)))
    is_front = np.isin(np.arange(n_keypoints), trajectory.front)
    table = (
        flat[..., 0].ravel(),
        flat[..., 1].ravel(),
        np.repeat(colors, n_keypoints),
        list(trajectory.keypoints) * n_moments,
        np.repeat(1000 * trajectory.seconds, n_keypoints),
        np.tile(np.where(is_front, 9, 4), n_moments),
        np.where(np.tile(is_front, n_moments), INK, np.repeat(colors, n_keypoints)),
    )
    hover = hover_tool(("keypoint", "@keypoint"), ("after the onset", "@time{0} ms"))
    names = ["color", "keypoint", "time", "size", "rim"]
    points = hv.Points(table, kdims=["x", "y"], vdims=names).opts(
        color="color", size="size", line_color="rim", tools=[hover], default_tools=[]
    )
    segments = hv.Segments(lines, kdims=["x", "y", "x_end", "y_end"], vdims=["color"]).opts(
        color="color", line_width=2.5, default_tools=[]
    )
    return [segments, points]


def _shape(plot: Any, _element: Any, *, is_down: bool) -> None:
    """Hook: the look, and in two dimensions the second axis down, as videos show it."""
    figure = plot.state
    polish_figure(figure)
    figure.sizing_mode = None  # HoloViews asks for fixed, to which Bokeh wants outer sizes too
    low, high = sorted([figure.y_range.start, figure.y_range.end])
    if is_down:
        figure.y_range.update(start=high, end=low)


def picture(trajectory: Trajectory, *, half: np.ndarray, label: str) -> str:
    """Poses as an SVG picture that takes the width of its place.

    Parameters
    ----------
    half : ndarray, (2, space)
        Result of :func:`extent`.
    label : str
        What those hear who do not see it.

    Returns
    -------
    str
        ``<svg ...>``; in three dimensions from above on the left, from the side on the right.
    """
    axes = (1, 2) if trajectory.is_3d else (1,)
    scale = 100 / half[1, 0]
    views = [_marks(trajectory, half, axis, scale, 200.0 * n) for n, axis in enumerate(axes)]
    box = f"0 0 {200 * len(axes)} {200 * half[1, 1] / half[1, 0]:.0f}"
    return (
        f'<svg viewBox="{box}" role="img" aria-label="{html.escape(label)}" '
        f'xmlns="http://www.w3.org/2000/svg">{"".join(views)}</svg>'
    )


def poses_table(trajectory: Trajectory) -> PictureTable:
    """Poses as a table: a row for each moment and keypoint."""
    n_moments, n_keypoints, n_space = trajectory.pose.shape
    columns = {
        "syllable": np.full(n_moments * n_keypoints, trajectory.syllable),
        "after_onset_s": np.repeat(trajectory.seconds, n_keypoints),
        "keypoint": list(trajectory.keypoints) * n_moments,
    }
    flat = trajectory.pose.reshape(-1, n_space)
    columns |= {name: flat[:, axis] for axis, name in enumerate(_COLUMNS[:n_space])}
    bouts = f", median of {trajectory.n_examples:,} bouts" if trajectory.n_examples > 1 else ""
    note = f"seen from the animal at the onset, in {UNIT}{bouts}"
    return PictureTable(pd.DataFrame(columns), (note,))


def _marks(trajectory: Trajectory, half: np.ndarray, axis: int, scale: float, left: float) -> str:
    """Lines and dots of the poses, in units of the picture."""
    colors = fading(syllable_color(trajectory.syllable), len(trajectory.seconds))
    x = left + 100 + (trajectory.pose[..., 0] - half[0, 0]) * scale
    # In two dimensions the second axis goes down, as in videos.
    down = -1 if trajectory.is_3d else 1
    y = scale * half[1, axis] + (trajectory.pose[..., axis] - half[0, axis]) * scale * down
    parts = []
    for moment, color in enumerate(colors):
        spots = [f"{a:.1f},{b:.1f}" for a, b in zip(x[moment], y[moment], strict=True)]
        if not np.isfinite(x[moment]).all():
            continue
        lines = "".join(f"M{spots[a]}L{spots[b]}" for a, b in trajectory.bones)
        parts.append(
            f'<path d="{lines}" fill="none" stroke="{color}" stroke-width="3" '
            'stroke-linecap="round"/>'
        )
        shown = range(len(spots)) if not trajectory.bones else trajectory.front
        parts += [
            f'<circle cx="{x[moment, row]:.1f}" cy="{y[moment, row]:.1f}" r="5" fill="{color}" '
            f'stroke="{INK}"/>'
            for row in shown
        ]
    return "".join(parts)
