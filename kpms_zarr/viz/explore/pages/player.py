"""Player: some seconds of a session, frame by frame, with labels, traces and the video."""

from __future__ import annotations

import logging
import threading
import weakref
from collections.abc import Callable
from functools import partial
from typing import Any

import numpy as np
import pandas as pd
import panel as pn

from kpms_zarr.store.core.commands import command
from kpms_zarr.store.errors import InputError
from kpms_zarr.viz.explore import parts
from kpms_zarr.viz.explore.arena import Arena
from kpms_zarr.viz.explore.state import State
from kpms_zarr.viz.player.controls import KEYS as KEYS_OF_PLAYER
from kpms_zarr.viz.player.data import (
    OpenSession,
    PlayerWindow,
    find_bout,
    open_session,
    read_window,
)
from kpms_zarr.viz.player.player import (
    PICTURE_WIDTH,
    Player,
    build_player,
    set_video_size,
    set_video_state,
)
from kpms_zarr.viz.player.sources import extent
from kpms_zarr.viz.player.tables import window_table
from kpms_zarr.viz.shared.guessing import note_on
from kpms_zarr.viz.shared.picture_data import PictureTable, attach, tag
from kpms_zarr.viz.video.pictures import pictures
from kpms_zarr.viz.video.video import VideoReader

TITLE = "Player"
KEYS = (
    *KEYS_OF_PLAYER,
    ("Tab", "to the player, whose keys these are when it has the focus, as after a click on it"),
)

_LOG = logging.getLogger(__name__)
_LONGEST = 60.0  # Seconds in a window; with a video its pictures have to come along.
_LONGEST_WITH_VIDEO = 20.0
_BEFORE = 1.0  # Seconds shown before a bout that was looked for.
_PICTURES_AT_ONCE = 24


def page(state: State) -> pn.viewable.Viewable:
    """Build the page for one browser window."""
    shown: list[_SessionPlayer] = []

    def leave(*_: Any) -> None:
        while shown:
            shown.pop().close()

    def build() -> pn.viewable.Viewable:
        leave()
        if state.session_row is None:
            return parts.empty(
                "No session yet. Add tracking files:",
                command("ingest", state.study.store, "FILES..."),
            )
        shown.append(_SessionPlayer(state))
        return shown[0].view

    if pn.state.curdoc is not None:
        pn.state.on_session_destroyed(leave)
    below = Arena(
        state,
        lambda: shown[0].opened if shown else None,
        go=lambda frame: shown[0].show_frame(frame) if shown else None,
        say=lambda words: shown[0].player.say(words) if shown else None,
    )

    def build_both() -> pn.viewable.Viewable:
        """Build the player, then draw the arena: both show the same session."""
        try:
            return build()
        finally:
            below.draw()

    player = parts.follow(state, ["model", "session"], build_both)
    note = note_on(state.study.settings)
    about = [parts.text(note)] if note else []
    return parts.column(player, *about, below.view)


