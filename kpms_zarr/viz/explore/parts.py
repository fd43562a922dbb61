"""Pieces that all pages are put together from: empty states, errors in words, labelled panes."""

from __future__ import annotations

import html
import logging
from collections.abc import Callable, Sequence
from typing import Any

import panel as pn

from kpms_zarr.store.core.commands import command, for_shell
from kpms_zarr.store.errors import InputError
from kpms_zarr.viz.explore.state import State

_LOG = logging.getLogger(__name__)


def text(words: str) -> pn.viewable.Viewable:
    """A paragraph; what is in ``words`` is not taken for HTML."""
    return pn.pane.HTML(f"<p>{html.escape(for_shell(words))}</p>", sizing_mode="stretch_width")


def heading(words: str, level: int = 2) -> pn.viewable.Viewable:
    """A heading."""
    return pn.pane.HTML(
        f"<h{level}>{html.escape(words)}</h{level}>", sizing_mode="stretch_width", margin=(0, 5)
    )


def empty(what: str, command: str = "") -> pn.viewable.Viewable:
    """What a page says where there is nothing to show yet, and what to run next."""
    code = f"<pre>{html.escape(command)}</pre>" if command else ""
    return pn.pane.HTML(
        f'<div role="status" class="empty"><p>{html.escape(for_shell(what))}</p>{code}</div>',
        sizing_mode="stretch_width",
        stylesheets=[_EMPTY],
    )


def no_model(state: State) -> pn.viewable.Viewable:
    """What a page about a model says where there is none."""
    store = state.study.store
    if state.model in state.study.unfinished:
        return empty(
            f"The model {state.model} has no labels yet: its fit runs, or was interrupted. "
            "The page Fit shows how it goes. To go on with an interrupted one:",
            command("fit", store, model=state.model, resume=True),
        )
    return empty("No model yet. Fit one:", command("fit", store, model="first"))


def guarded(build: Callable[..., Any]) -> Callable[..., Any]:
    """A function that returns a view, made to return its errors in plain words instead."""

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


def follow(
    state: State, names: Sequence[Any], build: Callable[[], Any], *, news: bool = True
) -> pn.viewable.Viewable:
    """A view that is built again whenever one of some choices changes.

    Parameters
    ----------
    state : State
    names : sequence of str or param.Parameter
        Parameters of ``state``, and of widgets of the page, that ``build`` reads.
    build : callable
        Returns what is shown.
    news : bool
        Whether it is built again, too, when the store has something new.
    """
    all_names = (*names, *(["news"] if news else []))
    watched = [state.param[name] if isinstance(name, str) else name for name in all_names]
    make = guarded(build)
    return pn.param.ParamFunction(
        pn.bind(lambda *_: make(), *watched), sizing_mode="stretch_width", loading_indicator=True
    )


_EMPTY = """
.empty { border-left: 4px solid #d5dbe1; padding: .2rem 0 .2rem 1rem; font-size: 15px; }
.empty pre { background: #f5f7fa; border-radius: 6px; padding: .6rem .8rem; overflow-x: auto;
  user-select: all; }
"""
