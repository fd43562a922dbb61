"""A table of a page, as text."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass


@dataclass(frozen=True)
class Cells:
    """Header and rows of a table; nothing in them is HTML."""

    header: Sequence[str]
    rows: Sequence[Sequence[str]]