class _SessionPlayer:
    """One session in the player, and what follows from choices and from clicks."""

    def __init__(self, state: State) -> None:
        self._state = state
        self.opened = _open(state)
        self._version = state.study.version(state.model)
        self._reader, trouble = _reader(self.opened)
        self._window = self._read(*self._first())
        self._sizes = extent(self._window)
        self._pictures: _Pictures | None = None
        self._is_moving = False
        self._document = pn.state.curdoc
        self.player = build_player(
            self.opened,
            self._window,
            keypoint=state.keypoint,
            with_video=self._reader is not None,
            is_served=True,
        )
        self.view = parts.column(
            *_model_note(state, self.opened),
            pn.pane.Bokeh(self.player.layout, sizing_mode="stretch_width"),
            *_video_note(state, trouble),
        )
        self._name_pictures()
        self._show(self._window)
        self._listen()

    def _name_pictures(self) -> None:
        """Give each picture a name for files, and the data of its window as a table."""
        page = weakref.ref(self)  # figures are kept by whom they are shown to

        def make(name: str) -> PictureTable:
            found = page()
            if found is None:
                return PictureTable(pd.DataFrame())
            detail = str(found.player.widgets["detail"].value)
            return window_table(found._window, name, found.opened.names.label, detail)

        for name, figure in self.player.figures.items():
            figure.tags = [tag(name, self.opened.session.name)]
            attach(figure, partial(make, name))

    def close(self) -> None:
        """Stop listening, and close the video."""
        for watcher in self._watchers:
            self._state.param.unwatch(watcher)
        if self._pictures is not None:
            self._pictures.stop()
        if self._reader is not None:
            self._reader.close()

    # -------------------------------------------------------------- windows

    @property
    def _length(self) -> float:
        """Longest window in s."""
        return _LONGEST if self._reader is None else _LONGEST_WITH_VIDEO

    @property
    def _end(self) -> float:
        """Length of the session in s."""
        return self.opened.session.n_frames / self.opened.session.fps

    def _first(self) -> tuple[float, float]:
        """The first window of the chosen span."""
        start, stop = self._state.span
        return start, min(stop, start + self._length)

    def _read(self, start: float, stop: float) -> PlayerWindow:
        return read_window(self.opened, start, stop)

    def _show(self, window: PlayerWindow, *, frame: int = 0, note: str = "") -> None:
        """Put a window into the player; ``frame`` of the session is shown first."""
        self._window = window
        sizes = extent(window)
        # The arena only grows, so that windows can be compared.
        self._sizes = {
            "radius": [max(self._sizes["radius"][0], sizes["radius"][0])],
            "low": np.minimum(self._sizes["low"], sizes["low"]).tolist(),
            "high": np.maximum(self._sizes["high"], sizes["high"]).tolist(),
        }
        last = int(window.frame[-1])
        _, stop = self._state.span
        more = last + 1 < self.opened.session.n_frames
        self.player.load(
            window,
            self.opened.names.name,
            seek=max(0, frame - int(window.frame[0])),
            note=note,
            has_next=more and window.time[-1] + 1.5 / window.session.fps < stop,
            sizes=self._sizes,
        )
        self.player.widgets["next_window"].disabled = not more
        self.player.widgets["previous_window"].disabled = window.frame[0] == 0
        if self._pictures is not None:
            self._pictures.stop()
        if self._reader is not None:
            self._pictures = _Pictures(self.player, self._reader, window, self._document)

    def _go(self, start: float, stop: float, *, frame: int = 0) -> None:
        """Show another part of the session; the chosen span follows where it ends before."""
        start, stop = max(0.0, start), min(self._end, stop)
        low, high = self._state.span
        at = max(start, frame / self.opened.session.fps)
        if not low <= at < high or start < low:
            self._is_moving = True
            try:
                self._state.show(self._state.session, start, stop)
            finally:
                self._is_moving = False
        else:
            stop = min(stop, high)
        self._show(self._read(start, stop), frame=frame)

    # -------------------------------------------------------------- choices and clicks

    def _listen(self) -> None:
        state, widgets = self._state, self.player.widgets
        self._watchers = [
            state.param.watch(self._guarded(self._span_changed), ["start", "stop"]),
            state.param.watch(self._guarded(self._named), "news"),
            state.param.watch(
                self._guarded(lambda event: self._choose("syllable", str(event.new))), "syllable"
            ),
            state.param.watch(
                self._guarded(lambda event: self._choose("detail", event.new)), "keypoint"
            ),
        ]
        self._choose("syllable", str(state.syllable))
        self.player.sources["requests"].on_change("data", self._asked)
        if "syllable" in widgets:
            widgets["syllable"].on_change("value", self._syllable_chosen)
        widgets["detail"].on_change("value", self._keypoint_chosen)

    def _guarded(self, do: Callable[..., None]) -> Callable[..., None]:
        """Wrap a callback so that the player shows its errors."""

        def run(*args: Any) -> None:
            # What Panel has not sent yet, perhaps this very player, goes before what is done here.
            with pn.io.unlocked():
                try:
                    do(*args)
                except InputError as error:
                    problem = error.problems[0]
                    self.player.say(f"Expected {problem.expected}; found {problem.found}.")
                except Exception as error:  # said to the person, and in the log for us
                    _LOG.exception("the player failed")
                    self.player.say(f"This did not work ({type(error).__name__}: {error}).")

        return run

    def _span_changed(self, *_: Any) -> None:
        state = self._state
        if self._is_moving or state.session != self.opened.session.name:
            return
        start, stop = self._first()
        now = self._window
        at = (now.time[0], now.time[-1] + 1 / now.session.fps)
        if np.abs(np.subtract(at, (start, stop))).max() > 0.5 / now.session.fps:
            self._show(self._read(start, stop))

    def _named(self, *_: Any) -> None:
        """Take new names, or labels of a new version."""
        if self._version != self._state.study.version(self._state.model):
            self._state.param.trigger("model")
            return
        before, self.opened = self.opened, _open(self._state)
        if before.names != self.opened.names:
            self._show(self._window)

    def _choose(self, widget: str, value: str) -> None:
        select = self.player.widgets.get(widget)
        if select is None:
            return
        known = [one if isinstance(one, str) else one[0] for one in select.options]
        if widget == "syllable" and value not in known:
            select.options = [*select.options, (value, self.opened.names.label(int(value)))]
        if value in known or widget == "syllable":
            select.value = value

    def _syllable_chosen(self, _attribute: str, _old: str, new: str) -> None:
        self._state.syllable = int(new)

    def _keypoint_chosen(self, _attribute: str, _old: str, new: str) -> None:
        if new in self._state.study.settings.keypoints:
            self._state.keypoint = new

    def _asked(self, _attribute: str, _old: Any, new: dict[str, Any]) -> None:
        what, frame = str(new["what"][0]), int(new["frame"][0])
        self._guarded(self._answer)(what, frame)

    def _answer(self, what: str, frame: int) -> None:
        """Do what a message from the browser asks for."""
        fps, window = self.opened.session.fps, self._window
        if what == "pictures":
            if self._pictures is not None:
                self._pictures.start()
        elif what == "link":
            stop = self._state.stop if self._state.stop > frame / fps else 0.0
            self._state.param.update(start=frame / fps, stop=stop)
            self.player.say("the address of this page leads here now")
        elif what == "next_window":
            start = (window.frame[-1] + 1) / fps
            if start < self._end:
                self._go(start, start + self._length)
        elif what == "previous_window":
            stop = window.frame[0] / fps
            if stop > 0:
                self._go(stop - self._length, stop)
        else:
            self._to_bout(frame, forward=what == "next_bout")

    def _to_bout(self, frame: int, *, forward: bool) -> None:
        syllable = int(self.player.widgets["syllable"].value)
        onset = find_bout(self.opened, syllable, frame, forward=forward)
        if onset is None:
            side = "after" if forward else "before"
            which = "this syllable" if syllable >= 0 else "any syllable"
            self.player.say(f"no bout of {which} in the session {side} this frame")
            return
        self._go_to(onset)

    def show_frame(self, frame: int) -> None:
        """Show a frame, and a little of what was before it; errors are said in the player."""
        self._guarded(self._go_to)(frame)

    def _go_to(self, frame: int) -> None:
        at = frame / self.opened.session.fps
        low, high = self._state.span
        # The chosen time stays where the frame is in it.
        start = max(low, at - _BEFORE) if low <= at < high else at - _BEFORE
        self._go(start, start + self._length, frame=frame)


