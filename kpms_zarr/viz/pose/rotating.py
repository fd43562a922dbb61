"""Components of poses as figures of Bokeh; those in 3-D are turned in the browser."""

from __future__ import annotations

from typing import Any

import numpy as np
import xarray as xr
from bokeh.models import ColumnDataSource, CustomJS, Range1d
from bokeh.models.widgets import Slider
from bokeh.plotting import figure

from kpms_zarr.store.study.settings import StudySettings
from kpms_zarr.viz.pose.views import pose_frame, project, shown_loading
from kpms_zarr.viz.shared.skeletons import POSE_COLORS, bones
from kpms_zarr.viz.shared.style import FONT, INK, hover_tool

_AZIMUTH, _ELEVATION = 30, 25
IN_A_ROW = 4
"""Figures beside each other."""

_SIZE = 230
_AMOUNTS = (-2, 0, 2)

# The projection of pose_space.project, for every skeleton of every figure.
_TURN = """
const turn = azimuth.value * Math.PI / 180, tilt = elevation.value * Math.PI / 180;
const right = [Math.cos(turn), Math.sin(turn), 0];
const up = [-Math.sin(tilt) * Math.sin(turn), Math.sin(tilt) * Math.cos(turn), Math.cos(tilt)];
const on = (axis, p) => axis[0] * p[0] + axis[1] * p[1] + axis[2] * p[2];
for (let i = 0; i < points.length; i++) {
  const x = poses[i].map(p => on(right, p)), y = poses[i].map(p => on(up, p));
  points[i].data = {...points[i].data, x: x, y: y};
  lines[i].data = {
    xs: bones.map(([a, b]) => [x[a], x[b]]), ys: bones.map(([a, b]) => [y[a], y[b]]),
  };
}
"""


def draw_rotating(
    data: xr.Dataset, settings: StudySettings, *, max_components: int
) -> tuple[list[Slider], list[Any]]:
    """Sliders (of a pose in 3-D) and figures of a group ``pca``.

    The sliders need no Python behind them, so that they work in a saved page.
    """
    names = [str(name) for name in data["keypoint"].values]
    joined = bones(settings.skeleton, names)
    loading = shown_loading(data, max_components)
    poses = data["pose_mean"].values + np.multiply.outer(_AMOUNTS, loading).swapaxes(0, 1)
    middle, half = pose_frame(data, max_components)
    share = 100 * data["explained_variance_ratio"].values
    figures, points, lines = [], [], []
    for number, three in enumerate(poses):
        drawn = _figure(f"component {number + 1}: {share[number]:.1f} %", middle, half)
        for color, amount, pose in zip(POSE_COLORS, _AMOUNTS, three, strict=True):
            point, line = _skeleton(drawn, pose, joined, names, color, f"{amount:+d}")
            points.append(point)
            lines.append(line)
        figures.append(drawn)
    if data.sizes["space"] == 2:
        return [], figures
    args = {"points": points, "lines": lines, "bones": joined}
    args["poses"] = np.round(poses.reshape(-1, *poses.shape[2:]), 4).tolist()
    return _sliders(args), figures


def _figure(title: str, middle: np.ndarray, half: np.ndarray) -> Any:
    drawn: Any = figure(
        title=title,
        frame_width=_SIZE,
        frame_height=round(_SIZE * half[1] / half[0]),
        x_range=Range1d(middle[0] - half[0], middle[0] + half[0]),
        y_range=Range1d(middle[1] - half[1], middle[1] + half[1]),
        tools=[hover_tool(("keypoint", "@keypoint"), ("standard deviations", "@amount"))],
        toolbar_location=None,
    )
    drawn.axis.visible = drawn.grid.visible = False
    drawn.outline_line_color = None
    drawn.title.text_font, drawn.title.text_color = FONT, INK
    drawn.title.text_font_size = "13.0px"
    return drawn


def _skeleton(
    drawn: Any,
    pose: np.ndarray,
    joined: list[tuple[int, int]],
    names: list[str],
    color: str,
    amount: str,
) -> tuple[ColumnDataSource, ColumnDataSource]:
    """Draw a pose; the sources of its points and of its lines."""
    seen = project(pose, _AZIMUTH, _ELEVATION)
    ends = seen[np.array(joined, dtype=np.int64).reshape(-1, 2)]
    line = ColumnDataSource({"xs": ends[..., 0].tolist(), "ys": ends[..., 1].tolist()})
    columns = {"x": seen[:, 0], "y": seen[:, 1], "keypoint": names, "amount": [amount] * len(names)}
    point = ColumnDataSource(columns)
    drawn.multi_line("xs", "ys", source=line, color=color, line_width=2)
    drawn.scatter("x", "y", source=point, color=color, size=6)
    return point, line


def _sliders(args: dict[str, Any]) -> list[Slider]:
    """Sliders that turn the skeletons; ``args`` is what their script needs."""
    azimuth = Slider(
        title="Azimuth (degrees)", start=-180, end=180, step=5, value=_AZIMUTH, width=280
    )
    elevation = Slider(
        title="Elevation (degrees)", start=0, end=90, step=5, value=_ELEVATION, width=280
    )
    turn = CustomJS(args={**args, "azimuth": azimuth, "elevation": elevation}, code=_TURN)
    for slider in (azimuth, elevation):
        slider.js_on_change("value", turn)
    return [azimuth, elevation]
