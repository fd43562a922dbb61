"""One self-contained HTML page about a fitted model."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from importlib import resources
from pathlib import Path
from typing import Any

import holoviews as hv
import jinja2
from bokeh.embed import components
from bokeh.resources import Resources
from markupsafe import Markup

from kpms_zarr.store import models
from kpms_zarr.store.access import Session, StoreLike
from kpms_zarr.store.errors import InputError
from kpms_zarr.viz import facts, plots, reading
from kpms_zarr.viz.denoising import CONFIDENCE_THRESHOLD
from kpms_zarr.viz.style import load

MAX_SESSIONS = 200
"""Most sessions that the ethograms of a report can show."""

_MAX_BOUT_FRAMES = 60_000


@dataclass(frozen=True)
class ReportSummary:
    """A written report.

    Attributes
    ----------
    path : str
    n_bytes : int
    model : str
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


@dataclass(frozen=True)
class _Section:
    """A heading, how to read the plot, and the plot (or why there is none)."""

    heading: str
    anchor: str
    sentence: str
    alt: str
    draw: Callable[[], hv.core.Dimensioned]
    layout: str = ""


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
    _check_place(path)
    _check_count(max_sessions)
    version = models.require_model(store, model)
    labels = models.open_labels(store, model, version)
    sessions = reading.label_sessions(labels)
    sections = _sections(store, model, version, sessions, max_sessions)
    page = _page(facts.facts(store, model, version), sections)
    return ReportSummary(str(path), _write(path, page), model, version, len(sessions))


def _check_place(path: Path) -> None:
    if path.is_dir():
        raise InputError(
            expected="a file name for the report",
            found="a folder of that name",
            where=str(path),
            fix=f"name a file in it, such as {path / 'report.html'}",
        )
    if not path.parent.is_dir():
        raise InputError(
            expected="a folder that exists",
            found="no such folder",
            where=str(path.parent),
            fix="make the folder first, or name another place with out (--out)",
        )


def _check_count(max_sessions: int) -> None:
    if not 1 <= max_sessions <= MAX_SESSIONS:
        raise InputError(
            expected=f"1 to {MAX_SESSIONS} sessions in the ethograms",
            found=str(max_sessions),
            where="max_sessions",
            fix="show fewer here, and others with kpms_zarr.viz.plots.ethogram(sessions=[...])",
        )


def _write(path: Path, page: str) -> int:
    """Write beside the place and rename: readers see the old page or the new, never half."""
    data = page.encode()
    handle, name = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.", suffix=".partial")
    try:
        with os.fdopen(handle, "wb") as file:
            file.write(data)
        mask = os.umask(0)
        os.umask(mask)
        Path(name).chmod(0o666 & ~mask)
        Path(name).replace(path)
    except BaseException:
        Path(name).unlink(missing_ok=True)
        raise
    return len(data)


def _sections(
    store: StoreLike,
    model: str,
    version: str,
    sessions: tuple[Session, ...],
    max_sessions: int,
) -> list[_Section]:
    shown = sessions[:max_sessions]
    n_shown, n_sessions = len(shown), len(sessions)
    which = f"The first {n_shown} of {n_sessions} sessions. " if n_shown < n_sessions else ""
    seconds = min(60, max(1, int(_MAX_BOUT_FRAMES / sum(session.fps for session in shown))))
    zoom = "Drag across the plot to zoom in; the circular arrow of its toolbar goes back."
    of: dict[str, Any] = {"model": model, "version": version}
    stages = _stages(store, model, version)
    return [
        _Section(
            "Whole sessions",
            "ethogram",
            f"{which}Each row is a session, time runs to the right, and the colour tells the "
            "syllable that holds most of the frames of a short stretch of time; grey means no "
            f"syllable. {zoom}",
            "Ethogram: a row of coloured stretches for each session over time in seconds.",
            partial(plots.ethogram, store, **of, max_sessions=n_shown),
        ),
        _Section(
            f"First {seconds} seconds",
            "bouts",
            f"{which}The same colours frame by frame: each block is one bout, and pointing at it "
            f"tells when it starts and how long it lasts. {zoom}",
            "Ethogram of the first seconds of each session, one block for each bout.",
            partial(plots.bouts, store, **of, max_sessions=n_shown, seconds=seconds),
        ),
        _Section(
            "How often",
            "frequencies",
            "A tall bar is a syllable that takes up much of the video; a flat tail of many small "
            "bars is usual, one bar far above all others often means that the tracking was lost.",
            "Bar chart: share of the frames of each syllable, the most frequent first.",
            partial(plots.frequencies, store, **of),
        ),
        _Section(
            "How long",
            "durations",
            "How long bouts last, over all syllables; half of them are no longer than the "
            "dashed line. A peak at one or two frames means that labels flicker: raise kappa or "
            "look at the tracking. The axis ends where 99 % of the bouts are shown.",
            "Histogram of bout durations in milliseconds with the median marked.",
            partial(plots.durations, store, **of),
        ),
        _Section(
            "Course of the fit",
            "traces",
            "Each point is one sweep of the sampler. Curves that have become level mean that more "
            "sweeps would change little; curves that still climb or fall at the right mean that "
            f"the fit should go on.{_how_to_read(stages)}",
            "Line charts over sweeps: log likelihood, median bout, kappa, syllables in use.",
            partial(plots.traces, store, **of),
            "grid",
        ),
        _Section(
            "What follows what",
            "transitions",
            "Row: a syllable; column: the one that comes next. The darker the cell, the larger the "
            "share of the changes from the row to the column; an evenly coloured row means that "
            "anything may follow.",
            "Matrix of the shares of changes from each syllable to each other.",
            partial(plots.transitions, store, **of),
            "square",
        ),
        *(
            [_denoised(store, of, sessions[0])]
            if any(stage.name == "full" for stage in stages)
            else []
        ),
        _Section(
            "Latent poses",
            "poses",
            "The model sees a pose as a few latent numbers; each drawing shows what one of them "
            "does, from above, the animal facing right: the mean pose in grey, two standard "
            "deviations less in blue, two more in orange.",
            "Skeletons of the mean pose and of two standard deviations to either side.",
            partial(plots.poses, store, **of),
            "small",
        ),
    ]


