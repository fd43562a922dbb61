"""One self-contained HTML page about a fitted model."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import holoviews as hv

from kpms_zarr.store.core.access import StoreLike
from kpms_zarr.store.core.commands import for_shell
from kpms_zarr.store.errors import InputError
from kpms_zarr.store.replacing import check_place
from kpms_zarr.store.shown import ShownAsTable
from kpms_zarr.viz.report.cards import Card
from kpms_zarr.viz.report.cells import Cells
from kpms_zarr.viz.report.filling import embedded, filled
from kpms_zarr.viz.report.methods import methods
from kpms_zarr.viz.report.replication import Replication
from kpms_zarr.viz.report.sections import BokehModels, Section, SyllableCards, sections_of
from kpms_zarr.viz.report.writing import write_page
from kpms_zarr.viz.shared import facts, reading
from kpms_zarr.viz.shared.opened import OpenModel
from kpms_zarr.viz.shared.style import load

MAX_SESSIONS = 200
"""Most sessions that the ethograms of a report can show."""


@dataclass(frozen=True)
class ReportSummary(ShownAsTable):
    """A written report.

    Attributes
    ----------
    version : str
        Of the labels that it shows.
    n_sessions : int
        Sessions with labels in that version.
    """

    path: str
    n_bytes: int
    model: str
    version: str
    n_sessions: int


def report(
    store: StoreLike,
    *,
    model: str,
    out: str | os.PathLike[str] = "report.html",
    max_sessions: int = 12,
) -> ReportSummary:
    """Write what a model found as one HTML page that opens without a network.

    Parameters
    ----------
    store : path or URL
    model : str
    out : path
        The page; an older one is replaced in one step.
    max_sessions : int
        At most so many sessions in the ethograms, 1 to 200; with it the size of the page is
        bounded, whatever the size of the study.

    Returns
    -------
    ReportSummary

    Raises
    ------
    InputError
        For a model that does not exist, or a place that cannot be written.
    """
    path = Path(out)
    check_place(path, "report", "report.html")
    _check_count(max_sessions)
    opened = OpenModel(store, model)
    page = _page(opened, facts.facts(opened), sections_of(opened, max_sessions))
    n_bytes = write_page(path, page)
    return ReportSummary(str(path), n_bytes, model, opened.version, len(opened.sessions))


def _check_count(max_sessions: int) -> None:
    if not 1 <= max_sessions <= MAX_SESSIONS:
        raise InputError(
            expected=f"1 to {MAX_SESSIONS} sessions in the ethograms",
            found=str(max_sessions),
            where="max_sessions",
            fix="show fewer here, and others with kpms_zarr.viz.ethogram(sessions=[...])",
        )


@dataclass(frozen=True)
class Drawn:
    """Content of a section: Bokeh models, or cards, or a line that says why there is neither.

    Attributes
    ----------
    words : sequence of str
        Paragraphs below the models.
    table : Cells, optional
        Below these.
    """

    roots: Sequence[Any] = ()
    cards: Sequence[Card] = ()
    note: str = ""
    words: Sequence[str] = ()
    table: Cells | None = None


def _page(opened: OpenModel, known: facts.Facts, sections: list[Section]) -> str:
    store = opened.store
    drawn = [(section, _draw(section, store)) for section in sections]
    roots = [root for _, found in drawn for root in found.roots]
    script, divs = embedded(roots)
    rest = iter(divs)
    entries = [
        {
            "heading": section.heading,
            "anchor": section.anchor,
            "sentence": section.sentence,
            "alt": section.alt,
            "layout": section.layout,
            "note": found.note,
            "cards": found.cards,
            "words": [for_shell(words) for words in found.words],
            "table": found.table,
            "divs": [next(rest) for _ in found.roots],
        }
        for section, found in drawn
    ]
    return filled(
        "page.html",
        script,
        with_widgets=True,
        **vars(known),
        sections=entries,
        methods=methods(opened),
    )


def _draw(section: Section, store: StoreLike) -> Drawn:
    """Draw a section, or say in one line why there is nothing."""
    load()
    try:
        found = section.draw()
    except reading.MissingData as error:
        return Drawn(note=facts.why_not(error))
    except InputError as error:
        return Drawn(note=facts.what_first(error, store))
    if isinstance(found, Replication):
        figure = hv.render(found.picture, backend="bokeh")
        return Drawn([figure], words=found.words, table=found.table)
    if isinstance(found, SyllableCards):
        return Drawn(cards=found.cards)
    if isinstance(found, BokehModels):
        return Drawn(found.models)
    parts = list(found) if isinstance(found, hv.Layout) else [found]
    figures = [hv.render(part, backend="bokeh") for part in parts]
    _link(figures)
    return Drawn(figures)


def _link(figures: list[Any]) -> None:
    """Let figures that show the same stretch of an axis zoom together."""
    ranges: dict[tuple[Any, Any], Any] = {}
    for figure in figures:
        span = (figure.x_range.start, figure.x_range.end)
        figure.x_range = ranges.setdefault(span, figure.x_range)
