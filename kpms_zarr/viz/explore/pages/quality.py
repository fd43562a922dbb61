"""Quality of the tracking: all sessions by keypoint, and one of them over time."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import holoviews as hv
import numpy as np
import panel as pn

from kpms_zarr.store.core.commands import command
from kpms_zarr.store.study.tracking import PROBLEMS
from kpms_zarr.viz.explore import parts
from kpms_zarr.viz.explore.state import State
from kpms_zarr.viz.tracking import drawing, views
from kpms_zarr.viz.tracking.data import QualityTable, confidences, table
from kpms_zarr.viz.tracking.frames import read_traces, worst_stretch

TITLE = "Quality"
KEYS = (("Tab Enter", "Earlier, Later, Narrower, Wider and Worst 10 s move and zoom the traces"),)

_MAX_ROWS = 24
_MARGIN = 2.5  # s before and after the worst stretch.
_FIRST_SECONDS = 600.0  # Shown before somebody chooses.

_HOW_TO_READ = (
    "Each row is a session, each column a keypoint; the darker a cell, the more of its frames are "
    "bad. Click a cell to see where that keypoint is worst. Missing: the tracker gave no position. "
    "Low confidence: the tracker gave one with a confidence below {threshold:g}. Outlier: the "
    "keypoint lies further from the middle of the animal than the median of that distance over "
    "the session plus {scale:g} median absolute deviations. Grey: nothing to count, such as "
    "confidences that the files do not hold."
)
_HOW_TO_READ_TRACES = (
    "Line: the tracked position over time, in the units of the tracking file (usually px). Grey: "
    "missing. Circles: low confidence. Diamonds: outliers; triangles at the edge are positions "
    "beyond the axis. Drag across the plot to look closer."
)
_HOW_TO_READ_HISTOGRAM = (
    "Bars: shares of the frames of this session by confidence, on a logarithmic axis. Black line: "
    "all sessions. Dashed line: the threshold below which a confidence is low."
)


def page(state: State) -> pn.viewable.Viewable:
    """Build the page for one browser window."""
    what = pn.widgets.Select(
        name="Heat map of",
        options={words: problem for problem, words in drawing.WORDS.items()},
        value=PROBLEMS[0],
        width=180,
    )
    first = pn.widgets.IntSlider(name="First row", start=0, end=1, value=0, width=300)
    what.param.watch(lambda _: first.param.update(value=0), "value")
    choices = pn.Row(what, first)
    buttons = _buttons(state, lambda: what.value)

    def explanation() -> Any:
        choices.visible = buttons.visible = state.study.quality() is not None
        return _explanation(state)

    heat = parts.follow(
        state,
        ["news", "session", "keypoint", what, first.param.value_throttled],
        lambda: _map(state, what.value, first),
    )
    return parts.column(
        parts.follow(state, ["news"], explanation),
        choices,
        heat,
        parts.follow(state, ["news", "session", "keypoint"], lambda: _heading(state)),
        buttons,
        parts.follow(
            state, ["news", "session", "keypoint", "start", "stop"], lambda: _traces(state)
        ),
        parts.follow(state, ["news", "session", "keypoint"], lambda: _histograms(state)),
    )


def _explanation(state: State) -> pn.viewable.Viewable:
    quality = state.study.quality()
    if not state.study.sessions:
        return parts.empty(
            "No sessions yet. Put tracking files into the store:",
            command("ingest", state.study.store, "FILES..."),
        )
    if quality is None:
        return parts.empty(
            "The quality of the tracking was not counted yet:",
            command("quality", state.study.store),
        )
    words = parts.text(
        _HOW_TO_READ.format(
            threshold=quality.attrs["confidence_threshold"], scale=quality.attrs["outlier_scale"]
        )
    )
    counted = {str(name) for name in quality["session"].values}
    later = [name for name in state.study.sessions if name not in counted]
    if not later:
        return words
    return parts.column(
        words,
        parts.empty(
            f"{len(later)} sessions came later and are not counted yet, such as {later[0]}:",
            command("quality", state.study.store),
        ),
    )


# ------------------------------------------------------------------ sessions by keypoints


def _map(state: State, what: str, first: pn.widgets.IntSlider) -> Any:
    quality = state.study.quality()
    if quality is None:
        return None
    found = table(
        quality, state.study.sessions, what=what, first=first.value or 0, max_sessions=_MAX_ROWS
    )
    first.param.update(
        end=max(1, found.n_sessions - _MAX_ROWS), visible=found.n_sessions > _MAX_ROWS
    )
    drawn = drawing.draw_map(found, what=what, marked=(state.session, state.keypoint))
    heat = next(iter(drawn)) if isinstance(drawn, hv.Overlay) else drawn
    tap = hv.streams.Tap(source=heat)
    tap.add_subscriber(_on_tap(state, found, what))
    words = parts.text(_in_words(found, what))
    return parts.column(words, parts.plot(drawn, f"{drawing.WORDS[what]} by keypoint"))


def _in_words(table: QualityTable, what: str) -> str:
    """Describe the map of the whole study in words, for those who do not see it."""
    last = table.first + len(table.sessions)
    shown = f"Sessions {table.first + 1:,} to {last:,} of {table.n_sessions:,}, the worst first. "
    if np.isnan(table.overall).all():
        return f"{shown}There is nothing to count: no session has confidences."
    worst = int(np.nan_to_num(table.overall, nan=-1).argmax())
    return (
        f"{shown}{drawing.WORDS[what].capitalize()} in the median session: at most "
        f"{100 * table.overall[worst]:.2g} % of the frames, of {table.keypoints[worst]}."
    )


def _on_tap(state: State, table: QualityTable, what: str) -> Callable[..., None]:
    rows, columns = drawing.labels(table.sessions), drawing.labels(table.keypoints, 18)

    def tapped(x: Any = None, y: Any = None) -> None:
        if x in columns and y in rows:
            choose(state, table.sessions[rows.index(y)], table.keypoints[columns.index(x)], what)

    return tapped


def choose(state: State, session: str, keypoint: str, what: str) -> None:
    """Choose a session and a keypoint, and show the worst stretch of it."""
    data, quality = state.study.keypoints(), state.study.quality()
    row = state.study.sessions.get(session)
    if quality is None or row is None:
        return
    found = worst_stretch(data, quality, row, keypoint=keypoint, what=what)
    start = max(0.0, found.start - _MARGIN) if found else 0.0
    stop = min(row.n_frames / row.fps, (found.stop if found else 4 * _MARGIN) + _MARGIN)
    state.param.update(
        session=session, keypoint=keypoint, start=round(start, 3), stop=round(stop, 3)
    )


# ------------------------------------------------------------------ the chosen session


def _heading(state: State) -> Any:
    if state.study.quality() is None or not state.session:
        return None
    keypoint = f", {state.keypoint}" if state.keypoint else ""
    return parts.heading(f"{state.session}{keypoint}")


def _buttons(state: State, what: Callable[[], str]) -> pn.viewable.Viewable:
    """Build the buttons that do by keyboard what the mouse does on the plots."""
    keypoint = pn.widgets.Select(name="Keypoint", width=180)

    def fill() -> None:
        names = list(state.study.settings.keypoints)
        keypoint.param.update(options={"the worst": "", **{n: n for n in names}})
        keypoint.value = state.keypoint

    def move(by: float, zoom: float = 1.0) -> Callable[[Any], None]:
        def moved(_: Any) -> None:
            start, stop = parts.shifted(*_span(state), _end(state), by=by, zoom=zoom)
            state.show(state.session, start, stop)

        return moved

    def worst(_: Any) -> None:
        choose(state, state.session, _keypoint(state), what())

    def play(_: Any) -> None:
        start, stop = _span(state)
        state.param.update(start=start, stop=stop, page="player")

    parts.redraw(state, ["news", "keypoint"], fill)
    keypoint.param.watch(lambda event: state.param.update(keypoint=event.new), "value")
    acts = {
        "Worst 10 s": worst,
        "Earlier": move(-0.8),
        "Later": move(0.8),
        "Narrower": move(0, 0.5),
        "Wider": move(0, 2.0),
        "Look at these frames in the player": play,
    }
    buttons = (parts.button(name, act, align="end") for name, act in acts.items())
    return pn.FlexBox(keypoint, *buttons, align_items="flex-end", gap="6px")


def _end(state: State) -> float:
    session = state.session_row
    return session.n_frames / session.fps if session else 0.0


def _span(state: State) -> tuple[float, float]:
    """Span to show: as chosen, or the beginning of a long session."""
    start, stop = state.span
    is_chosen = state.start > 0 or state.stop > 0
    return start, stop if is_chosen else min(stop, start + _FIRST_SECONDS)


def _keypoint(state: State) -> str:
    """The chosen keypoint, or the worst one of the session."""
    quality, session = state.study.quality(), state.session_row
    if state.keypoint or quality is None or session is None:
        return state.keypoint
    return views.worst_keypoint(table(quality, {session.name: session}, what=PROBLEMS[0]))


def _traces(state: State) -> Any:
    quality, session = state.study.quality(), state.session_row
    if quality is None or session is None:
        return None
    start, stop = _span(state)
    first, last = views.frames_between(session, start, stop)
    found = read_traces(
        state.study.keypoints(),
        quality,
        session,
        start=first,
        stop=last,
        keypoints=[_keypoint(state)],
    )
    panels = list(drawing.draw_traces(found, state.study.clock(session.name)))
    curve = next(iter(panels[0]))
    hv.streams.RangeX(source=curve).add_subscriber(
        _on_zoom(state, (found.start / session.fps, found.stop / session.fps))
    )
    words = parts.text(f"{_HOW_TO_READ_TRACES} {drawing.what_was_read(found)}")
    return parts.column(
        words, *_panes(panels, f"trace of {_keypoint(state)}", session.name, on_one_axis=True)
    )


def _panes(
    panels: Sequence[hv.Overlay], called: str, session: str, *, on_one_axis: bool
) -> list[pn.viewable.Viewable]:
    """Plots of their own: a Layout inside of tabs is not drawn before the window is resized."""
    shared: dict[str, Any] = {}

    def share(plot: Any, _element: Any) -> None:
        plot.state.x_range = shared.setdefault("x", plot.state.x_range)

    if on_one_axis:
        panels = [panel.opts(hooks=[*parts.hooks_of(panel), share]) for panel in panels]
    return [parts.plot(panel, called, session=session) for panel in panels]


def _on_zoom(state: State, shown: tuple[float, float]) -> Callable[..., None]:
    """Make a callback that reads again where one zooms in, so that every frame is there.

    ``shown`` is the axis as it was drawn: HoloViews tells of it, too.
    """

    def zoomed(x_range: tuple[float, float] | None = None) -> None:
        if x_range is None or np.isnan(x_range).any() or np.allclose(x_range, shown, atol=1e-3):
            return
        start, stop = max(0.0, float(x_range[0])), min(_end(state), float(x_range[1]))
        if start < stop:
            state.param.update(start=round(start, 3), stop=round(stop, 3))

    return zoomed


def _histograms(state: State) -> Any:
    quality, session = state.study.quality(), state.session_row
    if quality is None or session is None:
        return None
    found = confidences(
        quality, session=session.name, keypoint=state.keypoint or None, max_keypoints=3
    )
    if not any(one.n_frames for one in found):
        return parts.text("The tracking files of this session hold no confidences.")
    threshold = float(quality.attrs["confidence_threshold"])
    drawn = drawing.draw_confidences(found, threshold=threshold, with_all=True)
    return parts.column(
        parts.text(_HOW_TO_READ_HISTOGRAM),
        pn.Row(
            *_panes(list(drawn), "confidences", session.name, on_one_axis=False),
            sizing_mode="stretch_width",
        ),
    )