def _stages(store: StoreLike, model: str, version: str) -> tuple[reading.Stage, ...]:
    """Stages of the fit; none where the version has labels only."""
    try:
        return reading.stages(reading.parameters(store, model, version))
    except reading.MissingData:
        return ()


def _how_to_read(stages: tuple[reading.Stage, ...]) -> str:
    """What the curves of a fit in several stages need said besides."""
    if len(stages) < 2:
        return ""
    return (
        " The log likelihoods of the stages are of different quantities, so each has its own "
        "drawing, which may leave out the first steep sweeps; in the others a dashed line parts "
        f"the stages ({', then '.join(stage.label for stage in stages)})."
    )


def _denoised(store: StoreLike, of: dict[str, Any], session: Session) -> _Section:
    return _Section(
        "Tracked and denoised",
        "denoised",
        f"The x coordinate of the worst tracked keypoints of {session.name} around a bad stretch. "
        "Dots are what was tracked, hollow orange ones with a confidence below "
        f"{CONFIDENCE_THRESHOLD:g}, grey is missing; the blue line is what the model makes of it: "
        "it should follow the dots and pass the tracking errors by.",
        "Scatter charts over time: tracked and denoised x coordinate of a few keypoints.",
        partial(plots.denoised, store, **of, session=session.name),
    )


def _page(known: facts.Facts, sections: list[_Section]) -> str:
    drawn, roots = [], []
    for section in sections:
        figures, note = _draw(section)
        drawn.append((section, len(figures), note))
        roots += figures
    script, divs = components(roots, wrap_script=True) if roots else ("", ())
    rest = iter(divs)
    entries = [
        {
            "heading": section.heading,
            "anchor": section.anchor,
            "sentence": section.sentence,
            "alt": section.alt,
            "layout": section.layout,
            "note": note,
            "divs": [Markup(next(rest)) for _ in range(n_figures)],
        }
        for section, n_figures, note in drawn
    ]
    text = resources.files("kpms_zarr.viz").joinpath("page.html").read_text("utf-8")
    template = jinja2.Environment(autoescape=True, undefined=jinja2.StrictUndefined).from_string(
        text
    )
    return template.render(
        **vars(known), sections=entries, script=Markup(script), bokeh=Markup(_bokeh_js())
    )


def _bokeh_js() -> str:
    """The script of Bokeh itself; Resources.render would add files that Panel asks for."""
    return "\n".join(Resources(mode="inline", components=["bokeh"], log_level="warn").js_raw)


def _draw(section: _Section) -> tuple[list[Any], str]:
    """Bokeh figures of a section, or one line that says why there are none."""
    load()
    try:
        drawn = section.draw()
    except reading.MissingData as error:
        return [], facts.why_not(error)
    parts = list(drawn) if isinstance(drawn, hv.Layout) else [drawn]
    figures = [hv.render(part, backend="bokeh") for part in parts]
    _link(figures)
    return figures, ""


def _link(figures: list[Any]) -> None:
    """Let figures that show the same stretch of an axis zoom together."""
    ranges: dict[tuple[Any, Any], Any] = {}
    for figure in figures:
        span = (figure.x_range.start, figure.x_range.end)
        figure.x_range = ranges.setdefault(span, figure.x_range)
