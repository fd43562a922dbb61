"""The whole job in one call: ingest, quality, PCA, fit, report."""

from __future__ import annotations

import os
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from kpms_zarr.compute.alignment.heading_names import suggest_heading
from kpms_zarr.compute.config import FitConfig
from kpms_zarr.compute.events import Callback, Noted
from kpms_zarr.compute.pose.pca import pca
from kpms_zarr.compute.runs.consensus import ConsensusSummary
from kpms_zarr.compute.runs.ensemble import is_unfinished
from kpms_zarr.compute.runs.fit import FitSummary, fit
from kpms_zarr.compute.tracking.quality import quality, warnings_of
from kpms_zarr.store.core import access
from kpms_zarr.store.core.access import StoreLike
from kpms_zarr.store.errors import InputError
from kpms_zarr.store.ingest.ingest import IngestSummary, ingest
from kpms_zarr.store.model.models import list_models
from kpms_zarr.store.shown import ShownAsTable
from kpms_zarr.store.study.settings import read_settings
from kpms_zarr.store.wording import call, counted, listed
from kpms_zarr.viz.report.report import report

TARGET_DURATION = 400.0
"""Median duration of a syllable that is asked for, in ms: within the 300 to 500 ms that
Wiltschko et al. (2015) and Weinreb et al. (2024) report of mice."""


@dataclass(frozen=True)
class RunSummary(ShownAsTable):
    """Result of :func:`run`.

    Attributes
    ----------
    store, model, report : str
        The store, the model in it, and the HTML page.
    ingested : IngestSummary or None
        None without files.
    fit : FitSummary or ConsensusSummary or None
        None when the model had been fitted to all these sessions before.
    decisions : tuple of str
        What was decided where nothing was said.
    warnings : tuple of str
        Of the quality of the tracking.
    """

    store: str
    model: str
    report: str
    ingested: IngestSummary | None
    fit: FitSummary | ConsensusSummary | None
    decisions: tuple[str, ...] = ()
    warnings: tuple[str, ...] = ()

    @property
    def is_whole(self) -> bool:
        """Whether all files could be used; if not, the command ends with exit code 3."""
        return self.ingested is None or self.ingested.is_whole


@dataclass
class _Teller:
    """Teller of what is decided: at once, and in the end."""

    callbacks: Sequence[Callback]
    decisions: list[str] = field(default_factory=list)

    def decide(self, text: str) -> None:
        self.decisions.append(text)
        self.say(text)

    def say(self, text: str) -> None:
        for callback in self.callbacks:
            callback(Noted(text))


def run(
    store: StoreLike,
    files: str | Path | Iterable[str | Path] = (),
    *,
    model: str = "first",
    fps: float | str | Path | None = None,
    anterior: Sequence[str] | None = None,
    posterior: Sequence[str] | None = None,
    fix_heading: bool = False,
    target_duration: float | None = None,
    chains: int = 1,
    out: str | Path | None = None,
    skip_bad: bool = False,
    overwrite: bool = False,
    callbacks: Sequence[Callback] = (),
) -> RunSummary:
    """Do the whole job with defaults: ingest, quality, PCA, fit of both stages, report.

    Asks nothing, and says what it decided. Called again, it goes on where it was stopped: files
    that are in the store stay, an unfinished fit is finished, a model that has all sessions is not
    fitted again; with new files it is, to all of them, and its earlier labels stay as a version.

    Parameters
    ----------
    store : path or URL
        Is made when it does not exist.
    files : iterable of path
        Files, folders or patterns, as for :func:`ingest`; none: the sessions that are there.
    model : str
        Name of the model.
    fps : float or path of a csv file, optional
        Frames of the video per second (default: as the files say, else 30).
    anterior, posterior : sequence of str, optional
        Keypoints at the front and at the rear of the animal (default: guessed by their names).
    fix_heading : bool
        For an animal that never turns.
    target_duration : float, optional
        Median duration of a syllable to reach, in ms (default: 400).
    chains : int
        More than one: labels on which so many chains agree; see :func:`fit`.
    out : path, optional
        The page (default: ``report.html`` beside a local store, else in the current folder).
    skip_bad : bool
        Leave files out that cannot be used; the command then ends with exit code 3.
    overwrite : bool
        Fit the model anew where there is nothing new to fit it to.
    callbacks : sequence of callable
        Each is given the events of ``compute.events``: decisions, progress of the fit.

    Returns
    -------
    RunSummary

    Raises
    ------
    InputError
        As the steps do; what the steps before have written stays.
    """
    tell = _Teller(callbacks)
    found = _ingested(store, files, fps, skip_bad, tell)
    front, rear = _heading(store, anterior, posterior, fix_heading, tell)
    warnings = warnings_of(quality(store))
    for text in warnings:
        tell.say(text)
    components = pca(store, anterior=front, posterior=rear, fix_heading=fix_heading)
    n, share = int(components.attrs["n_components"]), components["explained_variance_ratio"].values
    tell.decide(
        f"{counted(n, 'component')} of the pose, which hold{'s' if n == 1 else ''} "
        f"{100 * float(share[:n].sum()):.0f} % of its variance"
    )
    for text in components.attrs["notes"]:
        tell.say(str(text))
    fitted = _fitted(
        store, model, target_duration, chains,
        is_new=bool(found and found.added) or overwrite, tell=tell,
    )  # fmt: skip
    page = report(store, model=model, out=_page(store) if out is None else out)
    return RunSummary(
        os.fspath(store), model, page.path, found, fitted, tuple(tell.decisions), tuple(warnings)
    )


