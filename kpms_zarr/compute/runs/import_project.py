"""Moving in: a project of keypoint-MoSeq becomes sessions and models of a store."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from kpms_zarr.compute.runs.summaries import label_statistics
from kpms_zarr.compute.runs.written import WrittenLabels
from kpms_zarr.store.core import access
from kpms_zarr.store.core.access import Session, StoreLike
from kpms_zarr.store.core.blocks import Block
from kpms_zarr.store.core.layout import model_path
from kpms_zarr.store.errors import InputError, Problem
from kpms_zarr.store.ingest.annotate import annotate_from, named_sessions
from kpms_zarr.store.ingest.ingest import IngestProgress, ingest
from kpms_zarr.store.ingest.label_numbers import MAX_SYLLABLES
from kpms_zarr.store.ingest.project_folder import (
    Project,
    ProjectModel,
    ResultSession,
    read_project,
)
from kpms_zarr.store.ingest.project_sessions import match_recordings
from kpms_zarr.store.ingest.remove import remove
from kpms_zarr.store.model.models import LabelWriter, current_version
from kpms_zarr.store.model.syllable_names import name_syllables
from kpms_zarr.store.shown import ShownAsTable
from kpms_zarr.store.study.settings import read_settings
from kpms_zarr.store.wording import listed


@dataclass(frozen=True)
class ImportSummary(ShownAsTable):
    """Result of :func:`import_keypoint_moseq`.

    Attributes
    ----------
    store : str
    added : tuple of str
        Sessions that were ingested.
    models : dict of str to str
        Models that were published -> version of their labels.
    columns : tuple of str
        Coordinates of the sessions that were taken from ``index.csv``.
    n_named : int
        Syllables that have a name or a description.
    notes : tuple of str
        What a person should know: recordings without a session, what was left out.
    """

    store: str
    added: tuple[str, ...]
    models: dict[str, str]
    columns: tuple[str, ...]
    n_named: int
    notes: tuple[str, ...]


def import_keypoint_moseq(
    project: str | os.PathLike[str],
    store: StoreLike,
    *,
    files: str | Path | Iterable[str | Path] = (),
    models: Sequence[str] | None = None,
    fps: float | None = None,
    name_by: str = "stem",
    overwrite: bool = False,
    workers: int | None = None,
    on_progress: Callable[[IngestProgress], None] | None = None,
) -> ImportSummary:
    """Take a project of keypoint-MoSeq into a store, to go on with it and to compare.

    From ``config.yml`` the keypoints (``use_bodyparts``), heading (``anterior_bodyparts``,
    ``posterior_bodyparts``), skeleton and frame rate; from the tracking files the coordinates; from
    ``results.h5`` of each model its labels, latent pose, centroid and heading, as a model of the
    name of its folder; from ``index.csv`` what is known of the recordings (``group``), as
    coordinates; from ``syll_info.csv`` the names of syllables. Syllables keep their numbers.

    A model that was taken in has no parameters: ``summary``, ``compare``, ``report`` and
    ``explore`` show what labels alone say; ``apply`` and ``reconstruct`` need a fit of this
    package.

    Parameters
    ----------
    project : path
        Folder of the project.
    store : path or URL
        Made where it does not exist.
    files : path or iterable of path, optional
        Tracking files, folders or patterns, as for :func:`ingest` (default: the folder
        ``video_dir`` of the settings, unless the store has sessions already).
    models : sequence of str, optional
        Folders of models (default: all that have results).
    fps : float, optional
        Frames per second (default: as the settings say).
    name_by : str
        What sessions are named by, as for :func:`ingest`.
    overwrite : bool
        Publish a new version of the labels of models that the store has already.
    workers : int, optional
        Files that are read at once.
    on_progress : callable, optional
        As for :func:`ingest`.

    Returns
    -------
    ImportSummary

    Raises
    ------
    InputError
        For what is no project, files that cannot be read, recordings whose number of frames is not
        that of their session, models that are there already. The store is then as it was: sessions
        that were ingested by this call are taken back, and no model is published.
    """
    found = read_project(project, models)
    results = {one.name: one.sessions() for one in found.models}
    _check_models(store, found, results, overwrite)
    is_new = not access.exists(store)
    added, notes = _ingested(found, store, files, fps, name_by, workers, on_progress)
    waiting: list[_Waiting] = []
    try:
        root = access.open_group(store, "r+")
        named = named_sessions(root)
        chosen = [
            (model, *_rows(root, model, results[model.name], named, found.suffix))
            for model in found.models
        ]
        for model, sessions, left in chosen:
            if left:
                notes.append(f"{model.name}: no session for {listed(left)}, left out")
            waiting.append(_written(root, model, sessions))
        columns, more = _annotate(found, store, named)
        notes += more
    except BaseException:
        _take_back(store, added, waiting, is_new=is_new)
        raise
    versions, n_named = {}, 0
    for one in waiting:
        model, versions[one.model.name] = one.model, one.publish()
        names = model.syllables()
        if names:
            notes += name_syllables(store, model.name, names)
            n_named += len(names)
    return ImportSummary(
        os.fspath(store), added, versions, columns, n_named, tuple(dict.fromkeys(notes))
    )


# ------------------------------------------------------------------ sessions


def _check_models(
    store: StoreLike,
    project: Project,
    results: dict[str, tuple[ResultSession, ...]],
    overwrite: bool,
) -> None:
    """Refuse models that cannot be published, before anything is written."""
    problems = []
    root = access.open_group(store) if access.exists(store) else None
    for name, sessions in results.items():
        model_path(name)  # as a name
        if root is not None and current_version(root, name) is not None and not overwrite:
            problems.append(
                Problem(
                    "a name that no model has yet",
                    repr(name),
                    f"{os.fspath(store)}, models",
                    "leave it out with `models=`, or publish a new version with `overwrite=True`",
                )
            )
        shapes = {(one.n_latent, one.n_space, one.has_heading) for one in sessions}
        if len(shapes) > 1:
            problems.append(
                Problem(
                    "recordings with the same latent dims and axes",
                    "several kinds of them",
                    f"{project.path}, model {name!r}",
                    "extract the results again",
                )
            )
    if problems:
        raise InputError.of(problems)


def _ingested(
    project: Project,
    store: StoreLike,
    files: str | Path | Iterable[str | Path],
    fps: float | None,
    name_by: str,
    workers: int | None,
    on_progress: Callable[[IngestProgress], None] | None,
) -> tuple[tuple[str, ...], list[str]]:
    given = [files] if isinstance(files, str | Path) else list(files)
    notes: list[str] = []
    if not given:
        if access.exists(store) and access.sessions(store):
            return (), notes
        folder = project.video_folder
        if folder is None:
            raise InputError(
                expected="tracking files of the project",
                found="no `files=`, and no folder `video_dir` that is there",
                where=f"{project.path}, config.yml",
                fix="name the tracking files, or the folder that they are in",
            )
        given = [folder]
        notes.append(f"tracking files of {folder}, as the settings of the project say")
    done = ingest(
        store,
        given,
        fps=fps if fps is not None else project.fps,
        keypoints=project.names("use_bodyparts"),
        anterior=project.names("anterior_bodyparts"),
        posterior=project.names("posterior_bodyparts"),
        skeleton=project.skeleton,
        name_by=name_by,
        workers=workers,
        on_progress=on_progress,
    )
    return done.added, [*notes, *done.notes, *done.warnings]


def _rows(
    root: access.Group,
    model: ProjectModel,
    results: Sequence[ResultSession],
    named: Any,
    suffix: str,
) -> tuple[dict[Session, ResultSession], tuple[str, ...]]:
    """Results of the sessions of the store, in the order of these; recordings without one."""
    where = str(model.results)
    of_key = {one.key: one for one in results}
    found, left = match_recordings(of_key, named, suffix=suffix, where=where)
    rows = {
        session: of_key[found[session.name]]
        for session in access.sessions(root)
        if session.name in found
    }
    if not rows:
        raise InputError(
            expected=f"recordings of the sessions {listed((n.session for n in named), 3)}",
            found=listed(map(repr, of_key), 3),
            where=where,
            fix="name the tracking files of the project, or ingest them with `name_by=`",
        )
    problems = [
        Problem(
            f"{session.n_frames:,} frames, as session {session.name!r} has",
            f"{result.n_frames:,}",
            f"{where}, {result.key!r}",
            "take the tracking files that the project was made of, whole and as long as then",
        )
        for session, result in rows.items()
        if session.n_frames != result.n_frames
    ]
    space = len(read_settings(root).space)
    if any(one.n_space not in (0, space) for one in rows.values()):
        problems.append(
            Problem(f"centroids with {space} axes", "others", where, "take tracking of as many")
        )
    if problems:
        raise InputError.of(problems)
    return rows, left


def _annotate(project: Project, store: StoreLike, named: Any) -> tuple[tuple[str, ...], list[str]]:
    """Write what ``index.csv`` says of recordings, as coordinates."""
    table = project.groups
    if table is None:
        return (), []
    found, left = match_recordings(table.rows, named, suffix=project.suffix, where=table.where)
    notes = [f"{table.path.name}: no session for {listed(left)}, left out"] if left else []
    if not found:
        return (), notes
    kept = tuple(name for name in table.columns if name and not name.lower().startswith("unnamed"))
    rows = {
        session: {name: table.rows[key][name] for name in kept} for session, key in found.items()
    }
    new = replace(table, columns=kept, rows=rows, numbers={})
    done = annotate_from(store, new)
    return done.columns, notes


# ------------------------------------------------------------------ labels


@dataclass(frozen=True)
class _Waiting:
    """Labels of a model, written and not published."""

    model: ProjectModel
    writer: LabelWriter
    statistics: dict[str, Any]

    def publish(self) -> str:
        """Publish them; returns their version."""
        name, results = self.model.name, self.model.results.name
        settings = {"model": name, "results": results, "package": "keypoint-moseq"}
        return self.writer.publish("import_keypoint_moseq", settings, self.statistics)


def _take_back(
    store: StoreLike, added: Sequence[str], waiting: Sequence[_Waiting], *, is_new: bool
) -> None:
    """Take sessions and labels that were written out of the store, or the store away."""
    if is_new and {one.name for one in access.sessions(store)} <= set(added):
        access.remove(store)
        return
    for one in waiting:
        one.writer.discard()
    if added:
        remove(store, added)


def _written(
    root: access.Group, model: ProjectModel, rows: dict[Session, ResultSession]
) -> _Waiting:
    """Write the labels of a model, block by block."""
    first = next(iter(rows.values()))
    names = ["syllable"]
    names += ["latent"] if first.n_latent else []
    names += ["centroid"] if first.n_space else []
    names += ["heading"] if first.has_heading else []
    writer = LabelWriter(
        root,
        model.name,
        sessions=tuple(rows),
        settings=read_settings(root),
        names=tuple(names),
        n_latent=first.n_latent,
    )
    try:
        n_states = 1
        for row, (session, result) in enumerate(rows.items()):
            for start, values in model.blocks(result.key, writer.block_frames):
                values["syllable"] = _labels(values["syllable"], model, result.key)
                n_states = max(n_states, 1 + int(values["syllable"].max(initial=-1)))
                stop = min(start + writer.block_frames, session.n_frames)
                writer.write(Block(row, start, stop), values)
        statistics = label_statistics(WrittenLabels(writer, 0), n_states)
    except BaseException:
        writer.discard()
        raise
    return _Waiting(model, writer, statistics)


def _labels(values: np.ndarray, model: ProjectModel, key: str) -> np.ndarray:
    """Numbers of syllables, (frame,) int16; -1 = none."""
    wrong = ~np.isfinite(values) | (values != np.rint(values)) | (values >= MAX_SYLLABLES)
    if wrong.any():
        raise InputError(
            expected=f"numbers of syllables below {MAX_SYLLABLES:,}",
            found=f"{values[wrong][0]:g}",
            where=f"{model.results}, {key!r}",
            fix="extract the results again",
        )
    return np.maximum(values, -1).astype(np.int16)
