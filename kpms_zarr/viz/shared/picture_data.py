"""Data of a picture as a table: what is drawn in a Bokeh figure, row by row, and as csv."""

from __future__ import annotations

import csv
import io
import re
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any, NamedTuple

import numpy as np
import pandas as pd
from bokeh.models import Plot
from bokeh.models.annotations import Span
from bokeh.models.renderers import GlyphRenderer, GraphRenderer

MOST_ROWS = 200_000
"""Of a csv: some 10 MB."""

_COLOR = re.compile(r"#[0-9a-fA-F]{6}(?:[0-9a-fA-F]{2})?")
_OWN = "_kpms_table"
_CALLED = "called"
_LISTS = {"MultiLine": ("xs", "ys"), "Patches": ("xs", "ys")}
_KINDS = {
    "Line": "line", "MultiLine": "lines", "Step": "line", "Segment": "segments",
    "Scatter": "points", "Circle": "points", "Quad": "boxes", "Rect": "cells",
    "VBar": "bars", "HBar": "bars",
    "Patch": "band", "VArea": "band", "HArea": "band", "Patches": "areas", "Image": "cells",
    "Text": "text", "HSpan": "horizontal lines", "VSpan": "vertical lines",
}  # fmt: skip


class PictureTable(NamedTuple):
    """Table of what a picture shows.

    Attributes
    ----------
    rows : DataFrame
    notes : tuple of str
        What a reader of the table must know, such as how coarse it is.
    """

    rows: pd.DataFrame
    notes: tuple[str, ...] = ()


# ------------------------------------------------------------------ what a figure is told


def attach(figure: Any, make: Callable[[], PictureTable]) -> None:
    """Let a figure give a table of its own, such as one with names in place of codes."""
    setattr(figure, _OWN, make)


def tag(called: str, session: str = "") -> dict[str, str]:
    """Tag of a figure: its name in files, and the session that it shows ("" = not one alone)."""
    return {_CALLED: called, "session": session}


def tag_of(figure: Any) -> dict[str, str] | None:
    """Tag that a figure was given; None without."""
    found = [one for one in figure.tags if isinstance(one, dict) and _CALLED in one]
    return found[0] if found else None


def figures_in(models: Iterable[Any]) -> dict[str, tuple[Any, dict[str, str] | None]]:
    """Find the figures below some models, by id: the figure, and its tag or that around it."""
    found: dict[str, tuple[Any, dict[str, str] | None]] = {}
    for root in models:
        inherited: dict[str, dict[str, str]] = {}
        for model in root.references():
            around = None if isinstance(model, Plot) else tag_of(model)
            if around is not None:
                for figure in model.select({"type": Plot}):
                    inherited[figure.id] = around
        for figure in root.select({"type": Plot}):
            found[figure.id] = figure, tag_of(figure) or inherited.get(figure.id)
    return found


# ------------------------------------------------------------------ tables


def table_of(figure: Any) -> PictureTable:
    """Table of what a figure shows; of several layers one below the other.

    Returns
    -------
    PictureTable
        With a column ``layer`` where there are several; coordinates that a layer does not have are
        missing. Colours are left out, lines that lie at one place are rows.
    """
    own = getattr(figure, _OWN, None)
    if own is not None:
        found: PictureTable = own()
        return found
    layers = [(name, rows) for name, rows in _layers(figure) if len(rows)]
    if not layers:
        return PictureTable(pd.DataFrame())
    if len(layers) == 1:
        return PictureTable(layers[0][1])
    named = []
    for name, rows in layers:
        rows = rows.drop(columns="layer", errors="ignore")
        rows.insert(0, "layer", name)
        named.append(rows)
    return PictureTable(pd.concat(named, ignore_index=True, sort=False))


def csv_of(table: PictureTable, head: Sequence[str] = (), most: int = MOST_ROWS) -> str:
    """A table as csv, with lines that begin with # above it.

    Parameters
    ----------
    head : sequence of str
        Lines on what it is, before its own notes.
    most : int
        Rows at most; a line says how many there are.
    """
    rows, notes = table.rows, list(table.notes)
    if len(rows) > most:
        notes.append(f"the first {most:,} of {len(rows):,} rows")
        rows = rows.iloc[:most]
    lines = [f"# {' '.join(line.split())}\n" for line in (*head, *notes)]
    text = io.StringIO()
    # Quoted, so that no # of a name is taken for a comment.
    rows.to_csv(text, index=False, quoting=csv.QUOTE_NONNUMERIC, lineterminator="\n")
    return "".join(lines) + (text.getvalue() if len(rows.columns) else "")


def _layers(figure: Any) -> Iterator[tuple[str, pd.DataFrame]]:
    labels = _legend(figure)
    used: dict[str, int] = {}
    for renderer in _glyphs(figure.renderers):
        if not renderer.visible:
            continue
        kind = type(renderer.glyph).__name__
        name = labels.get(renderer.id) or _KINDS.get(kind, kind.lower())
        used[name] = used.get(name, 0) + 1
        yield name if used[name] == 1 else f"{name} {used[name]}", _rows(renderer)
    for one in dict.fromkeys((*figure.center, *figure.renderers)):
        if isinstance(one, Span) and one.visible and isinstance(one.location, int | float):
            is_upright = one.dimension == "height"
            name = "vertical line" if is_upright else "horizontal line"
            yield name, pd.DataFrame({"x" if is_upright else "y": [float(one.location)]})


