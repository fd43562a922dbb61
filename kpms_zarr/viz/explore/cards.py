"""Cards with a picture that are chosen by a click or a key: syllables, example bouts."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, ClassVar

import panel as pn
import param

from kpms_zarr.viz.explore.chooser import script
from kpms_zarr.viz.explore.page_frame import PictureFile, answered

FileOf = Callable[[int, str], PictureFile | None]
"""Gives the file of a card by its key and the kind of file; None = not shown any more."""


class Cards(pn.custom.JSComponent):
    """Cards beside each other, as many in a row as there is room for.

    Each is a button: Tab goes from one to the next, Enter and the space bar choose.
    """

    label = param.String("", doc="What the cards are, for those who do not see them")
    cards = param.List([], doc="Dicts: key (int), color, title, lines, picture (SVG), hint")
    chosen = param.Integer(-1, doc="Key of the card that is marked; -1 = none")
    clicks = param.List([0, -1], doc="Number of clicks so far, and key of the last card")
    width_of_card = param.Integer(152, doc="At least, in px")
    has_files = param.Boolean(False, doc="Whether pictures can be downloaded")
    asked = param.List([0, -1, ""], doc="Number of the request, key of the card, kind of file")
    answer = param.Dict({}, doc="number, name, text, error")

    _esm = script("cards.js")

    _stylesheets: ClassVar = [
        """
.cards { display: grid; gap: 8px; width: 100%;
  grid-template-columns: repeat(auto-fill, minmax(var(--least), 1fr)); }
.holder { position: relative; display: flex; min-width: 0; }
.download { position: absolute; right: 4px; top: 4px; width: 22px; height: 20px; padding: 0;
  display: flex; align-items: center; justify-content: center; border: 1px solid #9aa5b1;
  border-radius: 4px; background: #ffffffe0; color: #1f2933; cursor: pointer; }
.download:focus-visible { outline: 3px solid #0b5394; outline-offset: 1px; }
.card { width: 100%; font: 13px system-ui, -apple-system, "Segoe UI", Roboto, Arial, sans-serif;
  color: #1f2933; background: #fff; border: 1px solid #d5dbe1; border-radius: 6px; padding: 6px;
  text-align: left; cursor: pointer; min-width: 0;
  display: flex; flex-direction: column; justify-content: flex-start; }
.card:hover { border-color: #52606d; }
.card:focus-visible { outline: 3px solid #0b5394; outline-offset: 1px; }
.card[aria-pressed="true"] { border-color: #0b5394; box-shadow: 0 0 0 2px #0b5394;
  background: #f0f6fc; }
.card:not(:only-child) .title { padding-right: 22px; }
.title { display: flex; gap: 6px; align-items: baseline; min-height: 1.4em; }
.number { font-weight: 700; border-left: 10px solid; padding-left: 6px; white-space: nowrap; }
.name { overflow: hidden; text-overflow: ellipsis; white-space: nowrap; min-width: 0; }
.picture svg { display: block; width: 100%; height: auto; }
.line { color: #3e4c59; font-size: 12px; }
"""
    ]

    def __init__(self, **params: Any) -> None:
        params.setdefault("sizing_mode", "stretch_width")
        super().__init__(**params)
        self._file: FileOf | None = None
        self.param.watch(self._asked, "asked")

    def offer(self, file: FileOf) -> None:
        """Let pictures be downloaded.

        Parameters
        ----------
        file : callable
            Gives the file of a card, by its key and one of ``page_frame.KINDS``.
        """
        self._file = file
        self.has_files = True

    def _asked(self, event: Any) -> None:
        number, key, kind = event.new
        if self._file is not None:
            made = answered(lambda: self._file(int(key), str(kind)))  # type: ignore[misc]
            self.answer = {"number": number, **made}
