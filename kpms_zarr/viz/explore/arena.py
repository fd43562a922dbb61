"""Arena below the player: where the animal was over all of the chosen time."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

import panel as pn

from kpms_zarr.viz.explore import parts
from kpms_zarr.viz.explore.state import State
from kpms_zarr.viz.player.data import OpenSession
from kpms_zarr.viz.player.places import Occupancy, Places, next_visit, read_places
from kpms_zarr.viz.shared.extra import INSTALL, is_installed

_HOW_TO_READ = (
    "The darker a place, the longer the animal was there. Drag a box or turn the wheel to zoom in: "
    "cells become smaller; the circling arrow of the toolbar zooms out. Click on a place to see "
    "the animal there in the player; click again for its next visit."
)


class Arena:
    """The heading, what can be chosen, and the picture, which follows time and syllable.

    Parameters
    ----------
    opened : callable
        The session that is in the player; None where there is none.
    go : callable
        Shows a frame of it in the player.
    say : callable
        Puts words into the player.

    Attributes
    ----------
    picture : Occupancy or None
        What is shown.
    """

    def __init__(
        self,
        state: State,
        opened: Callable[[], OpenSession | None],
        *,
        go: Callable[[int], None],
        say: Callable[[str], None],
    ) -> None:
        self._state, self._opened, self._go, self._say = state, opened, go, say
        self.picture: Occupancy | None = None
        self._shown: tuple[Any, ...] = ()
        self._last = -1  # The visit that was gone to.
        self._document = pn.state.curdoc
        self._in_time = pn.widgets.Checkbox(name="Only the chosen time", value=True)
        self._of_syllable = pn.widgets.Checkbox(name="Only the chosen syllable", value=True)
        self._place = parts.column()
        self.view = pn.Column(
            parts.heading("Where the animal was"),
            parts.text(_HOW_TO_READ),
            pn.Row(self._in_time, self._of_syllable),
            self._place,
            sizing_mode="stretch_width",
            visible=False,
        )
        self._make = parts.guarded(self._new)
        choices = ["start", "stop", "syllable", self._in_time, self._of_syllable]
        parts.redraw(state, choices, self.draw)

    def draw(self) -> None:
        """Show what is chosen, unless it is shown already: what was zoomed in stays."""
        opened = self._opened()
        self.view.visible = opened is not None
        if opened is None:
            self.picture, self._shown = None, ()
            self._place.clear()
        elif opened.session.name == self._state.session:  # else the player is told soon
            made = self._make(opened)
            if made is not parts.SAME:
                self._place[:] = [made]

    def _new(self, opened: OpenSession) -> pn.viewable.Viewable:
        """Draw a new picture, unless the one that is there is still right."""
        if not is_installed("datashader"):
            return parts.empty("This is drawn by Datashader. To have it:", INSTALL)
        fps, n_frames = opened.session.fps, opened.session.n_frames
        first, last = 0, n_frames
        if self._in_time.value:
            start, stop = self._state.span
            first = min(round(start * fps), n_frames - 1)
            last = min(max(first + 1, round(stop * fps)), n_frames)
        chosen = self._state.syllable if self._of_syllable.value else -1
        syllable = chosen if opened.labels is not None else -1
        model = (self._state.model, self._state.study.version(self._state.model))
        wanted = (
            *model,
            opened.session,
            opened.labels is None,
            opened.names,
            first,
            last,
            syllable,
        )
        if wanted == self._shown:
            return parts.SAME
        self._shown, self.picture, self._last = (), None, -1
        places = read_places(opened, first, last, syllable=syllable)
        self.picture = Occupancy(
            places,
            is_y_down=opened.data.sizes["space"] == 2,
            name=opened.names.label,
            on_tap=partial(self._tapped, places),
        )
        self._shown = wanted
        return parts.plot(
            self.picture.plot, "occupancy", session=opened.session.name, sizing_mode=None
        )

    def _tapped(self, places: Places, x: float, y: float, side: float) -> None:
        frame = next_visit(places, x, y, radius=1.5 * side, after=self._last)
        self._last = -1 if frame is None else frame
        if frame is None:
            show = partial(self._say, "there is no frame at this place in what is shown")
        else:
            show = partial(self._go, frame)
        if self._document is not None and self._document.session_context:
            # Clicks come while the document is not held, without which it must not be changed.
            self._document.add_next_tick_callback(show)
        else:
            show()
