"""Calibration: frames of videos in which a person clicks where keypoints are."""

from __future__ import annotations

import logging
import os
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from functools import partial
from typing import Any

import numpy as np
import panel as pn

from kpms_zarr.compute.tracking.annotation_choice import (
    MOST_SESSIONS,
    TrackedPoint,
    choose_points,
)
from kpms_zarr.compute.tracking.calibrate import CalibrateSummary, calibrate
from kpms_zarr.store.core import access
from kpms_zarr.store.core.access import Session
from kpms_zarr.store.core.commands import command
from kpms_zarr.store.core.writable import is_read_only
from kpms_zarr.store.errors import InputError
from kpms_zarr.store.study.clicks import Click, forget_click, keep_click, stored_clicks
from kpms_zarr.store.wording import counted
from kpms_zarr.viz.explore import parts
from kpms_zarr.viz.explore.clicker import Clicker
from kpms_zarr.viz.explore.state import State
from kpms_zarr.viz.shared.extra import INSTALL, is_installed
from kpms_zarr.viz.shared.skeletons import bones
from kpms_zarr.viz.tracking.annotating import VIEWS, CutOut, is_inside, piece_of
from kpms_zarr.viz.tracking.calibration_view import draw_calibration
from kpms_zarr.viz.video.pictures import picture_url
from kpms_zarr.viz.video.sources import SessionVideos
from kpms_zarr.viz.video.video import VideoReader

TITLE = "Calibration"
KEYS = (
    ("\u2190 \u2192 \u2191 \u2193", "move the cross on the picture; faster with Shift"),
    ("Enter", "marks the place of the cross"),
    ("Esc", "takes the cross away"),
)
"""Of the picture, when it has the focus."""

_LOG = logging.getLogger(__name__)
_AT_ONCE = 40
"""Keypoints that are chosen at once."""
_LOW = 0.1
_ENOUGH, _GOOD = 20, 100

_HOW = (
    "How far is the tracker off, and how does that go with its confidence? Click where the "
    "keypoint truly is, wherever the ring of the tracker lies. Frames are chosen at random, as "
    "many of low as of high confidence. Every click is kept in the store. By keyboard: go to the "
    "picture with Tab, move the cross with the arrow keys (faster with Shift), mark with Enter."
)
_HOW_TO_READ = (
    "How the tracking error falls with the confidence, from {source}. Faint: each keypoint. Dots: "
    "their median. Line: the noise prior of fits of the full stage, unless they were given one."
)


def page(state: State) -> pn.viewable.Viewable:
    """Build the page for one browser window."""
    shown: list[_Annotating] = []
    known: list[Any] = [None]

    def leave(*_: Any) -> None:
        while shown:
            shown.pop().close()

    def build() -> Any:
        now = (state.study.sessions, state.study.settings)
        if now == known[0]:
            return parts.SAME
        leave()
        known[0] = now
        trouble = _trouble(state)
        if trouble is not None:
            return trouble
        shown.append(_Annotating(state))
        return shown[0].view

    if pn.state.curdoc is not None:
        pn.state.on_session_destroyed(leave)
    return parts.column(
        parts.follow(state, ["news"], build, page="calibration"),
        parts.follow(state, ["news"], lambda: calibration_picture(state), page="calibration"),
    )


def calibration_picture(state: State) -> Any:
    """The noise calibration of the store, and how to read it; None without."""
    found = state.study.calibration()
    if found is None:
        return None
    return parts.column(
        parts.heading("Noise calibration"),
        parts.text(_HOW_TO_READ.format(source=found.attrs["source_in_words"])),
        parts.plot(draw_calibration(found), "noise calibration"),
    )


def _trouble(state: State) -> pn.viewable.Viewable | None:
    """Explain why nothing can be clicked; None where something can."""
    study = state.study
    if not study.sessions:
        return parts.empty(
            "No sessions yet. Put tracking files into the store:",
            command("ingest", study.store, "FILES..."),
        )
    if is_read_only(study.store):
        return parts.empty(
            "Clicks are kept in the store, and this one can only be read. Copy it to a place of "
            "yours, or calibrate a copy from the tracking alone:",
            command("calibrate", "COPY"),
        )
    if len(study.settings.space) != 2:
        return parts.empty(
            "A click in a video tells two coordinates, and positions of this store have three. "
            "Give a table of positions that were annotated in 3-D:",
            command("calibrate", study.store, annotations="annotated.csv"),
        )
    if not is_installed("av"):
        return parts.empty("Videos are read by PyAV. To have it:", INSTALL)
    return None


