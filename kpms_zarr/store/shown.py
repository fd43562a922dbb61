"""Results as a notebook shows them: a table of names and values."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import fields, is_dataclass
from html import escape
from typing import Any

_MOST = 12
"""Entries of a list that are shown."""
_WIDEST = 400
"""Characters of a value that are shown."""


class ShownAsTable:
    """Mixin of dataclasses that a notebook shows as a table."""

    def _repr_html_(self) -> str:
        """The table, as HTML."""
        return table_of(self)


def table_of(result: Any) -> str:
    """Table of the fields of a dataclass, as HTML; large values by their kind and size."""
    rows = "".join(
        f"<tr><th style='text-align:left'>{escape(name.replace('_', ' '))}</th>"
        f"<td style='text-align:left'>{_cell(value)}</td></tr>"
        for name, value in _entries(result)
    )
    title = escape(type(result).__name__)
    return f"<table><caption style='text-align:left'><b>{title}</b></caption>{rows}</table>"


def _entries(result: Any) -> list[tuple[str, Any]]:
    found = [(one.name, getattr(result, one.name)) for one in fields(result) if one.repr]
    return [(name, value) for name, value in found if not name.startswith("_")]


def _cell(value: Any) -> str:
    if isinstance(value, bool) or value is None:
        return {True: "yes", False: "no", None: "–"}[value]
    if isinstance(value, float):
        return "–" if value != value else f"{value:,.4g}"
    if isinstance(value, int):
        return f"{value:,}"
    if isinstance(value, str):
        return escape(_short(value)).replace("\n", "<br>")
    if is_dataclass(value) and not isinstance(value, type):
        inner = "; ".join(f"{name.replace('_', ' ')} {_cell(v)}" for name, v in _entries(value))
        return inner if len(inner) <= _WIDEST else escape(type(value).__name__)
    if isinstance(value, Mapping):
        return _listed([f"{escape(str(key))}: {_cell(one)}" for key, one in value.items()])
    if isinstance(value, list | tuple | set | frozenset):
        return _listed([_cell(one) for one in value])
    size = getattr(value, "sizes", None) or getattr(value, "shape", "")
    return escape(f"{type(value).__name__} {dict(size) if isinstance(size, Mapping) else size}")


def _listed(cells: list[str]) -> str:
    more = f"<br>and {len(cells) - _MOST:,} more" if len(cells) > _MOST else ""
    return ("<br>".join(cells[:_MOST]) + more) or "–"


def _short(text: str) -> str:
    return text if len(text) <= _WIDEST else f"{text[: _WIDEST - 3]}..."
