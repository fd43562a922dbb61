"""Fit: whether it runs, its traces, how far its labels have settled, durations."""

from __future__ import annotations

import html
import os
import shlex
from collections.abc import Callable
from datetime import datetime
from typing import Any

import holoviews as hv
import numpy as np
import panel as pn

from kpms_zarr.store.core.commands import command
from kpms_zarr.store.model.settling import course_in_words
from kpms_zarr.store.wording import counted, sentence
from kpms_zarr.viz.explore import parts
from kpms_zarr.viz.explore.chooser import TimeField
from kpms_zarr.viz.explore.state import State
from kpms_zarr.viz.fit import views as fit_views
from kpms_zarr.viz.fit.views import Course
from kpms_zarr.viz.shared.reading import MissingData

TITLE = "Fit"

_RUNNING, _PUBLISHED = "in progress", "published"


def page(state: State) -> pn.viewable.Viewable:
    """Build the page for one browser window."""
    return _FitPage(state).view


class _FitPage:
    """Page that keeps what is chosen while its views are drawn again at every commit."""

    def __init__(self, state: State) -> None:
        self.state = state
        self.which = pn.widgets.RadioButtonGroup(
            name="Which fit of the model", options=[_RUNNING, _PUBLISHED], value=_RUNNING
        )
        self.window = pn.widgets.Select(name="Window of frames", options={"first": 0}, width=420)
        self._drawn: Any = None
        self._course: Course | None = None
        self._places = {
            name: parts.column() for name in ("status", "traces", "stability", "durations")
        }
        self.view = parts.column(*self._places.values())
        parts.redraw(state, ["model", "news", self.which], self._update, page="fit")
        self.window.param.watch(lambda _: self._draw_stability(), "value")

    def _update(self) -> None:
        """Draw again what has changed."""
        state, study = self.state, self.state.study
        key = (
            state.model,
            study.version(state.model),
            study.unfinished.get(state.model),
            state.model in study.running,
            self.which.value,
        )
        if key == self._drawn:
            return
        self._drawn = key
        self._course = None
        self._places["status"][:] = [parts.guarded(self._status)()]
        if self._course is None:
            for name in ("traces", "stability", "durations"):
                self._places[name][:] = []
            return
        self._places["traces"][:] = [parts.heading("Traces"), self._view(self._traces)]
        self._draw_stability()
        title = parts.heading("Durations of bouts")
        self._places["durations"][:] = [title, self._view(self._durations)]

    # -------------------------------------------------------------- what there is

    def _status(self) -> pn.viewable.Viewable:
        """Find the fit that is looked at, and say in words how it stands."""
        state = self.state
        model = state.model
        progress = state.study.progress(model)
        has_both = progress is not None and state.has_model
        if progress is not None and not (has_both and self.which.value == _PUBLISHED):
            self._course = fit_views.course_in_progress(progress)
            words = self._progress_words(self._course)
        elif state.has_model:
            course = fit_views.published_course(state.study.opened(model))
            self._course = course
            text = f"{course.n_sweeps} sweeps; labels {course.version} of {_when(course)}."
            for line in course_in_words(course.data):
                text += f" {sentence(line)}"
            words = _status_html(f"{model}: finished", text)
        else:
            return parts.no_model(state)
        return parts.column(words, *([self.which] if has_both else []))

    def _progress_words(self, course: Course) -> pn.viewable.Viewable:
        n_planned = f"{'at most ' if course.may_end_early else ''}{course.n_planned}"
        done = f"{course.n_sweeps} of {n_planned} sweeps are committed ({_when(course)})."
        if course.model in self.state.study.running:
            left = course.seconds_left
            at_most = "at most" if course.may_end_early else "about"
            rest = "" if np.isnan(left) else f" {at_most.capitalize()} {_duration(left)} left."
            text = (
                f"{done}{rest}{_on_workers(course)} This page goes on by itself with every commit."
            )
            return _status_html(f"{course.model}: running", text)
        store = shlex.quote(os.fspath(self.state.study.store))
        return _status_html(
            f"{course.model}: interrupted",
            f"{done} Nothing of them is lost. To go on:",
            command("fit", store, model=course.model, resume=True),
        )

    # -------------------------------------------------------------- views

    def _view(self, build: Callable[[], Any]) -> Any:
        return parts.guarded(lambda: _or_words(build))()

    def _traces(self) -> pn.viewable.Viewable:
        assert self._course is not None
        views = fit_views.draw_course(self._course)
        panes = [parts.plot(view, f"trace {n}") for n, view in enumerate(views, 1)]
        rows = [pn.Row(*panes[i : i + 2], sizing_mode="stretch_width") for i in (0, 2, 4, 6, 8)]
        return parts.column(*(row for row in rows if len(row)))

    def _durations(self) -> pn.viewable.Viewable:
        assert self._course is not None
        drawn = fit_views.draw_course_durations(self._course, self.state.study.store)
        return parts.plot(drawn, "durations")

    def _draw_stability(self) -> None:
        if self._course is not None:
            title = parts.heading("Label stability")
            self._places["stability"][:] = [title, self._view(self._stability)]

    def _stability(self) -> pn.viewable.Viewable:
        course = self._course
        assert course is not None
        options = {name: i for i, name in enumerate(fit_views.window_names(course))}
        chosen = self.window.value if self.window.value in options.values() else 0
        if options != self.window.options:
            self.window.param.update(options=options, value=chosen)
        found = fit_views.read_stability(course, chosen)
        image, share = fit_views.draw_stability(found)
        explanation = parts.text(
            "Each row is a sweep, the last one at the bottom; rows that look alike mean labels "
            "that have settled. Drag over some frames, or choose them below, to see them in the "
            "player."
        )
        for view in (image, share):
            hv.streams.BoundsX(source=view).add_subscriber(
                lambda boundsx: self._show(found.session, *boundsx)
            )
        panes = [
            parts.plot(view, called, session=found.session, linked_axes=True)
            for view, called in ((image, "label stability"), (share, "labels that stay"))
        ]
        return parts.column(explanation, self.window, *panes, self._chooser(found))

    def _chooser(self, stability: fit_views.Stability) -> pn.viewable.Viewable:
        """Build what does the same as dragging, by keyboard."""
        begin, end = stability.seconds
        clock = self.state.study.clock(stability.session)
        ends = [
            TimeField(name, width=190)
            for name in ("Begin of these frames (mm:ss)", "End of these frames (mm:ss)")
        ]
        for field, value in zip(ends, (begin, end), strict=True):
            field.show(round(value, 2), clock)
        button = parts.button(
            "Show them in the player",
            lambda _: self._show(stability.session, *(one.seconds for one in ends)),
            button_type="primary",
            align="end",
        )
        return pn.Row(*(one.view for one in ends), button)

    def _show(self, session: str, begin: float, end: float) -> None:
        self.state.show(session, max(0.0, begin), end)
        self.state.page = "player"


