"""The verb export: a published model as files that other packages read."""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from kpms_zarr.store.core.access import StoreLike
from kpms_zarr.store.errors import InputError
from kpms_zarr.store.export import keypoint_moseq, movement, nwb
from kpms_zarr.store.export.source import ExportedSession, ExportSource
from kpms_zarr.store.replacing import replaced
from kpms_zarr.store.shown import ShownAsTable
from kpms_zarr.store.wording import listed

FORMATS = ("kpms", "csv", "movement", "nwb")
"""What :func:`export` can write to."""
_SUFFIX = {"kpms": ".csv", "csv": ".csv", "movement": ".nc", "nwb": ".nwb"}
_ABOUT = "export.json"


@dataclass(frozen=True)
class ExportSummary(ShownAsTable):
    """Result of :func:`export`.

    Attributes
    ----------
    store, model, version : str
        What was exported; the version is that of the labels.
    to : str
        Format.
    out : str
        The folder.
    files : tuple of str
        Files that were written, below the folder.
    n_sessions, n_frames : int
    notes : tuple of str
        What a person should know, such as frames without a label.
    """

    store: str
    model: str
    version: str
    to: str
    out: str
    files: tuple[str, ...]
    n_sessions: int
    n_frames: int
    notes: tuple[str, ...]


def export(
    store: StoreLike,
    *,
    model: str,
    to: str,
    out: str | os.PathLike[str],
    sessions: Sequence[str] | None = None,
    version: str | None = None,
    units: str | None = None,
    session_start_time: str | None = None,
    overwrite: bool = False,
) -> ExportSummary:
    """Write the labels and poses of a published model as files that other packages read.

    Frames are read and written by blocks, so that memory does not grow with the length of a
    session. Times are in seconds: the timestamps of a session (:func:`kpms_zarr.timestamps`), or
    frame / fps. The files of ``"kpms"`` hold none.

    Parameters
    ----------
    store : path or URL
    model : str
    to : str
        ``"kpms"``: the folder of a model as analysis code written for keypoint-MoSeq reads it:
        ``results.h5``, and ``results/SESSION.csv`` (see
        :mod:`kpms_zarr.store.export.keypoint_moseq`).
        ``"csv"``: the tables alone.
        ``"movement"``: a poses dataset of the package movement for each session, netCDF, with the
        tracked and the denoised keypoints and the labels as a coordinate on ``time`` (needs the
        extra ``movement``).
        ``"nwb"``: an NWB file for each session, with both as ndx-pose PoseEstimation, labels by
        frame, and bouts as ndx-ethogram EthogramBouts (needs the extra ``nwb``; where ndx-ethogram
        is not installed, as TimeIntervals with the same columns).
    out : path
        Folder, made where it does not exist.
    sessions : sequence of str, optional
        Names, patterns or ``coordinate=value`` (default: all that have labels).
    version : str, optional
        Of the labels (default: the current one).
    units : str, optional
        Units of positions, such as ``"mm"``, which the files say (default: those of the tracking
        files, usually px).
    session_start_time : str, optional
        Of the sessions in NWB files, ISO 8601 (default: the coordinate ``session_start_time``,
        ``start_time`` or ``date`` of the store; else 1 January 1970, and a note).
    overwrite : bool
        Replace files that are there.

    Returns
    -------
    ExportSummary

    Raises
    ------
    InputError
        For no such model, version, session or format; files that are there; a package that is not
        installed. Nothing that was there is changed then.
    """
    if to not in FORMATS:
        raise InputError(
            expected=f"one of the formats {', '.join(FORMATS)}",
            found=repr(to),
            where="`to=`",
            fix="choose one of these",
        )
    source = ExportSource(store, model, version=version, sessions=sessions, units=units)
    folder = Path(out)
    _check_folder(folder)
    writers = _writers(source, to, session_start_time)
    _check_free(folder, [*writers, _ABOUT], overwrite)
    for name, write in writers.items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        with replaced(path) as partial_path:
            write(partial_path)
    _write_about(folder / _ABOUT, source, to)
    return ExportSummary(
        os.fspath(store),
        model,
        source.version,
        to,
        os.fspath(out),
        (*writers, _ABOUT),
        len(source.sessions),
        sum(session.n_frames for session in source.sessions),
        tuple(dict.fromkeys(source.notes)),
    )


def _writers(
    source: ExportSource, to: str, start_time: str | None
) -> dict[str, Callable[[Path], None]]:
    """Files below the folder, and what writes each."""
    if to == "kpms":
        source.require("latent", "centroid", "heading")
    write: Callable[[ExportSource, ExportedSession, Path], None] = partial(
        keypoint_moseq.write_table, is_plain=to == "kpms"
    )
    if to == "movement":
        movement.check()
        write = movement.write_dataset
    if to == "nwb":
        write = nwb.Writer(source, start_time).write
    found: dict[str, Callable[[Path], None]] = {}
    if to == "kpms":
        found["results.h5"] = partial(keypoint_moseq.write_results, source)
    for session in source.sessions:
        name = file_name(session.name) + _SUFFIX[to]
        path = f"results/{name}" if to == "kpms" else name
        if path in found:
            raise InputError(
                expected="sessions whose names are different as names of files",
                found=f"{session.name!r}, whose file is {name}, as that of another one",
                where="`sessions=`",
                fix="export them one after the other, into different folders",
            )
        found[path] = partial(write, source, session)
    return found


def file_name(session: str) -> str:
    """Name of the file of a session, without suffix: separators of paths become ``-``."""
    name = session.replace("/", "-").replace("\\", "-")
    return name if name.strip(".") else name.replace(".", "_")


def _check_folder(path: Path) -> None:
    if path.exists() and not path.is_dir():
        raise InputError(
            expected="a folder for the files",
            found="a file of that name",
            where=str(path),
            fix="name another place with `out=`",
        )


def _check_free(folder: Path, names: Sequence[str], overwrite: bool) -> None:
    there = [name for name in names if (folder / name).exists()]
    if there and not overwrite:
        raise InputError(
            expected="no files of these names",
            found=listed(there),
            where=str(folder),
            fix="name another folder with `out=`, or replace them with `overwrite=True`",
        )


def _write_about(path: Path, source: ExportSource, to: str) -> None:
    """Write what formats without attributes cannot say."""
    sessions = {
        one.name: {
            "file": file_name(one.name) + _SUFFIX[to],
            "fps": one.fps,
            "n_frames": one.n_frames,
            "timestamps": one.times.version,
            **{name: one.about[name] for name in sorted(one.about)},
        }
        for one in source.sessions
    }
    about = {**source.facts(), "format": to, "heading_units": "rad", "sessions": sessions}
    with replaced(path) as partial_path:
        partial_path.write_text(json.dumps(about, indent=1, ensure_ascii=False), encoding="utf-8")
