"""Style that all views share, and loading the plotting backend once."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any
from weakref import WeakMethod

import holoviews as hv
import numpy as np
from bokeh.models import (
    Axis,
    BoxZoomTool,
    CustomJSHover,
    CustomJSTickFormatter,
    HoverTool,
    LinearAxis,
    LogAxis,
    Range1d,
)

from kpms_zarr.viz.shared.times import TIME_AXIS, on_time_axis

INK = "#1f2933"
LINE = "#0b5394"
MUTED = "#52606d"
_GRID = "#e4e7eb"
FONT = "system-ui, -apple-system, 'Segoe UI', Roboto, 'Helvetica Neue', Arial, sans-serif"


def load() -> None:
    """Load the Bokeh backend of HoloViews, unless it is there already."""
    if "bokeh" not in hv.Store.renderers:
        hv.extension("bokeh", logo=False)


def frame(
    height: int,
    *,
    hover: HoverTool | None = None,
    xgrid: bool = True,
    ygrid: bool = True,
    **options: Any,
) -> dict[str, Any]:
    """Options of a plot as wide as its place, with tools for the time or x axis.

    Parameters
    ----------
    height : int
        In px.
    xgrid, ygrid : bool
        Whether grid lines are drawn across that axis.
    **options
        HoloViews options of the element on top of these.
    """
    return {
        "responsive": True,
        "height": height,
        "default_tools": [],
        "tools": [
            BoxZoomTool(dimensions="width"),
            "xpan",
            "xwheel_zoom",
            "reset",
            *([hover] if hover else []),
        ],
        "active_tools": ["box_zoom"],
        "hooks": [partial(_polish, xgrid=xgrid, ygrid=ygrid)],
        **options,
    }


def fixed_frame(middle: np.ndarray, half: np.ndarray, *, width: int) -> dict[str, Any]:
    """Options of a drawing of poses: no axes, one scale for both directions, a size of its own.

    Parameters
    ----------
    middle, half : ndarray, (2,)
        Middle and half lengths of what is seen, right and up.
    width : int
        In px, without the title.
    """
    return {
        "hooks": [*frame(0, xgrid=False, ygrid=False)["hooks"], size_from_frame],
        "frame_width": width,
        "frame_height": round(width * half[1] / half[0]),
        "default_tools": [],
        "toolbar": None,
        "xlim": (middle[0] - half[0], middle[0] + half[0]),
        "ylim": (middle[1] - half[1], middle[1] + half[1]),
        "xaxis": None,
        "yaxis": None,
        "show_legend": False,
    }


def size_from_frame(plot: Any, _element: Any) -> None:
    """Hook: HoloViews asks for fixed sizing, to which Bokeh wants outer sizes as well."""
    plot.state.sizing_mode = None


def weakly(method: Callable[[Any, Any], None]) -> Callable[[Any, Any], None]:
    """Make a hook of a method without keeping its object alive.

    HoloViews keeps the hooks of an element for as long as the element lives: for ever, where a
    hook holds what holds the element.
    """
    found = WeakMethod(method)

    def hook(plot: Any, element: Any) -> None:
        alive = found()
        if alive is not None:
            alive(plot, element)

    return hook


def second_axis(label: str, *, scale: float) -> Callable[[Any, Any], None]:
    """Hook: an axis on the right for the same curve in units of ``scale``."""

    def add(plot: Any, _element: Any) -> None:
        figure = plot.state
        left = figure.y_range
        figure.extra_y_ranges = {"second": Range1d(left.start / scale, left.end / scale)}
        axis = LinearAxis(y_range_name="second", axis_label=label)
        figure.add_layout(axis, "right")
        _polish_axis(axis)

    return add


def _polish(plot: Any, _element: Any, *, xgrid: bool, ygrid: bool) -> None:
    """Hook: the look of all views, and no way to scroll away from the data."""
    figure = plot.state
    polish_figure(figure, xgrid=xgrid, ygrid=ygrid)
    if isinstance(figure.x_range, Range1d):
        figure.x_range.update(bounds=(figure.x_range.start, figure.x_range.end))


def polish_figure(figure: Any, *, xgrid: bool = True, ygrid: bool = True) -> None:
    """Give a Bokeh figure dark legible text, a light grid and no logo.

    Parameters
    ----------
    xgrid, ygrid : bool
        Whether grid lines are drawn across that axis.
    """
    figure.output_backend = "canvas"
    figure.toolbar.logo = None
    figure.outline_line_color = None
    figure.title.text_font = FONT
    # "13px" is the default of Bokeh, which the theme of HoloViews would replace.
    figure.title.text_font_size = "13.0px"
    figure.title.text_color = INK
    for axis in figure.axis:
        _polish_axis(axis)
    figure.grid.grid_line_color = _GRID
    figure.xgrid.visible, figure.ygrid.visible = xgrid, ygrid


def _polish_axis(axis: Axis) -> None:
    if axis.axis_label == TIME_AXIS and not isinstance(axis.formatter, CustomJSTickFormatter):
        on_time_axis(axis)
    axis.axis_label_text_font = axis.major_label_text_font = FONT
    axis.axis_label_text_font_style = "normal"
    axis.axis_label_text_font_size = "13px"
    axis.major_label_text_font_size = "12px"
    axis.axis_label_text_color = axis.major_label_text_color = INK
    axis.axis_line_color = axis.major_tick_line_color = MUTED
    if not isinstance(axis, LogAxis):
        axis.minor_tick_line_color = None


def hover_tool(*rows: tuple[str, str], **options: Any) -> HoverTool:
    """Hover box of names and values, in dark text (Bokeh's own names are too pale to read).

    Parameters
    ----------
    *rows : (str, str)
        Name, and value with Bokeh's ``@column{format}``; the browser escapes what it fills in.
    **options
        Of ``bokeh.models.HoverTool``.
    """
    cell = f'<td style="text-align:right;color:{MUTED}">{{}}&nbsp;</td><td>{{}}</td>'
    body = "".join(f"<tr>{cell.format(name, value)}</tr>" for name, value in rows)
    style = f"font:12px {FONT};color:{INK}".replace('"', "'")
    return HoverTool(tooltips=f'<table style="{style}">{body}</table>', **options)


def syllable_name(code: str = "value") -> CustomJSHover:
    """Hover text of a label in the browser."""
    return CustomJSHover(
        code=f"""
        const label = {code};
        return Number.isFinite(label) ? (label < 0 ? "none" : String(label)) : "after the end";
        """
    )


def short(name: str, length: int = 26) -> str:
    """Shorten a long name in its middle, for axes."""
    if len(name) <= length:
        return name
    head = (length - 1) // 2
    return f"{name[:head]}…{name[head + 1 - length :]}"


UNIT = "tracking units"
"""Units of position: those of the tracking files, usually px."""