class _Annotating:
    """Keypoints one after the other, what is clicked, and what follows from it."""

    def __init__(self, state: State) -> None:
        self._state = state
        self._document = pn.state.curdoc
        state.study.refresh()  # a table of videos may have come
        self._videos = SessionVideos(state.study.store, state.study.keypoints(), True)
        self._reading, self._writing = (ThreadPoolExecutor(1, name) for name in ("read", "write"))
        self._is_closed = False
        self._clicks = {click.place: click for click in stored_clicks(state.study.store)}
        self._seed = len(self._clicks)  # other frames than before
        self._points: list[TrackedPoint] = []
        self._place = -1
        self._ahead: dict[tuple[int, str], Future[Any]] = {}
        self._piece: CutOut | None = None
        self._last: list[TrackedPoint] = []
        self._n_unusable, self._why = 0, ""
        self._picture = Clicker()
        self._picture.param.watch(self._clicked, "clicks")
        self._view = pn.widgets.Select(name="Shown", options=list(VIEWS), width=170)
        self._with_tracked = pn.widgets.Checkbox(name="Ring of the tracker", value=True)
        self._with_others = pn.widgets.Checkbox(name="Other keypoints", value=True)
        self._view.param.watch(lambda _: self._show(), "value")
        for box in (self._with_tracked, self._with_others):
            box.param.watch(lambda _: self._draw(), "value")
        buttons = {
            "Not visible": lambda _: self._answer(()),
            "Skip": lambda _: self._next(),
            "Back": lambda _: self._back(),
        }
        self._buttons = [parts.button(name, act, align="end") for name, act in buttons.items()]
        self._calibrate = parts.button(
            "Calibrate from the clicks",
            self._ask_to_calibrate,
            align="end",
            button_type="primary",
        )
        self._task = parts.column()
        self._message = parts.column()
        self._count = parts.column()
        self._desk = parts.column(
            self._task,
            pn.FlexBox(
                *self._buttons, self._view, self._with_tracked, self._with_others,
                align_items="flex-end", gap="8px",
            ),
            self._picture,
        )  # fmt: skip
        remote = (
            [parts.text("This store is remote: a click takes a moment until it is kept.")]
            if access.is_remote(state.study.store)
            else []
        )
        self.view = parts.column(
            parts.text(_HOW),
            *remote,
            self._desk,
            pn.FlexBox(self._calibrate, self._count, align_items="center", gap="12px"),
            self._message,
        )
        self._say_count()
        self._more()

    def close(self) -> None:
        """Close the videos; what was clicked is still written."""
        self._is_closed = True
        self._reading.shutdown(wait=False, cancel_futures=True)
        self._writing.shutdown(wait=False)
        self._videos.close()

    def _then(
        self, pool: ThreadPoolExecutor, make: Callable[[], Any], take: Callable[[Any], None]
    ) -> None:
        """Make something beside the server, and take it, or the error, when it is there."""
        if self._document is None:
            take(_or_error(make))
        else:
            self._deliver(pool.submit(_or_error, make), take)

    def _deliver(self, future: Future[Any], take: Callable[[Any], None]) -> None:
        """Have the window take what was made beside it."""
        document = self._document
        assert document is not None

        def done(future: Future[Any]) -> None:
            if not self._is_closed and not future.cancelled():
                document.add_next_tick_callback(partial(take, future.result()))

        future.add_done_callback(done)

    # -------------------------------------------------------------- keypoints, one after the other

    def _more(self) -> None:
        """Choose further keypoints."""
        seed, without = self._seed, {*self._clicks, *(one.place for one in self._last)}
        self._seed += 1
        self._say("Looking for frames ...")

        def choose() -> tuple[list[TrackedPoint], bool]:
            sessions = self._filmed(seed)
            store = self._state.study.store
            found = choose_points(store, sessions, _AT_ONCE, seed=seed, without=without)
            return found, bool(sessions)

        self._then(self._reading, choose, self._take_points)

    def _filmed(self, seed: int) -> list[Session]:
        """Some sessions whose videos are there, at random."""
        sessions = [*self._state.study.sessions.values()]
        found: list[Session] = []
        for i in np.random.default_rng(seed).permutation(len(sessions)).tolist():
            path = self._videos.path(sessions[i].name)
            if path and os.path.isfile(path) and sessions[i].name not in self._videos.errors:
                found.append(sessions[i])
            if len(found) == MOST_SESSIONS:
                break
        return found

    def _take_points(self, found: Any) -> None:
        if isinstance(found, Exception):
            self._give_up(_words(found))
            return
        self._points, has_videos = found
        self._place, self._ahead, self._n_unusable = -1, {}, 0
        if self._points:
            self._say("")
            self._next()
            return
        if not has_videos and self._videos.errors:
            self._give_up(_words(next(iter(self._videos.errors.values()))))
        elif not has_videos:
            paths = [self._videos.path(name) for name in [*self._state.study.sessions][:100]]
            named = next((path for path in paths if path), "")
            where = f"The video {named} is not there. " if named else "No videos are known. "
            self._give_up(
                f"{where}Give their paths in a table with the columns session and video, then load "
                "this page again:",
                command("annotate", self._state.study.store, "table.csv"),
            )
        elif self._clicks:
            self._give_up("There are no further frames with a confidence to look at.")
        else:
            self._give_up("The tracking has no confidences: there is nothing to calibrate.")

    def _give_up(self, words: str, code: str = "") -> None:
        self._desk.visible = False
        self._calibrate.visible = bool(self._clicks)
        self._message[:] = [parts.empty(words, code)]

    @property
    def _point(self) -> TrackedPoint | None:
        within = 0 <= self._place < len(self._points)
        return self._points[self._place] if within else None

    def _next(self) -> None:
        self._place += 1
        if self._point is not None:
            self._show()
        elif self._points and self._n_unusable == len(self._points):
            self._give_up(self._why)
        else:
            self._more()

    def _back(self) -> None:
        """Take the last click back, and show its frame again."""
        if not self._last:
            self._say("There is no click to take back.")
            return
        point = self._last.pop()
        click = self._clicks.pop(point.place)
        self._say_count()
        self._then(self._writing, partial(forget_click, self._state.study.store, click),
                   partial(self._taken_back, click))  # fmt: skip
        at = max(0, self._place)
        self._points[at:at], self._ahead, self._place = [point], {}, at
        self._show()

    def _show(self) -> None:
        """Read the picture of the keypoint to look at, and that of the next one in advance."""
        place, point, view = self._place, self._point, self._view.value
        if point is None:
            return
        self._piece = None
        if self._document is None:
            self._take_piece(place, view, _or_error(partial(self._read, point, view)))
            return
        for one in (place, place + 1):
            if one < len(self._points) and (one, view) not in self._ahead:
                read = partial(_or_error, partial(self._read, self._points[one], view))
                self._ahead[one, view] = self._reading.submit(read)
        self._ahead = {k: v for k, v in self._ahead.items() if k[0] in (place, place + 1)}
        self._deliver(self._ahead[place, view], partial(self._take_piece, place, view))

    def _read(self, point: TrackedPoint, view: str) -> tuple[CutOut, str]:
        keypoint = self._state.study.settings.keypoints.index(point.keypoint)
        reader = self._reader(point.session)
        if not is_inside(reader, point.position):
            raise InputError(
                expected=f"positions in px of the video ({reader.width} x {reader.height})",
                found=f"an animal at {np.nanmedian(point.position, axis=0).round(1).tolist()}",
                where=f"session {point.session}, frame {point.frame}",
                fix="give a table of annotations in the units of the tracking files",
            )
        index = int(self._videos.frames(point.session, np.array(point.frame)))
        piece = piece_of(reader, index, point.position, keypoint, VIEWS[view])
        return piece, picture_url(piece.picture)

    def _reader(self, session: str) -> VideoReader:
        """The video of a session; one that cannot be used is not tried again."""
        if session in self._videos.errors:
            raise self._videos.errors[session]
        try:
            return self._videos.reader(session)
        except InputError as error:
            self._videos.errors[session] = error
            raise

    def _take_piece(self, place: int, view: str, found: Any) -> None:
        if (place, view) != (self._place, self._view.value) or self._piece is not None:
            return
        if isinstance(found, Exception):
            self._n_unusable += 1
            self._why = _words(found)
            self._next()
            return
        self._piece, url = found
        point = self._point
        assert point is not None
        height, width = self._piece.picture.shape[:2]
        self._task[:] = [parts.heading(f"Where is {point.keypoint}?", 3)]
        points, lines = self._drawn(point, self._piece)
        self._picture.param.update(
            label=f"{self._moment(point)} of {point.session}: mark {point.keypoint}",
            size=[width, height], url=url, points=points, lines=lines,
        )  # fmt: skip

    def _moment(self, point: TrackedPoint) -> str:
        session = self._state.study.sessions.get(point.session)
        if session is None:
            return f"Frame {point.frame}"
        clock = self._state.study.clock(point.session)
        return f"{clock.write(point.frame / session.fps, 2)} (frame {point.frame})"

    def _draw(self) -> None:
        if self._point is not None and self._piece is not None:
            points, lines = self._drawn(self._point, self._piece)
            self._picture.param.update(points=points, lines=lines)

    def _drawn(self, point: TrackedPoint, piece: CutOut) -> tuple[list[Any], list[Any]]:
        """Points and bones on the picture."""
        settings = self._state.study.settings
        at = piece.to_piece(point.position)
        is_there = np.isfinite(at).all(-1)
        chosen = settings.keypoints.index(point.keypoint)
        points, lines = [], []
        if self._with_others.value:
            points = [
                {"x": x, "y": y, "kind": "other"}
                for i, (x, y) in enumerate(at.tolist())
                if is_there[i] and i != chosen
            ]
            joined = bones(settings.skeleton, settings.keypoints)
            lines = [
                [*at[a].tolist(), *at[b].tolist()]
                for a, b in joined
                if is_there[[a, b]].all() and chosen not in (a, b)
            ]
        if self._with_tracked.value:
            x, y = at[chosen].tolist()
            points.append({"x": x, "y": y, "kind": "tracked"})
        return points, lines

    # -------------------------------------------------------------- clicks

    def _clicked(self, event: Any) -> None:
        if self._piece is not None:
            _, x, y = event.new
            self._answer(self._piece.to_video(float(x), float(y)))

    def _answer(self, position: tuple[float, ...]) -> None:
        """Keep what was clicked, and go on."""
        point = self._point
        if point is None or self._piece is None:
            return
        click = Click(*point.place, position)
        self._clicks[click.place] = click
        self._last.append(point)
        self._say_count()
        self._say("")
        self._then(self._writing, partial(keep_click, self._state.study.store, click),
                   partial(self._kept, click))  # fmt: skip
        self._next()

    def _kept(self, click: Click, found: Any) -> None:
        if isinstance(found, Exception):
            self._clicks.pop(click.place, None)
            self._last = [one for one in self._last if one.place != click.place]
            self._say_count()
            self._say(f"Not kept: {_words(found)}")

    def _taken_back(self, click: Click, found: Any) -> None:
        if isinstance(found, Exception):
            self._clicks.setdefault(click.place, click)
            self._say_count()
            self._say(f"Not taken back: {_words(found)}")

    def _say_count(self) -> None:
        seen = [click for click in self._clicks.values() if click.position]
        hidden = len(self._clicks) - len(seen)
        also = f", and {hidden} not visible" if hidden else ""
        words = f"{counted(len(seen), 'click')} in the store{also}; "
        if len(seen) < _ENOUGH:
            words += f"{_ENOUGH} are the fewest to calibrate from."
        elif len(seen) < _GOOD:
            words += f"the line becomes surer with some {_GOOD}."
        else:
            words += "enough for a line."
        self._count[:] = [parts.text(words)]
        self._calibrate.disabled = len(seen) < _ENOUGH

    def _say(self, words: str) -> None:
        self._message[:] = [parts.text(words)] if words else []

    def _ask_to_calibrate(self, _event: Any) -> None:
        self._say("Calibrating ...")
        make = partial(calibrate, self._state.study.store, annotations=True)
        self._then(self._writing, make, self._calibrated)

    def _calibrated(self, found: CalibrateSummary | Exception) -> None:
        if isinstance(found, Exception):
            self._say(f"Not calibrated: {_words(found)}")
            return
        notes = "".join(f" Note: {note}." for note in found.notes)
        self._say(
            f"Calibrated from {counted(found.n_compared, 'click')}: slope {found.slope:.2f} "
            f"(standard error {found.slope_error:.2f}), intercept {found.intercept:.2f} "
            f"({found.intercept_error:.2f}). Later fits of the full stage use it.{notes}"
        )
        self._state.refresh()


def _or_error(make: Callable[[], Any]) -> Any:
    try:
        return make()
    except InputError as error:
        return error
    except Exception as error:  # said to the person, and in the log for us
        _LOG.exception("the page Calibration failed")
        return error


def _words(error: Exception) -> str:
    if isinstance(error, InputError):
        one = error.problems[0]
        return f"expected {one.expected}; found {one.found} ({one.where}). What to do: {one.fix}."
    return f"{type(error).__name__}: {error}"
