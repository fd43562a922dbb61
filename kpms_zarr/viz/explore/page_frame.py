"""Frame around every page: copying its address, its keys, and downloads of its pictures."""

from __future__ import annotations

import logging
import re
from collections.abc import Callable, Sequence
from typing import Any, ClassVar, NamedTuple

import panel as pn
import param

from kpms_zarr.store.core.commands import command
from kpms_zarr.viz.explore.chooser import script
from kpms_zarr.viz.explore.state import State
from kpms_zarr.viz.shared.picture_data import PictureTable, csv_of, figures_in, table_of
from kpms_zarr.viz.shared.reading import store_name

_LOG = logging.getLogger(__name__)

KINDS = ("png", "svg", "csv")
GENERAL_KEYS = (
    ("?", "these keys; Escape closes them"),
    ("/", "to the field of the session: type a part of a name or of a group, Enter chooses"),
    ("Tab", "to the next button, field or picture; with Shift to the one before"),
    ("Enter Space", "presses the button, opens the list of downloads of a picture"),
    ("\u2190 \u2192 Home End", "from one page to another, when the row of pages has the focus"),
    ("\u2191 \u2193", "through the list of a field or of downloads; Escape closes it"),
)  # fmt: skip
"""Keys, and what they do."""

_MOST_LETTERS = 60


class PictureFile(NamedTuple):
    """A file to download: its name, and its text where the server makes it."""

    name: str
    text: str = ""


class FrameTools(pn.custom.JSComponent):
    """Buttons that every page has, and in every figure of Bokeh one for downloads.

    The browser asks for a file by ``asked``, and is told its name and text by ``answer``.
    """

    page_title = param.String("", doc="Title of the page that is shown")
    keys = param.List([], doc="Pairs: keys of this page, and what they do")
    general_keys = param.List([], doc="The same of all pages")
    asked = param.List([0, "", ""], doc="Number of the request, id of the figure, kind of file")
    answer = param.Dict({}, doc="number, name, text, error")

    _esm = script("frame.js")

    _stylesheets: ClassVar = [
        """
.frame-tools { display: flex; align-items: center; gap: 8px; justify-content: flex-end;
  color: #1f2933;
  font: 14px system-ui, -apple-system, "Segoe UI", Roboto, "Helvetica Neue", Arial, sans-serif; }
.frame-tools > button, dialog > button { font: inherit; color: inherit; background: #fff;
  border: 1px solid #7b8794; border-radius: 4px; padding: 3px 10px; cursor: pointer;
  white-space: nowrap; }
button:hover { background: #f0f6fc; }
button:focus-visible { outline: 3px solid #0b5394; outline-offset: 1px; }
kbd { font: 12px ui-monospace, "Cascadia Mono", Menlo, monospace; background: #f5f7fa;
  border: 1px solid #9aa5b1; border-radius: 3px; padding: 0 5px; margin-left: 5px; }
.said { min-height: 1.2em; font-size: 13px; text-align: right; }
.menu { position: fixed; z-index: 30; display: flex; flex-direction: column; background: #fff;
  border: 1px solid #7b8794; border-radius: 5px; padding: 4px; box-shadow: 0 4px 14px #0003; }
.menu[hidden] { display: none; }
.menu button { font: inherit; color: inherit; text-align: left; border: 0; background: none;
  padding: 5px 12px; border-radius: 3px; cursor: pointer; white-space: nowrap; }
.menu button:hover, .menu button:focus { background: #dbe9f6; }
dialog { border: 1px solid #7b8794; border-radius: 8px; padding: 14px 22px 18px; color: inherit;
  max-width: min(680px, 92vw); max-height: 86vh; overflow: auto; }
dialog::backdrop { background: #1f293366; }
h2 { font-size: 18px; margin: 0; }
h3 { font-size: 15px; margin: 14px 0 4px; }
td { padding: 2px 16px 2px 0; vertical-align: top; }
td:first-child { white-space: nowrap; }
td kbd { margin: 0 3px 0 0; }
dialog > button { margin-top: 14px; }
"""
    ]

    def __init__(self, **params: Any) -> None:
        params.setdefault("sizing_mode", "stretch_width")
        params.setdefault("margin", 0)
        params.setdefault("general_keys", [list(one) for one in GENERAL_KEYS])
        super().__init__(**params)


