"""Browser window: choices on the left, pages on the right, the URL in step with both."""

from __future__ import annotations

import os
from functools import partial
from importlib import import_module, resources
from typing import Any

import panel as pn

from kpms_zarr.viz.explore import link, parts
from kpms_zarr.viz.explore.chooser import Chooser, TimeField
from kpms_zarr.viz.explore.navigation import PageNames
from kpms_zarr.viz.explore.page_frame import frame_tools
from kpms_zarr.viz.explore.state import State
from kpms_zarr.viz.explore.study import Study
from kpms_zarr.viz.shared.colors import syllable_color
from kpms_zarr.viz.shared.embedding import labels_script
from kpms_zarr.viz.shared.reading import store_name
from kpms_zarr.viz.shared.style import load

PAGES = (
    *("quality", "calibration", "pose_space", "changepoints", "fit"),
    *("ethogram", "player", "syllables"),
    *("similarity", "onsets"),
    *("transitions", "groups"),
)
"""Names of the pages, in their order; each is a module of ``pages`` with TITLE and page(state)."""

NO_SYLLABLE = -1

_LOOK_EVERY = 2000  # ms
_MOST_LISTED = 200
"""Syllables that are offered of labels without statistics."""


def page_module(name: str) -> Any:
    """The module of a page: ``TITLE`` (str) and ``page(state)``, which returns a Viewable."""
    return import_module(f"kpms_zarr.viz.explore.pages.{name}")


def window(study: Study) -> pn.Template:
    """Build a browser window on a study."""
    load()
    state = State(study)
    if pn.state.location is not None:
        pn.state.onload(link.tie(state, pn.state.location))
    pages = _pages(state)
    template = pn.Template(
        resources.files("kpms_zarr.viz.explore").joinpath("window.html").read_text("utf-8"),
        location=True,
    )
    template.add_variable("app_title", store_name(os.fspath(study.store)))
    template.add_variable("labels_script", labels_script())
    template.add_panel("tools", frame_tools(state, _shown_page))
    template.add_panel("choices", _choices(state))
    template.add_panel("pages", pages)
    look = parts.guarded(partial(state.refresh, wait=False))
    pn.state.add_periodic_callback(look, period=_LOOK_EVERY)
    return template


def _shown_page(name: str) -> Any:
    """The module of the page that is shown: the first one for a name that is none."""
    return page_module(name if name in PAGES else PAGES[0])


def _pages(state: State) -> pn.Column:
    """Build the pages, each when it is looked at first."""
    built: dict[str, Any] = {}
    names = PageNames(names=[page_module(name).TITLE for name in PAGES])
    place = parts.column()

    def draw() -> None:
        name = state.page if state.page in PAGES else PAGES[0]
        if name not in built:
            built[name] = parts.guarded(page_module(name).page)(state)
        names.active = PAGES.index(name)
        if list(place) != [built[name]]:
            place[:] = [built[name]]

    def chosen(event: Any) -> None:
        state.page = PAGES[event.new]

    names.param.watch(chosen, "active")
    parts.redraw(state, ["page"], draw)
    return parts.column(names, place)


def _choices(state: State) -> pn.viewable.Viewable:
    """Build the widgets for the choices that all pages share."""
    model = pn.widgets.Select(name="Model", sizing_mode="stretch_width")
    session = Chooser(label="Session", hint="Type a part of a name or of a group")
    start, stop = TimeField("From (mm:ss)"), TimeField("To (mm:ss, or end)", is_end=True)
    syllable = Chooser(label="Syllable", hint="Type a number or a part of a name")
    whole = parts.button(
        "Whole session", lambda _: state.show(state.session), sizing_mode="stretch_width"
    )

    def fill() -> None:
        study = state.study
        names = [*study.models, *(name for name in study.unfinished if name not in study.models)]
        model.param.update(options=names or {"none yet": ""}, value=state.model)
        session.param.update(options=session_options(study), value=state.session)

    def fill_syllables() -> None:
        options = syllable_options(state)
        if options != syllable.options:
            syllable.options = options
        syllable.value = str(state.syllable)

    def show_times() -> None:
        clock = state.study.clock(state.session)
        start.show(state.start, clock)
        stop.show(state.stop, clock)

    parts.redraw(state, ["news"], fill)
    parts.redraw(state, ["news", "model", "syllable"], fill_syllables)
    parts.redraw(state, ["news", "session", "start", "stop"], show_times)
    for widget, name in ((model, "model"), (session, "session")):
        _tie(widget, state, name)
    syllable.param.watch(
        lambda event: state.param.update(syllable=int(event.new or NO_SYLLABLE)), "value"
    )
    start.when_typed(lambda seconds: state.param.update(start=seconds))
    stop.when_typed(lambda seconds: state.param.update(stop=seconds))
    return parts.column(model, session, start.view, stop.view, whole, syllable)


def session_options(study: Study) -> list[dict[str, str]]:
    """Sessions as options of a field: found by their names, and by what is said of them."""
    said = study.said_of_sessions()
    return [{"value": one, "text": one, "detail": said.get(one, "")} for one in study.sessions] or [
        {"value": "", "text": "none"}
    ]


def syllable_options(state: State) -> list[dict[str, str]]:
    """Syllables as options of a field, in their colours: those in use, then the others."""
    none = {"value": str(NO_SYLLABLE), "text": "none"}
    if not state.has_model:
        return [none]
    opened, n_states = state.study.opened(state.model), state.study.n_states(state.model)
    share = state.study.shares(state.model)
    used = set(opened.used) if share else set(range(min(n_states, _MOST_LISTED)))
    others = [one for one in range(n_states) if one not in used and share.get(one, 0.0) > 0]
    there = [*sorted(used), *others]
    if state.syllable >= 0 and state.syllable not in there:
        there.append(state.syllable)
    return [
        none,
        *(
            {
                "value": str(one),
                "text": opened.names.label(one),
                "color": syllable_color(one),
                "detail": f"{100 * share[one]:.1f} %" if one in share else "",
            }
            for one in there
        ),
    ]


def _tie(widget: Any, state: State, name: str) -> None:
    """Keep a widget and a choice equal."""
    if getattr(widget, "value", None) != getattr(state, name):
        widget.value = getattr(state, name)

    def to_state(event: Any) -> None:
        if event.new is None or event.new == getattr(state, name):
            return
        if name == "session":
            state.show(event.new)
        else:
            state.param.update(**{name: event.new})

    def to_widget(_: Any) -> None:
        # As it is now: it may have changed again while others were told of this event.
        value = getattr(state, name)
        # What a list does not offer yet comes with its new options, at the next news.
        offered = getattr(widget, "values", None)
        if widget.value != value and (offered is None or value in offered):
            widget.value = value

    widget.param.watch(to_state, "value")
    state.param.watch(to_widget, name)
