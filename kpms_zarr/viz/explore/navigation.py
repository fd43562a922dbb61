"""Row of page names, which works by keyboard and says which page is shown."""

from __future__ import annotations

from typing import Any, ClassVar

import panel as pn
import param


class PageNames(pn.custom.JSComponent):
    """Names of pages beside each other; the one that is shown is marked.

    Tab leads to the row, the arrow keys, Home and End to another name; a click, Enter and the
    space bar choose. (The tabs of Bokeh react to the mouse only.)
    """

    names = param.List([], doc="Titles of the pages")
    active = param.Integer(0, doc="Place of the page that is shown")

    _esm = """
export function render({ model }) {
  const row = document.createElement("div");
  row.className = "pages";
  row.setAttribute("role", "tablist");
  row.setAttribute("aria-label", "Pages");
  const buttons = model.names.map((name, place) => {
    const button = document.createElement("button");
    button.type = "button";
    button.setAttribute("role", "tab");
    button.textContent = name;
    button.addEventListener("click", () => { model.active = place; });
    return button;
  });
  row.append(...buttons);
  row.addEventListener("keydown", (event) => {
    const here = buttons.indexOf(event.target), last = buttons.length - 1;
    const to = { ArrowRight: here < last ? here + 1 : 0, ArrowLeft: here > 0 ? here - 1 : last,
      Home: 0, End: last }[event.key];
    if (to !== undefined) {
      buttons[to].focus();
      event.preventDefault();
    }
  });
  function mark() {
    buttons.forEach((button, place) => {
      button.setAttribute("aria-selected", String(place === model.active));
      button.tabIndex = place === model.active ? 0 : -1;
    });
  }
  mark();
  model.on("active", mark);
  return row;
}
"""

    _stylesheets: ClassVar = [
        """
.pages { display: flex; flex-wrap: wrap; border-bottom: 1px solid #d5dbe1; width: 100%; }
.pages button { font: 14px system-ui, -apple-system, "Segoe UI", Roboto, Arial, sans-serif;
  color: #1f2933; background: none; border: 0; border-bottom: 3px solid transparent;
  padding: .45rem .55rem; cursor: pointer; }
@media (max-width: 1200px) { .pages button { font-size: 12.5px; padding: .45rem .25rem; } }
.pages button:hover { background: #f5f7fa; }
.pages button[aria-selected="true"] { border-bottom-color: #0b5394; font-weight: 650; }
.pages button:focus-visible { outline: 3px solid #0b5394; outline-offset: -3px; }
"""
    ]

    def __init__(self, **params: Any) -> None:
        params.setdefault("sizing_mode", "stretch_width")
        params.setdefault("margin", 0)
        super().__init__(**params)