class _Pictures:
    """Pictures of a window's video, decoded beside the server and sent some at a time."""

    def __init__(
        self, player: Player, reader: VideoReader, window: PlayerWindow, document: Any
    ) -> None:
        self._player, self._reader = player, reader
        self._frames = window.video_frame.tolist()
        self._stopped = threading.Event()
        self._document = document
        self._thread = threading.Thread(target=self._run, daemon=True)
        set_video_size(player, reader)

    def start(self) -> None:
        """Begin, unless it has begun: now there is a browser that hears it."""
        if self._document is not None and self._thread.ident is None:
            self._thread.start()

    def stop(self) -> None:
        """Send nothing more."""
        self._stopped.set()

    def _run(self) -> None:
        row, some = 0, []
        try:
            for url in pictures(self._reader, self._frames, PICTURE_WIDTH):
                if self._stopped.is_set():
                    return
                some.append(url)
                if len(some) >= _PICTURES_AT_ONCE:
                    self._later(self._send, row, some)
                    row, some = row + len(some), []
        except (InputError, ValueError) as error:  # damaged, or closed in the meantime
            _LOG.info("the video ended early: %s", error)
        self._later(self._send, row, some)
        self._later(set_video_state, self._player, "done")

    def _later(self, do: Callable[..., None], *args: Any) -> None:
        def run() -> None:
            if not self._stopped.is_set():
                with pn.io.unlocked():
                    do(*args)

        self._document.add_next_tick_callback(run)

    def _send(self, row: int, urls: list[str]) -> None:
        rows = list(range(row, row + len(urls)))
        if urls:
            self._player.sources["video"].stream({"row": rows, "url": urls})


def _open(state: State) -> OpenSession:
    study = state.study
    model = study.opened(state.model) if state.has_model else None
    return open_session(study.store, model=model, session=state.session, data=study.keypoints())


def _reader(opened: OpenSession) -> tuple[VideoReader | None, str]:
    """The video of a session, or why it cannot be shown."""
    if not opened.video:
        return None, "No video of this session is known."
    try:
        return VideoReader(opened.video), ""
    except InputError as error:
        problem = error.problems[0]
        return None, f"The video cannot be shown: {problem.found} ({problem.where})."


def _model_note(state: State, opened: OpenSession) -> list[pn.viewable.Viewable]:
    """Explain what is missing, and how to have it."""
    if not state.has_model:
        return [parts.no_model(state)]
    if opened.labels is None:
        return [
            parts.empty(
                f"The model {state.model} has not labelled this session. To have it labelled:",
                command("apply", state.study.store, model=state.model),
            )
        ]
    return []


def _video_note(state: State, trouble: str) -> list[pn.viewable.Viewable]:
    if not trouble:
        return []
    return [
        parts.empty(
            f"{trouble} To see it beside the skeleton, give its path in a table with the columns "
            "session and video:",
            command("annotate", state.study.store, "table.csv"),
        )
    ]
