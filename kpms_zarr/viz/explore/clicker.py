"""Picture on which a person marks a place, by a click or by keys."""

from __future__ import annotations

from typing import Any, ClassVar

import panel as pn
import param


class Clicker(pn.custom.JSComponent):
    """Picture with points on it; a click, or the arrow keys and Enter, choose a place.

    Coordinates are px of the picture: 0 is the left or upper edge of its first pixel.
    """

    label = param.String("", doc="What is to be marked, for those who do not see it")
    url = param.String("", doc="Of the picture")
    size = param.List([1, 1], doc="Width and height in px")
    points = param.List([], doc="Dicts: x, y, kind (tracked, other or clicked)")
    lines = param.List([], doc="Lists of x, y, x, y: bones between other points")
    clicks = param.List([0, 0.0, 0.0], doc="Number of clicks so far, and place of the last")

    _esm = """
const SVG = "http://www.w3.org/2000/svg";
export function render({ model }) {
  const box = document.createElement("div");
  box.className = "clicker";
  box.tabIndex = 0;
  box.setAttribute("role", "application");
  const svg = document.createElementNS(SVG, "svg");
  svg.setAttribute("preserveAspectRatio", "xMidYMid meet");
  const image = document.createElementNS(SVG, "image");
  const drawn = document.createElementNS(SVG, "g");
  const cursor = document.createElementNS(SVG, "path");
  cursor.setAttribute("class", "cursor");
  svg.append(image, drawn, cursor);
  box.append(svg);
  let at = null;

  function scale() { return svg.getScreenCTM()?.a || 1; }
  function shape(name, attributes, kind) {
    const one = document.createElementNS(SVG, name);
    for (const [key, value] of Object.entries(attributes)) one.setAttribute(key, value);
    one.setAttribute("class", kind);
    return one;
  }
  function cross(x, y, arm, gap) {
    return [[1, 0], [-1, 0], [0, 1], [0, -1]].map(([a, b]) =>
      `M${x + a * gap} ${y + b * gap}L${x + a * arm} ${y + b * arm}`).join("");
  }
  function place_cursor() {
    const unit = 1 / scale();
    cursor.setAttribute("d", at ? cross(at[0], at[1], 14 * unit, 3 * unit) : "");
  }
  function draw() {
    const [width, height] = model.size, unit = 1 / scale();
    box.setAttribute("aria-label", model.label);
    const shapes = model.lines.map(([x1, y1, x2, y2]) =>
      shape("line", {x1, y1, x2, y2}, "bone"));
    for (const {x, y, kind} of model.points) {
      if (kind === "clicked") {
        const d = cross(x, y, 10 * unit, 0);
        shapes.push(shape("path", {d}, "rim"), shape("path", {d}, kind));
      } else if (kind === "tracked") {
        const circle = {cx: x, cy: y, r: 12 * unit};
        shapes.push(shape("circle", circle, "rim"), shape("circle", circle, kind));
      } else {
        shapes.push(shape("circle", {cx: x, cy: y, r: 2.5 * unit}, kind));
      }
    }
    drawn.replaceChildren(...shapes);
    place_cursor();
  }
  function show() {
    const [width, height] = model.size;
    svg.setAttribute("viewBox", `0 0 ${width} ${height}`);
    svg.style.aspectRatio = `${width} / ${height}`;
    svg.style.width = `min(100%, calc((100vh - 350px) * ${width / height}))`;
    image.setAttribute("width", width);
    image.setAttribute("height", height);
    image.setAttribute("href", model.url);
    at = null;
    draw();
  }
  function choose(x, y) {
    const [width, height] = model.size;
    if (!model.url || x < 0 || y < 0 || x > width || y > height) return;
    model.clicks = [model.clicks[0] + 1, x, y];
  }
  svg.addEventListener("click", (event) => {
    const point = new DOMPoint(event.clientX, event.clientY)
      .matrixTransform(svg.getScreenCTM().inverse());
    choose(point.x, point.y);
  });
  box.addEventListener("keydown", (event) => {
    const step = (event.shiftKey ? 10 : 1) / scale();
    const move = {ArrowLeft: [-1, 0], ArrowRight: [1, 0], ArrowUp: [0, -1], ArrowDown: [0, 1]};
    const [width, height] = model.size;
    if (move[event.key]) {
      const [x, y] = at ?? [width / 2, height / 2];
      const within = (value, end) => Math.min(end, Math.max(0, value));
      at = [within(x + step * move[event.key][0], width),
        within(y + step * move[event.key][1], height)];
      place_cursor();
    } else if (event.key === "Enter" && at) choose(at[0], at[1]);
    else if (event.key === "Escape") { at = null; place_cursor(); } else return;
    event.preventDefault();
  });
  new ResizeObserver(draw).observe(svg);
  show();
  model.on("url", show);
  model.on("size", show);
  for (const name of ["points", "lines", "label"]) model.on(name, draw);
  return box;
}
"""

    _stylesheets: ClassVar = [
        """
.clicker { width: 100%; display: flex; }
.clicker svg { display: block; cursor: crosshair; background: #f5f7fa; min-height: 280px; }
.clicker:focus-visible { outline: 3px solid #0b5394; outline-offset: 1px; }
.clicker circle, .clicker path, .clicker line { fill: none; vector-effect: non-scaling-stroke;
  pointer-events: none; }
.rim { stroke: white; stroke-width: 4px; opacity: .8; }
.tracked { stroke: #d55e00; stroke-width: 2px; }
.clicked { stroke: #0b5394; stroke-width: 2px; }
.cursor { stroke: #0b5394; stroke-width: 2px; }
.clicker .other { fill: white; stroke: #1f2933; stroke-width: 1px; opacity: .75; }
.bone { stroke: white; stroke-width: 1.5px; opacity: .45; }
"""
    ]

    def __init__(self, **params: Any) -> None:
        params.setdefault("sizing_mode", "stretch_width")
        super().__init__(**params)
