"""Browser window: choices on the left, pages on the right, the URL in step with both."""

from __future__ import annotations

import os
from functools import partial
from importlib import import_module, resources
from typing import Any

import panel as pn

from kpms_zarr.viz.explore import link, parts
from kpms_zarr.viz.explore.navigation import PageNames
from kpms_zarr.viz.explore.state import State
from kpms_zarr.viz.explore.study import Study
from kpms_zarr.viz.shared.embedding import labels_script
from kpms_zarr.viz.shared.reading import store_name
from kpms_zarr.viz.shared.style import load

PAGES = (
    *("quality", "calibration", "pose_space", "fit", "ethogram", "player", "syllables"),
    *("similarity", "onsets"),
    *("transitions", "groups"),
)
"""Names of the pages, in their order; each is a module of ``pages`` with TITLE and page(state)."""

_LOOK_EVERY = 2000  # ms


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
    template.add_panel("choices", _choices(state))
    template.add_panel("pages", pages)
    look = parts.guarded(partial(state.refresh, wait=False))
    pn.state.add_periodic_callback(look, period=_LOOK_EVERY)
    return template


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
    session = pn.widgets.Select(name="Session", sizing_mode="stretch_width")
    start = pn.widgets.FloatInput(name="From (s)", start=0.0, sizing_mode="stretch_width")
    stop = pn.widgets.FloatInput(name="To (s), 0 = end", start=0.0, sizing_mode="stretch_width")
    syllable = pn.widgets.IntInput(
        name="Syllable, -1 = none", start=-1, sizing_mode="stretch_width"
    )
    whole = parts.button(
        "Whole session", lambda _: state.show(state.session), sizing_mode="stretch_width"
    )

    def fill() -> None:
        study = state.study
        names = [*study.models, *(name for name in study.unfinished if name not in study.models)]
        model.param.update(options=names or {"none yet": ""}, value=state.model)
        session.param.update(options=list(study.sessions) or {"none": ""}, value=state.session)

    parts.redraw(state, ["news"], fill)
    for widget, name in (
        (model, "model"),
        (session, "session"),
        (start, "start"),
        (stop, "stop"),
        (syllable, "syllable"),
    ):
        _tie(widget, state, name)
    return parts.column(model, session, start, stop, whole, syllable)


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