def _or_words(build: Callable[[], Any]) -> Any:
    """Build a view, or a sentence where data are missing that come later or with a new fit."""
    try:
        return build()
    except MissingData as error:
        problem = error.problems[0]
        return parts.empty(f"Needs {problem.expected}; found {problem.found}: {problem.fix}.")


def _status_html(title: str, text: str, command: str = "") -> pn.viewable.Viewable:
    code = f"<pre>{html.escape(command)}</pre>" if command else ""
    return pn.pane.HTML(
        f'<div role="status"><h2>{html.escape(title)}</h2><p>{html.escape(text)}</p>{code}</div>',
        sizing_mode="stretch_width",
    )


def _on_workers(course: Course) -> str:
    """Where it runs, if not in one process."""
    if not course.workers:
        return ""
    workers, again = (course.workers[name] for name in ("n_workers", "n_again"))
    text = f" It runs on {counted(workers, 'worker')} of a cluster"
    return f"{text}; {counted(again, 'call')} had to be made again." if again else f"{text}."


def _when(course: Course) -> str:
    try:
        return datetime.fromisoformat(course.created).strftime("%Y-%m-%d %H:%M:%S %Z")
    except ValueError:
        return "an unknown time"


def _duration(seconds: float) -> str:
    """Format a duration: ``"4 min"``."""
    if seconds < 90:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 5400 else f"{seconds / 3600:.1f} h"
