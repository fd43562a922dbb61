"""Noise calibration: how the tracking error falls with the confidence, from the data."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np
import pandas as pd

from kpms_zarr.compute.cluster.connect import ClusterLike, connected
from kpms_zarr.compute.mapreduce import BlockReader, limit_workers, map_reduce
from kpms_zarr.compute.results import write_group
from kpms_zarr.compute.tracking.deviations import (
    N_BINS,
    PSEUDOCOUNT,
    Deviations,
    bin_edges,
    bin_of,
    deviations_of,
)
from kpms_zarr.compute.tracking.error_line import (
    LEAST_COMPARED,
    NOISE_DOF,
    ErrorCurve,
    ErrorLine,
    error_curve,
    line_of_annotations,
    line_through,
    scale_of_lengths,
)
from kpms_zarr.store.core import access, layout
from kpms_zarr.store.core.access import Session, StoreLike
from kpms_zarr.store.core.blocks import Block, iter_blocks
from kpms_zarr.store.core.consolidation import consolidate
from kpms_zarr.store.core.provenance import provenance
from kpms_zarr.store.core.schema import FRAMES_PER_CHUNK
from kpms_zarr.store.errors import InputError
from kpms_zarr.store.ingest.annotate import named_sessions
from kpms_zarr.store.ingest.position_annotations import (
    Annotations,
    AnnotationsLike,
    read_annotations,
)
from kpms_zarr.store.shown import ShownAsTable
from kpms_zarr.store.study.calibration import SOURCES
from kpms_zarr.store.study.clicks import click_table, stored_clicks
from kpms_zarr.store.study.settings import read_settings
from kpms_zarr.store.wording import counted

_FEWEST_BINS = 3
_FEWEST_ANNOTATIONS = 20
_FEWEST_OF_A_BIN = 5
_SMALLEST_SPAN = 0.15
"""Of log10(confidence) over which a slope is told: a factor of 1.4."""


@dataclass(frozen=True)
class CalibrateSummary(ShownAsTable):
    """Result of :func:`calibrate`.

    Attributes
    ----------
    store : str
    source : str
        ``"prediction"`` or ``"annotations"``; "" where a calibration was removed.
    slope, intercept : float
        log10(error) = slope log10(confidence + 0.001) + intercept, the error in units of position
        along each axis.
    slope_error, intercept_error : float
        Standard errors.
    n_compared : int
        Positions that were compared with a prediction, or with an annotation.
    confidences : tuple of float
        About so large, by bin of the confidence in which an error is known.
    errors : tuple of float
        Median tracking error of the keypoints in these bins, in units of position.
    notes : tuple of str
    """

    store: str
    source: str
    slope: float
    intercept: float
    slope_error: float
    intercept_error: float
    n_compared: int
    confidences: tuple[float, ...]
    errors: tuple[float, ...]
    notes: tuple[str, ...]


def calibrate(
    store: StoreLike,
    *,
    annotations: AnnotationsLike | bool | None = None,
    remove: bool = False,
    host_memory: str | int | None = None,
    cluster: ClusterLike = None,
) -> CalibrateSummary:
    """Estimate how the tracking error falls with the confidence, for the noise prior of fits.

    Every tracked position is compared with a prediction from the same keypoint in the three frames
    before and after, when it was there and at least as confident in these. What is movement and
    what is noise of the neighbours is subtracted (see ``compute/tracking/error_line.py``).
    A line is put through log error against log confidence. It goes to the group ``calibration``,
    from which fits of the full stage take it unless their settings are given. Errors that stay for
    longer than some frames, such as a keypoint on the wrong paw, are seen in annotations alone.

    Parameters
    ----------
    store : path or URL
    annotations : path, DataFrame or True, optional
        Positions that a person annotated, with which tracked ones are compared instead: columns
        ``session``, ``frame`` (of the session, from 0 on), ``keypoint``, ``x``, ``y`` (in 3-D
        ``z``), in units of the tracking files. True = those that were clicked on the page
        Calibration of :func:`kpms_zarr.explore`, which the store holds.
    remove : bool
        Remove the calibration; fits then have the defaults of their settings.
    host_memory : str or int, optional
        What the process may take, such as ``"4GB"``, or bytes.
    cluster : str, path or distributed.Client, optional
        Workers of a Dask cluster that read the blocks, as of :func:`kpms_zarr.fit`; the result is
        the same to the bit.

    Returns
    -------
    CalibrateSummary

    Raises
    ------
    InputError
        For a store without sessions, without confidences or with such that hardly vary, for
        annotations that do not fit the store, or too few; the store is then as it was.
    """
    root = access.open_group(store, "r+")
    if annotations is False:
        annotations = None
    if remove:
        return _remove(root, store, has_annotations=annotations is not None)
    sessions = access.require_sessions(root, os.fspath(store))
    study = read_settings(root)
    reader = BlockReader(store)
    n_points, n_space = len(study.keypoints), len(study.space)
    if annotations is None:
        with connected(cluster), limit_workers(store, host_memory):
            found = map_reduce(
                partial(deviations_of, reader), iter_blocks(sessions), Deviations.add
            )
        counts = found.counts
        curve = error_curve(counts, n_space)
        _check_confidences(float(counts.rated[0]), float(counts.rated[1]), store)
        _check_curve(curve, store)
        line, notes = line_through(curve), _left_out(curve)
        n_compared, source = int(curve.number[np.isfinite(curve.error)].sum()), "prediction"
    else:
        table = _clicked(root, store) if annotations is True else annotations
        read = read_annotations(table, study, sessions, named_sessions(root))
        log_confidence, deviation, points, said = _compare(reader, sessions, read, n_points, store)
        line = line_of_annotations(log_confidence, deviation)
        curve = _binned(log_confidence, deviation, points, n_points)
        notes, n_compared, source = [*read.notes, *said], len(points), "annotations"
    notes += _doubts(line)
    _write(root, study.keypoints, curve, line, source, n_compared, notes)
    return _summary(store, curve, line, source, n_compared, notes)


def _remove(root: access.Group, store: StoreLike, *, has_annotations: bool) -> CalibrateSummary:
    if has_annotations:
        raise InputError(
            expected="one of `annotations=` and `remove=True`",
            found="both",
            where=os.fspath(store),
            fix="`remove=True` takes the calibration away, `annotations=` makes another",
        )
    notes = []
    if access.subgroup(root, layout.CALIBRATION) is None:
        notes.append("there was no calibration")
    else:
        access.delete_group(root, layout.CALIBRATION)
        consolidate(root)
    nan = float("nan")
    return CalibrateSummary(os.fspath(store), "", nan, nan, nan, nan, 0, (), (), tuple(notes))


# ------------------------------------------------------------------ what cannot be calibrated


def _check_confidences(lowest: float, highest: float, store: StoreLike) -> None:
    if highest < lowest:
        found = "tracking without confidences"
    elif highest == lowest:
        found = f"confidences that are all {highest:g}"
    else:
        return
    raise _no_slope(found, store)


def _check_curve(curve: ErrorCurve, store: StoreLike) -> None:
    is_known = np.isfinite(curve.error)
    bins = np.flatnonzero(is_known.any(0))
    if len(bins) >= _FEWEST_BINS:
        return
    still, moving = curve.n_still, curve.n_moving
    why = f"an error in {len(bins)} of the bins of the confidence, a quarter wide each"
    if still:
        why += f"; in {counted(still, 'bin')} keypoints do not move at all from frame to frame"
    if moving:
        why += f"; in {counted(moving, 'bin')} errors cannot be told from movement"
    raise _no_slope(f"{why} (with {LEAST_COMPARED} positions or more each)", store)


def _no_slope(found: str, store: StoreLike) -> InputError:
    return InputError(
        expected="confidences that vary, to tell how the tracking error falls with them",
        found=found,
        where=os.fspath(store),
        fix="fit without a calibration: the level of the noise is found in the data by every fit; "
        "if the tracker has confidences, add the sessions again with them",
    )


def _left_out(curve: ErrorCurve) -> list[str]:
    notes = []
    if curve.n_still:
        notes.append(
            f"{counted(curve.n_still, 'bin')} of keypoints and confidences left out, in which they "
            "do not move at all from frame to frame: rounded, filtered or filled-in positions"
        )
    if curve.n_moving:
        notes.append(
            f"{counted(curve.n_moving, 'bin')} of keypoints and confidences left out, in which the "
            "error cannot be told from movement"
        )
    return notes


def _doubts(line: ErrorLine) -> list[str]:
    if line.slope < 2 * line.slope_error and line.slope > -2 * line.slope_error:
        return ["the error does not differ with the confidence by more than chance"]
    if line.slope > 0:
        return [
            "the error rises with the confidence: look at the picture before fits use it, or take "
            "it away again: `kpms_zarr.calibrate(STORE, remove=True)`"
        ]
    return []


# ------------------------------------------------------------------ annotations


def _clicked(root: access.Group, store: StoreLike) -> pd.DataFrame:
    """Positions that were clicked, where the keypoint could be seen."""
    table = click_table(stored_clicks(root), read_settings(root).space)
    if table.empty:
        raise InputError(
            expected="positions that were clicked",
            found="none in the store",
            where=os.fspath(store),
            fix="click some on the page Calibration: `kpms_zarr.explore(STORE)`; or give a table "
            "of them: `kpms_zarr.calibrate(STORE, annotations='FILE.csv')`",
        )
    return table


def _compare(
    reader: BlockReader,
    sessions: Sequence[Session],
    read: Annotations,
    n_points: int,
    store: StoreLike,
) -> tuple[np.ndarray, np.ndarray, np.ndarray, list[str]]:
    """Tracked positions less annotated ones, block by block, where confidences are known."""
    length = {session.index: session.n_frames for session in sessions}
    position = np.full(read.position.shape, np.nan)
    confidence = np.full(len(read.frame), np.nan)
    chunk = read.frame // FRAMES_PER_CHUNK
    for session, number in sorted(set(zip(read.session.tolist(), chunk.tolist(), strict=True))):
        rows = (read.session == session) & (chunk == number)
        start = number * FRAMES_PER_CHUNK
        block = Block(session, start, min(start + FRAMES_PER_CHUNK, length[session]))
        tracked, rating = reader.tracked(block)
        place = (read.frame[rows] - start, read.keypoint[rows])
        position[rows], confidence[rows] = tracked[place], rating[place]
    is_seen = np.isfinite(position).all(-1)
    used = is_seen & np.isfinite(confidence)
    notes = []
    for number, why in (
        (int((~is_seen).sum()), "the tracker had not found the keypoint"),
        (int((is_seen & ~used).sum()), "the tracking has no confidence"),
    ):
        if number:
            notes.append(f"{counted(number, 'annotation')} left out, where {why}")
    log_confidence = np.log10(confidence[used] + PSEUDOCOUNT)
    deviation = position[used] - read.position[used]
    span = np.ptp(log_confidence) if len(log_confidence) else 0.0
    is_enough = len(log_confidence) >= _FEWEST_ANNOTATIONS
    if not is_enough or span < _SMALLEST_SPAN or not np.median(np.square(deviation).sum(-1)) > 0:
        found = f"{len(log_confidence)} of {counted(len(used), 'annotation')} to compare"
        if is_enough:
            found = (
                f"annotations where confidences hardly vary (by a factor of {10**span:.2g})"
                if span < _SMALLEST_SPAN
                else "annotations that are the tracked positions"
            )
        raise InputError(
            expected=f"{_FEWEST_ANNOTATIONS} annotations or more, of high and of low confidence",
            found=found,
            where="`annotations=`",
            fix="annotate further frames, some in which the tracker was not sure",
        )
    return log_confidence, deviation, read.keypoint[used], notes


def _binned(
    log_confidence: np.ndarray, deviation: np.ndarray, points: np.ndarray, n_points: int
) -> ErrorCurve:
    """Annotations by keypoint and bin, for pictures."""
    shape = (n_points, N_BINS)
    number, mean, error = np.zeros(shape, np.int64), np.full(shape, np.nan), np.full(shape, np.nan)
    bins, square = bin_of(log_confidence), np.square(deviation).sum(-1)
    for point, one in sorted(set(zip(points.tolist(), bins.tolist(), strict=True))):
        rows = (points == point) & (bins == one)
        number[point, one], mean[point, one] = rows.sum(), log_confidence[rows].mean()
        scale = scale_of_lengths(square[rows], deviation.shape[1])
        if rows.sum() >= _FEWEST_OF_A_BIN and scale > 0:
            error[point, one] = scale
    return ErrorCurve(mean, error, number, 0, 0)


# ------------------------------------------------------------------ what is kept


def _write(
    root: access.Group,
    keypoints: Sequence[str],
    curve: ErrorCurve,
    line: ErrorLine,
    source: str,
    n_compared: int,
    notes: Sequence[str],
) -> None:
    values: dict[str, Any] = {
        "keypoint": np.asarray(keypoints, dtype=object),
        "confidence_bin": bin_edges(),
        "log_confidence": curve.log_confidence,
        "tracking_error": curve.error,
        "n_compared": curve.number,
    }
    settings = {"source": source, "pseudocount": PSEUDOCOUNT, "noise_dof": NOISE_DOF}
    attrs = {
        **settings,
        **line._asdict(),
        "n_compared": n_compared,
        "source_in_words": SOURCES[source],
        "notes": list(notes),
        **provenance("calibrate", settings),
    }
    write_group(root, layout.CALIBRATION, values, attrs)


def _summary(
    store: StoreLike,
    curve: ErrorCurve,
    line: ErrorLine,
    source: str,
    n_compared: int,
    notes: Sequence[str],
) -> CalibrateSummary:
    is_known = np.isfinite(curve.error)
    bins = np.flatnonzero(is_known.any(0))
    log_confidence = [float(curve.log_confidence[is_known[:, b], b].mean()) for b in bins]
    errors = [float(np.median(curve.error[is_known[:, b], b])) for b in bins]
    return CalibrateSummary(
        os.fspath(store),
        source,
        line.slope,
        line.intercept,
        line.slope_error,
        line.intercept_error,
        n_compared,
        tuple(max(0.0, 10**x - PSEUDOCOUNT) for x in log_confidence),
        tuple(errors),
        tuple(notes),
    )
