"""A session played in the browser: poses, labels, traces, place and video move together."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from importlib import resources
from typing import Any

from bokeh.events import DoubleTap, Tap
from bokeh.models import Column, ColumnDataSource, CustomJS, Model

from kpms_zarr.store.core.access import StoreLike
from kpms_zarr.store.errors import InputError
from kpms_zarr.viz.player import sources as player_sources
from kpms_zarr.viz.player.controls import LATENT, controls, layout
from kpms_zarr.viz.player.data import OpenSession, PlayerWindow, open_session, read_window
from kpms_zarr.viz.player.figures import (
    AXIS_LABELS,
    TRACE_COLORS,
    Figures,
    space_figures,
    time_figures,
)
from kpms_zarr.viz.shared.bands import EpochBand
from kpms_zarr.viz.shared.guessing import note_on
from kpms_zarr.viz.shared.style import UNIT
from kpms_zarr.viz.shared.times import CLOCK_JS
from kpms_zarr.viz.video.pictures import picture_size, pictures
from kpms_zarr.viz.video.video import VideoReader

PICTURE_WIDTH = 400
"""Of the pictures of the video, in px."""

_ON_EVENT = """
data.meta.kpms_player ??= mount(cb_context?.index ?? Bokeh.index, data);
data.meta.kpms_player.handle(cb_obj);
"""
"""What Bokeh calls for every event; cb_obj says which."""

Sizes = dict[str, list[float]]


@dataclass
class Player:
    """A player, and what a program needs to show other windows in it.

    Attributes
    ----------
    layout : Column
        What is shown; the browser plays it without a server.
    sources : dict of str to ColumnDataSource
        Among them ``requests`` with the columns ``number``, ``what`` and ``frame``: what a person
        asked for that is not in the window (``next_window``, ``previous_window``, ``next_bout``,
        ``previous_bout``, ``link``, and ``pictures`` of the video of this window), and at which
        frame of the session. And ``video``, with pictures as data URLs in the column ``url`` and
        the frames of the window that they show, which rise, in ``row``.
    figures : dict of str to figure
        See :class:`~kpms_zarr.viz.player.figures.Figures`.
    bands : tuple of EpochBand
        Of the session.
    """

    layout: Column
    widgets: dict[str, Any]
    sources: dict[str, ColumnDataSource]
    is_y_down: bool
    figures: dict[str, Any] = field(default_factory=dict)
    bands: tuple[EpochBand, ...] = ()

    def load(
        self,
        window: PlayerWindow,
        name: Callable[[int], str],
        *,
        seek: int = 0,
        note: str = "",
        has_next: bool = False,
        sizes: Sizes | None = None,
    ) -> None:
        """Show another window of the same session; a player that plays goes on playing.

        Parameters
        ----------
        name : callable
            Name of a syllable.
        seek : int
            Frame of the window to begin at.
        note : str
            Said beside the number of the frame.
        has_next : bool
            Whether ``next_window`` can be asked for at the end.
        sizes : dict, optional
            Result of :func:`~kpms_zarr.viz.player.sources.extent` (default: of this window).
        """
        sizes = sizes or player_sources.extent(window)
        columns = _columns(window, name, sizes, self.is_y_down)
        columns["meta"] |= {"seek": [seek], "note": [note], "has_next": [has_next]}
        columns["video"] = {"row": [], "url": []}
        if self.bands:
            self.sources["epochs"].data = player_sources.band_columns(self.bands, window)
        for key in ("video", "bouts", "path", "traces", "meta", "frames"):
            # The browser begins with the new window when the last of them is there.
            self.sources[key].data = columns[key]

    def say(self, note: str) -> None:
        """Say something beside the number of the frame."""
        meta = self.sources["meta"]
        meta.data = {**meta.data, "note": [note]}


def player(
    store: StoreLike,
    *,
    model: str | None = None,
    version: str | None = None,
    session: str | None = None,
    start: float = 0.0,
    seconds: float = 20.0,
    keypoint: str = "",
    with_video: bool = False,
    is_y_down: bool | None = None,
) -> Column:
    """Some seconds of a session, played in the browser without a server.

    Space plays and pauses, the arrow keys step by one frame (with shift by ten), Home and End go
    to the ends; a click on the labels or the traces goes there.

    Parameters
    ----------
    store : path or URL
    model : str, optional
        Default: tracked data only.
    version : str, optional
        Of the labels (default: the current one).
    session : str, optional
        Name (default: the first).
    start : float
        In s of the session.
    seconds : float
        How much of it.
    keypoint : str
        Whose coordinates are drawn over time (default: the first).
    with_video : bool
        Whether pictures of the video of the session are put in, about 10 kB a frame.
    is_y_down : bool, optional
        Whether y runs down, as in pictures (default: yes for two dimensions).

    Returns
    -------
    bokeh.models.Column
        For ``bokeh.io.show``, ``panel.pane.Bokeh``, or a page of its own (``bokeh.embed``).

    Raises
    ------
    InputError
        For a model, session or keypoint that does not exist; for a window that is empty or has
        more than 20,000 frames; for a video that is asked for and not known or not readable.
    """
    opened = open_session(store, model=model, version=version, session=session)
    window = read_window(opened, start, start + seconds)
    if keypoint and keypoint not in window.keypoints:
        raise InputError(
            expected=f"one of the keypoints {', '.join(window.keypoints)}",
            found=repr(keypoint),
            where="keypoint",
            fix="give a name as it is in the store",
        )
    built = build_player(
        opened, window, keypoint=keypoint, with_video=with_video, is_y_down=is_y_down
    )
    if with_video:
        with VideoReader(require_video(opened)) as reader:
            set_video_size(built, reader)
            urls = list(pictures(reader, window.video_frame.tolist(), PICTURE_WIDTH))
        built.sources["video"].data = {"row": list(range(len(urls))), "url": urls}
        set_video_state(built, "done")
    return built.layout


def build_player(
    opened: OpenSession,
    window: PlayerWindow,
    *,
    keypoint: str = "",
    with_video: bool = False,
    is_served: bool = False,
    is_y_down: bool | None = None,
) -> Player:
    """Build a player that shows a window; see :func:`player`.

    Parameters
    ----------
    with_video : bool
        Whether there is a place for the video; its pictures are put in afterwards.
    is_served : bool
        Whether a program answers what is put into the source ``requests``.
    """
    name, down = opened.names.name, window.n_space == 2 if is_y_down is None else is_y_down
    columns = _columns(window, name, player_sources.extent(window), down)
    if opened.bands:
        columns["epochs"] = player_sources.band_columns(opened.bands, window)
    built = Figures(sources={key: ColumnDataSource(value) for key, value in columns.items()})
    space_figures(
        built,
        keypoints=window.keypoints,
        model_keypoints=window.model_keypoints,
        skeleton=opened.settings.skeleton,
        with_video=with_video,
    )
    if note_on(opened.settings):
        built.figures["pose"].title.text = "Pose (lines guessed: no skeleton was given)"
    time_figures(
        built,
        with_labels=window.syllable is not None,
        with_certainty=window.certainty is not None,
    )
    frames = built.sources["frames"]
    widgets = controls(
        opened, window, frames, keypoint=keypoint, with_video=with_video, is_served=is_served
    )
    root = layout(built.figures, widgets)
    _connect(built, widgets, root, window, is_served)
    return Player(root, widgets, built.sources, down, built.figures, opened.bands)


def require_video(opened: OpenSession) -> str:
    """Path of the video of a session.

    Raises
    ------
    InputError
        Where none is known.
    """
    if not opened.video:
        raise InputError(
            expected="the path of a video of the session",
            found="none",
            where=f"session {opened.session.name}",
            fix="give it with a table of the columns session and video: "
            "`kpms_zarr.annotate(STORE, 'table.csv')`",
        )
    return opened.video


def set_video_size(built: Player, reader: VideoReader) -> None:
    """Set the size of the video of a player; it waits for the pictures from then on."""
    width, height = picture_size(reader, PICTURE_WIDTH)
    scale = reader.width / width
    state = {"state": ["loading"], "width": [scale * width], "height": [scale * height]}
    built.sources["video_state"].data = state


def set_video_state(built: Player, state: str) -> None:
    """Set the state of the pictures of a player: ``loading``, ``done`` or ``none``."""
    source = built.sources["video_state"]
    source.data = {**source.data, "state": [state]}


def _columns(
    window: PlayerWindow, name: Callable[[int], str], sizes: Sizes, is_y_down: bool
) -> dict[str, dict[str, Any]]:
    """Data of the sources that have to do with the window."""
    low, high = sizes["low"], sizes["high"]
    return {
        "frames": player_sources.frame_columns(window),
        "bouts": player_sources.bout_columns(window, name),
        "path": player_sources.path_columns(window),
        "traces": player_sources.trace_columns(window),
        "meta": {
            "fps": [window.session.fps],
            "radius": sizes["radius"],
            "low": [low],
            "high": [high],
            "y_down": [is_y_down],
            "seek": [0],
            "note": [""],
            "has_next": [False],
        },
        "video": {"row": [], "url": []},
        "video_state": {"state": ["none"], "width": [1.0], "height": [1.0]},
        "requests": {"number": [], "what": [], "frame": []},
    }


def _connect(
    built: Figures, widgets: dict[str, Model], root: Column, window: PlayerWindow, is_served: bool
) -> None:
    """Connect one callback in the browser to all events."""
    names = (
        *("frames", "bouts", "traces", "meta", "video", "video_state", "requests"),
        *("here", "here_heading"),
        *("observed", "observed_bones", "denoised", "denoised_bones"),
        *("detail_lines", "detail_dots"),
    )
    optional = ("overlay", "overlay_bones")
    arguments: dict[str, Any] = {
        **{name: built.sources[name] for name in names},
        **{name: built.sources.get(name) for name in optional},
        "video_words": built.extra.get("video_words"),
        "time_range": built.extra["time_range"],
        "figures": built.figures,
        "widgets": widgets,
        "parts": built.parts,
        "observed_joined": built.joined["observed"],
        "denoised_joined": built.joined["denoised"],
        "keypoints": list(window.keypoints),
        "model_keypoints": list(window.model_keypoints),
        "n_space": window.n_space,
        "space": ["x", "y", "z"][: window.n_space],
        "axis_labels": _axis_labels(window.n_space),
        "trace_colors": list(TRACE_COLORS),
        "latent_name": LATENT,
        "unit": UNIT,
        "is_served": is_served,
        "root": root,
    }
    module = resources.files("kpms_zarr.viz.player").joinpath("player.js").read_text("utf-8")
    # Not as a module: Bokeh would load it from a blob:, which the policy of a report forbids.
    code = CLOCK_JS + module.replace("export function", "function") + _ON_EVENT
    callback = CustomJS(args={"data": arguments}, code=code)
    # The first event of all: the browser knows how wide the figure is.
    for figure in built.figures.values():
        figure.js_on_change("inner_width", callback)
        figure.js_on_change("inner_height", callback)
    for name in set(built.figures) - {"pose", "arena", "video"}:
        built.figures[name].js_on_event(Tap, callback)
        built.figures[name].js_on_event(DoubleTap, callback)
    ranges = [built.extra["time_range"]]
    if "video" in built.figures:
        ranges += [built.figures["video"].x_range, built.figures["video"].y_range]
    for area in ranges:
        area.js_on_change("start", callback)
        area.js_on_change("end", callback)
    for name in ("frames", "meta", "video_state"):
        built.sources[name].js_on_change("data", callback)
    for widget in widgets.values():
        if "value" in widget.properties():
            widget.js_on_change("value", callback)
        elif "active" in widget.properties():
            widget.js_on_change("active", callback)
        elif "label" in widget.properties():
            widget.js_on_event("button_click", callback)


def _axis_labels(n_space: int) -> dict[str, list[str]]:
    """Labels of the axes of the pose by view; a projection has none of its own."""
    if n_space == 2:
        return AXIS_LABELS
    return {view: [f"as seen ({UNIT})"] * 2 for view in AXIS_LABELS}