def frame_tools(state: State, page_of: Any) -> FrameTools:
    """Build the frame of a browser window.

    Parameters
    ----------
    page_of : callable
        Gives the module of a page: ``TITLE``, and perhaps ``KEYS``, pairs of keys and what they do.
    """
    tools = FrameTools()

    def turned(*_: Any) -> None:
        page = page_of(state.page)
        keys = [list(one) for one in getattr(page, "KEYS", ())]
        tools.param.update(page_title=page.TITLE, keys=keys)

    def asked(event: Any) -> None:
        number, figure, kind = event.new
        document = pn.state.curdoc
        roots = list(document.roots) if document is not None else []
        made = answered(lambda: picture_file(state, roots, str(figure), str(kind)))
        tools.answer = {"number": number, **made}

    turned()
    state.param.watch(turned, "page")
    tools.param.watch(asked, "asked")
    return tools


def answered(make: Callable[[], PictureFile | None]) -> dict[str, str]:
    """Make a file, as what the browser is told: ``name`` and ``text``, or the ``error``."""
    try:
        made = make()
    except Exception as error:  # said to the person, and in the log for us
        _LOG.exception("a picture could not be downloaded")
        return {"error": f"This could not be downloaded ({type(error).__name__}: {error})."}
    if made is None:
        return {"error": "This picture is not shown any more."}
    return {"name": made.name, "text": made.text}


def picture_file(
    state: State, roots: Sequence[Any], figure_id: str, kind: str
) -> PictureFile | None:
    """File of a figure of a page; None where there is no such figure.

    Parameters
    ----------
    roots : sequence of Model
        Roots of the document.
    figure_id : str
        Of the model.
    kind : str
        One of :data:`KINDS`; pictures are made by the browser.
    """
    figures = figures_in(roots)
    if figure_id not in figures or kind not in KINDS:
        return None
    figure, tag = figures[figure_id]
    title = _title(figure)
    called, session = (tag["called"], tag["session"]) if tag else (title or "picture", "")
    name = file_name(state.page, state.model, session, called, kind)
    if kind != "csv":
        return PictureFile(name)
    return PictureFile(name, csv_of(table_of(figure), _head(state, called, session, figure)))


def card_file(
    state: State, called: str, kind: str, make: Callable[[], PictureTable], session: str = ""
) -> PictureFile:
    """File of a small picture that is no figure.

    Parameters
    ----------
    called, session : str
        As of :func:`kpms_zarr.viz.explore.parts.plot`.
    kind : str
        One of :data:`KINDS`.
    make : callable
        Gives its data.
    """
    name = file_name(state.page, state.model, session, called, kind)
    return PictureFile(name, csv_of(make(), _head(state, called, session)) if kind == "csv" else "")


def file_name(page: str, model: str, session: str, called: str, kind: str) -> str:
    """Name of a file that tells page, model, session and picture: ``player_m_mouse1_speed.csv``."""
    parts = [re.sub(r"[^\w.+-]+", "-", one).strip("-.")[:_MOST_LETTERS] for one in
             (page, model, session, called)]  # fmt: skip
    return f"{'_'.join(part for part in parts if part)}.{kind}"


def _title(figure: Any) -> str:
    return " ".join(str(getattr(figure.title, "text", "") or "").split())


def _head(state: State, called: str, session: str, figure: Any = None) -> list[str]:
    """What a table is of, and which command writes all that there is."""
    study = state.study
    of = f", model {state.model} (labels {study.version(state.model)})" if state.has_model else ""
    of += f", session {session}" if session else ""
    lines = [f"{called}, page {state.page} of {store_name(str(study.store))}{of}"]
    if figure is not None:
        title = _title(figure)
        axes = [
            f"{name}: {' '.join(str(axis.axis_label).split())}"
            for name, all_axes in (("x", figure.xaxis), ("y", figure.yaxis))
            for axis in list(all_axes)[:1]
            if axis.axis_label
        ]
        lines += ["; ".join([*([title] if title else []), *axes])] if title or axes else []
    more = ""
    if state.has_model:
        more = f"; all of it: {command('tables', study.store, model=state.model, out='tables')}"
    return [*lines, f"as drawn, times in seconds{more}"]