def _glyphs(renderers: Iterable[Any]) -> Iterator[Any]:
    for one in renderers:
        if isinstance(one, GraphRenderer):
            yield from (one.edge_renderer, one.node_renderer)
        elif isinstance(one, GlyphRenderer):
            yield one


def _legend(figure: Any) -> dict[str, str]:
    """Names of renderers in the legends of a figure, by id."""
    found: dict[str, str] = {}
    for legend in figure.legend:
        for item in legend.items:
            label = getattr(item.label, "value", None)
            if isinstance(label, str):
                found |= {renderer.id: label for renderer in item.renderers}
    return found


def _rows(renderer: Any) -> pd.DataFrame:
    data, kind = renderer.data_source.data, type(renderer.glyph).__name__
    if kind == "Image":
        return _cells(renderer.glyph, data)
    if kind == "Patch":
        outline = _band(renderer.glyph, data)
        if outline is not None:
            return outline
    lists = _LISTS.get(kind)
    if lists is not None:
        fields = [_field(getattr(renderer.glyph, name)) for name in lists]
        if all(name in data for name in fields):
            return _exploded(data, fields)
    return _without_colors(_columns(data))


def _columns(data: dict[str, Any]) -> pd.DataFrame:
    """Columns that are as long as the most of them."""
    plain = {name: values for name, values in data.items() if np.ndim(values) <= 1}
    lengths = [len(values) for values in plain.values()]
    n = max(set(lengths), key=lengths.count, default=0)
    return pd.DataFrame({
        name: list(values) if isinstance(values, list | tuple) else np.asarray(values)
        for name, values in plain.items() if len(values) == n
    })  # fmt: skip


def _without_colors(rows: pd.DataFrame) -> pd.DataFrame:
    colors = [
        name
        for name in rows
        if len(rows)
        and not pd.api.types.is_numeric_dtype(rows[name])
        and all(isinstance(one, str) and _COLOR.fullmatch(one) for one in rows[name])
    ]
    return rows.drop(columns=colors)


def _cells(glyph: Any, data: dict[str, Any]) -> pd.DataFrame:
    """Cells of images: their middles, and what they hold; none where they hold nothing."""
    column = _field(glyph.image)
    parts = []
    for number, image in enumerate(data[column]):
        values = np.asarray(image)
        n_rows, n_columns = values.shape[:2]
        x, y, width, height = (float(_given(glyph, data, name, number)) for name in
                               ("x", "y", "dw", "dh"))  # fmt: skip
        across = x + (np.arange(n_columns) + 0.5) * width / n_columns
        upwards = y + (np.arange(n_rows) + 0.5) * height / n_rows
        part = pd.DataFrame({
            "x": np.tile(across, n_rows), "y": np.repeat(upwards, n_columns),
            "value": values.reshape(-1),
        })  # fmt: skip
        parts.append(part.dropna())
    return pd.concat(parts, ignore_index=True) if parts else pd.DataFrame()


def _band(glyph: Any, data: dict[str, Any]) -> pd.DataFrame | None:
    """Lower and upper edge of an area whose outline goes there and back; else None."""
    x, y = (np.asarray(data[_field(getattr(glyph, name))]) for name in ("x", "y"))
    n = len(x)
    if n < 2 or n % 2 or x.dtype.kind not in "iuf" or not np.array_equal(x, x[::-1]):
        return None
    there, back = y[: n // 2], y[: n // 2 - 1 : -1]
    low, high = np.minimum(there, back), np.maximum(there, back)
    return pd.DataFrame({"x": x[: n // 2], "low": low, "high": high})


def _exploded(data: dict[str, Any], lists: list[str]) -> pd.DataFrame:
    """A row for each point of lines, with the number of its line and what the line has."""
    length = [len(one) for one in data[lists[0]]]
    line = np.repeat(np.arange(len(length)), length)
    others = {
        name: values for name, values in data.items()
        if name not in lists and len(values) == len(length)
    }  # fmt: skip
    found = _without_colors(pd.DataFrame({"line": np.arange(len(length)), **_flat(others)}))
    rows = found.iloc[line].reset_index(drop=True)
    for axis, name in zip(("x", "y"), lists, strict=True):
        points = [np.asarray(one) for one in data[name]]
        rows[axis] = np.concatenate(points) if points else np.zeros(0)
    return rows


def _flat(columns: dict[str, Any]) -> dict[str, Any]:
    return {
        name: list(values) for name, values in columns.items()
        if not any(np.ndim(value) for value in values)
    }  # fmt: skip


def _field(given: Any) -> str:
    """Name of the column that a property of a glyph goes by."""
    return str(given["field"] if isinstance(given, dict) else getattr(given, "field", given))


def _given(glyph: Any, data: dict[str, Any], name: str, number: int) -> Any:
    """Value of a property of one image: of a column, or the same for all."""
    value = getattr(glyph, name)
    column = _field(value)
    if column in data:
        return data[column][number]
    return value["value"] if isinstance(value, dict) else getattr(value, "value", value)