def _ingested(
    store: StoreLike,
    files: str | Path | Iterable[str | Path],
    fps: float | str | Path | None,
    skip_bad: bool,
    tell: _Teller,
) -> IngestSummary | None:
    """Take files into the store, and say at which frame rates they are there."""
    files = [files] if isinstance(files, str | Path) else list(files)
    found = ingest(store, files, fps=fps, skip_bad=skip_bad) if files else None
    if found is not None:
        for text in (*found.warnings, *found.notes):
            if "`anterior=`" not in text:  # is decided next
                tell.say(text)
        for path, why in found.reasons.items():
            tell.say(f"{path} left out: {why}")
    sessions = access.sessions(store)
    access.require_sessions(access.open_group(store), os.fspath(store))
    rates = sorted({session.fps for session in sessions})
    frames = sum(session.n_frames for session in sessions)
    tell.decide(
        f"{counted(len(sessions), 'session')} of {frames:,} frames, at "
        f"{listed(f'{rate:g}' for rate in rates)} frames a second"
        + ("" if fps is not None else ", as the files say, or 30 where they do not: else `fps=`")
    )
    return found


def _heading(
    store: StoreLike,
    anterior: Sequence[str] | None,
    posterior: Sequence[str] | None,
    fix_heading: bool,
    tell: _Teller,
) -> tuple[Sequence[str] | None, Sequence[str] | None]:
    """Keypoints in front and at the rear: as given, as in the store, or by their names."""
    if fix_heading:
        return anterior, posterior
    study = read_settings(store)
    front, rear = suggest_heading(study.keypoints)
    front, rear = (
        tuple(anterior or study.anterior or front),
        tuple(posterior or study.posterior or rear),
    )
    if not (front and rear):
        raise InputError(
            expected="keypoints at the front and at the rear of the animal, which give its heading",
            found=f"no names that tell them: {', '.join(study.keypoints)}",
            where=os.fspath(store),
            fix="say them: `anterior=` and `posterior=`; or `fix_heading=True` for an animal that "
            "never turns",
        )
    is_known = (front, rear) == (study.anterior, study.posterior)
    if not is_known and (anterior is None or posterior is None):
        tell.decide(
            f"the heading runs from {', '.join(rear)} to {', '.join(front)}, by their names: else "
            "`anterior=` and `posterior=`"
        )
    return front, rear


def _fitted(
    store: StoreLike,
    model: str,
    target_duration: float | None,
    chains: int,
    *,
    is_new: bool,
    tell: _Teller,
) -> FitSummary | ConsensusSummary | None:
    """Fit, go on with a fit, or leave the model as it is."""
    root = access.open_group(store)
    is_begun = is_unfinished(root, model) and not is_new
    published = {one.name: one for one in list_models(root)}
    if model in published and not (is_new or is_begun):
        tell.decide(
            f"the model {model!r} stands, and there are no new sessions: not fitted again; else "
            "`overwrite=True`"
        )
        return None
    duration = TARGET_DURATION if target_duration is None else target_duration
    if target_duration is None:
        tell.decide(
            f"a median syllable of {duration:.0f} ms is aimed at, as usual for mice; what suits "
            f"your animal, {call('scan', os.fspath(store), target_durations='200ms:800ms:5')} says"
        )
    if chains == 1:
        tell.decide(
            "one chain is fitted: another seed gives other labels; `chains=8` those on which eight "
            "agree, and how far"
        )
    return fit(
        store, model=model, config=FitConfig(target_duration=duration), chains=chains,
        callbacks=tell.callbacks, resume=is_begun,
        overwrite=not is_begun and (model in published or is_unfinished(root, model)),
    )  # fmt: skip


def _page(store: StoreLike) -> Path:
    """The page beside a local store, or in the current folder."""
    return Path() / "report.html" if access.is_remote(store) else Path(store).parent / "report.html"
