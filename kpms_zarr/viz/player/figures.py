"""The figures of a player: pose, place, video, and what changes over time.

What moves lies on the level ``overlay``: a browser paints it without painting axes and all else.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import numpy as np
from bokeh.core.properties import value
from bokeh.models import ColumnDataSource, FixedTicker, Range1d
from bokeh.models.annotations import Label
from bokeh.plotting import figure

from kpms_zarr.viz.player.clocks import axis_clock, hover_clock
from kpms_zarr.viz.shared.skeletons import bones
from kpms_zarr.viz.shared.style import FONT, INK, LINE, MUTED, UNIT, hover_tool, polish_figure
from kpms_zarr.viz.shared.times import TIME_AXIS, clock_ticker

TRACKED, DENOISED, OVERLAY = "Tracked (orange)", "Denoised (blue)", "Keypoints on the video"
"""What can be shown or not."""

TRACKED_COLOR, DENOISED_COLOR = "#d55e00", LINE

AXIS_LABELS = {
    "Egocentric": [f"along the heading ({UNIT})", f"across ({UNIT})"],
    "Centred": [f"x from the centre ({UNIT})", f"y from the centre ({UNIT})"],
    "Arena": [f"x ({UNIT})", f"y ({UNIT})"],
}
"""View -> labels of its axes, in two dimensions."""

_LEFT, _RIGHT = 64, 26
_TOP_HEIGHT = 290

Joined = list[tuple[int, int]]


@dataclass
class Figures:
    """Figures by name, and what the browser moves in them.

    Attributes
    ----------
    figures : dict of str to figure
        ``pose``, ``arena``, perhaps ``video``; ``strip``, perhaps ``certainty``, ``speed``,
        ``heading``, ``detail``.
    parts : dict of str to list of renderers
        What can be shown or not.
    joined : dict of str to list of (int, int)
        Bones of ``observed`` and ``denoised``.
    extra : dict of str to Model
        Other models that the browser changes.
    """

    figures: dict[str, Any] = field(default_factory=dict)
    sources: dict[str, ColumnDataSource] = field(default_factory=dict)
    parts: dict[str, list[Any]] = field(default_factory=dict)
    joined: dict[str, Joined] = field(default_factory=dict)
    extra: dict[str, Any] = field(default_factory=dict)


def space_figures(
    built: Figures,
    *,
    keypoints: tuple[str, ...],
    model_keypoints: tuple[str, ...],
    skeleton: tuple[tuple[str, str], ...],
    with_video: bool,
) -> None:
    """Add the pose, the arena and perhaps the video, empty yet.

    Parameters
    ----------
    built : Figures
        With the source ``path``; gets the figures.
    keypoints, model_keypoints : tuple of str
        As tracked, and as denoised; no names of the latter where nothing is denoised.
    skeleton : tuple of (str, str)
    """
    built.parts = {TRACKED: [], DENOISED: [], OVERLAY: []}
    built.joined = {
        "observed": bones(skeleton, keypoints),
        "denoised": bones(skeleton, model_keypoints),
    }
    _pose(built, keypoints, model_keypoints)
    _arena(built)
    if with_video:
        _video(built, model_keypoints or keypoints)


def time_figures(built: Figures, *, with_labels: bool, with_certainty: bool) -> None:
    """Add the label strip and the traces, which share the axis of time.

    Parameters
    ----------
    built : Figures
        With the sources ``bouts`` and ``traces``; gets the figures.
    with_labels, with_certainty : bool
        Whether there is a strip, and a trace of certainty.
    """
    times = Range1d(start=0, end=1)
    built.extra["time_range"] = times
    traces = built.sources["traces"]
    if "epochs" in built.sources:
        built.figures["epochs"] = _epochs(built, times)
    if with_labels:
        built.figures["strip"] = _strip(built, times)
    if with_certainty:
        certainty = _over_time(times, 62, "certainty", y_range=Range1d(start=0, end=1.05))
        certainty.line("time", "certainty", source=traces, color=LINE)
        certainty.yaxis.ticker = FixedTicker(ticks=[0, 0.5, 1])
        built.figures["certainty"] = certainty
    speed = _over_time(times, 86, "speed\n(units / s)", y_range=Range1d(start=0, end=1))
    speed.line("time", "speed", source=traces, color=LINE)
    frames = built.sources["frames"]
    _hover(speed, [("time", "@time{custom}"), ("speed", "@speed{0.0}")], frames)
    heading = _over_time(times, 86, "heading\n(rad)", y_range=Range1d(start=-3.3, end=3.3))
    heading.line("time", "heading", source=traces, color=LINE)
    ticks = [-np.pi, 0, np.pi]
    heading.yaxis.ticker = FixedTicker(ticks=ticks)
    heading.yaxis.major_label_overrides = dict(zip(ticks, ("−π", "0", "π"), strict=True))
    _hover(heading, [("time", "@time{custom}"), ("heading", "@heading{0.00} rad")], frames)
    built.figures |= {"speed": speed, "heading": heading, "detail": _detail(built, times)}


def _pose(built: Figures, keypoints: tuple[str, ...], model_keypoints: tuple[str, ...]) -> None:
    pose = _in_space(AXIS_LABELS["Centred"], "Pose")
    tracked = _dots(keypoints) | {"alpha": np.ones(len(keypoints))}
    sources = built.sources
    sources["observed"] = ColumnDataSource(
        tracked | {"confidence": np.full(len(keypoints), np.nan)}
    )
    sources["observed_bones"] = _segments(built.joined["observed"])
    sources["denoised"] = ColumnDataSource(_dots(model_keypoints))
    sources["denoised_bones"] = _segments(built.joined["denoised"])
    if model_keypoints:
        smooth = {"color": DENOISED_COLOR, "level": "overlay"}
        built.parts[DENOISED] += [
            pose.segment(**_ENDS, source=sources["denoised_bones"], line_width=3, **smooth),
            pose.scatter("x", "y", source=sources["denoised"], size=7, **smooth),
        ]
    raw = {"color": TRACKED_COLOR, "level": "overlay"}
    if not model_keypoints:
        lines = sources["observed_bones"]
        built.parts[TRACKED].append(
            pose.segment(**_ENDS, source=lines, line_width=1.5, alpha=0.6, **raw)
        )
    dots = pose.scatter(
        "x", "y", source=sources["observed"], alpha="alpha", size=8, line_color=None, **raw
    )
    built.parts[TRACKED].append(dots)
    rows = [("keypoint", "@keypoint"), ("confidence", "@confidence{0.00}")]
    pose.add_tools(hover_tool(*rows, renderers=[dots], visible=False))
    built.figures["pose"] = pose


def _arena(built: Figures) -> None:
    arena = _in_space(AXIS_LABELS["Arena"], "Way in the arena")
    arena.multi_line("xs", "ys", source=built.sources["path"], color="color", line_width=2)
    here = built.sources["here"] = ColumnDataSource({"x": np.zeros(1), "y": np.zeros(1)})
    line = built.sources["here_heading"] = _segments([(0, 0)])
    arena.segment(**_ENDS, source=line, color=INK, line_width=2, level="overlay")
    arena.scatter("x", "y", source=here, color=INK, size=9, level="overlay")
    built.figures["arena"] = arena


def _video(built: Figures, names: tuple[str, ...]) -> None:
    video = _in_space(["x (px)", "y (px)"], "Video")
    video.grid.visible = False
    # The picture lies behind the figure: it is no part of it, so that nothing copies its pixels.
    video.background_fill_color = video.border_fill_color = None
    dots = built.sources["overlay"] = ColumnDataSource(_dots(names))
    lines = built.sources["overlay_bones"] = _segments(
        built.joined["denoised"] or built.joined["observed"]
    )
    # A light rim, so that they are seen on dark fur as well as on a bright floor.
    built.parts[OVERLAY] = [
        video.segment(
            **_ENDS, source=lines, color="white", line_width=4, alpha=0.7, level="overlay"
        ),
        video.segment(**_ENDS, source=lines, color=DENOISED_COLOR, line_width=2, level="overlay"),
        video.scatter(
            "x",
            "y",
            source=dots,
            color=DENOISED_COLOR,
            size=6,
            line_color="white",
            line_width=1,
            level="overlay",
        ),
    ]
    words = Label(
        x=12,
        y=12,
        x_units="screen",
        y_units="screen",
        text="",
        text_color=INK,
        text_font=FONT,
        text_font_size="13px",
        background_fill_color="white",
        level="overlay",
    )
    video.add_layout(words)
    built.extra["video_words"] = words
    built.figures["video"] = video


def _strip(built: Figures, times: Range1d) -> Any:
    source = built.sources["bouts"]
    strip = _over_time(times, 56, "syllable", y_range=Range1d(start=0, end=1))
    strip.yaxis.ticker = FixedTicker(ticks=[])
    strip.grid.visible = False
    quads = strip.quad(
        left="left", right="right", bottom=0, top=1, source=source, color="color", line_color=None
    )
    strip.text(
        x="middle",
        y=0.5,
        text="text",
        source=source,
        text_align="center",
        text_baseline="middle",
        text_color="text_color",
        text_font=value(FONT),
        text_font_size="12px",
    )
    rows = [
        ("syllable", "@syllable"),
        ("name", "@name"),
        ("from", "@left{custom} to @right{custom}"),
        ("duration", "@duration"),
    ]
    _hover_spans(strip, rows, quads, built.sources["frames"])
    return strip


def _epochs(built: Figures, times: Range1d) -> Any:
    """Draw the epochs of the session."""
    source = built.sources["epochs"]
    drawn = _over_time(times, 46, "epoch", y_range=Range1d(start=0, end=1))
    drawn.yaxis.ticker = FixedTicker(ticks=[])
    drawn.grid.visible = False
    quads = drawn.quad(
        left="left", right="right", bottom=0, top=1, source=source, color="color",
        line_color="white", alpha=0.55,
    )  # fmt: skip
    drawn.text(
        x="middle", y=0.5, text="text", source=source, text_align="center",
        text_baseline="middle", text_color=INK, text_font=value(FONT), text_font_size="12px",
    )  # fmt: skip
    rows = [("epoch", "@name"), ("from", "@left{custom} to @right{custom}")]
    _hover_spans(drawn, rows, quads, built.sources["frames"])
    return drawn


def _detail(built: Figures, times: Range1d) -> Any:
    """Draw the chosen trace: coordinates of a keypoint, or the latent pose."""
    detail = _over_time(times, 160, UNIT, y_range=Range1d(start=0, end=1))
    lines = built.sources["detail_lines"] = ColumnDataSource(
        {"xs": [], "ys": [], "color": [], "name": []}
    )
    dots = built.sources["detail_dots"] = ColumnDataSource({"x": [], "y": [], "color": []})
    detail.scatter("x", "y", source=dots, color="color", size=3, alpha=0.3, line_color=None)
    detail.multi_line("xs", "ys", source=lines, color="color", line_width=1.5, legend_field="name")
    legend = detail.legend[0]
    legend.update(orientation="horizontal", location="top_right", padding=2, margin=0, spacing=12)
    legend.update(border_line_color=None, label_text_font=FONT, label_text_color=INK)
    legend.update(label_text_font_size="12px")
    detail.add_layout(legend, "above")  # Inside it would cover the ends of the lines.
    detail.xaxis.visible = True
    detail.xaxis.update(
        axis_label=TIME_AXIS, ticker=clock_ticker(), formatter=axis_clock(built.sources["frames"])
    )
    return detail


def _in_space(labels: list[str], title: str) -> Any:
    """A figure of a plane; the browser gives both axes the same scale."""
    plot: Any = figure(
        height=_TOP_HEIGHT,
        sizing_mode="stretch_width",
        title=title,
        x_range=Range1d(start=-1, end=1),
        y_range=Range1d(start=-1, end=1),
        x_axis_label=labels[0],
        y_axis_label=labels[1],
        tools="pan,wheel_zoom,reset",
        toolbar_location="above",
        min_border_left=_LEFT,
        min_border_right=_RIGHT,
        min_width=200,
    )
    polish_figure(plot)
    plot.title.text_font_style = "bold"
    return plot


def _over_time(times: Range1d, height: int, label: str, **ranges: Any) -> Any:
    plot: Any = figure(
        height=height,
        sizing_mode="stretch_width",
        x_range=times,
        y_axis_label=label,
        tools="xbox_zoom,xpan,reset",
        active_drag="xbox_zoom",
        toolbar_location=None,
        min_border_left=_LEFT,
        min_border_right=_RIGHT,
        min_border_top=4,
        min_border_bottom=4,
        **ranges,
    )
    polish_figure(plot)
    plot.xaxis.visible = False
    plot.yaxis.axis_label_text_font_size = "12px"
    plot.yaxis.ticker.update(desired_num_ticks=3)
    return plot


def _hover(plot: Any, rows: list[tuple[str, str]], frames: ColumnDataSource) -> None:
    formatters = {"@time": hover_clock(frames)}
    plot.add_tools(hover_tool(*rows, mode="vline", visible=False, formatters=formatters))


def _hover_spans(
    plot: Any, rows: list[tuple[str, str]], quads: Any, frames: ColumnDataSource
) -> None:
    formatters = {name: hover_clock(frames) for name in ("@left", "@right")}
    plot.add_tools(hover_tool(*rows, renderers=[quads], visible=False, formatters=formatters))


def _dots(names: tuple[str, ...]) -> dict[str, Any]:
    nowhere = np.full(len(names), np.nan)
    return {"x": nowhere, "y": nowhere.copy(), "keypoint": list(names)}


def _segments(joined: Joined) -> ColumnDataSource:
    nowhere = np.full(len(joined), np.nan)
    return ColumnDataSource({name: nowhere.copy() for name in ("x0", "y0", "x1", "y1")})


_ENDS = {name: name for name in ("x0", "y0", "x1", "y1")}

TRACE_COLORS = ("#0072b2", "#d55e00", "#009e73", "#cc79a7", "#56b4e9", "#e69f00", MUTED)
"""Of the coordinates of a keypoint, and of latent dimensions."""
