"""Where the animal was over all of the chosen time, below the player."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

import panel as pn

from kpms_zarr.viz.explore import parts
from kpms_zarr.viz.explore.state import State
from kpms_zarr.viz.extra import INSTALL, is_installed
from kpms_zarr.viz.places import Occupancy, Places, next_visit, read_places
from kpms_zarr.viz.player_data import OpenSession

_HOW_TO_READ = (
    "The darker a place, the longer the animal was there. Drag a box or turn the wheel to zoom in: "
    "cells become smaller; the circling arrow of the toolbar zooms out. Click on a place to see "
    "the animal there in the player; click again for its next visit."
)


def arena(
    state: State,
    opened: Callable[[], OpenSession | None],
    *,
    go: Callable[[int], None],
    say: Callable[[str], None],
) -> pn.viewable.Viewable:
    """The heading, what can be chosen, and the picture, which follows time and syllable.

    Parameters
    ----------
    state : State
    opened : callable
        The session that is in the player; None where there is none.
    go : callable
        Shows a frame of it in the player.
    say : callable
        Puts words into the player.
    """
    if not is_installed("datashader"):
        return parts.empty(
            "Where the animal was over all of this time is drawn by Datashader. To have it:",
            INSTALL,
        )
    in_time = pn.widgets.Checkbox(name="Only the chosen time", value=True)
    of_syllable = pn.widgets.Checkbox(name="Only the chosen syllable", value=True)
    choices = pn.Row(in_time, of_syllable)
    words = pn.Column(
        parts.heading("Where the animal was"),
        parts.text(_HOW_TO_READ),
        sizing_mode="stretch_width",
    )
    last = [-1]  # The visit that was shown.
    document = pn.state.curdoc

    def draw() -> Any:
        now = opened()
        choices.visible = words.visible = now is not None
        if now is None:
            return None
        fps, n_frames = now.session.fps, now.session.n_frames
        first, stop = 0, n_frames
        if in_time.value:
            start, end = state.span
            first, stop = round(start * fps), max(round(start * fps) + 1, round(end * fps))
        syllable = state.syllable if of_syllable.value and now.labels is not None else -1
        places = read_places(now, min(first, n_frames - 1), min(stop, n_frames), syllable=syllable)
        picture = Occupancy(
            places,
            is_y_down=now.data.sizes["space"] == 2,
            name=now.names.label,
            on_tap=lambda x, y, side: visit(places, x, y, side),
        )
        return pn.pane.HoloViews(picture.plot, linked_axes=False)

    def visit(places: Places, x: float, y: float, side: float) -> None:
        frame = next_visit(places, x, y, radius=1.5 * side, after=last[0])
        last[0] = -1 if frame is None else frame
        show = partial(say, "the animal was never there") if frame is None else partial(go, frame)
        if document is not None and document.session_context:
            # Clicks come while the document is not held, without which it must not be changed.
            document.add_next_tick_callback(show)
        else:
            show()

    watched = ["model", "session", "start", "stop", "syllable"]
    shown = parts.follow(
        state, [*watched, in_time.param.value, of_syllable.param.value], draw, news=False
    )
    return pn.Column(words, choices, shown, sizing_mode="stretch_width")
