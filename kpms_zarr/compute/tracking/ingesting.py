"""Ingest, and calibration of the noise prior at its end, by which it can never fail."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from kpms_zarr.store.core import access
from kpms_zarr.store.core.access import StoreLike
from kpms_zarr.store.errors import InputError
from kpms_zarr.store.ingest import ingest as of_files
from kpms_zarr.store.ingest.ingest import IngestProgress, IngestSummary
from kpms_zarr.store.ingest.time_tables import TimesLike
from kpms_zarr.store.ingest.timeline import DEFAULT_MAX_GAP
from kpms_zarr.store.study.calibration import stored_calibration

_LOG = logging.getLogger("kpms_zarr")


def ingest(
    store: StoreLike,
    files: str | Path | Iterable[str | Path] = (),
    *,
    arrays: Mapping[str, Any] | None = None,
    confidences: Mapping[str, Any] | None = None,
    format: str = "auto",
    fps: float | str | Path | Mapping[str, float] | None = None,
    keypoints: Sequence[str] | None = None,
    individuals: Sequence[str] | None = None,
    name_by: str = "stem",
    prefer: str | Sequence[str] | None = None,
    keypoint_names: Sequence[str] | None = None,
    ignore_case: bool = False,
    anterior: Sequence[str] | None = None,
    posterior: Sequence[str] | None = None,
    skeleton: str | Sequence[tuple[str, str]] | None = None,
    mapping: Mapping[str, Any] | str | Path | None = None,
    trim: str | None = None,
    downsample: int = 1,
    max_gap: str | int = DEFAULT_MAX_GAP,
    time_unit: str = "auto",
    min_visible: float = 0.0,
    confidence_scale: float | str = 1.0,
    missing_value: float | None = None,
    metadata: str | Path | None = None,
    timestamps: TimesLike | None = None,
    skip_bad: bool = False,
    dry_run: bool = False,
    calibrate: bool = False,
    workers: int | None = None,
    on_progress: Callable[[IngestProgress], None] | None = None,
) -> IngestSummary:
    """Add recordings to a store, which is made when it does not exist.

    One session per individual, named ``<file>`` or ``<file>_<individual>``; files of one name get
    as many names of their folders in front as tell them apart. A file that is already in the store
    (same content) is left alone. Sessions become visible one by one, each
    as a whole; when a file turns out to be damaged, those of this call are taken back. A killed
    ingest is finished by the same call. Memory does not grow with the length of a file where its
    format allows that.

    Parameters
    ----------
    store : path or URL
    files : iterable of path
        Files, folders (searched with their subfolders, links followed) or glob patterns. Of a
        folder or pattern, files of other kinds (videos, settings, tables without coordinates,
        labels made by hand, results) are left out with a note. A file that is damaged, in use,
        or may be tracking that is not understood, is a problem as if it had been named itself.
    arrays : mapping of str to array, (frame, keypoint, space), optional
        Session name -> positions, NaN = missing; or -> a ``movement`` dataset.
    confidences : mapping of str to array, (frame, keypoint), optional
        For some or all of the arrays.
    format : str
        Name of the format, or ``"auto"`` to recognise each file by its content.
    fps : float, mapping or path of a csv file, optional
        Frames of the video per second, of all sessions, or by session, recording or file
        (a csv file has these in one column, and one named ``fps``). Default: as the file says,
        else 30.
    keypoints : sequence of str, optional
        Keypoints to take, in this order (default: all of the first file, in its order). Of a file
        with several individuals, those that lack one of them are left out with a note.
    individuals : sequence of str, optional
        Individuals to take, or parts of a file (cameras, pose objects): names or patterns such as
        ``"mouse*"``. The others are left out with a note.
    name_by : str
        What sessions are named by: ``"stem"`` (the file without its suffix), ``"parent"`` (the
        folder that it is in), ``"path"`` (the folders below the one that was named, and the file),
        or a template such as ``"{parent}_{stem}"``, with the fields ``{stem}``, ``{name}`` (with
        the suffix), ``{parent}``, ``{parent2}`` (the folder above) ..., ``{path}``. Sessions of
        the store keep their names.
    prefer : str or sequence of str, optional
        Which of several results of one video are taken: ``"filtered"``, ``"raw"``, or those with a
        suffix (``"h5"``, ``"csv"``, ``"slp"``, ...), the most important first. Default: all, with a
        warning; of DeepLabCut's csv and h5 of one analysis the h5.
    keypoint_names : sequence of str, optional
        Names for the keypoints of arrays and of files that hold none, in their order.
    ignore_case : bool
        Take keypoints of files whose names differ in upper and lower case only.
    anterior, posterior : sequence of str, optional
        Keypoints at the front and at the rear of the animal; they define its heading.
    skeleton : str or sequence of (str, str), optional
        Bones, for drawing only, as pairs of keypoints or as text: ``"a-b,b-c"``.
    mapping : mapping or path of a JSON file, optional
        What the columns of a table hold, see ``help(kpms_zarr.store.parsers.table.parser)``.
    trim : str, optional
        ``"start:stop"`` in frames of the file, or in seconds (``"10s:70s"``); either may be empty.
    downsample : int
        Take one frame of so many.
    max_gap : str or int
        Longest gap in row indices, frame numbers or time stamps that is filled in with missing
        frames: in seconds or minutes of the video (``"30s"``, ``"10min"``) or in frames. Files
        with a longer one are refused.
    time_unit : str
        What row indices, frame numbers and time stamps count: ``"s"``, ``"ms"``, ``"us"``,
        ``"ns"``, ``"min"``, ``"h"``, ``"d"`` or ``"frames"``; ``"rows"`` ignores them, so that rows
        are consecutive frames; ``"auto"`` goes by the file, and by what cameras do.
    min_visible : float
        Leave tracks out of which a smaller share of the positions is there, 0 to 1.
    confidence_scale : float or str
        What stands for full confidence in the files: 100 for percent, 255 for bytes. Confidences
        are stored divided by it. ``"none"``: they are not used.
    missing_value : float, optional
        A position with this number in all coordinates, such as 0, is stored as missing.
    metadata : path, optional
        Table of the sessions, as for :func:`annotate`.
    timestamps : path, sequence of path, DataFrame or mapping of str to array, optional
        Times of the frames, as for :func:`kpms_zarr.timestamps`. Where they are wrong the new
        sessions are taken back. A dry run looks at their headers alone.
    skip_bad : bool
        Leave files out that cannot be used, instead of taking everything back. They are in ``bad``
        and ``reasons`` of the summary, and the command ends with exit code 3.
    dry_run : bool
        Read all files, write nothing, and say what would be added and what could not be used.
    calibrate : bool
        Calibrate the noise prior when the sessions are there, as :func:`kpms_zarr.calibrate` does.
        Where that cannot be done, a note says why; the sessions are there all the same. One from
        hand annotations is left as it is.
    workers : int, optional
        Processes (threads, for remote stores) at work; default: by cores and sizes of the files.
        They are watched: a file that makes a library loop or take all memory is refused. 1: all is
        done in this process, which nobody watches.
    on_progress : callable, optional
        Is given an :class:`IngestProgress` after every file.

    Returns
    -------
    IngestSummary

    Raises
    ------
    InputError
        With every problem found in the files. The store is then as it was.
    """
    summary = of_files.ingest(
        store,
        files,
        arrays=arrays,
        confidences=confidences,
        format=format,
        fps=fps,
        keypoints=keypoints,
        individuals=individuals,
        name_by=name_by,
        prefer=prefer,
        keypoint_names=keypoint_names,
        ignore_case=ignore_case,
        anterior=anterior,
        posterior=posterior,
        skeleton=skeleton,
        mapping=mapping,
        trim=trim,
        downsample=downsample,
        max_gap=max_gap,
        time_unit=time_unit,
        min_visible=min_visible,
        confidence_scale=confidence_scale,
        missing_value=missing_value,
        metadata=metadata,
        timestamps=timestamps,
        skip_bad=skip_bad,
        dry_run=dry_run,
        workers=workers,
        on_progress=on_progress,
    )
    if not calibrate or dry_run:
        return summary
    return replace(summary, notes=(*summary.notes, *calibrated(store)))


def calibrated(store: StoreLike) -> list[str]:
    """Calibrate the noise prior of a store, and say how that went.

    Returns
    -------
    list of str
        Notes: the line, or why there is none.
    """
    try:
        return _notes(store)
    except InputError as error:
        one = error.problems[0]
        return [f"not calibrated: expected {one.expected}, found {one.found} ({one.where})"]
    except Exception as error:  # the sessions are there, whatever happens afterwards
        _LOG.exception("the calibration after an ingest failed")
        return [f"not calibrated ({type(error).__name__}: {error})"]


def _notes(store: StoreLike) -> list[str]:
    # Imported when a person asks for it: other ingests begin sooner without.
    from kpms_zarr.compute.tracking.calibrate import calibrate

    root = access.open_group(store)
    if not access.sessions(root):
        return ["not calibrated: there are no sessions"]
    before = stored_calibration(root)
    if before is not None and before.source == "annotations":
        return ["not calibrated: the calibration from hand annotations stays as it is"]
    found = calibrate(store)
    sign = "+" if found.intercept >= 0 else "-"
    line = f"{found.slope:.3f} log10(confidence + 0.001) {sign} {abs(found.intercept):.3f}"
    return [
        f"noise prior calibrated: log10(error) = {line}; fits of the full stage use it",
        *(f"calibration: {note}" for note in found.notes),
    ]
