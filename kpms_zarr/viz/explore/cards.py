"""Cards with a picture that are chosen by a click or a key: syllables, example bouts."""

from __future__ import annotations

from typing import Any, ClassVar

import panel as pn
import param


class Cards(pn.custom.JSComponent):
    """Cards beside each other, as many in a row as there is room for.

    Each is a button: Tab goes from one to the next, Enter and the space bar choose.
    """

    label = param.String("", doc="What the cards are, for those who do not see them")
    cards = param.List([], doc="Dicts: key (int), color, title, lines, picture (SVG), hint")
    chosen = param.Integer(-1, doc="Key of the card that is marked; -1 = none")
    clicks = param.List([0, -1], doc="Number of clicks so far, and key of the last card")
    width_of_card = param.Integer(152, doc="At least, in px")

    _esm = """
export function render({ model }) {
  const box = document.createElement("div");
  box.className = "cards";
  box.setAttribute("role", "group");
  function card(entry) {
    const button = document.createElement("button");
    button.type = "button";
    button.className = "card";
    button.dataset.key = entry.key;
    button.setAttribute("aria-label", entry.hint);
    button.title = entry.hint;
    const picture = document.createElement("div");
    picture.className = "picture";
    picture.innerHTML = entry.picture;
    const title = document.createElement("div");
    title.className = "title";
    const number = document.createElement("span");
    number.className = "number";
    number.style.borderColor = entry.color;
    number.textContent = entry.number;
    const name = document.createElement("span");
    name.className = "name";
    name.textContent = entry.title;
    title.append(number, name);
    button.append(title, picture);
    for (const words of entry.lines) {
      const line = document.createElement("div");
      line.className = "line";
      line.textContent = words;
      button.append(line);
    }
    button.addEventListener("click", () => {
      model.clicks = [model.clicks[0] + 1, entry.key];
    });
    return button;
  }
  function mark() {
    for (const button of box.children) {
      button.setAttribute("aria-pressed", String(Number(button.dataset.key) === model.chosen));
    }
  }
  function draw() {
    const focused = box.getRootNode().activeElement?.dataset?.key;
    box.setAttribute("aria-label", model.label);
    box.style.setProperty("--least", model.width_of_card + "px");
    box.replaceChildren(...model.cards.map(card));
    mark();
    if (focused !== undefined) {
      box.querySelector(`[data-key="${focused}"]`)?.focus();
    }
  }
  draw();
  model.on("cards", draw);
  model.on("chosen", mark);
  return box;
}
"""

    _stylesheets: ClassVar = [
        """
.cards { display: grid; gap: 8px; width: 100%;
  grid-template-columns: repeat(auto-fill, minmax(var(--least), 1fr)); }
.card { font: 13px system-ui, -apple-system, "Segoe UI", Roboto, Arial, sans-serif;
  color: #1f2933; background: #fff; border: 1px solid #d5dbe1; border-radius: 6px; padding: 6px;
  text-align: left; cursor: pointer; min-width: 0;
  display: flex; flex-direction: column; justify-content: flex-start; }
.card:hover { border-color: #52606d; }
.card:focus-visible { outline: 3px solid #0b5394; outline-offset: 1px; }
.card[aria-pressed="true"] { border-color: #0b5394; box-shadow: 0 0 0 2px #0b5394;
  background: #f0f6fc; }
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
