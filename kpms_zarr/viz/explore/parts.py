"""Pieces that all pages are put together from: empty states, errors in words, labelled panes."""

from __future__ import annotations

import html
import logging
import threading
from collections.abc import Callable, Sequence
from contextlib import nullcontext
from typing import Any

import holoviews as hv
import numpy as np
import panel as pn
import param
from panel.param import set_values

from kpms_zarr.store.core.access import is_remote
from kpms_zarr.store.core.commands import command, for_shell
from kpms_zarr.store.errors import InputError
from kpms_zarr.viz.explore.state import State
from kpms_zarr.viz.shared.picture_data import tag
from kpms_zarr.viz.shared.reading import label_sessions

_LOG = logging.getLogger(__name__)

SAME: Any = object()
"""What a view returns where what is there is still right."""


def text(words: str) -> pn.viewable.Viewable:
    """A paragraph; what is in ``words`` is not taken for HTML."""
    return pn.pane.HTML(f"<p>{html.escape(for_shell(words))}</p>", sizing_mode="stretch_width")


def column(*views: Any) -> pn.Column:
    """Views below each other, as wide as their place."""
    return pn.Column(*views, sizing_mode="stretch_width")


def plot(view: Any, called: str, *, session: str = "", **options: Any) -> pn.pane.HoloViews:
    """A plot as wide as its place, whose axes are its own.

    Else Panel gives one range to axes that share no more than a name, such as that of a share.

    Parameters
    ----------
    called : str
        Name of the picture, in the names of the files that are downloaded of it.
    session : str
        Name of the session that it shows; "" = not of one alone.
    """
    options = {"sizing_mode": "stretch_width", "linked_axes": False, **options}
    return pn.pane.HoloViews(view, tags=[tag(called, session)], **options)


def figure(view: Any, called: str, *, session: str = "", **options: Any) -> pn.pane.Bokeh:
    """A figure of Bokeh, or what holds several; see :func:`plot`."""
    view.tags = [*view.tags, tag(called, session)]
    return pn.pane.Bokeh(view, **options)


def hooks_of(view: Any) -> list[Any]:
    """Hooks that a plot has, to give it more of them."""
    return list(hv.Store.lookup_options("bokeh", view, "plot").kwargs.get("hooks", []))


def shifted(
    start: float, stop: float, end: float, *, by: float, zoom: float
) -> tuple[float, float]:
    """A range of seconds moved by a share of its length, or zoomed, inside 0 to ``end``."""
    length = min((stop - start) * zoom, end)
    middle = (start + stop) / 2 + by * (stop - start)
    start = float(np.clip(middle - length / 2, 0, end - length))
    return round(start, 3), round(start + length, 3)


def span_buttons(state: State, span: Callable[[], tuple[float, float]]) -> pn.viewable.Viewable:
    """Buttons that do by keyboard what the mouse does on a plot of some time of the session.

    Parameters
    ----------
    span : callable
        What is shown, in s.
    """

    def move(by: float, zoom: float = 1.0) -> Callable[[Any], None]:
        def moved(_: Any) -> None:
            session = state.session_row
            if session is not None:
                end = session.n_frames / session.fps
                state.show(state.session, *shifted(*span(), end, by=by, zoom=zoom))

        return moved

    def play(_: Any) -> None:
        start, stop = span()
        state.param.update(start=start, stop=stop, page="player")

    acts = {
        "Earlier": move(-1), "Later": move(1), "Closer": move(0, 0.5), "Wider": move(0, 2.0),
        "Play": play,
    }  # fmt: skip
    return pn.Row(*(button(name, act, width=90) for name, act in acts.items()))


def button(name: str, act: Callable[[Any], object], **options: Any) -> pn.widgets.Button:
    """A button, and what a click on it does."""
    return pn.widgets.Button(name=name, on_click=act, **options)


def heading(words: str, level: int = 2) -> pn.viewable.Viewable:
    """A heading."""
    return pn.pane.HTML(
        f"<h{level}>{html.escape(words)}</h{level}>", sizing_mode="stretch_width", margin=(0, 5)
    )


def empty(what: str, command: str = "") -> pn.viewable.Viewable:
    """Notice that there is nothing to show yet, with the command to run next."""
    code = f"<pre>{html.escape(command)}</pre>" if command else ""
    return pn.pane.HTML(
        f'<div role="status" class="empty"><p>{html.escape(for_shell(what))}</p>{code}</div>',
        sizing_mode="stretch_width",
        stylesheets=[_EMPTY],
    )


def code(line: str) -> pn.viewable.Viewable:
    """A command to copy."""
    return pn.pane.HTML(
        f"<pre>{html.escape(line)}</pre>", sizing_mode="stretch_width", stylesheets=[_CODE]
    )


