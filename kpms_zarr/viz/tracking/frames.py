"""Frames of one session, read in bounded pieces: traces of keypoints, and where they are worst."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import xarray as xr

from kpms_zarr.store.core.access import Session
from kpms_zarr.store.study.tracking import (
    PROBLEMS,
    STRETCH_SECONDS,
    Limits,
    find_problems,
    limits_of,
    read_tracked,
    row_of,
)
from kpms_zarr.viz.shared.decimation import extremes, joined_runs, thinned
from kpms_zarr.viz.shared.reading import sampled
from kpms_zarr.viz.tracking.data import check_problem, keypoint_row

_LINE_POINTS = 1200
_MARKS = 400  # Of each kind: with the line at most 2,000 points.
_MAX_GAPS = 400


@dataclass(frozen=True)
class Marks:
    """Frames of one keypoint that are marked in its trace.

    Attributes
    ----------
    frame : ndarray, (mark,) int
    value : ndarray, (mark,)
        In units of position.
    confidence : ndarray, (mark,)
    n_all : int
        Of which these were chosen.
    """

    frame: np.ndarray
    value: np.ndarray
    confidence: np.ndarray
    n_all: int


@dataclass(frozen=True)
class KeypointTrace:
    """One coordinate of one keypoint over time.

    Attributes
    ----------
    frame : ndarray, (point,) int
    value : ndarray, (point,)
        In units of position; NaN where the line is broken.
    confidence : ndarray, (point,)
    gaps : ndarray, (gap, 2) int
        Missing frames: the first, and the first after them.
    n_missing : int
        Missing frames in what was read.
    """

    keypoint: str
    space: str
    frame: np.ndarray
    value: np.ndarray
    confidence: np.ndarray
    low_confidence: Marks
    outlier: Marks
    gaps: np.ndarray
    n_missing: int


@dataclass(frozen=True)
class Traces:
    """Keypoints of a session over some time.

    Attributes
    ----------
    start, stop : int
        Frames.
    parts : tuple of (int, int)
        Ranges of frames that were read; more than one where only a sample was.
    traces : tuple of KeypointTrace
        Keypoint by keypoint, each axis of space.
    """

    session: Session
    start: int
    stop: int
    parts: tuple[tuple[int, int], ...]
    limits: Limits
    traces: tuple[KeypointTrace, ...]

    @property
    def n_read(self) -> int:
        """Number of frames that were read."""
        return sum(stop - start for start, stop in self.parts)


def read_traces(
    data: xr.Dataset,
    quality: xr.Dataset,
    session: Session,
    *,
    start: int,
    stop: int,
    keypoints: Sequence[str],
) -> Traces:
    """Read some keypoints over a range of frames, or a regular sample of its blocks.

    Parameters
    ----------
    data : Dataset
        The group ``keypoints``.
    quality : Dataset
        The group ``quality``: its thresholds say what is marked.
    session : Session
        Row of ``data``.
    start, stop : int
        Frames.
    """
    names = [str(name) for name in data["keypoint"].values]
    columns = [keypoint_row(names, name) for name in keypoints]
    limits = limits_of(quality, session.name)
    parts = sampled(start, stop)
    read = [read_tracked(data, session.index, slice(*part)) for part in parts]
    position = np.concatenate([values for values, _ in read])
    confidence = np.concatenate([values for _, values in read])
    frame = np.concatenate([np.arange(*part) for part in parts])
    problems = find_problems(position, confidence, limits)
    traces = tuple(
        _trace(
            (names[column], str(axis)),
            frame,
            position[:, column, dimension],
            confidence[:, column],
            problems[..., column],
            parts,
        )
        for column in columns
        for dimension, axis in enumerate(data["space"].values)
    )
    return Traces(session, start, stop, parts, limits, traces)


def _trace(
    names: tuple[str, str],
    frame: np.ndarray,
    value: np.ndarray,
    confidence: np.ndarray,
    problems: np.ndarray,
    parts: tuple[tuple[int, int], ...],
) -> KeypointTrace:
    """One coordinate: ``problems`` is (problem, frame)."""
    is_missing, is_low, is_outlier = problems
    value = np.where(is_missing, np.nan, value.astype(np.float64))
    kept = extremes(value, _LINE_POINTS - len(parts))
    # NaN where the next part begins: no line over what was not read.
    breaks = np.cumsum([stop - start for start, stop in parts])[:-1]
    at = np.searchsorted(kept, breaks)
    low, outlier = (
        _marks(frame, value, confidence, which & ~is_missing) for which in (is_low, is_outlier)
    )
    gaps = [frame[run[0]] + [0, run[1] - run[0]] for run in _runs_in_parts(is_missing, breaks)]
    return KeypointTrace(
        names[0],
        names[1],
        np.insert(frame[kept], at, frame[breaks]),
        np.insert(value[kept], at, np.nan),
        np.insert(confidence[kept].astype(np.float64), at, np.nan),
        low,
        outlier,
        np.array(gaps, dtype=np.int64).reshape(-1, 2),
        int(is_missing.sum()),
    )


def _runs_in_parts(is_missing: np.ndarray, breaks: np.ndarray) -> list[np.ndarray]:
    """Runs that end where a part ends, not too many of them."""
    pieces = np.split(is_missing, breaks)
    offset = np.concatenate([[0], breaks])
    most = max(1, _MAX_GAPS // len(pieces))
    found = [joined_runs(p, most) + o for p, o in zip(pieces, offset, strict=True)]
    return [run for piece in found for run in piece]


def _marks(
    frame: np.ndarray, value: np.ndarray, confidence: np.ndarray, which: np.ndarray
) -> Marks:
    at = np.flatnonzero(which)
    kept = at[thinned(at, value[at], len(frame), _MARKS)]
    return Marks(frame[kept], value[kept], confidence[kept].astype(np.float64), len(at))


# ------------------------------------------------------------------ the worst stretch


@dataclass(frozen=True)
class WorstStretch:
    """The worst 10 s of a keypoint in a session.

    Attributes
    ----------
    start, stop : float
        In s.
    is_sample : bool
        Whether only a sample of the session was searched.
    """

    start: float
    stop: float
    is_sample: bool


def worst_stretch(
    data: xr.Dataset, quality: xr.Dataset, session: Session, *, keypoint: str, what: str
) -> WorstStretch | None:
    """Find where a keypoint is worst: as stored, or searched for in at most eight blocks.

    Stored because a search on every click would read hours of frames to be sure; a count by an
    earlier release did not store it.

    Parameters
    ----------
    data, quality : Dataset
        The groups ``keypoints`` and ``quality``.
    what : str
        One of ``PROBLEMS``.

    Returns
    -------
    WorstStretch or None
        None where no frame has the problem.

    Raises
    ------
    InputError
        For names that are not there.
    """
    names = [str(name) for name in quality["keypoint"].values]
    column, problem = keypoint_row(names, keypoint), PROBLEMS.index(check_problem(what))
    row = row_of(quality, session.name)
    if "worst_start" in quality.variables:
        frame, is_sample = int(quality["worst_start"][row, column, problem]), False
    else:
        parts = sampled(0, session.n_frames)
        limits, width = limits_of(quality, session.name), round(STRETCH_SECONDS * session.fps)
        found = [_worst(data, session, part, limits, (problem, column), width) for part in parts]
        frame, is_sample = max(found)[1], len(parts) > 1
    if frame < 0:
        return None
    start = frame / session.fps
    end = session.n_frames / session.fps
    return WorstStretch(start, min(end, start + STRETCH_SECONDS), is_sample)


def _worst(
    data: xr.Dataset,
    session: Session,
    part: tuple[int, int],
    limits: Limits,
    which: tuple[int, int],
    width: int,
) -> tuple[int, int]:
    """Find the stretch with most bad frames in a part: their number, first frame (-1 = none)."""
    problem, column = which
    read = read_tracked(data, session.index, slice(*part))
    is_bad = find_problems(*read, limits)[problem, :, column]
    total = np.concatenate([[0], np.cumsum(is_bad)])
    width = max(1, min(width, len(is_bad)))
    number = total[width:] - total[:-width]
    best = int(number.argmax())
    return (int(number[best]), part[0] + best) if number[best] else (0, -1)
