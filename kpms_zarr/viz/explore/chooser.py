"""Fields for people: one of many things by its name, and times as mm:ss."""

from __future__ import annotations

from collections.abc import Callable
from importlib import resources
from typing import Any, ClassVar

import panel as pn
import param

from kpms_zarr.viz.shared.times import PLAIN, SessionClock, exact_clock, parse_clock

END = "end"
"""What stands in a field for the end of the session."""


def script(name: str) -> str:
    """A script of this folder."""
    return resources.files("kpms_zarr.viz.explore").joinpath(name).read_text("utf-8")


class Chooser(pn.custom.JSComponent):
    """Field in which typing narrows a list; arrow keys and Enter choose, Escape leaves it.

    Attributes
    ----------
    values : list of str
        Of the options.
    """

    label = param.String("", doc="Name of the field")
    value = param.String("", doc="Value of the option that is chosen")
    options = param.List([], doc="Dicts: value, text, and perhaps detail, color, find")
    placeholder = param.String("", doc="Shown where nothing is chosen")
    hint = param.String("", doc="Shown when the pointer rests on it")

    _esm = script("chooser.js")

    _stylesheets: ClassVar = [
        """
.chooser { position: relative; width: 100%; color: #1f2933;
  font: 13px Helvetica, Arial, sans-serif; }
.chooser label { display: block; margin: 0 0 4px; font-size: 12px; }
.field { display: flex; align-items: center; background: #fff; border: 1px solid #7b8794;
  border-radius: 4px; }
.field:focus-within { outline: 3px solid #0b5394; outline-offset: 0; }
.field .chip { margin: 0 0 0 8px; }
.chip { flex: none; width: 12px; height: 12px; border-radius: 3px; border: 1px solid #0003;
  box-sizing: border-box; }
.chip[hidden] { display: none; }
input { flex: 1; min-width: 0; font: inherit; color: inherit; border: 0; outline: 0;
  background: none; padding: 7px 10px; text-overflow: ellipsis; }
ul { position: absolute; z-index: 20; left: 0; min-width: 100%; max-width: min(480px, 90vw);
  box-sizing: border-box; max-height: min(340px, 60vh); overflow-y: auto; margin: 2px 0 0;
  padding: 4px; list-style: none; background: #fff; border: 1px solid #7b8794; border-radius: 4px;
  box-shadow: 0 4px 14px #0003; }
ul[hidden] { display: none; }
li { display: flex; align-items: center; gap: 7px; padding: 3px 6px; border-radius: 3px;
  cursor: pointer; white-space: nowrap; }
li:hover { background: #f5f7fa; }
li.active { background: #dbe9f6; }
li[aria-selected="true"] { font-weight: 650; }
.text { overflow: hidden; text-overflow: ellipsis; }
.detail { margin-left: auto; padding-left: 10px; color: #52606d; font-weight: 400;
  font-size: 12px; }
.said { font-size: 12px; color: #52606d; }
"""
    ]

    def __init__(self, **params: Any) -> None:
        params.setdefault("sizing_mode", "stretch_width")
        params.setdefault("margin", (5, 10))
        super().__init__(**params)

    @property
    def values(self) -> list[str]:
        """Values of the options."""
        return [str(one["value"]) for one in self.options]


class TimeField:
    """Field for a moment as mm:ss.

    Parameters
    ----------
    name : str
    is_end : bool
        Whether 0 stands for the end of the session, written ``end``.
    width : int, optional
        In px (default: as wide as its place).

    Attributes
    ----------
    view : Viewable
    """

    def __init__(self, name: str, *, is_end: bool = False, width: int | None = None) -> None:
        self._is_end, self._seconds, self._clock = is_end, 0.0, PLAIN
        self._is_writing = False
        self._told: list[Callable[[float], object]] = []
        self._field = pn.widgets.TextInput(
            name=name,
            **({"sizing_mode": "stretch_width"} if width is None else {"width": width}),
        )
        self._trouble = pn.pane.HTML("", visible=False, sizing_mode="stretch_width", margin=0)
        size = {"sizing_mode": "stretch_width"} if width is None else {"width": width + 20}
        self.view = pn.Column(self._field, self._trouble, margin=0, **size)
        self._field.param.watch(self._typed, "value")
        self.show(0.0)

    @property
    def seconds(self) -> float:
        """What it holds, as frames count it."""
        return self._seconds

    @property
    def text(self) -> str:
        """What stands in it."""
        return str(self._field.value)

    def when_typed(self, do: Callable[[float], object]) -> None:
        """Call a function with the seconds that a person has typed."""
        self._told.append(do)

    def show(self, seconds: float, clock_of: SessionClock = PLAIN) -> None:
        """Show a moment, which nobody is told of."""
        self._seconds, self._clock = seconds, clock_of
        self._trouble.visible = False
        text = END if self._is_end and not seconds else exact_clock(clock_of.shown(seconds))
        if text != self._field.value:
            self._is_writing = True
            try:
                self._field.value = text
            finally:
                self._is_writing = False

    def _typed(self, event: Any) -> None:
        if self._is_writing:
            return
        text = str(event.new or "").strip()
        is_end = self._is_end and text.casefold() in ("", END, "0")
        seconds = 0.0 if is_end else parse_clock(text)
        if seconds is None:
            self.show(self._seconds, self._clock)
            self._trouble.object = (
                '<p role="status" style="margin:0 5px;font-size:12px">Times are written as mm:ss, '
                "such as 01:30.5, or in seconds.</p>"
            )
            self._trouble.visible = True
            return
        self.show(0.0 if is_end else self._clock.placed(seconds), self._clock)
        for do in self._told:
            do(self._seconds)