def no_model(state: State) -> pn.viewable.Viewable:
    """Notice that there is no model yet."""
    store = state.study.store
    if state.model in state.study.unfinished:
        return empty(
            f"The model {state.model} has no labels yet: its fit runs, or was interrupted. "
            "The page Fit shows how it goes. To go on with an interrupted one:",
            command("fit", store, model=state.model, resume=True),
        )
    return empty("No model yet. Fit one:", command("fit", store, model="first"))


def guarded(build: Callable[..., Any]) -> Callable[..., Any]:
    """Wrap a function that builds a view, so that it returns its errors in plain words."""

    def view(*args: Any, **kwargs: Any) -> Any:
        try:
            return build(*args, **kwargs)
        except InputError as error:
            problem = error.problems[0]
            return empty(
                f"Expected {problem.expected}; found {problem.found} ({problem.where}). "
                f"What to do: {problem.fix}."
            )
        except Exception as error:  # shown to the person, and in the log for us
            _LOG.exception("a view failed")
            return empty(
                f"This view could not be drawn ({type(error).__name__}: {error}). "
                "The window where kpms-zarr explore runs says more."
            )

    return view


def redraw(
    state: State,
    choices: Sequence[Any],
    draw: Callable[[], object],
    *,
    page: str = "",
    later: bool = False,
) -> None:
    """Draw now, and again whenever one of some choices changes: the one rule for all pages.

    Parameters
    ----------
    choices : sequence of str, Widget or param.Parameter
        What ``draw`` reads: parameters of ``state``, values of widgets, or other parameters.
    draw : callable
        Where what is there may still be right, it finds that out by itself.
    page : str
        Name of the page: while another one is shown nothing is drawn, and what has changed
        meanwhile when a person comes back. Default: drawn whether it is seen or not.
    later : bool
        Whether it is drawn first when the browser has what stands above it.
    """
    is_begun = not later

    def begin() -> None:
        nonlocal is_begun
        is_begun = True
        draw()

    def changed(*_: Any) -> None:
        if is_begun and (not page or state.page == page):
            draw()

    by_owner: dict[int, tuple[Any, list[str]]] = {}
    for choice in (*choices, *(["page"] if page else [])):
        one = state.param[choice] if isinstance(choice, str) else choice
        one = one if isinstance(one, param.Parameter) else one.param.value
        by_owner.setdefault(id(one.owner), (one.owner, []))[1].append(str(one.name))
    for owner, names in by_owner.values():
        owner.param.watch(changed, names)
    if later:
        pn.state.onload(begin)
    else:
        draw()


def follow(
    state: State,
    choices: Sequence[Any],
    build: Callable[[], Any],
    *,
    page: str = "",
    later: bool = False,
) -> pn.Column:
    """A view that is built by :func:`redraw`, its errors in plain words.

    Parameters
    ----------
    state, choices, page, later
        See :func:`redraw`.
    build : callable
        Returns what is shown; None = nothing, :data:`SAME` = what is there already.
    """
    place = column()
    make = guarded(build)

    def draw() -> None:
        with set_values(place, loading=True) if len(place) else nullcontext():
            made = make()
        if made is not SAME:
            place[:] = [] if made is None else [made]

    redraw(state, choices, draw, page=page, later=later)
    return place


def is_much(state: State, at_once: tuple[float, float]) -> bool:
    """Whether the labels have more frames than are gone through without being asked.

    Parameters
    ----------
    at_once : (float, float)
        Frames on a disk, and elsewhere.
    """
    study = state.study
    n_frames = sum(one.n_frames for one in label_sessions(study.opened(state.model).labels))
    return n_frames > at_once[is_remote(study.store)]


def beside(make: Callable[[], Any], take: Callable[[Any], None], *, is_short: bool) -> None:
    """Make something without keeping the other windows waiting, then hand it over.

    It begins when the browser has the page: what is handed over while that is sent can be lost.
    """
    document = pn.state.curdoc
    if is_short or document is None:
        take(make())
        return

    def work() -> None:
        found = make()
        document.add_next_tick_callback(lambda: take(found))

    pn.state.onload(threading.Thread(target=work, name="count", daemon=True).start)


_CODE = """
pre { background: #f5f7fa; border-radius: 6px; padding: .6rem .8rem; margin: 0; overflow-x: auto;
  user-select: all; font-size: 13px; }
"""
_EMPTY = """
.empty { border-left: 4px solid #d5dbe1; padding: .2rem 0 .2rem 1rem; font-size: 15px; }
.empty pre { background: #f5f7fa; border-radius: 6px; padding: .6rem .8rem; overflow-x: auto;
  user-select: all; }
"""
